"""How good a registered model is on a catalog or a golden set of the installation."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from shelver.catalog.store import Catalog
from shelver.errors import MissingExtraError
from shelver.evaluate import REPORT, evaluate, thumbnails, write_report
from shelver.report.page import PAGE, write_html
from shelver.worker.attempt import Attempt

REPORTS: Final = (REPORT, PAGE)


def evaluate_model(attempt: Attempt) -> dict[str, Any]:
    """Score a registered model, and write its report.

    Raises:
        CatalogError: the split has no labelled product, or labels that the model's tree does not know.
        ModelError: the model is no longer what was registered.
        LeaseLostError: another attempt goes on with the job.
    """
    place, params = attempt.place, attempt.params
    version = attempt.planned({"model_version": params["model_version"] or place.champion()})["model_version"]
    folder, manifest = place.store.verified(version)
    catalog = Catalog.open(attempt.catalog(params["catalog"]))

    def say(line: str) -> None:
        attempt.tell("evaluating", line)

    report = evaluate(folder, catalog, split=params["split"], threads=place.threads, say=say)
    # Not `publish`: the registered folder is left as it is.
    out = attempt.work / "report"
    write_report(report, out)
    try:
        pictures = thumbnails(catalog, report.split, report.product_ids)
        write_html(report, out / PAGE, pictures=pictures, learning=None, manifest=manifest)
    except MissingExtraError as missing:
        attempt.tell("evaluating", f"no page was written: {missing.received}", now=True)
    shown = ("n", "accuracy", "weighted_f1", "hierarchical_f1", "ece", "n_unlabelled")
    return {
        "model_version": version,
        "catalog": params["catalog"],
        "catalog_version": catalog.info.fingerprint,
        "split": params["split"],
        **{name: getattr(report, name) for name in shown},
        "files": keep_reports(attempt, out),
    }


def keep_reports(attempt: Attempt, folder: Path) -> list[str]:
    """Copy what there is of a report to where callers may fetch it; the names."""
    kept = []
    for name in REPORTS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, attempt.files / name)
            kept.append(name)
    return kept
