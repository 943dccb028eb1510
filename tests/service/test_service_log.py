"""The log writes down each prediction once, whatever happens to the database or the process meanwhile."""

from __future__ import annotations

import csv
import io
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from shelver.service.db import Database, open_database
from shelver.service.records.entries import Entry
from shelver.service.records.log import GROUP, LogFullError, PredictionLog
from shelver.service.records.spill import JOURNAL_BYTES, Journal, Spill
from shelver.service.state import Service
from shelver.service.tables import Base
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import PredictionRow

WRITER = """
import sys
import time
from pathlib import Path
from sqlalchemy import event
from shelver.service.db import open_database
from shelver.service.records.log import PredictionLog
from tests_entry import entry

with open_database(sys.argv[1]) as database, PredictionLog(database, Path(sys.argv[2])) as log:
    event.listen(database.engine, "connect", lambda dbapi, record: dbapi.execute("PRAGMA busy_timeout = 20"))
    while True:
        group = [entry() for _ in range(40)]
        number = [log.write(one) for one in group][-1]
        if log.safe(number, timeout_s=30):
            sys.stderr.write(" ".join(one.id for one in group) + "\\n")
"""
"""Tells, where nothing else is told, the ids of what the log says is safe, until it is killed."""
COLUMNS = Entry.__dataclass_fields__.keys() - {"asked"}
KILLS = 3
ENTRY = """
import uuid
from datetime import UTC, datetime
from shelver.service.records.log import Entry

def entry():
    return Entry(uuid.uuid4().hex, datetime.now(UTC), None, "00", None, "{}", "Bar", 0.5, "decided", "deepest",
                 "m", "t", "text", 1.0)
"""


def entry(**changes: Any) -> Entry:
    said: dict[str, Any] = {
        "id": new_id(),
        "at": datetime.now(UTC),
        "user_id": None,
        "input_hash": "00" * 32,
        "product_id": "p1",
        "answer": json.dumps({"node": "Bar"}),
        "node_id": "Bar",
        "confidence": 0.75,
        "outcome": "decided",
        "policy": "deepest",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 3.5,
    }
    return Entry(**{**said, **changes})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with open_database(url) as opened:
        Base.metadata.create_all(opened.engine)
        yield opened


def stored(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(PredictionRow.id)))


def wait_until(holds: Callable[[], bool], timeout_s: float = 15.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def waiting(tmp_path: Path) -> list[Path]:
    """Files whose entries wait for the database; a journal is there as long as the log is."""
    return [path for path in (tmp_path / "log").iterdir() if not path.name.startswith("journal-")]


def locked(path: Path) -> sqlite3.Connection:
    """Another program holds the database's write lock until this connection rolls back."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_an_entry_is_stored_as_it_was_written(database: Database, tmp_path: Path) -> None:
    written = entry(at=datetime(2026, 11, 21, 10, 0, 0, 123456, UTC))
    with PredictionLog(database, tmp_path / "log") as log:
        assert log.safe(log.write(written))
        with database.reading() as session:
            row = session.get_one(PredictionRow, written.id)
    assert Entry(**{name: getattr(row, name) for name in COLUMNS}) == written


def test_many_writers_share_transactions(database: Database, tmp_path: Path) -> None:
    from sqlalchemy import event

    begun: list[int] = []
    event.listen(database.writer, "commit", lambda connection: begun.append(1))
    with PredictionLog(database, tmp_path / "log") as log:
        for _ in range(4 * GROUP):
            log.write(entry())
        assert log.safe()
    assert len(stored(database)) == 4 * GROUP
    assert len(begun) <= 8


def test_writing_returns_while_the_database_is_busy(database: Database, tmp_path: Path) -> None:
    other = locked(tmp_path / "log.db")
    with PredictionLog(database, tmp_path / "log") as log:
        begin = time.perf_counter()
        for _ in range(500):
            log.write(entry())
        assert time.perf_counter() - begin < 0.5
        assert not log.safe(timeout_s=0.1)
        other.rollback()
        assert log.safe()
    assert len(stored(database)) == 500


def test_while_the_database_is_locked_entries_go_to_the_disk_and_from_there_to_the_database(
    url: str, database: Database, tmp_path: Path
) -> None:
    with open_database(url) as hasty:
        # A short wait for the lock, so that the test need not last as long as a server would wait.
        from sqlalchemy import event

        event.listen(hasty.engine, "connect", lambda dbapi, record: dbapi.execute("PRAGMA busy_timeout = 50"))
        written = [entry() for _ in range(700)]
        other = locked(tmp_path / "log.db")
        with PredictionLog(hasty, tmp_path / "log") as log:
            for one in written:
                log.write(one)
            assert log.safe(timeout_s=10), "on disk is safe"
            assert not log.figures().database_up
            assert log.figures().n_spilled == 700
            assert stored(database) == []
            other.rollback()
            wait_until(lambda: log.figures().n_stored == 700)
            wait_until(lambda: not waiting(tmp_path))
            assert log.figures().database_up
    assert sorted(stored(database)) == sorted(one.id for one in written)


def test_what_a_stopped_service_left_on_disk_is_stored_by_the_next(
    url: str, database: Database, tmp_path: Path
) -> None:
    lost = tmp_path / "nowhere" / "log.db"
    written = [entry() for _ in range(10)]
    with open_database(f"sqlite:///{lost}") as down, PredictionLog(down, tmp_path / "log") as log:
        for one in written:
            log.write(one)
    with PredictionLog(database, tmp_path / "log") as log:
        wait_until(lambda: log.figures().n_stored == 10)
    assert sorted(stored(database)) == sorted(one.id for one in written)


def test_entries_that_were_stored_before_the_process_died_are_not_stored_twice(
    database: Database, tmp_path: Path
) -> None:
    from shelver.service.records.entries import line_of

    written = [entry() for _ in range(5)]
    spill = Spill(tmp_path / "log")
    spill.append([line_of(one) for one in written])
    spill.close()
    with database.writing() as session:
        session.add(PredictionRow(**{name: getattr(written[2], name) for name in COLUMNS}))
    with PredictionLog(database, tmp_path / "log") as log:
        wait_until(lambda: not list((tmp_path / "log").iterdir()))
        assert log.figures().n_stored == 4
    assert sorted(stored(database)) == sorted(one.id for one in written)


def test_a_half_written_line_is_passed_over(database: Database, tmp_path: Path) -> None:
    from shelver.service.records.entries import line_of

    whole, half = entry(), entry()
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "killed.jsonl").write_text(f"{line_of(whole)}\n{line_of(half)[:40]}")
    with PredictionLog(database, folder) as log:
        wait_until(lambda: not list(folder.iterdir()))
        assert log.figures().n_rejected == 0
    assert stored(database) == [whole.id]


def test_two_processes_share_a_folder_and_leave_each_others_files_alone(tmp_path: Path) -> None:
    one, other = Spill(tmp_path), Spill(tmp_path)
    one.append(["a", "b"])
    other.append(["c"])
    assert one.next_lines(10) == ["a", "b"]
    assert other.next_lines(10) == ["c"]
    other.close()  # as if it was killed
    one.done()
    assert one.next_lines(10) == ["c"]
    one.done()
    assert one.next_lines(10) == []
    assert not list(tmp_path.iterdir())


def test_lines_are_taken_in_portions_while_others_come_in(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.append([str(i) for i in range(5)])
    seen = []
    for i in range(5, 20):
        seen += spill.next_lines(2)
        spill.done()
        spill.append([str(i)])
    while lines := spill.next_lines(2):
        seen += lines
        spill.done()
    assert seen == [str(i) for i in range(20)]


def test_one_entry_that_cannot_be_stored_does_not_hold_up_the_others(database: Database, tmp_path: Path) -> None:
    twice, bad, good = entry(), entry(input_hash={"no": "text"}), entry()
    with PredictionLog(database, tmp_path / "log") as log:
        for one in (bad, twice, twice, good):
            log.write(one)
        assert log.safe()
        figures = log.figures()
    assert sorted(stored(database)) == sorted([twice.id, good.id])
    assert figures.n_rejected == 1
    assert figures.database_up
    assert bad.id in (tmp_path / "log" / "rejected.txt").read_text()


def test_long_and_odd_texts_are_stored_as_far_as_a_database_can(database: Database, tmp_path: Path) -> None:
    odd = entry(product_id="x" * 300, node_id="a\x00b\ud800", confidence=float("nan"))
    with PredictionLog(database, tmp_path / "log") as log:
        assert log.safe(log.write(odd))
    with database.reading() as session:
        row = session.get_one(PredictionRow, odd.id)
    assert (row.product_id, row.node_id, row.confidence) == ("x" * 255, "ab?", None)


def test_nothing_more_is_written_about_somebody_who_was_deleted(database: Database, tmp_path: Path) -> None:
    with database.writing() as session:
        session.add(User(id="gone", name="", role="seller", deleted_at=datetime.now(UTC)))
    late, other = entry(user_id="gone"), entry(user_id="somebody")
    with PredictionLog(database, tmp_path / "log") as log:
        for one in (late, other):
            log.write(one)
    assert stored(database) == [other.id]


def test_a_journal_has_what_is_not_safe_yet_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    line = "x" * 100_000
    for number in range(1, 36):
        journal.write(line, number)
        journal.safe(number - 3)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 3 * len(line) < sum(sizes) < 3 * JOURNAL_BYTES
    journal.safe(35)
    assert [path.stat().st_size < JOURNAL_BYTES for path in tmp_path.iterdir()] == [True]
    journal.write("the last", 36)
    journal.close(keep=True)
    spill, found = Spill(tmp_path), []
    while lines := spill.next_lines(10):
        found += lines
        spill.done()
    assert found[-1] == "the last"
    assert not list(tmp_path.iterdir())


def test_a_log_that_can_take_no_more_says_so(database: Database, tmp_path: Path) -> None:
    other = locked(tmp_path / "log.db")
    with PredictionLog(database, tmp_path / "log", max_waiting=3) as log:
        for _ in range(3):
            log.write(entry())
        with pytest.raises(LogFullError, match="3 entries wait"):
            log.write(entry())
        other.rollback()
    with pytest.raises(LogFullError, match="stopped"):
        log.write(entry())
    assert len(stored(database)) == 3


def test_old_entries_are_deleted(database: Database, tmp_path: Path) -> None:
    old, young = entry(at=datetime.now(UTC) - timedelta(days=31)), entry()
    with PredictionLog(database, tmp_path / "log") as log:
        log.write(old)
        log.write(young)
    with PredictionLog(database, tmp_path / "log", keep_days=30):
        wait_until(lambda: stored(database) == [young.id])


def test_a_killed_process_loses_and_repeats_nothing_that_the_log_has_taken(
    url: str, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "tests_entry.py").write_text(ENTRY)
    (tmp_path / "writer.py").write_text(WRITER)
    told: list[str] = []
    n_waiting = 0
    for kill in range(4 * KILLS):
        if kill >= KILLS and n_waiting:
            break  # on a busy machine the moment that is waited for below may take more kills
        child = subprocess.Popen(
            [sys.executable, "writer.py", url, str(tmp_path / "log")],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        )
        assert child.stderr is not None
        told += child.stderr.readline().split()  # it has begun
        lock = locked(tmp_path / "log.db") if kill % 3 == 1 else None
        time.sleep(0.2 + kill * 0.137 % 0.5)
        child.send_signal(signal.SIGKILL)
        told += child.stderr.read().rpartition("\n")[0].split()
        child.wait()
        child.stderr.close()
        if lock is not None:
            n_waiting += len(waiting(tmp_path))
            lock.rollback()
    with PredictionLog(database, tmp_path / "log") as log:
        wait_until(lambda: not list((tmp_path / "log").iterdir()))
        assert log.safe()
    there = stored(database)
    assert len(told) >= 120
    assert len(there) == len(set(there))
    assert not set(told) - set(there)
    assert n_waiting, "no killed process left entries on disk"


@pytest.fixture
def logged(service: Service, as_role: Callable[..., TestClient]) -> tuple[TestClient, list[Entry]]:
    """A seller and his predictions, one an hour, the first the oldest; and one of somebody else."""
    seller = as_role("seller", "Ann")
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    own = [
        entry(
            user_id=seller.headers["X-User"],
            at=begin + timedelta(hours=i),
            product_id=f"p{i % 3}",
            node_id=["Bar", "Deck"][i % 2],
            outcome=["decided", "review"][i % 2],
            model_version=f"m{i % 4}",
        )
        for i in range(12)
    ]
    for one in [*own, entry(user_id=as_role("seller", "Bob").headers["X-User"], at=begin)]:
        service.log.write(one)
    assert service.log.safe()
    return seller, own


def test_people_see_their_own_log_and_administrators_all(
    logged: tuple[TestClient, list[Entry]], as_role: Callable[..., TestClient]
) -> None:
    seller, own = logged
    items = seller.get("/v1/predictions").json()["items"]
    assert [item["id"] for item in items] == [one.id for one in reversed(own)]
    assert "answer" not in items[0]
    admin = as_role("admin")
    assert len(admin.get("/v1/predictions").json()["items"]) == 13
    of_ann = admin.get("/v1/predictions", params={"user_id": seller.headers["X-User"]}).json()["items"]
    assert of_ann == items
    url = f"/v1/predictions/{own[0].id}"
    assert seller.get(url).json()["answer"] == {"node": "Bar"}
    assert admin.get(url).json() == seller.get(url).json()
    other = as_role("seller")
    assert other.get(url).json()["code"] == "not_found"
    assert other.get("/v1/predictions", params={"user_id": seller.headers["X-User"]}).json()["items"] == []
    assert as_role("reviewer").get("/v1/predictions").json()["items"] == []


def test_the_log_is_filtered_and_paged(logged: tuple[TestClient, list[Entry]]) -> None:
    seller, own = logged

    def ids(**filters: Any) -> list[str]:
        answer = seller.get("/v1/predictions", params=filters)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]][::-1]

    assert ids(outcome="review") == [one.id for one in own if one.outcome == "review"]
    assert ids(node_id="Bar", product_id="p1") == [
        one.id for one in own if (one.node_id, one.product_id) == ("Bar", "p1")
    ]
    assert ids(model_version="m3") == [one.id for one in own if one.model_version == "m3"]
    assert ids(policy="another") == []
    assert ids(**{"from": "2026-11-01T02:00:00Z", "to": "2026-11-01T05:00:00+01:00"}) == [
        one.id for one in own[2:4]
    ]
    first = seller.get("/v1/predictions", params={"limit": 8}).json()
    second = seller.get("/v1/predictions", params={"limit": 8, "after": first["next"]}).json()
    assert second["next"] is None
    assert [item["id"] for item in first["items"] + second["items"]] == [one.id for one in reversed(own)]
    for wrong in ({"limit": 0}, {"limit": 201}, {"outcome": "fine"}, {"colour": "red"}, {"node_id": "a\x00"}):
        assert seller.get("/v1/predictions", params=wrong).status_code == 422


def test_the_export_is_csv_that_no_spreadsheet_takes_for_formulas(
    logged: tuple[TestClient, list[Entry]], service: Service
) -> None:
    seller, own = logged
    dangerous = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", '=cmd|"/c calc"!A1', "plain, with comma\nand line"]
    for i, text in enumerate(dangerous):
        at = datetime(2026, 11, 2, i, tzinfo=UTC)
        service.log.write(entry(user_id=seller.headers["X-User"], at=at, product_id=text))
    assert service.log.safe()
    answer = seller.get("/v1/predictions/export")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == len(own) + len(dangerous)
    assert [row["product_id"] for row in rows[:8]] == [
        *(dangerous[7:]),
        *(f"'{text}" for text in reversed(dangerous[:7])),
    ]
    assert json.loads(rows[-1]["answer"]) == {"node": "Bar"}
    assert rows[-1]["at"] == "2026-11-01T00:00:00+00:00"
    filtered = seller.get("/v1/predictions/export", params={"outcome": "review"})
    assert len(filtered.text.splitlines()) == 7
    assert seller.get("/v1/predictions/export", params={"limit": 3}).status_code == 422
