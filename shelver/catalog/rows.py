"""What a feed gives for each of its rows: a `Row`, or a `BadRow` that says why not.

Every record of a feed becomes exactly one of the two, so rows in = rows + bad rows, always.
What counts as one record is said by each format in `shelver.catalog.feeds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shelver.images import MAX_BYTES

# A cell as the feed has it. Numbers and truth values arrive as text; None is a typed "nothing" (JSON null, a
# Parquet null, a typed NaN). The word "NA" in a text cell is text.
Cell = str | bytes | list["Cell"] | dict[str, "Cell"] | None

EXCERPT_CHARS = 200


class Code(StrEnum):
    """Why a row went to quarantine."""

    bad_encoding = "bad_encoding"
    nul_byte = "nul_byte"
    too_few_cells = "too_few_cells"
    too_many_cells = "too_many_cells"
    unbalanced_quote = "unbalanced_quote"
    cell_too_large = "cell_too_large"
    row_too_large = "row_too_large"
    bad_json = "bad_json"
    not_an_object = "not_an_object"
    bad_xml = "bad_xml"
    damaged_file = "damaged_file"
    wrong_type = "wrong_type"
    missing_id = "missing_id"
    bad_id = "bad_id"
    empty_product = "empty_product"
    image_missing = "image_missing"
    image_too_many_bytes = "image_too_many_bytes"
    image_refused = "image_refused"
    bad_value = "bad_value"
    bad_split = "bad_split"
    bad_category = "bad_category"
    duplicate_id = "duplicate_id"
    missing_category = "missing_category"
    unknown_category = "unknown_category"


MEANINGS: dict[Code, str] = {
    Code.bad_encoding: "bytes that are no text in the feed's encoding, nor in UTF-8 or Windows-1252",
    Code.nul_byte: "a NUL byte in the row",
    Code.too_few_cells: "fewer cells than the header has columns",
    Code.too_many_cells: "more cells than the header has columns",
    Code.unbalanced_quote: "a quoted cell that is never closed; reading went on at the next line",
    Code.cell_too_large: "a cell over the size limit",
    Code.row_too_large: "a row over the size limit",
    Code.bad_json: "a line that is not valid JSON",
    Code.not_an_object: "a line of JSON that is not an object",
    Code.bad_xml: "XML that is not well formed; reading went on at the next item where there is one",
    Code.damaged_file: "the file breaks off or is damaged here; nothing after it could be read",
    Code.wrong_type: "a cell of the wrong kind, for example a list where a text belongs",
    Code.missing_id: "no product_id",
    Code.bad_id: "a product_id that is too long or holds control characters",
    Code.empty_product: "neither a text nor a picture nor an address of a picture",
    Code.image_missing: "nothing but a picture, whose file is not there or is empty",
    Code.image_too_many_bytes: "nothing but a picture, which is over the size limit",
    Code.image_refused: "nothing but a picture, at a path or address that is not followed",
    Code.bad_value: "a value that is not a number of at least 0",
    Code.bad_split: "a split that is not train, validation or test",
    Code.bad_category: "a category path with an empty level in its middle, or one over the limits",
    Code.duplicate_id: "a product_id that an earlier row has",
    Code.missing_category: "no category where one is needed",
    Code.unknown_category: "a category that the taxonomy does not have",
}


class Warn(StrEnum):
    """What was left out of an accepted product; an image's is also the `Code` of a row with nothing else."""

    image_missing = "image_missing"  # the picture's file is not there or is empty
    image_too_many_bytes = "image_too_many_bytes"  # over `Limits.image_bytes`
    image_refused = "image_refused"  # a path that leaves the picture folder, a data: address, too many pictures
    also_bad_category = "also_bad_category"  # another right category that is no path
    also_unknown_category = "also_unknown_category"  # another right category that the taxonomy does not have
    attribute_refused = "attribute_refused"  # an object, or a value over the limits
    attribute_unknown = "attribute_unknown"  # a value that the vocabulary does not have, kept as seen
    specification_rare = "specification_rare"  # a pair whose key too few products have


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one hostile feed from taking the machine.

    Attributes:
        cell_bytes: largest text cell (counted in characters once decoded).
        row_bytes: largest record.
        image_bytes: largest encoded picture; more than `shelver.images` decodes would be of no use.
        product_image_bytes: most bytes of all pictures of one product.
        images: most pictures (and addresses of pictures) of one product.
        rows: most records of one feed.
        bomb_bytes, bomb_ratio: a compressed feed (gzip, Parquet) that unpacks to more than `bomb_bytes` and
            to more than `bomb_ratio` times its own size is refused.
    """

    cell_bytes: int = 10 * 1024 * 1024
    row_bytes: int = 32 * 1024 * 1024
    image_bytes: int = MAX_BYTES
    product_image_bytes: int = 64_000_000
    images: int = 250
    rows: int = 200_000_000
    bomb_bytes: int = 64 * 1024 * 1024
    bomb_ratio: int = 200


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a feed; the first item of every format's reader.

    Attributes:
        columns: names, in the feed's order; for JSON lines and XML those of the first rows.
        repeated: names that stand more than once in the header; the later ones are called `name (2)`, ...
    """

    columns: tuple[str, ...]
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a feed.

    Attributes:
        line: 1-based line where the record starts (Parquet: row number).
        values: column name → cell, as the feed has them.
    """

    line: int
    values: dict[str, Cell]


@dataclass(frozen=True, slots=True)
class BadRow:
    """One record that could not be used.

    Attributes:
        line: 1-based line where the record starts (Parquet: row number).
        field: the column or standard field that is wrong; None where it is the row as a whole.
        code: a `Code`; a stable reason.
        message: what was found, for a person.
        excerpt: the start of the record or cell, at most 200 characters, always valid Unicode.
        product_id: where it is known.
    """

    line: int
    field: str | None
    code: str
    message: str
    excerpt: str = ""
    product_id: str | None = None


def bad_row(
    line: int,
    code: Code,
    message: str,
    *,
    field: str | None = None,
    raw: object = "",
    product_id: str | None = None,
) -> BadRow:
    """A `BadRow` with a short, printable excerpt of `raw`."""
    return BadRow(line, field, code.value, message, excerpt(raw), product_id)


class RefusedError(Exception):
    """A part of a row that cannot be used, where the row is of no use without it."""

    def __init__(self, code: Code, field: str, message: str, raw: object) -> None:
        super().__init__(message)
        self.code, self.field, self.raw = code, field, raw


def as_text(cell: Cell, column: str) -> str | None:
    """The text of a cell, as it stands; None where it is empty; raises RefusedError for a list or an object."""
    if isinstance(cell, str):
        return cell if cell and not cell.isspace() else None
    if cell is None:
        return None
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8") or None
        except UnicodeDecodeError:
            raise RefusedError(Code.wrong_type, column, "bytes where a text belongs", cell) from None
    kind = "a list" if isinstance(cell, list) else "an object"
    raise RefusedError(Code.wrong_type, column, f"{kind} where a text belongs", cell)


def excerpt(raw: object) -> str:
    """The first 200 characters of anything, without line ends, control characters or broken surrogates."""
    if isinstance(raw, bytes):
        text = raw[:EXCERPT_CHARS].decode("utf-8", "replace")
    else:
        text = (raw if isinstance(raw, str) else repr(raw))[:EXCERPT_CHARS]
        text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in text).strip()
