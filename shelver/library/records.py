"""What the store notes: where a model comes from, and which one is what."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

Alias = Literal["champion", "challenger", "previous"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Registered(_Frozen):
    """Where a registered model comes from.

    Attributes:
        model_version: twelve hex digits, under which it is asked for.
        sha256: of its manifest, which holds those of its files.
        base: version of the model that it was made from; None where it was learned whole.
        taxonomy_version: of its tree.
        source: name of the folder that it was copied from.
        registered_at, registered_by: when, in UTC, and who.
        n_bytes: of its core.
    """

    model_version: str
    sha256: str
    base: str | None
    taxonomy_version: str
    source: str
    registered_at: datetime
    registered_by: str
    n_bytes: int

    @property
    def address(self) -> str:
        return f"{self.model_version}-{self.sha256}"


class Aliases(_Frozen):
    """Which model is what.

    Attributes:
        champion: answers. None: nothing was promoted yet.
        challenger: may be next.
        previous: answered before, and answers again after a roll back.
        revision: counts the changes.
        changed_at, changed_by: when the last one was made, in UTC, and by whom.
    """

    champion: str | None = None
    challenger: str | None = None
    previous: str | None = None
    revision: int = 0
    changed_at: datetime | None = None
    changed_by: str | None = None

    def of(self, version: str) -> tuple[Alias, ...]:
        """The aliases of a model."""
        return tuple(alias for alias in get_args(Alias) if getattr(self, alias) == version)


def write(path: Path, record: BaseModel) -> None:
    """Write a record as JSON, down to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Let the content of a file, or the names in a folder, last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other thread or process changes a folder, and keep them away."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
