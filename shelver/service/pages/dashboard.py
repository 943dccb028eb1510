"""The dashboard: how much is asked, how fast and how well it is answered, and what people said of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

from babel.dates import format_date, format_time
from fastapi import APIRouter, Query, Request, Response

from shelver.errors import ShelverError
from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.jobs.waiting import nobody_works
from shelver.service.pages import charts
from shelver.service.pages.locales import Words, mark, words_of
from shelver.service.pages.render import page
from shelver.service.problems import ServiceError
from shelver.service.records.labelled import LabelledFilters, list_labelled
from shelver.service.records.payloads import Figure, QualityOut
from shelver.service.records.quality import QualityFilters, read_quality
from shelver.service.records.traffic import (
    MAX_RANGE,
    TrafficFilters,
    TrafficOut,
    most_doubtful,
    read_traffic,
    slowest,
)
from shelver.service.state import Service, ServiceDep

DAYS: Final = (7, 30, 90)
N_LABELLED: Final = 12
N_LISTED: Final = 6
_BY_DAY: Final = timedelta(days=14)
_OUTCOMES: Final = {
    "decided": mark("Decided"),
    "suggested": mark("Only suggested"),
    "review": mark("Sent to review"),
    "abstained": mark("Abstained"),
    "outside": mark("Outside the catalog"),
    "error": mark("Nothing to answer from"),
}
_MODALITIES: Final = {
    "text": mark("Text alone"),
    "image": mark("Picture alone"),
    "both": mark("Text and picture"),
    "none": mark("Neither"),
}
READERS: Final = [allowed("reviewer", "admin")]
router = APIRouter(dependencies=READERS)
Day = Annotated[str, Query(max_length=20)]


@dataclass(frozen=True)
class Range:
    """The time that a page shows.

    Attributes:
        start, end: from this moment on, and before that one.
        days: of the choices 7, 30 and 90; None where somebody named dates.
        first, last: the days that he named, or that the choice has.
        wrong: what is wrong with what was asked; then it is the last 30 days.
    """

    start: datetime
    end: datetime
    days: int | None
    first: date
    last: date
    wrong: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The same as parts of an address."""
        if self.days is not None:
            return {"days": str(self.days)}
        return {"from": self.first.isoformat(), "to": self.last.isoformat()}


def range_asked(_: Words, days: str, first: str, last: str) -> Range:
    """The time that an address asks for: so many days up to now, or from one day to another; days are whole."""
    now = datetime.now(UTC)
    wrong = ""
    if first or last:
        try:
            begin = date.fromisoformat(first) if first else date.fromisoformat(last) - timedelta(days=29)
            end = date.fromisoformat(last) if last else now.date()
            if not timedelta(0) <= end - begin < MAX_RANGE or not 1971 <= begin.year <= 8999:
                wrong = _("Choose a last day that is not before the first, and at most a year.")
            else:
                start = datetime.combine(begin, time(), UTC)
                return Range(start, datetime.combine(end, time(), UTC) + timedelta(days=1), None, begin, end)
        except (ValueError, OverflowError):
            wrong = _("Write days like 2026-11-21.")
    chosen = int(days) if days in map(str, DAYS) else 30
    begin = now.date() - timedelta(days=chosen - 1)
    return Range(datetime.combine(begin, time(), UTC), now, chosen, begin, now.date(), wrong)


@router.get("/dashboard", include_in_schema=False)
def show_dashboard(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    days: Day = "",
    first: Annotated[str, Query(alias="from", max_length=20)] = "",
    last: Annotated[str, Query(alias="to", max_length=20)] = "",
) -> Response:
    """Traffic, latency and quality of a range of time."""
    _ = words_of(request)
    asked = range_asked(_, days, first, last)
    moments: dict[str, Any] = {"from": asked.start, "to": asked.end}
    traffic = read_traffic(TrafficFilters.model_validate(moments), session)
    quality = labelled = None
    if _answers(service):
        by = "day" if asked.end - asked.start <= _BY_DAY else "week"
        quality = read_quality(QualityFilters.model_validate(moments | {"by": by}), session, service)
        latest = LabelledFilters.model_validate(moments | {"limit": N_LABELLED})
        labelled = list_labelled(latest, session, service).items
    return page(
        request,
        "dashboard.html",
        status=422 if asked.wrong else 200,
        asked=asked,
        choices=DAYS,
        traffic=traffic,
        quality=quality,
        labelled=labelled,
        charts=_charts(_, traffic, quality),
        slices=_slices(_, traffic),
        slowest=slowest(session, asked.start, asked.end, N_LISTED),
        doubtful=most_doubtful(session, asked.start, asked.end, N_LISTED),
        outcomes=_OUTCOMES,
        nobody=nobody_works(session),
    )


@router.get("/dashboard/labelled", include_in_schema=False)
def show_labelled(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    days: Day = "",
    first: Annotated[str, Query(alias="from", max_length=20)] = "",
    last: Annotated[str, Query(alias="to", max_length=20)] = "",
    only: Annotated[str, Query(max_length=20)] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Predicted against true, page by page."""
    asked = range_asked(words_of(request), days, first, last)
    right = {"right": True, "wrong": False}.get(only)
    said = {"from": asked.start, "to": asked.end, "right": right, "after": after, "limit": 50}
    filters = LabelledFilters.model_validate(said)
    found = list_labelled(filters, session, service)
    query = asked.query | ({"only": only} if right is not None else {})
    return page(
        request,
        "labelled.html",
        asked=asked,
        only=only if right is not None else "",
        labelled=found.items,
        following=found.next,
        first=after is None,
        query=query,
    )


def _answers(service: Service) -> bool:
    try:
        service.models.current()
    except (ServiceError, ShelverError):
        return False
    return True


def _slices(_: Words, traffic: TrafficOut) -> list[tuple[str, str, list[tuple[str, Any]]]]:
    """The parts of the traffic: what they are parts by, where a part leads to, and the parts."""
    modalities = [
        (_(_MODALITIES[name]) if name in _MODALITIES else name, one) for name, one in traffic.by_modality.items()
    ]
    return [
        (_("By what there was to answer from"), "", modalities),
        (_("By policy"), "", list(traffic.by_policy.items())),
        (_("By model"), "/models/", list(traffic.by_model_version.items())),
    ]


def _charts(_: Words, traffic: TrafficOut, quality: QualityOut | None) -> list[charts.Chart]:
    places = [_period(_, one.start, traffic.every) for one in traffic.periods]
    known = [name for name in _OUTCOMES if name in traffic.outcomes]
    known += sorted(set(traffic.outcomes) - set(known))
    x_name = _("Hour") if traffic.every == "hour" else _("Day")
    asked = [
        charts.Series(
            _(_OUTCOMES[name]) if name in _OUTCOMES else name,
            [one.outcomes.get(name, 0) for one in traffic.periods],
        )
        for name in known
    ]
    found = [
        charts.stacked(
            _("Predictions"),
            _("How many predictions were made, by how they ended. Times are UTC."),
            x_name,
            places,
            asked,
            _.compact,
        ),
        charts.lines(
            _("Latency in milliseconds"),
            _("Half of the predictions took at most p50, 95 of 100 at most p95, 99 of 100 at most p99."),
            x_name,
            places,
            [
                charts.Series(
                    name,
                    [
                        None if one.latency is None else getattr(one.latency, f"{name}_ms")
                        for one in traffic.periods
                    ],
                )
                for name in ("p50", "p95", "p99")
            ],
            _.compact,
        ),
    ]
    if quality is not None and quality.slices:
        names = _without_gaps(quality.slices, by_week=quality.by == "week")
        known_of = [quality.slices.get(name) for name in names]
        found.append(
            charts.lines(
                _("Quality over time"),
                _("Shares of what people judged, by when it was predicted; the areas are 95 % intervals."),
                _("Week from") if quality.by == "week" else _("Day"),
                [_slice_name(_, name) for name in names],
                [
                    _series(_("Accuracy"), [None if one is None else one.accuracy for one in known_of]),
                    _series(_("Acceptance"), [None if one is None else one.acceptance for one in known_of]),
                ],
                _.percent,
                share=True,
            )
        )
    return found


def _series(name: str, figures: Sequence[Figure | None]) -> charts.Series:
    return charts.Series(
        name,
        [None if one is None else one.value for one in figures],
        [None if one is None else one.low for one in figures],
        [None if one is None else one.high for one in figures],
    )


def _without_gaps(names: Iterable[str], *, by_week: bool) -> list[str]:
    """All days or weeks from the first to the last, also those in which nothing was judged."""
    days = sorted(_day_of(name) for name in names)
    step = 7 if by_week else 1
    found = [days[0] + timedelta(days=n) for n in range(0, (days[-1] - days[0]).days + 1, step)]
    return ["{}-W{:02}".format(*day.isocalendar()) if by_week else day.isoformat() for day in found]


def _day_of(name: str) -> date:
    """A day such as 2026-11-21, or the first day of a week such as 2026-W47."""
    return date.fromisoformat(name if "W" not in name else f"{name}-1")


def _slice_name(_: Words, name: str) -> str:
    return str(format_date(_day_of(name), "d MMM", locale=_.language))


def _period(_: Words, start: datetime, every: str) -> str:
    if every == "hour":
        return str(format_time(start.time(), "HH:mm", locale=_.language))
    return str(format_date(start.date(), "d MMM", locale=_.language))
