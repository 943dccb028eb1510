"""Thresholds that keep a promise: "with confidence 1 - delta, at least 95 % of all future decisions are right".

Whether a threshold keeps the promise is tested with labelled products that the model did not learn from: are the
mistakes among its decisions too few for a precision below the target? The test is exact (binomial). Many
thresholds are tried, so their order is fixed before anybody looks: down the `GRID`, from about halfway between the
target and 1 (`start_of`), until the first failure. Then each test may use the whole of delta: to promise too much,
the search must pass the test of the first threshold in that order at which the promise is false, and it does so
with probability delta at most.

That counts all searches, those that end in a refusal too. Where products are few, most do, and of the few promises
that are made many would be luck. So the tests use only a part of delta: the chance that a promise is made at all,
of decisions half as often wrong as the target allows (`most_wrong`). It depends on how many products are decided,
not on their labels. Decisions without a single mistake are let pass at delta itself. And where the start decides
too few, the search starts lower, between it and the target, where a promise of such decisions is more likely than
not: by their number too, so the argument holds wherever mistakes are no rarer among less sure decisions.

Levels below the shallowest that counts ask for more: a node there must itself be as probable as the target. A
wrong leaf under a right shelf spoils the precision of decisions that were safe one level up, so this covers more
products. Where everything is decided at last, the order goes on: down the `GRID` again for the deeper levels.

Source:
    Bauer 1991, "Multiple testing in clinical trials" (tests in a fixed sequence); Angelopoulos et al. 2021, "Learn
    then test: calibrating predictive algorithms to achieve risk control" (the same for thresholds); Clopper and
    Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate.binomial import at_most
from shelver.calibrate.turns import Bools, Counts, Floats, Paths, Turns
from shelver.errors import ConfigError, InputError
from shelver.taxonomy import Taxonomy

_STEEPEST, _FLATTEST, _STEP = 9.3, -4.0, 0.1
_START: Final = 0.55
"""The search starts so far below 1, as a share of the target's own distance to it."""
SUPPOSED: Final = 0.5
"""How often decisions at the start are taken to be wrong, as a share of what the target allows."""
_EVEN: Final = 0.5
_ROUNDING: Final = 1 + 1e-9
MOST_DECIDED: Final = 1_000_000
"""Where more decisions than this would have to be labelled, more labels are no help."""


def _grid() -> NDArray[np.float64]:
    # Even in the log odds: between .99 and .999 lies as much as between .9 and .99.
    odds = np.arange(_STEEPEST, _FLATTEST - _STEP / 2, -_STEP)
    return np.append(np.round(1 / (1 + np.exp(-odds)), 5), 0.0)


GRID: Final = _grid()
"""All thresholds that are ever tried, from strict to loose; at the last one everything is sure."""


@dataclass(frozen=True, slots=True)
class Found:
    """Thresholds that keep a promise, and what they rest on.

    Attributes:
        threshold: of the shallowest level that counts, and of deeper ones where `deeper` is lower or None.
        deeper: of deeper levels.
        strict: by node, thresholds of its branch, where they are higher than `threshold`.
        n_products, n_decided, n_right: of the labelled products.
    """

    threshold: float
    deeper: float | None
    strict: dict[int, float]
    n_products: int
    n_decided: int
    n_right: int

    @property
    def coverage(self) -> float:
        """Share of the products that are decided."""
        return self.n_decided / max(self.n_products, 1)

    def thresholds(self, min_level: int) -> tuple[float, ...]:
        """By level, as a policy has them; the last one goes on."""
        if self.deeper is None or self.deeper <= self.threshold:
            return (self.threshold,)
        return (self.threshold,) * min_level + (self.deeper,)


def start_of(target: float) -> float:
    """The threshold at which the search for a target precision starts, a little nearer to it than to 1.

    Where the probabilities are honest, decisions are surer on average than the threshold, so there is room to
    fall; much stricter thresholds decide too few products to pass any test.
    """
    return float(_from(1 - _START * (1 - target))[0])


def most_wrong(n_decided: int, target: float, delta: float = 0.05) -> int | None:
    """How many of so many decisions may be wrong for the target to be promised; None where even one without a
    mistake proves too little."""
    few = _few(n_decided, target, delta)
    if few is None and n_decided and target**n_decided <= delta * _ROUNDING:
        return 0
    return few


def fit_promise(
    paths: Paths,
    target: float,
    *,
    delta: float = 0.05,
    min_level: int = 1,
    strict: Mapping[int, float] | None = None,
    start: float | None = None,
) -> Found:
    """Find the loosest thresholds that the labelled products let us promise a precision for.

    With `strict` nodes, delta is shared evenly over their branches and the rest of the tree. The rest is tested on
    products whose path passes no such node. A branch has products and a search of its own: its decisions must
    reach its target, and all decisions of products that are led into it, those that stop above included, must
    reach the common one.

    Args:
        paths: of held-out labelled products.
        target: the precision to promise, in (0, 1).
        delta: the chance that the promise is broken by a bad draw of the products.
        min_level: the shallowest level that counts as a decision.
        strict: node → the precision to promise for decisions in its branch.
        start: where to start instead of `start_of(target)`; must be chosen without looking at these products.

    Raises:
        InputError: the products cannot carry the promise; says how many more would.
        ConfigError: a target or delta out of range, or strict nodes that lie below each other.
    """
    # A decoder that decides the end of a path or nothing has nothing to stop at above it.
    deeper = None if paths.whole else target
    everything, paths = paths, paths if deeper is None else paths.cut_where_unsure(deeper, min_level)
    branches = dict(strict or {})
    _check(paths.taxonomy, [target, *branches.values()], delta, branches)
    share = delta / (1 + len(branches))
    inside = {node: paths.through(node) for node in branches}
    rest = paths.of(~np.any([np.zeros(len(paths), np.bool_), *inside.values()], axis=0))
    turns = rest.turns(min_level)
    thresholds = _from(start_of(target) if start is None else start)
    n_decided, n_wrong = turns.counts(thresholds)
    if start is None:
        first = _first_worth(n_decided, thresholds, target, share)
        thresholds, n_decided, n_wrong = thresholds[first:], n_decided[first:], n_wrong[first:]
    further = GRID[target > GRID] if deeper is not None and not branches else GRID[:0]
    n_further, n_further_wrong = everything.turns_below(min_level).counts(further)
    n_decided, n_wrong = np.append(n_decided, n_further), np.append(n_wrong, n_further_wrong)
    last = _last_passed(_passed(n_wrong, n_decided, target, share))
    if last is None:
        raise _refusal(*turns.counts(thresholds), len(turns), thresholds, target, share, "")
    if last >= len(thresholds):
        deeper = float(further[last - len(thresholds)])
    tau, higher = float(thresholds[min(last, len(thresholds) - 1)]), dict[int, float]()
    decided, wrong = int(n_decided[last]), int(n_wrong[last])
    for node, own_target in branches.items():
        threshold, n, n_bad = _fit_branch(paths.of(inside[node]), node, tau, target, own_target, share, min_level)
        if threshold > tau:
            higher[node] = threshold
        decided, wrong = decided + n, wrong + n_bad
    return Found(tau, deeper, higher, len(paths), decided, decided - wrong)


def fit_threshold(
    turns: Turns, target: float, *, delta: float = 0.05, drawn_at: Floats | None = None, where: str = ""
) -> float:
    """The loosest threshold that lets us promise a precision: the same search, for decisions without a tree.

    Args:
        turns: of the decisions, one a product.
        target, delta: as in `fit_promise`.
        drawn_at: where products bring several decisions, from which threshold on each product brings one. Those of
            one product may err together: the share of mistakes counts as seen on so many products.
        where: what is promised, such as " for attribute 'colour'".

    Raises:
        InputError, ConfigError: as `fit_promise`.
    """
    _check_shares([target], delta)
    thresholds = _from(start_of(target))
    n_decided, n_wrong = turns.counts(thresholds)
    drawn, wrong, n_products = n_decided, n_wrong, len(turns)
    if drawn_at is not None:
        drawn, n_products = Turns(drawn_at, drawn_at).counts(thresholds)[0], len(drawn_at)
        wrong = -(-n_wrong * drawn // np.maximum(n_decided, 1))
    first = _first_worth(drawn, thresholds, target, delta)
    last = _last_passed(_passed(wrong[first:], drawn[first:], target, delta))
    if last is None:
        raise _refusal(drawn[first:], wrong[first:], n_products, thresholds[first:], target, delta, where)
    return float(thresholds[first + last])


def _fit_branch(
    paths: Paths, node: int, tau: float, target: float, own_target: float, delta: float, min_level: int
) -> tuple[float, int, int]:
    """The branch's threshold, and how many of the products led into it are decided, and how many wrongly."""
    level = int(paths.taxonomy.level[node])
    below = paths.turns(max(min_level, level))
    above = paths.turns(min_level, level - 1)
    thresholds = _from(start_of(own_target))
    thresholds = np.append(thresholds[thresholds > tau], tau)
    thresholds = thresholds[_first_worth(below.counts(thresholds)[0], thresholds, own_target, delta) :]
    n_in, n_in_wrong = below.counts(thresholds)
    at, sure_at = np.float32(tau), thresholds.astype(np.float32)[:, None]
    n_all = ((above.decided_at >= at) | (below.decided_at >= sure_at)).sum(axis=1)
    n_all_wrong = ((above.wrong_at >= at) | (below.wrong_at >= sure_at)).sum(axis=1)
    sure_inside = _passed(n_in_wrong, n_in, own_target, delta)
    last = _last_passed(sure_inside & _passed(n_all_wrong, n_all, target, delta))
    if last is None:
        branch = f"the branch {paths.taxonomy.paths[node]!r}"
        if not sure_inside[0]:
            raise _refusal(n_in, n_in_wrong, len(paths), thresholds, own_target, delta, f" in {branch}")
        where = f" of what is led into {branch}"
        raise _refusal(n_all, n_all_wrong, len(paths), thresholds, target, delta, where)
    return float(thresholds[last]), int(n_all[last]), int(n_all_wrong[last])


def least_decided(target: float, delta: float = 0.05, *, wrong_share: float = 0.0) -> int | None:
    """The fewest decisions that carry a promise when this share of them is wrong: 299 for .99 without a mistake.

    Returns:
        None where even `MOST_DECIDED` would not: the share is too near to what the target allows, or above it.
    """
    if wrong_share <= 0:
        return math.ceil(math.log(delta) / math.log(target) - 1e-9)

    def carries(n: int) -> bool:
        allowed = most_wrong(n, target, delta)
        return allowed is not None and math.ceil(wrong_share * n) <= allowed

    high = least_decided(target, delta) or 1
    while not carries(high):
        high *= 2
        if high > MOST_DECIDED:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if carries(middle) else (middle, high)
    return high


def _from(start: float) -> NDArray[np.float64]:
    return GRID[np.searchsorted(-GRID, -start - 1e-9) :]


def _few(n: int, target: float, delta: float) -> int | None:
    """The greatest k such that k mistakes or fewer are rare where the target is just missed: by delta rarer than
    where decisions are half as often wrong. None where there is none."""
    missed = 1 - target
    mean = n * missed
    k = np.arange(max(0, math.floor(mean - 12 * math.sqrt(mean))), math.floor(mean) + 1)
    rare = np.flatnonzero(at_most(k, n, missed) <= delta * at_most(k, n, SUPPOSED * missed))
    return int(k[rare[-1]]) if n and len(rare) else None


def _first_worth(n_decided: Counts, thresholds: NDArray[np.float64], target: float, delta: float) -> int:
    """The first threshold, down to the target, with so many decisions that, half as often wrong as is allowed,
    they would more likely be promised than not; the very first one where none has so many."""
    for i, n in enumerate(n_decided[thresholds >= target].tolist()):
        few = _few(n, target, delta)
        if few is not None and at_most(few, n, SUPPOSED * (1 - target)) >= _EVEN:
            return i
    return 0


def _passed(n_wrong: Counts, n_decided: Counts, target: float, delta: float) -> Bools:
    """Whether the mistakes are few enough, at the level that the first number of decisions allows."""
    few = _few(int(n_decided[0]), target, delta)
    level = 0.0 if few is None else float(at_most(few, n_decided[0], 1 - target))
    chance = at_most(n_wrong, n_decided, 1 - target)
    passed: Bools = (chance <= level) | ((n_wrong == 0) & (chance <= delta * _ROUNDING))
    return passed


def _last_passed(passed: Bools) -> int | None:
    """The last of the tests that pass before the first failure."""
    failed = np.flatnonzero(~passed)
    n_passed = int(failed[0]) if len(failed) else len(passed)
    return n_passed - 1 if n_passed else None


def _refusal(
    n_decided: Counts,
    n_wrong: Counts,
    n_products: int,
    thresholds: NDArray[np.float64],
    target: float,
    delta: float,
    where: str,
) -> InputError:
    """Why the search stopped at its start, and how many products more might carry the promise."""
    fewest = least_decided(target, delta)
    assert fewest is not None
    n, bad = int(n_decided[0]), int(n_wrong[0])
    said = (
        f"a precision of {target:g}{where} at delta {delta:g}: of {n_products:,} labelled products {n:,} are "
        f"decided at threshold {thresholds[0]:g}, where the search starts, {bad:,} of them wrongly"
    )
    needs: list[str] = []
    if n < fewest:
        more = f"about {math.ceil(fewest * n_products / n) - n_products:,}" if n else f"more than {fewest:,}"
        needs.append(f"{more} more labelled products if none of their decisions is wrong")
    # What is seen at each threshold goes on: where would the fewest products be enough?
    share = n_wrong / np.maximum(n_decided, 1)
    room = (1 - target - share) * np.sqrt(n_decided) * ((n_decided > 0) & (n_wrong > 0))
    best = int(room.argmax())
    if room[best] > 0 and (enough := least_decided(target, delta, wrong_share=float(share[best]))) is not None:
        missing = max(math.ceil(enough * n_products / int(n_decided[best])) - n_products, 1)
        needs.append(
            f"about {missing:,} more if {share[best]:.2%} of the decisions are wrong, as at threshold "
            f"{thresholds[best]:g}"
        )
    if needs:
        remedy = f"It needs {', or '.join(needs)}. Label more, or promise less."
    else:
        remedy = (
            f"At no threshold from there on were {target:.4g} of the decisions right, so more products alone will "
            "hardly help: promise less, or train a better model."
        )
    return InputError(
        f"these products cannot carry {said}",
        allowed=f"at least {fewest:,} decisions without a mistake, or more with few",
        remedy=remedy,
    )


def _check_shares(targets: list[float], delta: float) -> None:
    for name, value in [*(("precision", t) for t in targets), ("delta", delta)]:
        if not 0 < value < 1:
            raise ConfigError(f"{name} {value:g}", allowed="above 0 and below 1", remedy="Write .95, for example.")


def _check(tree: Taxonomy, targets: list[float], delta: float, branches: Mapping[int, float]) -> None:
    _check_shares(targets, delta)
    for node in branches:
        above = sorted(set(tree.ancestors(node).tolist()) & branches.keys())
        if above:
            raise ConfigError(
                f"strict nodes {tree.paths[above[0]]!r} and {tree.paths[node]!r}, one below the other",
                allowed="branches that do not overlap",
                remedy="Keep one of the two.",
            )
