"""`compare.json`, and `compare.html`: one offline page without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from shelver import plots
from shelver.compare.judge import p_value, slice_name
from shelver.compare.schema import COMPARISON, Comparison, Gap, ModelRow, Pair, Verdict
from shelver.errors import MissingExtraError
from shelver.plots.svg import INK, drawn
from shelver.report.markup import figure, paragraph, safe, section, table

PAGE: Final = "compare.html"
COLUMNS: Final = (
    "model",
    "version",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "hier_f1",
    "top3",
    "ece",
    "value",
    "partial",
    "seconds",
    "per_s",
    "MB",
    "p50_ms",
    "p95_ms",
)

_LOOKS: Final[dict[Verdict, tuple[str, str]]] = {
    "same": (plots.PALETTE[0], "o"),
    "open": (plots.PALETTE[0], "o"),
    "better": (plots.PALETTE[2], "^"),
    "worse": (plots.PALETTE[1], "v"),
}

_STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5d6670;--line:#e3e6ea;--bad:#b14a00}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e4e7ea;--soft:#9aa4ae;--line:#2b3036;--bad:#f0883e}}
body{margin:0 auto;max-width:1120px;padding:32px 24px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:26px;margin:0}
h2{font-size:19px;margin:40px 0 4px}
p{margin:0 0 8px;max-width:80ch}
.note,figcaption{color:var(--soft)}
.bad{color:var(--bad)}
.wide{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);font-weight:400;
overflow-wrap:anywhere}
thead th{color:var(--soft);font-size:12.5px;white-space:nowrap}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
figure{margin:14px 0}
figure svg.plot{color:inherit;max-width:100%;height:auto;display:block}
"""


def write_comparison(
    comparison: Comparison, folder: Path, *, say: Callable[[str], None] = print
) -> tuple[Path, ...]:
    """Write `compare.json` and `compare.html` into a folder, each whole or not at all.

    Args:
        comparison: what was found.
        folder: new or existing.
        say: told what could not be written: the page needs the `report` extra.

    Returns:
        What was written, `compare.json` first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparison.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    written = [_write(folder / COMPARISON, text + "\n")]
    try:
        written.append(_write(folder / PAGE, page(comparison)))
    except MissingExtraError as missing:
        say(f"{folder / PAGE} was not written: {missing.received}. {missing.remedy}")
    return tuple(written)


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def model_cells(model: ModelRow) -> list[object]:
    """A model's line of the table, as in COLUMNS."""
    figures = model.figures
    return [
        model.name,
        model.model_version,
        figures.accuracy,
        figures.macro_f1,
        figures.weighted_f1,
        figures.hierarchical_f1,
        figures.top3_accuracy,
        figures.ece,
        figures.value_score,
        figures.value_score_partial,
        f"{model.seconds:.1f}",
        f"{model.products_per_s:,.0f}",
        f"{model.core_bytes / 1e6:,.1f}",
        f"{model.latency.p50_ms:.2f}",
        f"{model.latency.p95_ms:.2f}",
    ]


ATTRIBUTE_COLUMNS: Final = (
    "attribute",
    "model",
    "labelled",
    "accuracy",
    "macro_f1",
    "answered",
    "ece",
    "points",
    "from",
    "to",
    "corrected",
    "verdict",
)


def attribute_cells(comparison: Comparison) -> list[list[object]]:
    """A line for each attribute and model, as in ATTRIBUTE_COLUMNS; those of the baseline have no differences."""
    gaps = {(one.name, pair.challenger): one for pair in comparison.pairs for one in pair.attributes}
    rows: list[list[object]] = []
    for name in dict.fromkeys(name for model in comparison.models for name in model.attributes):
        for model in comparison.models:
            of = model.attributes.get(name)
            if of is None:
                continue
            row: list[object] = [name, model.name, of.n, of.accuracy, of.macro_f1, of.coverage, of.ece]
            gap = gaps.get((name, model.name))
            if gap is None:
                row += [None] * 5
            else:
                row += [*_gap_cells(gap.gap), p_value(gap.p_holm), gap.verdict]
            rows.append(row)
    return rows


def page(comparison: Comparison) -> str:
    """The whole page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"{len(comparison.models)} models on {safe(comparison.catalog)}"
    content = [_verdicts(comparison), _models(comparison), _lenient(comparison), _attributes(comparison)]
    content += [_pair(pair, comparison, number) for number, pair in enumerate(comparison.pairs, start=1)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        + paragraph(
            f"{comparison.n:,} labelled products of the {comparison.split} split. "
            f"{comparison.models[0].name} is the baseline."
        )
        + "".join(map(paragraph, comparison.notes))
        + "".join(content)
        + "</body></html>\n"
    )


def _verdicts(comparison: Comparison) -> str:
    said = []
    for pair in comparison.pairs:
        said.append(f"<p>{safe(pair.sentence)}</p>")
        said += [f'<p class="bad">{safe(warning)}</p>' for warning in pair.warnings]
    return section("Verdict", *said, anchor="verdict") if said else ""


def _models(comparison: Comparison) -> str:
    rows = [[_cell(value) for value in model_cells(model)] for model in comparison.models]
    meaning = (
        "value: share of the products' value that was decided exactly right; partial: with credit for part of the "
        "path; seconds and per_s: answering in batches; MB: the model's files; p50_ms, p95_ms: one product alone."
    )
    return section("Models", table(COLUMNS, rows, n_words=2), paragraph(meaning), anchor="models")


def _lenient(comparison: Comparison) -> str:
    """Strict and lenient accuracy, where some products have several right paths."""
    rows = [
        [model.name, *[_cell(value) for value in (model.figures.accuracy, lenient.accuracy)]]
        + [_cell(value) for value in (model.figures.hierarchical_f1, lenient.hierarchical_f1)]
        for model in comparison.models
        if (lenient := model.lenient) is not None
    ]
    if not rows:
        return ""
    header = ("model", "accuracy, strict", "lenient", "hierarchical F1, strict", "lenient")
    said = "Some products have several right paths. Strict, as everywhere else here: only the first is right."
    return section("Several right paths", paragraph(said), table(header, rows), anchor="several")


def _attributes(comparison: Comparison) -> str:
    """Attribute by attribute, and the differences where both models answer one."""
    rows = attribute_cells(comparison)
    if not rows:
        return ""
    bars = {
        f"{one.name}, {pair.challenger}": (one.gap, one.verdict)
        for pair in comparison.pairs
        for one in pair.attributes
    }
    picture = ""
    if bars:
        caption = (
            "Points of accuracy that the challenger has more than the baseline, with 95 % intervals; another "
            "colour where the difference stands after the correction for the number of attributes."
        )
        picture = figure(interval_bars(bars, title="Attributes"), caption)
    said = "Each attribute over the products with a label of it; a product without an answer is wrong."
    cells = [[_cell(value) for value in row] for row in rows]
    return section(
        "Attributes", paragraph(said), picture, table(ATTRIBUTE_COLUMNS, cells, n_words=2), anchor="attributes"
    )


def _pair(pair: Pair, comparison: Comparison, number: int) -> str:
    if pair.verdict == "same":
        return ""
    whole = {
        "accuracy": pair.accuracy,
        "hierarchical credit": pair.hierarchical_credit,
        "value": pair.value,
        "value, partial": pair.value_partial,
    }
    gaps = {name: gap for name, gap in whole.items() if gap is not None}
    bars = {name: (gap, _by_interval(gap)) for name, gap in gaps.items()}
    bars |= {f"{slice_name(one)} ({one.n:,})": (one.gap, one.verdict) for one in pair.slices}
    title = f"{pair.challenger} against {comparison.models[0].name}"
    of = "value" if comparison.values_from is not None else "products"
    rows = [[name, "all", comparison.n, "", *_gap_cells(gap), "", ""] for name, gap in gaps.items()]
    rows += [
        [
            one.name,
            one.kind,
            one.n,
            f"{one.value_share:.3f}",
            *_gap_cells(one.gap),
            p_value(one.p_holm),
            one.verdict,
        ]
        for one in pair.slices
    ]
    header = ("what", "kind", "products", f"share of the {of}", "points", "from", "to", "corrected", "verdict")
    caption = (
        "Points that the challenger has more than the baseline, with 95 % intervals; slices by accuracy. A slice "
        "has another colour where the difference stands after the correction for the number of slices."
    )
    return section(
        title,
        f"<p>{safe(pair.sentence)}</p>",
        figure(interval_bars(bars, title=title), caption),
        table(header, rows, n_words=2),
        anchor=f"pair-{number}",
    )


def _gap_cells(gap: Gap) -> list[object]:
    return [f"{100 * value:+.2f}" for value in (gap.difference, gap.low, gap.high)]


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _by_interval(gap: Gap) -> Verdict:
    return "better" if gap.low > 0 else "worse" if gap.high < 0 else "open"


def interval_bars(gaps: Mapping[str, tuple[Gap, Verdict]], *, title: str) -> str:
    """Differences in points with their intervals, one below the other, as an `<svg>` element.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:
        axes.axvline(0, color=INK, linewidth=1, alpha=0.5)
        for y, (gap, verdict) in enumerate(gaps.values()):
            colour, marker = _LOOKS[verdict]
            axes.plot([100 * gap.low, 100 * gap.high], [y, y], color=colour, linewidth=2.5)
            axes.plot([100 * gap.difference], [y], color=colour, marker=marker)
        axes.set_yticks(range(len(gaps)), [plots.short(name, max_chars=44) for name in gaps])
        axes.set_ylim(len(gaps) - 0.5, -0.5)
        axes.set_xlabel("points")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    described = "; ".join(
        f"{name} {100 * gap.difference:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
        for name, (gap, _) in gaps.items()
    )
    return drawn([draw], title, described, size=(8.0, 0.7 + 0.22 * len(gaps)))
