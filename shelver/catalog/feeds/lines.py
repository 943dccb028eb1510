"""The physical lines of a feed, decoded line by line.

Nothing here raises for damage in the middle: a line that cannot be used arrives as a marked line, and the
format's reader makes a `BadRow` of it. Memory stays below one record's limit.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator

from shelver.catalog.feeds.stream import BLOCK_BYTES, Source, StreamDamageError
from shelver.catalog.rows import EXCERPT_CHARS, Limits
from shelver.errors import ConfigError

_BOMS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


class Damaged(str):
    """A line with bytes that are no text (they stand in it as lone surrogates)."""

    __slots__ = ()


class Overlong(str):
    """A line over the size limit; holds its beginning only."""

    __slots__ = ()


class BrokenOff(str):
    """What stands after the last whole line of a damaged file; always the last item. Holds the reason."""

    __slots__ = ()


class _Transcoded:
    """UTF-16 or UTF-32 as UTF-8; damaged characters become lone surrogates, which UTF-8 refuses later."""

    def __init__(self, source: Source, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

    def read(self, n: int, /) -> bytes:
        while True:
            block = self._source.read(n)
            try:
                text = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise StreamDamageError(f"the text is damaged ({error.reason})") from error
            if text or not block:
                return text.encode("utf-8", "surrogatepass")


class _Joined:
    def __init__(self, first: bytes, rest: Source) -> None:
        self._first, self._rest = first, rest

    def read(self, n: int, /) -> bytes:
        first, self._first = self._first, b""
        return first or self._rest.read(n)


def known_encoding(name: str) -> str:
    """The codec's own name; ConfigError where Python has no such text encoding."""
    try:
        b"a".decode(name, "ignore")  # an empty text would be decoded without a look at the codec
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"encoding {name!r}", allowed="a text encoding such as utf-8, cp1252 or utf-16", remedy="Mend it."
        ) from error


def _choose(first: bytes, encoding: str | None) -> tuple[int, str | None, tuple[str, ...]]:
    """How to read: length of the byte order mark, wide encoding to transcode from, encodings to try a line."""
    for bom, name in _BOMS:
        if first.startswith(bom):
            return (len(bom), None, ("utf-8", "cp1252")) if name == "utf-8" else (len(bom), name, ("utf-8",))
    if encoding is not None:
        name = known_encoding(encoding)
        if name.startswith(("utf-16", "utf-32")):
            return 0, name if name[-1] == "e" else f"{name}-le", ("utf-8",)
        return 0, None, ("utf-8", "cp1252") if name.startswith("utf-8") else (name,)
    sample = first[:64]
    if len(sample) >= 8 and sample.count(0) * 3 > len(sample):  # Latin text as UTF-16 without a mark
        return 0, "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be", ("utf-8",)
    return 0, None, ("utf-8", "cp1252")


def read_lines(stream: Source, limits: Limits, *, encoding: str | None = None) -> Iterator[str]:
    """The physical lines of a stream, ends kept, as plain `str` or one of the marked kinds above.

    Without `encoding`: the byte order mark decides, else UTF-8, and Windows-1252 for a line that is not UTF-8.
    A line that is cut by damage in the stream is never given as a whole one: it arrives as `BrokenOff`.
    """
    parts: list[bytes] = []
    size = 0
    overlong: str | None = None
    newline = b""
    encodings: tuple[str, ...] = ()
    source = stream
    while True:
        try:
            block = source.read(BLOCK_BYTES)
        except StreamDamageError as damage:
            left = b"".join(parts[:1])[:EXCERPT_CHARS].decode("utf-8", "replace")
            yield BrokenOff(f"{damage}; {left!r} was left of the last row" if left else str(damage))
            return
        if not block:
            break
        if not newline:
            skip, wide, encodings = _choose(block, encoding)
            if wide is not None:
                source = _Transcoded(_Joined(block[skip:], source) if block[skip:] else source, wide)
                newline = b"\n"
                continue
            block = block[skip:]
            newline = b"\r" if b"\n" not in block and b"\r" in block else b"\n"
        cut = block.rfind(newline) + 1
        if cut and overlong is not None:
            yield Overlong(overlong)
            overlong = None
            done = block.find(newline) + 1
            block, cut = block[done:], cut - done
        if cut:
            parts.append(block[:cut])
            yield from _decode(b"".join(parts), newline, encodings)
            parts, size = [], 0
        if overlong is None and cut < len(block):
            parts.append(block[cut:])
            size += len(block) - cut
            if size > limits.row_bytes:
                overlong = b"".join(parts)[:EXCERPT_CHARS].decode("utf-8", "replace")
                parts, size = [], 0
    if overlong is not None:
        yield Overlong(overlong)
    elif parts:
        yield from _decode(b"".join(parts), newline, encodings)


def _decode(block: bytes, newline: bytes, encodings: tuple[str, ...]) -> Iterator[str]:
    # Whole blocks first: line by line costs three times as much, and damage is rare.
    try:
        text = block.decode(encodings[0])
    except UnicodeError:
        lines = block.split(newline)
        if not lines[-1]:
            lines.pop()
            ends = [newline] * len(lines)
        else:
            ends = [newline] * (len(lines) - 1) + [b""]
        for line, ending in zip(lines, ends, strict=True):
            yield _decode_line(line + ending, encodings)
        return
    end = newline.decode()
    pieces = text.split(end)
    last = pieces.pop()
    for piece in pieces:
        yield piece + end
    if last:
        yield last


def _decode_line(line: bytes, encodings: tuple[str, ...]) -> str:
    for encoding in encodings:
        try:
            return line.decode(encoding)
        except UnicodeError:
            continue
    return Damaged(line.decode("utf-8", "surrogateescape"))


class LineSource:
    """Lines with their numbers, which can be put back.

    Attributes:
        number: 1-based number of the line that `take` gave last.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: deque[str] = deque()
        self.number = 0

    def take(self) -> str | None:
        """The next line; None at the end."""
        line = self._back.popleft() if self._back else next(self._lines, None)
        if line is not None:
            self.number += 1
        return line

    def put_back(self, lines: list[str]) -> None:
        """Gives back the lines taken last, in their order."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)
