"""Sweeps: what a grid means, and that cut-off, failed and finished points are each treated as they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.cli import main
from shelver.compare import read_comparison
from shelver.datasets.generated import write_demo
from shelver.errors import CatalogError, ConfigError
from shelver.sweep import Sweep, load_sweep, run_sweep
from shelver.train.config import TrainConfig

REPO = Path(__file__).parent.parent
SMALL: dict[str, Any] = {
    "text_encoder": "ngram",
    "image_encoder": "none",
    "text_width": 16,
    "hidden": 16,
    "epochs": 3,
    "batch_size": 8,
    "linear": True,
}
FILE = f"""
from shelver.sweep import Sweep
from shelver.train.config import TrainConfig
sweep = Sweep(
    base=TrainConfig(**{SMALL!r}),
    points={{
        "tree": {{"head": "tree"}},
        "empty": {{"text_encoder": "none"}},
        "levels": {{"head": "levels", "refit": True}},
    }},
)
"""


def quiet(line: str) -> None:
    pass


def sweep_of(**fields: Any) -> Sweep:
    return Sweep(base=TrainConfig.model_validate(SMALL), **fields)


def test_a_grid_is_every_combination_and_points_are_what_was_named() -> None:
    grid = sweep_of(grid={"head": ("tree", "levels"), "level_weights": (None, (2.0, 1.0)), "lr": (1e-3,)})
    configs = grid.configs()
    assert list(configs) == [
        "head=tree,level_weights=None,lr=0.001",
        "head=tree,level_weights=2-1,lr=0.001",
        "head=levels,level_weights=None,lr=0.001",
        "head=levels,level_weights=2-1,lr=0.001",
    ]
    last = configs["head=levels,level_weights=2-1,lr=0.001"]
    assert (last.head, last.level_weights, last.lr, last.hidden) == ("levels", (2.0, 1.0), 1e-3, 16)
    points = sweep_of(points={"slow": {"epochs": 40}, "fast": {"epochs": 2}}).configs()
    assert {name: config.epochs for name, config in points.items()} == {"slow": 40, "fast": 2}
    assert len(sweep_of(grid={"seed": (1, 1, 2)}).configs()) == 2


def test_a_points_folder_is_named_after_its_values_whatever_they_hold() -> None:
    encoders = ("hf:org/one", "hf:org:one", "ngram+" + "+".join(f"hf:{'x' * 40}{i}" for i in range(4)))
    names = list(sweep_of(grid={"text_encoder": encoders}).configs())
    assert len(set(names)) == 3
    for name in names:
        assert Path(name).name == name
        assert len(name) <= 100
    # The same settings keep their name when the grid grows.
    assert names[0] in sweep_of(grid={"text_encoder": ("ngram", *encoders)}).configs()


def test_points_do_not_learn_from_the_products_that_they_are_judged_by_unless_told_to() -> None:
    plain = sweep_of(grid={"head": ("tree",)}).configs()
    assert all(config.refit is False and config.folds == 0 for config in plain.values())
    told = sweep_of(points={"a": {"refit": True}, "b": {"folds": 5}, "c": {}}).configs()
    assert [(config.refit, config.folds) for config in told.values()] == [(True, 0), (False, 5), (False, 0)]
    based = Sweep(base=TrainConfig(refit=True), grid={"head": ("tree",)}).configs()
    assert all(config.refit is True for config in based.values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either a grid or points"),
        ({"grid": {"seed": (1,)}, "points": {"a": {}}}, "either a grid or points"),
        ({"grid": {"seed": ()}}, "values for seed"),
        ({"grid": {"seed": tuple(range(25))}}, "at most max_points = 24 points, these are 25"),
        ({"grid": {"seed": (1, 2, 3), "head": ("tree", "levels")}, "max_points": 5}, "these are 6"),
        ({"points": {"a/b": {}}}, "names that can be folders, unlike 'a/b'"),
        ({"points": {"..": {}}}, "names that can be folders"),
    ],
)
def test_what_is_no_sweep_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        sweep_of(**fields)


def test_impossible_settings_are_told_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"point epochs=-1: epochs = -1"):
        sweep_of(grid={"epochs": (3, -1)}).configs()
    with pytest.raises(ConfigError, match="wings"):
        sweep_of(grid={"wings": (3,)}).configs()
    with pytest.raises(ConfigError, match=r"base=TrainConfig"):
        Sweep(base=sweep_of(points={"a": {}}), points={"a": {}}).configs()


def test_a_sweeps_file_is_a_python_file_that_defines_it(tmp_path: Path) -> None:
    example = load_sweep(REPO / "configs" / "sweep_text.py")
    assert len(example.configs()) == 8
    for number, (text, said) in enumerate(
        [
            ("sweep = 3", "defines sweep = 3"),
            ("1 / 0", "fails: ZeroDivisionError"),
            (FILE.replace("points=", "grid={'seed': (1,)}, points="), "either a grid or points"),
        ]
    ):
        file = tmp_path / f"{number}.py"
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_sweep(file)
    with pytest.raises(ConfigError, match="no sweep file"):
        load_sweep(tmp_path / "none.py")


def test_a_sweep_trains_compares_on_validation_names_what_failed_and_goes_on_where_it_stopped(
    tiny_catalog: Catalog,
    embeddings_cache: Path,
    empty_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = empty_settings / "sweep.py", empty_settings / "out"
    file.write_text(FILE)
    monkeypatch.setenv("SHELVER_CACHE", str(embeddings_cache))

    def run() -> tuple[int, str, str]:
        call = ["shelver", "sweep", file, tiny_catalog.folder, "--out", out]
        monkeypatch.setattr(sys, "argv", [str(word) for word in call])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    status, said, told = run()
    assert status == 1
    assert "point 1 of 3: tree" in told
    assert "point 3 of 3: levels, less than a minute left" in told
    assert "point empty failed: nothing to learn from" in told
    assert "failed: empty" in said
    record = json.loads((out / "sweep.json").read_text())
    assert [point["status"] for point in record["points"]] == ["trained", "failed", "trained"]
    assert [point["learned_from_validation"] for point in record["points"]] == [False, False, True]
    comparison = read_comparison(out / "compare.json")
    assert comparison.split == "validation"
    assert [model.name for model in comparison.models] == ["tree", "levels"]
    assert comparison.n == tiny_catalog.info.by_split["validation"]
    assert any("evaluate it on test, once" in note for note in comparison.notes)
    [note] = [note for note in comparison.notes if "Not to be judged here" in note]
    assert note.endswith("(refit or folds): levels.")
    assert (out / "compare.html").is_file()

    trained = {name: (out / name / "manifest.json").stat().st_mtime_ns for name in ("tree", "levels")}
    file.write_text(FILE.replace('"text_encoder": "none"', '"seed": 5'))
    with pytest.raises(ConfigError, match=r"begun with other settings .*text_encoder"):
        run_sweep(load_sweep(file), tiny_catalog, out, cache=embeddings_cache, say=quiet)
    file.write_text(FILE.replace('"empty": {"text_encoder": "none"},', ""))
    status, said, _ = run()
    assert status == 0
    record = json.loads((out / "sweep.json").read_text())
    assert [point["status"] for point in record["points"]] == ["was there", "was there"]
    assert trained == {name: (out / name / "manifest.json").stat().st_mtime_ns for name in trained}
    assert "failed" not in said


def test_a_point_that_was_cut_off_goes_on_to_the_same_model(
    tiny_catalog: Catalog, embeddings_cache: Path, tmp_path: Path
) -> None:
    def run(out: Path, say: Callable[[str], None] = quiet) -> str:
        sweep = sweep_of(points={"one": {}})
        [point] = run_sweep(sweep, tiny_catalog, out, cache=embeddings_cache, threads=1, say=say).points
        return point.model_version

    def end_the_process(line: str) -> None:
        if "epoch 2 done" in line:
            raise KeyboardInterrupt  # goes through everything that catches errors, as a kill does

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", end_the_process)
    folder = tmp_path / "broken" / "one"
    assert not (folder / "manifest.json").exists()
    assert (folder / "run" / "checkpoint").is_dir()
    assert run(tmp_path / "broken") == run(tmp_path / "unbroken")
    steps = [json.loads(line)["step"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))  # it did not begin anew


def test_without_a_validation_split_nothing_is_trained(tmp_path: Path, embeddings_cache: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title,category,split\n1,bar,Home > Bar,train\n2,lamp,Home > Lamps,train\n")
    ingest(feed, tmp_path / "catalog")
    with pytest.raises(CatalogError, match="no product in its validation split"):
        run_sweep(
            sweep_of(points={"a": {}}),
            Catalog.open(tmp_path / "catalog"),
            tmp_path / "out",
            cache=embeddings_cache,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.drill
def test_a_sweep_killed_again_and_again_ends_with_the_same_models(tmp_path: Path) -> None:
    ingest(write_demo(tmp_path / "feed", n_products=600), tmp_path / "catalog")
    file = tmp_path / "sweep.py"
    file.write_text(FILE.replace('"empty": {"text_encoder": "none"},', "").replace('"refit": True', ""))
    program = "import sys; from shelver.cli import main; sys.argv = ['shelver', *sys.argv[1:]]; main()"
    environment = {**os.environ, "SHELVER_CACHE": str(tmp_path / "cache"), "SHELVER_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-c", program, "sweep", str(file), str(tmp_path / "catalog"), "--out", str(out)]
        return subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    started = time.monotonic()
    assert start(tmp_path / "unbroken").wait() == 0
    seconds = time.monotonic() - started
    for kill in range(1, 5):
        process = start(tmp_path / "broken")
        time.sleep(seconds * (0.3 + 0.15 * kill))
        process.kill()
        process.wait()
    assert start(tmp_path / "broken").wait() == 0
    for name in ("tree", "levels"):
        versions = {registry.read_manifest(tmp_path / run / name).model_version for run in ("unbroken", "broken")}
        assert len(versions) == 1, name
