"""Pictures decoded in processes that can be killed: one that hangs, crashes or takes too much is replaced.

Bytes go there through a socket and the looks of a model come back, small and raw. A process runs
`shelver.service.answers.decoder`; it starts with its first picture, and ends when its socket is closed, so that
none outlives this process.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

import shelver
from shelver.errors import ImageError
from shelver.images import IMAGE_CODES, ImageSpec, View
from shelver.service.answers.decoder import ANSWERED, ASKED, READY, REFUSED, SEEN, WINDOW
from shelver.windows import Window

LIMIT_S: Final = 3.0
"""Of CPU time for a picture; the worst one that `shelver.images` lets through takes two. On a busy machine an
honest picture may wait for its turn, so the clock on the wall says little."""
WALL: Final = 4
"""So many times as long by the clock: then a process that does nothing is taken for one that hangs."""
START_S: Final = 30.0
TIMEOUT: Final = "decode_timeout"
CRASHED: Final = "decode_crashed"
_CODE_BYTES: Final = 64
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
"""What a process gets of our environment: no secret of the service is among it."""
_LEAN: Final = {
    # One thread each: there is a process for each core.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc keeps what one picture needed for the next one: 6.5 ms of CPU a picture instead of 8.3.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}

Looks = Sequence[tuple[View, ImageSpec]]
_CHECKED: Final[Looks] = (("fit", ImageSpec()),)
log = structlog.get_logger("shelver.service")


class _Patience:
    """How long a process may still take.

    Args:
        pid: whose CPU time counts; None counts the clock.
        limit_s: from now on.
    """

    def __init__(self, pid: int | None, limit_s: float) -> None:
        self._pid, self._limit_s = pid, limit_s
        self._began, self._cpu = time.monotonic(), _cpu_s(pid)

    def left_s(self) -> float:
        """Before it can be over.

        Raises:
            TimeoutError: it is.
        """
        taken = time.monotonic() - self._began
        left, cpu = self._limit_s - taken, _cpu_s(self._pid)
        if cpu is not None and self._cpu is not None:
            left = min(self._limit_s - (cpu - self._cpu), self._limit_s * WALL - taken)
        if left <= 0:
            raise TimeoutError("the process takes too long")
        return left


def _cpu_s(pid: int | None) -> float | None:
    """CPU seconds of a process so far; None where the system does not tell."""
    if pid is None:
        return None
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    user, kernel = told.rpartition(")")[2].split()[11:13]  # its name may hold anything, even blanks
    return (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")


class _Process:
    """One process, and our end of its socket."""

    def __init__(self) -> None:
        home = str(Path(shelver.__file__).parent.parent)
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as unless_started:
            unless_started.callback(ours.close)
            # -P: a module of the folder where the service was started must not stand in for one of ours.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "shelver.service.answers.decoder"],
                env={**kept, **_LEAN, "PYTHONPATH": home},
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            unless_started.pop_all()
        self._socket = ours
        self._ready = False
        self.pid = self._child.pid

    def ask(self, said: bytes, data: bytes, n_bytes: int, limit_s: float) -> bytearray | str:
        """What the process answers.

        Raises:
            OSError: it is gone, did not answer in time (TimeoutError), or answered what cannot be.
        """
        if not self._ready:
            if self._read(1, _Patience(None, START_S)) != READY:
                raise ConnectionError("not ready")
            self._ready = True
        patience = _Patience(self.pid, limit_s)
        self._socket.settimeout(limit_s * WALL)
        self._socket.sendall(ASKED.pack(len(said), len(data)) + said)
        self._socket.sendall(data)
        kind, n = ANSWERED.unpack(self._read(ANSWERED.size, patience))
        # It may be in the hands of whoever made the picture: no more is read, and nothing else believed.
        if kind == SEEN and n == n_bytes:
            return self._read(n, patience)
        code = self._read(n, patience).decode("ascii", "replace") if kind == REFUSED and n <= _CODE_BYTES else ""
        if code not in IMAGE_CODES:
            raise ConnectionError("no answer that can be")
        return code

    def _read(self, n_bytes: int, patience: _Patience) -> bytearray:
        data = bytearray(n_bytes)
        at = memoryview(data)
        while len(at):
            self._socket.settimeout(patience.left_s())
            try:
                n = self._socket.recv_into(at)
            except TimeoutError:
                continue  # it may not have had its time yet
            if not n:
                raise ConnectionResetError("the process has ended")
            at = at[n:]
        return data

    def end(self, *, at_once: bool) -> None:
        """Let it end, or kill it."""
        self._socket.close()
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(1.0)
        self._child.kill()
        self._child.wait()


class PictureProcesses:
    """Processes that decode pictures, one each at a time; used from any number of threads.

    Attributes:
        n_replaced: processes that hung or died.

    Args:
        n: how many; they start when they are needed.
        limit_s: for a picture.
    """

    def __init__(self, n: int, *, limit_s: float = LIMIT_S) -> None:
        self.n_replaced = 0
        self._closed = False
        self._n = n
        self._limit_s = limit_s
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(n):
            self._free.put(None)

    def prepare(self, data: bytes, looks: Looks) -> tuple[NDArray[np.uint8], ...] | str:
        """An encoded picture as `shelver.images.views` gives it, or the code that says why it cannot be used.

        The code is one of `IMAGE_CODES`, `TIMEOUT` or `CRASHED`.
        """
        answer = self._seen(data, looks, placed=False)
        return answer if isinstance(answer, str) else _looks_in(answer, looks)

    def place(self, data: bytes, looks: Looks) -> tuple[tuple[NDArray[np.uint8], ...], tuple[Window, ...]] | str:
        """As `prepare`, and what each look shows of the picture, as `shelver.windows` has it."""
        answer = self._seen(data, looks, placed=True)
        if isinstance(answer, str):
            return answer
        windows = tuple(WINDOW.iter_unpack(answer[len(answer) - len(looks) * WINDOW.size :]))
        # Who made the picture may have had a hand in it: no more is believed than can be.
        if not all(_is_window(one) for one in windows):
            return CRASHED
        return _looks_in(answer, looks), windows

    def _seen(self, data: bytes, looks: Looks, *, placed: bool) -> bytearray | str:
        said = json.dumps(
            ([(view, spec.height_px, spec.width_px, spec.background) for view, spec in looks], placed)
        ).encode()
        n_bytes = sum(spec.height_px * spec.width_px * 3 + placed * WINDOW.size for _, spec in looks)
        # A process may also end for what others did: the picture gets a second one.
        for _ in range(2):
            answer = self._asked(said, data, n_bytes)
            if answer != CRASHED:
                break
        return answer

    def check(self, data: bytes) -> None:
        """See to it that a picture can be used, as a network would.

        Raises:
            ImageError: it cannot; its `code` is one of `prepare`'s.
        """
        seen = self.prepare(data, _CHECKED)
        if isinstance(seen, str):
            raise ImageError(
                seen,
                f"a picture of {len(data)} bytes: {IMAGE_CODES.get(seen, 'decoding it did not end')}",
                allowed="a JPEG, PNG, WEBP, GIF, BMP or AVIF that can be decoded within time and memory",
                remedy="Save the picture again as JPEG or PNG.",
            )

    def _asked(self, said: bytes, data: bytes, n_bytes: int) -> bytearray | str:
        process = self._free.get()
        kept: _Process | None = None
        try:
            if self._closed:
                return CRASHED
            process = process or _Process()
            answer = process.ask(said, data, n_bytes, self._limit_s)
            kept = process
            return answer
        except OSError as error:
            self.n_replaced += 1
            reason = TIMEOUT if isinstance(error, TimeoutError) else CRASHED
            log.warning("a picture's process is replaced", reason=reason, n_bytes=len(data))
            return reason
        finally:
            if kept is None and process is not None:
                process.end(at_once=True)
            self._free.put(kept)

    def close(self) -> None:
        """End all processes; those at work end first."""
        self._closed = True
        for _ in range(self._n):
            process = self._free.get()  # nobody keeps one longer than two pictures may take
            if process is not None:
                process.end(at_once=False)
        for _ in range(self._n):
            self._free.put(None)


def _looks_in(answer: bytearray, looks: Looks) -> tuple[NDArray[np.uint8], ...]:
    seen, at = [], 0
    for _, spec in looks:
        shape = (spec.height_px, spec.width_px, 3)
        n = shape[0] * shape[1] * 3
        seen.append(np.frombuffer(answer, np.uint8, n, at).reshape(shape))
        at += n
    return tuple(seen)


def _is_window(edges: tuple[float, ...]) -> bool:
    left, top, right, bottom = edges
    return all(abs(edge) < 1e6 for edge in edges) and right - left > 1e-9 and bottom - top > 1e-9
