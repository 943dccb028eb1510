"""Where pictures are kept, named by the hash of their bytes: in a folder, or in object storage."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shelver.images import ImageFormat, content_hash, decode, sniff
from shelver.library.records import sync
from shelver.objects import Objects

GRACE_S: Final = 600.0
"""A file younger than this is not removed; no request, and no step of a job, takes as long."""
_CHECKED_PX: Final = (224, 224)
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture in the store: the SHA-256 of its bytes in hex, their number, and what they are."""

    hash: str
    n_bytes: int
    kind: ImageFormat


def decoded_here(data: bytes) -> None:
    """Decode a picture as a network would: what passes is no bomb, and no network stumbles over it later.

    Raises:
        ImageError: it is no picture that can be used.
    """
    decode(data, target_px=_CHECKED_PX)


class PictureStore:
    """Pictures in one place. Any number of threads and processes may use it.

    Args:
        place: a folder, which is made where it is not there; or object storage.
        check: raises ImageError where bytes are no picture that can be used; a server has it done in a process
            that can be killed.
        grace_s: how long a file is safe from being removed after it was put.
    """

    def __init__(
        self, place: Path | Objects, *, check: Callable[[bytes], None] = decoded_here, grace_s: float = GRACE_S
    ) -> None:
        self._place = _Folder(place) if isinstance(place, Path) else _Bucket(place)
        self._check = check
        self._grace_s = grace_s

    def put(self, data: bytes) -> Stored:
        """Keep a picture; the same bytes are kept once. `pictures.note` tells the database of it.

        Raises:
            ImageError: the bytes are no picture that can be used.
            StorageError: the object storage does not answer; so do all of these.
        """
        self._check(data)
        kind = sniff(data)
        assert kind is not None  # it was decoded
        stored = Stored(content_hash(data).hex(), len(data), kind)
        self._place.keep(stored.hash, data)
        return stored

    def get(self, hash_: str) -> bytes | None:
        """The bytes of a picture; None where there is none, or where the file no longer is what it was."""
        data = self._place.read(hash_) if _HASH.fullmatch(hash_) else None
        return data if data is not None and content_hash(data).hex() == hash_ else None

    def remove(self, hashes: Iterable[str]) -> int:
        """Remove files, but for those that were put a moment ago; how many were removed."""
        n_removed = 0
        for hash_ in hashes:
            if not _HASH.fullmatch(hash_):
                raise ValueError("not the SHA-256 of a picture")
            n_removed += self._place.remove(hash_, self._grace_s)
        return n_removed

    def hashes(self) -> Iterator[str]:
        """Every picture, in no order."""
        return (name for name in self._place.names() if _HASH.fullmatch(name))


class _Folder:
    """Files in 256 folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, hash_: str, data: bytes) -> None:
        """Write a file, or let its time of grace begin anew."""
        path = self._path(hash_)
        try:
            os.utime(path)
            return
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
        unfinished = path.with_name(f".{uuid.uuid4().hex}")
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        sync(path.parent)

    def read(self, hash_: str) -> bytes | None:
        try:
            return self._path(hash_).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, hash_: str, grace_s: float) -> bool:
        path = self._path(hash_)
        try:
            if time.time() - path.stat().st_mtime < grace_s:
                return False
            aside = path.with_name(f".{uuid.uuid4().hex}")
            path.rename(aside)
            # Whoever puts it again from now on writes a new file; who did so before, a moment ago, keeps this one.
            if time.time() - aside.stat().st_mtime < grace_s:
                aside.rename(path)
                return False
            aside.unlink()
        except FileNotFoundError:
            return False
        return True

    def names(self) -> Iterator[str]:
        return (path.name for path in self._folder.glob("??/*"))

    def _path(self, hash_: str) -> Path:
        return self._folder / hash_[:2] / hash_


class _Bucket:
    """Objects below `pictures/`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def keep(self, hash_: str, data: bytes) -> None:
        """Write an object, also where it is there already: only so its time of grace begins anew."""
        self._objects.put(f"pictures/{hash_}", data)

    def read(self, hash_: str) -> bytes | None:
        found = self._objects.get(f"pictures/{hash_}")
        return found[0] if found is not None else None

    def remove(self, hash_: str, grace_s: float) -> bool:
        # Between the look and the removal somebody may put it again: a few milliseconds that S3 leaves open.
        about = self._objects.about(f"pictures/{hash_}")
        if about is None or time.time() - about.changed_at.timestamp() < grace_s:
            return False
        self._objects.remove(f"pictures/{hash_}")
        return True

    def names(self) -> Iterator[str]:
        return (name.removeprefix("pictures/") for name in self._objects.names("pictures/"))
