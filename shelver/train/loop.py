"""The training loop: plain, repeatable to the bit on a CPU, and resumable at every checkpoint.

Nothing random carries over from step to step: the order of the products comes from (seed, epoch), every step's
dropout from (seed, step). A resumed run therefore continues exactly as the unbroken one would have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shelver.calibrate import Calibration
from shelver.train import workers
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Features, Say
from shelver.train.fusion import HeldOut, judge
from shelver.train.losses import TasksLoss
from shelver.train.model import JointExpert, ProductModel
from shelver.train.optim import RowAdagrad
from shelver.train.runlog import RunLog
from shelver.train.tasks import Tasks, is_known

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
    """AdamW for the head, row-wise Adagrad for the n-gram table; what has nothing to learn gets none."""
    optimizers: list[torch.optim.Optimizer] = []
    rest = [p for name, p in model.named_parameters() if not name.startswith("table.")]
    if rest:
        fused = torch.optim.AdamW(rest, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        fused.param_groups[0]["peak"] = config.lr
        optimizers.append(fused)
    if model.table is not None:
        adagrad = RowAdagrad(model.table.parameters(), lr=config.table_lr)
        adagrad.param_groups[0]["peak"] = config.table_lr
        optimizers.append(adagrad)
    return optimizers


def embed(
    model: ProductModel, features: Features, rows: NDArray[np.intp], *, ngram_dropout: float = 0.0
) -> tuple[Tensor | None, Tensor | None]:
    """Text embeddings (n, D_t), columns as in `text_columns`, and picture embeddings (n, D_i) of some rows."""
    device = model.device
    parts: list[Tensor] = []
    if features.frozen is not None:
        parts.append(torch.from_numpy(features.frozen[rows].astype(np.float32)).to(device))
    if model.table is not None and features.ngrams is not None:
        bags = features.ngrams.rows(rows)
        weights = torch.from_numpy(bags.weights).to(device)
        if ngram_dropout:
            kept = (torch.rand_like(weights) >= ngram_dropout).to(weights.dtype)
            weights = weights * kept / (1.0 - ngram_dropout)
        ids = torch.from_numpy(bags.ids).long().to(device)
        parts.append(model.table(ids, weights, torch.from_numpy(bags.offsets).to(device)))
    if features.wide is not None:
        parts.append(torch.from_numpy(features.wide[rows]).to(device))
    image = None
    if features.image is not None:
        image = torch.from_numpy(features.image.values[rows].astype(np.float32)).to(device)
    return torch.cat(parts, dim=1) if parts else None, image


def train_phase(
    model: ProductModel,
    train: Features,
    validation: Features | None,
    tasks: Tasks,
    config: TrainConfig,
    *,
    loss_of: TasksLoss,
    by: Calibration,
    batch_size: int,
    planned_steps: int,
    stop_at: int,
    deadline: Deadline | None,
    progress: Progress,
    watch: Stopwatch,
    checkpoints: Checkpoints | None,
    log: RunLog | None,
    say: Say,
) -> None:
    """Train until `stop_at` steps, the deadline, or no more progress on validation.

    Args:
        model: built from the seed; restored from the checkpoint where there is one. At the end it holds the last
            weights, or with patience and validation the best ones.
        train: what is learned from.
        validation: what early stopping looks at after each epoch, or None.
        tasks: what is learned.
        config: learning rates, dropout and so on.
        loss_of: the loss of an expert's scores.
        by: weights of the experts when early stopping looks at them together.
        batch_size: products a step.
        planned_steps: the learning rate falls to zero over so many.
        stop_at: steps after which to stop, at most `planned_steps`.
        deadline: the clock's limit; the learning rate then falls with whichever is further on.
        progress: where the phase stands; updated.
        watch: the training's clock.
        checkpoints: where it is saved; None for a phase that is done again after a kill.
        log: the run's record; None keeps none.
        say: told about rate and time left.
    """
    optimizers = optimizers_for(model, config)
    if checkpoints is not None:
        checkpoints.restore(model, optimizers)
    usable = train.usable()
    per_epoch = n_steps_per_epoch(len(usable), batch_size)
    loss_of = loss_of.to(model.device)
    first_step = progress.step
    begun = told = saved = time.monotonic()
    order: NDArray[np.intp] = usable
    epoch_of_order = -1
    loss_sum, loss_n = 0.0, 0
    phase = progress.phase
    salt = 1 if phase == "refit" else 0

    def share_done() -> float:
        done = progress.step / planned_steps
        if deadline is not None:
            done = max(done, (watch.elapsed_s() - deadline.from_s) / max(deadline.at_s - deadline.from_s, 1e-9))
        return min(workers.agree(done), 1.0)

    if validation is not None and not _can_judge(validation, tasks):
        validation = None

    def out_of_patience() -> bool:
        return bool(config.patience) and progress.bad_epochs >= config.patience

    while progress.step < stop_at and share_done() < 1.0 and not out_of_patience():
        epoch, at = divmod(progress.step, per_epoch)
        if epoch != epoch_of_order:
            order = np.random.default_rng((config.seed, salt, epoch)).permutation(usable)
            epoch_of_order = epoch
        rows = workers.share(order[at * batch_size : (at + 1) * batch_size])
        done = share_done()
        for optimizer in optimizers:
            of_all = optimizer.param_groups[0]
            of_all["lr"] = of_all["peak"] * max(min(done / WARM_UP, 1.0) * (1.0 - done), 1e-3)

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
                judged = judge_first(held_out(model, validation), tasks, by)
                figures |= {f"validation_{name}": value for name, value in judged.items()}
                _note_best(progress, judged["accuracy"], judged["loss"])
                say(
                    f"{phase}: epoch {epoch + 1} done, validation accuracy {judged['accuracy']:.4f}, "
                    f"loss {judged['loss']:.3f}"
                )
            if log is not None:
                log.row(progress.step, figures)
        if (ended or now - saved > CHECKPOINT_EVERY_S) and checkpoints is not None and not workers.rank():
            saved = now
            progress.elapsed_s = watch.elapsed_s()
            checkpoints.save(progress, model, optimizers)
    if validation is not None and checkpoints is not None and config.patience:
        workers.meet()  # the first one has saved them
        checkpoints.load_best(model)


def _can_judge(features: Features, tasks: Tasks) -> bool:
    """Whether what `judge_first` looks at is labelled at all."""
    labels = features.node if tasks.groups is not None else features.labels[0]
    return bool(is_known(labels)[judged_rows(features)].any())


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
    loss_of: TasksLoss,
    key: tuple[int, int, int],
) -> float:
    rng = np.random.default_rng((*key, 1 + workers.rank()))
    torch.manual_seed(int(rng.integers(1 << 62)))
    model.train()
    device = model.device
    # Losses stay in full precision; autocast keeps them so.
    with torch.autocast(device.type, enabled=device.type != "cpu"):
        text, image = embed(model, train, rows, ngram_dropout=config.ngram_dropout)
        node = torch.from_numpy(train.node[rows].astype(np.int64)).to(device)
        labels = [torch.from_numpy(of[rows].astype(np.int64)).to(device) for of in train.labels]
        has = {"text": train.text_present[rows], "image": train.image_present[rows]}
        has["both"] = has["text"] & has["image"]
        total = torch.zeros((), device=device)
        for expert in model.head.learning():
            # Each expert learns from the products that have what it looks at, and from nothing else.
            weight = torch.from_numpy(train.weight[rows] * has[expert.needs]).to(device)
            if isinstance(expert, JointExpert):
                hide = rng.random((len(rows), 1), np.float32)
                text_shown = torch.from_numpy((hide >= config.drop_text).astype(np.float32)).to(device)
                image_shown = torch.from_numpy((hide < 1.0 - config.drop_image).astype(np.float32)).to(device)
                scores = expert(text, image, text_shown, image_shown)
            else:
                scores = expert(text, image)
            # Of all processes' products, so that several learn what one would.
            per_process = workers.total(weight.sum()).clamp(min=1.0) / workers.count()
            losses = loss_of(scores.float(), node, labels, model.head.noise)
            total = total + (losses * weight).sum() / per_process
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    workers.average_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.head.parameters(), MAX_GRADIENT_NORM)
    for optimizer in optimizers:
        optimizer.step()
    return total.item()


def judged_rows(features: Features) -> NDArray[np.intp]:
    """The rows that are looked at, an even spread where there are many."""
    rows = features.usable()
    return rows[:: -(-len(rows) // MAX_JUDGED)] if len(rows) > MAX_JUDGED else rows


def held_out(model: ProductModel, features: Features) -> Iterator[HeldOut]:
    """What the experts say of held-out products, a batch at a time."""
    rows = judged_rows(features)
    model.eval()
    for start in range(0, len(rows), JUDGE_BATCH):
        batch = rows[start : start + JUDGE_BATCH]
        with torch.inference_mode():
            text, image = embed(model, features, batch)
            # Without the linear part's columns only those that learn step by step can be asked.
            experts = model.head.learning() if features.wide is None else model.head.named().values()
            scores = [expert(text, image).float().cpu().numpy() for expert in experts]
        modality = (features.text_present[batch] + 2 * features.image_present[batch]).astype(np.int8)
        yield HeldOut(scores, features.node[batch], modality, tuple(of[batch] for of in features.labels))


def judge_first(batches: Iterator[HeldOut], tasks: Tasks, calibration: Calibration) -> dict[str, float]:
    """The figures by which a training goes: of the category, or of the first attribute where only such are
    learned."""
    if tasks.groups is not None:
        return judge((batch.of_tree(tasks) for batch in batches), tasks.groups, calibration)
    task = tasks.attributes[0]
    return judge((batch.of_attribute(0, task) for batch in batches), task.groups, calibration)
