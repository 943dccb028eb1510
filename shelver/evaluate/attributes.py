"""How well attributes are answered: labels and answers gathered batch by batch, then counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver import metrics
from shelver.attributes import Vocabulary
from shelver.calibrate import MODALITIES, Modality
from shelver.decide import Predictions
from shelver.decide.attributes import AttributeColumn
from shelver.evaluate.attribute_parts import AttributeFigures, AttributeReport, SourceFigures, ValueMistake
from shelver.evaluate.figures import PRECISIONS, curve_of, honesty, short
from shelver.evaluate.parts import Curve
from shelver.metrics import Pairs
from shelver.product import Product

N_CONFUSIONS: Final = 20

Codes = dict[str, int]


@dataclass(frozen=True, slots=True)
class Judged:
    """One attribute: its labels, and what was answered, for the N products that have a label of it.

    Attributes:
        n: products.
        multi: a product may have several values.
        labels: products and their labelled values.
        answers: products and the values answered for them.
        confidence: of each answer, shape (R,), float32.
        source: what carried each answer, shape (R,), int8, as `AttributeColumn.source`.
        modality: what each product was answered from, shape (N,), int8.
    """

    n: int
    multi: bool
    labels: Pairs
    answers: Pairs
    confidence: NDArray[np.float32]
    source: NDArray[np.int8]
    modality: NDArray[np.int8]

    def of(self, rows: NDArray[np.bool_]) -> Judged:
        """Some of the products, by a mask of shape (N,)."""
        if rows.all():
            return self
        place = np.cumsum(rows) - 1
        labels, kept = self.labels[rows[self.labels.row]], rows[self.answers.row]
        answers = self.answers[kept]
        return Judged(
            int(rows.sum()),
            self.multi,
            Pairs(place[labels.row], labels.value),
            Pairs(place[answers.row], answers.value),
            self.confidence[kept],
            self.source[kept],
            self.modality[rows],
        )

    def scores(self) -> metrics.ValueScores:
        """How right the answers are; there must be a product."""
        return metrics.value_scores(self.labels, self.answers, self.n)

    def exactly_right(self) -> NDArray[np.bool_]:
        """Which products have exactly their labelled values, shape (N,)."""
        return metrics.exactly_right(self.labels, self.answers, self.n)


def concatenated(parts: Sequence[Judged]) -> Judged:
    """Several batches as one."""
    before = np.cumsum([0, *(part.n for part in parts)])

    def joined(pairs: Iterable[Pairs]) -> Pairs:
        shifted = [(one.row + n, one.value) for one, n in zip(pairs, before.tolist(), strict=False)]
        return Pairs(np.concatenate([row for row, _ in shifted]), np.concatenate([value for _, value in shifted]))

    return Judged(
        int(before[-1]),
        parts[0].multi,
        joined(part.labels for part in parts),
        joined(part.answers for part in parts),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.modality for part in parts]),
    )


def judge(
    products: Sequence[Product], name: str, column: AttributeColumn, modality: NDArray[np.int8], codes: Codes
) -> Judged:
    """Lay the labels of N products beside what was answered for them.

    Of an attribute that takes one value, the first label counts. An empty list of values says nothing.

    Args:
        products: with their labels.
        name: of the attribute.
        column: what was answered for these products.
        modality: what each was answered from, shape (N,).
        codes: value → code; labels that are not there are added.

    Returns:
        What there is of the products that have a label.
    """
    rows: list[int] = []
    of_row: list[int] = []
    values: list[int] = []
    for row, product in enumerate(products):
        labelled = product.attributes.get(name)
        if not labelled:
            continue
        for value in dict.fromkeys(labelled) if column.multi else labelled[:1]:
            of_row.append(len(rows))
            values.append(codes.setdefault(value, len(codes)))
        rows.append(row)
    kept = np.array(rows, np.intp)
    place = np.full(len(products), -1, np.int32)
    place[kept] = np.arange(len(kept))
    answered = place[column.row] >= 0
    return Judged(
        len(kept),
        column.multi,
        Pairs(np.array(of_row, np.int32), np.array(values, np.int32)),
        Pairs(place[column.row[answered]], column.value[answered]),
        column.confidence[answered],
        column.source[answered],
        modality[kept],
    )


@dataclass(slots=True)
class _Gathered:
    """One attribute's batches."""

    multi: bool
    n_learned: int
    codes: Codes
    came: list[Judged] = field(default_factory=list)
    asked: dict[Modality, list[Judged]] = field(default_factory=dict)


@dataclass(slots=True)
class AttributeTally:
    """Labels and answers of every attribute that a model answers, batch by batch: some 20 bytes a label.

    Attributes:
        vocabulary: the catalog's, to tell which labels were kept as seen.
    """

    vocabulary: Vocabulary
    _gathered: dict[str, _Gathered] = field(default_factory=dict)

    def add(self, products: Sequence[Product], said: Predictions, *, asked: Modality | None = None) -> None:
        """Take in N products and what was said of them.

        Args:
            products: with their labels.
            said: of each product.
            asked: None where the products were answered as they came; else what they were asked with.
        """
        labelled = {name for product in products for name in product.attributes}
        for name, column in said.attributes.items():
            found = self._gathered.get(name)
            if found is None:
                codes = {value: code for code, value in enumerate(column.values)}
                found = self._gathered[name] = _Gathered(column.multi, len(codes), codes)
            if name not in labelled:
                continue  # of thousands, a batch has labels of few
            judged = judge(products, name, column, said.modality, found.codes)
            if judged.n:
                parts = found.came if asked is None else found.asked.setdefault(asked, [])
                parts.append(judged)

    def reports(self) -> dict[str, AttributeReport]:
        """A report of each attribute, in the model's order; of one without a label there are no figures."""
        known = {name: frozenset(v.name for v in a.values) for name, a in self.vocabulary.by_name.items()}
        return {name: _report(found, known.get(name, frozenset())) for name, found in self._gathered.items()}

    def judged(self) -> dict[str, Judged]:
        """Labels and answers of each attribute that has a label, as the products came."""
        return {name: concatenated(found.came) for name, found in self._gathered.items() if found.came}


def _report(found: _Gathered, known: frozenset[str]) -> AttributeReport:
    if not found.came:
        return AttributeReport(n=0, multi=found.multi, n_learned=found.n_learned)
    judged = concatenated(found.came)
    asked = {modality: concatenated(parts) for modality, parts in found.asked.items()}
    names = list(found.codes)
    unknown = np.array([name not in known for name in names], np.bool_)
    right = metrics.right_pairs(judged.labels, judged.answers)
    return AttributeReport(
        **figures(judged).model_dump(),
        multi=found.multi,
        n_learned=found.n_learned,
        n_unlearned=len(np.unique(judged.labels.row[judged.labels.value >= found.n_learned])),
        n_unknown=len(np.unique(judged.labels.row[unknown[judged.labels.value]])),
        by_source=_by_source(judged.source, right),
        by_modality={
            modality: figures(judged.of(of))
            for modality, of in [(m, judged.modality == i) for i, m in enumerate(MODALITIES, start=1)]
            if of.any()
        },
        asked={modality: figures(one) for modality, one in asked.items()},
        reliability=honesty(right, judged.confidence).reliability,
        selective=_curve(judged),
        selective_asked={modality: _curve(one) for modality, one in asked.items()},
        confusions=_confusions(judged, names),
    )


def figures(judged: Judged) -> AttributeFigures:
    """The figures of one attribute.

    Args:
        judged: labels and answers.
    """
    if not judged.n:
        return AttributeFigures(n=0)
    scores = judged.scores()
    honest = honesty(metrics.right_pairs(judged.labels, judged.answers), judged.confidence)
    confidence, right, answered = _decisions(judged)
    return AttributeFigures(
        n=judged.n,
        n_values=len(np.unique(judged.labels.value)),
        accuracy=short(scores.exact),
        coverage=short(scores.coverage),
        precision=short(scores.precision),
        micro_f1=short(scores.micro_f1),
        macro_f1=short(scores.macro_f1),
        macro_f1_common=short(scores.macro_f1_common),
        weighted_f1=short(scores.weighted_f1),
        ece=honest.ece,
        brier=honest.brier,
        aurc=short(metrics.aurc(confidence, right, answered=answered)),
        e_aurc=short(metrics.e_aurc(confidence, right, answered=answered)),
        **{
            f"coverage_at_{100 * precision:.0f}": short(
                metrics.coverage_at_precision(confidence, right, precision, answered=answered)
            )
            for precision in PRECISIONS
        },
    )


def _decisions(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    return metrics.answered_or_missed(
        judged.labels, judged.answers, judged.confidence, judged.n, several=judged.multi
    )


def _curve(judged: Judged) -> Curve:
    confidence, right, answered = _decisions(judged)
    return curve_of(confidence, right, answered)


def _by_source(source: NDArray[np.int8], right: NDArray[np.bool_]) -> dict[Modality, SourceFigures]:
    return {
        modality: SourceFigures(
            n=int(of.sum()), share=round(float(of.mean()), 6), precision=round(float(right[of].mean()), 6)
        )
        for modality, of in [(m, source == i) for i, m in enumerate(MODALITIES, start=1)]
        if of.any()
    }


def _confusions(judged: Judged, names: Sequence[str]) -> tuple[ValueMistake, ...]:
    pairs = metrics.instead(judged.labels, judged.answers)
    n_true = Counter(judged.labels.value.tolist())
    codes = judged.labels.value[pairs.row].astype(np.int64) * len(names) + judged.answers.value[pairs.value]
    found, n = np.unique(codes, return_counts=True)
    commonest = np.argsort(-n, kind="stable")[:N_CONFUSIONS]
    return tuple(
        ValueMistake(
            true_value=names[code // len(names)],
            predicted_value=names[code % len(names)],
            n=count,
            share=round(count / n_true[code // len(names)], 6),
        )
        for code, count in zip(found[commonest].tolist(), n[commonest].tolist(), strict=True)
    )
