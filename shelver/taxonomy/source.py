"""Bytes of a file to text and lines, for all readers of trees."""

from __future__ import annotations

import bz2
import gzip
import json
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from shelver.taxonomy.build import Where, fail

MAX_BYTES = 256 * 2**20
"""A tree's file is a few megabytes; more than this unpacked is a mistake or an attack."""


class Source:
    """The text of a file with its name for errors."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @cached_property
    def lines(self) -> list[tuple[int, str]]:
        """Lines that hold something, each with its 1-based number; comments before the first are left out.

        A `#` begins a comment only before the first line that has none: names may begin with it.
        """
        rows = [(i, line) for i, line in enumerate(self.text.split("\n"), start=1) if line.strip()]
        start = next((i for i, (_, line) in enumerate(rows) if not line.startswith("#")), len(rows))
        return rows[start:]


def read_source(path: Path) -> Source:
    """Reads a text file, plain, gzipped or bzipped (told by its first bytes), with or without a BOM.

    Raises:
        TaxonomyError: there is no such file, it cannot be unpacked, is no UTF-8, or too large.
    """
    if not path.is_file():
        fail(f"{path}: no such file", allowed="a file that holds a category tree", remedy="Check the path.")
    try:
        with path.open("rb") as raw:
            magic = raw.read(3)
            raw.seek(0)
            file: IO[bytes] = raw
            if magic[:2] == b"\x1f\x8b":
                file = cast(IO[bytes], gzip.GzipFile(fileobj=raw))
            elif magic == b"BZh":
                file = cast(IO[bytes], bz2.BZ2File(raw))
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        fail(f"{path.name}: cannot be read ({error})", allowed="plain text, gzip or bzip2")
    if len(data) > MAX_BYTES:
        fail(f"{path.name}: over {MAX_BYTES // 2**20} MiB of text", allowed="the file of a category tree")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fail(
            f"{path.name}, line {line}: bytes that are no UTF-8",
            allowed="UTF-8 text",
            remedy="Convert the file to UTF-8.",
        )
    return Source(path.name, text.replace("\r\n", "\n").replace("\r", "\n"))


def parse_json(source: Source) -> object:
    """Parses JSON.

    Raises:
        TaxonomyError: it is none; names the line.
    """
    try:
        content: object = json.loads(source.text)
    except json.JSONDecodeError as error:
        fail(f"{source.name}, line {error.lineno}: no valid JSON ({error.msg})", allowed="JSON")
    except RecursionError:
        fail(f"{source.name}: JSON nested too deeply", allowed="JSON of at most some hundred levels")
    except ValueError as error:  # a number of thousands of digits
        fail(f"{source.name}: JSON that cannot be read ({error})", allowed="JSON")
    return content


def parent_positions(
    ids: Sequence[str],
    parent_ids: Sequence[str | None],
    *,
    lines: Sequence[int] | None,
    source: str,
) -> list[int | None]:
    """Looks parents up by their id.

    Raises:
        TaxonomyError: an orphan, a node whose parent's id no node has.
    """
    position = dict(zip(ids, range(len(ids)), strict=True))
    parents = [None if p is None else position.get(p.strip(), -1) for p in parent_ids]
    if -1 in parents:
        bad = parents.index(-1)
        fail(
            f"{Where(source, lines)(bad)}: an orphan, no node has its parent's id {parent_ids[bad]!r}",
            allowed="the id of a node in the same file, or none at level 1",
        )
    return parents
