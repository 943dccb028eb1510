"""What has ended, was used up or is shown by nobody goes; what fails stops nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from service_rig import make_user, service_behind, token_of
from sqlalchemy import func, select

from shelver.service.accounts.one_time import make_token
from shelver.service.answers.repeat_store import KEPT_S
from shelver.service.housekeeping import Housekeeping, Part, parts_of
from shelver.service.tables.accounts import OneTimeToken, RefreshToken, SignIn
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import PictureRow
from shelver.service.tables.repeats import RepeatRow


def test_what_has_expired_goes_and_what_is_good_stays(client: TestClient) -> None:
    service = service_behind(client)
    user = make_user(service, "seller")
    good = token_of(service, user)
    old, recent = now() - timedelta(days=2), now() - timedelta(hours=2)
    with service.database.writing() as session:
        make_token(session, "password", user_id=user.id, lives_s=60)
        for at in (old, recent):
            session.add(OneTimeToken(kind="password", user_id=user.id, hash=new_id(), expires_at=at))
            for i in range(600 if at is old else 1):
                sign_in = SignIn(id=f"{i:03}-{at:%d%H}", user_id=user.id, expires_at=at)
                session.add(sign_in)
                session.flush()
                session.add(RefreshToken(sign_in_id=sign_in.id, hash=new_id()))
        for name, kept_s in (("old", KEPT_S + 60), ("recent", 60)):
            at = now() - timedelta(seconds=kept_s)
            session.add(RepeatRow(name=name, body_hash="x", answer=b"{}", at=at))
    metrics = CollectorRegistry()
    keeping = Housekeeping(parts := parts_of(service.settings, service.database, service.pictures), metrics)
    assert {"sign_ins", "one_time_tokens", "answers", "pictures"} <= {part.name for part in parts}
    for _ in range(2):
        assert all(keeping.do(part) for part in parts)
    with service.database.reading() as session:
        counts = [
            session.scalar(select(func.count()).select_from(table))
            for table in (SignIn, RefreshToken, OneTimeToken, RepeatRow)
        ]
    assert counts == [2, 1, 2, 1]
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    deleted = metrics.get_sample_value("shelver_housekeeping_deleted_total", {"part": "sign_ins"})
    assert deleted == 600
    done_at = metrics.get_sample_value("shelver_housekeeping_done_at", {"part": "pictures"})
    assert done_at is not None
    assert abs(done_at - time.time()) < 60


def test_pictures_that_nobody_shows_go_in_a_day(client: TestClient, tmp_path: Path, draw: object) -> None:
    service = service_behind(client)
    assert callable(draw)
    stored = [service.pictures.put(draw((9, 9, 9), seed)) for seed in range(3)]
    with service.database.writing() as session:
        for picture, at in zip(stored, (now() - timedelta(days=2), now()), strict=False):
            session.add(PictureRow(hash=picture.hash, n_bytes=1, kind="PNG", created_at=at))
    for path in (tmp_path / "data" / "pictures").glob("??/*"):
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    (part,) = [
        part for part in parts_of(service.settings, service.database, service.pictures) if part.name == "pictures"
    ]
    assert Housekeeping((part,), CollectorRegistry()).do(part)
    assert list(service.pictures.hashes()) == [stored[1].hash]


def test_a_part_that_fails_stops_no_other_and_is_counted() -> None:
    done: list[str] = []

    def fails() -> Iterator[int]:
        done.append("fails")
        yield 3
        raise OSError("the disk is gone")

    def works() -> Iterator[int]:
        done.append("works")
        yield 2

    metrics = CollectorRegistry()
    parts = (Part("fails", 0.01, fails), Part("works", 0.01, works))
    with Housekeeping(parts, metrics, first_s=0):
        until = time.monotonic() + 10
        while min(done.count("fails"), done.count("works")) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
    n_done = len(done)
    failures = metrics.get_sample_value("shelver_housekeeping_failures_total", {"part": "fails"})
    assert failures is not None
    assert failures >= 3
    assert metrics.get_sample_value("shelver_housekeeping_failures_total", {"part": "works"}) == 0
    assert metrics.get_sample_value("shelver_housekeeping_done_at", {"part": "fails"}) is None
    time.sleep(0.05)
    assert len(done) == n_done, "it has stopped"


def test_a_long_part_ends_with_the_service() -> None:
    def endless() -> Iterator[int]:
        while True:
            time.sleep(0.01)
            yield 1

    with Housekeeping((Part("endless", 1, endless),), CollectorRegistry(), first_s=0):
        time.sleep(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < 2


def test_a_running_service_tells_when_it_was_done(client: TestClient) -> None:
    service = service_behind(client)
    failures = service.metrics.get_sample_value("shelver_housekeeping_failures_total", {"part": "pictures"})
    assert failures == 0
