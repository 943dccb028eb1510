"""Events of a job over a real connection: none is lost or repeated, whatever the connection does."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from jobs_rig import taken
from service_rig import make_user, token_of

from shelver.service.app import create_app
from shelver.service.jobs import events
from shelver.service.jobs.leases import finish, tell
from shelver.service.problems import ServiceError
from shelver.service.server import Server
from shelver.service.state import Service
from shelver.service.tables.accounts import User
from shelver.service.tables.work import JobRow
from shelver.settings import ServiceSettings


class Site:
    """A service behind a real uvicorn."""

    def __init__(self, app: FastAPI, server: Server, port: int) -> None:
        self.app, self.server, self.port = app, server, port
        self.service: Service = app.state.service
        self.user = make_user(self.service, "seller")
        self.token = token_of(self.service, self.user)

    def job(self, owner: User | None = None) -> str:
        """A new job of a user; he is nobody's but his own."""
        with self.service.database.writing() as session:
            row = JobRow(
                owner_id=(owner or self.user).id, kind="predict", params={}, max_attempts=3, attempts=0, n_events=0
            )
            session.add(row)
            session.flush()
            row.state = "queued"
            events.happened(session, row, "queued")
            return row.id

    def ask(self, job_id: str, last: int | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        if last is not None:
            sent["Last-Event-ID"] = str(last)
        connection.request("GET", f"/v1/jobs/{job_id}/events", headers=sent)
        return connection.getresponse()


@pytest.fixture
def site(service_settings: Callable[..., ServiceSettings]) -> Iterator[Site]:
    with running(service_settings(port=0)) as found:
        yield found


@contextmanager
def running(settings: ServiceSettings) -> Iterator[Site]:
    app = create_app(settings)
    server = Server(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        ends = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < ends
            time.sleep(0.02)
        yield Site(app, server, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def events_in(answer: http.client.HTTPResponse, n: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """The next events of a stream: so many, or all until it ends."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    said: dict[str, str] = {}
    while n is None or len(found) < n:
        line = answer.readline()
        if not line:
            break
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if value:
            said[name] = value
        elif "id" in said:
            found.append((int(said["id"]), said["event"], json.loads(said["data"])))
            said = {}
    return found


def test_a_reader_that_is_cut_off_again_and_again_gets_every_event_once(site: Site) -> None:
    job_id = site.job()
    database = site.service.database
    lease = taken(site.service)

    def work() -> None:
        for step in range(60):
            tell(database, lease, fraction=step / 60, phase="counting", words=f"step {step}")
        finish(database, lease, {"n": 60})

    worker = threading.Thread(target=work)
    worker.start()
    found: list[tuple[int, str, dict[str, Any]]] = []
    for n in (1, 3, 20, 1, None):
        answer = site.ask(job_id, found[-1][0] if found else None)
        with closing(answer):  # the connection breaks in the middle of the stream
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            found += events_in(answer, n)
    worker.join()
    assert [number for number, _, _ in found] == list(range(1, 64))
    assert [kind for _, kind, _ in found] == ["queued", "started", *["progress"] * 60, "done"]
    assert [data["words"] for _, kind, data in found if kind == "progress"] == [f"step {i}" for i in range(60)]
    assert found[-1][2]["result"] == {"n": 60}
    # Who has the last event is told not to come back.
    assert site.ask(job_id, 63).status == 204
    assert [kind for _, kind, _ in events_in(site.ask(job_id, 62))] == ["done"]


def test_a_stream_that_waits_holds_neither_thread_nor_session(site: Site) -> None:
    site.service.streams.a_caller = 60
    job_id = site.job()
    answers = [site.ask(job_id) for _ in range(60)]
    # More than there are threads for requests, and than the database has connections.
    assert all(len(events_in(answer, 1)) == 1 for answer in answers)
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("GET", f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {site.token}"})
    assert connection.getresponse().status == 200
    assert time.monotonic() - began < 5
    finish(site.service.database, taken(site.service), {})
    for answer in answers:
        assert [kind for _, kind, _ in events_in(answer)] == ["started", "done"]
    until_closed(site)


def until_closed(site: Site) -> None:
    """Wait until no stream is counted any more."""
    site.service.streams.in_all = 1
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            with site.service.streams.one("anybody"):
                break
        except ServiceError:
            time.sleep(0.05)
    else:
        raise AssertionError("streams are still counted")
    site.service.streams.in_all = 200


def test_an_account_may_have_so_many_streams_and_gets_them_back(site: Site) -> None:
    job_id = site.job()
    answers = [site.ask(job_id) for _ in range(site.service.streams.a_caller)]
    assert all(len(events_in(answer, 1)) == 1 for answer in answers)
    refused = site.ask(job_id)
    assert (refused.status, json.loads(refused.read())["code"]) == (429, "too_many_requests")
    other = make_user(site.service, "reviewer")
    token = token_of(site.service, other)
    assert events_in(site.ask(job_id, Authorization=f"Bearer {token}"), 1)[0][1] == "queued"
    finish(site.service.database, taken(site.service), {})
    for answer in answers:
        events_in(answer)
    until_closed(site)
    assert site.ask(job_id, 1).status == 200


def test_a_quiet_stream_says_now_and_then_that_it_is_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    answer = site.ask(site.job())
    events_in(answer, 1)
    assert answer.readline() == b": still here\n"
    answer.close()


def test_a_stream_ends_after_its_time_and_when_the_server_stops(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = site.job()
    with monkeypatch.context() as patch:
        patch.setattr(events, "STREAM_S", 0.2)
        assert [kind for _, kind, _ in events_in(site.ask(job_id))] == ["queued"]
    answer = site.ask(job_id)
    events_in(answer, 1)
    site.app.state.stopping = True
    assert events_in(answer) == []


@pytest.mark.parametrize("last", ["-1", "one", str(2**40)])
def test_a_number_that_no_event_has_is_refused(site: Site, last: str) -> None:
    answer = site.ask(site.job(), None, **{"Last-Event-ID": last})
    assert (answer.status, json.loads(answer.read())["code"]) == (422, "invalid_input")
