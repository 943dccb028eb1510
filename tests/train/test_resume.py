"""A training that is cut off anywhere and resumed gives the weights of one that was not, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shelver.train import loop, phases
from shelver.train.checkpoint import Checkpoints
from shelver.train.phases import Fitted

if TYPE_CHECKING:
    from conftest import Bench

Benches = Callable[..., "Bench"]


class CutError(Exception):
    """The end of the process, as far as a test inside one can have it."""


def cut_at(patch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:
    """Have the call-th call of a function end the run instead."""
    real, calls = getattr(module, name), 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise CutError
        return real(*args, **kwargs)

    patch.setattr(module, name, function)


def content(fitted: Fitted) -> tuple[bytes, str]:
    weights = b"".join(value.numpy().tobytes() for value in fitted.built.model.state_dict().values())
    return weights, fitted.chosen.model_dump_json()


def figures(folder: Path) -> list[tuple[str, int, float | None]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["phase"], row["step"], row.get("validation_loss")) for row in rows]


def assert_cut_makes_no_difference(
    small: Bench, tmp_path: Path, cuts: list[tuple[Any, str, int]], *, every_step: bool
) -> None:
    unbroken = small.learn(tmp_path / "unbroken")
    for module, name, call in cuts:
        with pytest.MonkeyPatch.context() as patch:
            if every_step:
                patch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
            cut_at(patch, module, name, call)
            with pytest.raises(CutError):
                small.learn(tmp_path / "broken")
    resumed = small.learn(tmp_path / "broken")
    assert content(resumed) == content(unbroken)
    assert figures(tmp_path / "broken") == figures(tmp_path / "unbroken")


@pytest.mark.parametrize("every_step", [True, False], ids=["a checkpoint a step", "a checkpoint an epoch"])
@pytest.mark.parametrize("step", [1, 3, 6, 7, 20])
def test_cut_in_a_step(bench: Benches, tmp_path: Path, step: int, every_step: bool) -> None:
    # Six steps an epoch: cut in the first step, in an epoch, in its last step, in the next one's first.
    assert_cut_makes_no_difference(bench(), tmp_path, [(loop, "_step", step)], every_step=every_step)


def test_cut_again_and_again(bench: Benches, tmp_path: Path) -> None:
    cuts = [(loop, "_step", 2), (loop, "judge", 1), (loop, "_step", 3), (loop, "_step", 9), (loop, "judge", 2)]
    assert_cut_makes_no_difference(bench(), tmp_path, cuts, every_step=True)


def test_cut_after_an_epoch_was_judged_but_before_it_was_saved(bench: Benches, tmp_path: Path) -> None:
    assert_cut_makes_no_difference(bench(), tmp_path, [(Checkpoints, "save", 2)], every_step=False)


def test_cut_when_patience_has_run_out(bench: Benches, tmp_path: Path) -> None:
    small = bench(epochs=40, patience=1, lr=0.1)
    cuts = [(phases, "fit_calibration", 1), (phases, "fit_calibration", 1), (phases, "judge", 1)]
    assert_cut_makes_no_difference(small, tmp_path, cuts, every_step=False)
    assert len(figures(tmp_path / "broken")) < 40


def test_cut_in_the_last_epoch_of_patience(bench: Benches, tmp_path: Path) -> None:
    small = bench(epochs=40, patience=1, lr=0.1)
    n_epochs = len(figures_of(small, tmp_path / "count"))
    cuts = [(loop, "judge", n_epochs)]
    assert_cut_makes_no_difference(small, tmp_path, cuts, every_step=True)


def figures_of(small: Bench, folder: Path) -> list[tuple[str, int, float | None]]:
    small.learn(folder)
    return figures(folder)


@pytest.mark.parametrize(
    "cuts",
    [
        [(Checkpoints, "begin", 1)],
        [(phases, "RunLog", 2)],
        [(loop, "_step", 26)],
        [(loop, "_step", 24), (loop, "_step", 2), (loop, "_step", 3), (loop, "_step", 3)],
    ],
    ids=["before it", "as it begins", "in it", "before it and in it, several times"],
)
def test_cut_around_and_in_the_refit(bench: Benches, tmp_path: Path, cuts: list[tuple[Any, str, int]]) -> None:
    assert_cut_makes_no_difference(bench(refit=True, patience=0), tmp_path, cuts, every_step=True)


def test_a_finished_training_that_is_resumed_changes_nothing(bench: Benches, tmp_path: Path) -> None:
    for refit in (False, True):
        small = bench(refit=refit)
        folder = tmp_path / str(refit)
        first = small.learn(folder)
        rows = (folder / "metrics.jsonl").read_bytes()
        assert content(small.learn(folder)) == content(first)
        assert (folder / "metrics.jsonl").read_bytes() == rows


def test_a_row_of_figures_that_was_half_written_is_dropped(bench: Benches, tmp_path: Path) -> None:
    small = bench()
    unbroken = small.learn(tmp_path / "unbroken")
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, loop, "_step", 9)
        with pytest.raises(CutError):
            small.learn(tmp_path / "broken")
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "choose", "step": 12, "ep')
    assert content(small.learn(tmp_path / "broken")) == content(unbroken)
    assert figures(tmp_path / "broken") == figures(tmp_path / "unbroken")


@pytest.mark.parametrize(("text", "image"), [(True, False), (False, True)])
def test_a_model_of_one_modality_resumes_as_well(bench: Benches, tmp_path: Path, text: bool, image: bool) -> None:
    small = bench(text=text, image=image)
    assert_cut_makes_no_difference(small, tmp_path, [(loop, "_step", 8)], every_step=True)


@pytest.mark.parametrize("head", ["tree", "levels"])
def test_a_model_of_every_expert_resumes_as_well(bench: Benches, tmp_path: Path, head: str) -> None:
    small = bench(frozen=True, linear=True, head=head, refit=True, label_smoothing=0.1, balance=0.5)
    experts = small.learn(tmp_path / "count").built.model.head.named()
    assert list(experts) == ["text", "ngram", "image", "joint", "linear"]
    cuts = [(loop, "_step", 9), (Checkpoints, "begin", 1), (loop, "_step", 5)]
    assert_cut_makes_no_difference(small, tmp_path, cuts, every_step=True)


@pytest.mark.parametrize(
    "cuts",
    [
        [(loop, "_step", 20)],
        [(phases, "fit_calibration", 1)],
        [(Checkpoints, "begin", 1)],
        [(loop, "_step", 45), (loop, "_step", 3)],
    ],
    ids=["in a fold", "when all folds are done", "before the last phase", "in the last phase, twice"],
)
def test_a_cross_validated_training_resumes_as_well(
    bench: Benches, tmp_path: Path, cuts: list[tuple[Any, str, int]]
) -> None:
    small = bench(folds=3, epochs=2, linear=True)
    assert_cut_makes_no_difference(small, tmp_path, cuts, every_step=True)
    assert {phase for phase, _, _ in figures(tmp_path / "broken")} == {"refit"}
