"""Whole catalogs, in this process: a feed in, a file of predictions out, one row for each row.

The feed is streamed in batches, so memory does not grow with it. The output appears under its name when it is
whole.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductRow, open_products
from shelver.catalog.rows import BadRow
from shelver.decide import DEEPEST, Policy, Prediction
from shelver.decide.policies import DEFAULT
from shelver.errors import InputError
from shelver.pipeline import BATCH_PRODUCTS, Classifier
from shelver.product import Product

TELL_EVERY_S: Final = 5.0
FORMATS: Final = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One row of output; the columns, in this order.

    Attributes:
        product_id: as in the feed; None where the row was too damaged to have one.
        outcome: what became of the product: "decided", "suggested", "review", "abstained", "outside" or "error".
        node_id, path, confidence: the decided node, its names joined by " > ", and its probability; empty with any
            other outcome.
        level_confidence: probability of each node on the path, level 1 first.
        alternatives: JSON, the best places with `node_id`, `path` and `confidence`, best first.
        modality: what the answer was made from: "text", "image" or "both".
        model_version: of the model folder.
        policy: name of the policy that decided.
        error: a code where the row could not be answered.
        attributes: what is said of the product's attributes: name to `value` (a list where an attribute takes
            several), `confidence` and `source`; only those that are answered, so empty where nothing is. A JSON
            object, as text where the format has none.
    """

    product_id: str | None
    outcome: str
    node_id: str | None
    path: str | None
    confidence: float | None
    level_confidence: list[float]
    alternatives: str
    modality: str | None
    model_version: str
    policy: str
    error: str | None
    attributes: dict[str, dict[str, Any]]


COLUMNS: Final = tuple(field.name for field in fields(OutputRow))
_SCHEMA: Final = pa.schema(
    [
        (name, pa.list_(pa.float32()) if name == "level_confidence" else pa.float32())
        if name.endswith("confidence")
        else (name, pa.string())
        for name in COLUMNS
    ]
)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a feed: `n_rows` = `n_answered` + `n_suggested` + `n_review` + `n_abstained` + `n_outside` +
    the sum of `n_errors`."""

    n_rows: int
    n_answered: int
    n_suggested: int
    n_review: int
    n_abstained: int
    n_outside: int
    n_errors: dict[str, int]
    n_picture_errors: dict[str, int]
    seconds: float

    @property
    def products_per_s(self) -> float:
        return self.n_rows / self.seconds if self.seconds else 0.0


class Sink(Protocol):
    """Takes rows of output, a batch at a time."""

    def write(self, rows: list[OutputRow]) -> None: ...


class _Lines(AbstractContextManager[Sink]):
    """CSV, TSV or JSON lines, plain or gzipped; in CSV lists and objects are JSON, as in `alternatives`."""

    def __init__(self, path: Path, kind: str, *, zipped: bool) -> None:
        opener = gzip.open if zipped else open
        # Closed by __exit__: this class is the context manager.
        self._file = cast(TextIO, opener(path, "wt", encoding="utf-8", newline=""))
        self._writer = None
        if kind != ".jsonl":
            self._writer = csv.writer(self._file, delimiter="\t" if kind == ".tsv" else ",", lineterminator="\n")
            self._writer.writerow(COLUMNS)

    def write(self, rows: list[OutputRow]) -> None:
        for row in rows:
            values = {name: getattr(row, name) for name in COLUMNS}
            if self._writer is None:
                self._file.write(json.dumps(values, ensure_ascii=False) + "\n")
            else:
                values["level_confidence"] = json.dumps(row.level_confidence)
                values["attributes"] = _text_of(row.attributes)
                self._writer.writerow(["" if value is None else value for value in values.values()])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class _Parquet(AbstractContextManager[Sink]):
    """One row group for some thousands of rows; smaller ones make a slow file."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
        self._rows: list[OutputRow] = []

    def write(self, rows: list[OutputRow]) -> None:
        self._rows += rows
        if len(self._rows) >= 16_384:
            self._flush()

    def _flush(self) -> None:
        columns = {name: [getattr(row, name) for row in self._rows] for name in COLUMNS}
        columns["attributes"] = [_text_of(row.attributes) for row in self._rows]
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))
        self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def open_sink(path: Path, kind: str, *, zipped: bool = False) -> AbstractContextManager[Sink]:
    """A file of output rows, written as long as the block runs.

    Args:
        path: the file.
        kind: one of `FORMATS`.
        zipped: gzipped; not for Parquet.
    """
    return _Parquet(path) if kind == ".parquet" else _Lines(path, kind, zipped=zipped)


def check_output(out: Path) -> tuple[str, bool]:
    """Format of an output file by its ending: the ending without `.gz`, and whether it is gzipped.

    Raises:
        InputError: another ending, or a folder that does not exist.
    """
    zipped = out.suffix == ".gz"
    kind = out.with_suffix("").suffix if zipped else out.suffix
    if kind not in FORMATS or (zipped and kind == ".parquet"):
        raise InputError(
            f"output file {out.name}",
            allowed="a name ending in .csv, .tsv, .jsonl (each also with .gz) or .parquet",
            remedy="Change the ending of --out.",
        )
    if out.is_dir():
        raise InputError(f"{out} is a folder", allowed="the name of a file", remedy="Add a file name to --out.")
    if not out.parent.is_dir():
        raise InputError(f"no folder {out.parent}", allowed="an existing folder", remedy="Create it first.")
    return kind, zipped


def classify_feed(
    classifier: Classifier,
    feed: Path,
    out: Path,
    *,
    mapping: Mapping | None = None,
    image_root: Path | None = None,
    policy: Policy = DEEPEST,
    policy_name: str = DEFAULT,
    say: Callable[[str], None] = print,
) -> BatchReport:
    """Answer every row of a feed.

    Args:
        classifier: the opened model.
        feed: a file of any format that `shelver.catalog` reads.
        out: the output file; its ending decides the format. Replaced when the run is through, not before.
        mapping: which column is what, where the names do not tell.
        image_root: folder of the pictures that the feed names.
        policy: how to decide.
        policy_name: what the output calls it.
        say: told about the progress.

    Raises:
        FeedError: the feed as a whole cannot be read.
        ConfigError: the policy does not fit the model.
        InputError: the output's ending is unknown, or it is the feed itself.
    """
    kind, zipped = check_output(out)
    if out.exists() and feed.exists() and out.samefile(feed):
        raise InputError(f"--out {out} is the feed itself", allowed="another file", remedy="Name another --out.")
    rows = open_products(feed, mapping=mapping, image_root=image_root, labels=False).rows
    partial = out.with_name(f".{out.name}.partial")
    tally = _Tally()
    started = told = time.monotonic()
    try:
        with open_sink(partial, kind, zipped=zipped) as sink:
            for batch in _batches(rows):
                sink.write(_answer(classifier, batch, policy, policy_name, tally))
                now = time.monotonic()
                if now - told > TELL_EVERY_S:
                    told = now
                    say(f"{tally.n_rows:,} rows, {tally.n_rows / (now - started):,.0f}/s")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    return BatchReport(
        n_rows=tally.n_rows,
        n_answered=tally.outcomes["decided"],
        n_suggested=tally.outcomes["suggested"],
        n_review=tally.outcomes["review"],
        n_abstained=tally.outcomes["abstained"],
        n_outside=tally.outcomes["outside"],
        n_errors=tally.n_errors,
        n_picture_errors=tally.n_picture_errors,
        seconds=seconds,
    )


class _Tally:
    def __init__(self) -> None:
        self.n_rows = 0
        self.outcomes: Counter[str] = Counter()
        self.n_errors: dict[str, int] = {}
        self.n_picture_errors: dict[str, int] = {}


def _batches(rows: Iterator[ProductRow | BadRow]) -> Iterator[list[ProductRow | BadRow]]:
    batch: list[ProductRow | BadRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_PRODUCTS:
            yield batch
            batch = []
    if batch:
        yield batch


def _answer(
    classifier: Classifier, batch: list[ProductRow | BadRow], policy: Policy, name: str, tally: _Tally
) -> list[OutputRow]:
    """Answers in the order of the rows; a bad row carries the code that says why."""
    products: list[Product] = [row.product for row in batch if isinstance(row, ProductRow)]
    said = classifier(products, policy=policy) if products else None
    answers = iter(said) if said is not None else iter(())
    version = classifier.model_version
    result = []
    for row in batch:
        if isinstance(row, BadRow):
            nothing = Prediction("error", None, None, None, (), (), None, row.code)
            result.append(output_row(row.product_id, nothing, version, name))
        else:
            result.append(output_row(row.product.product_id, next(answers), version, name))
    for output in result:
        tally.n_rows += 1
        tally.outcomes[output.outcome] += 1
        if output.error is not None:
            tally.n_errors[output.error] = tally.n_errors.get(output.error, 0) + 1
    unusable = [code for code in said.picture_errors if code is not None] if said is not None else []
    unusable += [code for row in batch if isinstance(row, ProductRow) for code in row.warnings]
    for code in unusable:
        tally.n_picture_errors[code] = tally.n_picture_errors.get(code, 0) + 1
    return result


def output_row(product_id: str | None, said: Prediction, model_version: str, policy: str = DEFAULT) -> OutputRow:
    """A prediction as a row of output."""
    alternatives: list[dict[str, Any]] = [
        {"node_id": a.node_id, "path": a.path, "confidence": _rounded(a.confidence)} for a in said.alternatives
    ]
    return OutputRow(
        product_id=product_id,
        outcome=said.outcome,
        node_id=said.node_id,
        path=said.path,
        confidence=None if said.confidence is None else _rounded(said.confidence),
        level_confidence=[_rounded(p) for p in said.level_confidence],
        alternatives=json.dumps(alternatives, ensure_ascii=False),
        modality=said.modality,
        model_version=model_version,
        policy=policy,
        error=said.error,
        attributes={name: answer.as_json() for name, answer in said.attributes.items()},
    )


def _text_of(attributes: dict[str, dict[str, Any]]) -> str:
    return json.dumps(attributes, ensure_ascii=False)


def _rounded(probability: float) -> float:
    """Six digits: finer ones mean nothing. A sum of float32 may end a hair above 1."""
    return 0.0 if math.isnan(probability) else min(round(probability, 6), 1.0)
