"""The two phases of learning: choose on validation, then perhaps refit on everything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES, Calibration, Modality, TemperatureFit
from shelver.errors import CatalogError, ConfigError
from shelver.ngrams import Vocabulary
from shelver.pipeline import sibling_groups
from shelver.registry import ImageStage, TextStage
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.checkpoint import Checkpoints, Chosen, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Examples, Features, Say
from shelver.train.loop import JUDGE_BATCH, Deadline, judge, judged_rows, n_steps_per_epoch, scores_of, train_phase
from shelver.train.model import ImageBranch, NgramTable, ProductModel, TextBranch, TreeHead
from shelver.train.runlog import RunLog

EXPORT_RESERVE_S: Final = 15.0
EXPORT_RESERVE_SHARE: Final = 0.08
"""What is kept free of a time limit for the last look at validation, calibration and export: the greater of the
two, and of a short limit a quarter."""
CHOOSE_SHARE: Final = 0.45
"""What the choosing phase may take of the time when a refit on more products follows."""
FEW_TEXTS: Final = 2_000
"""Below this many texts, n-grams that occur once are kept too."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model with all that its export needs; `nodes` are the labels that it learned from."""

    model: ProductModel
    vocabulary: Vocabulary | None
    text: TextStage | None
    image: ImageStage | None
    groups: SiblingGroups
    nodes: NDArray[np.int32]
    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Trainer:
    """The two phases of learning: choose on validation, then perhaps refit on everything."""

    config: TrainConfig
    text: TextStage | None
    image: ImageStage | None
    checkpoints: Checkpoints
    watch: Stopwatch
    run: Path
    say: Say

    def learn(self, learned: Examples, held: Examples, tree: Taxonomy, progress: Progress) -> Fitted:
        config = self.config
        refit = config.refit and len(held) > 0
        nodes = learned.node if not refit else np.concatenate([learned.node, held.node])
        groups = _groups(tree, nodes)
        n_usable = self._n_usable(learned)
        batch_size = config.batch_size or _batch_size(n_usable)
        planned = config.epochs * n_steps_per_epoch(n_usable, batch_size)
        if progress.phase == "choose":
            model, vocabulary, validation = self._phase(
                learned,
                held,
                groups,
                progress,
                planned=planned,
                stop_at=planned,
                share=CHOOSE_SHARE if refit else 1.0,
                batch_size=batch_size,
            )
            found = self._calibrate(model, validation, groups, tree, progress)
            if not refit:
                return Fitted(model, vocabulary, self.text, self.image, groups, nodes, found)
            progress = Progress(phase="refit", elapsed_s=self.watch.elapsed_s(), chosen=found)
            self.checkpoints.begin(progress)
        chosen = progress.chosen
        assert chosen is not None
        self.say(f"refitting on train and validation for the {chosen.steps:,} steps that validation chose")
        model, vocabulary, _ = self._phase(
            learned + held,
            None,
            groups,
            progress,
            # Under a time limit the learning rate fell to zero by the clock, so it has to by the steps now.
            planned=planned if config.time_limit_s is None else chosen.steps,
            stop_at=chosen.steps,
            share=1.0,
            batch_size=batch_size,
        )
        return Fitted(model, vocabulary, self.text, self.image, groups, nodes, chosen)

    def _n_usable(self, examples: Examples) -> int:
        has = np.array([t is not None and self.text is not None for t in examples.texts], np.bool_)
        n = int(np.count_nonzero(has if examples.image is None else has | examples.image.present))
        if not n:
            raise CatalogError(
                f"none of the {len(examples):,} labelled products in train has a text or a picture to learn from",
                allowed="a train split with texts, or with pictures that can be decoded",
                remedy="Look at `shelver describe`, and check the mapping and the encoders that you chose.",
            )
        return n

    def _phase(
        self,
        learned: Examples,
        held: Examples | None,
        groups: SiblingGroups,
        progress: Progress,
        *,
        planned: int,
        stop_at: int,
        share: float,
        batch_size: int,
    ) -> tuple[ProductModel, Vocabulary | None, Features | None]:
        if not progress.step:
            progress.phase_from_s = self.watch.elapsed_s()
        deadline = self._deadline(progress.phase_from_s, share)
        vocabulary = None
        if self.text is not None:
            texts = [t for t in learned.texts if t is not None]
            few = len(texts) < FEW_TEXTS
            vocabulary = Vocabulary.fit(
                texts,
                self.text.ngrams,
                min_count=1 if few else self.config.min_count,
                max_features=self.config.max_features,
            )
            self.say(f"{len(vocabulary):,} n-grams from {len(texts):,} texts")
        train = Features.of(learned, vocabulary)
        validation = Features.of(held, vocabulary) if held is not None and len(held) else None
        if validation is not None and not len(validation.usable()):
            validation = None  # nothing to judge by
        model = _build(self.config, vocabulary, train, groups)
        log = RunLog(self.run, phase=progress.phase, step=progress.step)
        train_phase(
            model,
            train,
            validation,
            groups,
            self.config,
            batch_size=batch_size,
            planned_steps=planned,
            stop_at=stop_at,
            deadline=deadline,
            progress=progress,
            watch=self.watch,
            checkpoints=self.checkpoints,
            log=log,
            say=self.say,
        )
        log.close()
        return model, vocabulary, validation

    def _deadline(self, from_s: float, share: float) -> Deadline | None:
        """The clock's limit of a phase that may take a share of what is left of the time limit."""
        limit_s = self.config.time_limit_s
        if limit_s is None:
            return None
        reserve_s = min(max(EXPORT_RESERVE_S, limit_s * EXPORT_RESERVE_SHARE), limit_s / 4)
        left_s = limit_s - reserve_s - from_s
        if left_s <= 0:
            raise ConfigError(
                f"a time limit of {limit_s:.0f} s, of which {from_s:.0f} s went into reading the catalog",
                allowed=f"a limit that leaves more than {reserve_s:.0f} s after reading, for learning and export",
                remedy="Run the same command again, since picture embeddings are kept, or raise --time-limit.",
            )
        return Deadline(from_s, from_s + left_s * share)

    def _calibrate(
        self,
        model: ProductModel,
        validation: Features | None,
        groups: SiblingGroups,
        tree: Taxonomy,
        progress: Progress,
    ) -> Chosen:
        n_levels = tree.n_levels
        if validation is None:
            self.say("no validation split: trained for all epochs, and the confidence is not calibrated")
            temperatures = Calibration.none(n_levels)
            return Chosen(steps=progress.step, calibration=temperatures, validation={})
        fitted: dict[Modality, tuple[float, ...]] = {}
        for modality in MODALITIES:
            asked = _as_if_only(validation, modality)
            rows = judged_rows(asked)
            if len(rows):
                fit = TemperatureFit(groups, n_levels)
                for start in range(0, len(rows), JUDGE_BATCH):
                    batch = rows[start : start + JUDGE_BATCH]
                    fit.add(scores_of(model, asked, batch), asked.node[batch])
                fitted[modality] = fit.temperatures()
        calibration = Calibration(temperatures={**Calibration.none(n_levels).temperatures, **fitted})
        return Chosen(
            steps=progress.best_step or progress.step,
            calibration=calibration,
            validation=judge(model, validation, groups),
        )


def _as_if_only(features: Features, modality: Modality) -> Features:
    """The products that have what the modality names, with the rest hidden."""
    text = features.text_present if features.ngrams is not None else np.zeros(len(features), np.bool_)
    image = features.image.present if features.image is not None else np.zeros(len(features), np.bool_)
    keep = {"text": text, "image": image, "both": text & image}[modality]
    hidden = np.zeros(len(features), np.bool_)
    return replace(
        features,
        text_present=hidden if modality == "image" else keep,
        image=None
        if features.image is None
        else replace(features.image, present=hidden if modality == "text" else keep),
    )


def _build(
    config: TrainConfig, vocabulary: Vocabulary | None, train: Features, groups: SiblingGroups
) -> ProductModel:
    torch.manual_seed(config.seed)
    table = text = image = None
    if vocabulary is not None:
        table = NgramTable(max(len(vocabulary), 1), config.text_width)
        text = TextBranch(config.text_width, config.hidden, groups.n_slots, config.dropout)
    if train.image is not None:
        seen = train.image.values[train.image.present].astype(np.float32)
        mean, std = (
            (seen.mean(axis=0), seen.std(axis=0))
            if len(seen)
            else (np.zeros(train.image.values.shape[1]), np.ones(1))
        )
        scale = 1.0 / np.maximum(std, 1e-3)
        image = ImageBranch(
            torch.from_numpy(mean.astype(np.float32)),
            torch.from_numpy(scale.astype(np.float32)),
            config.hidden,
            groups.n_slots,
            config.image_dropout,
        )
    return ProductModel(table, TreeHead(text, image, config.hidden, groups.n_slots))


def _batch_size(n_products: int) -> int:
    """Some 100 steps an epoch at least, and matrices large enough to keep the processor busy."""
    return int(min(max(64, 2 ** round(np.log2(max(n_products, 1) / 200))), 512))


def _groups(tree: Taxonomy, nodes: NDArray[np.int32]) -> SiblingGroups:
    """Sibling groups in which products may stop at the inner nodes at which training products stand."""
    seen = np.unique(nodes)
    return sibling_groups(tree, [tree.ids[k] for k in seen.tolist() if not tree.is_leaf[k]])
