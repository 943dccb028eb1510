"""A training that can be killed at any moment: states written whole or not at all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shelver.calibrate import Calibration

STATE: Final = "state.json"
Phase = Literal["choose", "fold", "refit"]


class Chosen(BaseModel):
    """What the choosing phase found, for the refit and the export; `epochs` is `steps` in passes over products,
    `values` the calibration of each attribute."""

    model_config = ConfigDict(frozen=True)

    steps: int
    epochs: float
    calibration: Calibration
    values: dict[str, Calibration] = {}
    validation: dict[str, float]


class Progress(BaseModel):
    """Where a training stands. Mutable; the loop owns it.

    Attributes:
        phase: "choose" trains on train and judges on validation, "fold" holds a part of both out and is never
            saved, "refit" trains on both.
        step: optimizer steps done in this phase.
        elapsed_s: seconds spent, over all runs and phases.
        phase_from_s: `elapsed_s` when the phase began.
        best_step, best_score, best_loss: the best validation so far; None before the first.
        bad_epochs: epochs since then.
        chosen: set when the choosing phase has ended.
    """

    phase: Phase = "choose"
    step: int = 0
    elapsed_s: float = 0.0
    phase_from_s: float = 0.0
    best_step: int | None = None
    best_score: float | None = None
    best_loss: float | None = None
    bad_epochs: int = 0
    chosen: Chosen | None = None


class Stopwatch:
    """Seconds that a training has taken, over all its runs."""

    def __init__(self, spent_s: float) -> None:
        self._from = time.monotonic() - spent_s

    def elapsed_s(self) -> float:
        return time.monotonic() - self._from


class Checkpoints:
    """The checkpoint of one run: weights and optimizer state as safetensors, the rest in `state.json`.

    `state.json` names the files that belong together and is replaced atomically after they are on disk, so a kill
    leaves either the old state or the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        """Write the state after `progress.step` steps; where that step is the best, remember it as the best."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self._read()
        last = f"last-{progress.phase}-{progress.step:08d}.safetensors"
        tensors, scalars = _pack(model, optimizers)
        _save(tensors, self.folder / last)
        best = state.get("best")
        if progress.best_step == progress.step:
            best = f"best-{progress.phase}-{progress.step:08d}.safetensors"
            _save(dict(model.state_dict()), self.folder / best)
        self._commit(
            {"progress": progress.model_dump(mode="json"), "last": last, "best": best, "scalars": scalars}
        )

    def begin(self, progress: Progress) -> None:
        """Start a phase: nothing but its progress is kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._commit({"progress": progress.model_dump(mode="json"), "last": None, "best": None, "scalars": {}})

    def progress(self) -> Progress | None:
        """The progress that was saved last, or None."""
        state = self._read()
        return Progress.model_validate(state["progress"]) if state else None

    def restore(self, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        """Put the saved state into a freshly built model and its optimizers, if any was saved."""
        state = self._read()
        if state.get("last"):
            _unpack(load_file(self.folder / state["last"]), state["scalars"], model, optimizers)

    def load_best(self, model: nn.Module) -> None:
        """Put the best weights into the model."""
        best = self._read().get("best")
        if best:
            model.load_state_dict(load_file(self.folder / best))

    def remove(self) -> None:
        """Delete everything: the run is over and exported."""
        if self.folder.is_dir():
            for file in self.folder.iterdir():
                file.unlink()
            self.folder.rmdir()

    def _read(self) -> dict[str, Any]:
        file = self.folder / STATE
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return state

    def _commit(self, state: dict[str, Any]) -> None:
        partial = self.folder / (STATE + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / STATE)
        kept = {STATE, state["last"], state["best"]}
        for file_ in self.folder.iterdir():
            if file_.name not in kept:
                file_.unlink()


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _pack(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, float]]:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    scalars: dict[str, float] = {}
    for i, optimizer in enumerate(optimizers):
        for j, entries in optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                key = f"optimizer/{i}/{j}/{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    scalars[key] = value
    return tensors, scalars


def _unpack(
    tensors: dict[str, Tensor],
    scalars: dict[str, float],
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    prefix = "model/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for key, value in (tensors | scalars).items():
        if key.startswith("optimizer/"):
            _, i, j, name = key.split("/", 3)
            states[int(i)].setdefault(int(j), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
