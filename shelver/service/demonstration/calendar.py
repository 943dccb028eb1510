"""When somebody asks in the demo's weeks: more on working days than at weekends, more by day than at night."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from random import Random
from typing import Final

DAYS: Final = 42
_WEEKDAYS: Final = (1.0, 0.95, 1.05, 1.1, 0.9, 0.5, 0.35)
"""How much is asked on each, from Monday on."""
_GROWTH: Final = 0.5
"""So much more is asked at the end than in the beginning."""
_HOURS: Final = (0, 0, 0, 0, 0, 0, 1, 3, 6, 9, 10, 9, 6, 7, 9, 9, 8, 6, 5, 6, 7, 5, 3, 1)
_NIGHTLY: Final = time(2, 10)
_PAUSE: Final = timedelta(minutes=15)
"""Between the last moment of the weeks and now: everything that follows a visit lies in the past too."""


def days_until(now: datetime) -> list[datetime]:
    """The midnights of the demo's days, the last one today."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [today - timedelta(days=DAYS - 1 - day) for day in range(DAYS)]


def visits_by_day(rng: Random, now: datetime, n: int) -> list[list[datetime]]:
    """The moments of n visits, those of each day in their order; none is later than `_PAUSE` ago."""
    days = days_until(now)
    weights = []
    for number, day in enumerate(days):
        growth = 1 + _GROWTH * number / (len(days) - 1)
        weights.append(_WEEKDAYS[day.weekday()] * growth * rng.uniform(0.8, 1.2))
    found: list[list[datetime]] = [[] for _ in days]
    for number in rng.choices(range(len(days)), weights, k=n):
        hour = rng.choices(range(24), _HOURS)[0]
        moment = days[number] + timedelta(hours=hour, seconds=rng.uniform(0, 3600))
        found[number].append(_not_yet(rng, moment, now))
    return [sorted(moments) for moments in found]


def nights(now: datetime, n: int) -> list[list[datetime]]:
    """The moments of n rows of a feed that comes each night, one after the other, by day."""
    days = days_until(now)
    found: list[list[datetime]] = [[] for _ in days]
    for number in range(n):
        day = number % (len(days) - 1)  # last night's has not come yet where it is early in the morning
        moment = datetime.combine(days[day], _NIGHTLY, days[day].tzinfo)
        found[day].append(moment + timedelta(seconds=2 * len(found[day])))
    return found


def lately(rng: Random, now: datetime, days: float) -> datetime:
    """A moment of the last days, when people are awake."""
    while True:
        moment = now - _PAUSE - timedelta(days=rng.uniform(0, days))
        if rng.random() * max(_HOURS) < _HOURS[moment.hour]:
            return moment


def working_hours(rng: Random, day: datetime, now: datetime) -> datetime:
    """A moment of a reviewer's morning."""
    return _not_yet(rng, day + timedelta(hours=9, seconds=rng.uniform(0, 3 * 3600)), now)


def _not_yet(rng: Random, moment: datetime, now: datetime) -> datetime:
    """The moment, or where it has not come yet another one of the hours before now."""
    latest = now - _PAUSE
    return moment if moment < latest else latest - timedelta(seconds=rng.uniform(0, 6 * 3600))
