"""The five commands as a person types them: what they print where, and how they end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shelver import __version__
from shelver.catalog.store import Catalog
from shelver.decide import POLICIES, Policy, write_policies

CONFIG = """
from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
config = TrainConfig(text_encoder="ngram", image_encoder="lite0", text_width=16, hidden=16, epochs=6, batch_size=8,
                     lr=1e-2, linear=True, folds=0, image=ImageSpec(height_px=32, width_px=32))
"""


Run = Callable[..., Any]
"""The fixture `run`: a command line to how it ended, with `status`, `out`, `err` and `json`."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_from_a_feed_to_shelves_in_four_commands(run: Run, tiny_feed: Path, config: Path, tmp_path: Path) -> None:
    catalog, model, report, out = (tmp_path / name for name in ("catalog", "model", "report", "out.jsonl"))
    ingested = run("ingest", tiny_feed, "--out", catalog, "--json")
    assert ingested.status == 0
    assert ingested.json["rows_in"] == ingested.json["accepted"] + ingested.json["quarantined"] == 150

    trained = run(
        "train", catalog, "--out", model, "--config", config, "--epochs", 4, "--refit", "--seed", 3, "--json"
    )
    assert trained.status == 0
    assert "picture" in trained.err
    assert trained.json["validation"].keys() == {"accuracy", "loss"}
    assert any("learned from all" in choice for choice in trained.json["choices"])
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["config"]["refit"] is True
    assert (manifest["config"]["seed"], manifest["config"]["epochs"]) == (3, 4)
    assert manifest["config"]["hidden"] == 16  # of the config file: flags win only where they are given
    assert set(manifest["files"]) == {
        "taxonomy.json",
        "labels.json",
        "ngrams.safetensors",
        "text2emb.onnx",
        "image2emb.onnx",
        "emb2prob.onnx",
    }
    assert set(manifest["parity"]) == {"text2emb.onnx", "image2emb.onnx", "emb2prob.onnx"}
    assert max(manifest["parity"].values()) <= 1e-4
    assert {row["phase"] for row in map(json.loads, (model / "run/metrics.jsonl").read_text().splitlines())} == {
        "choose",
        "refit",
    }
    assert list((model / "run" / "tensorboard").rglob("events.*"))
    assert not (model / "run" / "staged").exists()
    assert not (model / "run" / "checkpoint").exists()

    evaluated = run("evaluate", model, catalog, "--out", report)
    assert evaluated.status == 0
    assert "accuracy" in evaluated.out
    written = json.loads((report / "report.json").read_text())
    assert written["model_version"] == trained.json["model_version"]
    assert written["n"] == Catalog.open(catalog).info.by_split["test"]

    predicted = run("predict", model, tiny_feed, "--out", out, "--json")
    assert predicted.status == 0
    counts = predicted.json
    assert counts["n_rows"] == counts["n_answered"] + sum(counts["n_errors"].values()) == 150
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    truth = [row["category"] for row in pq.read_table(tiny_feed).to_pylist()]
    assert sum(row["path"] == path for row, path in zip(rows, truth, strict=True)) > 75


def test_results_go_to_standard_output_and_messages_to_standard_error(run: Run, text_model: Path) -> None:
    plain = run("predict", text_model, "--title", "folding deck chair")
    assert plain.status == 0
    assert plain.out.startswith("Home > Chairs > Deck")
    assert plain.err == ""
    machine = run("predict", text_model, "--title", "folding deck chair", "--json").json
    assert machine["path"] == "Home > Chairs > Deck"
    assert machine["modality"] == "text"
    assert machine["alternatives"][0]["path"] == machine["path"]
    assert len(machine["level_confidence"]) == 3
    assert machine["confidence"] == pytest.approx(machine["level_confidence"][-1])


def test_a_single_product_can_be_shown_as_well(
    run: Run, both_model: Path, tmp_path: Path, draw: Callable[[tuple[int, int, int], int], bytes]
) -> None:
    picture, broken = tmp_path / "a.png", tmp_path / "b.png"
    picture.write_bytes(draw((20, 200, 20), 5))
    broken.write_bytes(b"GIF89a")
    both = run("predict", both_model, "--title", "deck chair", "--image", picture, "--image", picture, "--json")
    assert both.json["modality"] == "both"
    partly = run("predict", both_model, "--title", "deck chair", "--image", broken, "--json")
    assert partly.status == 0
    assert partly.json["modality"] == "text"
    assert "could not be used" in partly.err
    nothing = run("predict", both_model, "--image", broken)
    assert (nothing.status, nothing.out) == (2, "")
    assert "could not be answered" in nothing.err


def test_mistakes_end_with_status_2_and_say_what_to_do(
    run: Run, text_model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title\n1,lamp\n")
    catalog = tiny_catalog.folder
    calls: list[tuple[tuple[object, ...], str]] = [
        (("nonsense",), "nonsense"),
        (("train", catalog), "--out"),
        (("train", tmp_path, "--out", tmp_path / "m"), "no catalog"),
        (("train", catalog, "--out", text_model), "already holds a model"),
        (("train", catalog, "--out", tmp_path / "m", "--resume"), "no run to resume"),
        (("train", catalog, "--out", tmp_path / "m", "--text-encoder", "bert"), "bert"),
        (("train", catalog, "--out", tmp_path / "m", "--epochs", "0"), "epochs"),
        (("train", catalog, "--out", tmp_path / "m", "--config", tmp_path / "no.py"), "no.py"),
        (
            ("train", catalog, "--out", tmp_path / "m", "--text-encoder", "none", "--image-encoder", "none"),
            "nothing to learn from",
        ),
        (("evaluate", tmp_path, catalog, "--out", tmp_path / "r"), "manifest.json"),
        (("evaluate", text_model, tmp_path, "--out", tmp_path / "r"), "no catalog"),
        (("evaluate", text_model, catalog, "--out", tmp_path / "r", "--split", "dev"), "dev"),
        (("predict", text_model), "predict MODEL FEED"),
        (("predict", text_model, feed), "predict MODEL FEED"),
        (("predict", text_model, feed, "--title", "x", "--out", tmp_path / "o.csv"), "single product"),
        (("predict", text_model, feed, "--out", tmp_path / "o.doc"), ".parquet"),
        (("predict", text_model, feed, "--out", feed), "feed itself"),
        (("predict", text_model, tmp_path / "no.csv", "--out", tmp_path / "o.csv"), "no.csv"),
        (("predict", text_model, "--image", tmp_path / "no.png"), "no.png"),
        (("predict", tmp_path, "--title", "x"), "manifest.json"),
    ]
    for args, said in calls:
        ended = run(*args)
        assert ended.status == 2, (args, ended)
        assert ended.out == "", args
        assert said in ended.err, (args, ended.err)
        assert "Traceback" not in ended.err


def test_a_policy_is_chosen_by_its_name(run: Run, text_model: Path, tiny_feed: Path, tmp_path: Path) -> None:
    model, out, file = tmp_path / "model", tmp_path / "out.jsonl", tmp_path / "mine.json"
    shutil.copytree(text_model, model)
    write_policies(model / POLICIES, {"tax": Policy(thresholds=(1.0,), unsure="review")})
    write_policies(file, {"default": Policy(decoder="top_n", n_top=2)})
    plain = run("predict", model, "--title", "folding deck chair", "--json").json
    assert (plain["outcome"], plain["policy"]) == ("decided", "default")
    listed = run("predict", model, "--title", "folding deck chair", "--policies", file, "--json").json
    assert (listed["outcome"], listed["path"], len(listed["alternatives"])) == ("suggested", None, 2)
    shown = run("predict", model, "--title", "folding deck chair", "--policies", file)
    assert shown.out.startswith("suggested (from text, policy default)\n")
    taxed = run("predict", model, tiny_feed, "--out", out, "--policy", "tax")
    assert taxed.status == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    n_review = sum(row["outcome"] == "review" for row in rows)
    assert 0 < n_review < 150
    assert f" + {n_review} for review + " in taxed.out
    assert {row["policy"] for row in rows} == {"tax"}
    unknown = run("predict", model, "--title", "x", "--policy", "taxes")
    assert unknown.status == 2
    assert "default, tax" in unknown.err


def test_a_wrong_setting_is_a_mistake_of_the_caller(
    run: Run, text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELVER_THREADS", "many")
    ended = run("predict", text_model, "--title", "x")
    assert ended.status == 2
    assert "threads" in ended.err
    assert "bug" not in ended.err
    monkeypatch.delenv("SHELVER_THREADS")
    Path("shelver.toml").write_text("threads = [")
    ended = run("predict", text_model, "--title", "x")
    assert ended.status == 2
    assert "shelver.toml" in ended.err


def test_a_training_refused_for_its_settings_can_be_called_again_with_others(
    run: Run, tiny_catalog: Catalog, config: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    refused = run(
        "train", tiny_catalog.folder, "--out", model, "--text-encoder", "none", "--image-encoder", "none"
    )
    assert refused.status == 2
    again = run("train", tiny_catalog.folder, "--out", model, "--config", config, "--image-encoder", "none")
    assert again.status == 0
    assert (model / "manifest.json").is_file()


def test_a_damaged_model_is_a_mistake_and_anything_unexpected_is_ours(
    run: Run, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(text_model, copy)
    (copy / "emb2prob.onnx").unlink()
    ended = run("predict", copy, "--title", "x")
    assert ended.status == 2
    assert "emb2prob.onnx is missing" in ended.err

    def explode(*args: object, **kwargs: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("shelver.pipeline.Classifier.open", explode)
    ended = run("predict", text_model, "--title", "x")
    assert ended.status == 1
    assert "unexpected RuntimeError: boom" in ended.err
    assert "Traceback" not in ended.err


def test_help_and_version_answer_at_once(run: Run) -> None:
    assert run("--version").out.strip() == f"shelver {__version__}"
    for command in ("ingest", "describe", "train", "evaluate", "predict", "generate", "demo"):
        ended = run(command, "--help")
        assert ended.status == 0
        assert command in ended.out
    call = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['shelver', '--help']; import shelver.cli as c; c.main()",
    ]
    fastest = 9.0
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(call, check=True, capture_output=True)
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 1.0  # half a second on a quiet machine; this one may be busy
    heavy = "import sys, shelver.cli; print(*({'torch', 'onnxruntime', 'numpy', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True).stdout.strip() == b""


def test_predicting_and_evaluating_need_no_torch(text_model: Path, tiny_catalog: Catalog, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from shelver.cli import main; "
        "sys.argv = ['shelver', *sys.argv[1:]]; main()"
    )
    for args in (
        ["predict", text_model, "--title", "lamp"],
        ["evaluate", text_model, tiny_catalog.folder, "--out", tmp_path / "r"],
    ):
        subprocess.run([sys.executable, "-c", program, *map(str, args)], check=True, capture_output=True)
