"""Where jobs and uploads keep their files, and when these go."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from shelver.service.db import Database, after_commit
from shelver.service.jobs.payloads import FINAL
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobEventRow, JobRow, UploadRow

JOBS: Final = "jobs"
CATALOGS: Final = "catalogs"
FILES: Final = "files"
UPLOADS: Final = "uploads"
GRACE_S: Final = 3600.0
"""A file of an upload that is younger is not removed: whoever has just sent it is about to name it."""
_AT_ONCE: Final = 200
_ENDING: Final = re.compile(r"(\.(csv|tsv|jsonl|ndjson|json|parquet|pq|xml|rss|txt))?(\.gz)?$")


def job_folder(data: Path, job_id: str) -> Path:
    """Where a job works and leaves its files."""
    return data / JOBS / job_id


def upload_path(data: Path, hash_: str) -> Path:
    """Where the bytes of an upload lie, in the data folder."""
    return data / UPLOADS / hash_[:2] / hash_


def upload_of(database: Database, data: Path, upload_id: str) -> tuple[Path, str] | None:
    """Where the bytes of an upload lie, and what it is called; None where it was deleted."""
    with database.reading() as session:
        row = session.get(UploadRow, upload_id)
    if row is None:
        return None
    path = upload_path(data, row.hash)
    return (path, row.name) if path.is_file() else None


def ending_of(name: str) -> str:
    """The end of a feed's name, where it may tell the format; else nothing."""
    found = _ENDING.search(name.lower())
    return found[0] if found else ""


def drop_files(session: Session, database: Database, data: Path, hashes: Collection[str]) -> None:
    """Remove files that no row names any more, once this is committed; young ones wait for `drop_old_uploads`."""

    def drop() -> None:
        _drop_unnamed(database, [upload_path(data, hash_) for hash_ in hashes])

    after_commit(session, drop)


def drop_old_uploads(database: Database, data: Path, before: datetime) -> int:
    """Delete uploads that are older and that no job waits for, those of people who have left, and files that
    nobody names; how many uploads there were."""
    left = select(User.id).where(User.deleted_at.is_not(None))
    wanted = select(UploadRow).where(or_(UploadRow.created_at < before, UploadRow.owner_id.in_(left)))
    with database.writing() as session:
        old = session.scalars(wanted.limit(_AT_ONCE)).all()
        params = session.scalars(select(JobRow.params).where(JobRow.state.in_(("queued", "running"))))
        needed = {said.get("upload_id") for said in params}
        gone = [row.id for row in old if row.id not in needed]
        session.execute(delete(UploadRow).where(UploadRow.id.in_(gone)))
    folder = data / UPLOADS
    _drop_unnamed(database, [*folder.glob("??/*"), *folder.glob(".*")])
    return len(gone)


def drop_old_jobs(database: Database, data: Path, before: datetime) -> int:
    """Delete jobs that ended before a moment, and all of people who have left, with their files; how many."""
    left = select(User.id).where(User.deleted_at.is_not(None))
    over = JobRow.state.in_(FINAL)
    old = select(JobRow.id).where(over, or_(JobRow.ended_at < before, JobRow.owner_id.in_(left))).limit(_AT_ONCE)
    with database.writing() as session:
        gone = session.scalars(old).all()
        _delete(session, gone)
    for job_id in gone:
        shutil.rmtree(job_folder(data, job_id), ignore_errors=True)
    return len(gone)


def erase_work_of(database: Database, data: Path, user_id: str) -> None:
    """Delete somebody's jobs with their files, and his uploads; a job that runs is stopped, and goes later."""
    with database.writing() as session:
        jobs = session.scalars(select(JobRow).where(JobRow.owner_id == user_id).with_for_update()).all()
        gone = [job.id for job in jobs if job.state != "running"]
        for job in jobs:
            job.cancel_at = job.cancel_at or now()
        session.flush()
        _delete(session, gone)
        uploads = session.scalars(select(UploadRow).where(UploadRow.owner_id == user_id)).all()
        session.execute(delete(UploadRow).where(UploadRow.owner_id == user_id))
        hashes = {row.hash for row in uploads}
    for job_id in gone:
        shutil.rmtree(job_folder(data, job_id), ignore_errors=True)
    _drop_unnamed(database, [upload_path(data, hash_) for hash_ in hashes])


def days_ago(days: float) -> datetime:
    """The moment so many days ago; long before anything where they are 0."""
    return now() - timedelta(days=days) if days else now() - timedelta(days=36500)


def _delete(session: Session, job_ids: Collection[str]) -> None:
    session.execute(delete(JobEventRow).where(JobEventRow.job_id.in_(job_ids)))
    session.execute(delete(JobRow).where(JobRow.id.in_(job_ids)))


def _drop_unnamed(database: Database, paths: list[Path]) -> None:
    """Remove the files that no row names and that are not young."""
    old = [path for path in paths if _is_old(path)]
    for start in range(0, len(old), _AT_ONCE):
        part = {path.name: path for path in old[start : start + _AT_ONCE]}
        with database.reading() as session:
            named = set(session.scalars(select(UploadRow.hash).where(UploadRow.hash.in_(part))))
        for name in part.keys() - named:
            if _is_old(part[name]):  # the same bytes may have come in meanwhile
                part[name].unlink(missing_ok=True)


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > GRACE_S
    return False
