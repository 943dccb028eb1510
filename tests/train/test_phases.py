"""The two phases of learning, on a problem of ninety products."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from shelver.calibrate import Calibration
from shelver.errors import CatalogError, ConfigError
from shelver.pipeline import Embedding
from shelver.train.checkpoint import Progress, Stopwatch
from shelver.train.data import Examples, Features
from shelver.train.loop import held_out, judge_first
from shelver.train.phases import Fitted, _batch_size, _for_levels

if TYPE_CHECKING:
    from conftest import Bench

Benches = Callable[..., "Bench"]


def rows_of(folder: Path) -> list[dict[str, float | str]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def accuracy(fitted: Fitted, examples: Examples) -> float:
    """Of the most probable place, asked as `Emb2Prob` would be."""
    features = Features.of(examples, fitted.built.vocabulary)
    if fitted.built.linear is not None and features.ngrams is not None:
        features = replace(features, wide=fitted.built.linear.of_ngrams(features.ngrams))
    return judge_first(held_out(fitted.built.model, features), fitted.tasks, fitted.chosen.calibration)["accuracy"]


@pytest.mark.parametrize("linear", [False, True])
def test_one_model_learns_to_answer_from_text_from_picture_and_from_both(
    bench: Benches, tmp_path: Path, linear: bool
) -> None:
    small = bench(epochs=30, linear=linear)
    fitted = small.learn(tmp_path, n=300, n_held=100)
    fresh = small.examples(200, 9)
    assert fresh.image is not None
    accuracies = {}
    for name, text, image in (("text", True, False), ("image", False, True), ("both", True, True)):
        has = np.array([t is not None for t in fresh.texts])
        keep = np.flatnonzero(has & fresh.image.present)
        asked = Examples(
            [fresh.texts[i] if text else None for i in keep],
            Embedding(fresh.image.values[keep], fresh.image.present[keep] & image),
            fresh.node[keep],
            fresh.value[keep],
        )
        accuracies[name] = accuracy(fitted, asked)
    assert accuracies["text"] > 0.9
    assert accuracies["image"] > 0.5
    assert accuracies["both"] > 0.9
    for weights in fitted.chosen.calibration.weights.values():
        assert (np.array(weights).sum(axis=0) > 0).all()


def test_products_may_stop_where_training_products_stand(bench: Benches, tmp_path: Path) -> None:
    fitted = bench(epochs=1).learn(tmp_path)
    assert fitted.tasks.groups is not None
    assert np.flatnonzero(fitted.tasks.groups.here_slot >= 0).tolist() == [1]  # Toys


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(bench: Benches, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        fitted = bench(epochs=1, seed=seed).learn(tmp_path / name)
        return b"".join(value.numpy().tobytes() for value in fitted.built.model.state_dict().values())

    first = weights("a", 0)
    assert weights("b", 0) == first
    assert weights("c", 1) != first


def test_training_ends_when_validation_no_longer_improves_and_keeps_the_best(
    bench: Benches, tmp_path: Path
) -> None:
    fitted = bench(epochs=40, patience=2, lr=0.1).learn(tmp_path)
    rows = rows_of(tmp_path)
    per_epoch = -(-90 // 16)
    assert len(rows) < 40
    scores = [(row["validation_accuracy"], -float(row["validation_loss"])) for row in rows]
    best = scores.index(max(scores))
    assert len(rows) - 1 - best == 2
    usable = int(fitted.chosen.steps)
    assert usable == rows[best]["step"]
    assert rows[0]["step"] in range(per_epoch - 1, per_epoch + 1)
    # Early stopping weighs all experts alike; the weights that were then fitted are no worse on the same products.
    assert fitted.chosen.validation["loss"] < float(rows[best]["validation_loss"]) + 0.05


def test_an_epoch_is_a_pass_over_the_products_that_can_be_learned_from(bench: Benches, tmp_path: Path) -> None:
    small = bench(image=False, epochs=3, patience=0, batch_size=10)
    learned = small.examples(100, 1)
    texts = [t if i < 40 else None for i, t in enumerate(learned.texts)]
    bare = Examples(texts, None, learned.node, learned.value)
    n = sum(t is not None for t in bare.texts)
    small.trainer(tmp_path).learn(bare, small.examples(40, 2), Progress())
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [-(-n // 10) * epoch for epoch in (1, 2, 3)]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_a_refit_takes_the_chosen_epochs_over_train_and_validation(bench: Benches, tmp_path: Path) -> None:
    said: list[str] = []
    small = bench(epochs=6, refit=True)
    trainer = small.trainer(tmp_path, said.append)
    fitted = trainer.learn(small.examples(90, 1), small.examples(40, 2), Progress())
    assert len(fitted.learned) == 130
    progress = trainer.checkpoints.progress()
    assert progress is not None
    usable = Features.of(small.examples(90, 1) + small.examples(40, 2), fitted.built.vocabulary).usable()
    assert fitted.chosen.epochs == 6
    assert (progress.phase, progress.step) == ("refit", 6 * -(-len(usable) // 16))
    phases = [row["phase"] for row in rows_of(tmp_path)]
    assert phases == sorted(phases)
    assert set(phases) == {"choose", "refit"}
    assert any("learning again from train and validation together, 130 products" in line for line in said)
    once = bench(epochs=6).learn(tmp_path / "once")
    assert fitted.chosen == once.chosen
    assert len(once.learned) == 90
    assert fitted.built.vocabulary is not None
    assert once.built.vocabulary is not None
    assert len(fitted.built.vocabulary) > len(once.built.vocabulary)


@pytest.mark.parametrize("refit", [False, True])
def test_without_a_validation_split_training_goes_through_all_epochs(
    bench: Benches, tmp_path: Path, refit: bool
) -> None:
    said: list[str] = []
    small = bench(epochs=3, refit=refit)
    fitted = small.trainer(tmp_path, said.append).learn(small.examples(90, 1), small.examples(0, 2), Progress())
    experts = {name: expert.needs for name, expert in fitted.built.model.head.named().items()}
    assert fitted.chosen.calibration == Calibration.even(experts, 3)
    assert fitted.chosen.validation == {}
    assert [row["phase"] for row in rows_of(tmp_path)] == ["choose"] * 3
    assert any("no validation split" in line for line in said)


def test_a_validation_split_that_the_model_cannot_read_is_as_none(bench: Benches, tmp_path: Path) -> None:
    small = bench(image=False, epochs=7, patience=1)
    held = small.examples(20, 2)
    unreadable = Examples([None] * 20, None, held.node, held.value)
    fitted = small.trainer(tmp_path).learn(small.examples(90, 1), unreadable, Progress())
    assert len(rows_of(tmp_path)) == 7
    assert fitted.chosen.validation == {}


def test_a_refit_still_learns_where_the_held_out_products_cannot_be_read(bench: Benches, tmp_path: Path) -> None:
    small = bench(image=False, epochs=3, refit=True)
    held = small.examples(20, 2)
    unreadable = Examples([None] * 20, None, held.node, held.value)
    fitted = small.trainer(tmp_path).learn(small.examples(90, 1), unreadable, Progress())
    assert fitted.chosen.steps > 0


def test_nothing_to_learn_from_is_an_error_that_says_so(bench: Benches, tmp_path: Path) -> None:
    small = bench(image=False)
    bare = Examples([None] * 30, None, np.full(30, 3, np.int32), np.full(30, np.nan, np.float32))
    with pytest.raises(CatalogError, match="has a text or a picture to learn from"):
        small.trainer(tmp_path).learn(bare, bare, Progress())


@pytest.mark.parametrize(
    "texts",
    [["🎉"] * 30, ["!!!", None] * 15, ["one"] * 30],
    ids=["only emoji", "only punctuation", "one word"],
)
@pytest.mark.parametrize("linear", [False, True])
def test_texts_without_a_word_are_learned_from_as_far_as_they_go(
    bench: Benches, tmp_path: Path, texts: list[str | None], linear: bool
) -> None:
    small = bench(image=False, epochs=2, linear=linear)
    node = np.tile(np.array([3, 4], np.int32), 15)
    examples = Examples(texts, None, node, np.full(30, np.nan, np.float32))
    fitted = small.trainer(tmp_path).learn(examples, examples, Progress())
    assert 0 <= accuracy(fitted, examples) <= 1


@pytest.mark.parametrize("folds", [0, 2])
def test_one_product_of_one_category_can_be_learned(bench: Benches, tmp_path: Path, folds: int) -> None:
    small = bench(epochs=1, linear=True, folds=folds)
    fitted = small.learn(tmp_path, n=1, n_held=1)
    assert all(torch.isfinite(value).all() for value in fitted.built.model.state_dict().values())


@pytest.mark.parametrize("refit", [False, True])
def test_a_short_time_limit_still_gives_a_model(bench: Benches, tmp_path: Path, refit: bool) -> None:
    fitted = bench(epochs=100_000, patience=0, time_limit_s=1.0, refit=refit).learn(tmp_path)
    assert fitted.chosen.steps >= 1
    rows = rows_of(tmp_path)
    assert {row["phase"] for row in rows} == ({"choose", "refit"} if refit else {"choose"})


def test_a_time_limit_that_reading_has_used_up_is_an_error_that_says_so(bench: Benches, tmp_path: Path) -> None:
    small = bench(time_limit_s=20.0)
    trainer = replace(small.trainer(tmp_path), watch=Stopwatch(spent_s=19.0))
    with pytest.raises(ConfigError, match="19 s went into reading"):
        trainer.learn(small.examples(90, 1), small.examples(40, 2), Progress())


def test_a_time_limit_ends_training_and_lets_the_learning_rate_fall_by_the_clock(
    bench: Benches, tmp_path: Path
) -> None:
    small = bench(epochs=100_000, patience=0, time_limit_s=2.0)  # a quarter of it is kept for the export
    trainer = small.trainer(tmp_path)
    fitted: Fitted = trainer.learn(small.examples(90, 1), small.examples(40, 2), Progress())
    progress = trainer.checkpoints.progress()
    assert progress is not None
    assert 1.0 <= progress.elapsed_s < 60.0  # a busy machine is slow to look at the clock
    assert 0 < fitted.chosen.steps <= progress.step


def test_batches_grow_with_the_catalog_within_bounds() -> None:
    sizes = [_batch_size(n) for n in (0, 1, 1_000, 30_000, 200_000, 10_000_000)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (64, 512)


def test_few_products_are_all_learned_from_and_each_is_held_out_once(bench: Benches, tmp_path: Path) -> None:
    said: list[str] = []
    small = bench(epochs=20, folds=4, linear=True)
    learned, held = small.examples(90, 1), small.examples(40, 2)
    trainer = small.trainer(tmp_path, said.append)
    fitted = trainer.learn(learned, held, Progress())
    assert [line for line in said if line.startswith("cross-validation")] == [
        f"cross-validation: fold {fold} of 4" for fold in (1, 2, 3, 4)
    ]
    assert len(fitted.learned) == 130
    assert fitted.chosen.epochs == 20
    # Held-out accuracy, not that of products that were learned from.
    assert 0.5 < fitted.chosen.validation["accuracy"] < accuracy(fitted, learned + held)
    assert accuracy(fitted, small.examples(200, 9)) > 0.8
    assert {row["phase"] for row in rows_of(tmp_path)} == {"refit"}


def test_without_a_text_or_a_picture_the_model_of_both_answers_as_those_of_one(
    bench: Benches, tmp_path: Path
) -> None:
    # The experts are apart: what a text expert learned does not depend on whether there were pictures.
    both = bench(epochs=20, linear=True)
    alone = bench(epochs=20, linear=True, image=False)
    of_both, of_text = both.learn(tmp_path / "both", n=300), alone.learn(tmp_path / "text", n=300)
    fresh = both.examples(400, 9)
    texts = Examples(fresh.texts, None, fresh.node, fresh.value)
    assert fresh.image is not None
    hidden = replace(fresh, image=Embedding(np.zeros_like(fresh.image.values), np.zeros(400, np.bool_)))
    assert accuracy(of_both, hidden) == pytest.approx(accuracy(of_text, texts), abs=0.03)


@pytest.mark.parametrize("head", ["tree", "levels"])
def test_either_head_learns_the_tree(bench: Benches, tmp_path: Path, head: str) -> None:
    small = bench(epochs=25, head=head, image=False)
    fitted = small.learn(tmp_path, n=300)
    fresh = small.examples(200, 9)
    keep = np.flatnonzero([t is not None for t in fresh.texts])
    assert accuracy(fitted, fresh.rows(keep)) > 0.9


def test_the_last_level_weight_goes_on_for_deeper_levels() -> None:
    assert _for_levels(None, 3) is None
    assert _for_levels((2.0, 1.0), 4) == [2.0, 1.0, 1.0, 1.0]
    assert _for_levels((2.0, 1.0, 0.5), 2) == [2.0, 1.0]


def test_balance_and_value_change_what_is_learned(bench: Benches, tmp_path: Path) -> None:
    def weights(name: str, **config: object) -> bytes:
        small = bench(epochs=1, **config)
        learned, held = small.examples(90, 1), small.examples(40, 2)
        learned = replace(learned, value=np.linspace(1, 9, 90, dtype=np.float32))
        fitted = small.trainer(tmp_path / name).learn(learned, held, Progress())
        return b"".join(value.numpy().tobytes() for value in fitted.built.model.state_dict().values())

    found = {weights("plain"), weights("balance", balance=0.5), weights("value", value_weight=0.5)}
    assert len(found) == 3
