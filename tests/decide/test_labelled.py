"""Promises for attributes: kept by all but a few draws, refused where products are too few, counted as decided."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from shelver.attributes import Attribute, Value, Vocabulary
from shelver.calibrate.promise import GRID, fit_promise, fit_threshold
from shelver.calibrate.turns import Paths, Turns
from shelver.decide import Applying, AttributeRule, Policy, Probabilities
from shelver.decide.labelled import Batch, Evidence, evidence_of, fit_attributes, fit_rule, judge_attributes
from shelver.errors import ConfigError, InputError
from shelver.pipeline import Prob2Pred
from shelver.product import Product
from shelver.taxonomy import SiblingGroups, Taxonomy

COLOURS = ("red", "blue", "green", "black")
ROOMS = ("hall", "bath", "garden")
VOCABULARY = Vocabulary(
    attributes=(
        Attribute(name="colour", values=tuple(Value(name=name) for name in COLOURS)),
        Attribute(name="rooms", values=tuple(Value(name=name) for name in ROOMS), nodes=("Chairs",), multi=True),
    )
)
VERSIONS = {"model_version": "0" * 12, "catalog_version": "1" * 16, "split": "test"}


@pytest.fixture
def prob2pred(seven: Taxonomy) -> Prob2Pred:
    return Prob2Pred(seven, SiblingGroups.of(seven), Applying.of(VOCABULARY, seven))


def single(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Evidence:
    return Evidence(False, len(right), np.arange(len(right)), confidence, right)


def answers(n: int, seed: int, *, too_sure: float = 1.0) -> Evidence:
    """One answer a product, right as often as it says, or less often."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(4, 0.7, n)
    return single(sure.astype(np.float32), rng.random(n) < sure**too_sure)


def drawn(seven: Taxonomy, n: int, seed: int) -> tuple[list[Product], Probabilities]:
    """Labelled products: a colour for nine in ten, rooms for all, and a model that is about honest."""
    rng = np.random.default_rng(seed)
    groups = SiblingGroups.of(seven)
    nodes = groups.distribution(rng.normal(scale=3, size=(n, groups.n_slots)).astype(np.float32))
    colour = np.exp(rng.gumbel(size=(n, len(COLOURS))) * 3)
    colour /= colour.sum(axis=1, keepdims=True)
    truth = (colour.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, len(COLOURS) - 1)
    rooms = rng.beta(0.4, 0.4, (n, len(ROOMS)))
    has = rng.random(rooms.shape) < rooms
    products = []
    for i in range(n):
        said = {"rooms": tuple(room for room, there in zip(ROOMS, has[i], strict=True) if there)}
        if i % 10:
            said["colour"] = (COLOURS[truth[i]],)
        products.append(Product(str(i), attributes={name: values for name, values in said.items() if values}))
    found = {"colour": colour.astype(np.float32), "rooms": rooms.astype(np.float32)}
    return products, Probabilities(nodes, np.ones(n, np.int8), attributes=found)


def batches(products: list[Product], probs: Probabilities, size: int = 100) -> Iterator[Batch]:
    for start in range(0, len(products), size):
        part = slice(start, start + size)
        found = {name: values[part] for name, values in probs.attributes.items()}
        yield products[part], Probabilities(probs.nodes[part], probs.modality[part], attributes=found)


def test_a_threshold_is_that_of_a_tree_of_depth_one() -> None:
    values = Taxonomy.from_paths([(name,) for name in "abcdef"])
    rng = np.random.default_rng(5)
    for target in (0.8, 0.9, 0.95):
        sure = rng.beta(5, 0.5, 900).astype(np.float32)
        node, truth = rng.integers(0, 6, 900), rng.integers(0, 6, 900)
        truth = np.where(rng.random(900) < sure, node, truth)
        paths = Paths(values, node, sure[:, None], truth, whole=True)
        expected = fit_promise(paths, target)
        threshold, kept = fit_rule("colour", single(sure, node == truth), target)
        assert threshold == expected.threshold
        assert (len(kept.right), int(kept.right.sum())) == (expected.n_decided, expected.n_right)


def test_every_threshold_passed_is_one_that_the_exact_test_lets_pass() -> None:
    for seed in range(20):
        evidence = answers(800, seed, too_sure=1.3)
        try:
            threshold, kept = fit_rule("colour", evidence, 0.9)
        except InputError:
            continue
        n, n_wrong = len(kept.right), int((~kept.right).sum())
        assert binom.cdf(n_wrong, n, 0.1) <= 0.05
        assert threshold in GRID
        assert (evidence.confidence[evidence.confidence >= np.float32(threshold)].size, n) == (n, n)


def test_promises_are_kept_by_all_but_a_few_draws() -> None:
    everything = answers(40_000, 1, too_sure=1.3)
    turns = Turns(everything.confidence, np.where(everything.right, np.float32(-np.inf), everything.confidence))
    rng = np.random.default_rng(2)
    kept, covered = [], []
    for _ in range(150):
        rows = rng.choice(len(everything.right), 600, replace=False)
        try:
            threshold, _ = fit_rule("colour", single(everything.confidence[rows], everything.right[rows]), 0.9)
        except InputError:
            continue
        (n,), (bad,) = turns.counts(threshold)
        kept.append(n - bad >= 0.9 * n)
        covered.append(n / len(turns))
    counts = zip(*turns.counts(GRID), strict=True)
    best = max(n for n, bad in counts if n - bad >= 0.9 * n) / len(turns)
    assert len(kept) > 100
    assert np.mean(kept) >= 0.92
    assert np.mean(covered) > 0.8 * best


def test_promises_are_kept_where_the_nodes_thresholds_were_fitted_on_the_same_products() -> None:
    """An attribute that is wrong exactly where the node is: the draw that flatters one flatters the other."""
    everything = answers(20_000, 11, too_sure=1.3)
    rng = np.random.default_rng(12)
    # The attribute is as sure as the node, or as sure as of some other product.
    n = len(everything.right)
    about = np.where(rng.random(n) < 0.5, everything.confidence, rng.permutation(everything.confidence))
    kept = []
    for _ in range(120):
        rows = rng.choice(n, 800, replace=False)
        try:
            node_at, _ = fit_rule("node", single(everything.confidence[rows], everything.right[rows]), 0.9)
            is_decided = everything.confidence >= np.float32(node_at)
            drawn = np.flatnonzero(is_decided[rows])
            evidence = Evidence(False, len(rows), drawn, about[rows][drawn], everything.right[rows][drawn])
            threshold, _ = fit_rule("colour", evidence, 0.9)
        except InputError:
            continue
        kept.append(everything.right[is_decided & (about >= np.float32(threshold))].mean() >= 0.9)
    assert len(kept) > 60
    assert np.mean(kept) >= 0.92


def test_the_chance_to_promise_too_much_stays_small_where_a_product_s_values_share_one_fate() -> None:
    n, each, target = 300, 5, 0.9
    sure = np.full(n * each, 0.999, np.float32)

    def most_let_pass(several: bool) -> int:
        """How many products may have nothing but wrong values."""
        for n_bad in range(n):
            right = np.repeat(np.arange(n) >= n_bad, each)
            evidence = Evidence(True, n, np.repeat(np.arange(n), each), sure, right)
            try:
                fit_rule("rooms", evidence if several else single(sure, right), target)
            except InputError:
                return n_bad - 1
        raise AssertionError

    # One product in ten is wrong, so the promise is just not true.
    assert 0.01 < binom.cdf(most_let_pass(several=True), n, 1 - target) <= 0.05
    assert binom.cdf(most_let_pass(several=False), n, 1 - target) > 0.1


def test_values_that_share_a_fate_count_as_one_answer() -> None:
    one = answers(700, 8)
    several = Evidence(True, 700, np.repeat(one.product, 3), np.repeat(one.confidence, 3), np.repeat(one.right, 3))
    threshold, kept = fit_rule("rooms", several, 0.9)
    of_one, kept_of_one = fit_rule("rooms", one, 0.9)
    assert threshold == max(of_one, 0.5)
    assert len(kept.right) == 3 * len(kept_of_one.at(0.5).right)


def test_too_few_products_are_refused_with_how_many_more_are_needed() -> None:
    sure = np.full(298, 0.999, np.float32)
    with pytest.raises(InputError, match="for attribute 'colour'") as refused:
        fit_rule("colour", single(sure, np.ones(298, np.bool_)), 0.99)
    assert "about 1 more labelled products if none" in refused.value.remedy
    threshold, kept = fit_rule("colour", single(np.append(sure, sure[:1]), np.ones(299, np.bool_)), 0.99)
    assert (threshold, len(kept.right)) == (0.0, 299)
    nothing = Evidence(False, 0, np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.bool_))
    with pytest.raises(InputError, match="of 0 labelled products") as refused:
        fit_rule("colour", nothing, 0.9)
    assert "more than 29 more labelled products" in refused.value.remedy
    for precision, delta in ((1.0, 0.05), (0.9, 0.0)):
        with pytest.raises(ConfigError):
            fit_threshold(Turns(sure, sure), precision, delta=delta)


def test_unlabelled_products_say_nothing_and_unanswered_ones_cost_coverage(
    seven: Taxonomy, prob2pred: Prob2Pred
) -> None:
    products, probs = drawn(seven, 400, 0)
    said = prob2pred(probs, Policy())
    found = evidence_of(products, said)
    assert found["colour"].n_products == found["colour"].n_answered == 360
    by_hand = [
        (one.attributes["colour"].value,) == product.attributes["colour"]
        for product, one in zip(products, said, strict=True)
        if "colour" in product.attributes
    ]
    assert found["colour"].right.tolist() == by_hand
    rooms = found["rooms"]
    known = [bool(product.attributes.get("rooms")) for product in products]
    assert rooms.n_products == sum(known)
    n_right = n = 0
    for product, one, there in zip(products, said, known, strict=True):
        if there and "rooms" in one.attributes:
            n += len(one.attributes["rooms"].value)
            n_right += len(set(one.attributes["rooms"].value) & set(product.attributes["rooms"]))
    assert (len(rooms.right), int(rooms.right.sum())) == (n, n_right)
    assert 0 < rooms.n_answered < rooms.n_products  # rooms are only answered of chairs


def test_a_fitted_policy_answers_what_was_counted_and_is_held_to_its_word(
    seven: Taxonomy, prob2pred: Prob2Pred
) -> None:
    products, probs = drawn(seven, 3000, 1)
    start = Policy(thresholds=(0.5,), unsure="abstain", attributes={"colour": AttributeRule(answer=False)})
    wanted = {"rooms": 0.85, "colour": 0.9}
    policy = fit_attributes(batches(products, probs), prob2pred, start, wanted, delta=0.05, **VERSIONS)
    assert policy.model_copy(update={"attributes": start.attributes}) == start
    judged = judge_attributes(batches(products, probs, 77), prob2pred, {"fitted": policy, "plain": Policy()})
    assert [(one.policy, one.attribute) for one in judged] == [
        *(("fitted", "colour"), ("fitted", "rooms"), ("plain", "colour"), ("plain", "rooms"))
    ]
    for one in judged[:2]:
        promise = policy.attributes[one.attribute].promise
        assert promise is not None
        assert (promise.precision, promise.delta) == (wanted[one.attribute], 0.05)
        assert (promise.model_version, promise.split) == ("0" * 12, "test")
        assert (promise.n_products, promise.n_decided, promise.n_right) == (
            *(one.n_products, one.n_answers, one.n_right),
        )
        assert promise.coverage == pytest.approx(one.coverage, abs=1e-6)
        assert one.precision is not None
        assert one.precision >= promise.precision
        assert one.promise == "kept"
    rooms = policy.attributes["rooms"].threshold
    assert rooms is not None
    assert rooms >= 0.5
    fresh, of_fresh = drawn(seven, 6000, 2)
    for one in judge_attributes(batches(fresh, of_fresh), prob2pred, {"fitted": policy}):
        assert one.promise == "kept"
    plain = {one.attribute: one for one in judged if one.policy == "plain"}
    assert plain["colour"].coverage == 1
    assert plain["colour"].promised is None
    assert plain["colour"].promise is None


def test_a_broken_word_is_called_broken(seven: Taxonomy, prob2pred: Prob2Pred) -> None:
    products, probs = drawn(seven, 1500, 3)
    policy = fit_attributes(batches(products, probs), prob2pred, Policy(), {"colour": 0.9}, delta=0.05, **VERSIONS)
    others = [Product(p.product_id, attributes={"colour": ("mauve",)}) for p in products]
    (one,) = judge_attributes(batches(others, probs), prob2pred, {"fitted": policy})
    assert (one.n_right, one.precision, one.promise) == (0, 0.0, "broken")
    assert one.n_answers > 0


def test_an_attribute_without_labels_or_without_the_model_is_refused(
    seven: Taxonomy, prob2pred: Prob2Pred
) -> None:
    products, probs = drawn(seven, 200, 4)
    bare = [Product(product.product_id) for product in products]
    with pytest.raises(InputError, match=r"for attribute 'colour'.*of 0 labelled products"):
        fit_attributes(batches(bare, probs), prob2pred, Policy(), {"colour": 0.9}, delta=0.05, **VERSIONS)
    assert judge_attributes(batches(bare, probs), prob2pred, {"default": Policy()}) == []
    with pytest.raises(ConfigError, match="'size'"):
        fit_attributes(batches(products, probs), prob2pred, Policy(), {"size": 0.9}, delta=0.05, **VERSIONS)
