"""What calibration changed, and what each policy of the model folder makes of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shelver import metrics
from shelver.attributes import EMPTY, Vocabulary
from shelver.calibrate import MODALITIES, Calibration
from shelver.decide import OUTCOMES, Policy, Predictions, Probabilities
from shelver.evaluate.attributes import AttributeTally
from shelver.evaluate.figures import honesty, honesty_at
from shelver.evaluate.parts import AttributePoint, BeforeAfter, Calibrated, Honesty, PolicyPoint
from shelver.pipeline import Classifier, Embedding, Prob2Pred
from shelver.product import Product
from shelver.taxonomy import Taxonomy


class Uncalibrated:
    """The model's probabilities as they were before calibration: every expert counts alike."""

    def __init__(self, classifier: Classifier) -> None:
        own = classifier.manifest.calibration
        self._emb2prob = classifier.emb2prob
        self._groups = classifier.prob2pred.groups
        even = Calibration.even(dict(zip(own.experts, own.needs, strict=True)), classifier.taxonomy.n_levels)
        self._believed = [even.ready(modality, self._groups) for modality in MODALITIES]

    def __call__(self, text: Embedding | None, image: Embedding | None) -> Probabilities:
        """Probabilities of N products; arguments as of `Emb2Prob`."""
        scores, modality = self._emb2prob.scores(text, image)
        nodes = np.zeros((len(modality), self._groups.taxonomy.n_nodes), np.float32)
        for code, believed in enumerate(self._believed, start=1):
            rows = modality == code
            if rows.any():
                nodes[rows] = believed([of_expert[rows] for of_expert in scores])
        return Probabilities(nodes, modality)


@dataclass(slots=True)
class Confidences:
    """Decided nodes and how sure they are, batch by batch, with the Brier scores of whole levels."""

    node: list[NDArray[np.int32]] = field(default_factory=list)
    answered: list[NDArray[np.bool_]] = field(default_factory=list)
    confidence: list[NDArray[np.float32]] = field(default_factory=list)
    level_confidence: list[NDArray[np.float32]] = field(default_factory=list)
    of_level: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, truth: NDArray[np.int32], probs: Probabilities, said: Predictions) -> None:
        """Take in N products: true nodes (N,), their probabilities, and what was decided."""
        self.node.append(said.node)
        self.answered.append(said.answered)
        self.confidence.append(said.confidence)
        self.level_confidence.append(said.level_confidence)
        self.of_level.append(metrics.level_brier(said.taxonomy, probs.nodes, truth))

    def honest(self, tree: Taxonomy, truth: NDArray[np.int32]) -> tuple[Honesty, list[Honesty]]:
        """Of the decided nodes, and of each level."""
        node, answered = np.concatenate(self.node), np.concatenate(self.answered)
        confidence, by_level = np.concatenate(self.confidence), np.concatenate(self.level_confidence)
        of_level = np.concatenate(self.of_level)[answered]
        return honesty((node == truth)[answered], confidence[answered]), [
            honesty_at(tree, truth, node, by_level, answered, level, of_level[:, level - 1])
            for level in range(1, tree.n_levels + 1)
        ]


def calibrated(tree: Taxonomy, truth: NDArray[np.int32], before: Confidences, after: Confidences) -> Calibrated:
    """Both side by side."""
    (raw, raw_levels), (own, own_levels) = before.honest(tree, truth), after.honest(tree, truth)
    return Calibrated(
        decided=BeforeAfter(before=raw, after=own),
        by_level={
            str(level): BeforeAfter(before=one, after=other)
            for level, (one, other) in enumerate(zip(raw_levels, own_levels, strict=True), start=1)
        },
    )


@dataclass(slots=True)
class PolicyTally:
    """What the policies decide, batch by batch: eight bytes a product and policy.

    Attributes:
        policies: by name.
        vocabulary: the catalog's.
    """

    policies: Mapping[str, Policy]
    vocabulary: Vocabulary = EMPTY
    _nodes: dict[str, list[NDArray[np.int32]]] = field(default_factory=dict)
    _outcomes: dict[str, list[NDArray[np.int8]]] = field(default_factory=dict)
    _attributes: dict[str, AttributeTally] = field(default_factory=dict)

    def add(self, prob2pred: Prob2Pred, products: Sequence[Product], probs: Probabilities) -> None:
        """Decide N products by every policy."""
        for name, policy in self.policies.items():
            said = prob2pred(probs, policy)
            self._nodes.setdefault(name, []).append(np.where(said.answered, said.node, -1).astype(np.int32))
            self._outcomes.setdefault(name, []).append(said.outcome)
            if policy.attributes:
                self._attributes.setdefault(name, AttributeTally(self.vocabulary)).add(products, said)

    def points(
        self, tree: Taxonomy, truth: NDArray[np.int32], worth: NDArray[np.float64] | None
    ) -> dict[str, PolicyPoint]:
        """Where each policy stands on these products."""
        return {
            name: _point(
                tree, truth, worth, policy, np.concatenate(self._nodes[name]), np.concatenate(self._outcomes[name])
            ).model_copy(update={"attributes": self._attribute_points(name, policy)})
            for name, policy in self.policies.items()
        }

    def _attribute_points(self, name: str, policy: Policy) -> dict[str, AttributePoint]:
        tally = self._attributes.get(name)
        judged = tally.judged() if tally is not None else {}
        points = {}
        for attribute, rule in policy.attributes.items():
            if attribute not in judged:
                continue
            scores = judged[attribute].scores()
            points[attribute] = AttributePoint(
                promised=rule.promise.precision if rule.promise else None,
                coverage=round(scores.coverage, 6),
                precision=None if scores.precision is None else round(scores.precision, 6),
            )
        return points


def _point(
    tree: Taxonomy,
    truth: NDArray[np.int32],
    worth: NDArray[np.float64] | None,
    policy: Policy,
    node: NDArray[np.int32],
    outcome: NDArray[np.int8],
) -> PolicyPoint:
    decided = node >= 0
    right = metrics.right_as_promised(tree, truth, node, min_level=policy.min_level)
    earned = None if worth is None else metrics.value_score(truth, node, worth, taxonomy=tree)
    counts = np.bincount(outcome, minlength=len(OUTCOMES)).tolist()
    return PolicyPoint(
        decoder=policy.decoder,
        min_level=policy.min_level,
        max_level=policy.max_level,
        promised=policy.promise.precision if policy.promise else None,
        coverage=round(float(decided.mean()), 6),
        precision=round(float(right[decided].mean()), 6) if decided.any() else None,
        accuracy=round(metrics.accuracy(truth, node), 6),
        hierarchical_coverage=round(metrics.hierarchical_coverage(tree, truth, node), 6),
        value_score_partial=None if earned is None else round(earned, 6),
        outcomes={name: n for name, n in zip(OUTCOMES, counts, strict=True) if n},
    )
