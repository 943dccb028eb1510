"""Answers for a whole feed, or for all products of the job's owner; every one also goes to the log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from shelver.batch import OutputRow, Sink, open_sink, output_row
from shelver.catalog.reader import ProductRow
from shelver.catalog.rows import BadRow
from shelver.decide import Policy, Prediction, policy_named
from shelver.decide.policies import DEFAULT
from shelver.images import content_hash
from shelver.pipeline import BATCH_PRODUCTS, Classifier
from shelver.product import Product
from shelver.service.answers.answering import decision_of, input_hash, policy_version
from shelver.service.answers.payloads import PredictOut, Versions
from shelver.service.jobs.checks import mapping_of
from shelver.service.models.loaded import Loaded
from shelver.service.products.imports import id_of_row
from shelver.service.records.entries import Also, Entry, insert_entries
from shelver.service.reviews.waiting import Waiting
from shelver.service.tables.declarative import now
from shelver.worker.attempt import Attempt
from shelver.worker.parts import numbered, part_path, read_feed, read_parts, uploaded, write_part
from shelver.worker.stored import write_stored

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def predict(attempt: Attempt) -> dict[str, Any]:
    """Answer every record of the feed; the model and the policy of the first attempt are those of all.

    Raises:
        FeedError, ConfigError: the feed, the mapping or the policy cannot be used.
        LeaseLostError: another attempt goes on with the job.
    """
    place, params = attempt.place, attempt.params
    version = attempt.planned({"model_version": params["model_version"] or place.champion()})["model_version"]
    folder, manifest = place.store.verified(version)
    name = params["policy"] or DEFAULT
    plan = attempt.work / "policy.json"
    if not plan.is_file():
        plan.write_text(policy_named(name, place.policies(folder)).model_dump_json(), encoding="utf-8")
    policy = Policy.model_validate_json(plan.read_bytes())
    classifier = Classifier.open(folder, threads=place.threads, verify=False)
    n_rows: int | None = None
    also: Also | None = None  # a feed's products are nowhere that a reviewer could look at them
    if params["upload_id"] is not None:
        feed, mapping = uploaded(attempt, params["upload_id"]), mapping_of(params["mapping"])
    else:
        stored = write_stored(attempt, owner_id=attempt.lease.owner_id)
        feed, mapping, n_rows = stored.path, stored.mapping, stored.n_products
        policies = place.policies(folder)
        loaded = Loaded(classifier, manifest, folder, policies, policies)
        also = Waiting(lambda: loaded, place.review_below).add
    parts = attempt.work / "parts"
    tally = Counter[str]()
    n_done = 0
    rows = read_feed(attempt, feed, mapping, labels=False).rows
    for first, part in numbered(rows, 0, BATCH_PRODUCTS):
        if not part_path(parts, first).is_file():
            lines = _answer(attempt, classifier, part, first, policy, name, also)
            write_part(parts, first, [asdict(line) for line in lines])
        n_done += len(part)
        attempt.tell("predicting", f"{n_done:,} rows", n_done / n_rows if n_rows else None)
    written = attempt.files / f"predictions.{params['format']}"
    _write(written, params["format"], parts, tally)
    return {
        "n_rows": n_done,
        "outcomes": dict(tally),
        "model_version": version,
        "taxonomy_version": manifest.taxonomy_version,
        "policy": name,
        "files": [written.name],
    }


def _answer(
    attempt: Attempt,
    classifier: Classifier,
    rows: Sequence[ProductRow | BadRow],
    first: int,
    policy: Policy,
    name: str,
    also: Also | None,
) -> list[OutputRow]:
    """Answers in the order of the records; a record that is none carries the code that says why."""
    versions = Versions(
        model=classifier.model_version, taxonomy=classifier.taxonomy.version, policy=policy_version(policy)
    )
    began = time.monotonic()
    products = [row.product for row in rows if isinstance(row, ProductRow)]
    answers = iter(classifier(products, policy=policy) if products else ())
    version = classifier.model_version
    lines: list[OutputRow] = []
    asked: list[tuple[int, Product, Prediction]] = []
    for at, row in enumerate(rows):
        if isinstance(row, BadRow):
            nothing = Prediction("error", None, None, None, (), (), None, row.code)
            lines.append(output_row(row.product_id, nothing, version, name))
        else:
            said = next(answers)
            lines.append(output_row(row.product.product_id, said, version, name))
            asked.append((at, row.product, said))
    each_ms = 1000 * (time.monotonic() - began) / max(1, len(asked))
    entries = [_entry(attempt, first + at, one, said, name, versions, each_ms) for at, one, said in asked]
    if entries:
        # Before the part is written: an attempt that dies between them logs nothing twice.
        insert_entries(attempt.place.database, entries, again=True, also=also)
    return lines


def _entry(
    attempt: Attempt,
    number: int,
    product: Product,
    said: Prediction,
    policy: str,
    versions: Versions,
    each_ms: float,
) -> Entry:
    picture = content_hash(product.images[0]).hex() if product.images else None
    prediction_id = id_of_row(attempt.lease.job_id, number)
    answer = PredictOut(
        **dict(decision_of(said, policy, versions)),
        prediction_id=prediction_id,
        product_id=product.product_id,
        picture_error=None,
        category_hint=None,
        request_id=attempt.lease.job_id,
    )
    return Entry(
        id=prediction_id,
        at=now(),
        user_id=attempt.lease.owner_id,
        input_hash=input_hash(product, picture),
        product_id=product.product_id,
        answer=answer.model_dump_json(),
        node_id=answer.node_id,
        confidence=answer.confidence,
        outcome=answer.outcome,
        policy=policy,
        model_version=versions.model,
        taxonomy_version=versions.taxonomy,
        modality=answer.modality,
        latency_ms=each_ms,
    )


def _write(out: Path, kind: str, parts: Path, tally: Counter[str]) -> None:
    """All parts as one file, which appears under its name when it is whole."""
    unfinished = out.with_name(f".{out.name}.partial")
    opened: AbstractContextManager[Sink] = open_sink(unfinished, f".{kind}")
    with opened as sink:
        waiting: list[OutputRow] = []
        for said in read_parts(parts):
            row = OutputRow(**said)
            tally[row.outcome] += 1
            if kind == "csv" and row.product_id is not None and row.product_id.startswith(_FORMULA):
                # A spreadsheet would take it for a formula, and it is what somebody else wrote.
                row = replace(row, product_id=f"'{row.product_id}")
            waiting.append(row)
            if len(waiting) == BATCH_PRODUCTS:
                sink.write(waiting)
                waiting = []
        sink.write(waiting)
    unfinished.replace(out)
