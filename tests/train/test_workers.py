"""Several processes that train one model: what they learn is what one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from shelver.catalog.store import Catalog
from shelver.errors import ConfigError
from shelver.pipeline import Classifier
from shelver.registry import read_manifest
from shelver.train import workers
from shelver.train.config import load_config
from shelver.train.run import train

# Nothing random but the first weights and the order of products, so that shares of a step add up to the step.
CONFIG: Final = """
from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
config = TrainConfig(text_encoder="ngram", image_encoder="colour", image=ImageSpec(height_px=32, width_px=32),
                     text_width=16, hidden=16, epochs=3, batch_size=7, lr=1e-2, linear=True, folds=0, refit=True,
                     patience=2, dropout=0, image_dropout=0, ngram_dropout=0, drop_text=0, drop_image=0)
"""


def start(n_processes: int, *arguments: object, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SHELVER_CACHE": str(cache), "OMP_NUM_THREADS": "1", "SHELVER_THREADS": "1"}
    call = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n_processes, "-m", "shelver"]
    return subprocess.run(
        [sys.executable, *map(str, [*call, *arguments])],
        env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def by_two(
    tiny_catalog: Catalog, config: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("two")
    arguments = ["train", tiny_catalog.folder, "--out", folder / "model", "--config", config]
    return folder / "model", start(2, *arguments, "--json", cache=folder / "cache")


def test_two_processes_learn_what_one_learns(
    by_two: tuple[Path, subprocess.CompletedProcess[str]], tiny_catalog: Catalog, config: Path, tmp_path: Path
) -> None:
    model, ended = by_two
    assert ended.returncode == 0, ended.stderr
    train(tiny_catalog, tmp_path / "one", load_config(config), cache=tmp_path, threads=1, say=lambda line: None)
    two, one = Classifier.open(model, threads=1), Classifier.open(tmp_path / "one", threads=1)
    products = [p for batch in tiny_catalog.products() for p in batch]
    of_two, of_one = two.embed(products), one.embed(products)
    for texts, images in ((True, True), (True, False), (False, True)):
        by_one, by_two_ = (
            classifier.emb2prob(seen.text if texts else None, seen.image if images else None).nodes
            for classifier, seen in ((one, of_one), (two, of_two))
        )
        np.testing.assert_allclose(by_two_, by_one, atol=1e-4)
    believed, expected = (np.array(c.manifest.calibration.weights["both"]) for c in (two, one))
    np.testing.assert_allclose(believed, expected, atol=1e-3)


def test_the_folder_is_written_once_and_only_the_first_process_speaks(
    by_two: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    model, ended = by_two
    answer = json.loads(ended.stdout)  # one process's result, not two
    assert answer["model_version"] == read_manifest(model).model_version
    assert ended.stderr.count("exporting\n") == 1
    assert ended.stderr.count("learning again from train and validation") == 1
    rows = [json.loads(line) for line in (model / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [(row["phase"], row["step"]) for row in rows]
    assert len(set(steps)) == len(steps)
    assert {phase for phase, _ in steps} == {"choose", "refit"}
    assert not list((model / "run").glob("staged*"))
    assert not (model / "run" / "checkpoint").exists()


def test_a_mistake_ends_all_processes(tiny_catalog: Catalog, by_two: tuple[Path, object], tmp_path: Path) -> None:
    ended = start(2, "train", tiny_catalog.folder, "--out", by_two[0], cache=tmp_path)
    assert ended.returncode != 0
    assert "already holds a model" in ended.stderr


def test_alone_a_process_is_the_first_of_one() -> None:
    workers.join(torch.device("cpu"))
    assert (workers.count(), workers.rank()) == (1, 0)
    rows = np.arange(5)
    assert workers.share(rows).tolist() == rows.tolist()
    assert workers.agree(0.25) == 0.25
    assert workers.total(torch.tensor(3.0)).item() == 3.0
    with workers.first_alone():
        workers.meet()
    workers.leave()


def test_the_shares_of_a_step_are_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).permutation(11)
    monkeypatch.setattr(workers, "count", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(workers, "rank", lambda rank=rank: rank)
        shares.append(workers.share(rows))
    assert sorted(np.concatenate(shares).tolist()) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_gpu_is_taken_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def sees(n_gpus: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)

    sees(0)
    assert workers.device_for("auto") == workers.device_for("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        workers.device_for("cuda")
    sees(2)
    assert workers.device_for("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert workers.device_for("auto") == torch.device("cuda", 1)
    monkeypatch.delenv("LOCAL_RANK")
    assert workers.device_for("cuda") == torch.device("cuda", 0)


def test_threads_that_wait_sleep_before_torch_could_decide_otherwise() -> None:
    said = "import os, sys, shelver.train; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for given, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
        done = subprocess.run(
            [sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected, "False"]
