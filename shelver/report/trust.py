"""The parts of the page on confidence: whether it is honest, what it sorts out, and what policies make of it."""

from __future__ import annotations

from typing import Final

from shelver import plots
from shelver.evaluate import BeforeAfter, Bins, Curve, Figures, PolicyPoint, Report
from shelver.report import words
from shelver.report.markup import figure, paragraph, section, side_by_side, side_by_side_small, table

MAX_LEVEL_CURVES: Final = 5
MAX_POLICIES: Final = 20
N_IDEAL: Final = 60
PERCENTS: Final = (90, 95, 99)


def calibration(report: Report) -> str:
    """Confidence against accuracy before and after calibration, for each level and for the decided category."""
    found = report.calibration
    named: dict[str, BeforeAfter] = {f"level {level}": both for level, both in found.by_level.items()}
    named["decided category"] = found.decided
    named = {name: both for name, both in named.items() if both.before.n or both.after.n}
    if not named:
        return ""
    pictures = [
        figure(
            plots.reliability(
                {
                    "before": _points(both.before.reliability),
                    "after": _points(both.after.reliability),
                },
                title=f"Reliability, {name}",
                heading=name,
                side=2.9,
            ),
            "",
        )
        for name, both in named.items()
    ]
    numbers = table(
        ["", "answers", "error before", "after", "Brier before", "after", "Brier, all outcomes, before", "after"],
        [
            [
                name,
                f"{both.after.n:,}",
                *(words.shown(one.ece, percent=False) for one in (both.before, both.after)),
                *(words.shown(one.brier, percent=False) for one in (both.before, both.after)),
                *(words.shown(one.brier_all, percent=False) for one in (both.before, both.after)),
            ]
            for name, both in named.items()
        ],
    )
    asked = ""
    views = words.compared(report.reliability)
    if len(views) > 1:
        same = "The same products, asked three ways." if report.reliability.asked else "Products as they came."
        drawn = plots.reliability({n: _points(b) for n, b in views.items()}, title="Reliability", side=3.6)
        asked = figure(drawn, f"The decided category, after calibration. {same}")
    return section(
        "Is the confidence honest?",
        paragraph(
            "Each mark is about a fifteenth of the answers. On the dashed line a confidence is honest: below it "
            "the model is too sure of itself. Before calibration all experts of the model count alike; after it, "
            "as much as held-out products said they should. The calibration error is debiased: 0 is honest."
        ),
        side_by_side_small(*pictures),
        numbers,
        asked,
        anchor="calibration",
    )


def confidence(report: Report) -> str:
    """Risk and precision against coverage, and where each policy stands."""
    return section(
        "How sure, and how rightly",
        paragraph(
            "If only the surest answers are given, and people do the rest: how many are given, and how many of "
            "them are wrong or right?"
        ),
        side_by_side(_risk(report), _precision(report)),
        _selective_table(report),
        paragraph(
            "Read off these very products. To keep a promise on others, let “shelver policy fit” choose the "
            "thresholds on a split of its own."
        ),
        _policies(report.policies),
        anchor="confidence",
    )


def _risk(report: Report) -> str:
    curves: dict[str, Curve] = words.compared(report.selective)
    alone = len(curves) == 1
    best = None
    if alone and report.accuracy is not None and report.coverage:
        # All right answers first: no risk up to the accuracy, then one more error with each answer.
        right, end = report.accuracy, report.coverage
        x = [right + (end - right) * i / N_IDEAL for i in range(N_IDEAL + 1)]
        best = ([0.0, *x], [0.0, *((c - right) / c if c else 0.0 for c in x)])
    drawn = plots.risk_coverage(
        {name: (c.coverage, [1 - a for a in c.accuracy]) for name, c in curves.items()},
        title="Risk over coverage",
        best=best,
    )
    said = "Dashed, what the best order of the same answers would give." if alone else ""
    if report.selective.asked:
        said = "The products that have both, asked three ways."
    return figure(drawn, f"Risk over coverage. {said}")


def _precision(report: Report) -> str:
    every: dict[str, Curve] = {"decided category": report.selective.all}
    levels = list(report.selective_by_level.items())[:-1]  # the last is mostly the decided category
    every |= {f"level {level}": curve for level, curve in levels[:MAX_LEVEL_CURVES]}
    points = {
        str(number): (point.coverage, point.precision)
        for number, point in enumerate(list(report.policies.values())[:MAX_POLICIES], start=1)
        if point.precision is not None
    }
    drawn = plots.selective(
        {name: (c.coverage, c.accuracy) for name, c in every.items()},
        title="Precision over coverage, and the policies",
        points=points,
    )
    said = " Circles are the policies, with their numbers in the table below." if points else ""
    return figure(drawn, f"Precision over coverage, for the category and for the levels above it.{said}")


def _selective_table(report: Report) -> str:
    rows: dict[str, Figures] = {"all": report.figures}
    rows |= {f"level {level}": row for level, row in report.by_level.items() if row.n}
    rows |= {f"asked with {name}": row for name, row in words.by_modality(report.asked).items() if row.n}
    shown = [m for m in words.MEANINGS if m.key in ("aurc", "e_aurc") or m.key.startswith("coverage_at")]
    return table(
        ["", *[m.name for m in shown]],
        [
            [name, *[words.shown(getattr(row, m.key), percent=m.percent) for m in shown]]
            for name, row in rows.items()
        ],
    )


def _policies(policies: dict[str, PolicyPoint]) -> str:
    if not policies:
        return ""
    rows = []
    for number, (name, point) in enumerate(list(policies.items())[:MAX_POLICIES], start=1):
        deepest = f" to {point.max_level}" if point.max_level else ""
        rest = [f"{n:,} {what}" for what, n in point.outcomes.items() if what != "decided"]
        rows.append(
            [
                f"{number}  {name}",
                point.decoder,
                f"{point.min_level}{deepest or ' and deeper'}",
                ", ".join(rest) or "–",
                words.shown(point.promised),
                words.shown(point.precision),
                words.shown(point.coverage),
                words.shown(point.hierarchical_coverage),
                words.shown(point.value_score_partial),
            ]
        )
    left = (
        f"{len(policies) - MAX_POLICIES:,} more policies are in report.json."
        if len(policies) > MAX_POLICIES
        else ""
    )
    return (
        "<h3>What the policies make of it</h3>"
        + table(
            ["policy", "decoder", "levels", "not decided", "promised", "precision", "coverage", "levels named",
             "value, partial"],
            rows,
            n_words=4,
        )
        + paragraph(
            "Precision here is what a promise counts: the decided category is the true one, or one above it that "
            f"the policy accepts as an answer. {left}"
        )
        + _attribute_policies(policies)
    )  # fmt: skip


def _attribute_policies(policies: dict[str, PolicyPoint]) -> str:
    rows = [
        [
            name,
            attribute,
            words.shown(point.promised),
            words.shown(point.precision),
            words.shown(point.coverage),
        ]
        for name, policy in list(policies.items())[:MAX_POLICIES]
        for attribute, point in policy.attributes.items()
    ]
    if not rows:
        return ""
    return table(["policy", "attribute", "promised", "precision", "coverage"], rows, n_words=2) + paragraph(
        "Attributes that a policy has a rule for. Precision: of the answered values, those that are labelled."
    )


def _points(bins: Bins) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return bins.confidence, bins.accuracy
