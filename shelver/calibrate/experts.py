"""How far each expert is believed, so that the tree's probabilities are honest.

A model scores the slots of the tree by several experts: the linear part, a network on the text, one on the
picture, one on both. Their scores are added, weighed by expert and level, and the softmax among siblings makes
one coherent distribution of the sum. Weights are fitted for the least negative log likelihood on products that
no expert learned from. With one expert a weight is the inverse of a temperature (temperature scaling); with
several it is logarithmic pooling: text and picture are fused and calibrated in one convex fit. Text, picture
and both have weights of their own: a model is not equally sure of itself with either, and an expert that lacks
what it looks at counts nothing.

One sum of scores is too sure where the labels are noisy: experts that learned from the same labels err together.
So the answer may be a blend of several such distributions, each with a share (`shelver.calibrate.blend`). A blend
of coherent distributions is coherent.

Source:
    Guo et al. 2017, "On calibration of modern neural networks"; Genest and Zidek 1986, "Combining probability
    distributions: a critique and an annotated bibliography" (logarithmic pools).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from shelver.calibrate.modality import MODALITIES, Modality, can_answer
from shelver.calibrate.outside import Outside
from shelver.taxonomy import SiblingGroups

Weights = tuple[tuple[float, ...], ...]
"""E rows of L weights: expert by level, level 1 first."""

MIN_ROWS: Final = 50
"""Fewer rows than this say too little about one level; it takes the weights of the level above."""
PRIOR_ROWS: Final = 10.0
"""The fit is pulled towards equal weights as strongly as so many rows would."""
_STEPS: Final = 50
_ENOUGH: Final = 1e-7


class Part(BaseModel):
    """One distribution of a blend: the experts' scores with these weights, and its share of the whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, le=1)
    weights: Weights


class Calibration(BaseModel):
    """The weights of the experts' scores, and what else was learned from products that no expert learned from.

    Attributes:
        experts: their names, in the order in which `emb2prob.onnx` answers.
        needs: what each looks at; a "both" expert counts only where a product has text and picture.
        weights: for each modality, E rows of L numbers from 0: expert by level, level 1 first.
        blends: for a modality, the distributions that are added where one sum of scores is not honest enough;
            their shares sum to 1, and they take the place of `weights`.
        outside: how strange known products are; None where too few were held out, and in older models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experts: tuple[str, ...]
    needs: tuple[Modality, ...]
    weights: dict[Modality, Weights]
    blends: dict[Modality, tuple[Part, ...]] = {}
    outside: Outside | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So that a manifest of before these fields keeps its bytes, and its model its version.
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if value or name in ("experts", "needs", "weights")}

    @classmethod
    def even(cls, experts: Mapping[str, Modality], n_levels: int) -> Calibration:
        """All experts that have what they need count alike, and their weights sum to 1."""
        weights: dict[Modality, Weights] = {}
        for modality in MODALITIES:
            able = [can_answer(needs, modality) for needs in experts.values()]
            share = 1.0 / max(sum(able), 1)
            weights[modality] = tuple((share * ok,) * n_levels for ok in able)
        return cls(experts=tuple(experts), needs=tuple(experts.values()), weights=weights)

    def slot_weights(self, modality: Modality, groups: SiblingGroups) -> tuple[NDArray[np.float32] | None, ...]:
        """The weight of each slot's score, shape (M,), for each expert; None for one that counts nowhere."""
        return on_slots(self.weights[modality], groups)

    def ready(self, modality: Modality, groups: SiblingGroups) -> Believed:
        """How a modality is answered, laid out on the slots."""
        parts = self.blends.get(modality) or (Part(share=1.0, weights=self.weights[modality]),)
        return Believed(
            groups, tuple(part.share for part in parts), tuple(on_slots(part.weights, groups) for part in parts)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Believed:
    """What makes probabilities of the experts' scores, in one modality.

    Attributes:
        groups: the slots' sibling groups.
        shares: of the distributions that are added.
        slot_weights: for each of them, as `Calibration.slot_weights` gives them.
    """

    groups: SiblingGroups
    shares: tuple[float, ...]
    slot_weights: tuple[tuple[NDArray[np.float32] | None, ...], ...]

    def __call__(self, scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """P(node), shape (N, K), from E arrays of raw scores of the slots, (N, M)."""
        whole: NDArray[np.float32] | None = None
        for share, weights in zip(self.shares, self.slot_weights, strict=True):
            nodes = self.groups.distribution(pooled_scores(scores, weights))
            if len(self.shares) > 1:
                nodes *= np.float32(share)
            whole = nodes if whole is None else np.add(whole, nodes, out=whole)
        assert whole is not None
        return whole


def on_slots(
    weights: Weights | NDArray[np.float64], groups: SiblingGroups
) -> tuple[NDArray[np.float32] | None, ...]:
    """The weight of each slot's score, shape (M,), for each expert; None for one that counts nowhere."""
    slot_level = groups.level[groups.slot_group] - 1
    return tuple(row.astype(np.float32)[slot_level] if row.any() else None for row in np.asarray(weights))


def pooled_scores(
    scores: Sequence[NDArray[np.float32]], slot_weights: Sequence[NDArray[np.float32] | None]
) -> NDArray[np.float32]:
    """The experts' scores, E arrays of (N, M), added with their weights: logits (N, M) for the softmax among
    siblings."""
    total: NDArray[np.float32] | None = None
    for of_expert, weights in zip(scores, slot_weights, strict=True):
        if weights is not None:
            part = of_expert * weights
            total = part if total is None else np.add(total, part, out=total)
    return np.zeros_like(scores[0]) if total is None else total


class WeightFit:
    """Finds the weights of one modality, a level at a time.

    Takes scores batch by batch and keeps only those of the sibling groups that the labels pass.

    Args:
        groups: the slots' sibling groups.
        able: for each of the E experts, whether it has what it needs in this modality.
    """

    def __init__(self, groups: SiblingGroups, able: Sequence[bool]) -> None:
        self._groups = groups
        self._able = np.asarray(able, np.bool_)
        n_levels = groups.taxonomy.n_levels
        self._gathered: list[list[tuple[NDArray[np.float32], NDArray[np.intp]]]] = [[] for _ in range(n_levels)]

    def add(self, scores: Sequence[NDArray[np.float32]], nodes: NDArray[np.int32]) -> None:
        """Take in N products: E arrays of raw scores of the slots, (N, M), and labelled nodes, shape (N,)."""
        able = [part for part, ok in zip(scores, self._able, strict=True) if ok]
        for level, gathered in enumerate(self._gathered, start=1):
            gathered.append(group_scores(able, nodes, self._groups, level)[1:])

    def weights(self) -> Weights:
        """E rows of L weights; those of an expert that lacks what it needs are 0.

        A level of fewer than `MIN_ROWS` rows takes the weights of the level above, the first one equal ones.
        """
        n_able = int(self._able.sum())
        by_level: list[NDArray[np.float64]] = []
        for gathered in self._gathered:
            at = np.concatenate([places for _, places in gathered]) if gathered else np.zeros(0, np.intp)
            if len(at) >= MIN_ROWS and n_able:
                by_level.append(_best_weights(stacked([scores for scores, _ in gathered]), at))
            else:
                by_level.append(by_level[-1] if by_level else np.full(n_able, 1.0 / max(n_able, 1)))
        found = np.zeros((len(self._able), len(by_level)))
        if n_able:
            found[self._able] = np.stack(by_level, axis=1)
        return tuple(tuple(round(float(weight), 6) for weight in row) for row in found)


def stacked(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of several widths as one block, padded with -inf."""
    width = max(part.shape[2] for part in parts)
    whole = np.full((sum(map(len, parts)), parts[0].shape[1], width), -np.inf, np.float32)
    start = 0
    for part in parts:
        whole[start : start + len(part), :, : part.shape[2]] = part
        start += len(part)
    return whole


def group_scores(
    scores: Sequence[NDArray[np.float32]], nodes: NDArray[np.int32], groups: SiblingGroups, level: int
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """The rows whose label passes a sibling group with a choice at a level, shape (n,); the scores of that group,
    (n, E, width), padded with -inf; and the label's place in it, shape (n,)."""
    slots = groups.target_slots[nodes]
    rows, columns = np.nonzero((slots >= 0) & (groups.level[groups.slot_group[slots]] == level))
    slot = slots[rows, columns]
    group = groups.slot_group[slot]
    start, size = groups.start[group], groups.size[group]
    # Groups of one are certain with any weights; they would only water the fit down.
    choice = size > 1
    rows, slot, start, size = rows[choice], slot[choice], start[choice], size[choice]
    if not len(rows) or not len(scores):
        return np.zeros(0, np.intp), np.zeros((0, len(scores), 1), np.float32), np.zeros(0, np.intp)
    offset = np.arange(int(size.max()))
    inside = offset < size[:, None]
    index = np.minimum(start[:, None] + offset, scores[0].shape[1] - 1)
    gathered = np.stack([np.where(inside, part[rows[:, None], index], -np.inf) for part in scores], axis=1)
    return rows, gathered.astype(np.float32), (slot - start).astype(np.intp)


def _best_weights(scores: NDArray[np.float32], at: NDArray[np.intp]) -> NDArray[np.float64]:
    """The weights from 0 with the least loss, by Newton's method: the loss is convex in the weights.

    Args:
        scores: (n, E, width), -inf where a row's group is narrower.
        at: the label's place in its group, shape (n,).
    """
    n, n_experts, _ = scores.shape
    inside = np.isfinite(scores[:, 0])
    # Less the label's own score, which changes no softmax and lets the loss be read off directly.
    apart = np.where(inside[:, None], scores - scores[np.arange(n), :, at][:, :, None], np.float32(0))
    start = np.full(n_experts, 1.0 / n_experts)

    def terms(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        logits = np.where(inside, np.einsum("new,e->nw", apart, weights.astype(np.float32)), -np.inf)
        top = logits.max(axis=1)
        shares = np.exp(logits - top[:, None])
        total = shares.sum(axis=1)
        shares /= total[:, None]
        mean = np.einsum("new,nw->ne", apart, shares).astype(np.float64)
        square = np.einsum("new,nfw->ef", apart * shares[:, None], apart, optimize=True)
        return float((np.log(total) + top).sum()), mean.sum(axis=0), square.astype(np.float64) - mean.T @ mean

    _, _, spread = terms(start)
    # In units of each expert's own spread, so that the pull does not depend on the scale of its scores.
    pull = PRIOR_ROWS / n * np.maximum(np.diag(spread), 1e-6)

    def penalised(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        loss, gradient, hessian = terms(weights)
        away = weights - start
        return loss + 0.5 * float(pull @ away**2), gradient + pull * away, hessian + np.diag(pull)

    weights = start
    loss, gradient, hessian = penalised(weights)
    for _ in range(_STEPS):
        free = (weights > 0) | (gradient < 0)
        if not free.any():
            break
        step = np.zeros(n_experts)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        size = 1.0
        while size > 1e-4:
            tried = np.maximum(weights - size * step, 0.0)
            new = penalised(tried)
            if new[0] < loss:
                break
            size /= 2
        else:
            break
        gain = loss - new[0]
        weights, (loss, gradient, hessian) = tried, new
        if gain < _ENOUGH * max(abs(loss), 1.0):
            break
    return weights
