"""The loop of a fine-tuning: plain, repeatable to the bit on a CPU, and resumable at every checkpoint.

Nothing random carries over from step to step: all of it comes from the seed and the number of the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shelver import metrics
from shelver.attributes import Attribute
from shelver.images import ImageSpec, View, normalise
from shelver.pipeline import pooled
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.data import Say
from shelver.train.sets import Source
from shelver.train.tune.network import Network
from shelver.train.tune.pictures import TELL_EVERY_S, Inputs, at_size, labelled_pictures, random_box
from shelver.train.tune.spec import TuneSpec

CHECKPOINT_EVERY_S: Final = 60.0
MAX_GRADIENT_NORM: Final = 5.0
MAX_HEAD_PICTURES: Final = 50_000
HEAD_LR: Final = 2e-3
HEAD_SIZE: Final = 0.1
"""What the head counts for beside the other tensors in tuning; its own weights start small."""
JUDGED_EACH_EPOCH: Final = 1_000
MAX_JUDGED: Final = 10_000
EVALUATION_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Judged:
    """Validation pictures at the size of use: uint8 (n, H, W, 3), product numbers (n,), labels as in `Inputs`."""

    pictures: NDArray[np.uint8]
    products: NDArray[np.int64]
    labels: NDArray[np.int32]
    spec: ImageSpec

    @classmethod
    def of(
        cls, catalog: Source, spec: ImageSpec, view: View, at_most: int, attributes: Sequence[Attribute] = ()
    ) -> Judged:
        n = catalog.info.by_split.get("validation", 0)
        found = (
            list(
                labelled_pictures(
                    catalog, "validation", spec, view=view, attributes=attributes, every=-(-n // at_most)
                )
            )
            if at_most and n
            else []
        )
        return cls(
            np.stack([seen for _, _, seen in found]) if found else np.zeros((0, 1, 1, 3), np.uint8),
            np.array([product for product, _, _ in found], np.int64),
            np.array([labels for _, labels, _ in found], np.int32).reshape(len(found), 1 + len(attributes)),
            spec,
        )


@dataclass(frozen=True, slots=True)
class Tuner:
    """A network and what it learns from.

    Attributes:
        inputs: the pictures of each epoch, at least one; the same ones in the same order at one size or another.
        sizes: what each epoch sees them at; pictures that have not passed the frozen blocks may be kept larger.
        nodes: of each of the first scores, ascending, shape (M,).
        attributes: that are learned too; the scores of their values come after.
    """

    network: Network
    inputs: tuple[Inputs, ...]
    sizes: tuple[ImageSpec, ...]
    nodes: NDArray[np.int32]
    tune: TuneSpec
    seed: int
    device: torch.device
    say: Say
    attributes: tuple[Attribute, ...] = ()

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; each group's `share` is its part of the learning rate: with `lr_of_size` the tensor's own size.

        Adam steps as far for a weight of 0.01 as for one of 10, and batch norms that are folded into convolutions
        leave both: 0.012 is the usual size of the weights of a late block's first convolution, 0.3 that of its
        last, 5 that of the biases. So each tensor learns at a rate in proportion to its own size.
        """
        network, tune = self.network, self.tune
        body = [*network.encoder.blocks[tune.frozen_blocks :], network.encoder.head]
        groups = [
            {
                "params": [tensor],
                "share": tune.lr_decay ** (len(body) - depth) * (_size(tensor) if tune.lr_of_size else 1.0),
            }
            for depth, part in enumerate(body)
            for tensor in part.parameters()
        ]
        groups.append({"params": list(network.head.parameters()), "share": HEAD_SIZE if tune.lr_of_size else 1.0})
        return torch.optim.AdamW(groups, lr=tune.lr, weight_decay=tune.weight_decay, fused=True)

    def fit_head(self) -> None:
        """Standardise the untouched features, and fit the head on them."""
        network, tune = self.network, self.tune
        network.eval()
        rows = np.random.default_rng((self.seed, 0)).permutation(len(self.inputs[0]))[:MAX_HEAD_PICTURES]
        parts: list[Tensor] = []
        started = told = time.monotonic()
        with torch.no_grad(), self._autocast():
            for start in range(0, len(rows), EVALUATION_BATCH):
                parts.append(
                    network.features(self._batch(0, rows[start : start + EVALUATION_BATCH], None)).float()
                )
                now = time.monotonic()
                if now - told > TELL_EVERY_S:
                    told = now
                    rate = (start + EVALUATION_BATCH) / (now - started)
                    left_s = max(len(rows) - start - EVALUATION_BATCH, 0) / rate
                    self.say(f"head: features of {start:,} pictures, {rate:,.0f}/s, {left_s:,.0f} s left")
        features = torch.cat(parts)
        network.mean.copy_(features.mean(0))
        network.scale.copy_(1.0 / features.std(0, correction=0).clamp(min=1e-2))
        network.drop.train()
        labels = self.inputs[0].labels[rows]
        optimizer = torch.optim.AdamW(network.head.parameters(), lr=HEAD_LR, weight_decay=tune.weight_decay)
        batch_size = min(256, max(16, len(rows) // 20))
        per_epoch = -(-len(rows) // batch_size)
        n_steps = tune.head_epochs * per_epoch
        order = np.arange(len(rows))
        for step in range(n_steps):
            epoch, at = divmod(step, per_epoch)
            rng = np.random.default_rng((self.seed, 1, epoch, at))
            if not at:
                order = rng.permutation(len(rows))
            torch.manual_seed(int(rng.integers(1 << 62)))
            chosen = order[at * batch_size : (at + 1) * batch_size]
            optimizer.param_groups[0]["lr"] = HEAD_LR * (1.0 - step / n_steps)
            loss = self._loss(network.scores(features[torch.from_numpy(chosen)]), labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.say(f"head: fitted on the untouched features of {len(rows):,} pictures")

    def learn(
        self,
        progress: Progress,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        watch: Stopwatch,
        judged: Judged,
    ) -> None:
        """All steps that are left."""
        tune, n = self.tune, len(self.inputs[0])
        # What is left of an epoch below a whole batch is dropped: a batch of one picture would shake the weights.
        batch_size = min(tune.batch_size, n)
        per_epoch = n // batch_size
        n_steps = tune.epochs * per_epoch
        order: NDArray[np.intp] = np.arange(n)
        epoch_of_order = -1
        first, pause_s, losses = progress.step, 0.0, list[float]()
        begun = told = saved = time.monotonic()
        while progress.step < n_steps:
            epoch, at = divmod(progress.step, per_epoch)
            if epoch != epoch_of_order:
                order, epoch_of_order = np.random.default_rng((self.seed, 2, epoch)).permutation(n), epoch
                losses = []
            for group in optimizer.param_groups:
                group["lr"] = tune.lr * group["share"] * _cycle(progress.step / n_steps, tune.warm_up)
            rows = order[at * batch_size : (at + 1) * batch_size]
            losses.append(self._step(epoch, rows, progress.step, optimizer))
            progress.step += 1
            now = time.monotonic()
            rate = (progress.step - first) / (now - begun - pause_s)
            if now - told > TELL_EVERY_S:
                told = now
                self.say(
                    f"tuning: epoch {epoch + 1} of {tune.epochs}, {rate * batch_size:,.0f} pictures/s, "
                    f"loss {np.mean(losses):.3f}, {(n_steps - progress.step) / rate:,.0f} s left"
                )
            ended = progress.step % per_epoch == 0
            if ended:
                found = self.judge(judged)
                figures = "".join(f", validation {name} {value:.4f}" for name, value in found.items())
                self.say(f"tuning: epoch {epoch + 1} done, loss {np.mean(losses):.3f}{figures}")
                pause_s += time.monotonic() - now
            if ended or now - saved > CHECKPOINT_EVERY_S:
                saved = now
                progress.elapsed_s = watch.elapsed_s()
                checkpoints.save(progress, self.network, [optimizer])

    def judge(self, judged: Judged) -> dict[str, float]:
        """Accuracy and macro-F1 on validation, and the accuracy of each attribute; empty where there is nothing to
        judge by."""
        if not len(judged.labels):
            return {}
        network = self.network.eval()
        parts = []
        with torch.no_grad(), self._autocast():
            for start in range(0, len(judged.labels), EVALUATION_BATCH):
                pixels = normalise(judged.pictures[start : start + EVALUATION_BATCH], judged.spec)
                x = network.frozen(torch.from_numpy(pixels).to(self.device))
                parts.append(network.features(x).float().cpu().numpy())
            _, firsts, counts = np.unique(judged.products, return_index=True, return_counts=True)
            features = torch.from_numpy(pooled(np.concatenate(parts), counts).values)
            scores = network.scores(features.to(self.device)).cpu().numpy()
        truth = judged.labels[firsts]
        answers = self.nodes[scores[:, : len(self.nodes)].argmax(axis=1)]
        figures = {
            "accuracy": metrics.accuracy(truth[:, 0], answers),
            "macro_f1": metrics.macro_f1(truth[:, 0], answers),
        }
        for a, (attribute, slots) in enumerate(self._slots(), start=1):
            known = truth[:, a] >= 0
            if known.any():
                right = scores[known, slots].argmax(axis=1) == truth[known, a]
                figures[f"{attribute.name}_accuracy"] = float(right.mean())
        return figures

    def _slots(self) -> Iterator[tuple[Attribute, slice]]:
        """Where the scores of each attribute's values stand."""
        start = len(self.nodes)
        for attribute in self.attributes:
            yield attribute, slice(start, start + len(attribute.values))
            start += len(attribute.values)

    def _step(self, epoch: int, rows: NDArray[np.intp], step: int, optimizer: torch.optim.Optimizer) -> float:
        rng = np.random.default_rng((self.seed, 3, step))
        torch.manual_seed(int(rng.integers(1 << 62)))
        network = self.network.train()
        labels = self.inputs[0].labels[rows]
        x = self._batch(epoch, rows, rng)
        share = 0.0
        if rng.random() < self.tune.cutmix:
            x, share = _mixed(x, rng)
        with self._autocast():
            scores = network.scores(network.features(x))
        loss = self._loss(scores, labels)
        if share:
            loss = (1.0 - share) * loss + share * self._loss(scores, labels[::-1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], MAX_GRADIENT_NORM)
        optimizer.step()
        return loss.item()

    def _batch(self, epoch: int, rows: NDArray[np.intp], rng: np.random.Generator | None) -> Tensor:
        """What the frozen blocks make of some pictures; with `rng`, of mirrored and shifted ones."""
        inputs, tune = self.inputs[epoch], self.tune
        flips = np.zeros(len(rows), np.intp)
        if rng is not None and tune.mirror:
            flips = rng.integers(0, 2, len(rows))
        if inputs.cached:
            taken = np.stack([inputs.values[i, flip] for i, flip in zip(rows, flips, strict=True)])
            x = torch.from_numpy(taken.astype(np.float32)).permute(0, 3, 1, 2).to(self.device)
        else:
            size = self.sizes[epoch]
            seen = []
            for i, flip in zip(rows, flips, strict=True):
                picture = inputs.values[i, 0]
                assert picture.dtype == np.uint8
                box = None
                if rng is not None and tune.crops is not None:
                    box = random_box(picture.shape[0], picture.shape[1], tune.crops, rng)
                seen.append(at_size(picture, size, box)[:, :: -1 if flip else 1])
            x = self.network.frozen(torch.from_numpy(normalise(np.stack(seen), size)).to(self.device))
        shifts = rng is not None and tune.shift_cells and tune.crops is None
        return _shifted(x, tune.shift_cells, rng) if shifts and rng is not None else x

    def _loss(self, scores: Tensor, labels: NDArray[np.int32]) -> Tensor:
        """The sum of the category's loss and the attributes'; labels as in `Inputs`."""
        targets = torch.from_numpy(np.searchsorted(self.nodes, labels[:, 0]).astype(np.int64))
        smoothing = self.tune.label_smoothing
        total = F.cross_entropy(
            scores[:, : len(self.nodes)].float(), targets.to(self.device), label_smoothing=smoothing
        )
        for a, (_, slots) in enumerate(self._slots(), start=1):
            known = torch.from_numpy(labels[:, a].astype(np.int64)).to(self.device)
            of_attribute = F.cross_entropy(
                scores[:, slots].float(), known, ignore_index=-1, label_smoothing=smoothing, reduction="sum"
            )
            total = total + of_attribute / len(labels)
        return total

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu")


def _size(tensor: Tensor) -> float:
    """The root mean square of its numbers."""
    return float(tensor.detach().square().mean().sqrt())


def _cycle(done: float, warm_up: float) -> float:
    """Share of the peak learning rate after a share of the steps: up in a line, down in half a cosine."""
    if done < warm_up:
        return max(done / warm_up, 1e-3)
    return max((1.0 + math.cos(math.pi * (done - warm_up) / (1.0 - warm_up))) / 2.0, 1e-3)


def _shifted(x: Tensor, cells: int, rng: np.random.Generator) -> Tensor:
    """Each picture moved by up to so many cells, its edges repeated."""
    height, width = x.shape[2:]
    wide = F.pad(x, (cells,) * 4, mode="replicate")
    moved = torch.empty_like(x)
    for i, (top, left) in enumerate(rng.integers(0, 2 * cells + 1, (len(x), 2)).tolist()):
        moved[i] = wide[i, :, top : top + height, left : left + width]
    return moved


def _mixed(x: Tensor, rng: np.random.Generator) -> tuple[Tensor, float]:
    """A rectangle of each picture taken from its opposite in the batch, and the rectangle's share of the area."""
    height, width = x.shape[2:]
    side = math.sqrt(rng.random())
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    place = (..., slice(top, top + rows), slice(left, left + columns))
    mixed = x.clone()
    mixed[place] = x.flip(0)[place]
    return mixed, rows * columns / (height * width)
