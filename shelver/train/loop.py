"""The training loop: plain, repeatable to the bit on a CPU, and resumable at every checkpoint.

Nothing random carries over from step to step: the order of the products comes from (seed, epoch), every step's
dropout from (seed, step). A resumed run therefore continues exactly as the unbroken one would have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shelver.taxonomy import SiblingGroups
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Features, Say, take
from shelver.train.losses import TreeLoss
from shelver.train.model import ProductModel
from shelver.train.optim import RowAdagrad
from shelver.train.runlog import RunLog

WARM_UP: Final = 0.05
"""Share of the steps over which the learning rate rises."""
MAX_GRADIENT_NORM: Final = 5.0
CHECKPOINT_EVERY_S: Final = 60.0
TELL_EVERY_S: Final = 5.0
MAX_JUDGED: Final = 10_000
"""Validation products that early stopping and calibration look at, at most."""
JUDGE_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a phase must end: at `at_s` of `Progress.elapsed_s`, having begun at `from_s`."""

    from_s: float
    at_s: float


def n_steps_per_epoch(n_products: int, batch_size: int) -> int:
    return -(-n_products // batch_size)


def optimizers_for(model: ProductModel, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Row-wise Adagrad for the n-gram table, AdamW for the rest."""
    rest = [p for name, p in model.named_parameters() if not name.startswith("table.")]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    ]
    if model.table is not None:
        optimizers.append(RowAdagrad(model.table.parameters(), lr=config.table_lr))
    return optimizers


def forward(
    model: ProductModel,
    features: Features,
    rows: NDArray[np.intp],
    text_present: NDArray[np.bool_],
    image_present: NDArray[np.bool_],
    *,
    ngram_dropout: float = 0.0,
) -> Tensor:
    """Scores of some rows, shape (n, M), as if only what `*_present` says were there."""
    text = text_mask = image = image_mask = None
    if model.table is not None and features.ngrams is not None:
        bags = take(features.ngrams, rows)
        weights = torch.from_numpy(bags.weights)
        if ngram_dropout:
            kept = (torch.rand_like(weights) >= ngram_dropout).to(weights.dtype)
            weights = weights * kept / (1.0 - ngram_dropout)
        text = model.table(torch.from_numpy(bags.ids).long(), weights, torch.from_numpy(bags.offsets))
        text_mask = torch.from_numpy(text_present.astype(np.float32))[:, None]
    if model.head.image is not None and features.image is not None:
        image = torch.from_numpy(features.image.values[rows].astype(np.float32))
        image_mask = torch.from_numpy(image_present.astype(np.float32))[:, None]
    scores: Tensor = model.head(text, text_mask, image, image_mask)
    return scores


def presence(features: Features, rows: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What the rows have and the model uses: (text, image), each (n,)."""
    none = np.zeros(len(rows), np.bool_)
    text = features.text_present[rows] if features.ngrams is not None else none
    image = features.image.present[rows] if features.image is not None else none
    return text, image


def train_phase(
    model: ProductModel,
    train: Features,
    validation: Features | None,
    groups: SiblingGroups,
    config: TrainConfig,
    *,
    batch_size: int,
    planned_steps: int,
    stop_at: int,
    deadline: Deadline | None,
    progress: Progress,
    watch: Stopwatch,
    checkpoints: Checkpoints,
    log: RunLog,
    say: Say,
) -> None:
    """Train until `stop_at` steps, the deadline, or no more progress on validation.

    Args:
        model: built from the seed; restored from the checkpoint where there is one. With validation it holds the
            best weights at the end, without the last.
        train: what is learned from.
        validation: what early stopping looks at after each epoch, or None.
        groups: the tree's slots.
        config: learning rates, dropout and so on.
        batch_size: products a step.
        planned_steps: the learning rate falls to zero over so many.
        stop_at: steps after which to stop, at most `planned_steps`.
        deadline: the clock's limit; the learning rate then falls with whichever is further on.
        progress: where the phase stands; updated.
        watch: the training's clock.
        checkpoints: where it is saved.
        log: the run's record.
        say: told about rate and time left.
    """
    optimizers = optimizers_for(model, config)
    peaks = [config.lr, config.table_lr][: len(optimizers)]
    checkpoints.restore(model, optimizers)
    usable = train.usable()
    per_epoch = n_steps_per_epoch(len(usable), batch_size)
    loss_of = TreeLoss(groups)
    first_step = progress.step
    begun = told = saved = time.monotonic()
    order: NDArray[np.intp] = usable
    epoch_of_order = -1
    loss_sum, loss_n = 0.0, 0
    phase = progress.phase
    salt = 0 if phase == "choose" else 1

    def share_done() -> float:
        done = progress.step / planned_steps
        if deadline is not None:
            done = max(done, (watch.elapsed_s() - deadline.from_s) / max(deadline.at_s - deadline.from_s, 1e-9))
        return min(done, 1.0)

    def out_of_patience() -> bool:
        return bool(config.patience) and progress.bad_epochs >= config.patience

    while progress.step < stop_at and share_done() < 1.0 and not out_of_patience():
        epoch, at = divmod(progress.step, per_epoch)
        if epoch != epoch_of_order:
            order = np.random.default_rng((config.seed, salt, epoch)).permutation(usable)
            epoch_of_order = epoch
        rows = order[at * batch_size : (at + 1) * batch_size]
        done = share_done()
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * max(min(done / WARM_UP, 1.0) * (1.0 - done), 1e-3)

        loss_sum += _step(model, optimizers, train, rows, config, loss_of, (config.seed, salt, progress.step))
        loss_n += 1
        progress.step += 1
        now = time.monotonic()
        if now - told > TELL_EVERY_S:
            told = now
            rate = (progress.step - first_step) / (now - begun)
            left_s = (stop_at - progress.step) / rate
            if deadline is not None:
                left_s = min(left_s, deadline.at_s - watch.elapsed_s())
            say(
                f"{phase}: epoch {epoch + 1}, step {progress.step:,} of at most {stop_at:,}, "
                f"{rate * batch_size:,.0f} products/s, loss {loss_sum / loss_n:.3f}, {max(left_s, 0):,.0f} s left"
            )
        ended = progress.step % per_epoch == 0 or progress.step >= stop_at or share_done() >= 1.0
        if ended:
            figures = {"epoch": progress.step / per_epoch, "train_loss": loss_sum / max(loss_n, 1)}
            loss_sum, loss_n = 0.0, 0
            if validation is not None:
                judged = judge(model, validation, groups)
                figures |= {f"validation_{name}": value for name, value in judged.items()}
                _note_best(progress, judged["accuracy"], judged["loss"])
                say(
                    f"{phase}: epoch {epoch + 1} done, validation accuracy {judged['accuracy']:.4f}, "
                    f"loss {judged['loss']:.3f}"
                )
            log.row(progress.step, figures)
        if ended or now - saved > CHECKPOINT_EVERY_S:
            saved = now
            progress.elapsed_s = watch.elapsed_s()
            checkpoints.save(progress, model, optimizers)
    if validation is not None:
        checkpoints.load_best(model)


def _note_best(progress: Progress, accuracy: float, loss: float) -> None:
    before = progress.best_score, progress.best_loss
    if before[0] is None or before[1] is None or (accuracy, -loss) > (before[0], -before[1]):
        progress.best_step, progress.best_score, progress.best_loss = progress.step, accuracy, loss
        progress.bad_epochs = 0
    else:
        progress.bad_epochs += 1


def _step(
    model: ProductModel,
    optimizers: list[torch.optim.Optimizer],
    train: Features,
    rows: NDArray[np.intp],
    config: TrainConfig,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    key: tuple[int, int, int],
) -> float:
    rng = np.random.default_rng((*key, 1))
    torch.manual_seed(int(rng.integers(1 << 62)))
    text, image = presence(train, rows)
    hide = rng.random(len(rows))
    both = text & image
    text = text & ~(both & (hide < config.drop_text))
    image = image & ~(both & (hide >= 1.0 - config.drop_image))
    model.train()
    scores = forward(model, train, rows, text, image, ngram_dropout=config.ngram_dropout)
    loss = loss_of(scores, torch.from_numpy(train.node[rows].astype(np.int64))).mean()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.head.parameters(), MAX_GRADIENT_NORM)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def judged_rows(features: Features) -> NDArray[np.intp]:
    """The rows that are looked at, an even spread where there are many."""
    rows = features.usable()
    return rows[:: -(-len(rows) // MAX_JUDGED)] if len(rows) > MAX_JUDGED else rows


def scores_of(model: ProductModel, features: Features, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Scores of rows in evaluation mode, shape (n, M)."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), JUDGE_BATCH):
            batch = rows[start : start + JUDGE_BATCH]
            parts.append(forward(model, features, batch, *presence(features, batch)).numpy())
    return np.concatenate(parts)


def judge(model: ProductModel, features: Features, groups: SiblingGroups) -> dict[str, float]:
    """Accuracy of the most probable place, and mean negative log likelihood, of products as they are."""
    rows = judged_rows(features)
    right, loss = 0, 0.0
    for start in range(0, len(rows), JUDGE_BATCH):
        batch = rows[start : start + JUDGE_BATCH]
        places = groups.here(groups.distribution(scores_of(model, features, batch)))
        node = features.node[batch]
        right += int((places.argmax(axis=1) == node).sum())
        # A label at an inner node where training saw no stop has probability 0 here; the floor bounds its loss.
        loss -= float(np.log(np.maximum(places[np.arange(len(batch)), node], 1e-9)).sum())
    return {"accuracy": right / max(len(rows), 1), "loss": loss / max(len(rows), 1)}
