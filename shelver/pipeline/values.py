"""Scores to calibrated probabilities of an attribute's values, and which source carried the most probable one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.attributes import Attribute
from shelver.calibrate import MODALITIES, Believed
from shelver.registry import AttributeHead
from shelver.taxonomy import SiblingGroups, Taxonomy

Scores = Sequence[NDArray[np.float32]]


def value_groups(attribute: Attribute) -> SiblingGroups:
    """An attribute as a flat tree, so that it is calibrated as categories are: its values or, where it takes
    several, the two answers to "is it this one?"."""
    names = ["yes", "no"] if attribute.multi else [value.name for value in attribute.values]
    return SiblingGroups.of(Taxonomy.from_parents(list(map(str, range(len(names)))), names, [None] * len(names)))


def yes_or_no(scores: Scores) -> list[NDArray[np.float32]]:
    """Scores of V values that stand each for itself, (N, V), as those of N * V questions, (N * V, 2)."""
    return [np.stack([part.reshape(-1), np.zeros(part.size, np.float32)], axis=1) for part in scores]


@dataclass(frozen=True, slots=True, eq=False)
class ValueAnswer:
    """One learned attribute, ready to answer.

    Attributes:
        attribute: with the values that were learned, V of them.
        file: the ONNX file that scores it.
        slots: where its scores stand among the file's.
        believed: how each modality is answered, in the order of `MODALITIES`.
    """

    attribute: Attribute
    file: str
    slots: slice
    believed: tuple[Believed, ...]

    @classmethod
    def of(cls, attribute: Attribute, head: AttributeHead) -> ValueAnswer:
        groups = value_groups(attribute)
        believed = tuple(head.calibration.ready(modality, groups) for modality in MODALITIES)
        return cls(attribute, head.file, slice(head.start, head.start + len(attribute.values)), believed)

    def __call__(self, scores: Scores, modality: NDArray[np.int8]) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """P(value), shape (N, V), and what carries each row's most probable value, shape (N,), as `modality`.

        Args:
            scores: of the file's slots, E arrays of (N, M).
            modality: what each row has, as in `Probabilities`.
        """
        of_values = [part[:, self.slots] for part in scores]
        probs = np.zeros((len(modality), len(self.attribute.values)), np.float32)
        sources = modality.copy()
        for code in range(1, len(MODALITIES) + 1):
            rows = np.flatnonzero(modality == code)
            if not len(rows):
                continue
            of_these = [part[rows] for part in of_values]
            probs[rows] = found = self._answer(of_these, code)
            if code == 3:
                # Either source alone would have said it, or only one of them; where neither would, both carry it.
                best = found.argmax(axis=1)
                alone = [self._answer(of_these, bit).argmax(axis=1) == best for bit in (1, 2)]
                said = alone[0] + 2 * alone[1]
                sources[rows] = np.where(said == 0, 3, said)
        return probs, sources

    def _answer(self, scores: Scores, code: int) -> NDArray[np.float32]:
        believed = self.believed[code - 1]
        if not self.attribute.multi:
            return believed(scores)
        return believed(yes_or_no(scores))[:, 0].reshape(scores[0].shape)
