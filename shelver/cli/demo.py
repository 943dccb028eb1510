"""generate and demo: the whole system on made products, with nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shelver.cli import say
from shelver.cli.catalogs import (
    AsJson,
    TaxonomyFormat,
    TaxonomyLevel,
    TaxonomyNames,
    TaxonomySeparator,
    read_tree,
)
from shelver.cli.models import report_text, require_training


def generate(
    taxonomy: Annotated[Path, typer.Option(help="The category tree, in any format that ingest reads.")],
    rows: Annotated[int, typer.Option(min=1, help="How many products.")],
    out: Annotated[Path, typer.Option(help="Feed to write: .csv, .tsv, .jsonl (also .gz) or .parquet.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another stock.")] = 0,
    language: Annotated[
        str | None, typer.Option(help="What the column language says, for example en; without it, it is empty.")
    ] = None,
    taxonomy_format: TaxonomyFormat = None,
    taxonomy_separator: TaxonomySeparator = None,
    taxonomy_names: TaxonomyNames = None,
    taxonomy_level: TaxonomyLevel = None,
    as_json: AsJson = False,
) -> None:
    """Make a feed of titles over a category tree, of any size: invented words, for tests of size."""
    from shelver.datasets.generated_titles import write_text_feed

    tree = read_tree(taxonomy, taxonomy_format, taxonomy_separator, taxonomy_names, level=taxonomy_level)
    assert tree is not None
    if taxonomy_level is not None:
        tree, _ = tree.cut(taxonomy_level)
    write_text_feed(tree, out, n_rows=rows, seed=seed, language=language)
    say.result({"out": str(out), "rows": rows}, f"{rows:,} products in {out}", as_json=as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for feed, catalog, model and report.")] = Path("demo"),
    products: Annotated[int, typer.Option(min=500, help="How many products to make.")] = 6_000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another shop's stock.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a shop's catalog, learn its shelves, and show how good the model is and what it answers."""
    require_training()
    import shutil
    import time

    from shelver.catalog.ingest import ingest
    from shelver.catalog.store import Catalog
    from shelver.datasets.generated import messy_listings, write_demo
    from shelver.errors import InputError
    from shelver.evaluate import evaluate
    from shelver.folders import refuse_file
    from shelver.pipeline import Classifier
    from shelver.report import publish
    from shelver.settings import read_settings
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    started = time.monotonic()
    refuse_file(out)
    mark = out / ".shelver-demo"
    if out.exists() and any(out.iterdir()) and not mark.is_file():
        raise InputError(
            f"{out} holds something that is not a demo",
            allowed="a new or empty folder, or that of an earlier demo, which is then replaced",
            remedy="Name another --out.",
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()

    say.progress(f"1/4 making {products:,} products: texts in English and French, drawn pictures, seller noise")
    feed = write_demo(out / "feed", n_products=products, seed=seed)
    say.progress("2/4 ingesting")
    ingested = ingest(feed, out / "catalog")
    catalog = Catalog.open(out / "catalog")
    say.progress("3/4 learning")
    settings = read_settings()
    trained = train(
        catalog,
        out / "model",
        TrainConfig(seed=seed),
        cache=out / "cache",
        threads=settings.threads,
        say=_indented,
    )
    say.progress("4/4 evaluating the exported model on products that it never saw")
    report = evaluate(out / "model", catalog, say=_indented, threads=settings.threads)
    publish(report, model=out / "model", catalog=catalog, out=out / "report", say=_indented)

    listings = messy_listings()
    classifier = Classifier.open(out / "model", threads=settings.threads)
    answers = list(classifier([listing.product for listing in listings]))
    seconds = time.monotonic() - started
    record: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "rows_in": ingested.rows_in,
        "accepted": ingested.accepted,
        "quarantined": ingested.quarantined,
        "model": str(out / "model"),
        "model_version": trained.model_version,
        "report": report.model_dump(mode="json"),
        "listings": [
            {
                "trouble": listing.trouble,
                "shelf": listing.shelf,
                "path": answer.path,
                "confidence": answer.confidence,
            }
            for listing, answer in zip(listings, answers, strict=True)
        ],
    }
    lines = ["", report_text(report), "", "Three messy listings and where they went:"]
    for listing, answer in zip(listings, answers, strict=True):
        said = listing.product.title or "(a picture alone)"
        sure = f"{answer.confidence:.0%} sure, from {answer.modality}" if answer.confidence else answer.error
        right = "right" if answer.path == listing.shelf else f"a person would say {listing.shelf}"
        lines += [f"  {said[:100]}", f"    ({listing.trouble})", f"    -> {answer.path}  [{sure}; {right}]"]
    lines += [
        "",
        f"{products:,} products from feed to report in {seconds:.0f} s. The model folder is {out / 'model'},",
        f"how good it is stands in {out / 'report' / 'report.html'}.",
        "Next:",
        f'  shelver predict {out / "model"} --title "Blue cotton cushion cover, 40 x 40"',
        f"  shelver predict {out / 'model'} {feed} --out {out / 'predictions.csv'}",
        f"  shelver describe {out / 'catalog'}",
        "  shelver ingest YOUR_FEED.csv --out catalogs/mine        # then train, evaluate and predict on your own",
    ]
    say.result(record, "\n".join(lines), as_json=as_json)


def _indented(line: str) -> None:
    say.progress(f"      {line}")
