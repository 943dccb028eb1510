"""The folder of a training: what the run is, what it may write over, and where its files wait until whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from shelver import registry
from shelver.errors import ConfigError, ModelError
from shelver.train import workers
from shelver.train.checkpoint import Checkpoints
from shelver.train.config import TrainConfig

RUN: Final = "run"


@contextmanager
def staging(run: Path) -> Iterator[Path]:
    """A folder for the files that become the core; whatever lay there is gone first, so that nothing that a killed
    run left half written becomes a part of it."""
    staged = run / ("staged" if not workers.rank() else f"staged-{workers.rank()}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    yield staged
    shutil.rmtree(staged, ignore_errors=True)


def refuse_strangers(out: Path) -> None:
    """A model folder holds a model and nothing else: a catalog or somebody's files in it would be written over."""
    registry.refuse_existing(out)
    found = {path.name for path in out.iterdir()} - {RUN} if out.is_dir() else set()
    if found and not (out / RUN / "config.json").is_file():
        raise ModelError(
            f"{out} holds other files, for example {min(found)}",
            allowed="a new or empty folder",
            remedy="Name another --out; nothing was touched.",
        )


def tidy(run: Path) -> None:
    """Remove what only an unfinished run needs."""
    Checkpoints(run / "checkpoint").remove()
    for left in run.glob("staged*"):
        shutil.rmtree(left, ignore_errors=True)


def open_run(out: Path, record: dict[str, Any], *, resume: bool) -> None:
    """Record what the run is, or check that the run to resume is the same.

    Args:
        out: the model folder.
        record: what decides the model: "config", "catalog", and what else there is.
        resume: go on with the run that stands there.

    Raises:
        ModelError: there is no run to resume, or one that must be resumed.
        ConfigError: the run to resume is another one.
    """
    run = out / RUN
    file = run / "config.json"
    if resume:
        if not file.is_file():
            raise ModelError(
                f"{out} holds no run to resume",
                allowed="the --out folder of a training that was cut off",
                remedy="Train without --resume.",
            )
        before = json.loads(file.read_text(encoding="utf-8"))
        if before != record:
            now, then = record["config"], before["config"]
            differing = sorted(f"{k} = {now[k]}, was {then.get(k)}" for k in now if then.get(k) != now[k])
            raise ConfigError(
                f"the run in {run} was started "
                + (
                    f"with other settings ({'; '.join(differing)})"
                    if differing
                    else "from another base"
                    if before.get("base") != record.get("base")
                    else "on another catalog"
                ),
                allowed="the same catalog and the same settings",
                remedy="Leave the flags out, since --resume knows them, or train into another folder.",
            )
        return
    # A run without a checkpoint, such as one refused for its settings, has lost nothing: it may start again.
    if file.is_file() and (run / "checkpoint").is_dir():
        raise ModelError(
            f"{out} holds an unfinished training",
            allowed="an empty --out folder, or --resume",
            remedy=f"Add --resume to go on with it, or remove {run}.",
        )
    partial = file.with_name("config.json.partial")
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(file)


def recorded_config(out: Path) -> TrainConfig | None:
    """The settings of the run in a model folder, or None where there is none."""
    file = out / RUN / "config.json"
    if not file.is_file():
        return None
    return TrainConfig.model_validate(json.loads(file.read_text(encoding="utf-8"))["config"])
