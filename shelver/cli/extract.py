"""extract fit, extract run, extract score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson

if TYPE_CHECKING:
    from shelver.catalog.rows import BadRow, Row
    from shelver.extract import Extractor

app = typer.Typer(
    name="extract", no_args_is_help=True, help="Learn to read attribute values out of titles, and read them."
)

Model = Annotated[Path, typer.Argument(help="An extractor's folder.")]
Examples = Annotated[
    Path,
    typer.Argument(help='JSON lines: {"input": title, "category": …, "target_scores": {attribute: {value: 1}}}.'),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Answer from this probability on; without it, where a value is likelier than none."
    ),
]

_AT_ONCE = 4096


@app.command()
def fit(
    data: Examples,
    out: Annotated[Path, typer.Option(help="Folder for the extractor.")],
    epochs: Annotated[int, typer.Option(min=1, max=1000, help="How often each title is learned from.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another order of the titles.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn from titles in which people marked the values; a minute or two for 1,500 of them."""
    from shelver.datasets.extraction import read_examples
    from shelver.extract import Extractor, ExtractSpec
    from shelver.folders import refuse_file

    refuse_file(out)
    examples = read_examples(data)
    with say.interruptible("Nothing was written; run it again."):
        fitted = Extractor.fit(examples, ExtractSpec(n_epochs=epochs, seed=seed), say=say.progress)
    fitted.save(out)
    schema = fitted.schema
    record = {
        "out": str(out),
        "titles": len(examples),
        "categories": len(schema.attributes),
        "attributes": len(schema.names),
    }
    text = (
        f"{len(schema.names)} attributes of {len(schema.attributes)} categories, learned from {len(examples):,} "
        f"titles, in {out}"
    )
    say.result(record, text, as_json=as_json)


@app.command()
def run(
    model: Model,
    feed: Annotated[Path, typer.Argument(help="A feed in any format that ingest reads.")],
    out: Annotated[Path, typer.Option(help="JSON lines to write, one a row of the feed.")],
    title: Annotated[str, typer.Option(help="The column of the title.")] = "title",
    category: Annotated[str, typer.Option(help="The column of the category.")] = "category",
    threshold: Threshold = None,
    as_json: AsJson = False,
) -> None:
    """Read the values out of a feed's titles: attribute to value and confidence, row by row."""
    from shelver.catalog.feeds import open_feed
    from shelver.errors import InputError
    from shelver.extract import Extractor

    extractor, opened = Extractor.open(model), open_feed(feed)
    missing = [column for column in (title, category) if column not in opened.header.columns]
    if missing:
        raise InputError(
            f"{feed} has no column {missing[0]}",
            allowed=f"one of {', '.join(opened.header.columns)}",
            remedy="Name the columns with --title and --category.",
        )
    counts = {"rows": 0, "bad_rows": 0, "unknown_category": 0, "values": 0}
    part = out.with_name(f"{out.name}.part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for rows in _chunks(opened.rows):
            for line in _answered(extractor, rows, title, category, threshold, counts):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    part.replace(out)
    text = f"{counts['values']:,} values in {counts['rows']:,} rows, in {out}"
    if counts["unknown_category"]:
        text += f"; {counts['unknown_category']:,} rows have a category that was not learned"
    if counts["bad_rows"]:
        text += f"; {counts['bad_rows']:,} bad rows were left out"
    say.result({"out": str(out), **counts}, text, as_json=as_json)


@app.command()
def score(model: Model, data: Examples, threshold: Threshold = None, as_json: AsJson = False) -> None:
    """Say how well an extractor reads titles whose values people marked, by exact match."""
    from shelver.datasets.extraction import read_examples
    from shelver.extract import Extractor, tally

    extractor, examples = Extractor.open(model), read_examples(data)
    answers = extractor.answers(
        [example.title for example in examples], [example.category for example in examples], threshold=threshold
    )
    found = tally(examples, answers)
    counts = {name: getattr(found, name) for name in ("nn", "nv", "vn", "vc", "vw")}
    record = {"precision": found.precision, "recall": found.recall, "f1": found.f1, **counts}
    say.result(
        record,
        f"precision {found.precision:.4f}, recall {found.recall:.4f}, F1 {found.f1:.4f} over "
        f"{sum(counts.values()):,} pairs of a title and an attribute",
        as_json=as_json,
    )


def _chunks(rows: Iterator[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    held: list[Row | BadRow] = []
    for row in rows:
        held.append(row)
        if len(held) == _AT_ONCE:
            yield held
            held = []
    yield held


def _answered(
    extractor: Extractor,
    rows: list[Row | BadRow],
    title: str,
    category: str,
    threshold: float | None,
    counts: dict[str, int],
) -> Iterator[dict[str, Any]]:
    """A line for each good row; counts what was seen."""
    from shelver.catalog.rows import Row

    good = [row for row in rows if isinstance(row, Row)]
    counts["rows"] += len(good)
    counts["bad_rows"] += len(rows) - len(good)
    titles, categories = ([_text(row.values.get(column)) for row in good] for column in (title, category))
    counts["unknown_category"] += sum(name not in extractor.schema.attributes for name in categories)
    columns = extractor(titles, categories, threshold=threshold)
    for i, row in enumerate(good):
        found = {
            name: {"value": column.values[i], "confidence": round(float(column.confidence[i]), 4)}
            for name, column in columns.items()
            if column.values[i] is not None
        }
        counts["values"] += len(found)
        yield {"line": row.line, title: titles[i], category: categories[i], "attributes": found}


def _text(cell: object) -> str:
    return cell if isinstance(cell, str) else ""
