"""Jobs: what waits, what is at work and how far it came, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.jobs import routes
from shelver.service.jobs.payloads import FINAL, KINDS, JobFilters, JobRead, Kind, MappingIn, State
from shelver.service.jobs.waiting import latest_events, nobody_works
from shelver.service.pages.locales import Words, mark, words_of
from shelver.service.pages.render import page, redirect
from shelver.service.tables.accounts import User

router = APIRouter()
People = Annotated[Identity, allowed("seller", "reviewer", "admin")]
Cursor = Annotated[str | None, Query(max_length=200)]
_AT_ONCE: Final = 25
_OPEN: Final = ("queued", "running")
_RESULTS: Final = {
    "model_version": mark("Model"),
    "catalog": mark("Catalog"),
    "split": mark("Split"),
    "policy": mark("Policy"),
    "n": mark("Products scored"),
    "n_rows": mark("Rows read"),
    "n_products": mark("Products"),
    "n_imported": mark("Products imported"),
    "n_added": mark("Products added"),
    "n_replaced": mark("Products replaced"),
    "n_skipped": mark("Products left as they were"),
    "n_rejected": mark("Rows refused"),
    "n_errors": mark("Rows without an answer"),
    "n_stored": mark("Stored products with a category"),
    "n_stored_used": mark("of which used"),
    "n_catalog": mark("Products of the catalog"),
    "n_unlabelled": mark("Products without a category"),
    "accuracy": mark("Accuracy"),
    "weighted_f1": mark("Weighted F1"),
    "hierarchical_f1": mark("Hierarchical F1"),
    "ece": mark("Calibration error"),
}
_LEFT_OUT: Final = frozenset({"sha256", "taxonomy_version", "catalog_version"})
_SHARES: Final = frozenset({"accuracy", "weighted_f1", "hierarchical_f1"})


@router.get("/jobs", include_in_schema=False)
def show_jobs(
    request: Request,
    session: SessionDep,
    identity: People,
    kind: Annotated[str, Query(max_length=40)] = "",
    state: Annotated[str, Query(max_length=40)] = "",
    after: Cursor = None,
) -> Response:
    """One's own jobs, newest first; reviewers and administrators see everybody's."""
    chosen_kind: Kind | None = kind if kind in KINDS else None
    chosen_state: State | None = state if state in (*_OPEN, *FINAL) else None
    filters = JobFilters(kind=chosen_kind, state=chosen_state, after=after, limit=_AT_ONCE)
    found = routes.list_jobs(filters, session, identity)
    query = {name: value for name, value in (("kind", chosen_kind), ("state", chosen_state)) if value}
    owners = {job.owner_id for job in found.items}
    return page(
        request,
        "jobs.html",
        items=found.items,
        names=dict(session.execute(select(User.id, User.name).where(User.id.in_(owners))).all()),
        following=found.next,
        first=after is None,
        query=query,
        kind=chosen_kind or "",
        state=chosen_state or "",
        scores={job.id: score for job in found.items for score in [_score(job)] if score is not None},
        going=any(job.state in _OPEN for job in found.items),
        nobody=nobody_works(session),
    )


@router.get("/jobs/{job_id}", include_in_schema=False)
def show_job(request: Request, job_id: routes.JobId, session: SessionDep, identity: People) -> Response:
    """A job: how far it came, what came of it, or why it failed and what to do."""
    job = routes.read_job(job_id, session, identity)
    owner = session.get(User, job.owner_id)
    going = job.state in _OPEN
    return page(
        request,
        "job.html",
        job=job,
        owner="" if owner is None else owner.name,
        events=latest_events(session, job.id),
        asked=asked_rows(job),
        results=result_rows(words_of(request), job),
        model=(job.result or {}).get("model_version") if job.kind in ("train", "evaluate") else None,
        going=going,
        may_cancel=going and not job.cancel_requested and identity.role in ("seller", "admin"),
        nobody=going and nobody_works(session),
    )


@router.post("/jobs/{job_id}/cancel", include_in_schema=False)
def cancel_job(
    job_id: routes.JobId, session: SessionDep, identity: Annotated[Identity, allowed("seller", "admin")]
) -> Response:
    """Stop a job."""
    job = routes.cancel_job(job_id, session, identity)
    return redirect(f"/jobs/{job.id}", done="job-cancelled")


def asked_rows(job: JobRead) -> list[tuple[str, str]]:
    """What was asked of a job, without what nobody chose."""
    usual = dict(_flat(MappingIn().model_dump(), "mapping."))
    return [
        (name, str(value)[:300])
        for name, value in _flat(job.params)
        if name != "kind" and value is not None and usual.get(name) != value
    ]


def result_rows(_: Words, job: JobRead) -> list[tuple[str, str]]:
    """What came of a job, as names and values for people; what they hold no name for keeps its own."""
    rows = []
    for name, value in _flat(job.result or {}):
        last = name.rsplit(".", 1)[-1]
        if value is None or last in _LEFT_OUT or name.startswith("columns."):
            continue
        if last in _SHARES and isinstance(value, float):
            said = _.percent(value, 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            said = _.number(value, 0 if isinstance(value, int) else 4)
        else:
            said = str(value)
        part = name.rpartition(".")[0]
        label = _(_RESULTS[last]) + (f" ({part})" if part else "") if last in _RESULTS else name
        rows.append((label, said[:1000]))
    return rows


def _score(job: JobRead) -> float | None:
    """How good the model is that a training made or an evaluation looked at."""
    result = job.result or {}
    found = result.get("accuracy", (result.get("test") or {}).get("accuracy"))
    return found if job.kind in ("train", "evaluate") and isinstance(found, float) else None


def _flat(result: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """`{"test": {"n": 3}}` → `[("test.n", 3)]`; long lists are cut."""
    rows: list[tuple[str, Any]] = []
    for name, value in result.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            rows.append((before + name, ", ".join(str(one) for one in value[:5]) or None))
        else:
            rows.append((before + name, value))
    return rows
