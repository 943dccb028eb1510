"""Temperatures that make the tree's probabilities honest.

A temperature divides the raw scores of all sibling groups of one level before their softmax, so the result stays
one coherent distribution over the tree. Text, picture and both are calibrated apart: a model is not equally sure
of itself with either.

Source:
    Guo et al. 2017, "On calibration of modern neural networks".
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from shelver.taxonomy import SiblingGroups

Modality = Literal["text", "image", "both"]
MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "both")

MIN_ROWS: Final = 50
"""Fewer validation rows than this say too little about one temperature; the level takes its neighbour's."""
_LOG_RANGE: Final = (-1.5, 1.75)
"""Temperatures from 0.22 to 5.8; beyond, a few validation rows are speaking, not the model."""


class Calibration(BaseModel):
    """One temperature a level for each way of asking.

    Attributes:
        temperatures: for each modality, L positive numbers; level 1 first; 1 changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperatures: dict[Modality, tuple[float, ...]]

    @classmethod
    def none(cls, n_levels: int) -> Calibration:
        return cls(temperatures=dict.fromkeys(MODALITIES, (1.0,) * n_levels))


class TemperatureFit:
    """Finds the temperatures with the least negative log likelihood of the labels, a level at a time.

    Takes scores batch by batch and keeps only those of the sibling groups that the labels pass.

    Args:
        groups: the slots' sibling groups.
        n_levels: L; a "here" slot counts to the level of its node's children.
    """

    def __init__(self, groups: SiblingGroups, n_levels: int) -> None:
        self._groups = groups
        self._gathered: list[list[tuple[NDArray[np.float32], NDArray[np.intp]]]] = [[] for _ in range(n_levels)]

    def add(self, scores: NDArray[np.float32], nodes: NDArray[np.int32]) -> None:
        """Take in N products: raw scores of the slots, shape (N, M), and labelled nodes, shape (N,)."""
        for level, gathered in enumerate(self._gathered, start=1):
            gathered.append(_group_scores(scores, nodes, self._groups, level))

    def temperatures(self) -> tuple[float, ...]:
        """L temperatures; a level of fewer than `MIN_ROWS` rows takes that of the level above, the first one 1."""
        temperatures: list[float] = []
        for gathered in self._gathered:
            at = np.concatenate([places for _, places in gathered]) if gathered else np.zeros(0, np.intp)
            if len(at) < MIN_ROWS:
                temperatures.append(temperatures[-1] if temperatures else 1.0)
            else:
                temperatures.append(_best_temperature(_stacked([scores for scores, _ in gathered]), at))
        return tuple(temperatures)


def _stacked(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of several widths as one rectangle, padded with -inf."""
    whole = np.full((sum(map(len, parts)), max(part.shape[1] for part in parts)), -np.inf, np.float32)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return whole


def _group_scores(
    scores: NDArray[np.float32], nodes: NDArray[np.int32], groups: SiblingGroups, level: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Scores of the sibling group that each label passes at a level, padded with -inf, and the label's place."""
    slots = groups.target_slots[nodes]
    rows, columns = np.nonzero((slots >= 0) & (groups.level[groups.slot_group[slots]] == level))
    if not len(rows):
        return np.zeros((0, 1), np.float32), np.zeros(0, np.intp)
    slot = slots[rows, columns]
    group = groups.slot_group[slot]
    start, size = groups.start[group], groups.size[group]
    # Groups of one are certain at any temperature; they would only water the fit down.
    choice = size > 1
    rows, slot, start, size = rows[choice], slot[choice], start[choice], size[choice]
    width = int(size.max(initial=1))
    offset = np.arange(width)
    inside = offset < size[:, None]
    index = np.minimum(start[:, None] + offset, scores.shape[1] - 1)
    gathered = np.where(inside, scores[rows[:, None], index], -np.inf).astype(np.float32)
    return gathered, (slot - start).astype(np.intp)


def _best_temperature(gathered: NDArray[np.float32], at: NDArray[np.intp]) -> float:
    shifted = gathered - gathered.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(at)), at].astype(np.float64)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(np.log(np.exp(shifted * inverse).sum(axis=1)) - chosen * inverse))

    # The loss is convex in 1 / T, so it has one minimum and golden sections find it.
    low, high = _LOG_RANGE
    ratio = (5**0.5 - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    while high - low > 1e-3:
        if loss_a < loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - ratio * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + ratio * (high - low)
            loss_b = loss(b)
    return float(np.exp((low + high) / 2))
