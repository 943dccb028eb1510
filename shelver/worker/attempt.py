"""One attempt at a job: what it works with, and how it says how far it came."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shelver.service.jobs.keeping import CATALOGS, FILES, job_folder
from shelver.service.jobs.leases import DatabaseError, Lease, tell
from shelver.service.jobs.workplace import Workplace

PLAN: Final = "plan.json"
_FIRST_PAUSE_S: Final = 1.0
_MORE_PAUSE_S: Final = 0.02
"""Each time that something was told, the next pause is so much longer: a day of work leaves some thousand rows."""


@dataclass
class Attempt:
    """One attempt; what an earlier one left in `work` may be gone on with.

    Attributes:
        place: the installation.
        lease: of this attempt.
        work: folder for what is needed until the job ends.
        files: folder of what callers may fetch.
    """

    place: Workplace
    lease: Lease
    work: Path = field(init=False)
    files: Path = field(init=False)
    _told_at: float = field(default=0.0, init=False)
    _n_told: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        folder = job_folder(self.place.data, self.lease.job_id)
        self.work, self.files = folder / "work", folder / FILES
        for path in (self.work, self.files):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def params(self) -> dict[str, Any]:
        return self.lease.params

    def tell(self, phase: str, words: str, fraction: float | None = None, *, now: bool = False) -> None:
        """Say how far the job came; most of what is said in quick succession is left out.

        Raises:
            LeaseLostError: the attempt must stop.
        """
        moment = time.monotonic()
        if not now and moment - self._told_at < _FIRST_PAUSE_S + _MORE_PAUSE_S * self._n_told:
            return
        self._told_at, self._n_told = moment, self._n_told + 1
        with suppress(DatabaseError):  # the work goes on without its database; what it comes to waits for it
            tell(self.place.database, self.lease, fraction=fraction, phase=phase, words=words)

    def planned(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What the first attempt decided, for it and for all that follow."""
        path = self.work / PLAN
        if not path.is_file():
            write_whole(path, json.dumps(made).encode())
        plan: dict[str, Any] = json.loads(path.read_bytes())
        return plan

    def catalog(self, name: str) -> Path:
        """The folder of a catalog of this installation."""
        return self.place.data / CATALOGS / name


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole, down to the disk, or not at all."""
    unfinished = path.with_name(f".{path.name}.partial")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
