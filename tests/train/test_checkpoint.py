"""Checkpoints: the same to the bit, and whole whenever the process dies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shelver.calibrate import Calibration
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.checkpoint import STATE, Checkpoints, Chosen, Progress
from shelver.train.config import TrainConfig
from shelver.train.loop import optimizers_for
from shelver.train.model import Head, ImageExpert, NgramTable, ProductModel, TextExpert
from shelver.train.tasks import Tasks

GROUPS = SiblingGroups.of(Taxonomy.from_parents(list("abcde"), list("abcde"), [None, None, 0, 0, 1]))
Optimizers = list[torch.optim.Optimizer]


def fresh(seed: int) -> tuple[ProductModel, Optimizers]:
    torch.manual_seed(seed)
    text = TextExpert(8, Tasks(GROUPS), 0.5, "tree", sentence=None, ngrams=(0, 8))
    image = ImageExpert(torch.randn(3), torch.rand(3), 16, Tasks(GROUPS), 0.5, "tree")
    model = ProductModel(NgramTable(20, 8), Head({"ngram": text, "image": image}))
    return model, optimizers_for(model, TrainConfig(lr=0.1, table_lr=0.1))


def step(model: ProductModel, optimizers: Optimizers, seed: int) -> None:
    torch.manual_seed(seed)
    assert model.table is not None
    text = model.table(torch.randint(0, 20, (6,)), torch.rand(6), torch.tensor([0, 2, 6]))
    loss = torch.stack(model.head(text, torch.randn(2, 3))).square().sum()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()


def flat(model: nn.Module, optimizers: Optimizers) -> dict[str, object]:
    values: dict[str, object] = dict(model.state_dict())
    for i, optimizer in enumerate(optimizers):
        for j, entries in optimizer.state_dict()["state"].items():
            values |= {f"{i}/{j}/{name}": value for name, value in entries.items()}
    return values


def assert_same(first: dict[str, object], second: dict[str, object]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        other = second[name]
        if isinstance(value, Tensor):
            assert isinstance(other, Tensor)
            assert value.dtype == other.dtype
            assert torch.equal(value, other), name
        else:
            assert value == other, name


def trained(n_steps: int) -> tuple[ProductModel, Optimizers]:
    model, optimizers = fresh(0)
    for seed in range(n_steps):
        step(model, optimizers, seed)
    return model, optimizers


def test_a_restored_state_is_the_saved_one_to_the_bit_and_goes_on_as_it_would_have(tmp_path: Path) -> None:
    model, optimizers = trained(3)
    Checkpoints(tmp_path).save(Progress(step=3, elapsed_s=1.5), model, optimizers)
    other, other_optimizers = fresh(99)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.restore(other, other_optimizers)
    assert_same(flat(model, optimizers), flat(other, other_optimizers))
    assert checkpoints.progress() == Progress(step=3, elapsed_s=1.5)
    for seed in (3, 4):
        step(model, optimizers, seed)
        step(other, other_optimizers, seed)
    assert_same(flat(model, optimizers), flat(other, other_optimizers))


def test_nothing_saved_is_nothing_restored(tmp_path: Path) -> None:
    model, optimizers = trained(1)
    before = {k: v.clone() if isinstance(v, Tensor) else v for k, v in flat(model, optimizers).items()}
    checkpoints = Checkpoints(tmp_path / "none")
    checkpoints.restore(model, optimizers)
    checkpoints.load_best(model)
    checkpoints.remove()
    assert checkpoints.progress() is None
    assert_same(before, flat(model, optimizers))


def test_the_best_weights_are_kept_while_later_ones_are_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    model, optimizers = trained(1)
    checkpoints.save(Progress(step=1, best_step=1), model, optimizers)
    best = {name: value.clone() for name, value in model.state_dict().items()}
    for n in (2, 3):
        step(model, optimizers, n)
        checkpoints.save(Progress(step=n, best_step=1), model, optimizers)
    assert len(list(tmp_path.iterdir())) == 3  # state, last, best
    other, _ = fresh(5)
    Checkpoints(tmp_path).load_best(other)
    assert_same(dict(best), dict(other.state_dict()))


def test_a_new_phase_begins_without_the_weights_of_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Progress(step=2, best_step=2), *trained(2))
    chosen = Chosen(
        steps=2, epochs=1.5, calibration=Calibration.even({"ngram": "text"}, 3), validation={"accuracy": 0.5}
    )
    begun = Progress(phase="refit", elapsed_s=3, chosen=chosen)
    checkpoints.begin(begun)
    assert [file.name for file in tmp_path.iterdir()] == [STATE]
    assert Checkpoints(tmp_path).progress() == begun
    model, optimizers = fresh(7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoints.restore(model, optimizers)
    checkpoints.load_best(model)
    assert_same(dict(before), dict(model.state_dict()))


class Killed(BaseException):
    """Stands in for the end of the process: nothing in the code may catch it."""


@pytest.mark.parametrize("kill_at", range(6))
def test_a_kill_between_any_two_writes_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    """A save syncs three files (last, best, state) and then renames each: die at every one of these points."""
    checkpoints = Checkpoints(tmp_path / "run")
    model, optimizers = trained(1)
    checkpoints.save(Progress(step=1, best_step=1), model, optimizers)
    old = {k: v.clone() if isinstance(v, Tensor) else v for k, v in flat(model, optimizers).items()}
    step(model, optimizers, 1)
    new = flat(model, optimizers)

    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at + 1:
            raise Killed

    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        count()
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        count()
        return real_replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            checkpoints.save(Progress(step=2, best_step=2), model, optimizers)

    again = Checkpoints(tmp_path / "run")
    assert again.progress() == Progress(step=1, best_step=1)
    restored, restored_optimizers = fresh(50)
    again.restore(restored, restored_optimizers)
    assert_same(old, flat(restored, restored_optimizers))
    again.load_best(restored)
    assert_same({k: v for k, v in old.items() if "/" not in k}, dict(restored.state_dict()))
    # The next save clears away what the killed one left.
    again.save(Progress(step=2, best_step=2), model, optimizers)
    assert len(list((tmp_path / "run").iterdir())) == 3
    other, other_optimizers = fresh(51)
    again.restore(other, other_optimizers)
    assert_same(new, flat(other, other_optimizers))


def test_leftovers_of_a_kill_are_never_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Progress(step=1), *trained(1))
    (tmp_path / f"{STATE}.partial").write_text("{")
    (tmp_path / "last-choose-00000002.safetensors").write_bytes(b"half")
    (tmp_path / "last-choose-00000002.safetensors.partial").write_bytes(b"")
    model, optimizers = fresh(3)
    checkpoints.restore(model, optimizers)
    assert_same(flat(*trained(1)), flat(model, optimizers))


def test_the_state_is_json_and_removing_it_removes_all(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(Progress(step=1, best_step=1), *trained(1))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / STATE).read_text())["progress"]["step"] == 1
    checkpoints.remove()
    assert not (tmp_path / "run").exists()
    assert Checkpoints(tmp_path / "copy").progress() == Progress(step=1, best_step=1)
