"""Answers to what somebody is still typing: one goes into the log when nothing has followed it for a moment.

Else the log, and what is counted from it, would be full of answers to half a title that nobody looked at. The
answer before the last is remembered for a while: who saves while the last one is on its way has seen only that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from shelver.errors import ShelverError
from shelver.service.records.entries import Entry

QUIET_S: Final = 3.0
REMEMBERED_S: Final = 60.0
"""For so long the answer before the last one; pictures that are saved may take a while to come."""
log = structlog.get_logger("shelver.service")


@dataclass(slots=True, eq=False)
class _Held:
    last: Entry | None  # None once it is in the log
    before: Entry | None


class Held:
    """Entries that wait for what follows them.

    Args:
        write: takes an entry for the log.
        quiet_s: so long one waits.
        remembered_s: so long the one before it is kept after that.
    """

    def __init__(
        self, write: Callable[[Entry], object], *, quiet_s: float = QUIET_S, remembered_s: float = REMEMBERED_S
    ) -> None:
        self._write = write
        self._quiet_s = quiet_s
        self._remembered_s = remembered_s
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def hold(self, form: str, entry: Entry) -> None:
        """Keep an entry in place of those before it of the same form; called from the event loop."""
        with self._lock:
            old = self._held.get(form)
            held = self._held[form] = _Held(entry, old.last if old is not None else None)
        loop = asyncio.get_running_loop()
        loop.call_later(self._quiet_s, self._quiet, form, held)
        loop.call_later(self._quiet_s + self._remembered_s, self._forget, form, held)

    def settle(self, prediction_id: str) -> None:
        """Let the entry of this id go into the log now, if it is held, and no other of its form."""
        with self._lock:
            for form, held in self._held.items():
                entry = next((one for one in (held.last, held.before) if one and one.id == prediction_id), None)
                if entry is not None:
                    del self._held[form]
                    break
            else:
                return
        self._log(entry)

    def close(self) -> None:
        """Let the last of each form go into the log."""
        with self._lock:
            waiting = [held.last for held in self._held.values() if held.last is not None]
            self._held.clear()
        for entry in waiting:
            self._log(entry)

    def _quiet(self, form: str, held: _Held) -> None:
        with self._lock:
            if self._held.get(form) is not held or held.last is None:
                return  # another one has followed it
            entry, held.last = held.last, None
        self._log(entry)

    def _forget(self, form: str, held: _Held) -> None:
        with self._lock:
            if self._held.get(form) is held:
                del self._held[form]

    def _log(self, entry: Entry) -> None:
        try:
            self._write(entry)
        except ShelverError as error:  # the log is full: whoever asked has his answer already
            log.warning("an answer is not logged", error=str(error))
