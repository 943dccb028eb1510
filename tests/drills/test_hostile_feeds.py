"""Hostile feeds: mutated files of every format end in rows, bad rows or one clear error, and in nothing else."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog.feeds import detect, open_feed
from shelver.catalog.reader import read_products
from shelver.errors import ConfigError, FeedError

_WORDS = [
    "blue",
    "shirt",
    "café",
    "naïve",
    "日本",
    'a "b" c',
    "x, y",
    "l1\nl2",
    "<p>a</p>",
    "&amp;",
    "",
    "NaN",
    "5''",
]
_COLUMNS = ["product_id", "title", "description", "category", "value", "image"]


def _rows(rng: random.Random, n_rows: int) -> list[list[str]]:
    def text() -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(0, 6)))

    return [
        [
            f"p{i}",
            text(),
            text(),
            "A > B",
            rng.choice(["1", "", "nan"]),
            rng.choice(["", "http://x/1.jpg", "../a"]),
        ]
        for i in range(n_rows)
    ]


def _delimited(rows: list[list[str]], delimiter: str) -> bytes:
    def cell(text: str) -> str:
        special = any(c in text for c in ('"', "\n", delimiter))
        return '"' + text.replace('"', '""') + '"' if special else text

    return "".join(delimiter.join(map(cell, row)) + "\n" for row in [_COLUMNS, *rows]).encode()


def _jsonl(rows: list[list[str]]) -> bytes:
    lines = (json.dumps(dict(zip(_COLUMNS, row, strict=True)), ensure_ascii=False) for row in rows)
    return "".join(line + "\n" for line in lines).encode()


def _xml(rows: list[list[str]]) -> bytes:
    def clean(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;")

    items = "".join(
        f"<item><g:id>{row[0]}</g:id><title>{clean(row[1])}</title>\n<description>{clean(row[2])}</description>"
        f"<g:image_link>{row[5]}</g:image_link></item>\n"
        for row in rows
    )
    start = '<?xml version="1.0" encoding="utf-8"?>\n<rss xmlns:g="http://base.google.com/ns/1.0"><channel>\n'
    return f"{start}{items}</channel></rss>".encode()


def _shopify(rows: list[list[str]]) -> bytes:
    lines = ["Handle,Title,Body (HTML),Vendor,Image Src"]
    for row in rows:
        lines.append(f'{row[0]},"{row[1].replace(chr(34), "")}",<p>x</p>,Acme,http://x/1.jpg')
        lines.append(f"{row[0]},,,,http://x/2.jpg")
    return ("\n".join(lines) + "\n").encode()


def _parquet(rows: list[list[str]]) -> bytes:
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(_COLUMNS[:5])})
    table = table.append_column("image", pa.array([{"bytes": b"x", "path": None}] * len(rows)))
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=20)
    return out.getvalue()


_FORMATS: dict[str, Callable[[list[list[str]]], bytes]] = {
    "csv": lambda rows: _delimited(rows, ","),
    "tsv": lambda rows: _delimited(rows, "\t"),
    "jsonl": _jsonl,
    "xml": _xml,
    "shopify.csv": _shopify,
    "parquet": _parquet,
}


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(rng: random.Random, data: bytearray) -> None:
    pieces = [
        b"\0",
        b"\0" * 1_000,
        b'"',
        b'""',
        b'"' * 999,
        b"\r",
        b"\n\n",
        b"\r\n",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x81\x8d",
        b"\xed\xa0\x80",
        b"\\ud800",
        b",,,,,,,",
        b"{" * 5_000,
        b"[" * 50_000,
        b"<item>",
        b"</item>",
        b"<![CDATA[",
        b"<!--",
        b"&nbsp;",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"NaN",
        b"1e999999",
        b"9" * 5_000,
        "\u2028\u0085\u000b".encode(),
    ]
    for _ in range(rng.randint(1, 5)):
        where = rng.randrange(len(data) + 1)
        data[where:where] = rng.choice(pieces)


def _huge_cell(rng: random.Random, data: bytearray) -> None:
    where = rng.randrange(len(data) + 1)
    data[where:where] = rng.choice([b"x", b" ", b"a,", b'""']) * rng.choice([200_000, 1_000_000, 6_000_000])


def _repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randint(1, 500)] * rng.randint(1, 50)


def _cut_out(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, 200)]


def _mark(rng: random.Random, data: bytearray) -> None:
    data[:0] = rng.choice(
        [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, b"\n\n"]
    )


def _recode(rng: random.Random, data: bytearray) -> None:
    data[:] = data.decode("utf-8", "replace").encode(
        rng.choice(["utf-16", "utf-16-be", "utf-8-sig", "cp1252", "utf-32"]), "replace"
    )


def _line_ends(rng: random.Random, data: bytearray) -> None:
    data[:] = data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b""]))


_MUTATIONS = (_flip, _truncate, _insert, _huge_cell, _repeat, _cut_out, _mark, _recode, _line_ends)


def _known_records(name: str, data: bytes) -> int | None:
    """How many records a feed has, told without our reader; None where quotes or encodings leave it open."""
    if any(data.startswith(mark) for mark in (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or b"\0" in data:
        return None
    if len(data) > 5_000_000:
        return None
    lines = [line.strip(b"\r\n") for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    if b"\n" not in data[: 256 * 1024]:
        return None
    if name.startswith("jsonl"):
        # Unicode has white space of more than one byte; a line of it alone is empty too.
        return sum(1 for line in lines if line.decode("utf-8", "replace").strip())
    if name.startswith(("csv", "tsv")) and b'"' not in data:
        return sum(1 for line in lines if line) - 1
    return None


def _hostile(seed: int, folder: Path) -> tuple[Path, int | None]:
    rng = random.Random(seed)
    name = rng.choice(list(_FORMATS))
    rows = _rows(rng, rng.randint(1, 60))
    if rng.random() < 0.3:  # feeds without a quote, whose records an outsider can count
        rows = [[cell.replace('"', "").replace("\n", " ").replace(",", ";") for cell in row] for row in rows]
    data = bytearray(_FORMATS[name](rows))
    for mutate in rng.choices(_MUTATIONS, k=rng.randint(1, 3)):
        if data:
            mutate(rng, data)
    known = _known_records(name, bytes(data))
    packed = rng.random()
    if packed < 0.3:
        data = bytearray(gzip.compress(bytes(data), 1, mtime=0))
        if packed < 0.2:
            rng.choice([_flip, _truncate, _cut_out])(rng, data)
            known = None
    ending = name if rng.random() < 0.8 else rng.choice([*_FORMATS, "txt", "gz", "dat"])
    if ending != name:
        known = None
    path = folder / f"feed-{seed}.{ending}"
    path.write_bytes(bytes(data))
    return path, known


def _count(read: Callable[[Path], Iterator[object]], path: Path) -> int | None:
    """How many items came; None for an error of the whole feed. In under two seconds."""
    started = time.perf_counter()
    try:
        n_items: int | None = sum(1 for _ in read(path))
    except (FeedError, ConfigError):
        n_items = None
    assert time.perf_counter() - started < 2.0, "too slow"
    return n_items


def _drill(seeds: range, folder: Path) -> None:
    n_read = n_known = 0
    for seed in seeds:
        path, known = _hostile(seed, folder)
        try:
            n_rows = _count(lambda feed: open_feed(feed).rows, path)
            n_products = _count(read_products, path)
            if n_rows is not None:
                n_read += 1
                assert n_products in (n_rows, None)
                if known is not None and detect(path) in ("csv", "tsv", "jsonl"):
                    n_known += 1
                    assert n_rows == known
        except Exception as error:
            error.add_note(f"seed {seed}, {path.name}")
            raise
        path.unlink()
    # Otherwise the drill would prove little.
    assert n_read >= len(seeds) // 2
    assert n_known >= len(seeds) // 25


def test_fifty_hostile_feeds_end_in_rows_bad_rows_or_one_clear_error(tmp_path: Path) -> None:
    _drill(range(50), tmp_path)


@pytest.mark.drill
def test_five_hundred_hostile_feeds_end_in_rows_bad_rows_or_one_clear_error(tmp_path: Path) -> None:
    _drill(range(1_000, 1_500), tmp_path)
