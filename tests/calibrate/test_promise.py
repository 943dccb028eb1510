"""Thresholds that keep a promise: what is counted, what is tested, what is refused."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta, binom

from shelver.calibrate.binomial import at_most, interval
from shelver.calibrate.promise import GRID, fit_promise, least_decided, most_wrong, start_of
from shelver.calibrate.turns import Paths, Turns
from shelver.decide import Policy, Probabilities, decide
from shelver.decide.policy import Decoder
from shelver.errors import ConfigError, InputError
from shelver.metrics import right_as_promised
from shelver.taxonomy import SiblingGroups, Taxonomy

BAR, DECK, LAMPS, CARS = 5, 6, 3, 4


def paths_of(
    tree: Taxonomy, ends: list[int], sure: list[list[float]], truth: list[int], *, whole: bool = False
) -> Paths:
    level_confidence = np.full((len(ends), tree.n_levels), np.nan, np.float32)
    for row, probs in zip(level_confidence, sure, strict=True):
        row[: len(probs)] = probs
    return Paths(tree, np.array(ends), level_confidence, np.array(truth), whole)


def lamps(tree: Taxonomy, n_right: int, n_wrong: int = 0, *, sure: float = 0.999) -> Paths:
    """Products that are led to Lamps, all as surely; the wrong ones are cars."""
    n = n_right + n_wrong
    return paths_of(tree, [LAMPS] * n, [[sure, sure]] * n, [LAMPS] * n_right + [CARS] * n_wrong)


def drawn(n: int, seed: int, *, too_sure: float = 1.0) -> tuple[Taxonomy, SiblingGroups, Probabilities, NDArray]:  # type: ignore[type-arg]
    """Products of a tree of 4 x 3 x 2, their true nodes, and a model that is surer than it should be."""
    shape = product("abcd", "xyz", "12")
    tree = Taxonomy.from_paths([tuple(names) for names in shape])
    groups = SiblingGroups.of(tree)
    rng = np.random.default_rng(seed)
    scores = (rng.gumbel(size=(n, groups.n_slots)) * 4 * np.exp(rng.normal(size=(n, 1)))).astype(np.float32)
    true = groups.distribution(scores)[:, tree.leaves].cumsum(axis=1)
    at = (true < rng.random((n, 1)) * true[:, -1:]).sum(axis=1)
    nodes = groups.distribution(scores * np.float32(too_sure))
    return tree, groups, Probabilities(nodes, np.ones(n, np.int8)), tree.leaves[at]


def led(probs: Probabilities, groups: SiblingGroups, truth: NDArray[np.int32], policy: Policy) -> Paths:
    furthest = policy.model_copy(update={"thresholds": (0.0,), "min_level": 1})
    said = decide(probs, groups.taxonomy, groups, furthest)
    whole = policy.decoder == "best_leaf" and policy.unsure != "stop"
    return Paths(groups.taxonomy, np.where(said.answered, said.node, -1), said.level_confidence, truth, whole)


def test_the_binomial_distribution_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 4000, 500)
    p = rng.uniform(0.001, 0.999, 500)
    k = np.where(np.arange(500) % 2, rng.binomial(n, p), rng.integers(0, n + 1))
    np.testing.assert_allclose(at_most(k, n, p), binom.cdf(k, n, p), atol=1e-10)
    np.testing.assert_allclose(at_most(0, 299, 0.01), 0.99**299, rtol=1e-9)
    low, high = interval(k, n, 0.9)
    np.testing.assert_allclose(low, np.where(k > 0, beta.ppf(0.05, k, n - k + 1), 0), atol=1e-9)
    np.testing.assert_allclose(high, np.where(k < n, beta.ppf(0.95, k + 1, n - k), 1), atol=1e-9)


@pytest.mark.parametrize("decoder", ["greedy", "climb", "best_leaf"])
@pytest.mark.parametrize("stops", [False, True])
def test_turns_count_what_decide_decides(decoder: Decoder, stops: bool, seven: Taxonomy) -> None:
    rng = np.random.default_rng(7)
    groups = SiblingGroups.of(seven, np.array([True, True] + [False] * 5) if stops else None)
    nodes = groups.distribution(rng.normal(scale=3, size=(400, groups.n_slots)).astype(np.float32))
    probs, truth = Probabilities(nodes, np.ones(400, np.int8)), rng.integers(0, 7, 400).astype(np.int32)
    for min_level, max_level, unsure in product((1, 2), (None, 2), ("abstain", "stop")):
        policy = Policy.model_validate(
            {"decoder": decoder, "min_level": min_level, "max_level": max_level, "unsure": unsure}
        )
        turns = led(probs, groups, truth, policy).turns(min_level)
        thresholds = (0.0, 0.2, 0.5, 0.61234, 0.9, 0.999)
        n_decided, n_wrong = turns.counts(thresholds)
        for i, threshold in enumerate(thresholds):
            said = decide(probs, seven, groups, policy.model_copy(update={"thresholds": (threshold,)}))
            node = np.where(said.answered, said.node, -1)
            right = right_as_promised(seven, truth, node, min_level=min_level)
            assert n_decided[i] == said.answered.sum()
            assert n_wrong[i] == said.answered.sum() - right.sum()
        assert 0 < n_wrong[3] < n_decided[3]


def test_299_decisions_without_a_mistake_carry_99_percent_and_298_do_not(seven: Taxonomy) -> None:
    assert least_decided(0.99) == 299
    assert (most_wrong(299, 0.99), most_wrong(298, 0.99)) == (0, None)
    found = fit_promise(lamps(seven, 299), 0.99)
    assert (found.threshold, found.n_decided, found.n_right, found.coverage) == (0.0, 299, 299, 1.0)
    with pytest.raises(InputError, match="299") as refused:
        fit_promise(lamps(seven, 298), 0.99)
    assert "about 1 more labelled products if none" in refused.value.remedy


def test_mistakes_are_allowed_only_where_half_as_many_would_be_promised_much_oftener() -> None:
    for n, target in product((200, 600, 3000), (0.9, 0.95, 0.99)):
        k = most_wrong(n, target)
        if k:
            bad, good = (binom.cdf([k, k + 1], n, share * (1 - target)) for share in (1, 0.5))
            assert bad[0] <= 0.05 * good[0]
            assert bad[1] > 0.05 * good[1]
            assert 1 - beta.ppf(0.95, k + 1, n - k) > target  # so Clopper and Pearson agree


def test_a_refusal_says_how_many_more_would_do(seven: Taxonomy) -> None:
    few = lamps(seven, 397, 3)
    with pytest.raises(InputError) as refused:
        fit_promise(few, 0.98)
    said = re.search(r"about ([\d,]+) more if 0.75% of the decisions are wrong", refused.value.remedy)
    assert said is not None
    n = 400 + int(said[1].replace(",", ""))
    assert fit_promise(lamps(seven, n - round(0.0075 * n), round(0.0075 * n)), 0.98).n_products == n
    with pytest.raises(InputError, match="more products alone will hardly help"):
        fit_promise(lamps(seven, 300, 100), 0.98)
    with pytest.raises(InputError, match="more than 59 more labelled products"):
        fit_promise(lamps(seven, 300, sure=0.5), 0.95)


def test_the_search_goes_down_from_its_start_and_ends_at_the_first_failure(seven: Taxonomy) -> None:
    assert list(GRID) == sorted(GRID, reverse=True)
    start = start_of(0.9)
    assert 0.9 < start < 0.95
    # Sure and right, less sure and wrong, unsure and right again: nobody looks beyond the wrong ones.
    parts = [(400, 0.99, LAMPS), (100, 0.7, CARS), (5000, 0.3, LAMPS)]
    sure = [[p, p] for n, p, _ in parts for _ in range(n)]
    truth = [node for n, _, node in parts for _ in range(n)]
    paths = paths_of(seven, [LAMPS] * len(truth), sure, truth)
    found = fit_promise(paths, 0.9)
    assert 0.7 < found.threshold < 0.72
    assert (found.n_products, found.n_decided, found.n_right) == (5500, 400, 400)
    assert fit_promise(paths, 0.9, start=0.2).threshold == 0  # all of them are few enough
    with pytest.raises(InputError, match="start"):
        fit_promise(paths, 0.9, start=0.7)


def test_a_decision_above_the_shallowest_level_is_none(seven: Taxonomy) -> None:
    # Led to Bar; truly a deck chair: right down to Chairs.
    paths = paths_of(seven, [BAR], [[0.9, 0.8, 0.4]], [DECK])
    n_decided, n_wrong = paths.turns(2).counts([0.85, 0.8, 0.4])
    assert (n_decided.tolist(), n_wrong.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert paths.turns(3).counts(0.4)[1].tolist() == [1]
    whole = paths_of(seven, [BAR], [[0.9, 0.8, 0.4]], [DECK], whole=True)
    assert whole.turns(1).counts([0.41, 0.4])[0].tolist() == [0, 1]
    none = paths_of(seven, [-1], [[]], [DECK])
    assert none.turns(1).counts(0.0)[0].tolist() == [0]


def test_promises_are_kept_by_all_but_a_few_draws_and_plain_thresholds_are_not() -> None:
    _, groups, probs, truth = drawn(20_000, 3, too_sure=1.2)
    paths = led(probs, groups, truth, Policy(decoder="greedy"))
    turns = paths.turns()
    everything = dict(zip(GRID.tolist(), zip(*turns.counts(GRID), strict=True), strict=True))
    rng = np.random.default_rng(4)
    kept, plain, covered = [], [], []
    for _ in range(150):
        rows = np.zeros(len(paths), np.bool_)
        rows[rng.choice(len(paths), 600, replace=False)] = True
        try:
            found = fit_promise(paths.of(rows), 0.9)
        except InputError:
            continue
        assert found.deeper is not None
        (n,), (bad,) = paths.cut_where_unsure(found.deeper, 1).turns().counts(found.threshold)
        kept.append(n - bad >= 0.9 * n)
        covered.append(n / len(paths))
        n_drawn, bad_drawn = turns.of(rows).counts(GRID)
        n, bad = everything[float(GRID[np.flatnonzero(n_drawn - bad_drawn >= 0.9 * n_drawn)[-1]])]
        plain.append(n - bad >= 0.9 * n)
    best = max(n for n, bad in everything.values() if n - bad >= 0.9 * n) / len(paths)
    assert len(kept) > 100
    assert np.mean(kept) >= 0.92
    assert np.mean(plain) < 0.8
    assert np.mean(covered) > 0.8 * best


@pytest.mark.parametrize(("target", "min_level"), [(0.9, 1), (0.9, 2), (0.7, 1), (0.5, 1)])
def test_deeper_levels_have_a_threshold_of_their_own_and_what_was_counted_is_what_is_decided(
    target: float, min_level: int
) -> None:
    _, groups, probs, truth = drawn(5_000, 5, too_sure=1.0)
    tree = groups.taxonomy
    paths = led(probs, groups, truth, Policy(decoder="greedy"))
    found = fit_promise(paths, target, min_level=min_level)
    policy = Policy(
        decoder="greedy", thresholds=found.thresholds(min_level), min_level=min_level, unsure="abstain"
    )
    said = decide(probs, tree, groups, policy)
    right = said.answered & (tree.lca_level(said.node, truth) == tree.level[said.node])
    assert (int(said.answered.sum()), int(right.sum())) == (found.n_decided, found.n_right)
    assert found.deeper is not None
    assert found.deeper <= target
    if found.deeper < target:  # everything was decided, and then deeper levels gave way
        assert found.threshold == 0
        assert found.coverage == 1
    one = paths.turns(min_level).counts(GRID)
    best = max(n for n, bad in zip(*one, strict=True) if n - bad >= target * n)
    assert found.n_decided > 0.9 * best


def test_a_strict_branch_has_a_threshold_and_a_search_of_its_own(seven: Taxonomy) -> None:
    # Toys: the surest 400 cars are right, of 200 less sure ones 20 are lamps. Home: all right.
    n_home = 600
    ends = [LAMPS] * n_home + [CARS] * 600
    sure = [[0.99, 0.99]] * n_home + [[0.999, 0.999]] * 400 + [[0.8, 0.8]] * 200
    truth = [LAMPS] * n_home + [CARS] * 580 + [LAMPS] * 20
    paths = paths_of(seven, ends, sure, truth)
    common = fit_promise(paths, 0.9)
    assert (common.threshold, common.strict, common.n_decided) == (0.0, {}, 1200)
    toys = 1
    found = fit_promise(paths, 0.9, strict={toys: 0.99})
    assert found.threshold == 0
    assert 0.8 < found.strict[toys] < 0.82
    assert (found.n_decided, found.n_right) == (1000, 1000)
    # What was counted is what such a policy decides.
    policy = Policy(decoder="greedy", thresholds=(found.threshold,), strict={"Toys": found.strict[toys]})
    nodes = np.zeros((1200, 7), np.float32)
    nodes[:n_home, [0, LAMPS]] = 0.99
    nodes[n_home:, [1, CARS]] = np.array([p[0] for p in sure[n_home:]], np.float32)[:, None]
    said = decide(Probabilities(nodes, np.ones(1200, np.int8)), seven, SiblingGroups.of(seven), policy)
    assert said.answered.sum() == found.n_decided


def test_a_branch_that_is_stopped_above_still_keeps_the_common_promise(seven: Taxonomy) -> None:
    # Led to Chairs > Bar. Chairs is strict; where it is not sure, Home is decided.
    chairs = 2
    ends = [BAR] * 1000 + [CARS] * 300
    sure = [[0.999, 0.998, 0.998]] * 500 + [[0.99, 0.93, 0.93]] * 500 + [[0.99, 0.99]] * 300
    truth = [BAR] * 500 + [LAMPS] * 500 + [CARS] * 300
    found = fit_promise(paths_of(seven, ends, sure, truth), 0.9, strict={chairs: 0.98})
    assert 0.93 < found.strict[chairs] < 0.94
    assert (found.n_decided, found.n_right) == (1300, 1300)
    astray = [BAR] * 500 + [CARS] * 500 + [CARS] * 300  # now Home is wrong as well, and at delta / 2 too often
    with pytest.raises(InputError, match="of what is led into the branch 'Home > Chairs'"):
        fit_promise(paths_of(seven, ends, sure, astray), 0.9, strict={chairs: 0.98})


def test_a_branch_without_enough_products_is_named(seven: Taxonomy) -> None:
    paths = paths_of(seven, [LAMPS] * 500 + [CARS] * 20, [[0.999, 0.999]] * 520, [LAMPS] * 500 + [CARS] * 20)
    with pytest.raises(InputError, match="in the branch 'Toys'") as refused:
        fit_promise(paths, 0.9, strict={1: 0.99})
    assert "at least 368 decisions" in refused.value.allowed  # at half of delta


def test_numbers_out_of_range_and_branches_in_branches_are_mistakes(seven: Taxonomy) -> None:
    paths = lamps(seven, 100)
    for precision, delta in ((1.0, 0.05), (0.0, 0.05), (0.9, 0.0), (0.9, 1.0)):
        with pytest.raises(ConfigError):
            fit_promise(paths, precision, delta=delta)
    with pytest.raises(ConfigError, match="below the other"):
        fit_promise(paths, 0.9, strict={0: 0.95, 2: 0.99})
    assert Turns(np.zeros(0, np.float32), np.zeros(0, np.float32)).counts(0.5)[0].tolist() == [0]
