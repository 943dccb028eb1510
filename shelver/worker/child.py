"""The process of one attempt at a job. It writes what came of it itself, with the lease that it was given.

python -m shelver.worker.child    with a `Task` as one line of JSON on standard input, which stays open

Its end is its worker's end: where standard input is closed, it ends at once, and whatever it has started.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict

from shelver.errors import InputError, ShelverError
from shelver.folders import writing_alone
from shelver.service.jobs.keeping import job_folder
from shelver.service.jobs.leases import DatabaseError, Lease, LeaseLostError, finish, owner_may, refuse, watch
from shelver.service.jobs.payloads import FOR_ADMINISTRATORS
from shelver.service.jobs.workplace import Workplace, open_workplace
from shelver.service.logs import set_up_logs
from shelver.service.problems import code_of
from shelver.worker.attempt import Attempt

MAX_MEMORY_BYTES: Final = 8 << 30
"""Of a process that reads a feed."""
LOST: Final = 3
FAILED: Final = 4
_OTHERS_END_S: Final = 120.0
"""How long an earlier attempt may take to die; it looks at its lease every few seconds."""
_DATABASE_S: Final = 600.0
"""How long the end of the work waits for a database that is down."""
log = structlog.get_logger("shelver.worker")


class Task(BaseModel):
    """What a child is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease: dict[str, Any]
    given: dict[str, Any]


def task_of(lease: Lease, given: Mapping[str, Any]) -> bytes:
    """The line that a child reads."""
    return Task(lease=asdict(lease), given=dict(given)).model_dump_json().encode() + b"\n"


def work_of(kind: str) -> Callable[[Attempt], dict[str, Any]]:
    """What a kind of job does; each imports what it needs, and only that."""
    if kind == "train":
        from shelver.worker.training import train

        return train
    if kind == "evaluate":
        from shelver.worker.evaluating import evaluate_model

        return evaluate_model
    if kind == "predict":
        from shelver.worker.predicting import predict

        return predict
    from shelver.worker.importing import import_products, reset_demo

    return {"import_products": import_products, "reset_demo": reset_demo}[kind]


def attend(place: Workplace, lease: Lease) -> int:
    """Do the job, and write what came of it; the exit status of the process."""
    try:
        with ExitStack() as stack:
            _alone(stack, job_folder(place.data, lease.job_id))
            result, problem = None, None
            try:
                role = owner_may(place.database, lease)
                if role != "admin" and (role is None or lease.kind in FOR_ADMINISTRATORS):
                    problem = "not_allowed", f"The job's owner has no right to it any more (role {role})."
                else:
                    result = work_of(lease.kind)(Attempt(place, lease))
            except LeaseLostError:
                raise
            except ShelverError as error:
                problem = _problem_of(error, place, lease)
            _write(place, lease, result, problem)
    except LeaseLostError:
        return LOST
    except Exception as error:  # the outermost frame of an attempt: the worker puts the job back
        log.error("attempt failed", job_id=lease.job_id, error=type(error).__name__, exc_info=error)
        return FAILED
    return 0


def _problem_of(error: ShelverError, place: Workplace, lease: Lease) -> tuple[str, str]:
    """Code and sentence for the owner, who need not know where the data folder lies."""
    code = code_of(error)
    if code is None:
        log.error("attempt refused", job_id=lease.job_id, error=type(error).__name__, exc_info=error)
        return "internal", "An unexpected error; the log of the worker has more. Report it."
    return code, str(error).replace(str(place.data), "data")


def _write(place: Workplace, lease: Lease, result: dict[str, Any] | None, problem: tuple[str, str] | None) -> None:
    """Write the end of the job; where the database is down, when it is back."""
    ends = time.monotonic() + _DATABASE_S
    while True:
        try:
            if problem is None:
                finish(place.database, lease, result or {})
            else:
                code, detail = problem
                refuse(place.database, lease, code=code, detail=detail)
            return
        except DatabaseError:
            if time.monotonic() > ends:
                raise
            time.sleep(1.0)


def _alone(stack: ExitStack, folder: Path) -> None:
    """Wait until no earlier attempt writes the folder of the job; a process that dies lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + _OTHERS_END_S
    while True:
        try:
            stack.enter_context(writing_alone(folder))
            return
        except InputError:
            if time.monotonic() > ends:
                raise RuntimeError("an earlier attempt at the job does not end") from None
            time.sleep(0.1)


def _end_with_worker() -> None:
    """Wait for the end of standard input: the worker is gone, and another may take the job."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os.killpg(0, signal.SIGKILL)  # we lead a group of our own


def _end_with_lease(place: Workplace, lease: Lease) -> None:
    """Where the worker is silent for so long that another attempt follows, make way for it."""
    while True:
        time.sleep(min(lease.lease_s / 4, 5.0))
        with suppress(DatabaseError):
            if watch(place.database, lease) == "lost":
                os.killpg(0, signal.SIGKILL)


def _limit_memory(kind: str) -> None:
    """Where memory runs out, this process is ended, and not its worker or the database; a feed gets so much."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if kind not in ("train", "evaluate"):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _main() -> int:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            return FAILED
        line += part
    task = Task.model_validate_json(line)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    lease = Lease(**task.lease)
    _limit_memory(lease.kind)
    set_up_logs()
    try:
        with open_workplace(migrated=True, **task.given) as place:
            threading.Thread(target=_end_with_lease, args=(place, lease), daemon=True).start()
            return attend(place, lease)
    except ShelverError as error:
        log.error("attempt failed", error=str(error))
        return FAILED


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(_main())  # threads of libraries are not waited for
