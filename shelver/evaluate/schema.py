"""What stands in `report.json`, key by key. Every figure is defined in `shelver.metrics`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shelver.calibrate import Modality
from shelver.catalog.split import Part
from shelver.errors import InputError
from shelver.metrics import Frequency

REPORT: Final = "report.json"
FORMAT_VERSION: Final = 2

T = TypeVar("T")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figures(_Part):
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


class Bins(_Part):
    """Confidence against accuracy of the decided node, in at most 15 bins of equal mass; answered products only.

    Attributes:
        n: products in each bin.
        confidence: their mean confidence, rising.
        accuracy: the share of them that is right.
    """

    n: tuple[int, ...] = ()
    confidence: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()


class Curve(_Part):
    """Accuracy against coverage: what if only the most confident answers were given?

    Attributes:
        threshold: the least confidence that is answered, falling; at most 50.
        coverage: products answered at that threshold over all products.
        accuracy: the share of the answered that is right.
    """

    threshold: tuple[float, ...] = ()
    coverage: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()


class Views(_Part, Generic[T]):
    """One thing for all products, for each kind of product, and for each way of asking.

    Attributes:
        all: every labelled product.
        by_modality: products as they came: what the model had to answer from.
        asked: the products that have both, asked with the text alone, the picture alone, and both.
    """

    all: T
    by_modality: dict[Modality, T] = {}
    asked: dict[Modality, T] = {}


class Mistake(_Part):
    """A true path and the path that was said instead.

    Attributes:
        n: how often.
        share: of the products that truly stand there.
    """

    true_path: str
    predicted_path: str
    n: int
    share: float


class Confusions(_Part):
    """What is taken for what.

    Attributes:
        pairs: the commonest mistakes, at most 20.
        paths: the most frequent true paths, at most 15, the most frequent first.
        matrix: products by true path (rows) and decided path (columns), both as in `paths`.
        other: for each row, the products decided to be something else.
        unanswered: for each row, the products without an answer.
    """

    pairs: tuple[Mistake, ...] = ()
    paths: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    other: tuple[int, ...] = ()
    unanswered: tuple[int, ...] = ()


class Example(_Part):
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


class Examples(_Part):
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


class Report(Figures):
    """What `report.json` says; its own figures are those of all labelled products.

    Attributes:
        format_version: raised when a key changes its meaning or goes.
        model, model_version: name of the folder, and the twelve digits that name the model.
        catalog, catalog_version: name of the folder, and its fingerprint.
        split: which products.
        products_per_s: products answered each second, decoding included, reading from disk excluded.
        n_unlabelled: products of the split without a label; they are not scored.
        n_errors: products that could not be answered, by code.
        n_picture_errors: products with an unusable picture, by code.
        by_level: truth and prediction cut at the level; products whose truth ends above it are left out; the
            three suggestions are the most probable nodes of that level.
        by_modality: products as they came: what the model had to answer from.
        asked: the products that have both a usable text and a usable picture, asked with the text alone, the
            picture alone, and both: the same products, so the rows can be compared.
        by_frequency: true label among the head, torso or tail of the training products.
        by_source, by_language: where the catalog has them.
        reliability, selective: see `Bins` and `Curve`.
        confusions, examples: see there.
    """

    format_version: Literal[2] = FORMAT_VERSION
    model: str
    model_version: str
    catalog: str
    catalog_version: str
    split: Part
    products_per_s: float
    n_unlabelled: int
    n_errors: dict[str, int]
    n_picture_errors: dict[str, int]
    by_level: dict[str, Figures]
    by_modality: dict[Modality, Figures]
    asked: dict[Modality, Figures] = {}
    by_frequency: dict[Frequency, Figures]
    by_source: dict[str, Figures]
    by_language: dict[str, Figures]
    reliability: Views[Bins]
    selective: Views[Curve]
    confusions: Confusions
    examples: Examples

    @property
    def figures(self) -> Figures:
        """Those of all labelled products."""
        return Figures(**{name: getattr(self, name) for name in Figures.model_fields})


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.json` into a folder, whole or not at all."""
    text = json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT
    partial = path.with_name(REPORT + ".partial")
    # A title may hold half a surrogate pair, which no encoding can write.
    partial.write_text(text + "\n", encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def read_report(path: Path) -> Report:
    """Read a `report.json`.

    Raises:
        InputError: there is none, or one of another format version.
    """
    allowed = f"a {REPORT} of format version {FORMAT_VERSION}, as `shelver evaluate` writes it"
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is no report", allowed=allowed, remedy="Evaluate the model again.") from error
