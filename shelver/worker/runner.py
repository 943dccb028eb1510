"""Takes jobs, one at a time, and stands by while a process of its own does each.

The worker keeps the lease, sees whether the job was cancelled, and ends the process, with all that it started,
when it must. What came of the job the process writes itself; where it dies before, the job goes back to the queue.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

import shelver
from shelver.service.jobs.keeping import job_folder
from shelver.service.jobs.leases import (
    DatabaseError,
    Lease,
    LeaseLostError,
    claim,
    extend,
    give_back,
    is_over,
    put_back,
    refuse,
    stopped,
    watch,
)
from shelver.service.jobs.workplace import Workplace
from shelver.worker.child import task_of

LEASE_S: Final = 60.0
LOOK_EVERY_S: Final = 1.0
GRACE_S: Final = 5.0
"""Between SIGTERM and SIGKILL."""
_SWEEP_EVERY_S: Final = 3600.0
_TICK_S: Final = 0.1
log = structlog.get_logger("shelver.worker")


@dataclass
class Runner:
    """A worker.

    Attributes:
        place: the installation.
        given: settings that its processes are told.
        lease_s: how long it may be silent before others take its job.
        look_every_s: how often it looks for jobs, and at the one that runs.
        kinds: only jobs of these; of all where there are none.
        name: for people.
        stop: set it, and the worker gives its job back and ends.
    """

    place: Workplace
    given: Mapping[str, Any]
    lease_s: float = LEASE_S
    look_every_s: float = LOOK_EVERY_S
    kinds: tuple[str, ...] = ()
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}"[:255])
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, *, once: bool = False) -> None:
        """Do jobs until `stop` is set; with `once`, one job, if one waits."""
        swept = -_SWEEP_EVERY_S
        while not self.stop.is_set():
            try:
                if not once and time.monotonic() - swept > _SWEEP_EVERY_S:
                    swept = time.monotonic()
                    self.place.sweep()
                lease = claim(self.place.database, worker=self.name, lease_s=self.lease_s, kinds=self.kinds)
            except DatabaseError as error:
                log.error("database unavailable", error=type(error).__name__)
                lease = None
                self.stop.wait(self.look_every_s)
            if lease is not None:
                self._attend(lease)
            if once:
                return
            if lease is None:
                self.stop.wait(self.look_every_s)

    def _attend(self, lease: Lease) -> None:
        told = {"job_id": lease.job_id, "kind": lease.kind, "attempt": lease.attempt}
        log.info("job taken", **told)
        process = self._start(lease)
        try:
            ended = self._stand_by(process, lease)
        finally:
            _end(process)
        if ended is not None:
            self._until_done(lease, ended)
        else:
            self._look_after(process.returncode, lease)
        log.info("attempt ended", status=process.returncode, **told)

    def _start(self, lease: Lease) -> subprocess.Popen[bytes]:
        home = str(Path(shelver.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        # -P: a module of the folder where the worker was started must not stand in for one of ours.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "shelver.worker.child"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died already, which is seen soon
            process.stdin.write(task_of(lease, self.given))
            process.stdin.flush()
        return process

    def _stand_by(self, process: subprocess.Popen[bytes], lease: Lease) -> Callable[[Lease], None] | None:
        """Wait for the end of the process, or for a reason to end it: then what is to be written, None for nothing
        but a look at how the process ended."""
        began = looked = heard = time.monotonic()
        while process.poll() is None:
            if self.stop.wait(_TICK_S):
                return self._give_back
            now = time.monotonic()
            if now - began > self.place.limit_s:
                return self._too_long
            if now - looked < min(self.look_every_s, self.lease_s / 4):
                continue
            looked = now
            try:
                if now - heard > self.lease_s / 3:
                    extend(self.place.database, lease)
                    heard = now
                said = watch(self.place.database, lease)
            except LeaseLostError:
                return None
            except DatabaseError as error:
                # The process cannot write either; when the database is back, the token decides who may.
                log.error("database unavailable", job_id=lease.job_id, error=type(error).__name__)
                continue
            if said == "cancel":
                return self._stopped
            if said == "lost":
                return None
        return None

    def _look_after(self, status: int, lease: Lease) -> None:
        """Put the job back, unless its process has written its end or another attempt has followed."""
        reason = f"its process ended with signal {-status}" if status < 0 else "its process failed"
        self._until_done(lease, lambda lease: put_back(self.place.database, lease, reason))

    def _until_done(self, lease: Lease, change: Callable[[Lease], None]) -> None:
        """Write a change as soon as the database answers; a worker that stops waits no longer than its lease."""
        ends = time.monotonic() + self.lease_s
        while True:
            try:
                with suppress(LeaseLostError):  # the process was faster, or another attempt follows
                    change(lease)
                if is_over(self.place.database, lease.job_id):
                    shutil.rmtree(job_folder(self.place.data, lease.job_id) / "work", ignore_errors=True)
                return
            except DatabaseError as error:
                log.error("database unavailable", job_id=lease.job_id, error=type(error).__name__)
                if self.stop.is_set() and time.monotonic() > ends:
                    return  # the lease runs out, and the job goes back by itself
                time.sleep(min(self.look_every_s, 1.0))

    def _give_back(self, lease: Lease) -> None:
        give_back(self.place.database, lease)

    def _stopped(self, lease: Lease) -> None:
        stopped(self.place.database, lease)

    def _too_long(self, lease: Lease) -> None:
        refuse(
            self.place.database,
            lease,
            code="too_large",
            detail=f"One attempt took more than {self.place.limit_s:g} s. Allowed: less. Divide the work, or have "
            "an administrator raise job_limit_s.",
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started; first politely."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
