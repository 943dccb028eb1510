"""Simple charts as data: where each line, bar and label stands. `charts.html` draws them as SVG.

Coordinates are numbers of a drawing that is `WIDTH` wide and `HEIGHT` high, whatever size it is shown at. Every
chart carries its numbers as a table, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 400
HEIGHT: Final = 220
LEFT: Final = 44
RIGHT: Final = 8
TOP: Final = 10
BOTTOM: Final = 24
N_X_TICKS: Final = 5
N_Y_TICKS: Final = 4
Say = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """The values of one thing, one for each place on the x axis; None where there is none.

    Attributes:
        name: for the legend.
        values: of each place.
        low, high: the interval around each value, of lines that have one.
    """

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Tick:
    """A label at an axis, and where."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A part of a bar."""

    x: float
    y: float
    width: float
    height: float
    series: int


@dataclass(frozen=True)
class Line:
    """A line, in pieces where values are missing; `bands` is the area of the intervals, `dots` its points."""

    series: int
    pieces: tuple[str, ...]
    bands: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart that is ready to be drawn.

    Attributes:
        title, text: read aloud in its place.
        names: of the series, for the legend.
        x_name: what the x axis counts, heads the table's first column.
        x_ticks, y_ticks: labels of the axes.
        bars, lines: what is drawn.
        rows: the table: the name of each place, and its values as words.
    """

    title: str
    text: str
    names: tuple[str, ...]
    x_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def stacked(
    title: str, text: str, x_name: str, places: Sequence[str], series: Sequence[Series], say: Say
) -> Chart:
    """A bar for each place, made of one part for each series."""
    sums = [math.fsum(one.values[i] or 0 for one in series) for i in range(len(places))]
    ticks = _ticks(0, max(sums, default=0) or 1)
    at = _scale(ticks[0], ticks[-1])
    step = (WIDTH - LEFT - RIGHT) / max(len(places), 1)
    width = max(step * 0.8, min(step, 1.0))
    bars = []
    for i in range(len(places)):
        below = 0.0
        for number, one in enumerate(series):
            value = one.values[i] or 0
            if value:
                y = at(below + value)
                bars.append(
                    Bar(_r(LEFT + step * i + (step - width) / 2), _r(y), _r(width), _r(at(below) - y), number)
                )
                below += value
    return Chart(
        title=title,
        text=text,
        names=tuple(one.name for one in series),
        x_name=x_name,
        x_ticks=_x_ticks(places, lambda i: LEFT + step * (i + 0.5)),
        y_ticks=tuple(Tick(_r(at(one)), say(one)) for one in ticks),
        bars=tuple(bars),
        lines=(),
        rows=_rows(places, series, say),
    )


def lines(
    title: str,
    text: str,
    x_name: str,
    places: Sequence[str],
    series: Sequence[Series],
    say: Say,
    *,
    share: bool = False,
    xs: Sequence[float] | None = None,
    joined: bool = False,
) -> Chart:
    """A line for each series.

    Args:
        title, text, x_name: of the chart.
        places: names of the places on the x axis.
        series: the values, one for each place.
        say: a value in words.
        share: the values are shares, so the axis ends at 1; else it begins at 0.
        xs: where the places are; evenly spaced without it.
        joined: a line goes on over places without a value.
    """
    values = [
        value for one in series for part in (one.values, one.low, one.high) for value in part if value is not None
    ]
    if share:
        ticks = [1 - one for one in _ticks(0, 1 - min([*values, 0.9]))]  # from 1 downwards
        bottom, top = max(ticks[-1], 0.0), 1.0
    else:
        ticks = _ticks(0, max(values, default=0) or 1)
        bottom, top = ticks[0], ticks[-1]
    at = _scale(bottom, top)
    inside = WIDTH - LEFT - RIGHT
    if xs is None:
        xs = range(len(places))
    first, span = min(xs, default=0), (max(xs, default=0) - min(xs, default=0)) or 1

    def x_of(i: int) -> float:
        return LEFT + inside * ((xs[i] - first) / span if len(places) > 1 else 0.5)

    return Chart(
        title=title,
        text=text,
        names=tuple(one.name for one in series),
        x_name=x_name,
        x_ticks=_x_ticks(places, x_of),
        y_ticks=tuple(Tick(_r(at(one)), say(one)) for one in ticks),
        bars=(),
        lines=tuple(_line(number, one, x_of, at, joined=joined) for number, one in enumerate(series)),
        rows=_rows(places, series, say),
    )


def _line(
    number: int, series: Series, x_of: Callable[[int], float], at: Callable[[float], float], *, joined: bool
) -> Line:
    runs: list[list[int]] = [[]]
    for i, value in enumerate(series.values):
        if value is not None:
            runs[-1].append(i)
        elif not joined:
            runs.append([])
    runs = [run for run in runs if run]
    pieces = tuple(_points((x_of(i), at(series.values[i] or 0)) for i in run) for run in runs if len(run) > 1)
    bands = []
    for run in runs if series.low else ():
        known = [i for i in run if series.low[i] is not None and series.high[i] is not None]
        if len(known) > 1:
            there = [(x_of(i), at(series.high[i] or 0)) for i in known]
            back = [(x_of(i), at(series.low[i] or 0)) for i in reversed(known)]
            bands.append(_points([*there, *back]))
    n = sum(map(len, runs))
    shown = [i for run in runs if n <= 40 or len(run) == 1 for i in run]
    dots = tuple((_r(x_of(i)), _r(at(series.values[i] or 0))) for i in shown)
    return Line(number, pieces, tuple(bands), dots)


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_r(x)},{_r(y)}" for x, y in places)


def _rows(places: Sequence[str], series: Sequence[Series], say: Say) -> tuple[tuple[str, tuple[str, ...]], ...]:
    def said(one: Series, i: int) -> str:
        value = one.values[i]
        if value is None:
            return "–"
        if one.low and one.low[i] is not None and one.high[i] is not None:
            return f"{say(value)} ({say(one.low[i] or 0)} – {say(one.high[i] or 0)})"
        return say(value)

    return tuple((place, tuple(said(one, i) for one in series)) for i, place in enumerate(places))


def _scale(bottom: float, top: float) -> Callable[[float], float]:
    high = HEIGHT - TOP - BOTTOM
    return lambda value: TOP + high * (1 - (value - bottom) / (top - bottom))


def _ticks(bottom: float, top: float) -> list[float]:
    """Round numbers from the bottom on until at least the top."""
    rough = (top - bottom) / N_Y_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough * (1 - 1e-9))
    n = math.ceil((top - bottom) / step - 1e-9)
    return [round(bottom + step * i, 10) for i in range(n + 1)]


def _x_ticks(places: Sequence[str], x_of: Callable[[int], float]) -> tuple[Tick, ...]:
    every = max(1, math.ceil(len(places) / N_X_TICKS))
    return tuple(Tick(_r(x_of(i)), places[i]) for i in range(0, len(places), every))


def _r(value: float) -> float:
    return round(value, 1)
