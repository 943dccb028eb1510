"""What is known of a registered model beside its answers: from its manifest, its tree, and the reports beside it.

Everything beside the core comes from whoever made the model folder. What cannot be read is left out, and nothing
of it is run or shown as a page of ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shelver import registry
from shelver.errors import ShelverError
from shelver.library import ModelStore
from shelver.registry import Manifest, read_manifest
from shelver.service.models.payloads import VERSION
from shelver.service.records.intervals import shares
from shelver.service.records.payloads import Figure
from shelver.taxonomy import Taxonomy

REPORT: Final = "report/report.json"
PAGE: Final = "report/report.html"
FIGURES: Final = "report/figures.json"
LEARNING: Final = "report/learning.jsonl"
SHOWN: Final = (
    "accuracy",
    "weighted_f1",
    "macro_f1",
    "hierarchical_f1",
    "top3_accuracy",
    "coverage",
    "coverage_at_95",
    "ece",
)
MAX_POINTS: Final = 200
MAX_CURVES: Final = 8
_MAX_FILE_BYTES: Final = 16 << 20
_LARGEST: Final = {"loss": 1e6, "accuracy": 1.0, "f1": 1.0}
"""What is drawn over the time of training, and what no value of it exceeds."""


class Scores(BaseModel):
    """How good a model was on the products of a split, as its report says."""

    catalog: str = Field(examples=["fashion"])
    catalog_version: str = Field(description="Same products, same version.", examples=["5c" * 32])
    split: str = Field(examples=["test"])
    n: int = Field(description="Labelled products.", examples=[5000])
    accuracy: Figure | None = Field(description="The decided category is exactly the true one.")
    figures: dict[str, float] = Field(description="As in report.json.", examples=[{"weighted_f1": 0.91}])


class Curve(BaseModel):
    """One quantity over the time of training."""

    quantity: str = Field(examples=["accuracy"])
    name: str = Field(description="Of what, and in which phase.", examples=["validation, choose"])
    time: str = Field(description="What x counts.", examples=["epoch"])
    x: list[float] = Field(examples=[[1.0, 2.0]])
    y: list[float] = Field(examples=[[0.71, 0.83]])


class Data(BaseModel):
    """What a model learned from, and for."""

    n_train: int = Field(description="Training products.", examples=[35000])
    n_labels: int = Field(description="Categories that had one.", examples=[120])
    n_nodes: int = Field(examples=[146])
    n_leaves: int = Field(examples=[120])
    n_levels: int = Field(examples=[4])


class ModelFacts(BaseModel):
    """What is known of a model."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str = Field(examples=[VERSION])
    shelver_version: str = Field(description="That made it.", examples=["0.1.0"])
    git_commit: str | None = Field(examples=[None])
    texts: str | None = Field(description="How it reads texts; none where it does not.", examples=["ngram"])
    pictures: str | None = Field(description="How it sees pictures.", examples=["lite0 (96 x 128 px)"])
    precision: str = Field(examples=["fp32"])
    attributes: list[str] = Field(description="That it answers.", examples=[["colour"]])
    data: Data | None
    config: dict[str, Any] = Field(description="Of its training.", examples=[{"epochs": 20}])
    scores: list[Scores] = Field(description="The latest report first.")
    curves: list[Curve]
    has_page: bool = Field(description="A report for people: /v1/models/{version}/report.html.", examples=[True])


def facts_of(store: ModelStore, version: str) -> ModelFacts:
    """What is known of a registered model.

    Raises:
        ModelError: it is not registered, or its core is damaged.
    """
    folder = store.folder_of(version)
    manifest = _manifest(folder)
    config = {name: value for name, value in manifest.config.items() if value is not None}
    parts = manifest.image.parts if manifest.image is not None else ()
    return ModelFacts(
        model_version=version,
        shelver_version=manifest.shelver_version,
        git_commit=manifest.git_commit,
        texts=None if manifest.text is None else " + ".join(part.encoder for part in manifest.text.parts),
        pictures=" + ".join(_picture_part(part) for part in parts) or None,
        precision="int8" if any(part.precision == "int8" for part in parts) else "fp32",
        attributes=[head.name for head in manifest.head.attributes],
        data=_data(folder),
        config=config,
        scores=_scores(folder, version),
        curves=_curves(folder),
        has_page=(folder / PAGE).is_file(),
    )


def _picture_part(part: registry.ImagePart) -> str:
    view = f", {part.view}" if part.view != "fit" else ""
    return f"{part.encoder} ({part.spec.width_px} x {part.spec.height_px} px{view})"


@lru_cache(maxsize=64)
def _manifest(folder: Path) -> Manifest:
    # A core never changes, and its folder is named by it.
    return read_manifest(folder, verify=False)


@lru_cache(maxsize=64)
def _data(folder: Path) -> Data | None:
    try:
        tree = Taxonomy.load(folder / registry.TAXONOMY)
        counts = registry.read_labels(folder)
        return Data(
            n_train=sum(counts.values()),
            n_labels=sum(n > 0 for n in counts.values()),
            n_nodes=tree.n_nodes,
            n_leaves=int(tree.is_leaf.sum()),
            n_levels=tree.n_levels,
        )
    except (OSError, ValueError, LookupError, TypeError, ShelverError):
        return None


def _scores(folder: Path, version: str) -> list[Scores]:
    found: dict[tuple[str, str], Scores] = {}
    for one in _evaluations(folder, version):
        try:
            figures = {name: float(one[name]) for name in SHOWN if one.get(name) is not None}
            n, right = int(one["n"]), float(one["accuracy"])
            if n < 1 or not all(map(math.isfinite, figures.values())) or not 0 <= right <= 1:
                continue
            said = {name: one[name][:100] + "" for name in ("catalog", "catalog_version", "split")}
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        part = round(right * n), n
        found.setdefault(
            (said["catalog_version"], said["split"]),
            Scores(**said, n=n, accuracy=shares([part])[part], figures=figures),
        )
    return list(found.values())


def _evaluations(folder: Path, version: str) -> Iterator[Mapping[str, Any]]:
    """The figures of every split that was evaluated: of `report.json`, and those that the model card keeps."""
    report = _json_of(folder / REPORT)
    if isinstance(report, dict) and report.get("model_version") == version:
        yield report
    known = _json_of(folder / FIGURES)
    if not isinstance(known, dict) or known.get("model_version") != version:
        return
    evaluations = known.get("evaluations")
    for one in evaluations.values() if isinstance(evaluations, dict) else ():
        rows = one.get("rows") if isinstance(one, dict) else None
        whole = rows.get("all") if isinstance(rows, dict) else None
        if isinstance(whole, dict):
            yield {**whole, **{name: one.get(name) for name in ("catalog", "catalog_version", "split")}}


def _json_of(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _curves(folder: Path) -> list[Curve]:
    """The learning curves, whatever stands in the file."""
    try:
        path = folder / LEARNING
        lines = path.read_bytes().splitlines() if path.stat().st_size <= _MAX_FILE_BYTES else []
    except OSError:
        return []
    rows = [row for line in lines for row in [_row(line)] if isinstance(row, dict)]
    time = "epoch" if any(_is_number(row.get("epoch")) for row in rows) else "step"
    several = len({row.get("phase") for row in rows if isinstance(row.get("phase"), str)}) > 1
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            side, _, quantity = key.rpartition("_")
            if side and quantity in _LARGEST and _is_number(value) and _is_number(row.get(time)):
                if not 0 <= value <= _LARGEST[quantity]:
                    continue
                name = f"{side}, {row.get('phase')}" if several else side
                points.setdefault((quantity, name[:60]), []).append((float(row[time]), float(value)))
    curves = []
    for (quantity, name), found in sorted(points.items())[:MAX_CURVES]:
        thin = found[:: max(1, -(-len(found) // MAX_POINTS))]
        try:
            curves.append(
                Curve(quantity=quantity, name=name, time=time, x=[x for x, _ in thin], y=[y for _, y in thin])
            )
        except ValidationError:
            continue
    return curves


def _row(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
