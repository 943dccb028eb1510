"""All that an evaluation leaves behind: report.json, report.html, the model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shelver.catalog.store import Catalog
from shelver.errors import MissingExtraError
from shelver.evaluate import Report, thumbnails, write_report
from shelver.registry import read_manifest
from shelver.report.card import write_card
from shelver.report.page import PAGE, write_html

LEARNING: Final = Path("run") / "metrics.jsonl"
KEPT: Final = Path("report") / "learning.jsonl"
"""Where a model folder keeps the same, since its run is left behind when it is registered."""


def publish(
    report: Report, *, model: Path, catalog: Catalog, out: Path, say: Callable[[str], None] = print
) -> tuple[Path, ...]:
    """Write a report and all that follows from it.

    Args:
        report: of `model` on a split of `catalog`.
        model: the model folder; gets the model card.
        catalog: where the examples' pictures are.
        out: folder for `report.json` and `report.html`.
        say: told what could not be written, and what to do: the page needs the `report` extra, and the card a
            model folder that can be written to.

    Returns:
        What was written, `report.json` first.
    """
    written = [write_report(report, out)]
    manifest = read_manifest(model, verify=False)
    try:
        pictures = thumbnails(catalog, report.split, report.product_ids)
        page = write_html(report, out / PAGE, pictures=pictures, learning=learning_rows(model), manifest=manifest)
        written.append(page)
    except MissingExtraError as missing:
        say(f"{out / PAGE} was not written: {missing.received}. {missing.remedy}")
    try:
        _keep_learning(model)
        written.append(write_card(manifest, report, model))
    except OSError as error:
        say(f"the model card was not written: {error.strerror or error}")
    return tuple(written)


def _keep_learning(model: Path) -> None:
    if (model / LEARNING).is_file():
        (model / KEPT).parent.mkdir(exist_ok=True)
        partial = (model / KEPT).with_suffix(".partial")
        shutil.copyfile(model / LEARNING, partial)
        partial.replace(model / KEPT)


def learning_rows(model: Path) -> list[dict[str, Any]] | None:
    """The rows of a training run's metrics, without those that are damaged; None where there is no such file."""
    try:
        lines = (model / LEARNING).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
