"""ingest, describe, golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelver.cli import say

if TYPE_CHECKING:
    from shelver.catalog.ingest import IngestReport
    from shelver.catalog.mapping import Mapping
    from shelver.catalog.progress import Tick
    from shelver.taxonomy import Notes, Taxonomy

TreeFormatName = Literal["shelver", "google", "shopify", "gs1", "paths", "idpaths", "flat"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MappingFile = Annotated[Path | None, typer.Option(help="TOML file: which column is what.")]
TaxonomyFormat = Annotated[
    TreeFormatName | None, typer.Option(help="Format of the tree's file; without it, its content tells.")
]
TaxonomySeparator = Annotated[
    str | None, typer.Option(help="What stands between the names of a path, or the columns of a table.")
]
TaxonomyNames = Annotated[
    Path | None, typer.Option(help="The same tree in another language: its names are joined by id.")
]
TaxonomyLevel = Annotated[
    int | None, typer.Option(min=1, help="Cut the tree below this level; a deeper category is its ancestor there.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=COLUMN", help="One column of the mapping, for example title=product_name."),
]


def ingest(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="FEED | RECIPE SOURCE",
            help="A feed (CSV, TSV, JSON lines, Parquet, Google Merchant XML, Shopify CSV; also .gz), or the name "
            "of a recipe and its files: fashion, flipkart, grocery, instacart, hpc3level, rakuten-fr, "
            "rakuten-2018.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The catalog folder to write.")],
    taxonomy: Annotated[
        Path | None, typer.Option(help="The category tree; without it, the tree of the feed's own paths.")
    ] = None,
    taxonomy_format: TaxonomyFormat = None,
    taxonomy_separator: TaxonomySeparator = None,
    taxonomy_names: TaxonomyNames = None,
    taxonomy_level: TaxonomyLevel = None,
    mapping: MappingFile = None,
    column: Columns = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures that the feed names.")] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            help="Vocabulary of attributes: Shopify's folder, an attributes.json or a CSV. Labels are brought to "
            "its words; columns that it knows are read.",
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN", help="A column of attribute labels, for example colour=color_name."),
    ] = None,
    extract: Annotated[
        bool,
        typer.Option(
            "--extract",
            help="Look for values in titles and descriptions too, where neither a column nor a specification says "
            "one. Done with --attributes.",
        ),
    ] = False,
    no_extract: Annotated[bool, typer.Option("--no-extract", help="Do not, with --attributes either.")] = False,
    split: Annotated[
        str | None, typer.Option(help="Train/validation/test in percent. Without it: the feed's own, or 80/10/10.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another catalog in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a feed, or a public set by its recipe, into a catalog."""
    from shelver.attributes import read_vocabulary
    from shelver.catalog.ingest import ingest as run_ingest
    from shelver.catalog.split import Split
    from shelver.datasets.recipes import RECIPES
    from shelver.errors import ConfigError

    name = str(source[0])
    recipe = RECIPES.get(name) if len(source) == 2 else None
    if len(source) == 1 and name in RECIPES and not source[0].exists():
        raise ConfigError(
            f"{name} is a recipe",
            allowed="a recipe and the folder of its files, or a feed",
            remedy=f"Also name its folder: `shelver ingest {name} FOLDER --out {out}`.",
        )
    if (len(source) == 2 and recipe is None) or len(source) > 2:
        raise ConfigError(
            f"ingest {' '.join(map(str, source))}",
            allowed=f"one feed, or a recipe ({', '.join(RECIPES)}) and its files",
            remedy="Name one of these ways.",
        )
    tree_flags = (taxonomy_format, taxonomy_separator, taxonomy_names, taxonomy_level)
    if recipe is not None and (mapping or column or attribute or images or taxonomy or any(tree_flags)):
        raise ConfigError(
            f"recipe {recipe.name} with --mapping, --column, --attribute, --images or --taxonomy",
            allowed="a recipe alone: it knows its files' columns, pictures and tree",
            remedy="Leave the flags out, or ingest the file as a feed.",
        )
    if extract and no_extract:
        raise ConfigError("--extract with --no-extract", allowed="one of them", remedy="Leave one out.")
    with say.interruptible("Run the same command again: it goes on where it stopped."):
        report = run_ingest(
            source[-1],
            out,
            recipe=recipe,
            mapping=read_mapping(mapping, column or [], attribute or []),
            image_root=images,
            taxonomy=read_tree(
                taxonomy, taxonomy_format, taxonomy_separator, taxonomy_names, level=taxonomy_level
            ),
            taxonomy_level=taxonomy_level,
            split=Split.parse(split) if split else None,
            vocabulary=read_vocabulary(attributes) if attributes is not None else None,
            extract=None if extract == no_extract else extract,
            progress=_ticker(),
            overwrite=overwrite,
        )
    say.result(_record(report), ingest_text(report), as_json=as_json)


def read_mapping(file: Path | None, columns: list[str], attributes: list[str] | None = None) -> Mapping | None:
    """The mapping of `--mapping`, `--column` and `--attribute`; None where none was given."""
    from typing import get_args

    from shelver.catalog.mapping import Mapping, Standard
    from shelver.errors import ConfigError

    if file is None and not columns and not attributes:
        return None
    start = Mapping.load(file) if file is not None else Mapping()
    flags: dict[str, str] = {}
    for pair in columns:
        name, equals, column = pair.partition("=")
        if not equals or name not in get_args(Standard) or not column:
            raise ConfigError(
                f"--column {pair}",
                allowed=f"NAME=COLUMN, with NAME one of {', '.join(get_args(Standard))}",
                remedy="For example --column title=product_name.",
            )
        flags[name] = column
    labels: dict[str, str] = {}
    for pair in attributes or []:
        name, _, column = (part.strip() for part in pair.partition("="))
        if not name or not column or name in labels:
            raise ConfigError(
                f"--attribute {pair}" + (f": {name} is given twice" if name in labels else ""),
                allowed="NAME=COLUMN, each NAME once",
                remedy="For example --attribute colour=color_name; several columns of one need a mapping.",
            )
        labels[name] = column
    entries: dict[str, Any] = {
        **start.model_dump(),
        "columns": {**start.columns, **flags},
        "attributes": {**start.attributes, **labels},
    }
    flag = "--attribute" if labels and not flags else "--column"
    return Mapping.of(entries, where=f"{flag} with mapping {file.name}" if file is not None else flag)


def read_tree(
    file: Path | None,
    format: TreeFormatName | None,  # noqa: A002
    separator: str | None,
    names: Path | None,
    *,
    level: int | None,
) -> Taxonomy | None:
    """The tree of the `--taxonomy` flags, not yet cut, or None; tells what its reader had to do."""
    from shelver.errors import ConfigError
    from shelver.taxonomy import localise, read_taxonomy

    if file is None:
        if format or separator or names or level:
            raise ConfigError(
                "--taxonomy-format, -separator, -names or -level without --taxonomy",
                allowed="these flags beside --taxonomy FILE",
                remedy="Name the tree's file; the paths of a feed are cut by `max_level` of a mapping.",
            )
        return None
    tree = read_taxonomy(file, format=format, sep=separator)
    if names is not None:
        tree = localise(tree, names)
    for line in tree_notes(tree.notes, names.name if names is not None else ""):
        say.progress(line)
    return tree


def tree_notes(notes: Notes, names: str) -> list[str]:
    """What the reader of a tree had to do, a line each; mostly none."""
    said = [
        (notes.fallback_names, f"names: {{:,}} nodes have no name in {names} and keep the tree's own"),
        (notes.unused_names, f"names: {{:,}} ids of {names} are not in the tree"),
        (notes.created_nodes, "tree: {:,} ancestors that no line names were created"),
        (notes.made_ids, "tree: {:,} nodes whose code repeats have an id made from it"),
    ]
    return [line.format(n) for n, line in said if n]


def _ticker(every_s: float = 2.0) -> Callable[[Tick], None]:
    """Progress of an ingest as a line now and then."""
    import time

    last = time.monotonic()

    def tell(tick: Tick) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s:
            return
        last = now
        of = f" of about {tick.total:,}" if tick.total else ""
        left = f", {tick.seconds_left:,.0f} s left" if tick.seconds_left is not None else ""
        say.progress(f"{tick.phase}: {tick.rows:,}{of} rows, {tick.rows_per_s:,.0f}/s{left}")

    return tell


def _record(report: IngestReport) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(report), "folder": str(report.folder), "split": report.split.model_dump(mode="json")}


def ingest_text(report: IngestReport) -> str:
    """What an ingest did, in a few lines."""
    from shelver.catalog.describe import near_caveats
    from shelver.catalog.store import QUARANTINE_FILE

    lines = [
        f"{report.rows_in:,} rows = {report.accepted:,} accepted + {report.quarantined:,} quarantined, "
        f"{report.seconds:.1f} s" + (" (was there already)" if report.up_to_date else "")
    ]
    lines += [f"  {hint}" for hint in report.hints]
    if report.columns:
        read = ", ".join(f"{name}={column}" for name, column in report.columns.items())
        unused = ", ".join(report.unused[:12]) + (", …" if len(report.unused) > 12 else "")
        lines.append(f"  columns: {read}" + (f"; not used: {unused}" if unused else ""))
    if report.resumed_rows:
        lines.append(f"  resumed after {report.resumed_rows:,} rows")
    lines += [f"  quarantined, {code}: {n:,}" for code, n in sorted(report.by_code.items())]
    if report.example is not None:
        lines.append(f"  for example {report.example}; all of them: {report.folder / QUARANTINE_FILE}")
    for code, n in sorted(report.warnings.items()):
        kind = "accepted without its picture" if code.startswith("image_") else "accepted, with a warning"
        lines.append(f"  {kind}, {code}: {n:,}")
    if report.attributes:
        shown = [f"{name} {n:,}" for name, n in list(report.attributes.items())[:12]]
        more = f", and {len(report.attributes) - 12:,} more" if len(report.attributes) > 12 else ""
        lines.append(f"  attributes, products with a label: {', '.join(shown)}{more}")
    if report.n_with_also:
        lines.append(f"  {report.n_with_also:,} products have several right categories")
    parts = ", ".join(f"{part} {n:,}" for part, n in report.by_split.items())
    lines.append(
        f"{parts}; {report.n_leaves:,} leaves among {report.n_nodes:,} nodes in {report.n_levels} "
        f"level{'s' if report.n_levels > 1 else ''}"
    )
    if report.split.leaking_products:
        lines.append(f"  {report.split.leaking_products:,} products are tied to one in another part")
    lines += [f"  {line}" for line in near_caveats(report.split.n_narrowed, exhaustive=report.split.exhaustive)]
    lines.append(str(report.folder))
    return "\n".join(lines)


def describe(
    catalog: Annotated[Path, typer.Argument(help="A catalog folder.")],
    as_json: AsJson = False,
) -> None:
    """Say what a catalog holds: counts, depth, balance, languages, what is missing or repeated, the quarantine."""
    from shelver.catalog.describe import describe as look
    from shelver.catalog.store import Catalog

    description = look(Catalog.open(catalog))
    say.result(description.to_dict(), str(description), as_json=as_json)


def golden(
    catalog: Annotated[Path, typer.Argument(help="A catalog folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the golden set.")],
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which products.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Freeze a split as a golden set: a hashed copy that is refused once a byte of it has changed."""
    from shelver.catalog.golden import freeze
    from shelver.catalog.store import Catalog

    frozen = freeze(Catalog.open(catalog), split, out)
    record = {"golden": str(frozen.folder), "n_products": frozen.info.n_products, "seal": frozen.info.seal}
    text = f"{frozen.info.n_products:,} products frozen in {frozen.folder}, seal {frozen.info.seal[:12]}"
    say.result(record, text, as_json=as_json)
