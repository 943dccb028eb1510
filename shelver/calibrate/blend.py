"""A blend of distributions, where one sum of the experts' scores is not honest enough.

Experts that learned from the same noisy labels err together, and no temperature mends that: a sum sharp enough
for the easy products is too sure of the few that somebody labelled by whim, and one mild enough for these hides
what it knows of all others. A blend can be both: most of the belief goes to the sum of the scores, sharpened, and
a share each to single experts, softened. Where they agree, the answer stays sure; where they do not, it says so.
The parts are whole distributions on the tree, so what a part doubts at level 1 it doubts below too.

Shares and sharpness (one a part and level) have the greatest likelihood on held-out products, found by expectation
maximisation with a Newton step each time. A blend is taken only where it is better on products that it was not
fitted on either.

Source:
    Dempster et al. 1977, "Maximum likelihood from incomplete data via the EM algorithm"; Zhang et al. 2020,
    "Mix-n-match: ensemble and compositional methods for uncertainty calibration" (blended temperatures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate.experts import PRIOR_ROWS, Part, Weights, group_scores, on_slots, pooled_scores, stacked
from shelver.taxonomy import SiblingGroups

Floats = NDArray[np.float64]

MIN_BLENDED: Final = 400
"""Fewer held-out products than this cannot say how to share belief."""
MAX_SLOTS: Final = 2_000
"""Each part is a softmax over the whole tree: on a tree of thousands of nodes a blend would cost more than it is
worth, some 100 us a product and part. Who fits one looks first."""
MIN_SHARE: Final = 0.02
"""A part of a smaller share is not worth its time."""
SURE: Final = 1.0
"""Standard errors by which a blend must be better than the plain sum, on products it was not fitted on."""
_FIRST_SHARE, _SHARPER, _SOFTER = 0.6, 1.25, 0.8
_STEPS: Final = 150
_ENOUGH: Final = 1e-5
_MAX_NUMBERS: Final = 40_000_000
_USUAL_ROWS: Final = 10_000


class _Level(NamedTuple):
    """One level of the labels' paths: the rows with a choice there, and each part's scores less the label's."""

    rows: NDArray[np.intp]
    apart: NDArray[np.float32]
    inside: NDArray[np.bool_]


class BlendFit:
    """Finds the parts of one modality.

    Args:
        groups: the slots' sibling groups.
        whole: weights that are honest by themselves, E rows of L.
        alone: the same of single experts, each with zeros for the others.
    """

    def __init__(self, groups: SiblingGroups, whole: Weights, alone: Sequence[NDArray[np.float64]]) -> None:
        self._groups = groups
        self._weights = [np.asarray(whole, np.float64), *(np.asarray(weights) for weights in alone)]
        self._slots = [on_slots(weights, groups) for weights in self._weights]
        self._gathered: list[list[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]]] = [
            [] for _ in range(groups.taxonomy.n_levels)
        ]
        # A flat tree of ten thousand leaves would fill the memory: of such, every so many products are looked at.
        numbers = len(self._weights) * sum(
            int(groups.size[groups.level == level].max(initial=0)) for level in range(1, len(self._gathered) + 1)
        )
        self._every = max(1, numbers * _USUAL_ROWS // _MAX_NUMBERS)
        self.n = 0

    def add(self, scores: Sequence[NDArray[np.float32]], nodes: NDArray[np.int32]) -> None:
        """Take in N products: E arrays of raw scores of the slots, (N, M), and labelled nodes, shape (N,)."""
        nodes = nodes[:: self._every]
        thinned = [of_expert[:: self._every] for of_expert in scores]
        pooled = [pooled_scores(thinned, weights) for weights in self._slots]
        for level, gathered in enumerate(self._gathered, start=1):
            rows, apart, at = group_scores(pooled, nodes, self._groups, level)
            gathered.append((rows + self.n, apart, at))
        self.n += len(nodes)

    def parts(self) -> tuple[Part, ...]:
        """The parts of the blend, or none where the plain sum is as good."""
        if self.n < MIN_BLENDED:
            return ()
        levels = [_level(gathered) for gathered in self._gathered]
        fold = np.arange(self.n) % 2
        better = np.empty(self.n)
        for held in (0, 1):
            shares, sharpness = _fit(levels, len(self._weights), fold != held)
            blended = _likelihood(levels, shares, sharpness, self.n)
            plain = _likelihood(levels, np.eye(len(shares))[0], np.ones_like(sharpness), self.n)
            better[fold == held] = (blended - plain)[fold == held]
        if better.mean() < SURE * better.std() / self.n**0.5:
            return ()
        shares, sharpness = _fit(levels, len(self._weights), np.ones(self.n, np.bool_))
        return tuple(
            Part(
                share=round(float(share), 6),
                weights=tuple(tuple(round(float(w), 6) for w in row) for row in weights * by_level),
            )
            for share, weights, by_level in zip(shares, self._weights, sharpness, strict=True)
            if share > 0
        )


def _level(gathered: list[tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]]) -> _Level:
    scores = stacked([of for _, of, _ in gathered])
    at = np.concatenate([places for _, _, places in gathered])
    inside = np.isfinite(scores[:, 0])
    # Less the label's own score, which changes no softmax and lets the likelihood be read off directly.
    apart = np.where(inside[:, None], scores - scores[np.arange(len(at)), :, at][:, :, None], np.float32(0))
    return _Level(np.concatenate([rows for rows, _, _ in gathered]), apart, inside)


def _softmax(level: _Level, part: int, sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Minus the logarithm of what a part gives the label, shape (n,), and of all siblings, (n, width)."""
    logits = np.where(level.inside, level.apart[:, part] * np.float32(sharpness), np.float32(-np.inf))
    top = logits.max(axis=1, keepdims=True)
    shares = np.exp(logits - top)
    total = shares.sum(axis=1, keepdims=True)
    shares /= total
    return (np.log(total) + top)[:, 0], shares


def _by_part(levels: Sequence[_Level], sharpness: Floats, n: int) -> Floats:
    """The logarithm of what each part gives the labelled places, shape (n, C)."""
    found = np.zeros((n, len(sharpness)))
    for number, level in enumerate(levels):
        for part in range(len(sharpness)):
            # A level holds a row once at most.
            found[level.rows, part] -= _softmax(level, part, sharpness[part, number])[0]
    return found


def _likelihood(levels: Sequence[_Level], shares: Floats, sharpness: Floats, n: int) -> Floats:
    """The logarithm of what the blend gives the labelled places, shape (n,)."""
    with np.errstate(divide="ignore"):  # a part without a share
        return _log_sum(_by_part(levels, sharpness, n) + np.log(shares))


def _log_sum(logs: Floats) -> Floats:
    top = logs.max(axis=1, keepdims=True)
    summed: Floats = (np.log(np.exp(logs - top).sum(axis=1, keepdims=True)) + top)[:, 0]
    return summed


def _fit(levels: Sequence[_Level], n_parts: int, rows: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Shares (C,), 0 for parts that are not worth it, and sharpness (C, L).

    Args:
        levels: of all rows.
        n_parts: C.
        rows: those to fit on, shape (N,).
    """
    alive = np.ones(n_parts, np.bool_)
    shares = np.full(n_parts, (1 - _FIRST_SHARE) / max(n_parts - 1, 1))
    shares[0] = _FIRST_SHARE
    start = np.full((n_parts, len(levels)), _SOFTER)
    start[0] = _SHARPER
    sharpness = start.copy()
    used = [_taken(level, rows[level.rows]) for level in levels]
    while True:
        shares, sharpness = _climb(used, shares, sharpness, start, alive, rows)
        faint = alive & (shares < MIN_SHARE)
        faint[0] = False
        if not faint.any():
            return shares, sharpness
        alive &= ~faint
        shares = np.where(alive, shares, 0.0) / shares[alive].sum()


def _taken(level: _Level, of: NDArray[np.bool_]) -> _Level:
    return level if of.all() else _Level(level.rows[of], level.apart[of], level.inside[of])


def _climb(
    levels: Sequence[_Level],
    shares: Floats,
    sharpness: Floats,
    start: Floats,
    alive: NDArray[np.bool_],
    rows: NDArray[np.bool_],
) -> tuple[Floats, Floats]:
    """Expectation maximisation from where it stands; arguments as in `_fit`."""
    prior = PRIOR_ROWS * shares
    n, before = len(rows), -np.inf
    pull: Floats | None = None
    for _ in range(_STEPS):
        logs = np.zeros((n, len(shares)))
        moments: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        for number, level in enumerate(levels):
            for part in np.flatnonzero(alive).tolist():
                loss, of = _softmax(level, part, sharpness[part, number])
                logs[level.rows, part] -= loss
                of *= level.apart[:, part]
                mean = of.sum(axis=1, dtype=np.float64)
                moments[part, number] = mean, np.einsum("nw,nw->n", of, level.apart[:, part]) - mean**2
        with np.errstate(divide="ignore"):
            logs = logs[rows] + np.log(shares)
        total = _log_sum(logs)
        if total.sum() - before < _ENOUGH * len(total):
            break
        before = float(total.sum())
        owed = np.zeros((n, len(shares)))
        owed[rows] = np.exp(logs - total[:, None])
        slope, bend = np.zeros_like(sharpness), np.zeros_like(sharpness)
        for (part, number), (mean, spread) in moments.items():
            slope[part, number] = owed[levels[number].rows, part] @ mean
            bend[part, number] = owed[levels[number].rows, part] @ spread
        if pull is None:  # as strong as so many products, in each part's own units
            pull = np.maximum(bend, 1e-6) * PRIOR_ROWS / np.maximum(owed.sum(axis=0), 1.0)[:, None]
        step = (slope + pull * (sharpness - start)) / (bend + pull)
        sharpness = np.clip(sharpness - step, sharpness / 1.5, sharpness * 1.5)
        shares = (owed.sum(axis=0) + prior) / (rows.sum() + prior.sum())
    return shares, sharpness
