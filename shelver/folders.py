"""Folders that a command writes: they are folders, one process writes at a time, and their bytes are as noted."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shelver.errors import InputError


def refuse_file(folder: Path) -> None:
    """Make sure that a folder can be made, or is there.

    Raises:
        InputError: it is, or lies below, something that is no folder.
    """
    found = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if found is not None and not found.is_dir():
        raise InputError(
            f"{found} is a file" + (f", so {folder} cannot be a folder" if found != folder else ""),
            allowed="a folder, new or existing",
            remedy="Name another --out.",
        )


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Keep a second process away from a folder; a killed one lets go by itself.

    Raises:
        InputError: another process is writing it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing {folder}",
                allowed="one process a folder at a time",
                remedy="Wait for it, or name another --out.",
            ) from error
        yield
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
