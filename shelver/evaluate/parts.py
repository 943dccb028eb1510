"""The parts of a report. Every figure is defined in `shelver.metrics`."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from shelver.calibrate import Modality

T = TypeVar("T")


class ReportPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figures(ReportPart):
    """The figures of some products; all but `n` are None where there is no product.

    Attributes:
        n: labelled products.
        accuracy: the decided node is exactly the true node.
        weighted_f1, macro_f1: over labels; macro over those present in truth or prediction.
        top3_accuracy: the true node is among the first three suggestions.
        hierarchical_precision, hierarchical_recall, hierarchical_f1: over sets of ancestors, micro over products,
            root excluded.
        relative_lca: depth of the lowest common ancestor over the greater of the two depths.
        coverage: products answered over products.
        ece: calibration error of the confidence, 15 bins of equal mass, debiased; None where nothing was answered.
        brier: Brier score of the confidence, likewise.
        aurc, e_aurc: area under the risk-coverage curve, and its excess over the best order; products without an
            answer are wrong and come last.
        coverage_at_90, coverage_at_95, coverage_at_99: the greatest coverage at which that share of the answers is
            right, read off these very products.
        severity: mean height of the lowest common ancestor of the mistakes; None where there is none.
        hierarchical_coverage: share of the true paths' levels for which the answers name a node.
        value_score, value_score_partial: share of the products' worth that is earned, exactly or in part; None
            where no values are known.
    """

    n: int
    accuracy: float | None = None
    weighted_f1: float | None = None
    macro_f1: float | None = None
    top3_accuracy: float | None = None
    hierarchical_precision: float | None = None
    hierarchical_recall: float | None = None
    hierarchical_f1: float | None = None
    relative_lca: float | None = None
    coverage: float | None = None
    ece: float | None = None
    brier: float | None = None
    aurc: float | None = None
    e_aurc: float | None = None
    coverage_at_90: float | None = None
    coverage_at_95: float | None = None
    coverage_at_99: float | None = None
    severity: float | None = None
    hierarchical_coverage: float | None = None
    value_score: float | None = None
    value_score_partial: float | None = None


class Lenient(ReportPart):
    """The figures once more, where products have several right paths: any of them is right.

    Each product is scored against the right path that its answer comes nearest to.

    Attributes:
        n_several: products with more than one right path.
        figures: of all labelled products, those with one right path among them.
        by_level: the same with all paths cut at the level.
    """

    n_several: int
    figures: Figures
    by_level: dict[str, Figures] = {}


class Bins(ReportPart):
    """Confidence against accuracy of the decided node, in at most 15 bins of equal mass; answered products only.

    Attributes:
        n: products in each bin.
        confidence: their mean confidence, rising.
        accuracy: the share of them that is right.
    """

    n: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()


class Curve(ReportPart):
    """Accuracy against coverage: what if only the most confident answers were given?

    Attributes:
        threshold: the least confidence that is answered, falling; at most 50.
        coverage: products answered at that threshold over all products.
        accuracy: the share of the answered that is right.
    """

    threshold: tuple[float, ...] = ()
    coverage: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()


class Views(ReportPart, Generic[T]):
    """One thing for all products, for each kind of product, and for each way of asking.

    Attributes:
        all: every labelled product.
        by_modality: products as they came: what the model had to answer from.
        asked: the products that have both, asked with the text alone, the picture alone, and both.
    """

    all: T
    by_modality: dict[Modality, T] = {}
    asked: dict[Modality, T] = {}


class Honesty(ReportPart):
    """How far confidences can be believed.

    Attributes:
        n: answers with such a confidence.
        ece, brier: of the decided node's confidence; None where there is no answer.
        brier_all: over all outcomes of a level, mean over the answered products; None for the decided node.
        reliability: confidence against accuracy.
    """

    n: int
    ece: float | None = None
    brier: float | None = None
    brier_all: float | None = None
    reliability: Bins = Bins()


class BeforeAfter(ReportPart):
    """Before calibration: the experts' scores with even weights. After: with the model's own."""

    before: Honesty
    after: Honesty


class Calibrated(ReportPart):
    """What calibration changed; before and after may decide differently.

    Attributes:
        decided: the decided node, with its own confidence.
        by_level: the decided node's ancestor at a level with P(ancestor); right where it is the true node's too.
            All answers that reach the level count, also those of products whose truth ends above it.
    """

    decided: BeforeAfter
    by_level: dict[str, BeforeAfter] = {}


class AttributePoint(ReportPart):
    """What a policy of the model folder makes of one attribute.

    Attributes:
        promised: the precision that was promised; None where nothing was.
        coverage: products for which the policy answers the attribute, over those with a label of it.
        precision: of the answered values, the share that is labelled; None where nothing was answered.
    """

    promised: float | None
    coverage: float
    precision: float | None


class PolicyPoint(ReportPart):
    """What a policy of the model folder makes of these products.

    Attributes:
        decoder: of the policy.
        min_level, max_level: the shallowest level that counts as an answer, and the deepest wanted.
        promised: the precision that was promised; None where nothing was.
        coverage: products of which a node was decided, over all products.
        precision: of those, the share that is right: the true node, or an ancestor of it no shallower than
            `min_level`. None where nothing was decided.
        accuracy: products whose decided node is exactly the true one, over all products.
        hierarchical_coverage: as in `Figures`.
        value_score_partial: as in `Figures`.
        outcomes: products by what became of them.
        attributes: those that the policy has a rule for.
    """

    decoder: str
    min_level: int
    max_level: int | None
    promised: float | None
    coverage: float
    precision: float | None
    accuracy: float
    hierarchical_coverage: float
    value_score_partial: float | None
    outcomes: dict[str, int]
    attributes: dict[str, AttributePoint] = {}


class Mistake(ReportPart):
    """A true path and the path that was said instead.

    Attributes:
        n: how often.
        share: of the products that truly stand there.
    """

    true_path: str
    predicted_path: str
    n: int
    share: float


class Example(ReportPart):
    """One product and what the model said of it.

    Attributes:
        title: as the seller wrote it, or where there is none the description, cut; None where there is neither.
        confidence: of the predicted path.
        modality: what the model answered from.
    """

    product_id: str
    title: str | None
    true_path: str
    predicted_path: str
    confidence: float
    modality: Modality


class Confusions(ReportPart):
    """What is taken for what.

    Attributes:
        by: "value" where values are known: paths come by the worth of their products; else by their number.
        pairs: the commonest mistakes, at most 20.
        paths: the true paths whose products are worth most together, at most 50, the most valuable first.
        stake: for each of them, the share of the worth of all products.
        matrix: products by true path (rows) and decided path (columns), both as in `paths`.
        other: for each row, the products decided to be something else.
        unanswered: for each row, the products without an answer.
    """

    by: Literal["value", "frequency"] = "frequency"
    pairs: tuple[Mistake, ...] = ()
    paths: tuple[str, ...] = ()
    stake: tuple[float, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    other: tuple[int, ...] = ()
    unanswered: tuple[int, ...] = ()


class SiblingMistake(Mistake):
    """Products taken for the category beside theirs.

    Attributes:
        lost: the share of the worth that all wrong answers together lose.
        examples: the most confident of these products.
        like: products that rightly stand at the predicted path, the most confident ones.
    """

    lost: float
    examples: tuple[Example, ...] = ()
    like: tuple[Example, ...] = ()


class Branch(ReportPart):
    """A node of the tree and what became of the products that truly lie at or below it.

    Attributes:
        name: of the node.
        parent: place of its parent in the list; None at level 1.
        n: products at or below it.
        accuracy: the share of them that was decided exactly right.
        inside: the share of them that was decided at or below this node.
        stake: their share of the worth of all products.
        lost: the share of all lost worth that their mistakes lose.
        examples: the most confident wrong answers to products that stand exactly here.
    """

    name: str
    parent: int | None
    n: int
    accuracy: float
    inside: float
    stake: float
    lost: float
    examples: tuple[Example, ...] = ()


class Examples(ReportPart):
    """Answers worth a look; the pictures are not in the report.

    Attributes:
        right: the most confident right answers, at most one a path.
        wrong: the most confident wrong ones, at most one a pair of paths.
        unsure: the least confident, right or wrong, at most one a true path.
    """

    right: tuple[Example, ...] = ()
    wrong: tuple[Example, ...] = ()
    unsure: tuple[Example, ...] = ()

    @property
    def product_ids(self) -> frozenset[str]:
        """Whose pictures a page would show."""
        return frozenset(one.product_id for one in (*self.right, *self.wrong, *self.unsure))
