"""The small part of YAML that Shopify's files use, line by line: lists of records of scalars and lists of scalars.

A whole YAML parser in Python takes half a minute for these 200,000 lines. The files are regular, so a line that is
not one of the few forms below is refused, never guessed:

    section:            a list of records under a name; a list without one is the section ""
    - key: scalar       the first line of a record
      key: scalar       its further lines
      key:              a list; its items follow
      - scalar
      key: []           an empty list
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from shelver.errors import InputError

Record = dict[str, "str | list[str]"]

_KEY = re.compile(r"[a-z][a-z_0-9]*")
# What begins anything else than a plain scalar in YAML.
_SPECIAL = frozenset("[]{}&*!|>%@`#,?:\"' ")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "n": "\n", "t": "\t"}


def read_records(path: Path) -> dict[str, list[Record]]:
    """The records of a file by section.

    Raises:
        InputError: it cannot be read, or this reader does not understand a line; names the line.
    """
    records: list[Record] = []
    sections = {"": records}
    record: Record | None = None
    items: list[str] | None = None
    known: set[str] = set()
    number = 0
    try:
        for number, line in enumerate(read_text(path).split("\n"), start=1):  # noqa: B007, the error names it
            if line[:4] == "  - ":
                if items is None:
                    raise ValueError("an item without a list")
                items.append(_scalar(line[4:]))
                continue
            if line[:2] == "- ":
                record = {}
                records.append(record)
            elif line[:2] != "  ":
                if line in ("", "---") or line[0] == "#":
                    continue
                name, colon, rest = line.partition(":")
                if not colon or rest.strip() or not _KEY.fullmatch(name) or name in sections:
                    raise ValueError("neither a section nor a record")
                records = sections[name] = []
                record = items = None
                continue
            key, colon, value = line[2:].partition(":")
            if key not in known:
                if not colon or not _KEY.fullmatch(key):
                    raise ValueError("no `key: value`")
                known.add(key)
            if record is None or key in record:
                raise ValueError("no record begins here" if record is None else "the key stands there twice")
            if value and value[0] != " ":
                raise ValueError("no space after the colon")
            value = value.strip(" ")
            if value and value != "[]":
                record[key], items = _scalar(value), None
            else:
                items = record[key] = []
                if value:
                    items = None
    except ValueError as error:
        _refuse(path, number, line, str(error))
    return sections


def read_text(path: Path) -> str:
    """The text of a file of a vocabulary, without BOM, lines ended by a line feed.

    Raises:
        InputError: it cannot be read, or is no UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error})", allowed="a readable file of UTF-8 text", remedy="Check the path."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _scalar(text: str) -> str:
    text = text.rstrip(" ")
    if not text:
        raise ValueError("an empty item")
    if text[0] not in _SPECIAL:
        if ": " in text or " #" in text or text[-1] == ":" or text[:2] == "- ":
            raise ValueError("a value that would need quotes")
        return text
    quote, inner = text[0], text[1:-1]
    if len(text) < 2 or text[-1] != quote or quote not in "\"'":
        raise ValueError("a value of a form that is not understood")
    if quote == "'":
        if "'" in inner.replace("''", ""):
            raise ValueError("a quote within quotes")
        return inner.replace("''", "'")
    if '"' in _ESCAPE.sub("", inner) or any(e not in _ESCAPES for e in _ESCAPE.findall(inner)):
        raise ValueError("an escape that is not understood")
    return _ESCAPE.sub(lambda match: _ESCAPES[match[1]], inner)


def _refuse(path: Path, number: int, line: str, why: str) -> NoReturn:
    raise InputError(
        f"{path.name}, line {number}: {line[:80]!r}, {why}",
        allowed="the plain YAML of Shopify's taxonomy: records of `key: value` and lists of `- item`",
        remedy="Take the file as Shopify publishes it, or write the vocabulary as CSV (docs/attributes.md).",
    )
