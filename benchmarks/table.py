"""Results as tables: on the screen, and in docs/benchmarks.md between its markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shelver.errors import InputError

Row = dict[str, Any]

_SYSTEMS_HEAD: Final = (*("set", "system", "accuracy", "macro-F1", "train CPU s", "predict CPU µs", "settings"),)
_AGAINST_HEAD: Final = (
    *("set", "ours", "accuracy − SVM", "macro-F1 − SVM", "accuracy − fastText", "macro-F1 − fastText"),
    *("train CPU ÷ fastText", "predict CPU ÷ fastText"),
)
_PICTURES_HEAD: Final = (
    "set",
    "model",
    "precision",
    "products/s",
    "bare, pictures/s",
    "ratio",
    "× first model",
    "accuracy",
)


def lines(rows: Sequence[Row]) -> str:
    """Rows for a terminal, a line each."""
    return "\n".join(
        f"{row['set']:20} {row['system']:14} {score(row, 'accuracy'):>14} {score(row, 'macro_f1'):>14} "
        f"train {row['train_cpu_s']:8.1f} s CPU   predict {row['predict_cpu_us']:9.1f} µs CPU"
        for row in rows
    )


def score(row: Row, name: str) -> str:
    """A score as .9634, with its standard error where there are folds."""
    text = f"{row[name]:.4f}".removeprefix("0")
    error = row.get(f"{name}_se")
    return text if error is None else f"{text} ± {error:.4f}".replace("± 0", "± ")


def render(page: Path, rows: Sequence[Row], pictures: Sequence[Row]) -> None:
    """Write the tables of a page between `<!-- NAME -->` and `<!-- /NAME -->`, and leave the rest as it is.

    Raises:
        InputError: the page lacks the markers.
    """
    text = page.read_text(encoding="utf-8")
    for name, content in (
        ("measured-on", _measured_on([*rows, *pictures])),
        ("systems", _systems(rows)),
        ("against", _against(rows)),
        ("pictures", _pictures(pictures)),
    ):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise InputError(
                f"{page} lacks {begin} or {end}",
                allowed="a page with both, in this order",
                remedy="Put them back.",
            )
        text = f"{head}{begin}\n\n{content}\n\n{end}{tail}"
    page.write_text(text, encoding="utf-8")


def _measured_on(rows: Sequence[Row]) -> str:
    """Each machine with its dates and versions."""
    said: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        said.setdefault((row["machine"], row["libraries"]), []).append(row)
    texts = []
    for (machine, libraries), of_machine in said.items():
        days = sorted({row["date"] for row in of_machine})
        load = max(row["load_before"] for row in of_machine)
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        commits = ", ".join(sorted({row["commit"] for row in of_machine if row["commit"]})) or "none"
        texts.append(
            f"- {when}: {machine}; {libraries}; commit {commits} (+ has later changes); "
            f"load of the machine before a measurement at most {load:.1f}."
        )
    return "\n".join(texts) or "Nothing was measured yet."


def _systems(rows: Sequence[Row]) -> str:
    return markdown(
        _SYSTEMS_HEAD,
        [
            [
                *(row["set"], row["system"], score(row, "accuracy"), score(row, "macro_f1")),
                *(f"{row['train_cpu_s']:,.1f}", f"{row['predict_cpu_us']:,.1f}", row["settings"]),
            ]
            for row in rows
        ],
    )


def _against(rows: Sequence[Row]) -> str:
    """Ours less the SVM, in points; over folds the mean of the folds' differences and its standard error."""
    by = {(row["set"], row["system"]): row for row in rows}
    body = []
    for row in rows:
        # Where the pictures are used too, the rivals still have the text alone.
        of_text = row["set"].removesuffix("-both") + ("-text" if row["set"].endswith("-both") else "")
        svm, fasttext = by.get((of_text, "svm")), by.get((of_text, "fasttext"))
        if not row["system"].startswith("ours") or (svm is None and fasttext is None):
            continue
        body.append(
            [
                *(row["set"], row["system"]),
                *(points(row, rival, name) for rival in (svm, fasttext) for name in ("accuracy", "macro_f1")),
                *(
                    "" if fasttext is None else f"{row[name] / fasttext[name]:.2f}"
                    for name in ("train_cpu_s", "predict_cpu_us")
                ),
            ]
        )
    return markdown(_AGAINST_HEAD, body)


def points(row: Row, rival: Row | None, name: str) -> str:
    """The difference of a score in points, + 1.23; paired by fold where both have the same folds."""
    if rival is None:
        return ""
    text = f"{(row[name] - rival[name]) * 100:+.2f}"
    ours, theirs = row.get(f"fold_{name}"), rival.get(f"fold_{name}")
    if not ours or not theirs or len(ours) != len(theirs):
        return text
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, n = sum(differences) / len(differences), len(differences)
    error = (sum((d - mean) ** 2 for d in differences) / (n - 1) / n) ** 0.5
    return f"{text} ± {error * 100:.2f}"


def _pictures(rows: Sequence[Row]) -> str:
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["set"], row["products_per_s"])
    return markdown(
        _PICTURES_HEAD,
        [
            [
                *(row["set"], row["system"], row["precision"], f"{row['products_per_s']:,.1f}"),
                *(f"{row['bare_per_s']:,.1f}", f"{row['ratio']:.3f}"),
                f"{row['products_per_s'] / first[row['set']]:.2f}",
                score(row, "accuracy"),
            ]
            for row in rows
        ],
    )


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, or a sentence where it would be empty."""
    if not body:
        return "Nothing was measured yet."
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)
