"""How a model is learned: choose on products that are held out, then perhaps learn again from all of them.

Large catalogs hold their validation split out. Small ones are cut into folds, each held out in turn, so that every
labelled product helps to choose. Chosen are the number of steps and how far each expert is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from shelver import attributes
from shelver.calibrate import Calibration, Modality
from shelver.errors import CatalogError, ConfigError
from shelver.ngrams import Vocabulary
from shelver.pipeline import sibling_groups
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train import workers
from shelver.train.build import Built, Plan, build, fit_sentence, fit_vocabulary, fit_wide
from shelver.train.checkpoint import Checkpoints, Chosen, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Examples, Features, Say, weights_of
from shelver.train.fusion import Batches, HeldOut, fit_calibration, judge
from shelver.train.loop import Deadline, held_out, n_steps_per_epoch, train_phase
from shelver.train.losses import loss_for
from shelver.train.runlog import RunLog
from shelver.train.tasks import Tasks

EXPORT_RESERVE_S: Final = 15.0
EXPORT_RESERVE_SHARE: Final = 0.08
"""What is kept free of a time limit for the last look at validation, calibration and export: the greater of the
two, and of a short limit a quarter."""
CHOOSE_SHARE: Final = 0.45
"""What the choosing phase may take of the time when a refit on more products follows."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model with all that its export needs; `learned` is what it learned from."""

    built: Built
    tasks: Tasks
    learned: Examples
    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Trainer:
    """What stays the same from phase to phase.

    Attributes:
        tree: None learns only the attributes of the vocabulary.
        ngrams: those of a model that is built on; None finds them in the texts.
    """

    config: TrainConfig
    plan: Plan
    tree: Taxonomy | None
    vocabulary: attributes.Vocabulary
    folds: int
    refit: bool
    epochs: int
    checkpoints: Checkpoints
    watch: Stopwatch
    run: Path
    device: torch.device
    say: Say
    ngrams: Vocabulary | None = None

    def learn(self, learned: Examples, held: Examples, progress: Progress) -> Fitted:
        """Learn from `learned` while `held` decides, then perhaps from both."""
        everything = learned + held
        refit = self.folds > 0 or (self.refit and len(held) > 0)
        last = everything if refit else learned
        labels = np.unique(last.node[last.node >= 0])
        _n_usable(learned, self.plan)
        tasks = Tasks.of(_groups(self.tree, labels) if self.tree is not None else None, self.vocabulary)
        fit = _Phase(self, tasks, labels if self.tree is not None else labels[:0])
        if progress.phase != "refit":
            if self.folds:
                found = self._cross_validate(fit, everything)
            else:
                built, validation = fit.run(learned, held, progress, share=CHOOSE_SHARE if refit else 1.0)
                found = self._choose(built, validation, fit, progress)
                if not refit:
                    return Fitted(built, tasks, last, found)
            progress = Progress(phase="refit", elapsed_s=self.watch.elapsed_s(), chosen=found)
            if workers.rank() == 0:
                self.checkpoints.begin(progress)
            workers.meet()  # nobody may find the weights of the phase before
        chosen = progress.chosen
        assert chosen is not None
        self.say(f"learning again from train and validation together, {len(everything):,} products")
        # Under a time limit the learning rate fell to zero by the clock, so it has to by the steps now.
        steps = chosen.steps if self.config.time_limit_s is not None and chosen.steps else None
        built, _ = fit.run(everything, None, progress, epochs=chosen.epochs, steps=steps)
        return Fitted(built, tasks, last, chosen)

    def _cross_validate(self, fit: _Phase, everything: Examples) -> Chosen:
        """Hold each fold out in turn; a killed run starts the folds anew, as they take seconds."""
        fold_of = np.random.default_rng((self.config.seed, 3)).permutation(len(everything)) % self.folds
        seen: list[HeldOut] = []
        experts: dict[str, Modality] = {}
        for fold in range(self.folds):
            self.say(f"cross-validation: fold {fold + 1} of {self.folds}")
            rest = everything.rows(np.flatnonzero(fold_of != fold))
            held = everything.rows(np.flatnonzero(fold_of == fold))
            built, validation = fit.run(rest, held, None)
            experts = {name: expert.needs for name, expert in built.model.head.named().items()}
            if validation is not None:
                seen += held_out(built.model, validation)
        return self._calibrated(lambda: seen, experts, fit.tasks, steps=0, epochs=float(self.epochs))

    def _choose(self, built: Built, validation: Features | None, fit: _Phase, progress: Progress) -> Chosen:
        experts = {name: expert.needs for name, expert in built.model.head.named().items()}
        steps = (progress.best_step if self.config.patience else None) or progress.step
        epochs = steps / fit.per_epoch
        if validation is None:
            self.say("no validation split: trained for all epochs, and the confidence is not calibrated")
            even = Calibration.even(experts, fit.tasks.n_levels)
            values = {task.name: Calibration.even(experts, 1) for task in fit.tasks.attributes}
            return Chosen(steps=steps, epochs=epochs, calibration=even, values=values, validation={})

        def batches() -> Iterator[HeldOut]:
            return held_out(built.model, validation)

        return self._calibrated(batches, experts, fit.tasks, steps=steps, epochs=epochs)

    def _calibrated(
        self, batches: Batches, experts: Mapping[str, Modality], tasks: Tasks, *, steps: int, epochs: float
    ) -> Chosen:
        """How far each expert is believed in each task, on held-out products."""
        calibration = Calibration.even(experts, tasks.n_levels)
        figures: dict[str, float] = {}
        judged = tasks.groups is not None and any((batch.node >= 0).any() for batch in batches())
        if tasks.groups is not None and not judged:
            self.say("no held-out product has a category, so its confidence is not calibrated")
        if tasks.groups is not None and judged:

            def of_tree() -> Iterator[HeldOut]:
                return (batch.of_tree(tasks) for batch in batches())

            calibration, said = fit_calibration(of_tree, experts, tasks.groups, self.plan.fusion)
            for sentence in said:
                self.say(sentence)
            figures = judge(of_tree(), tasks.groups, calibration)
        # Gone through once: the scores of all values are a few columns.
        seen: list[list[HeldOut]] = [[] for _ in tasks.attributes]
        for batch in batches() if tasks.attributes else ():
            for number, (task, of_one) in enumerate(zip(tasks.attributes, seen, strict=True)):
                of_one.append(batch.of_attribute(number, task))
        values: dict[str, Calibration] = {}
        for task, of_one in zip(tasks.attributes, seen, strict=True):
            if not sum(len(batch.node) for batch in of_one):
                values[task.name] = Calibration.even(experts, 1)
                self.say(f"{task.name}: no held-out product has a label, so its confidence is not calibrated")
                continue
            values[task.name], said = fit_calibration(
                partial(list, of_one), experts, task.groups, self.plan.fusion, outside=False
            )
            right = judge(of_one, task.groups, values[task.name])["accuracy"]
            figures[f"{task.name}_accuracy"] = right
            of = "values told right" if task.attribute.multi else "accuracy"
            self.say(f"{task.name}: {of} {right:.4f} on held-out products")
            for sentence in said:
                self.say(f"{task.name}: {sentence}")
        return Chosen(steps=steps, epochs=epochs, calibration=calibration, values=values, validation=figures)


@dataclass(slots=True)
class _Phase:
    """One phase: everything from the vocabulary on, on given products.

    Attributes:
        per_epoch: steps of an epoch in the phase that ran last.
    """

    trainer: Trainer
    tasks: Tasks
    labels: NDArray[np.int32]
    per_epoch: int = 1

    def run(
        self,
        learned: Examples,
        held: Examples | None,
        progress: Progress | None,
        *,
        share: float = 1.0,
        epochs: float | None = None,
        steps: int | None = None,
    ) -> tuple[Built, Features | None]:
        """Learn from `learned`; `held` says when to stop and comes back as features.

        Args:
            learned: what is learned from.
            held: what is held out, or None.
            progress: where the phase stands; None for one that leaves no trace, such as a fold.
            share: of what is left of a time limit.
            epochs: after which to stop, at most the trainer's.
            steps: over which the learning rate falls and after which to stop; None follows the epochs.
        """
        trainer, config, plan = self.trainer, self.trainer.config, self.trainer.plan
        place = progress if progress is not None else Progress(phase="fold")
        vocabulary = trainer.ngrams if trainer.ngrams is not None else fit_vocabulary(plan, learned.texts)
        train = Features.of(
            learned, vocabulary, weights_of(learned, balance=config.balance, value_weight=config.value_weight)
        )
        validation = Features.of(held, vocabulary) if held is not None and len(held) else None
        if validation is not None and not len(validation.usable()):
            validation = None  # nothing to judge by
        n_usable = len(train.usable())
        batch_size = config.batch_size or _batch_size(n_usable)
        self.per_epoch = n_steps_per_epoch(n_usable, batch_size)
        linear = None
        sentence = fit_sentence(train)
        if plan.linear and vocabulary is not None and progress is not None:
            n_labels = len(self.labels) + self.tasks.n_values
            trainer.say(f"{len(vocabulary):,} n-grams and {n_labels:,} labels: fitting the linear part")
        if plan.linear and vocabulary is not None:
            linear = fit_wide(train, vocabulary, self.labels, self.tasks, sentence, plan.seed)
            if validation is not None and validation.ngrams is not None:
                validation = replace(validation, wide=linear.of_ngrams(validation.ngrams))
        if not place.step:
            place.phase_from_s = trainer.watch.elapsed_s()
        deadline = self._deadline(place.phase_from_s, share)
        built = build(
            plan,
            train,
            self.tasks,
            vocabulary=vocabulary,
            linear=linear,
            sentence=sentence,
            labels=self.labels,
            device=trainer.device,
        )
        planned = steps or trainer.epochs * self.per_epoch
        learning = {n: e.needs for n, e in built.model.head.named().items() if e in built.model.head.learning()}
        first = workers.rank() == 0 and progress is not None
        log = RunLog(trainer.run, phase=place.phase, step=place.step) if first else None
        if learning:
            train_phase(
                built.model,
                train,
                # The linear part has learned already: what it says must not decide when the others stop.
                replace(validation, wide=None) if validation is not None and progress is not None else None,
                self.tasks,
                config,
                loss_of=loss_for(
                    plan.head,
                    self.tasks,
                    level_weights=_for_levels(config.level_weights, self.tasks.n_levels),
                    smoothing=config.label_smoothing,
                    share=config.attribute_share,
                ),
                by=Calibration.even(learning, self.tasks.n_levels),
                batch_size=batch_size,
                planned_steps=planned,
                stop_at=steps or max(round((epochs or trainer.epochs) * self.per_epoch), 1),
                deadline=deadline,
                progress=place,
                watch=trainer.watch,
                checkpoints=trainer.checkpoints if progress is not None else None,
                log=log,
                say=trainer.say if progress is not None else _quiet,
            )
        if log is not None:
            log.close()
        return built, validation

    def _deadline(self, from_s: float, share: float) -> Deadline | None:
        """The clock's limit of a phase that may take a share of what is left of the time limit."""
        limit_s = self.trainer.config.time_limit_s
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


def value_counts(fitted: Fitted) -> dict[str, dict[str, int]]:
    """How many products taught each value of each attribute."""
    found: dict[str, dict[str, int]] = {}
    for task, labels in zip(fitted.tasks.attributes, fitted.learned.labels, strict=True):
        names = [value.name for value in task.attribute.values]
        if task.attribute.multi:
            counts = (labels == 1).sum(axis=0)
        else:
            counts = np.bincount(labels[labels >= 0], minlength=len(names))
        found[task.name] = dict(zip(names, counts.tolist(), strict=True))
    return found


def _quiet(line: str) -> None:
    """Folds are told of as a whole."""


def _n_usable(examples: Examples, plan: Plan) -> int:
    uses_text = plan.ngrams is not None or examples.frozen is not None
    has = np.array([t is not None and uses_text for t in examples.texts], np.bool_)
    n = int(np.count_nonzero(has if examples.image is None else has | examples.image.present))
    if not n:
        raise CatalogError(
            f"none of the {len(examples):,} labelled products in train has a text or a picture to learn from",
            allowed="a train split with texts, or with pictures that can be decoded",
            remedy="Look at `shelver describe`, and check the mapping and the encoders that you chose.",
        )
    return n


def _for_levels(weights: tuple[float, ...] | None, n_levels: int) -> list[float] | None:
    """A weight for each level: the last one goes on."""
    return None if weights is None else [weights[min(level, len(weights) - 1)] for level in range(n_levels)]


def _batch_size(n_products: int) -> int:
    """Some 100 steps an epoch at least, and matrices large enough to keep the processor busy."""
    return int(min(max(64, 2 ** round(np.log2(max(n_products, 1) / 200))), 512))


def _groups(tree: Taxonomy, nodes: NDArray[np.int32]) -> SiblingGroups:
    """Sibling groups in which products may stop at the inner nodes at which training products stand."""
    seen = np.unique(nodes)
    return sibling_groups(tree, [tree.ids[k] for k in seen.tolist() if not tree.is_leaf[k]])
