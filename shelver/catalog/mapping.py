"""Mapping: which column of a feed is which part of a product.

Standard names and well-known ones (Google Merchant, Shopify) need none: `Mapping.guess`. Anything else is a
small TOML file::

    category_separator = " >> "
    category_strip = '[]"'
    max_level = 3
    image_folder = "images"

    [columns]
    product_id = "uniq_id"
    title = "product_name"
    category = "product_category_tree"    # or a list of columns, one a level: ["department", "aisle"]
    image = "image"                       # or a list of columns, one a picture

    [attributes]
    colour = "color"                      # or a list of columns, whose values are taken together

    [constants]
    language = "en"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shelver.catalog.feeds import Format
from shelver.errors import ConfigError

Standard = Literal[
    "product_id",
    "title",
    "description",
    "brand",
    "image",
    "category",
    "split",
    "source",
    "language",
    "value",
    "specification",
]
STANDARD: tuple[Standard, ...] = get_args(Standard)
LABELS: tuple[Standard, ...] = ("category", "split", "source", "language", "value", "specification")
"""What learning and judging need beside the product itself and its attributes; a prediction needs none of it."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
"""Of an attribute."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

DEFAULT_SEPARATOR = " > "
# A lone ">" between two names, with any space around it. ">>" is another separator, ">5 kg" a name.
_DEFAULT_SPLIT = re.compile(r" > |(?<=[^\s>])\s*>\s*(?=[^\s>]|$)")

# Each tuple is an order of preference; names are compared by `_key`.
_SYNONYMS: dict[Standard, tuple[str, ...]] = {
    "product_id": (
        "g:id",
        "id",
        "handle",
        "url handle",
        "sku",
        "item_id",
        "productid",
        "uniq_id",
    ),
    "title": ("g:title", "product_title", "product_name", "name", "item_name"),
    "description": (
        "g:description",
        "body (html)",
        "body_html",
        "product_description",
        "summary",
        "content",
    ),
    "brand": ("g:brand", "vendor", "manufacturer"),
    "image": (
        "g:image_link",
        "image_link",
        "image src",
        "image_src",
        "product image url",
        "image_url",
        "images",
    ),
    "category": (
        "g:google_product_category",
        "google_product_category",
        "g:product_type",
        "product_type",
        "product category",
        "product_category",
        "category_path",
        "type",
    ),
    "split": (),
    "source": (),
    "language": ("g:content_language", "lang"),
    "value": (),
    "specification": ("specifications", "specs", "product_specification", "product_specifications"),
}
# Attributes that Google Merchant feeds have as columns, also with "g:" before them.
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": ("color", "colour"),
    "gender": ("gender",),
    "age_group": ("age_group",),
    "material": ("material",),
    "pattern": ("pattern",),
}
_MORE_IMAGES = ("g:additional_image_link", "additional_image_link")


class Mapping(BaseModel):
    """Where a product's parts stand in a feed.

    Attributes:
        columns: standard name → column of the feed. Several columns are: for `category` its levels from the top,
            for `image` several pictures, for the others alternatives (the first that is not empty).
        attributes: name of an attribute → column of the feed, or several, whose values are taken together. A cell
            that is a list is several values.
        attribute_separator: between several values of an attribute in one cell.
        constants: standard name → the same text for every row.
        id_from: `column`; `line` takes the line number as id; `hash` takes 16 hex digits of the SHA-256 of
            `id_columns`.
        id_columns: the columns that `hash` reads.
        category_format: `path` splits the cell at `category_separator`; `id` takes the cell as a node id (without
            a taxonomy: of a flat tree of the ids that the feed has).
        category_separator: between the levels of a path. The default, " > ", also takes other space around
            the ">", or none.
        category_strip: characters cut from both ends of a category cell before it is split.
        category_alternatives: between several paths in one cell, all of them right; the first is the product's
            place. With it, a cell that is a list is several paths, one an item.
        max_level: deeper levels are cut, also those of a taxonomy.
        image_folder: where the files of pictures stand; a relative one starts at the mapping's own file, or at
            the feed where there is none. Without it: the feed's folder.
        image_pattern: the name of a picture's file, made from a row: `image_{imageid}_product_{productid}.jpg`.
        image_separator: between several pictures in one cell.
        format, encoding, delimiter, header, quoted: see `shelver.catalog.feeds.open_feed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[Standard, str | tuple[str, ...]] = Field(default_factory=dict)
    attributes: dict[Name, str | tuple[str, ...]] = Field(default_factory=dict)
    attribute_separator: str | None = Field(default=None, min_length=1)
    constants: dict[Standard, str] = Field(default_factory=dict)
    id_from: Literal["column", "line", "hash"] = "column"
    id_columns: tuple[str, ...] = ()
    category_format: Literal["path", "id"] = "path"
    category_separator: str = Field(default=DEFAULT_SEPARATOR, min_length=1)
    category_strip: str = ""
    category_alternatives: str | None = Field(default=None, min_length=1)
    max_level: int | None = Field(default=None, ge=1)
    image_folder: str | None = None
    image_pattern: str | None = None
    image_separator: str | None = Field(default=None, min_length=1)
    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    header: tuple[str, ...] | None = None
    quoted: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("product_id", "image", "category", "value", "specification"):
            if name in self.constants:
                raise ValueError(f"`{name}` cannot be a constant")
        if both := self.columns.keys() & self.constants.keys():
            raise ValueError(f"`{min(both)}` is a column and a constant")
        seen: dict[str, str] = {}
        for attribute in self.attributes:
            if (other := seen.setdefault(_key(attribute), attribute)) != attribute:
                raise ValueError(f"the attribute `{attribute}` is given twice, also as `{other}`")
        if (self.id_from == "hash") != bool(self.id_columns):
            raise ValueError("`id_columns` belongs to id_from = 'hash', and 'hash' needs it")
        if self.id_from != "column" and "product_id" in self.columns:
            raise ValueError(f"`product_id` is a column, but id_from is {self.id_from!r}")
        if self.image_pattern is not None:
            if "image" in self.columns:
                raise ValueError("give a column for `image` or an `image_pattern`, not both")
            if not self.image_placeholders():
                raise ValueError("`image_pattern` names no column, for example {product_id}")
        if self.category_alternatives is not None and isinstance(self.columns.get("category"), tuple):
            raise ValueError("`category_alternatives` belongs to one column for `category`, not to one a level")
        if self.delimiter is not None and self.delimiter in '"\r\n\0':
            raise ValueError("`delimiter` cannot be a quote or a line end")
        return self

    @classmethod
    def load(cls, path: str | PurePath) -> Mapping:
        """Reads a mapping from TOML; a relative `image_folder` starts at the file's own folder.

        Raises:
            ConfigError: the file cannot be read, is no TOML, or holds an unknown or wrong entry.
        """
        path = Path(path)
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            allowed = f"a TOML file with the entries {', '.join(cls.model_fields)}"
            raise ConfigError(f"mapping {path}: {error}", allowed=allowed, remedy="Mend the file.") from error
        mapping = cls.of(entries, where=f"mapping {path.name}")
        if mapping.image_folder is not None:
            # Absolute, since a reader joins it to the feed's folder.
            folder = (path.parent / mapping.image_folder).resolve()
            mapping = mapping.model_copy(update={"image_folder": str(folder)})
        return mapping

    @classmethod
    def of(cls, entries: dict[str, Any], *, where: str) -> Mapping:
        """A mapping of entries as a file or flags have them.

        Args:
            entries: see the attributes.
            where: where they come from, for the error.

        Raises:
            ConfigError: an entry is unknown or wrong, or two do not go together.
        """
        try:
            return cls.model_validate(entries)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"][:2])
            problem = f"{place}: {first['msg']}" if place else str(first["msg"])
            allowed = f"the entries {', '.join(cls.model_fields)}"
            if "columns" in first["loc"][:1] or "constants" in first["loc"][:1]:
                allowed = f"the standard names {', '.join(STANDARD)}"
            raise ConfigError(f"{where}: {problem}", allowed=allowed, remedy="Mend this entry.") from error

    @classmethod
    def guess(cls, columns: Sequence[str]) -> Mapping:
        """The mapping of a feed with standard or well-known column names; others are left out."""
        return cls().completed(columns)

    def completed(self, columns: Sequence[str]) -> Mapping:
        """This mapping with what it leaves open guessed from the feed's columns."""
        given = set(self.used_columns())
        by_key: dict[str, str] = {}
        for column in columns:
            if column not in given:  # a column has one meaning unless the mapping says otherwise
                by_key.setdefault(_key(column), column)
        found = dict(self.columns)
        for name in STANDARD:
            if name in found or name in self.constants or (name == "product_id" and self.id_from != "column"):
                continue
            if name == "image" and self.image_pattern is not None:
                continue
            hits = [by_key[_key(word)] for word in (name, *_SYNONYMS[name]) if _key(word) in by_key]
            if not hits:
                continue
            if name == "image":
                more = [by_key[_key(word)] for word in _MORE_IMAGES if _key(word) in by_key]
                found[name] = (hits[0], *more) if more else hits[0]
            elif name != "category" and len(hits) > 1 and _bare(hits[0]) == _bare(hits[1]):
                found[name] = (hits[0], hits[1])  # `title` and `g:title`: a merchant feed may use either
            else:
                found[name] = hits[0]
        used = {column for entry in found.values() for column in _tuple(entry)}
        said = {_key(attribute) for attribute in self.attributes}
        attributes = dict(self.attributes)
        for attribute, words in _ATTRIBUTES.items():
            columns = [by_key[key] for word in words for key in (f"g:{word}", word) if key in by_key]
            if said.isdisjoint(words) and (left := [column for column in columns if column not in used]):
                attributes[attribute] = tuple(left) if len(left) > 1 else left[0]
        return self.model_copy(update={"columns": found, "attributes": attributes})

    def without(self, names: Iterable[Standard]) -> Mapping:
        """This mapping without the columns and constants of some parts, and without attributes."""
        left_out = set(names)
        return self.model_copy(
            update={
                "attributes": {},
                "columns": {name: entry for name, entry in self.columns.items() if name not in left_out},
                "constants": {name: text for name, text in self.constants.items() if name not in left_out},
            }
        )

    def used_columns(self) -> tuple[str, ...]:
        """Every column of the feed that is read, each once."""
        entries = (*self.columns.values(), *self.attributes.values())
        names = [name for entry in entries for name in _tuple(entry)]
        return tuple(dict.fromkeys([*names, *self.id_columns, *self.image_placeholders()]))

    def levels(self, cell: str) -> list[str]:
        """The names of a category cell, from the top, as they stand."""
        if self.category_separator == DEFAULT_SEPARATOR:
            return _DEFAULT_SPLIT.split(cell) if ">" in cell else [cell]
        return cell.split(self.category_separator)

    def prefixed(self, columns: Sequence[str]) -> Mapping:
        """This mapping with `g:` before each column that the feed (Google Merchant XML) has only with it."""
        have = set(columns)

        def find(name: str) -> str:
            return f"g:{name}" if name not in have and f"g:{name}" in have else name

        found, attributes = (
            {
                name: find(entry) if isinstance(entry, str) else tuple(map(find, entry))
                for name, entry in entries.items()
            }
            for entries in (self.columns, self.attributes)
        )
        pattern = self.image_pattern
        if pattern is not None:
            pattern = _PLACEHOLDER.sub(lambda match: f"{{{find(match[1])}}}", pattern)
        ids = tuple(map(find, self.id_columns))
        return self.model_copy(
            update={"columns": found, "attributes": attributes, "id_columns": ids, "image_pattern": pattern}
        )

    def image_placeholders(self) -> tuple[str, ...]:
        """The columns that `image_pattern` names."""
        return tuple(_PLACEHOLDER.findall(self.image_pattern or ""))

    def image_name(self, values: dict[str, str]) -> str:
        """`image_pattern` filled from a row. Plain text replacement: a value is never read as a pattern."""
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.image_pattern or "")

    def check(self, columns: Sequence[str], *, repeated: Iterable[str] = (), open_ended: bool = False) -> None:
        """Holds the mapping against a feed's columns.

        Args:
            columns: the feed's columns.
            repeated: names that its header has more than once.
            open_ended: rows may have columns beside these (JSON lines).

        Raises:
            ConfigError: a mapped column is missing or stands twice, or nothing gives the product_id.
        """
        shown = ", ".join(columns[:40]) + (", …" if len(columns) > 40 else "")
        if self.id_from == "column" and "product_id" not in self.columns:
            raise ConfigError(
                f"no column for product_id among: {shown[:600]}",
                allowed="a column product_id, or one that the mapping names",
                remedy="Map it (`[columns]` product_id = ...), or set id_from = 'line' or 'hash'; where the file "
                "has no header line, name its columns with `header`.",
            )
        have = set(columns)
        for name in self.used_columns():
            if name not in have and not open_ended:
                raise ConfigError(
                    f"column {name!r} is mapped, but the feed has: {shown[:600]}",
                    allowed="columns of the feed",
                    remedy="Mend the mapping; names are case-sensitive.",
                )
            if name in set(repeated):
                raise ConfigError(
                    f"column {name!r} stands more than once in the header",
                    allowed="one column of each name that is read",
                    remedy=f"Rename one in the feed, or map {name + ' (2)'!r} to take the second.",
                )


def _tuple(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry


def _key(column: str) -> str:
    return re.sub(r"[\s_-]+", "_", column.strip().lower())


def _bare(column: str) -> str:
    return _key(column).removeprefix("g:")
