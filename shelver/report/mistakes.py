"""The parts of the page on mistakes: the matrix, siblings with pictures, and the tree down to the products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shelver import plots
from shelver.evaluate import Branch, Report
from shelver.report import words
from shelver.report.markup import cards, figure, folded, paragraph, safe, section, table

BAR_PX: Final = 60
N_OPEN: Final = 6
"""Pairs of siblings that are shown before one asks for more."""
NO_PICTURES: Final[Mapping[str, bytes]] = {}


def confusions(report: Report) -> str:
    """Who is taken for whom."""
    found = report.confusions
    parts = []
    valued = found.by == "value"
    first = "most valuable" if valued else "most frequent"
    if len(found.paths) > 1:
        n_true = [sum(row) + o + u for row, o, u in zip(found.matrix, found.other, found.unanswered, strict=True)]
        parts.append(
            figure(
                plots.confusion_matrix(
                    found.paths, found.matrix, title=f"Confusions of the {first} categories", n_true=n_true
                ),
                f"The {len(found.paths)} {first} categories, the first top left; rows are the truth, columns the "
                "answer, with the same numbers. What is missing in a row was answered with a category that is not "
                "shown." + (" A category is as valuable as its products here together." if valued else ""),
            )
        )
        parts.append(folded("The matrix as a table", _matrix_table(report, n_true)))
    if found.pairs:
        parts.append("<h3>The commonest mistakes</h3>")
        parts.append(
            table(
                ["truth", "answered instead", "products", "of the truth"],
                [
                    [pair.true_path, pair.predicted_path, f"{pair.n:,}", words.shown(pair.share)]
                    for pair in found.pairs
                ],
                n_words=2,
            )
        )
    return section("What is taken for what", *(parts or [paragraph("Not one wrong answer.")]), anchor="confusions")


def _matrix_table(report: Report, n_true: list[int]) -> str:
    found = report.confusions
    rows = []
    for i, path in enumerate(found.paths):
        row = found.matrix[i]
        taken = [(n, j) for j, n in enumerate(row) if j != i and n]
        most = max(taken, key=lambda one: (one[0], -one[1]), default=None)
        rows.append(
            [
                f"{i + 1}  {path}",
                f"{found.paths[most[1]]} ({most[0]:,})" if most else "–",
                f"{n_true[i]:,}",
                words.shown(found.stake[i] if i < len(found.stake) else None),
                words.shown(row[i] / n_true[i] if n_true[i] else None),
                f"{sum(n for n, _ in taken):,}",
                f"{found.other[i]:,}",
                f"{found.unanswered[i]:,}",
            ]
        )
    of_all = "of the value" if found.by == "value" else "of all"
    return table(
        ["truth", "mostly taken for", "products", of_all, "right", "another of these", "others", "no answer"],
        rows,
        n_words=2,
    )


def siblings(report: Report, pictures: Mapping[str, bytes] = NO_PICTURES) -> str:
    """Categories that are taken for the one beside them, with products of both."""
    if not report.siblings:
        return ""
    numbers = table(
        ["truth", "taken for its sibling", "products", "of the truth", "of all that is lost"],
        [
            [
                pair.true_path,
                _last(pair.predicted_path),
                f"{pair.n:,}",
                words.shown(pair.share),
                words.shown(pair.lost),
            ]
            for pair in report.siblings
        ],
        n_words=2,
    )
    parts: list[str] = []
    for pair in report.siblings:
        heading = f"{_last(pair.true_path)}, taken for {_last(pair.predicted_path)}"
        like = ""
        if pair.like:
            name = safe(_last(pair.predicted_path))
            like = f'<p class="note like">These are {name}:</p>{cards(pair.like, pictures)}'
        parts.append(f"<h3>{safe(heading)}</h3>{cards(pair.examples, pictures)}{like}")
    return section(
        "Siblings taken for each other",
        paragraph("Categories of one parent, those that lose the most first, and the surest of these mistakes."),
        numbers,
        *parts[:N_OPEN],
        folded(f"{len(parts) - N_OPEN} more", "".join(parts[N_OPEN:])) if len(parts) > N_OPEN else "",
        anchor="siblings",
    )


def tree(report: Report, pictures: Mapping[str, bytes] = NO_PICTURES) -> str:
    """The branches that lose the most, from level 1 down to wrongly answered products."""
    found = report.tree
    if not found:
        return ""
    below: dict[int | None, list[int]] = {}
    for place, branch in enumerate(found):
        below.setdefault(branch.parent, []).append(place)
    for places in below.values():
        places.sort(key=lambda at: (-found[at].lost, -found[at].n, at))
    worth = "value" if report.values is not None else "products"
    header = "".join(
        f'<span class="n">{safe(name)}</span>'
        for name in ("products", "right", "inside", f"of the {worth}", "of all that is lost")
    )
    first = below.get(None, [])
    nested = "".join(_branch(found, below, place, pictures, is_open=place == first[0]) for place in first)
    return section(
        "The tree and its mistakes",
        paragraph(
            "What truly lies at or below each category, those that lose the most first; open one to see where. "
            "Right: decided exactly. Inside: decided as this category or one below it. At the end of each branch "
            "stand the surest wrong answers."
        ),
        f'<div class="wide"><div class="tree"><div class="branch head"><b>category</b>{header}<span></span></div>'
        f"{nested}</div></div>",
        anchor="tree",
    )


def _branch(
    found: tuple[Branch, ...],
    below: Mapping[int | None, list[int]],
    place: int,
    pictures: Mapping[str, bytes],
    *,
    is_open: bool = False,
) -> str:
    branch = found[place]
    figures = (
        f"{branch.n:,}",
        words.shown(branch.accuracy),
        words.shown(branch.inside),
        words.shown(branch.stake),
        words.shown(branch.lost),
    )
    line = f"<b>{safe(branch.name)}</b>" + "".join(f'<span class="n">{one}</span>' for one in figures)
    line += (
        f'<svg width="{BAR_PX}" height="9" aria-hidden="true"><rect width="{BAR_PX * branch.lost:.1f}" height="9" '
        'class="lost"/></svg>'
    )
    inner = "".join(_branch(found, below, child, pictures) for child in below.get(place, ()))
    if branch.examples:
        inner += cards(branch.examples, pictures)
    if not inner:
        return f'<div class="branch leaf">{line}</div>'
    summary = f'<summary class="branch">{line}</summary>'
    return f'<details{" open" * is_open}>{summary}<div class="in">{inner}</div></details>'


def _last(path: str) -> str:
    return path.rsplit(" > ", 1)[-1]
