"""The part of the page on attributes: how right they are, from what, how honestly, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from shelver import plots
from shelver.calibrate import Modality
from shelver.evaluate import AttributeReport, Report
from shelver.report import words
from shelver.report.markup import figure, folded, paragraph, section, side_by_side_small, table

MAX_DRAWN: Final = 8
"""Attributes with a picture of their own; the others stand in the tables."""
MAX_ROWS: Final = 200
"""Attributes in a table; the others stand in report.json."""
MAX_BARS: Final = 16
N_PAIRS: Final = 5
"""Confusions of one attribute that are shown."""

Attributes = Mapping[str, AttributeReport]


def attributes(report: Report) -> str:
    """How well each attribute is answered; nothing where the model answers none."""
    labelled = {name: one for name, one in report.attributes.items() if one.n}
    if not report.attributes:
        return ""
    # Those that most is known of come first; the model's order among equals.
    order = sorted(labelled, key=lambda name: -labelled[name].n)
    found = {name: labelled[name] for name in order}
    n_without = len(report.attributes) - len(found)
    remarks = [
        "Each attribute over the products with a label of it. A product without an answer is wrong, and a label "
        "that training never saw cannot be right.",
        *([f"Attributes of the model without any label here: {n_without:,}."] if n_without else []),
        *([f"More attributes, in report.json alone: {len(found) - MAX_ROWS:,}."] if len(found) > MAX_ROWS else []),
    ]
    shown = dict(list(found.items())[:MAX_ROWS])
    parts = [*map(paragraph, remarks)]
    if shown:
        parts += [
            _table(shown),
            _meanings(shown),
            _asked(shown),
            _sources(shown),
            _honest(shown),
            _confusions(shown),
        ]
    return section("Attributes", *parts, anchor="attributes")


def _table(found: Attributes) -> str:
    shown = _columns(found)
    return table(
        ["attribute", "labelled", "values", "learned", *[m.name for m in shown], "not learned", "as seen"],
        [
            [
                f"{name} (several)" if one.multi else name,
                f"{one.n:,}",
                f"{one.n_values:,}",
                f"{one.n_learned:,}",
                *[words.shown(getattr(one, m.key), percent=m.percent) for m in shown],
                f"{one.n_unlearned:,}",
                f"{one.n_unknown:,}",
            ]
            for name, one in found.items()
        ],
    )


def _columns(found: Attributes) -> list[words.Meaning]:
    """Where no product has several values, micro-F1 says nothing new; the calibration has a table of its own."""
    several = any(one.multi for one in found.values())
    return [m for m in words.ATTRIBUTES if m.key not in _SELECTIVE and (several or m.key != "micro_f1")]


def _meanings(found: Attributes) -> str:
    rows = [
        ("values", "Different values among the labels."),
        ("learned", "Values that the model can answer."),
        *((m.name, m.meaning) for m in _columns(found)),
        ("not learned", "Products with a labelled value that the model never learned."),
        ("as seen", "Products with a labelled value that the catalog's vocabulary lacks; it was kept as seen."),
    ]
    return folded("What the columns mean", table(["figure", "what it means"], rows, n_words=2))


def _asked(found: Attributes) -> str:
    """The products that have both, asked three ways."""
    asked = {name: one for name, one in found.items() if one.asked}
    if not asked:
        return ""
    drawn = list(asked)[:MAX_BARS]
    ways = {
        way: words.MODALITIES[way] for way in words.MODALITIES if any(way in one.asked for one in asked.values())
    }

    def accuracy(name: str, way: Modality) -> float | None:
        row = asked[name].asked.get(way)
        return row.accuracy if row is not None else None

    picture = figure(
        plots.bars(
            drawn,
            {said: [accuracy(name, way) for name in drawn] for way, said in ways.items()},
            title="Accuracy of attributes, asked three ways",
            n=[max(row.n for row in asked[name].asked.values()) for name in drawn],
        ),
        "Accuracy; in brackets, the number of products.",
    )
    header = ["attribute", "products"]
    for said in ways.values():
        header += [f"{said}: accuracy", "macro-F1"]
    rows = []
    for name, one in asked.items():
        cells = [name, f"{max(row.n for row in one.asked.values()):,}"]
        for way in ways:
            row = one.asked.get(way)
            given = (None, None) if row is None else (row.accuracy, row.macro_f1)
            cells += [words.shown(value) for value in given]
        rows.append(cells)
    return (
        "<h3>The same products asked three ways</h3>"
        + paragraph("The products that have both, asked with the text alone, the picture alone, and both.")
        + picture
        + table(header, rows)
    )


def _sources(found: Attributes) -> str:
    """What carried the answers."""
    carried = {name: one for name, one in found.items() if one.by_source}
    if not carried:
        return ""
    header = ["attribute"]
    for said in words.MODALITIES.values():
        header += [f"from {said}", "right"]
    rows = []
    for name, one in carried.items():
        cells = [name]
        for way in words.MODALITIES:
            of = one.by_source.get(way)
            cells += ["–", "–"] if of is None else [words.shown(of.share), words.shown(of.precision)]
        rows.append(cells)
    return (
        "<h3>What carried the answers</h3>"
        + paragraph(
            "From text, or picture: that alone would have said it, and the other would not. From text and "
            "picture: either would have said it, or only both together."
        )
        + table(header, rows)
    )


def _honest(found: Attributes) -> str:
    """Confidence against accuracy, small, and the figures beside."""
    drawn = {name: one for name, one in list(found.items())[:MAX_DRAWN] if one.reliability.n}
    if not drawn:
        return ""
    pictures = [
        figure(
            plots.reliability(
                {name: (one.reliability.confidence, one.reliability.accuracy)},
                title=f"Reliability of {name}",
                heading=plots.short(name, max_chars=20),
                side=2.9,
            ),
            "",
        )
        for name, one in drawn.items()
    ]
    shown = [m for m in words.MEANINGS if m.key in _SELECTIVE]
    numbers = table(
        ["attribute", *[m.name for m in shown]],
        [
            [name, *[words.shown(getattr(one, m.key), percent=m.percent) for m in shown]]
            for name, one in found.items()
        ],
    )
    return (
        "<h3>Is the confidence honest?</h3>"
        + paragraph("Each mark is about a fifteenth of the answers; on the dashed line a confidence is honest.")
        + side_by_side_small(*pictures)
        + numbers
    )


_SELECTIVE: Final[Sequence[str]] = (
    "ece",
    "brier",
    "aurc",
    "e_aurc",
    "coverage_at_90",
    "coverage_at_95",
    "coverage_at_99",
)


def _confusions(found: Attributes) -> str:
    """The commonest mistakes of each attribute."""
    rows = {
        name: [
            [name, pair.true_value, pair.predicted_value, f"{pair.n:,}", words.shown(pair.share)]
            for pair in one.confusions[:N_PAIRS]
        ]
        for name, one in found.items()
        if one.confusions
    }
    if not rows:
        return ""
    header = ["attribute", "truth", "answered instead", "products", "of the truth"]
    first, more = list(rows)[:MAX_DRAWN], list(rows)[MAX_DRAWN:]
    shown, rest = ([row for name in names for row in rows[name]] for names in (first, more))
    text = "<h3>The commonest mistakes</h3>" + table(header, shown, n_words=3)
    return text + (folded(f"Those of {len(more):,} more", table(header, rest, n_words=3)) if more else "")
