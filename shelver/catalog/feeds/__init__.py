"""Feeds: any product file, row by row. One format a file.

`open_feed` finds the format, by the file's content first and its ending second, and answers with the columns
and an iterator that gives one `Row` or `BadRow` for each record. What one record is:

==============  =====================================================================================
`csv`, `tsv`    a row of cells (its quoted cells may span lines); empty lines are no records
`jsonl`         a line; empty lines are no records
`parquet`       a row
`xml`           an `<item>` (RSS) or `<entry>` (Atom) of a Google Merchant feed
`shopify`       a product: the lines that follow each other with one Handle (a line that cannot be read
                is a record of its own)
==============  =====================================================================================

A file that breaks off in the middle ends with one `BadRow` (`damaged_file`), which counts as one record.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, get_args

from shelver.catalog.feeds.stream import ByteStream, head
from shelver.catalog.rows import DEFAULT_LIMITS, BadRow, Header, Limits, Row
from shelver.errors import ConfigError, FeedError

Format = Literal["csv", "tsv", "jsonl", "parquet", "xml", "shopify"]
FORMATS: tuple[Format, ...] = get_args(Format)

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xml": "xml",
    ".rss": "xml",
    ".atom": "xml",
}
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"(\xb5/\xfd": "a zstd archive",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"SQLite format 3": "an SQLite database",
}


@dataclass(frozen=True, slots=True)
class Feed:
    """An opened feed.

    Attributes:
        format: what it turned out to be.
        header: its columns.
        rows: one item for each record, once; streaming.
    """

    format: Format
    header: Header
    rows: Iterator[Row | BadRow]


def open_feed(
    path: str | PurePath,
    *,
    format: Format | None = None,  # noqa: A002
    encoding: str | None = None,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    quoted: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Feed:
    """Opens a feed of any format.

    Args:
        path: the file, plain or gzipped.
        format: None finds it out.
        encoding: of delimited text and JSON lines; None: byte order mark, UTF-8, Windows-1252 line by line.
        delimiter: of delimited text; None finds it in the first line.
        header: column names of delimited text that has no header line.
        quoted: False where quotes in delimited text are plain characters.
        limits: bounds on sizes.

    Raises:
        FeedError: the file cannot be opened, is empty, or is of no known format.
        ConfigError: an unknown format or encoding.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format {format!r}", allowed=", ".join(FORMATS), remedy="Name one of these.")
    found = format or detect(path, limits=limits)
    items = _items(path, found, encoding, delimiter, header, quoted, limits)
    first = next(items)
    assert isinstance(first, Header)
    if found == "csv" and format is None:
        from shelver.catalog.feeds.shopify import is_shopify

        if is_shopify(first.columns):
            items.close()
            return open_feed(path, format="shopify", encoding=encoding, delimiter=delimiter, limits=limits)
    return Feed(found, first, _counted(items, path, limits))


def detect(path: str | PurePath, *, limits: Limits = DEFAULT_LIMITS) -> Format:
    """The format of a feed: what the first bytes prove, else what the ending says, else delimited text.

    Raises:
        FeedError: the file is empty, or is of a kind that no reader takes.
    """
    path = Path(path)
    start = head(path, limits)
    allowed = "CSV, TSV, JSON lines, Parquet or Google Merchant XML, plain or gzipped"
    if not start:
        raise FeedError(f"{path.name} is empty", allowed=allowed, remedy="Check how the feed was written.")
    if start.startswith(b"PAR1"):
        return "parquet"
    for magic, kind in _NO_TEXT.items():
        if start.startswith(magic):
            remedy = "Export the products as CSV." if "Excel" in kind else "Name a product feed."
            raise FeedError(f"{path.name} is {kind}", allowed=allowed, remedy=remedy)
    endings = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".gzip")]
    said = _ENDINGS.get(endings[-1]) if endings else None
    text = start.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\0", b"").lstrip()
    if text.startswith(b"<"):
        return "xml"
    if text.startswith(b"[") and endings[-1:] == [".json"]:
        remedy = "Turn it into JSON lines, for example with `jq -c '.[]'`."
        raise FeedError(f"{path.name} is one JSON array", allowed=allowed, remedy=remedy)
    if text.startswith(b"{") and said != "parquet":
        return "jsonl"
    return said or "csv"


def _items(
    path: Path,
    format: Format,  # noqa: A002
    encoding: str | None,
    delimiter: str | None,
    header: Sequence[str] | None,
    quoted: bool,
    limits: Limits,
) -> Generator[Header | Row | BadRow, None, None]:
    # Readers are imported here so that a CSV costs no PyArrow and no XML.
    if format == "parquet":
        from shelver.catalog.feeds.parquet import read_parquet

        yield from read_parquet(path, limits)
        return
    with ByteStream(path, limits) as stream:
        if format == "jsonl":
            from shelver.catalog.feeds.jsonl import read_jsonl

            yield from read_jsonl(stream, limits, name=path.name, encoding=encoding)
        elif format == "xml":
            from shelver.catalog.feeds.merchant import read_merchant

            yield from read_merchant(stream, limits, name=path.name)
        else:
            from shelver.catalog.feeds.delimited import read_delimited

            rows = read_delimited(
                stream,
                limits,
                name=path.name,
                encoding=encoding,
                delimiter=delimiter or ("\t" if format == "tsv" else None),
                header=header,
                quoted=quoted,
            )
            if format == "shopify":
                from shelver.catalog.feeds.shopify import group_products

                yield from group_products(rows, name=path.name)
            else:
                yield from rows


def _counted(items: Iterator[Header | Row | BadRow], path: Path, limits: Limits) -> Iterator[Row | BadRow]:
    for n_rows, item in enumerate(items, start=1):
        assert not isinstance(item, Header)
        if n_rows > limits.rows:
            raise FeedError(
                f"{path.name} has more than {limits.rows:,} rows",
                allowed=f"at most {limits.rows:,} rows",
                remedy="Split the feed into several files.",
            )
        yield item
