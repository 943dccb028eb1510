"""Stored products, and perhaps a catalog, become a registered model. Nothing is promoted."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.progress import Tick
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, MissingExtraError
from shelver.evaluate import REPORT, evaluate, read_report
from shelver.report import publish
from shelver.taxonomy import Taxonomy
from shelver.worker.attempt import Attempt, write_whole
from shelver.worker.evaluating import REPORTS, keep_reports
from shelver.worker.stored import write_stored

_STEP: Final = re.compile(r"step ([\d,]+) of at most ([\d,]+)")
_LEARNING: Final = (0.2, 0.85)
"""Where the learning begins and ends, as shares of the whole job; a guess."""


def train(attempt: Attempt) -> dict[str, Any]:
    """Train and register a model; a training that was cut off goes on from its last checkpoint.

    Raises:
        CatalogError: there is nothing to learn from.
        ConfigError: the parameters do not go together.
        MissingExtraError: this worker cannot train.
        LeaseLostError: another attempt goes on with the job.
    """
    _require_training()
    from pydantic import ValidationError

    from shelver.train.config import TrainConfig
    from shelver.train.folder import RUN
    from shelver.train.run import train as learn

    place, params = attempt.place, attempt.params
    catalogs, counts = _catalogs(attempt)
    left_open = {"kind", "catalog", "attributes"}
    chosen = {name: value for name, value in params.items() if value is not None and name not in left_open}
    if params["attributes"] is not None:
        chosen["attributes"] = tuple(params["attributes"])
    try:
        config = TrainConfig.model_validate(chosen)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(
            f"{'.'.join(map(str, first['loc']))} cannot be used",
            allowed=first["msg"],
            remedy="Change the job's parameters.",
        ) from error
    out = attempt.work / f"job-{attempt.lease.job_id}"  # what the registered model says it comes from
    trained = learn(
        catalogs,
        out,
        config,
        cache=place.data / "cache",
        threads=place.threads,
        resume=(out / RUN / "config.json").is_file(),
        say=lambda line: attempt.tell("training", line, _share(line)),
    )
    said = {"choices": list(trained.choices), "validation": trained.validation}
    kept = attempt.work / "trained.json"
    if trained.was_done and kept.is_file():  # by an attempt that died after it
        said = json.loads(kept.read_bytes())
    else:
        write_whole(kept, json.dumps(said).encode())
    report = _evaluated(attempt, catalogs[0], out)
    attempt.tell("registering", f"model {trained.model_version}", 0.95, now=True)
    registered = place.store.register(out, by=attempt.lease.owner_id, expected=trained.model_version)
    return {
        "model_version": registered.model_version,
        "sha256": registered.sha256,
        "taxonomy_version": registered.taxonomy_version,
        **counts,
        **said,
        "test": report,
        "files": keep_reports(attempt, out / "report"),
    }


def _catalogs(attempt: Attempt) -> tuple[list[Catalog], dict[str, int]]:
    """The catalogs to learn from, the first one's tree is learned; and how many products they have."""
    place, name = attempt.place, attempt.params["catalog"]
    base = Catalog.open(attempt.catalog(name)) if name is not None else None
    plan = attempt.planned({"model_version": place.champion()})
    if base is not None:
        tree = base.taxonomy
    else:
        tree = Taxonomy.load(place.store.folder_of(plan["model_version"]) / registry.TAXONOMY)
    stored = write_stored(attempt, labelled=True)
    counts = {"n_stored": stored.n_products, "n_stored_used": 0, "n_catalog": 0}
    catalogs = []
    if base is not None:
        catalogs.append(base)
        counts["n_catalog"] = base.info.n_products
    folder = attempt.work / "stored"
    if stored.n_products:
        vocabulary = base.vocabulary if base is not None and base.vocabulary.attributes else None
        try:
            ingested = ingest(
                stored.path,
                folder,
                mapping=stored.mapping,
                taxonomy=tree,
                vocabulary=vocabulary,
                extract=False,
                progress=lambda tick: _tick(attempt, tick),
            )
        except CatalogError:
            if base is None:
                raise
        else:
            counts["n_stored_used"] = ingested.accepted
            catalogs.append(Catalog.open(folder))
    if not catalogs:
        raise CatalogError(
            "no stored product has a category",
            allowed="stored products with a category, or a catalog",
            remedy="Give products their category, or name a catalog of the data folder.",
        )
    return catalogs, counts


def _evaluated(attempt: Attempt, catalog: Catalog, model: Path) -> dict[str, Any] | None:
    """The main figures on the test split, with a report beside the model; None where the split has no labels."""
    if not all((model / "report" / name).is_file() for name in REPORTS):
        attempt.tell("evaluating", "asking the exported model", _LEARNING[1], now=True)

        def say(line: str) -> None:
            attempt.tell("evaluating", line, _LEARNING[1])

        try:
            report = evaluate(model, catalog, threads=attempt.place.threads, say=say)
        except CatalogError:
            return None
        publish(report, model=model, catalog=catalog, out=model / "report", say=say)
    else:
        report = read_report(model / "report" / REPORT)
    shown = ("n", "accuracy", "weighted_f1", "hierarchical_f1", "ece")
    return {name: getattr(report, name) for name in shown}


def _tick(attempt: Attempt, tick: Tick) -> None:
    share = tick.rows / tick.total if tick.total else 0.0
    attempt.tell("catalog", f"{tick.phase}: {tick.rows:,} stored products", 0.1 + 0.1 * min(share, 1.0))


def _share(line: str) -> float | None:
    """How far the job is when the training says this; None where the line does not tell."""
    found = _STEP.search(line)
    if found is None:
        return None
    done, total = (int(number.replace(",", "")) for number in found.groups())
    begins, ends = _LEARNING
    return begins + (ends - begins) * min(done / max(total, 1), 1.0)


def _require_training() -> None:
    missing = [name for name in ("torch", "onnx", "onnxscript", "tensorboard") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"this worker lacks {', '.join(missing)}, which training needs",
            allowed="a worker with the `train` extra",
            remedy="Run `pip install 'shelver[train]'` for the worker, and start the job again.",
        )
