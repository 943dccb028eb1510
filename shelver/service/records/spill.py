"""Where entries of the log wait: append-only files of lines.

`Journal` has those that are on their way to the database, not synced: they outlive a process that is killed.
`Spill` has those that wait while the database is down, synced to the disk.

Each process appends to files of its own and holds a lock on them. What a killed process left is taken over by the
next that looks: its lock went with it. A file is removed when all of it is in the database.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shelver.folders import refuse_file

_SUFFIX: Final = ".jsonl"
_READ_BYTES: Final = 1 << 20
JOURNAL_BYTES: Final = 1 << 20
"""Size at which a journal is emptied, or where some of it is not safe yet, continued in a new file."""


@dataclass(slots=True)
class _File:
    """One open and locked file; everything before `read_to` is in the database."""

    path: Path
    handle: int
    size: int
    read_to: int = 0


class Journal:
    """The lines of entries that are not safe yet, in order of their numbers. Its caller sees to it that one thread
    uses it at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: deque[tuple[_File, int]] = deque()  # with the number of the last line in each

    def write(self, line: str, number: int) -> None:
        """Append a line.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if not self._files or self._files[-1][0].size >= JOURNAL_BYTES:
            self._files.append((_create(self._folder, "journal-"), number))
        file, _ = self._files[-1]
        _append(file, f"{line}\n", sync=False)
        self._files[-1] = file, number

    def safe(self, number: int) -> None:
        """The lines up to this number are not needed any more."""
        while self._files and self._files[0][1] <= number:
            file, _ = self._files[0]
            if len(self._files) == 1:
                if file.size >= JOURNAL_BYTES:
                    os.ftruncate(file.handle, 0)
                    file.size = 0
                break
            self._files.popleft()
            _remove(file)

    def close(self, *, keep: bool) -> None:
        """Let go of the files; they stay for the next process where `keep`."""
        for file, _ in self._files:
            if keep:
                os.close(file.handle)
            else:
                _remove(file)
        self._files.clear()


class Spill:
    """The waiting lines of one folder. Used by one thread; other processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        refuse_file(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._own: _File | None = None
        self._reading: _File | None = None
        self._next_to = 0

    def append(self, lines: Sequence[str]) -> None:
        """Write lines and wait until they are on disk; all of them or none.

        Args:
            lines: without line breaks.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if self._own is None:
            self._own = _create(self._folder, "")
            self._sync_folder()
        _append(self._own, "".join(f"{line}\n" for line in lines), sync=True)

    def next_lines(self, n: int) -> list[str]:
        """Up to n lines that wait; none when nothing does. Call `done` when they are stored."""
        while (file := self._reading or self._pick()) is not None:
            self._reading = file
            data = bytearray()
            while data.count(b"\n") < n:
                part = os.pread(file.handle, _READ_BYTES, file.read_to + len(data))
                if not part:
                    break
                data += part
            # What follows the last line break was being written when its process was killed: nobody counts on it.
            lines = bytes(data).split(b"\n")[:-1][:n]
            self._next_to = file.read_to + sum(len(line) + 1 for line in lines)
            if lines:
                return [line.decode("ascii", "replace") for line in lines]
            self._remove(file)
        return []

    def done(self) -> None:
        """The lines that `next_lines` gave last are stored."""
        if self._reading is not None:
            self._reading.read_to = self._next_to
            if self._next_to == self._reading.size:
                self._remove(self._reading)

    def close(self) -> None:
        """Let go of the files; what waits in them stays."""
        for file in {id(file): file for file in (self._own, self._reading) if file is not None}.values():
            os.close(file.handle)
        self._own = self._reading = None

    def _pick(self) -> _File | None:
        """A file that nobody else holds: of a killed process if there is one, else our own."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if self._own is not None and path == self._own.path:
                continue
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # another process was done with it
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            about = os.fstat(handle)
            if about.st_nlink and (about.st_size or path.exists()):
                return _File(path, handle, about.st_size)
            os.close(handle)
        return self._own

    def _remove(self, file: _File) -> None:
        _remove(file)
        self._sync_folder()
        self._reading = None
        if file is self._own:
            self._own = None

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _create(folder: Path, prefix: str) -> _File:
    """A new file that we hold."""
    path = folder / f"{prefix}{uuid.uuid4().hex}{_SUFFIX}"
    # Nobody looks at it before it is locked: an empty file that can be locked would be removed.
    unseen = path.with_suffix(".new")
    handle = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    unseen.rename(path)
    return _File(path, handle, 0)


def _append(file: _File, text: str, *, sync: bool) -> None:
    data = text.encode("ascii")
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file.handle, rest) :]
        if sync:
            os.fsync(file.handle)
    except OSError:
        # Half a group would be written again with the whole: take it back.
        os.ftruncate(file.handle, file.size)
        raise
    file.size += len(data)


def _remove(file: _File) -> None:
    file.path.unlink(missing_ok=True)
    os.close(file.handle)
