"""compare, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson

if TYPE_CHECKING:
    from shelver.compare import Comparison, Pair

N_SLICES = 8
"""Slices that the screen shows of each pair, beside those with a verdict; the files have all."""


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(help="Model folders, two or more; the first is the baseline.", metavar="MODEL"),
    ],
    catalog: Annotated[Path, typer.Argument(help="A catalog folder, or a golden set.")],
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which products.")] = "test",
    values: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file with a value for each category; else the mean value of its products counts."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.json and compare.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which model is better, by how much, how surely: all are asked about the same products.

    Differences come with 95 % intervals and McNemar's exact test, over all
    products and slice by slice. Where a model is worse although its mean is
    better, it warns.
    """
    from shelver.catalog.store import Catalog
    from shelver.compare import compare as run_comparison
    from shelver.compare import write_comparison
    from shelver.errors import InputError
    from shelver.folders import refuse_file
    from shelver.settings import read_settings
    from shelver.values import read_values

    if len(models) < 2:
        raise InputError(
            f"one model, {models[0]}",
            allowed="two models or more, and then the catalog",
            remedy="Name another model; `shelver evaluate` says how good one is by itself.",
        )
    if out is not None:
        refuse_results_in(out)
        refuse_file(out)
    opened = Catalog.open(catalog)
    worth = read_values(values, opened.taxonomy) if values is not None else None
    threads = read_settings().threads
    found = run_comparison(models, opened, split=split, values=worth, threads=threads, say=say.progress)
    written = write_comparison(found, out, say=say.progress) if out is not None else ()
    lines = [comparison_text(found), *(["", *map(str, written)] if written else [])]
    say.result(found.model_dump(mode="json"), "\n".join(lines), as_json=as_json)


def refuse_results_in(out: Path) -> None:
    """Make sure that results are not written into a catalog or a model.

    Raises:
        InputError: `out` is one.
    """
    from shelver.errors import InputError

    if (out / "catalog.json").exists() or (out / "manifest.json").exists():
        raise InputError(
            f"{out} is a catalog or a model",
            allowed="a folder for results, new or existing",
            remedy="Name another.",
        )


def comparison_text(comparison: Comparison) -> str:
    """A comparison for the screen: the table, then each pair's verdict, warnings and slices."""
    from shelver.compare.page import ATTRIBUTE_COLUMNS, COLUMNS, attribute_cells, model_cells

    head = f"{comparison.n:,} products of the {comparison.split} split of {comparison.catalog}"
    lines = [head, say.table(COLUMNS, [model_cells(model) for model in comparison.models]), *comparison.notes]
    for pair in comparison.pairs:
        lines += ["", pair.sentence, *(f"WARNING: {warning}" for warning in pair.warnings)]
        if pair.verdict != "same" and pair.slices:
            lines.append(_slices_text(pair, "value" if comparison.values_from else "products"))
    if attributes := attribute_cells(comparison):
        lines += ["", say.table(ATTRIBUTE_COLUMNS, attributes)]
    for model in comparison.models:
        if model.lenient is not None:
            lines.append(f"{model.name}: any of several right paths: accuracy {model.lenient.accuracy:.4f}")
    return "\n".join(lines)


def _slices_text(pair: Pair, of: str) -> str:
    from shelver.compare.judge import p_value, slice_name

    largest = sorted(pair.slices, key=lambda one: -one.value_share)[:N_SLICES]
    shown = [one for one in pair.slices if one in largest or one.verdict != "open"]
    rows = [
        [
            slice_name(one),
            one.n,
            f"{one.value_share:.1%}",
            one.baseline,
            one.challenger,
            f"{100 * one.gap.difference:+.1f}",
            f"{100 * one.gap.low:+.1f}..{100 * one.gap.high:+.1f}",
            p_value(one.p_holm),
            one.verdict,
        ]
        for one in shown
    ]
    header = ["slice", "n", f"of {of}", "baseline", "this", "points", "interval", "corrected", "verdict"]
    return say.table(header, rows)


def sweep(
    file: Annotated[Path, typer.Argument(help="A Python file that defines `sweep`; see configs/sweep_text.py.")],
    catalog: Annotated[Path, typer.Argument(help="A catalog folder with a validation split.")],
    out: Annotated[Path, typer.Option(help="Folder for a model folder a point, and the comparison.")],
    as_json: AsJson = False,
) -> None:
    """Train a grid of models and compare them on validation, never on test.

    Run the same command again after an interruption: finished points stay,
    one that was cut off goes on. A point that fails does not stop the others;
    the exit status is then 1.
    """
    from dataclasses import asdict

    from shelver.catalog.store import Catalog
    from shelver.cli.models import require_training
    from shelver.settings import read_settings
    from shelver.sweep import load_sweep, run_sweep

    refuse_results_in(out)
    opened = Catalog.open(catalog)
    require_training()
    settings = read_settings()
    with say.interruptible("Finished points are kept: run the same command to go on."):
        swept = run_sweep(
            load_sweep(file), opened, out, cache=settings.cache, threads=settings.threads, say=say.progress
        )
    comparison = swept.comparison
    record = {
        "points": [asdict(point) for point in swept.points],
        "comparison": comparison.model_dump(mode="json") if comparison is not None else None,
    }
    lines = [comparison_text(comparison), ""] if comparison is not None else []
    lines += [f"failed: {point.name}: {point.error}" for point in swept.failed]
    lines += map(str, swept.written)
    say.result(record, "\n".join(lines), as_json=as_json)
    if swept.failed:
        say.progress(
            f"shelver: {len(swept.failed)} of {len(swept.points)} points failed; run it again to retry them"
        )
        raise typer.Exit(1)
