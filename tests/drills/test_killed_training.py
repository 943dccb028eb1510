"""A training with texts and pictures, killed -9 at random moments: it always resumes to the same files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shelver.catalog.ingest import ingest
from shelver.datasets.generated import write_demo
from shelver.registry import MANIFEST

PROGRAM = "import sys; from shelver.cli import main; sys.argv = ['shelver', *sys.argv[1:]]; main()"
N_PRODUCTS = 1_200
N_KILLS = 5


def start(arguments: list[str], cache: Path) -> subprocess.Popen[bytes]:
    # All cores, as users have them: several threads must not cost the repeatability either.
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment["SHELVER_CACHE"] = str(cache)
    call = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def core(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.drill
def test_a_training_killed_at_five_random_moments_resumes_to_the_same_files(tmp_path: Path) -> None:
    ingest(write_demo(tmp_path / "feed", n_products=N_PRODUCTS), tmp_path / "catalog")
    arguments = ["train", str(tmp_path / "catalog"), "--refit", "--out"]
    unbroken = tmp_path / "unbroken"
    started = time.monotonic()
    assert start([*arguments, str(unbroken)], tmp_path / "cache-0").wait() == 0
    seconds = time.monotonic() - started
    rng = random.Random(0)
    for kill in range(1, N_KILLS + 1):
        broken, cache = tmp_path / f"broken-{kill}", tmp_path / f"cache-{kill}"
        process = start([*arguments, str(broken)], cache)
        # The n-th kill falls into the n-th fifth of the time that the whole training takes.
        time.sleep(seconds * (kill - 1 + rng.random()) / N_KILLS * 0.95)
        process.kill()
        process.wait()
        assert not (broken / MANIFEST).exists(), "the training was over before it could be killed"
        resumed = ["--resume"] if (broken / "run" / "config.json").exists() else []
        assert start([*arguments, str(broken), *resumed], cache).wait() == 0
        assert core(broken) == core(unbroken)
