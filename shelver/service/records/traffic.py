"""What was asked in a range of time, how it was answered and how fast; /v1/traffic.

A prediction is *decided* where its policy named a node; coverage is their share, without those that had nothing to
answer from. Days and hours are those of UTC. Latencies are from a request's arrival to its answer: their quantiles
are the smallest latency that so many predictions did not exceed, to two digits.

The database counts, in two scans of the range, and gives some thousand rows whatever the number of predictions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, case, extract, func, select
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.paging import Moment
from shelver.service.problems import ServiceError, responses
from shelver.service.records.intervals import shares
from shelver.service.records.payloads import Figure, LoggedPrediction
from shelver.service.tables.records import PredictionRow

Every = Literal["hour", "day"]
RECENT: Final = timedelta(days=30)
MAX_RANGE: Final = timedelta(days=366)
MAX_HOURS: Final = timedelta(days=14)
"""Longer ranges are shown by day."""
QUANTILES: Final = (0.5, 0.95, 0.99)
MAX_NAMED: Final = 50
"""Policies and models with fewer predictions are left out."""
router = APIRouter(tags=["predictions"])


class TrafficFilters(BaseModel):
    """Which predictions are meant: those of the last 30 days where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])
    every: Every | None = Field(
        default=None,
        description="Hours for up to 14 days; without it, hours for up to two days.",
        examples=["day"],
    )


class Latency(BaseModel):
    """Quantiles of the latency."""

    p50_ms: float = Field(examples=[11.2])
    p95_ms: float = Field(examples=[38.5])
    p99_ms: float = Field(examples=[112.0])


class Period(BaseModel):
    """The predictions of an hour or a day."""

    start: datetime
    n: int = Field(examples=[412])
    n_decided: int = Field(examples=[371])
    outcomes: dict[str, int] = Field(examples=[{"decided": 371, "review": 41}])
    latency: Latency | None = Field(description="None where there was no prediction.")


class Slice(BaseModel):
    """The predictions of one model, say."""

    n: int = Field(examples=[412])
    n_decided: int = Field(examples=[371])
    coverage: Figure | None


class TrafficOut(BaseModel):
    """The predictions of a range of time."""

    model_config = ConfigDict(protected_namespaces=())

    start: datetime
    end: datetime
    every: Every
    n: int = Field(examples=[412])
    coverage: Figure | None = Field(description="Decided, of those that had something to answer from.")
    latency: Latency | None
    outcomes: dict[str, int] = Field(examples=[{"decided": 371, "review": 41}])
    periods: list[Period] = Field(description="All of the range, oldest first; those without a prediction too.")
    by_modality: dict[str, Slice] = Field(description='"none" had nothing to answer from.')
    by_policy: dict[str, Slice] = Field(description="At most 50, those with the most predictions first.")
    by_model_version: dict[str, Slice] = Field(description="Likewise.")


@router.get(
    "/v1/traffic",
    summary="Traffic, coverage and latency",
    dependencies=[allowed("reviewer", "admin")],
    responses=responses("invalid_input"),
)
def read_traffic(filters: Annotated[TrafficFilters, Query()], session: SessionDep) -> TrafficOut:
    """Predictions by hour or day, outcome, modality, policy and model, with coverage and latency."""
    start, end = range_of(filters.start, filters.end)
    every = filters.every or ("hour" if end - start <= timedelta(days=2) else "day")
    if every == "hour" and end - start > MAX_HOURS:
        raise ServiceError(
            "invalid_input",
            f"{(end - start).days} days by the hour",
            allowed=f"at most {MAX_HOURS.days} days",
            remedy="Ask for a shorter time, or by day.",
        )
    return traffic(session, start, end, every)


def range_of(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    """The range that is meant: up to now and of 30 days, where nothing is said.

    Raises:
        ServiceError: it ends before it begins, or is longer than a year.
    """
    end = end or datetime.now(UTC)
    start = start or end - RECENT
    if not timedelta(0) < end - start <= MAX_RANGE:
        raise ServiceError(
            "invalid_input",
            f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}",
            allowed=f"a time that ends after it begins, of at most {MAX_RANGE.days} days",
            remedy="Change one of the two, or ask for one year after the other.",
        )
    return start, end


def traffic(session: Session, start: datetime, end: datetime, every: Every) -> TrafficOut:
    """The predictions from one moment to another."""
    when: list[ColumnElement[Any]] = [func.date(PredictionRow.at)]
    if every == "hour":
        when.append(extract("hour", PredictionRow.at))
    n_of: dict[datetime, Counter[str]] = {one: Counter() for one in _periods(start, end, every)}
    by: dict[str, dict[str, Counter[str]]] = {"modality": {}, "policy": {}, "model_version": {}}
    total: Counter[str] = Counter()
    named = [getattr(PredictionRow, name) for name in by]
    asked = _counted([*when, PredictionRow.outcome, *named], start, end)
    for *moment, outcome, modality, policy, model_version, n in session.execute(asked):
        n_of.setdefault(_period(*moment), Counter())[outcome] += n
        total[outcome] += n
        for slice_, name in zip(by.values(), (modality, policy, model_version), strict=True):
            slice_.setdefault("none" if name is None else str(name), Counter())[outcome] += n
    took: dict[datetime, Counter[float]] = {}
    for *moment, milliseconds, n in session.execute(_counted([*when, _rounded()], start, end)):
        took.setdefault(_period(*moment), Counter())[float(milliseconds)] += n
    largest = {name: _largest(counted) for name, counted in by.items()}
    named_counts = [by[name][one] for name, ones in largest.items() for one in ones]
    whole, *rest = _slices([total, *named_counts])
    slices = iter(rest)
    return TrafficOut(
        start=start,
        end=end,
        every=every,
        n=total.total(),
        coverage=whole.coverage,
        latency=_latency(sum(took.values(), Counter())),
        outcomes=dict(total.most_common()),
        periods=[
            Period(
                start=one,
                n=outcomes.total(),
                n_decided=outcomes["decided"],
                outcomes=dict(outcomes.most_common()),
                latency=_latency(took.get(one, Counter())),
            )
            for one, outcomes in sorted(n_of.items())
        ],
        by_modality={name: next(slices) for name in largest["modality"]},
        by_policy={name: next(slices) for name in largest["policy"]},
        by_model_version={name: next(slices) for name in largest["model_version"]},
    )


def slowest(session: Session, start: datetime, end: datetime, n: int = 10) -> list[LoggedPrediction]:
    """The predictions that took longest, the slowest first."""
    return _first(session, start, end, PredictionRow.latency_ms.desc(), n)


def most_doubtful(session: Session, start: datetime, end: datetime, n: int = 10) -> list[LoggedPrediction]:
    """The decided predictions of least confidence, the most doubtful first."""
    sure = PredictionRow.confidence.is_not(None) & PredictionRow.node_id.is_not(None)
    return _first(session, start, end, PredictionRow.confidence.asc(), n, sure)


def _first(
    session: Session, start: datetime, end: datetime, order: Any, n: int, *which: ColumnElement[bool]
) -> list[LoggedPrediction]:
    # Without the answers, which are long: only what is shown is read of those that are sorted.
    columns = [getattr(PredictionRow, name) for name in LoggedPrediction.model_fields]
    rows = select(*columns).where(PredictionRow.at >= start, PredictionRow.at < end, *which)
    found = session.execute(rows.order_by(order, PredictionRow.id).limit(n))
    return [LoggedPrediction.model_validate(row) for row in found]


def _counted(columns: Sequence[Any], start: datetime, end: datetime) -> Select[Any]:
    # By name: PostgreSQL would not see that an expression with a parameter is the same one again.
    named = [one.label(f"part_{i}") for i, one in enumerate(columns)]
    return (
        select(*named, func.count())
        .where(PredictionRow.at >= start, PredictionRow.at < end)
        .group_by(*(one.name for one in named))
    )


def _rounded() -> ColumnElement[float]:
    """Latencies to two digits, so that few are different; every database rounds to whole numbers alike."""
    ms = PredictionRow.latency_ms
    return case(
        (ms < 10, func.round(ms * 10) / 10),
        (ms < 100, func.round(ms)),
        (ms < 1000, func.round(ms / 10) * 10),
        (ms < 10_000, func.round(ms / 100) * 100),
        else_=func.round(ms / 1000) * 1000,
    )


def _periods(start: datetime, end: datetime, every: Every) -> Iterable[datetime]:
    step = timedelta(hours=1) if every == "hour" else timedelta(days=1)
    one = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    one = one if every == "hour" else one.replace(hour=0)
    while one < end:
        yield one
        one += step


def _period(day: date | str, hour: Any = 0) -> datetime:
    # SQLite has no dates, and PostgreSQL's hours are decimals.
    day = date.fromisoformat(day) if isinstance(day, str) else day
    return datetime.combine(day, time(int(hour)), UTC)


def _latency(counts: Mapping[float, int]) -> Latency | None:
    n = sum(counts.values())
    if not n:
        return None
    found: list[float] = []
    seen = 0
    for milliseconds, count in sorted(counts.items()):
        seen += count
        while len(found) < len(QUANTILES) and seen >= math.ceil(QUANTILES[len(found)] * n):
            found.append(milliseconds)
    p50, p95, p99 = found
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99)


def _largest(counted: Mapping[str, Counter[str]]) -> list[str]:
    return sorted(counted, key=lambda name: (-counted[name].total(), name))[:MAX_NAMED]


def _slices(counted: Sequence[Counter[str]]) -> list[Slice]:
    """Each with its coverage."""
    parts = [(outcomes["decided"], outcomes.total() - outcomes["error"]) for outcomes in counted]
    known = shares(parts)
    return [
        Slice(n=outcomes.total(), n_decided=part[0], coverage=known[part])
        for outcomes, part in zip(counted, parts, strict=True)
    ]
