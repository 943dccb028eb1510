"""The benchmark of extraction: its figures are what they say, on files of a few titles."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import extraction
from shelver.extract import Example, ExtractSpec

EXAMPLES = [
    Example(f"{brand} cap {colour}", "Caps", {"Brand": (brand,), "Color": (colour,)})
    for brand in ("Acme", "Bolt", "Cato", "Dorn", "Elan")
    for colour in ("red", "green", "blue", "pink")
]


def test_a_row_has_the_figures_of_answers_from_the_written_folder() -> None:
    row = extraction.measure(EXAMPLES, EXAMPLES, ExtractSpec(n_epochs=8))
    assert row["f1"] == row["strict_f1"] == row["eager_f1"] == row["ceiling"] == 1
    assert row["counts"] == {"nn": 0, "nv": 0, "vn": 0, "vc": 40, "vw": 0}
    assert row["model_bytes"] > 1000


def test_the_ceiling_counts_what_no_span_can_say() -> None:
    inside = Example("Acmecap red", "Caps", {"Brand": ("Acme",), "Color": ("red",), "Size": ()})
    assert extraction.ceiling([inside], ExtractSpec()) == 0.5


def test_choices_are_made_on_titles_of_the_train_file_that_were_not_learned_from() -> None:
    learned, held = extraction.halves(EXAMPLES)
    assert len(learned) + len(held) == len(EXAMPLES)
    assert not {example.title for example in learned} & {example.title for example in held}
    assert 0 < len(held) < len(learned)


def test_the_committed_figures_reach_the_bar() -> None:
    record = json.loads((Path(extraction.__file__).parent / "extraction.json").read_text(encoding="utf-8"))
    rows = {(row["set"], row["file"]): row for row in record["rows"]}
    assert set(rows) == {(name, file) for name in extraction.SETS for file in extraction.FILES}
    assert not record["validate"]
    for name in extraction.SETS:
        counts = rows[name, "train"]["counts"]
        precision = counts["vc"] / (counts["nv"] + counts["vc"] + counts["vw"])
        recall = counts["vc"] / (counts["vn"] + counts["vc"] + counts["vw"])
        f1 = 2 * precision * recall / (precision + recall)
        assert abs(f1 - rows[name, "train"]["f1"]) < 1e-3
        assert f1 >= 0.75
