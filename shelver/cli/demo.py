"""generate and demo: the whole system on made products, with nothing to download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from shelver.cli.demo_service import Made


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
    products: Annotated[
        int | None, typer.Option(min=500, help="How many products to make; 6,000 without it.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Another seed is another shop's stock; 0 without it.")
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Then serve the web pages on it, with some weeks of work; a demo that is there is used.",
        ),
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="With --serve: address to listen at; 127.0.0.1 without it.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="With --serve: port to listen at; 8000 without it.", min=1, max=65535)
    ] = None,
    new_passwords: Annotated[
        bool, typer.Option("--new-passwords", help="With --serve: give the people of the demo new passwords.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a shop's catalog, learn its shelves, and show how good the model is and what it answers.

    With --serve the whole service runs on it until Ctrl-C, in the folder of --out: pages, API and a worker.
    """
    from shelver.cli import demo_service
    from shelver.folders import refuse_file, writing_alone

    settings = demo_service.ready_to_serve(out, host, port) if serve else None
    refuse_file(out)
    made = demo_service.made(out)
    demo_service.refuse_others(out)
    out.mkdir(parents=True, exist_ok=True)
    with writing_alone(out):
        if settings is None or made is None:
            made = demo_service.Made(products=products or 6_000, seed=seed or 0)
            _make(out, made, as_json=as_json)
        else:
            demo_service.refuse_another(out, made, products, seed)
        if settings is not None:
            demo_service.serve(out, made, settings, new_passwords=new_passwords, as_json=as_json)


def _make(out: Path, wanted: Made, *, as_json: bool) -> None:
    """The demo itself, in place of what is in the folder."""
    require_training()
    import shutil
    import time

    from shelver.catalog.ingest import ingest
    from shelver.catalog.store import Catalog
    from shelver.cli import demo_service
    from shelver.datasets.generated import messy_listings, write_demo
    from shelver.evaluate import evaluate
    from shelver.pipeline import Classifier
    from shelver.report import publish
    from shelver.settings import read_settings
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    started = time.monotonic()
    products, seed = wanted.products, wanted.seed
    demo_service.empty(out)

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
    shutil.copytree(out / "report", out / "model" / "report", dirs_exist_ok=True)  # a service shows it

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
        f"  shelver demo --serve --out {out}        # the web pages, with people, listings and some weeks of work",
        f'  shelver predict {out / "model"} --title "Blue cotton cushion cover, 40 x 40"',
        f"  shelver predict {out / 'model'} {feed} --out {out / 'predictions.csv'}",
        f"  shelver describe {out / 'catalog'}",
        "  shelver ingest YOUR_FEED.csv --out catalogs/mine        # then train, evaluate and predict on your own",
    ]
    demo_service.note(out, wanted)
    say.result(record, "\n".join(lines), as_json=as_json)


def _indented(line: str) -> None:
    say.progress(f"      {line}")
