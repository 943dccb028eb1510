"""The pictures of reports and pages: numbers in, the text of one `<svg>` element out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shelver.errors import ShapeError
from shelver.plots.svg import INK, Draw, drawn, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#b8609a", "#a6761d", "#5a7bd8")
"""Three of Okabe and Ito's colours, and three like them; all have a contrast of 3 to white and to near-black."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
"""Whoever sees no colours at all tells the curves apart by these."""
MAX_LABEL_CHARS: Final = 32
MANY_NAMES: Final = 20
"""A matrix of more names is drawn smaller."""

_BESIDE: Final = (
    *((0.0, 10.0), (0.0, -10.0), (-11.0, 0.0), (11.0, 0.0), (-9.0, 9.0), (-9.0, -9.0)),
    *((0.0, -20.0), (-22.0, 0.0), (-18.0, -14.0), (-18.0, 14.0)),
)
_ENOUGH_PT: Final = 10.0

Points = tuple[Sequence[float], Sequence[float]]


def bars(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    n: Sequence[int] | None = None,
) -> str:
    """Groups of horizontal bars between 0 and 1, a group a label, a bar a series.

    Args:
        labels: names of the G groups, the first on top.
        series: G values for each name; None leaves the bar out.
        title: read aloud, not drawn.
        n: products in each group, drawn beside its name.

    Raises:
        ShapeError: a series has another number of values than there are labels.
        MissingExtraError: matplotlib is not installed.
    """
    for name, values in series.items():
        _same_length(f"series {name!r}", values, labels)
    height = 0.8 / max(len(series), 1)

    def draw(axes: Axes) -> None:
        place = np.arange(len(labels))
        for i, (name, values) in enumerate(series.items()):
            at = place + (i - (len(series) - 1) / 2) * height
            axes.barh(
                at, [value or 0.0 for value in values], height * 0.9, color=PALETTE[i % len(PALETTE)], label=name
            )
            for y, value in zip(at.tolist(), values, strict=True):
                if value is not None:
                    axes.text(value + 0.008, y, f"{value:.3f}", va="center", fontsize=7.5)
        names = [short(label) for label in labels]
        if n is not None:
            names = [f"{name} ({count:,})" for name, count in zip(names, n, strict=True)]
        axes.set_yticks(place, names)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, 1.06)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        _legend(axes, len(series))

    described = "; ".join(
        f"{label}: " + ", ".join(f"{name} {_said(values[i])}" for name, values in series.items())
        for i, label in enumerate(labels)
    )
    tall = 0.55 + len(labels) * (0.16 + 0.17 * len(series))
    return drawn([draw], title, described, size=(6.4, tall))


def reliability(curves: Mapping[str, Points], *, title: str, heading: str = "", side: float = 4.2) -> str:
    """Accuracy over confidence; on the diagonal a confidence is honest.

    Args:
        curves: for each name the mean confidence and the accuracy of B bins, each of shape (B,), in [0, 1].
        title: read aloud, not drawn.
        heading: drawn in the picture, where there are several side by side.
        side: of the square, in inches of 96 px.

    Raises:
        ShapeError: confidences and accuracies of one curve differ in number.
        MissingExtraError: matplotlib is not installed.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.45, linewidth=1, linestyle="--")
        _lines(axes, curves)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="confidence", ylabel="accuracy")
        axes.set_aspect("equal")
        axes.text(0.97, 0.04, "too sure", ha="right", alpha=0.6, fontsize=8)
        axes.text(0.03, 0.95, "too modest", alpha=0.6, fontsize=8)
        if heading:
            axes.text(0.97, 0.13, heading, ha="right", fontsize=9.5, fontweight="bold")

    return drawn([draw], title, _described(curves, "confidence", "accuracy"), size=(side, side))


def selective(
    curves: Mapping[str, Points], *, title: str, points: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """Accuracy over coverage, when only the most confident answers are given.

    Args:
        curves: for each name the coverage, rising, and the accuracy there, each of shape (P,), in [0, 1].
        title: read aloud, not drawn.
        points: coverage and precision by a short name that is drawn beside the mark, such as a number in a table.

    Raises:
        ShapeError: coverages and accuracies of one curve differ in number.
        MissingExtraError: matplotlib is not installed.
    """
    points = points or {}

    def draw(axes: Axes) -> None:
        _lines(axes, curves, every=6)
        heights = [value for _, values in curves.values() for value in values] + [y for _, y in points.values()]
        # Round down to a tenth with room below, so that differences between good models show.
        bottom = max(0.0, np.floor(min(heights, default=0.0) * 10 - 0.2) / 10)
        axes.set(xlim=(0, 1.02), ylim=(bottom, 1 + 0.05 * (1 - bottom)))
        places = [(x, (y - bottom) / (1 - bottom)) for x, y in points.values()]
        for name, (x, y), away in zip(points, points.values(), _apart(places, 290, 200), strict=True):
            axes.plot([x], [y], color=INK, marker="o", markersize=6.5, markerfacecolor="none", linestyle="none")
            axes.annotate(
                short(name),
                (x, y),
                xytext=away,
                textcoords="offset points",
                ha="center",
                va="center",
                fontweight="bold",
            )
        axes.set(xlabel="coverage: share of the products decided", ylabel="precision: share of them that is right")

    described = _described(curves, "coverage", "accuracy")
    marks = [f"{name}: precision {y:.3f} at coverage {x:.3g}" for name, (x, y) in points.items()]
    return drawn([draw], title, "; ".join([described, *marks] if described else marks), size=(4.9, 3.9))


def risk_coverage(curves: Mapping[str, Points], *, title: str, best: Points | None = None) -> str:
    """Risk over coverage: the share of wrong answers among the most confident ones.

    Args:
        curves: for each name the coverage, rising, and the risk there, each of shape (P,), in [0, 1].
        title: read aloud, not drawn.
        best: what the best order of the first curve's answers would give, dashed.

    Raises:
        ShapeError: coverages and risks of one curve differ in number.
        MissingExtraError: matplotlib is not installed.
    """

    def draw(axes: Axes) -> None:
        _lines(axes, curves, every=6)
        if best is not None:
            axes.plot(*best, color=PALETTE[0], linewidth=1, linestyle="--")
        axes.set(xlim=(0, 1.02))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="coverage: share of the products answered", ylabel="risk: share of them that is wrong")

    return drawn([draw], title, _described(curves, "coverage", "risk"), size=(4.9, 3.9))


def confusion_matrix(
    names: Sequence[str], matrix: Sequence[Sequence[int]], *, title: str, n_true: Sequence[int] | None = None
) -> str:
    """Who is taken for whom; a row a true name, a column a predicted one, shares of the row as tints.

    Args:
        names: of the M rows and columns.
        matrix: counts, shape (M, M).
        title: read aloud, not drawn.
        n_true: what a row's shares are of; the sum of the row by default.

    Raises:
        ShapeError: the matrix is not (M, M).
        MissingExtraError: matplotlib is not installed.
    """
    counts = np.asarray(matrix, np.float64).reshape(len(matrix), -1)
    if counts.shape != (len(names), len(names)):
        raise ShapeError(
            f"a matrix of shape {counts.shape}",
            allowed=f"({len(names)}, {len(names)}), a row and a column for each name",
            remedy="Pass one name for each row.",
        )
    totals = np.maximum(counts.sum(axis=1) if n_true is None else np.asarray(n_true, np.float64), 1)
    share = counts / totals[:, None]

    many = len(names) > MANY_NAMES
    cell, letters = (0.155, 5.2) if many else (0.29, 7.5)

    def draw(axes: Axes) -> None:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = PALETTE[0] if i == j else PALETTE[1]
            # A mistake of a few per cent must show beside a diagonal near one.
            tint = 0.12 + 0.5 * (share[i, j] if i == j else min(1.0, share[i, j] ** 0.5 * 1.6))
            axes.add_patch(_square(int(j), int(i), colour, tint))
            axes.text(j, i, f"{int(counts[i, j])}", ha="center", va="center", fontsize=letters)
        place = np.arange(len(names))
        axes.set_yticks(place, [f"{short(name)}  {i}" for i, name in enumerate(names, start=1)])
        axes.set_xticks(place, [str(i) for i in range(1, len(names) + 1)])
        if many:
            axes.tick_params(labelsize=6.5)
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("decided")
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.set_aspect("equal")
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    wrong = [(counts[i, j], i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i, j]]
    described = "; ".join(
        f"{short(names[i])} decided as {short(names[j])}: {int(n)}"
        for n, i, j in sorted(wrong, key=lambda one: -one[0])[:10]
    )
    side = 0.6 + cell * len(names)
    return drawn([draw], title, described or "no mistakes among these", size=(side + (2.0 if many else 2.8), side))


def learning(panels: Mapping[str, Mapping[str, Points]], *, title: str, x_label: str = "epoch") -> str:
    """Curves over the time of training, a panel a quantity, side by side.

    Args:
        panels: for each quantity the curves by name: times and values, each of shape (P,).
        title: read aloud, not drawn.
        x_label: what the times are.

    Raises:
        ShapeError: times and values of one curve differ in number.
        MissingExtraError: matplotlib is not installed.
    """

    def panel(quantity: str, curves: Mapping[str, Points]) -> Draw:
        def draw(axes: Axes) -> None:
            _lines(axes, curves)
            axes.set(xlabel=x_label, ylabel=quantity if len(curves) > 1 else f"{quantity}, {next(iter(curves))}")

        return draw

    described = ". ".join(
        f"{quantity}: {_described(curves, x_label, quantity)}" for quantity, curves in panels.items()
    )
    draws = [panel(quantity, curves) for quantity, curves in panels.items()]
    return drawn(draws, title, described, size=(3.7 * max(len(panels), 1), 2.9))


def short(name: str, *, max_chars: int = MAX_LABEL_CHARS) -> str:
    """A name that fits beside an axis and holds nothing unprintable; of a path, its last parts."""
    name = printable(name[-10 * max_chars :]).strip()
    parts = name.split(" > ")
    while len(parts) > 1 and len(" > ".join(parts)) > max_chars:
        parts = parts[1:]
    name = " > ".join(parts)
    return name if len(name) <= max_chars else name[: max_chars - 1].rstrip() + "…"


def _lines(axes: Axes, curves: Mapping[str, Points], *, every: int = 1) -> None:
    for i, (name, (x, y)) in enumerate(curves.items()):
        _same_length(f"curve {name!r}", y, x)
        axes.plot(
            x, y, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)], label=name, markevery=every
        )
    axes.grid(visible=True)
    _legend(axes, len(curves))


def _apart(places: Sequence[tuple[float, float]], width_pt: float, height_pt: float) -> list[tuple[float, float]]:
    """Where to write beside each point, in typographic points from it, so that near points' names do not meet.

    Args:
        places: x and y of each point as shares of the axes.
        width_pt, height_pt: about the size of the axes.
    """
    marks = [(x * width_pt, y * height_pt) for x, y in places]
    taken = list(marks)
    found = []
    for own, (x, y) in enumerate(marks):
        others = [place for i, place in enumerate(taken) if i != own]
        room = [
            min((float(np.hypot(x + dx - a, y + dy - b)) for a, b in others), default=np.inf) for dx, dy in _BESIDE
        ]
        # The first place that has enough room, or the one with the most.
        best = _BESIDE[int(np.argmax(np.minimum(room, _ENOUGH_PT)))]
        taken.append((x + best[0], y + best[1]))
        found.append(best)
    return found


def _legend(axes: Axes, n: int) -> None:
    if n > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(n, 4), borderaxespad=0.2, handlelength=1.4
        )


def _square(x: int, y: int, colour: str, tint: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, alpha=tint, linewidth=0)


def _same_length(what: str, values: Sequence[Any], other: Sequence[Any]) -> None:
    if len(values) != len(other):
        raise ShapeError(
            f"{what} with {len(values)} values for {len(other)} places",
            allowed="one value for each place",
            remedy="Pass sequences of one length.",
        )


def _said(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _described(curves: Mapping[str, Points], x_name: str, y_name: str) -> str:
    ends = [
        f"{name}: {y_name} {y[0]:.3f} at {x_name} {x[0]:.3g}, {y[-1]:.3f} at {x[-1]:.3g}"
        for name, (x, y) in curves.items()
        if len(x)
    ]
    return "; ".join(ends)
