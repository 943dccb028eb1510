"""The loop of a fine-tuning: plain, repeatable to the bit on a CPU, and resumable at every checkpoint.

Nothing random carries over from step to step: all of it comes from the seed and the number of the step.
"""

from __future__ import annotations

import math
import time
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.data import Say
from shelver.train.tune_text.spec import TextTuning
from shelver.train.tune_text.tokens import LabelledTokens

TELL_S: Final = 5.0
CHECKPOINT_S: Final = 60.0
MAX_HEAD_TEXTS: Final = 50_000
"""Texts that the head is fitted on; their features stand in memory."""
_HEAD_BATCH: Final = 128
_READ_BATCH: Final = 32
_MAX_DEVIATION: Final = 10.0
_HEAD, _ORDER, _STEP, _SAMPLE = range(4)


def tune_text(
    encoder: nn.Module,
    learned: LabelledTokens,
    judged: LabelledTokens,
    tuning: TextTuning,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    checkpoints: Checkpoints | None = None,
    say: Say,
) -> tuple[float, ...]:
    """Tune an encoder in place.

    Args:
        encoder: ids (N, T), mask (N, T) → (N, D); ends on the CPU, frozen and in evaluation mode.
        learned: texts to learn from, at least one.
        judged: validation; may be empty. A label that `learned` lacks counts as an error.
        tuning: the recipe.
        seed: of everything random; on a CPU the same seed gives the same weights, however often the run was cut.
        device: where to compute; None is the CPU. Others use mixed precision.
        checkpoints: where to keep the state, at every epoch and every minute, and to go on from; None keeps none.
        say: told about rate and time left every few seconds.

    Returns:
        Accuracy of the head on `judged`: with the encoder as it came, then after each epoch; NaN without texts.
        The encoder is that of the last epoch: where the first figure is the best, use it as it came.
    """
    device = device or torch.device("cpu")
    labels = np.unique(learned.labels)
    torch.manual_seed(seed)
    encoder.to(device).eval()
    width = _read(encoder, learned.rows(np.arange(1)), device).shape[1]
    network = _Network(encoder, _Head(width, len(labels), tuning.dropout), tuning.epochs).to(device)
    encoder.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(encoder.parameters()), "peak": tuning.lr},
            {"params": list(network.head.parameters()), "peak": tuning.head_lr},
        ],
        weight_decay=tuning.weight_decay,
    )
    targets = torch.from_numpy(np.searchsorted(labels, learned.labels)).to(device)
    saved = checkpoints.progress() if checkpoints is not None else None
    progress = saved or Progress()
    watch = Stopwatch(progress.elapsed_s)

    def save() -> None:
        progress.elapsed_s = watch.elapsed_s()
        if checkpoints is not None:
            checkpoints.save(progress, network, [optimizer])

    if checkpoints is not None and saved is not None:
        checkpoints.restore(network, [optimizer])
        say(f"tuning the text encoder: going on after {progress.step:,} steps")
    else:
        _fit_head(network, learned, targets, tuning, seed, say)
        network.judged[0] = _accuracy(network, judged, labels)
        save()

    per_epoch = math.ceil(len(learned) / tuning.batch_size)
    n_steps = tuning.epochs * per_epoch
    order: list[NDArray[np.intp]] = []
    first, pause_s, losses = progress.step, 0.0, list[float]()
    started = told = kept = time.monotonic()
    while progress.step < n_steps:
        epoch, at = divmod(progress.step, per_epoch)
        if not order:
            order = learned.order(tuning.batch_size, np.random.default_rng((seed, _ORDER, epoch)))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _cycle(progress.step / n_steps, tuning.warm_up)
        torch.manual_seed(int(np.random.default_rng((seed, _STEP, progress.step)).integers(1 << 62)))
        losses.append(_step(network, learned, order[at], targets, tuning, optimizer))
        progress.step += 1
        now = time.monotonic()
        if now - told >= TELL_S:
            told = now
            rate = (progress.step - first) / (now - started - pause_s)
            say(
                f"tuning the text encoder: epoch {epoch + 1} of {tuning.epochs}, "
                f"{rate * tuning.batch_size:,.0f} texts/s, loss {np.mean(losses[-100:]):.3f}, "
                f"{(n_steps - progress.step) / rate:,.0f} s left"
            )
        ended = at + 1 == per_epoch
        if ended:
            order = []
            network.judged[epoch + 1] = _accuracy(network, judged, labels)
            figure = f", validation accuracy {network.judged[epoch + 1]:.4f}" if len(judged) else ""
            say(f"tuning the text encoder: epoch {epoch + 1} done, loss {np.mean(losses[-100:]):.3f}{figure}")
        if ended or now - kept >= CHECKPOINT_S:
            save()
            kept = time.monotonic()
            pause_s += kept - now
    encoder.requires_grad_(False).eval().to("cpu")
    return tuple(network.judged.tolist())


class _Head(nn.Module):
    """A linear layer on standardised features."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, n_labels: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(width, n_labels)

    def forward(self, features: Tensor) -> Tensor:
        seen = ((features - self.mean) * self.scale).clamp(-_MAX_DEVIATION, _MAX_DEVIATION)
        scores: Tensor = self.out(self.drop(seen))
        return scores


class _Network(nn.Module):
    """All that a checkpoint keeps; `judged` are the accuracies so far, shape (epochs + 1,)."""

    judged: Tensor

    def __init__(self, encoder: nn.Module, head: _Head, n_epochs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.register_buffer("judged", torch.full((n_epochs + 1,), math.nan, dtype=torch.float64))


def _fit_head(
    network: _Network, learned: LabelledTokens, targets: Tensor, tuning: TextTuning, seed: int, say: Say
) -> None:
    """Standardise the untouched features, and fit the head on them."""
    rows = np.random.default_rng((seed, _SAMPLE)).permutation(len(learned))[:MAX_HEAD_TEXTS]
    features = _read(network.encoder, learned.rows(rows), targets.device, say)
    targets = targets[torch.from_numpy(rows).to(targets.device)]
    network.head.mean.copy_(features.mean(dim=0))
    network.head.scale.copy_(1.0 / features.std(dim=0, correction=0).clamp(min=1e-2))
    network.head.train()
    torch.manual_seed(int(np.random.default_rng((seed, _HEAD)).integers(1 << 62)))
    optimizer = torch.optim.AdamW(
        network.head.parameters(), lr=2 * tuning.head_lr, weight_decay=tuning.weight_decay
    )
    for epoch in range(tuning.head_epochs):
        order = torch.from_numpy(np.random.default_rng((seed, _HEAD, epoch)).permutation(len(rows)))
        for chosen in torch.split(order.to(targets.device), _HEAD_BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(network.head(features[chosen]), targets[chosen], tuning)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    say(f"tuning the text encoder: head fitted on the untouched features of {len(rows):,} texts")


def _step(
    network: _Network,
    learned: LabelledTokens,
    rows: NDArray[np.intp],
    targets: Tensor,
    tuning: TextTuning,
    optimizer: torch.optim.Optimizer,
) -> float:
    network.train()
    ids, mask = (part.to(targets.device) for part in learned.batch(rows))
    with _autocast(targets.device):
        features = network.encoder(ids, mask)
    loss = _loss(network.head(features.float()), targets[torch.from_numpy(rows).to(targets.device)], tuning)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.encoder.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _loss(scores: Tensor, targets: Tensor, tuning: TextTuning) -> Tensor:
    return F.cross_entropy(scores, targets, label_smoothing=tuning.label_smoothing)


@torch.no_grad()
def _read(encoder: nn.Module, texts: LabelledTokens, device: torch.device, say: Say | None = None) -> Tensor:
    """Features of texts, float32 (N, D), on the device."""
    encoder.eval()
    rows: list[NDArray[np.intp]] = []
    values: list[Tensor] = []
    n_tokens, all_tokens = 0, sum(map(len, texts.ids))
    started = told = time.monotonic()
    for of_batch, ids, mask in texts.batches(_READ_BATCH, None):
        rows.append(of_batch)
        with _autocast(device):
            values.append(encoder(ids.to(device), mask.to(device)).float())
        n_tokens += int(mask.sum())
        now = time.monotonic()
        if say is not None and now - told >= TELL_S:
            told = now
            n_read, spent_s = min(len(rows) * _READ_BATCH, len(texts)), now - started
            say(
                f"tuning the text encoder: untouched features of {n_read:,} of {len(texts):,} texts, "
                f"{n_read / spent_s:,.0f}/s, {spent_s / max(n_tokens, 1) * (all_tokens - n_tokens):,.0f} s left"
            )
    return torch.cat(values)[torch.from_numpy(np.concatenate(rows).argsort()).to(device)]


@torch.no_grad()
def _accuracy(network: _Network, judged: LabelledTokens, labels: NDArray[np.int64]) -> float:
    if not len(judged):
        return math.nan
    network.eval()
    scores = network.head(_read(network.encoder, judged, network.judged.device))
    return float((labels[scores.argmax(dim=1).cpu().numpy()] == judged.labels).mean())


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu")


def _cycle(done: float, warm_up: float) -> float:
    """Share of the peak learning rate: up in a line, down in half a cosine."""
    if done < warm_up:
        return max(done / warm_up, 1e-3)
    return max((1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up))) / 2.0, 1e-3)
