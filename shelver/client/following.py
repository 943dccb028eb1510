"""Following the events of a job over connections that may break: what to ask, what was read, whether to go on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx2

from shelver.client.exchange import Outcome, Pause, Renew, Session, Steps, failure, is_stale, pause_before_next
from shelver.service.jobs.payloads import FINAL

SILENCE_S: Final = 45.0
"""A stream says at least something every 15 s; one that is silent for longer is dead."""
_AGAIN_S: Final = 0.5


@dataclass(frozen=True)
class JobEvent:
    """What happened in a job: `queued`, `started`, `progress` … and at last `done`, `failed` or `cancelled`."""

    number: int
    kind: str
    data: Mapping[str, Any]


class Follower:
    """Where one caller stands in the events of one job.

    Attributes:
        over: whether there is nothing more to follow.
        outcome: why the last connection gave no stream, if it did not.
    """

    def __init__(self, session: Session, job_id: str, after: int) -> None:
        self.over = False
        self.outcome: Outcome | None = None
        self._session = session
        self._path = f"/v1/jobs/{quote(job_id, safe='')}/events"
        self._last = after
        self._attempt = 1
        self._renewed = False
        self._used: str | None = None

    def before(self) -> Steps[None]:
        """Steps before a connection."""
        if self._session.must_renew():
            yield Renew(self._session.credential())
        self._used = self._session.credential()

    def request(self) -> dict[str, Any]:
        """The request of the next connection."""
        headers = {**self._session.headers(), "Last-Event-ID": str(self._last), "Accept": "text/event-stream"}
        timeout = httpx2.Timeout(SILENCE_S, connect=10.0)
        return {"method": "GET", "url": self._path, "headers": headers, "timeout": timeout}

    def began(self, response: httpx2.Response) -> bool:
        """Whether this is a stream; one that has nothing left to say is none."""
        self.outcome = None
        if response.status_code == 204:
            self.over = True
        return response.is_success and not self.over

    def read(self, event: httpx2.ServerSentEvent) -> Iterator[JobEvent]:
        """What an event of the stream says; nothing where it came before."""
        if not event.data or not event.id.isdecimal() or int(event.id) <= self._last:
            return
        self._last, self._attempt, self._renewed = int(event.id), 1, False
        yield JobEvent(self._last, event.event, json.loads(event.data))
        self.over = event.event in FINAL

    def after(self) -> Steps[None]:
        """Steps after a connection has ended.

        Raises:
            ApiError, NoAnswerError: it is of no use to connect again.
        """
        if self.over:
            return
        if self.outcome is None:  # it ended in good order, before the job did
            yield Pause(_AGAIN_S)
        elif is_stale(self._session, self.outcome) and not self._renewed:
            self._renewed = True
            yield Renew(self._used)
        else:
            wait_s = pause_before_next(self._session, self.outcome, self._attempt, repeatable=True)
            if wait_s is None:
                raise failure(self.outcome)
            self._attempt += 1
            yield Pause(wait_s)
