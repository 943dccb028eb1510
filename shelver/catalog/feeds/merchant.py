"""Google Merchant XML (RSS 2.0, RSS 1.0, Atom). One record is one `<item>` or `<entry>`.

Columns are named `g:id`, `g:title`, ... for Google's namespace and plainly (`title`, `link`) for the rest. An
element that repeats keeps its first text, but for pictures, which are gathered in a list.

The parser feeds a target of ours and never builds a tree, so memory stays that of one item. A document type
declaration, and with it every entity bomb and external entity, is refused as a whole feed. Where an item is not
well formed (a bare `&`, a control character, a tag that is never closed) it becomes one `BadRow`, and parsing
starts again at the next item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from shelver.catalog.feeds.jsonl import peek_columns
from shelver.catalog.feeds.stream import Source, StreamDamageError
from shelver.catalog.rows import BadRow, Cell, Code, Header, Limits, Row, bad_row
from shelver.errors import FeedError

_BLOCK_BYTES = 16 * 1024  # small: what stands behind a damaged item in its block is fed again
_PROLOGUE_BYTES = 64 * 1024
_MAX_DEPTH = 100
_MAX_COLUMNS = 1_000
_ITEMS = ("item", "entry")
_ITEM_START = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?(?:item|entry)(?=[\s>/])")
_LISTS = ("image_link", "additional_image_link")
_GOOGLE = "base.google.com/ns/"
# Expat's numbers: no element, unclosed token, half a character, unclosed CDATA.
_ENDS_EARLY = frozenset((3, 5, 6, 20))


class _ItemDamageError(Exception):
    """An item that the parser accepts and we do not; everything after its start tag is suspect.

    Attributes:
        index: byte index of the damage in what the parser was fed.
    """

    def __init__(self, message: str, parser: Any) -> None:
        super().__init__(message)
        self.index = int(parser.CurrentByteIndex)


class _Target:
    """Gathers items from the parser's events.

    Attributes:
        rows: finished items; the caller takes them away.
        first_item: byte index of the first item's start in what the parser was fed; None before it.
        item_line: line of the item that is being read; None between items.
        seen: whether any element started.
    """

    def __init__(self, limits: Limits, first_line: int) -> None:
        self.rows: list[Row | BadRow] = []
        self.first_item: int | None = None
        self.item_line: int | None = None
        self.seen = False
        self.parser: Any = None
        self._limits = limits
        self._first_line = first_line
        self._depth = self._item_depth = self._size = self._item_size = 0
        self._item_tag = self._name = ""
        self._values: dict[str, Cell] = {}
        self._text: list[str] = []
        self._problem: str | None = None

    def line(self) -> int:
        """The line in the file that the parser is at."""
        return self._first_line + int(self.parser.CurrentLineNumber) - 1

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.seen = True
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _ItemDamageError(f"elements nest deeper than {_MAX_DEPTH}", self.parser)
        if self.item_line is None:
            if _local(tag) in _ITEMS:
                if self.first_item is None:
                    self.first_item = int(self.parser.CurrentByteIndex)
                self.item_line, self._item_depth, self._item_tag = self.line(), self._depth, tag
                self._values, self._problem, self._item_size = {}, None, 0
                self._text = []
        elif tag == self._item_tag:
            message = "an item starts inside an item: a closing tag is missing"
            raise _ItemDamageError(message, self.parser)
        elif self._depth == self._item_depth + 1:
            self._name, self._size = _column(tag), 0
            self._text = [attributes["href"]] if self._name == "link" and "href" in attributes else []

    def data(self, text: str) -> None:
        if self.item_line is None or self._depth <= self._item_depth:
            return
        self._size += len(text)
        self._item_size += len(text)
        if self._size > self._limits.cell_bytes or self._item_size > self._limits.row_bytes:
            self._problem = self._problem or self._name
            self._text = []
        else:
            self._text.append(text)

    def end(self, tag: str) -> None:  # noqa: ARG002
        if self.item_line is not None:
            if self._depth == self._item_depth + 1:
                self._keep(self._name, "".join(self._text))
                self._text = []
            elif self._depth == self._item_depth:
                self.rows.append(self._finished(self.item_line))
                self.item_line = None
        self._depth -= 1

    def product_id(self) -> str | None:
        """The id of the item that is being read, where it has come."""
        found = self._values.get("g:id") if self.item_line is not None else None
        return found.strip() or None if isinstance(found, str) else None

    def close(self) -> None:
        """The parser asks for it at the end."""

    def _keep(self, name: str, text: str) -> None:
        values = self._values
        if len(values) >= _MAX_COLUMNS and name not in values:
            self._problem = self._problem or name
        elif name.removeprefix("g:") in _LISTS:
            cell = values.setdefault(name, [])
            assert isinstance(cell, list)
            if text.strip() and len(cell) <= self._limits.images:
                cell.append(text.strip())
        elif not values.get(name):
            values[name] = text

    def _finished(self, line: int) -> Row | BadRow:
        if self._problem is None:
            return Row(line, self._values)
        message = f"a cell over {self._limits.cell_bytes:,} characters, or over {_MAX_COLUMNS:,} cells"
        return bad_row(line, Code.cell_too_large, message, field=self._problem)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _column(tag: str) -> str:
    space, _, name = tag.rpartition("}")
    return f"g:{name}" if _GOOGLE in space else name


def read_merchant(stream: Source, limits: Limits, *, name: str) -> Iterator[Header | Row | BadRow]:
    """Reads a Google Merchant feed; the header holds the columns of the first hundred items, in the order met.

    Raises:
        FeedError: the feed is no XML, is damaged before its first item, has none, or declares a document type.
    """
    yield from peek_columns(_Parsing(stream, limits, name).items(), name=name)


class _Parsing:
    """The parser, the bytes around the place where it is, and the way to start again behind damage."""

    def __init__(self, stream: Source, limits: Limits, name: str) -> None:
        self._stream, self._limits, self._name = stream, limits, name
        self._window = b""  # the last bytes read; everything up to the first item
        self._base = 0  # offset of the window in the file
        self._base_line = 1
        self._prologue: bytes | None = None  # what stands before the first item: a new parser reads it first
        self._shift = 0  # offset in the file minus the parser's own byte index
        self._any_item = False
        self._cut_off = False  # the last problem is one of an end that came too early
        self._start(first_line=1)

    def _start(self, *, first_line: int) -> None:
        self._target = _Target(self._limits, first_line)
        self._parser = DefusedXMLParser(target=self._target, forbid_dtd=True)
        self._target.parser = self._parser.parser

    def items(self) -> Iterator[Row | BadRow]:
        resume: int | None = None  # offset behind damage, where no item was in sight yet
        while True:
            try:
                block = self._stream.read(_BLOCK_BYTES)
            except StreamDamageError as damage:
                yield self._bad(Code.damaged_file, str(damage))
                return
            self._slide(block)
            pending: bytes | None = block
            if resume is not None:
                pending = self._restart(resume)
            while pending is not None:
                problem = self._feed(pending, final=not block)
                yield from self._target.rows
                self._target.rows.clear()
                if problem is None:
                    break
                if not block and self._cut_off and not self._item_behind(problem[1] + 1):
                    message = f"the XML ends in the middle ({problem[0]})"
                    yield self._bad(Code.damaged_file, message, problem[1])
                    return
                yield self._bad(Code.bad_xml, problem[0], problem[1])
                if self._prologue is None:
                    return
                resume = problem[1]
                pending = self._restart(resume)
            if pending is not None:
                resume = None
            if not block:
                return

    def _feed(self, data: bytes, *, final: bool) -> tuple[str, int] | None:
        """Parses on; what went wrong and its offset in the file."""
        parser, expat = self._parser, self._parser.parser
        problem: tuple[str, int] | None = None
        try:
            parser.feed(data)
            if final:
                parser.close()
            waiting = self._base + len(self._window) - self._shift - int(expat.CurrentByteIndex)
            if waiting > self._limits.row_bytes:
                problem = f"a tag or comment over {self._limits.row_bytes:,} bytes", self._base
        except DefusedXmlException as error:
            raise FeedError(
                f"{self._name} declares a document type or entities ({type(error).__name__})",
                allowed="XML without <!DOCTYPE> and <!ENTITY>",
                remedy="Export the feed without them; they can make a small file fill the memory.",
            ) from error
        except ParseError as error:
            problem = str(error), int(expat.ErrorByteIndex) + self._shift
            self._cut_off = error.code in _ENDS_EARLY
        except _ItemDamageError as error:
            problem = str(error), error.index + self._shift
        except (LookupError, ValueError) as error:  # an unknown encoding
            problem = str(error), self._base
        if self._target.first_item is not None and not self._any_item:
            self._any_item = True
            if self._base == 0:
                self._prologue = self._window[: self._target.first_item]
        if problem is not None and not self._any_item:
            raise FeedError(
                f"{self._name} is no product feed in XML: {problem[0][:200]}",
                allowed="Google Merchant XML (RSS or Atom)",
                remedy="Check the file; it is damaged before its first item.",
            )
        return problem

    def _bad(self, code: Code, message: str, offset: int | None = None) -> BadRow:
        target = self._target
        line = target.item_line or target.line()
        start = max(0, (offset or self._base) - self._base - 80)
        raw = b"" if offset is None else self._window[start : start + 200]
        return bad_row(line, code, message, raw=raw, product_id=target.product_id())

    def _slide(self, block: bytes) -> None:
        """Keeps the last two blocks, or everything while the first item has not come (within bounds)."""
        if self._any_item or len(self._window) > _PROLOGUE_BYTES:
            gone = max(0, len(self._window) - _BLOCK_BYTES)
            self._base_line += self._window.count(b"\n", 0, gone)
            self._base += gone
            self._window = self._window[gone:]
        self._window += block

    def _item_behind(self, offset: int) -> re.Match[bytes] | None:
        return _ITEM_START.search(self._window, max(0, offset - self._base))

    def _restart(self, offset: int) -> bytes | None:
        """Makes a new parser for the first item at or behind `offset`; the bytes to feed it, None where none."""
        found = self._item_behind(offset)
        if found is None or self._prologue is None:
            return None
        line = self._base_line + self._window.count(b"\n", 0, found.start())
        self._start(first_line=line - self._prologue.count(b"\n"))
        self._shift = self._base + found.start() - len(self._prologue)
        return self._prologue + self._window[found.start() :]
