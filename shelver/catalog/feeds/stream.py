"""The bytes of a feed, plain or gzipped."""

from __future__ import annotations

import zlib
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from shelver.catalog.rows import Limits
from shelver.errors import FeedError

GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 256 * 1024
_PACKED_BYTES = 16 * 1024


class StreamDamageError(Exception):
    """The bytes end or are damaged here; kept inside `feeds`, where it becomes one `BadRow`."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, n: int, /) -> bytes:
        """At most n bytes; b"" at the end; raises `StreamDamageError`."""
        ...


class ByteStream:
    """The unpacked bytes of a file. A context manager.

    Raises:
        FeedError: the file is not there, cannot be opened, or is a decompression bomb.
        StreamDamageError: (from `read`) a gzip file that is cut or damaged; all bytes before it were given.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._file = open_file(path)
        self.gzipped = self._file.read(2) == GZIP_MAGIC
        self._file.seek(0)
        self._unzip = zlib.decompressobj(wbits=31)
        self._packed = b""
        self._n_packed = self._n_unpacked = 0
        self._failure: str | None = None
        self._replay: deque[bytes] = deque()

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, n: int, /) -> bytes:
        """At most n bytes (about n where gzipped); b"" at the end."""
        if not self.gzipped:
            try:
                return self._file.read(n)
            except OSError as error:
                raise StreamDamageError(f"the file cannot be read: {error.strerror}") from error
        parts: list[bytes] = []
        size = 0
        while size < n:
            try:
                part = self._unpack(n - size)
            except StreamDamageError:
                if parts:  # the good bytes first; the next call raises again
                    break
                raise
            if not part:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _unpack(self, n: int) -> bytes:
        if self._failure is not None:
            raise StreamDamageError(self._failure)
        while True:
            if not self._packed:
                self._packed = self._piece()
            if self._unzip.eof:
                # Members may follow each other, and zero padding may follow the last.
                self._packed = self._packed.lstrip(b"\0") or self._piece().lstrip(b"\0")
                if not self._packed:
                    return b""
                if not self._packed.startswith(GZIP_MAGIC[: len(self._packed)]):
                    self._fail("bytes that are not gzip follow the gzip data")
                self._unzip = zlib.decompressobj(wbits=31)
            if not self._packed:
                if out := self._unzip.decompress(b"", n):  # what zlib still holds back
                    return out
                self._fail("the gzip data breaks off")
            step = 64 if len(self._packed) > 64 else 1
            before = self._unzip.copy() if len(self._packed) > 1 else self._unzip
            try:
                out = self._unzip.decompress(self._packed, n)
            except zlib.error as error:
                if len(self._packed) <= 1:
                    self._fail(f"the gzip data is damaged ({error})")
                # zlib drops what it had unpacked of this piece: go again in small steps up to the damage.
                self._unzip = before
                pieces = [self._packed[i : i + step] for i in range(0, len(self._packed), step)]
                self._n_packed -= len(self._packed)
                self._replay.extendleft(reversed(pieces))
                self._packed = b""
                continue
            self._packed = self._unzip.unconsumed_tail or self._unzip.unused_data
            self._n_unpacked += len(out)
            self._refuse_bomb()
            if out:
                return out

    def _piece(self) -> bytes:
        try:
            piece = self._replay.popleft() if self._replay else self._file.read(_PACKED_BYTES)
        except OSError as error:
            raise StreamDamageError(f"the file cannot be read: {error.strerror}") from error
        self._n_packed += len(piece)
        return piece

    def _refuse_bomb(self) -> None:
        limits = self._limits
        if self._n_unpacked > limits.bomb_bytes and self._n_unpacked > limits.bomb_ratio * self._n_packed:
            raise FeedError(
                f"{self._path.name}: {self._n_packed:,} packed bytes unpack to over {self._n_unpacked:,}",
                allowed=f"gzip that unpacks to at most {limits.bomb_ratio} times its size",
                remedy="This is what a decompression bomb looks like; unpack the file yourself if you trust it.",
            )

    def _fail(self, reason: str) -> None:
        self._failure = reason
        raise StreamDamageError(reason)


def open_file(path: Path) -> BinaryIO:
    """Opens a regular file for reading; FeedError where that cannot be done."""
    allowed = "a file that can be read"
    if path.is_dir():
        raise FeedError(f"{path} is a folder", allowed=allowed, remedy="Name the feed's file.")
    if path.exists() and not path.is_file():  # a pipe or device could block for ever
        raise FeedError(f"{path} is no regular file", allowed=allowed, remedy="Save the feed to a file first.")
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise FeedError(
            f"{path} cannot be opened: {error}", allowed=allowed, remedy="Check the path and the permissions."
        ) from error


def head(path: Path, limits: Limits, n: int = 64 * 1024) -> bytes:
    """The first n unpacked bytes.

    Raises:
        FeedError: the file cannot be opened, or is gzip that is damaged before its first byte.
    """
    with ByteStream(path, limits) as stream:
        try:
            return stream.read(n)
        except StreamDamageError as error:
            raise FeedError(
                f"{path.name}: {error}, before any row",
                allowed="a whole gzip file",
                remedy="Copy or download the feed again.",
            ) from error
