"""Specification tables: keys and values out of what sellers put into one cell.

Read are Ruby's printed hashes (Flipkart's `{"product_specification"=>[{"key"=>"Type", "value"=>"Analog"}]}`),
JSON, rows of HTML tables and definition lists, and lines such as `Material: Polyester`. Nothing is evaluated, and
any text is read in time that grows with its length, up to `MAX_CHARS`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from selectolax.lexbor import LexborHTMLParser

from shelver.product import clean

MAX_CHARS: Final = 65_536
"""Read of a text, in characters."""
MAX_PAIRS: Final = 500
MAX_KEY_CHARS: Final = 60
MAX_VALUE_CHARS: Final = 1_000
_MAX_DEPTH: Final = 6

Pair = tuple[str, str]

# The closing quote may be missing at the end: then everything after an open one is read once, not once a quote.
_RUBY = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?\Z)|=>|[\[{}\]]|\bnil\b|-?\d+(?:\.\d+)?|true|false', re.DOTALL)
_RUBY_ESCAPE = re.compile(r"\\(u\{?([0-9a-fA-F]{1,6})\}?|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": " ", "e": "", "s": " "}
_KEYS = frozenset({"key", "name", "label", "attribute", "title"})
_VALUES = frozenset({"value", "values", "val", "text"})
_ROWS = re.compile(r"<(?:t[rdh]|d[td]|li)\b", re.IGNORECASE)
_LINE_TAG = re.compile(r"<(?:br|/?p|/?div|/?li|/?ul|/?tr|/?h[1-6])\b[^<>]{0,500}>", re.IGNORECASE)
_LINE = re.compile(r"[\n\r;|•·●▪►✓]|\. |(?<=\w),\s(?=[^\W\d_][^\s,:=;|]{0,30}(?: [^\s,:=;|]{1,30}){0,2}:\s)")
_PAIR = re.compile(r"[\s*\-–—>]*([^\W\d_][^:=\t]{0,59}?)\s*(?:[:=\t]|\s[-–—]\s)\s*(\S.*)")


def read_specification(text: str) -> list[Pair]:
    """The pairs of key and value in a text, in its order; one that stands there twice is told once.

    Returns:
        At most MAX_PAIRS, cleaned (`product.clean`), keys of at most MAX_KEY_CHARS and values of at most
        MAX_VALUE_CHARS characters; longer keys are no keys. Empty where nothing looks like a pair; never raises.
    """
    text = text[:MAX_CHARS]
    if "=>" in text:
        found = _of_ruby(text)
    elif text.lstrip()[:1] in ("{", "["):
        found = _of_json(text)
    elif _ROWS.search(text):
        found = _of_html(text)
    else:
        found = _of_lines(text)
    pairs: dict[Pair, None] = {}
    for raw_key, raw_value in islice(found, MAX_PAIRS):
        key = clean(raw_key).rstrip(" :=")
        value = clean(raw_value[: 4 * MAX_VALUE_CHARS])[:MAX_VALUE_CHARS].rstrip()
        if value and 0 < len(key) <= MAX_KEY_CHARS:
            pairs.setdefault((key, value))
    return list(pairs)


def _of_ruby(text: str) -> Iterator[Pair]:
    """Pairs of one hash are `"key"=>..., "value"=>...`, or plainly `"Type"=>"Analog"`."""
    name: str | None = None
    held: str | None = None
    key = value = None
    for match in _RUBY.finditer(text):
        mark = match[0]
        if mark in ("{", "}", "[", "]"):
            if mark in "{}":
                if key is not None and value is not None:
                    yield key, value
                key = value = None
            name = held = None
        elif mark == "=>":
            name, held = held, None
        else:
            held = _ruby_text(match[1]) if mark[0] == '"' else mark
            if name is not None:
                if name.lower() in _KEYS:
                    key = held
                elif name.lower() in _VALUES:
                    value = held
                elif held != "nil":
                    yield name, held
                name = held = None
    if key is not None and value is not None:
        yield key, value


def _ruby_text(inner: str) -> str:
    return _RUBY_ESCAPE.sub(_ruby_char, inner) if "\\" in inner else inner


def _ruby_char(match: re.Match[str]) -> str:
    if match[2]:
        code = int(match[2], 16)
        return chr(code) if code < 0x110000 else ""
    return _ESCAPED.get(match[1], match[1])


def _of_json(text: str) -> Iterator[Pair]:
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError):
        # A damaged one still has its pairs between quotes.
        return _of_ruby(text.replace('":', '"=>').replace('" :', '"=>'))
    return _walk(content, _MAX_DEPTH)


def _walk(content: object, depth: int) -> Iterator[Pair]:
    if depth == 0:
        return
    if isinstance(content, list):
        for item in content:
            yield from _walk(item, depth - 1)
    elif isinstance(content, dict):
        lower = {key.lower(): value for key, value in content.items()}
        key = next((lower[name] for name in sorted(_KEYS & lower.keys())), None)
        value = next((lower[name] for name in sorted(_VALUES & lower.keys())), None)
        if isinstance(key, str) and value is not None:
            yield from _json_pair(key, value, depth)
        else:
            for name, inner in content.items():
                yield from _json_pair(name, inner, depth)


def _json_pair(key: str, value: object, depth: int) -> Iterator[Pair]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, bool):
        yield key, "yes" if value else "no"
    elif isinstance(value, int | float):
        # `str` of a huge int raises; no specification has one.
        yield key, f"{value:.12g}" if abs(value) < 1e15 else ""
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield key, ", ".join(value)
    else:
        yield from _walk(value, depth - 1)


def _of_html(text: str) -> Iterator[Pair]:
    root = LexborHTMLParser(text.encode("utf-8", "ignore").decode()).root
    if root is None:
        return
    plain: list[str] = []
    read = 0
    # A row that holds a table is layout. What is nested is read once a level: enough is enough.
    for row in root.css("tr:not(:has(table)), dt:not(:has(dt)), li:not(:has(li))"):
        if read > 4 * MAX_CHARS:
            return
        read += len(row.text())
        if row.tag == "tr":
            cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
            if len(cells) in (2, 4):
                for left, right in zip(cells[::2], cells[1::2], strict=True):
                    yield left.text(), right.text(separator=" ")
        elif row.tag == "dt":
            after = row.next
            while after is not None and after.tag == "-text":
                after = after.next
            if after is not None and after.tag == "dd":
                read += len(after.text())
                yield row.text(), after.text(separator=" ")
        else:
            plain.append(row.text(separator=" "))
    if not plain and "<t" not in text.lower() and "<d" not in text.lower():
        plain.append(text)
    for line in plain:
        yield from _of_lines(line)


def _of_lines(text: str) -> Iterator[Pair]:
    if ":" not in text and "=" not in text and "\t" not in text and " - " not in text:
        return
    for line in _LINE.split(html.unescape(_LINE_TAG.sub("\n", text))):
        if len(line) <= MAX_KEY_CHARS + MAX_VALUE_CHARS and (match := _PAIR.fullmatch(line.strip())):
            key, value = match[1], match[2]
            # https://..., and sentences that happen to hold a colon.
            if not value.startswith("//") and len(key.split()) <= 5 and key.count("(") == key.count(")"):
                yield key, value
