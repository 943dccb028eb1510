"""The parts of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shelver import plots
from shelver.evaluate import Figures, Report
from shelver.registry import Manifest
from shelver.report import words
from shelver.report.markup import cards, figure, paragraph, safe, section, table

MAX_POINTS: Final = 200
MAX_CURVES: Final = 6
MAX_SLICES: Final = 20

LearningRow = Mapping[str, Any]


def headline(report: Report) -> str:
    """The main figures, large, and what each means."""
    low, high = words.interval(report.accuracy or 0.0, report.n)
    tiles = [
        ("accuracy", words.shown(report.accuracy), f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"),
        ("macro-F1", words.shown(report.macro_f1), "every category the same weight"),
        ("top 3", words.shown(report.top3_accuracy), "the truth among three suggestions"),
        ("calibration error", words.shown(report.ece, percent=False), "0 is honest"),
        ("products", f"{report.n:,}", f"{report.products_per_s:,.0f} a second"),
    ]
    drawn = "".join(
        f"<div><dt>{safe(name)}</dt><dd><b>{safe(value)}</b><span>{safe(note)}</span></dd></div>"
        for name, value, note in tiles
    )
    meanings = table(
        ["figure", "what it means", "value"],
        [
            [m.name, m.meaning, words.shown(getattr(report, m.key), percent=m.percent)]
            for m in words.MEANINGS
            if report.values is not None or not m.key.startswith("value")
        ],
        n_words=2,
    )
    remarks = [words.SPLITS[report.split]] if words.SPLITS[report.split] else []
    remarks += [
        f"All products were answered from their {words.MODALITIES[modality]}."
        for modality, row in report.by_modality.items()
        if row.n == report.n
    ]
    if report.values is not None:
        remarks.append(words.VALUES[report.values])
    if report.n_unlabelled:
        remarks.append(f"{report.n_unlabelled:,} products without a label are not scored.")
    remarks += [f"{n:,} products were not answered: {code}." for code, n in sorted(report.n_errors.items())]
    remarks += [
        f"{n:,} products had a picture that could not be used: {code}."
        for code, n in sorted(report.n_picture_errors.items())
    ]
    notes = "".join(paragraph(line) for line in remarks)
    return f'<dl class="tiles">{drawn}</dl>' + section("What the figures mean", meanings, notes, anchor="figures")


def breakdown(
    title: str,
    note: str,
    rows: Mapping[str, Figures],
    *,
    anchor: str,
    least: int = 1,
    drawn: Sequence[str] = ("accuracy", "macro_f1"),
    without: Sequence[str] = (),
) -> str:
    """Bars and a table of several rows of figures.

    Args:
        title, note: of the part.
        rows: by name; those without products are left out.
        anchor: of the part.
        least: with fewer rows than this there is nothing to say.
        drawn: the figures that become bars.
        without: figures that mean little here.
    """
    rows = {name: row for name, row in rows.items() if row.n}
    if len(rows) < least:
        return ""
    names = {m.key: m.name for m in words.MEANINGS}
    picture = ""
    if drawn:
        picture = figure(
            plots.bars(
                list(rows),
                {names[key]: [getattr(row, key) for row in rows.values()] for key in drawn},
                title=title,
                n=[row.n for row in rows.values()],
            ),
            "In brackets, the number of products.",
        )
    shown = [m for m in words.BRIEF if m.key not in without]
    numbers = table(
        ["", "products", *[m.name for m in shown]],
        [
            [name, f"{row.n:,}", *[words.shown(getattr(row, m.key), percent=m.percent) for m in shown]]
            for name, row in rows.items()
        ],
    )
    return section(title, paragraph(note), picture, numbers, anchor=anchor)


def breakdowns(report: Report) -> str:
    """The figures by level, by what a product has, by frequency, source and language."""
    parts = (
        breakdown(
            "By level",
            "Truth and answer cut at each level of the tree; level 1 is the first below the root.",
            {f"level {level}": row for level, row in report.by_level.items()},
            anchor="levels",
        ),
        several(report),
        breakdown(
            "The same products asked three ways",
            "The products that have both, asked with the text alone, the picture alone, and both.",
            words.by_modality(report.asked),
            anchor="asked",
        ),
        breakdown(
            "Products as they came",
            "Grouped by what the model had to answer from. These are different products, so the rows do not say "
            "which is better.",
            words.by_modality(report.by_modality),
            anchor="modalities",
            least=2,
        ),
        breakdown(
            "Frequent and rare labels",
            "Frequent labels make up half of the training products, middling ones 30 %, rare ones the rest.",
            {words.FREQUENCIES[name]: row for name, row in report.by_frequency.items()},
            anchor="frequency",
            drawn=("accuracy", "top3_accuracy"),
            without=("macro_f1",),  # it also counts the labels of other groups that were answered by mistake
        ),
        *(
            breakdown(
                f"By {name}",
                f"The commonest {MAX_SLICES} at most.",
                dict(list(rows.items())[:MAX_SLICES]),
                anchor=f"{name}s",
                least=2,
                drawn=(),
            )
            for name, rows in (("source", report.by_source), ("language", report.by_language))
        ),
    )
    return "".join(parts)


def several(report: Report) -> str:
    """Strict and lenient figures side by side, where some products have several right paths."""
    found = report.lenient
    if found is None:
        return ""
    rows = {"all": (report.figures, found.figures)}
    rows |= {
        f"level {level}": (report.by_level[level], lenient)
        for level, lenient in found.by_level.items()
        if level in report.by_level and lenient.n
    }
    shown = [m for m in words.BRIEF if m.key not in ("coverage", "ece")]
    some = "One product has" if found.n_several == 1 else f"{found.n_several:,} products have"
    return section(
        "Several right paths",
        paragraph(
            f"{some} more than one right path. Strict: only the first is right, as everywhere else in this "
            "report. Lenient: any of them is; each product is held against the right path that its answer comes "
            "nearest to."
        ),
        table(
            ["", "products", *[name for m in shown for name in (m.name, "lenient")]],
            [
                [
                    name,
                    f"{lenient.n:,}",
                    *[
                        words.shown(getattr(row, m.key), percent=m.percent)
                        for m in shown
                        for row in (strict, lenient)
                    ],
                ]
                for name, (strict, lenient) in rows.items()
            ],
        ),
        anchor="several",
    )


def learning(rows: Sequence[LearningRow] | None) -> str:
    """Learning curves from the rows of a training run, whatever these hold; nothing where there are none."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    rows = [row for row in rows or () if isinstance(row, Mapping)]
    time = "epoch" if any(_number(row.get("epoch")) is not None for row in rows) else "step"
    phases = list(dict.fromkeys(str(row.get("phase", "")) for row in rows))
    for row in rows:
        x = _number(row.get(time))
        if x is None:
            continue
        for key, raw in row.items():
            y = _number(raw)
            side, _, quantity = str(key).rpartition("_")
            if y is None or not side or quantity not in ("loss", "accuracy", "f1"):
                continue
            name = f"{side}, {row.get('phase', '')}" if len(phases) > 1 else side
            panels.setdefault(quantity, {}).setdefault(name, []).append((x, y))
    drawn = {
        quantity: {name: _thinned(points) for name, points in list(curves.items())[:MAX_CURVES]}
        for quantity, curves in sorted(panels.items(), reverse=True)
    }
    if not drawn:
        return ""
    picture = plots.learning(drawn, title="Learning curves", x_label=time)
    return section(
        "How it learned",
        figure(picture, "Loss on the training products counts dropout, so it may start above that on validation."),
        anchor="learning",
    )


def examples(report: Report, pictures: Mapping[str, bytes], *, n: int) -> str:
    """Up to n products of each kind, with their pictures."""
    kinds = (
        ("Surest of the right answers", report.examples.right),
        ("Surest of the wrong answers", report.examples.wrong),
        ("Least sure answers", report.examples.unsure),
    )
    parts = [f"<h3>{safe(title)}</h3>{cards(some[:n], pictures)}" for title, some in kinds if some[:n]]
    if not parts:
        return ""
    note = paragraph(
        "At most one of a category, or of a pair of categories. Where a sure answer is wrong, look at the label."
    )
    return section("Examples", note, *parts, anchor="examples")


def about(report: Report, manifest: Manifest) -> str:
    """Which model and which products these are."""
    rows: list[tuple[str, str]] = [
        ("model", f"{report.model}, version {report.model_version}"),
        ("catalog", f"{report.catalog}, fingerprint {report.catalog_version[:12]}, {report.split} split"),
        ("made by", f"shelver {manifest.shelver_version}, commit {manifest.git_commit or 'unknown'}"),
        ("tree", manifest.taxonomy_version),
        *words.encoders(manifest).items(),
        *((f"weights of {expert}, asked with {name}", value) for name, expert, value in words.weights(manifest)),
    ]
    config = table(["setting", "value"], list(words.settings(manifest).items()), n_words=2)
    return section(
        "The model",
        table(["", ""], rows, n_words=2),
        f"<details><summary>Training config</summary>{config}</details>",
        anchor="model",
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Every so-manieth point, and the last one."""
    every = math.ceil(len(points) / MAX_POINTS)
    kept = [*points[:-1:every], points[-1]]
    return [x for x, _ in kept], [y for _, y in kept]
