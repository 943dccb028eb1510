"""extract fit, run and score, from a file of marked titles to values of a feed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shelver.cli.extract import app
from shelver.errors import InputError, ModelError

SHOP = [("Acme", "red"), ("Bolt", "blue"), ("Cato", "red"), ("Dorn", "green"), ("Elan", "blue"), ("Fero", "green")]


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    rows = [
        {
            "input": f"{brand} cap {colour}",
            "category": "Caps",
            "target_scores": {"Brand": {brand: 1}, "Color": {colour: 1}},
        }
        for brand, colour in SHOP * 3
    ]
    file = tmp_path / "marked.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def call(*words: object) -> dict[str, object]:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_is_learned_from_a_file_reads_the_titles_of_a_feed(marked: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    fitted = call("fit", marked, "--out", model, "--epochs", 8, "--json")
    assert (fitted["categories"], fitted["attributes"], fitted["titles"]) == (1, 2, 18)
    assert call("score", model, marked, "--json")["f1"] == 1

    feed = tmp_path / "feed.csv"
    feed.write_text("name,kind\nGoro cap red,Caps\nHilo cap blue,Hats\n\n,Caps\n")
    out = tmp_path / "out.jsonl"
    told = call("run", model, feed, "--out", out, "--title", "name", "--category", "kind", "--json")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["Goro cap red", "Hilo cap blue", ""]
    assert {name: found["value"] for name, found in lines[0]["attributes"].items()} == {
        "Brand": "Goro",
        "Color": "red",
    }
    assert lines[1]["attributes"] == lines[2]["attributes"] == {}
    assert (told["rows"], told["unknown_category"], told["values"]) == (3, 1, 2)


def test_a_wrong_column_and_a_wrong_folder_are_refused(marked: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    call("fit", marked, "--out", model, "--epochs", 1, "--json")
    feed = tmp_path / "feed.csv"
    feed.write_text("name,kind\na,b\n")
    with pytest.raises(InputError, match="no column title"):
        call("run", model, feed, "--out", tmp_path / "out.jsonl")
    with pytest.raises(ModelError, match="no extractor"):
        call("score", tmp_path, marked)
