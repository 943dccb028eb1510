"""Which model is what: one file, replaced as a whole, in a folder or in object storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shelver.errors import StorageError
from shelver.library.records import Aliases, alone, sync, write
from shelver.objects import Objects

ALIASES: Final = "aliases.json"
_ATTEMPTS: Final = 20

Decide = Callable[[Aliases], Mapping[str, str | None]]
"""What to change of the aliases as they are; nothing where it is empty."""


class FolderAliases:
    """The aliases of a folder; who changes them locks it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Aliases:
        path = self._folder / ALIASES
        try:
            return Aliases.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Aliases()
        except (OSError, ValidationError) as error:
            raise _unreadable(str(path)) from error

    def stamp(self) -> object:
        try:
            found = (self._folder / ALIASES).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def change(self, by: str, decide: Decide) -> Aliases:
        with alone(self._folder):
            now = self.read()
            new = _changed(now, by, decide(now))
            if new is not now:
                partial = self._folder / (ALIASES + ".partial")
                write(partial, new)
                partial.replace(self._folder / ALIASES)
                sync(self._folder)
            return new


class ObjectAliases:
    """The aliases in object storage; they are replaced only by who has seen what he replaces."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._tag: str | None = None

    def read(self) -> Aliases:
        return self._read()[0]

    def stamp(self) -> object:
        # While the storage does not answer it stays what it was: nobody can change anything then.
        with suppress(StorageError):
            about = self._objects.about(ALIASES)
            self._tag = about.tag if about is not None else None
        return self._tag

    def change(self, by: str, decide: Decide) -> Aliases:
        for _ in range(_ATTEMPTS):
            now, tag = self._read()
            new = _changed(now, by, decide(now))
            if new is now or self._objects.replace(ALIASES, new.model_dump_json(indent=2).encode(), tag):
                return new
            # Somebody was faster; or it was we, and the answer was lost on the way.
            if self.read() == new:
                return new
        raise StorageError(
            "aliases that others keep changing", allowed="one change after the other", remedy="Try again."
        )

    def _read(self) -> tuple[Aliases, str | None]:
        found = self._objects.get(ALIASES)
        if found is None:
            return Aliases(), None
        try:
            return Aliases.model_validate_json(found[0]), found[1]
        except ValidationError as error:
            raise _unreadable(f"{ALIASES} of the object storage") from error


def _changed(now: Aliases, by: str, changes: Mapping[str, str | None]) -> Aliases:
    """The aliases after a change; the same object where there is none."""
    if not changes:
        return now
    noted = {"revision": now.revision + 1, "changed_at": datetime.now(UTC), "changed_by": by}
    return now.model_copy(update={**changes, **noted})


def _unreadable(what: str) -> StorageError:
    return StorageError(
        "the file that says which model is what cannot be read",
        allowed="the aliases as this store writes them",
        remedy="The operator restores it from a copy; the models themselves are untouched.",
        detail=what,
    )
