"""What an ingest reads: a feed or a recipe, made alike, with the fingerprint of its content and options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.attributes import Normaliser, Vocabulary
from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductFeed, ProductRow, missing_picture, open_products, picture_files
from shelver.catalog.rows import BadRow, Limits
from shelver.catalog.split import Split
from shelver.catalog.store import FORMAT_VERSION
from shelver.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelver.datasets.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Labelling:
    """How labels of attributes are settled.

    Attributes:
        vocabulary: the given one.
        extract: titles and descriptions are searched for values.
        options: what of it counts for the fingerprint.
    """

    vocabulary: Vocabulary | None = None
    extract: bool = False
    options: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, vocabulary: Vocabulary | None, extract: bool | None) -> Labelling:
        """As `ingest` takes them: titles are searched where a vocabulary is given, unless said otherwise."""
        wanted = vocabulary is not None if extract is None else extract
        options: dict[str, object] = {"extract": True} if wanted else {}
        if vocabulary is not None:
            options["vocabulary"] = hashlib.sha256(vocabulary.model_dump_json().encode()).hexdigest()
        return cls(vocabulary, wanted, options)


PLAIN = Labelling()


def _no_picture() -> tuple[str, str] | None:
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """A feed or a recipe, made alike.

    Attributes:
        name: for people.
        rows: called once; one item for each row.
        taxonomy: the tree in which categories are looked up, or None for that of the rows' paths.
        level: where the tree is cut: a category below it is its ancestor there; None: nowhere.
        wish: the shares of the parts.
        own_split_counts: a split in the rows wins over `wish`.
        fingerprint: SHA-256 over content and options.
        n_rows: an estimate of the rows, or None.
        feed: the opened feed; None for a recipe.
        attributes: their names, in the order of the mapping or the recipe.
        labelling: how their labels are settled.
        missing_picture: finds the first picture that the feed names and that is not there: its folder and name.
    """

    name: str
    rows: Callable[[], Iterable[ProductRow | BadRow]]
    taxonomy: Taxonomy | None
    wish: Split
    own_split_counts: bool
    fingerprint: str
    n_rows: int | None
    level: int | None = None
    feed: ProductFeed | None = None
    attributes: tuple[str, ...] = ()
    labelling: Labelling = PLAIN
    missing_picture: Callable[[], tuple[str, str] | None] = _no_picture

    @property
    def columns(self) -> dict[str, str]:
        """Part of a product → the feed's column, several joined by " + "; empty for a recipe.

        An attribute stands as `attributes.NAME`.
        """
        mapping = self.feed.mapping if self.feed is not None else Mapping()
        entries: dict[str, str | tuple[str, ...]] = dict(mapping.columns.items())
        entries |= {f"attributes.{name}": entry for name, entry in mapping.attributes.items()}
        return {name: entry if isinstance(entry, str) else " + ".join(entry) for name, entry in entries.items()}

    @property
    def unused(self) -> tuple[str, ...]:
        """The feed's columns that nothing is read from; empty for a recipe."""
        if self.feed is None:
            return ()
        used = set(self.feed.mapping.used_columns())
        return tuple(column for column in self.feed.columns if column not in used)

    @property
    def tree(self) -> Taxonomy | None:
        """The tree of the catalog: `taxonomy`, cut."""
        return self.taxonomy if self.taxonomy is None or self.level is None else self.taxonomy.cut(self.level)[0]

    def find_node(self, names: tuple[str, ...]) -> str | None:
        """The id of the node that a category names: by id first, then by its path; cut at `level`.

        Only for a source with a taxonomy.
        """
        tree = self.taxonomy
        assert tree is not None
        text = " > ".join(names)
        k = tree.find(text)
        if k is None:
            k = tree.find_path(names)
        if k is None and len(names) == 1:
            k = tree.find_path(text.split(" > "))
        if k is None:
            return None
        if self.level is not None and tree.level[k] > self.level:
            k = int(tree.lineage[k, self.level - 1])
        return tree.ids[k]


def feed_source(
    path: Path,
    mapping: Mapping | None,
    image_root: Path | str | None,
    taxonomy: Taxonomy | None,
    split: Split | None,
    limits: Limits,
    level: int | None,
    labelling: Labelling = PLAIN,
) -> Source:
    """A feed; raises what opening it raises."""
    # Opening it first gives the reader's errors before anything is hashed or written.
    feed = open_products(path, mapping=mapping, image_root=image_root, limits=limits)
    if found := _columns_of(feed, labelling.vocabulary):
        given = mapping or Mapping()
        mapping = given.model_copy(update={"attributes": {**given.attributes, **found}})
        feed = open_products(path, mapping=mapping, image_root=image_root, limits=limits)
    options = None
    if mapping is not None:
        # What came later counts only where it is used: the catalogs of before are still up to date.
        names = ("attributes", "attribute_separator", "category_alternatives")
        later = {name for name in names if not getattr(mapping, name)}
        options = mapping.model_dump(mode="json", exclude={"image_folder", *later})
    levels = [wish for wish in (level, feed.mapping.max_level) if wish is not None]
    cut = min(levels) if levels and taxonomy is not None else None
    pictures: Iterable[tuple[str, int]] = ()
    if not _has_only_bytes(path, feed):
        pictures = picture_files(path, mapping=mapping, image_root=image_root, limits=limits)
    fingerprint, n_rows = _fingerprint(
        [path],
        # Another place of the same pictures is the same source; other pictures are not.
        pictures=pictures,
        options={
            "mapping": options,
            "taxonomy": taxonomy.version if taxonomy else None,
            "level": cut,
            "split": str(split),
            **({"attributes": feed.mapping.attributes} if feed.mapping.attributes else {}),
            **{name: entry for name, entry in feed.mapping.columns.items() if name == "specification"},
            **labelling.options,
        },
    )
    return Source(
        path.name,
        lambda: feed.rows,
        taxonomy,
        split or Split(),
        True,
        fingerprint,
        n_rows,
        cut,
        feed,
        tuple(feed.mapping.attributes),
        labelling,
        lambda: missing_picture(path, mapping=mapping, image_root=image_root, limits=limits),
    )


def _columns_of(feed: ProductFeed, vocabulary: Vocabulary | None) -> dict[str, str]:
    """The columns that nothing is read from and that a vocabulary knows by name: attribute → column."""
    if vocabulary is None:
        return {}
    normaliser = Normaliser(vocabulary)
    used = set(feed.mapping.used_columns())
    taken = {known.name for name in feed.mapping.attributes if (known := normaliser.find(name)) is not None}
    found: dict[str, str] = {}
    for column in feed.columns:
        attribute = normaliser.find(column.removeprefix("g:"))
        if column not in used and attribute is not None and attribute.name not in taken:
            found.setdefault(attribute.name, column)
    return found


def _has_only_bytes(path: Path, feed: ProductFeed) -> bool:
    """Whether all pictures of a feed stand in it, as a Parquet schema can prove: no file can then be named."""
    if feed.format != "parquet" or feed.mapping.image_pattern is not None:
        return False
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False  # gzipped
    columns = feed.mapping.columns.get("image", ())
    for name in (columns,) if isinstance(columns, str) else columns:
        kind = schema.field(name).type if name in schema.names else pa.string()
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return False
    return True


def recipe_source(
    recipe: Recipe, source: Path, taxonomy: Taxonomy | None, split: Split | None, labelling: Labelling = PLAIN
) -> Source:
    """A public set by its recipe; raises FeedError where its files are missing."""
    files = recipe.files(source)
    tree = taxonomy if taxonomy is not None else recipe.taxonomy(source)
    fingerprint, n_rows = _fingerprint(
        files,
        pictures=_files_below(recipe.pictures(source)),
        options={
            "recipe": recipe.name,
            "taxonomy": tree.version if tree else None,
            "split": str(split),
            **({"attributes": recipe.attributes} if recipe.attributes else {}),
            **({"version": recipe.version} if recipe.version > 1 else {}),
            **labelling.options,
        },
    )
    return Source(
        recipe.name,
        lambda: recipe.rows(source),
        tree,
        split or recipe.split or Split(),
        split is None,
        fingerprint,
        n_rows,
        attributes=recipe.attributes,
        labelling=labelling,
    )


def _files_below(folder: Path | None) -> Iterator[tuple[str, int]]:
    """Relative name and size of each file below a folder, in a fixed order."""
    if folder is None:
        return
    for at, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(at, name)
            yield path.relative_to(folder).as_posix(), path.stat().st_size if path.is_file() else 0


def _fingerprint(
    files: list[Path], *, pictures: Iterable[tuple[str, int]], options: dict[str, object]
) -> tuple[str, int | None]:
    """SHA-256 over the options, the content of the files, and the names and sizes of the pictures.

    A picture's time is left out, since every copy of a folder has other ones: a picture replaced by one of the
    very same size is not noticed.

    Also an estimate of the rows of the first file, since it is read anyway.
    """
    total = hashlib.sha256(json.dumps([FORMAT_VERSION, options], sort_keys=True).encode())
    n_rows: int | None = None
    for number, path in enumerate(files):
        digest = hashlib.sha256()
        n_lines = 0
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            while block := file.read(1 << 20):
                digest.update(block)
                n_lines += block.count(b"\n")
        total.update(digest.digest())
        if number == 0 and start == b"PAR1":
            try:
                n_rows = pq.read_metadata(path).num_rows
            except (pa.ArrowInvalid, OSError):
                n_rows = None  # the reader will say so
        elif number == 0 and not start.startswith(b"\x1f\x8b"):
            n_rows = max(0, n_lines - 1) or None
    for name, size in pictures:
        total.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest(), n_rows
