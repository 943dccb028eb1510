"""From probabilities of values to what is said of a product beside its shelf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.attributes import Vocabulary
from shelver.calibrate import MODALITIES, Modality
from shelver.decide.policy import SURE, AttributeRule, Policy
from shelver.errors import ConfigError, ShapeError
from shelver.taxonomy import Taxonomy

EVEN: Final = 0.5
"""From here on one of several values is more likely there than not."""
_SHOWN: Final = 10
"""So many names are listed in an error."""


@dataclass(frozen=True, eq=False, slots=True)
class Applying:
    """The attributes that a model has learned, and where in its tree each applies.

    Attributes:
        names: of the A attributes.
        values: names of the values of each.
        multi: whether a product may have several of them.
        applies: which attributes apply to which nodes, shape (K, A).
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    multi: tuple[bool, ...]
    applies: NDArray[np.bool_]

    @classmethod
    def of(cls, vocabulary: Vocabulary, taxonomy: Taxonomy) -> Applying:
        """Those of a vocabulary, on a tree."""
        attributes = vocabulary.attributes
        return cls(
            names=tuple(attribute.name for attribute in attributes),
            values=tuple(tuple(value.name for value in attribute.values) for attribute in attributes),
            multi=tuple(attribute.multi for attribute in attributes),
            applies=vocabulary.applies(taxonomy),
        )


@dataclass(frozen=True, slots=True)
class AttributeAnswer:
    """What is said of one product for one attribute.

    Attributes:
        value: the value's name; of an attribute that takes several, the names of all that are sure, the surest
            first.
        confidence: P(the value is right); of several, that of the least sure one.
        source: what carried it: the text alone would have said it, the picture alone, or both.
    """

    value: str | tuple[str, ...]
    confidence: float
    source: Modality

    def as_json(self) -> dict[str, Any]:
        """For a JSON object; six digits, as finer ones mean nothing."""
        value = self.value if isinstance(self.value, str) else list(self.value)
        return {"value": value, "confidence": min(round(self.confidence, 6), 1.0), "source": self.source}


@dataclass(frozen=True, eq=False, slots=True)
class AttributeColumn:
    """What is said of N products for one attribute: R answered values, at most one a row unless `multi`.

    Attributes:
        values: names that `value` points into.
        multi: a row may have several values, the surest first.
        row: which product, shape (R,), int32, ascending.
        value: which value, shape (R,), int32.
        confidence: P(the value is right), shape (R,), float32.
        source: what carried it, shape (R,), int8: 1 text, 2 image, 3 both.
    """

    values: tuple[str, ...]
    multi: bool
    row: NDArray[np.int32]
    value: NDArray[np.int32]
    confidence: NDArray[np.float32]
    source: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.row)


def answer_attributes(
    found: Mapping[str, NDArray[np.float32]],
    sources: Mapping[str, NDArray[np.int8]],
    *,
    modality: NDArray[np.int8],
    node: NDArray[np.integer],
    applying: Applying,
    rules: Mapping[str, AttributeRule],
) -> dict[str, AttributeColumn]:
    """Answer every attribute that applies, as far as the rules allow.

    Of an attribute that takes one value, the most probable one is answered where it reaches the rule's threshold;
    of one that takes several, each value that does. A rule without a threshold, or no rule: everything is sure
    enough for the former, and what is more likely than not for the latter.

    Args:
        found, sources: as `Probabilities.attributes` and `Probabilities.sources`, of N products. An attribute that
            is not among them is not answered; without its source, what the product has is taken for it.
        modality: as in `Probabilities`, shape (N,).
        node: at which each product stands, -1 where nothing is to be answered, shape (N,).
        applying: the attributes of the model.
        rules: a policy's, by name.

    Returns:
        By name a column for each attribute that is answered at all, in the model's order.

    Raises:
        ShapeError: probabilities that are not (N, V) for an attribute's V values.
    """
    columns: dict[str, AttributeColumn] = {}
    answered = np.flatnonzero(node >= 0)
    applies = applying.applies[node[answered]]
    for a, (name, values, multi) in enumerate(zip(applying.names, applying.values, applying.multi, strict=True)):
        rule = rules.get(name, _NO_RULE)
        if name not in found or not rule.answer:
            continue
        probs = found[name]
        if probs.shape != (len(node), len(values)):
            raise ShapeError(
                f"probabilities of shape {probs.shape} for attribute {name!r}",
                allowed=f"({len(node)}, {len(values)}), a column for each of its values",
                remedy="Take them from the Emb2Prob stage of the same model folder.",
            )
        row, value, confidence = _sure(probs, answered[applies[:, a]], least_of(rule, multi=multi), multi=multi)
        source = sources.get(name, modality)[row]
        columns[name] = AttributeColumn(
            values=values,
            multi=multi,
            row=row.astype(np.int32),
            value=value.astype(np.int32),
            confidence=confidence,
            source=np.where(source > 0, source, modality[row]).astype(np.int8),
        )
    return columns


def least_of(rule: AttributeRule, *, multi: bool) -> float:
    """From which probability on a value is answered."""
    if rule.threshold is not None:
        return rule.threshold
    return EVEN if multi else SURE


def check_rules(policy: Policy, applying: Applying | None) -> None:
    """See to it that the model has the attributes that a policy names.

    Raises:
        ConfigError: it lacks one.
    """
    names = applying.names if applying is not None else ()
    unknown = [name for name in policy.attributes if name not in names]
    if not unknown:
        return
    listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise ConfigError(
        f"the policy's `attributes` names {unknown[0]!r}{more}, which this model has not learned",
        allowed=f"the attributes of the model: {listed}" if names else "none: this model has learned no attribute",
        remedy="Take it out of the policy, or train a model that learns it.",
    )


def answers_of(columns: Mapping[str, AttributeColumn], start: int, stop: int) -> list[dict[str, AttributeAnswer]]:
    """Rows `start` to `stop` as people read them, by the attribute's name; without what is not answered."""
    rows: list[dict[str, AttributeAnswer]] = [{} for _ in range(start, stop)]
    for name, column in columns.items():
        begin, end = np.searchsorted(column.row, (start, stop)).tolist()
        part = slice(begin, end)
        for row, value, confidence, source in zip(
            (column.row[part] - start).tolist(),
            column.value[part].tolist(),
            column.confidence[part].tolist(),
            column.source[part].tolist(),
            strict=True,
        ):
            said: str | tuple[str, ...] = column.values[value]
            if column.multi:
                before = rows[row].get(name)
                said = (*before.value, column.values[value]) if before is not None else (column.values[value],)
            rows[row][name] = AttributeAnswer(said, confidence, MODALITIES[source - 1])
    return rows


def concatenate_attributes(
    parts: Sequence[Mapping[str, AttributeColumn]], n_rows: Sequence[int]
) -> dict[str, AttributeColumn]:
    """The columns of several batches of one model as one; `n_rows` are the batches' products."""
    offsets = np.concatenate([[0], np.cumsum(n_rows)[:-1]]) if len(n_rows) else ()
    names = dict.fromkeys(name for part in parts for name in part)
    joined: dict[str, AttributeColumn] = {}
    for name in names:
        with_it = [(part[name], offset) for part, offset in zip(parts, offsets, strict=True) if name in part]
        columns = [column for column, _ in with_it]
        joined[name] = AttributeColumn(
            values=columns[0].values,
            multi=columns[0].multi,
            row=np.concatenate([column.row + offset for column, offset in with_it]).astype(np.int32),
            value=np.concatenate([column.value for column in columns]),
            confidence=np.concatenate([column.confidence for column in columns]),
            source=np.concatenate([column.source for column in columns]),
        )
    return joined


_NO_RULE: Final = AttributeRule()


def _sure(
    probs: NDArray[np.float32], rows: NDArray[np.intp], least: float, *, multi: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Rows, values and probabilities of what is sure, among these rows; rows ascend."""
    # As float32 is compared: .9 in a file must not ask for more than a probability of .9 has.
    threshold = np.float32(least)
    if multi:
        of_these = probs[rows]
        at, value = np.nonzero((of_these >= threshold) & (of_these > 0))
        confidence = of_these[at, value]
        order = np.lexsort((-confidence, at))
        return rows[at[order]], value[order], confidence[order]
    value = probs[rows].argmax(axis=1) if probs.shape[1] else np.zeros(len(rows), np.intp)
    confidence = probs[rows, value] if probs.shape[1] else np.zeros(len(rows), np.float32)
    # Zeros are no answer: there was nothing to make it from.
    sure = (confidence >= threshold) & (confidence > 0)
    return rows[sure], value[sure], confidence[sure]
