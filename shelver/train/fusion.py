"""How far each expert is believed: fitted on products that none of them learned from.

Each expert is calibrated alone, then the text's experts are averaged, and likewise the picture's: equal shares of
calibrated experts are right more often than shares of the least loss, which lean on the least surprised one.
Then text and picture are fused, with the expert that saw both, by shares of the least loss. What comes out is
compared with simpler ways on the same products, and gives way where one of them is right more often: the linear
part alone, the text alone, the picture alone. What is added must be worth it. So must a blend of distributions,
which takes the place of the one sum of scores where it is more honest on products that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import (
    MODALITIES,
    BlendFit,
    Calibration,
    Known,
    Modality,
    Outside,
    Part,
    WeightFit,
    Weights,
    can_answer,
    on_slots,
    pooled_scores,
    strangeness,
    witness_of,
)
from shelver.calibrate.blend import MAX_SLOTS
from shelver.pipeline import yes_or_no
from shelver.taxonomy import SiblingGroups
from shelver.train.config import Fusion
from shelver.train.tasks import AttributeTask, Labels, Tasks, is_known

SIMPLE: Final = ("linear", "ngram", "image")
"""Experts that the average of all is compared with."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What the experts say of some held-out products.

    Attributes:
        scores: of the slots, (n, M) for each expert.
        node: labelled nodes, shape (n,); those of one attribute are the places of its values.
        modality: what each product has: 1 text, 2 image, 3 both; shape (n,).
        labels: of the attributes, as in `Examples`, where the scores are those of all tasks.
    """

    scores: list[NDArray[np.float32]]
    node: NDArray[np.int32]
    modality: NDArray[np.int8]
    labels: tuple[Labels, ...] = ()

    def of_tree(self, tasks: Tasks) -> HeldOut:
        """The products that have a category, with the scores of the tree's slots."""
        scores = [part[:, : tasks.n_tree_slots] for part in self.scores]
        if (self.node >= 0).all():
            return HeldOut(scores, self.node, self.modality)
        rows = np.flatnonzero(self.node >= 0)
        return HeldOut([part[rows] for part in scores], self.node[rows], self.modality[rows])

    def of_attribute(self, number: int, task: AttributeTask) -> HeldOut:
        """The products whose value is known, with the scores of the values; of an attribute that takes several
        values, each value of a product as a question of its own."""
        labels = self.labels[number]
        rows = np.flatnonzero(is_known(labels))
        scores = [part[rows, task.slots] for part in self.scores]
        if not task.attribute.multi:
            return HeldOut(scores, labels[rows].astype(np.int32), self.modality[rows])
        no = (labels[rows].reshape(-1) == 0).astype(np.int32)
        return HeldOut(yes_or_no(scores), no, np.repeat(self.modality[rows], len(task.attribute.values)))

    def that_have(self, modality: Modality) -> HeldOut:
        """The products that have at least what the modality names."""
        bits = MODALITIES.index(modality) + 1
        rows = np.flatnonzero(self.modality & bits == bits)
        scores = [of_expert[rows] for of_expert in self.scores]
        return HeldOut(scores, self.node[rows], np.full(len(rows), bits, np.int8))


Batches = Callable[[], Iterable[HeldOut]]
"""Goes through the held-out products from the start, as often as it is called."""


def fit_calibration(
    batches: Batches,
    experts: Mapping[str, Modality],
    groups: SiblingGroups,
    fusion: Fusion,
    *,
    outside: bool = True,
) -> tuple[Calibration, list[str]]:
    """Weights of the experts for text, picture and both, blends where they help, how strange the held-out products
    are, and what was chosen, in sentences.

    Args:
        batches: the held-out products.
        experts: what each expert looks at, by name, in the order of its scores.
        groups: the slots' sibling groups.
        fusion: see `TrainConfig.fusion`.
        outside: also learn how strange known products are.
    """
    pool = _Pool(batches, experts, groups)
    said: list[str] = []
    alone: dict[Modality, Weights] = {}
    for modality in ("text", "image"):
        able = [name for name, needs in experts.items() if needs == modality]
        if not able:
            continue
        tried = {"all experts in equal shares": able}
        if len(able) > 1:
            tried |= {f"the expert `{name}` alone": [name] for name in able if name in SIMPLE}
        alone[modality], why = pool.best(modality, {why: pool.shares([names]) for why, names in tried.items()})
        said += why
    both: dict[str, Weights] = {}
    joint = [name for name, needs in experts.items() if needs == "both"]
    if "text" in alone and "image" in alone:
        groups_of_experts = [[n for n, row in zip(experts, alone[m], strict=True) if any(row)] for m in alone]
        if fusion != "joint" or not joint:
            both["text and picture, weighed late"] = pool.shares(groups_of_experts)
        if fusion != "late" and joint:
            both["the expert that saw both"] = pool.shares([joint])
        if fusion == "auto" and joint:
            both["text, picture and the expert that saw both"] = pool.shares([*groups_of_experts, joint])
        both["the text alone"], both["the picture alone"] = alone["text"], alone["image"]
        alone["both"], why = pool.best("both", both)
        said += why
    elif alone:
        alone["both"] = next(iter(alone.values()))
    calibration = _calibrated(pool.even, {**pool.even.weights, **alone})
    blends = {modality: pool.blend(modality, weights) for modality, weights in alone.items()}
    calibration = calibration.model_copy(update={"blends": {m: parts for m, parts in blends.items() if parts}})
    if outside:
        strange = _outside(batches, experts, groups, calibration, alone)
        calibration = calibration.model_copy(update={"outside": strange})
    return calibration, said


def _outside(
    batches: Batches,
    experts: Mapping[str, Modality],
    groups: SiblingGroups,
    calibration: Calibration,
    modalities: Iterable[Modality],
) -> Outside | None:
    """How strange the held-out products are, asked with all that they have of each modality."""
    asked = [(modality, witness_of(experts, modality)) for modality in modalities]
    answer = {modality: calibration.ready(modality, groups) for modality, _ in asked}
    seen: dict[Modality, list[NDArray[np.float32]]] = {modality: [] for modality, _ in asked}
    for batch in batches():
        for modality, witness in asked:
            of = batch.that_have(modality)
            if len(of.node):
                seen[modality].append(strangeness(of.scores, answer[modality](of.scores), groups, witness))
    none = np.zeros(0, np.float32)
    found = {m: Known.of(np.concatenate([none, *seen[m]]), witness) for m, witness in asked}
    known = {modality: of for modality, of in found.items() if of is not None}
    return Outside(known=known) if known else None


class _Pool:
    """Fits shares of experts on the held-out products."""

    def __init__(self, batches: Batches, experts: Mapping[str, Modality], groups: SiblingGroups) -> None:
        self.batches = batches
        self.experts = experts
        self.groups = groups
        self.even = Calibration.even(experts, groups.taxonomy.n_levels)
        fits = {name: WeightFit(groups, [name == other for other in experts]) for name in experts}
        for batch in batches():
            for name, needs in experts.items():
                of = batch.that_have(needs)
                fits[name].add(of.scores, of.node)
        # Of each expert the weights that make it honest alone, (E, L) with zeros for the others.
        self._alone = {name: np.array(fit.weights()) for name, fit in fits.items()}

    def shares(self, parts: list[list[str]]) -> Weights:
        """Weights of experts: equal ones in each part, the parts among themselves by the least loss."""
        blends = [sum(self._alone[name] for name in names) / len(names) for names in parts]
        slot_weights = [on_slots(np.asarray(blend), self.groups) for blend in blends]
        fit = WeightFit(self.groups, [True] * len(parts))
        needs = {self.experts[name] for names in parts for name in names}
        modality: Modality = next(iter(needs)) if len(needs) == 1 else "both"
        for batch in self.batches():
            of = batch.that_have(modality)
            pooled = [pooled_scores(of.scores, weights) for weights in slot_weights]
            fit.add(pooled, of.node)
        found = sum(np.asarray(blend) * np.array(row) for blend, row in zip(blends, fit.weights(), strict=True))
        return tuple(tuple(round(float(weight), 6) for weight in row) for row in np.asarray(found))

    def blend(self, modality: Modality, weights: Weights) -> tuple[Part, ...]:
        """The parts that are more honest together than the weights are; none where they are not."""
        if self.groups.n_slots > MAX_SLOTS:
            return ()
        able = [name for name, needs in self.experts.items() if can_answer(needs, modality)]
        fit = BlendFit(self.groups, weights, [self._alone[name] for name in able])
        for batch in self.batches():
            of = batch.that_have(modality)
            fit.add(of.scores, of.node)
        return fit.parts()

    def best(self, modality: Modality, tried: dict[str, Weights]) -> tuple[Weights, list[str]]:
        """The weights that are right most often on the products that have what the modality names."""
        if len(tried) == 1:
            return next(iter(tried.values())), []
        judged = {
            name: judge(
                self.batches(),
                self.groups,
                _calibrated(self.even, {**self.even.weights, modality: weights}),
                only=modality,
            )
            for name, weights in tried.items()
        }
        best = max(judged, key=lambda name: (judged[name]["accuracy"], -judged[name]["loss"]))
        figures = "; ".join(f"{name} {figure['accuracy']:.4f}" for name, figure in judged.items())
        return tried[best], [f"{modality} is answered by {best} (accuracy on held-out products: {figures})"]


def judge(
    batches: Iterable[HeldOut], groups: SiblingGroups, calibration: Calibration, *, only: Modality | None = None
) -> dict[str, float]:
    """Accuracy of the most probable place and mean negative log likelihood, of products as they are.

    Args:
        batches: the held-out products.
        groups: the slots' sibling groups.
        calibration: weights of the experts.
        only: look at the products that have this, and answer from it.
    """
    answer = {modality: calibration.ready(modality, groups) for modality in MODALITIES}
    right, loss, n = 0, 0.0, 0
    for batch in batches:
        asked = batch if only is None else batch.that_have(only)
        for code, modality in enumerate(MODALITIES, start=1):
            of = np.flatnonzero(asked.modality == code)
            if not len(of):
                continue
            places = groups.here(answer[modality]([part[of] for part in asked.scores]))
            node = asked.node[of]
            right += int((places.argmax(axis=1) == node).sum())
            # A label where training saw no stop has probability 0 here; the floor bounds its loss.
            loss -= float(np.log(np.maximum(places[np.arange(len(of)), node], 1e-9)).sum())
            n += len(of)
    return {"accuracy": right / max(n, 1), "loss": loss / max(n, 1)}


def _calibrated(even: Calibration, weights: dict[Modality, Weights]) -> Calibration:
    return Calibration(experts=even.experts, needs=even.needs, weights=weights)
