"""The parts of a report on attributes. Every figure is defined in `shelver.metrics`."""

from __future__ import annotations

from pydantic import Field

from shelver.calibrate import Modality
from shelver.evaluate.parts import Bins, Curve, ReportPart


class AttributeFigures(ReportPart):
    """The figures of one attribute over the products with a label of it; all but the counts are None without any.

    Attributes:
        n: products with a label of the attribute.
        n_values: different values among their labels.
        accuracy: the answered value is the labelled one; where a product may have several values, the answered
            ones are exactly the labelled ones. A product without an answer is wrong.
        coverage: share of the products for which the attribute was answered.
        precision: of the answered values, the share that is labelled; None where nothing was answered.
        micro_f1: twice the right values over the labelled and the answered ones together.
        macro_f1: F1 of each value, averaged over those present among labels or answers.
        macro_f1_common: the same over the values with 20 labelled products or more; None where there is none.
        weighted_f1: F1 of each labelled value, weighted with its products.
        ece, brier: of the answered values' confidences, as in `Figures`; None where nothing was answered.
        aurc, e_aurc, coverage_at_90, coverage_at_95, coverage_at_99: as in `Figures`. Where a product may have
            several values, each is a decision of its own: coverage is then the share of the answered values among
            these and those that were missed.
    """

    n: int
    n_values: int = 0
    accuracy: float | None = None
    coverage: float | None = None
    precision: float | None = None
    micro_f1: float | None = None
    macro_f1: float | None = None
    macro_f1_common: float | None = None
    weighted_f1: float | None = None
    ece: float | None = None
    brier: float | None = None
    aurc: float | None = None
    e_aurc: float | None = None
    coverage_at_90: float | None = None
    coverage_at_95: float | None = None
    coverage_at_99: float | None = None


class SourceFigures(ReportPart):
    """The answers that one source carried.

    Attributes:
        n: answered values.
        share: of all answered values.
        precision: the share of them that is right.
    """

    n: int
    share: float
    precision: float


class ValueMistake(ReportPart):
    """A labelled value, and the wrong one that was answered in its place.

    Of a product with several values, each labelled value that was not answered counts with each wrong one that
    was.

    Attributes:
        n: how often.
        share: of the products with that label.
    """

    true_value: str
    predicted_value: str
    n: int
    share: float


class AttributeReport(AttributeFigures):
    """How well one attribute is answered; its own figures are those of all products with a label of it.

    Attributes:
        multi: a product may have several values.
        n_learned: values that the model can answer.
        n_unlearned: products with a labelled value that the model never learned; it cannot be answered.
        n_unknown: products with a labelled value that is not in the catalog's vocabulary, and was kept as seen.
        by_source: what carried the answers: the text, the picture, or both.
        by_modality: products as they came: what the model had to answer from.
        asked: the products that have both, asked with the text alone, the picture alone, and both.
        reliability: of the answered values.
        selective, selective_asked: precision against coverage, as `coverage_at_90` has it.
        confusions: the commonest mistakes, at most 20.
    """

    multi: bool = False
    n_learned: int
    n_unlearned: int = 0
    n_unknown: int = 0
    by_source: dict[Modality, SourceFigures] = Field(default_factory=dict)
    by_modality: dict[Modality, AttributeFigures] = Field(default_factory=dict)
    asked: dict[Modality, AttributeFigures] = Field(default_factory=dict)
    reliability: Bins = Bins()
    selective: Curve = Curve()
    selective_asked: dict[Modality, Curve] = Field(default_factory=dict)
    confusions: tuple[ValueMistake, ...] = ()

    @property
    def figures(self) -> AttributeFigures:
        """Those of all products with a label."""
        return AttributeFigures(**{name: getattr(self, name) for name in AttributeFigures.model_fields})
