"""What stands in `report.json`, key by key. Every figure is defined in `shelver.metrics`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from shelver.calibrate import Modality
from shelver.catalog.split import Part
from shelver.errors import InputError
from shelver.evaluate.attribute_parts import AttributeReport
from shelver.evaluate.parts import (
    Bins,
    Branch,
    Calibrated,
    Confusions,
    Curve,
    Examples,
    Figures,
    Lenient,
    PolicyPoint,
    SiblingMistake,
    Views,
)
from shelver.metrics import Frequency

REPORT: Final = "report.json"
FORMAT_VERSION: Final = 4


class Report(Figures):
    """What `report.json` says; its own figures are those of all labelled products.

    Where a product has several right paths, all figures but those of `lenient` are strict: only the first is
    right.

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
        lenient: any right path is right; None where no product has several.
        attributes: those that the model answers, by name, each over the products with a label of it.
        values: where a category's value comes from: a file, or the mean of its products' in the catalog. None: no
            values are known, and every product is worth the same.
        reliability, selective: see `Bins` and `Curve`.
        selective_by_level: the same with truth and prediction cut at the level.
        calibration: before and after.
        policies: those of the model folder, by name.
        confusions, examples: see there.
        siblings: the categories taken for the one beside them that lose the most, at most 12.
        tree: the branches that lose the most, parents before children, at most 300.
    """

    format_version: Literal[4] = FORMAT_VERSION
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
    asked: dict[Modality, Figures]
    by_frequency: dict[Frequency, Figures]
    by_source: dict[str, Figures]
    by_language: dict[str, Figures]
    lenient: Lenient | None = None
    attributes: dict[str, AttributeReport] = Field(default_factory=dict)
    reliability: Views[Bins]
    values: Literal["file", "catalog"] | None = None
    selective: Views[Curve]
    selective_by_level: dict[str, Curve]
    calibration: Calibrated
    policies: dict[str, PolicyPoint]
    confusions: Confusions
    siblings: tuple[SiblingMistake, ...] = ()
    tree: tuple[Branch, ...] = ()
    examples: Examples

    @property
    def figures(self) -> Figures:
        """Those of all labelled products."""
        return Figures(**{name: getattr(self, name) for name in Figures.model_fields})

    @property
    def product_ids(self) -> frozenset[str]:
        """Whose pictures a page would show."""
        some = [one for pair in self.siblings for one in (*pair.examples, *pair.like)]
        some += [one for branch in self.tree for one in branch.examples]
        return self.examples.product_ids | {one.product_id for one in some}


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
