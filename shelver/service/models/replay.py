"""Decides again what was answered before, from the answers that the log keeps, without embedding anything.

Nobody stores P(node) of the whole tree. An answer has the levels of the decided node and the most probable places,
so the path down to the best of these is known: exactly along the decided node and at the place itself, and between
them at least as probable as the places that were listed below. What was abstained from left no such trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from shelver.calibrate.turns import NEVER, Floats, Paths, Turns
from shelver.decide import Policy
from shelver.decide.plan import plan_of
from shelver.errors import ConfigError
from shelver.taxonomy import SiblingGroups, Taxonomy

Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
NOWHERE: Final = -1
DECODERS: Final = ("best_leaf", "greedy", "climb")
"""Those that decide what is sure enough; the others have nothing that a threshold moves."""
_KNOWN, _UNKNOWN, _NEVER_DECIDED = 0, 1, 2
_ANSWER: Final = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """N answers of the log, in their order.

    Attributes:
        taxonomy: the tree that they were given for.
        node: the end of each one's path, NOWHERE where none is known, shape (N,).
        level_confidence: P(node) along the path, shape (N, L), float32; NaN below its end.
        kind: 0 where the path is known, 1 where nothing was kept, 2 where nothing can ever be decided, shape (N,).
    """

    taxonomy: Taxonomy
    node: Ints
    level_confidence: Floats
    kind: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.node)

    @property
    def unknown(self) -> Bools:
        """Of which nothing was kept, shape (N,)."""
        found: Bools = self.kind == _UNKNOWN
        return found

    def of(self, rows: Bools | NDArray[np.intp]) -> Stored:
        """Some of them."""
        return Stored(self.taxonomy, self.node[rows], self.level_confidence[rows], self.kind[rows])


def stored_of(answers: Iterable[str], taxonomy: Taxonomy) -> Stored:
    """Read answers as the log has them; what cannot be read counts as unknown."""
    ends: list[int] = []
    kinds: list[int] = []
    rows: list[list[float]] = []
    nothing = [float("nan")] * taxonomy.n_levels
    lineage = taxonomy.lineage.tolist()
    level = taxonomy.level.tolist()
    for answer in answers:
        try:
            said = _ANSWER.validate_json(answer)
            end, sure, kind = _path_of(said, taxonomy, lineage, level)
        except (ValueError, TypeError, KeyError, AttributeError):  # of another version of shelver
            end, sure, kind = NOWHERE, nothing, _UNKNOWN
        ends.append(end)
        rows.append(sure or nothing)
        kinds.append(kind)
    return Stored(
        taxonomy,
        np.array(ends, np.int32),
        np.array(rows, np.float32).reshape(len(rows), taxonomy.n_levels),
        np.array(kinds, np.int8),
    )


def check_decoder(policy: Policy) -> None:
    """See to it that a policy decides by thresholds alone.

    Raises:
        ConfigError: it does not.
    """
    if policy.decoder not in DECODERS:
        raise ConfigError(
            f"a preview of decoder {policy.decoder!r}",
            allowed=f"{', '.join(DECODERS)}: decoders that decide what is sure enough",
            remedy="Name one of these, or judge the policy on a catalog with `shelver policy compare`.",
        )


def decided_again(stored: Stored, policy: Policy, groups: SiblingGroups) -> Ints:
    """The node that a policy decides for each answer, NOWHERE where none, shape (N,).

    Raises:
        ConfigError: the policy does not fit the tree, or its decoder knows no thresholds.
    """
    check_decoder(policy)
    tree, plan = stored.taxonomy, plan_of(policy, groups)
    lineage = tree.lineage[np.maximum(stored.node, 0)]
    depth = np.where(stored.node >= 0, np.minimum(tree.level[stored.node], plan.max_level), 0)
    within = np.arange(1, tree.n_levels + 1) <= depth[:, None]
    with np.errstate(invalid="ignore"):
        sure = (stored.level_confidence >= plan.thresholds[np.maximum(lineage, 0)]) & within
    if policy.decoder == "greedy":
        reached = np.logical_and.accumulate(sure, axis=1).sum(axis=1)
    elif whole_of(policy):
        at_end = sure[np.arange(len(depth)), np.maximum(depth, 1) - 1]
        reached = np.where(at_end, depth, 0)
    else:
        reached = np.where(sure.any(axis=1), tree.n_levels - sure[:, ::-1].argmax(axis=1), 0)
    decided = reached >= policy.min_level
    return np.where(decided, lineage[np.arange(len(depth)), np.maximum(reached, 1) - 1], NOWHERE).astype(np.int32)


def turns_of(stored: Stored, truth: Ints, policy: Policy, groups: SiblingGroups) -> Turns:
    """From which threshold on, the same at every level, labelled answers are decided, and decided wrongly.

    Args:
        stored: of which something is known.
        truth: labelled nodes, NOWHERE where the label only says that the answer was wrong, shape (N,).
        policy: its decoder, levels and `strict` nodes count, its thresholds do not.
        groups: of the tree.
    """
    check_decoder(policy)
    tree = stored.taxonomy
    plan = plan_of(policy.model_copy(update={"thresholds": (0.0,)}), groups)
    lineage = tree.lineage[np.maximum(stored.node, 0)]
    with np.errstate(invalid="ignore"):
        careful = stored.level_confidence >= plan.thresholds[np.maximum(lineage, 0)]
    sure = np.where(careful | np.isnan(stored.level_confidence), stored.level_confidence, NEVER)
    paths = Paths(tree, stored.node, sure.astype(np.float32), truth)
    max_level = plan.max_level if plan.max_level < tree.n_levels else None
    if not whole_of(policy):
        return paths.turns(policy.min_level, max_level)
    if max_level is not None:  # cut there, and decided where it is sure
        cut = tree.lineage[np.maximum(stored.node, 0), np.minimum(tree.level[stored.node], max_level) - 1]
        paths = replace(paths, node=np.where(stored.node >= 0, cut, NOWHERE))
    return replace(paths, whole=True).turns(policy.min_level)


def right_of(decided: Ints, truth: Ints, tree: Taxonomy) -> Bools:
    """Whether decisions are the true node or lie above it; False where nothing was decided."""
    right: Bools = (decided >= 0) & (truth >= 0) & tree.is_ancestor_or_self(decided, truth)
    return right


def whole_of(policy: Policy) -> bool:
    """Whether the end of a path is decided or nothing is."""
    return policy.decoder == "best_leaf" and policy.unsure != "stop"


def _path_of(
    said: dict[str, Any], tree: Taxonomy, lineage: Sequence[list[int]], level: Sequence[int]
) -> tuple[int, list[float] | None, int]:
    """The end of an answer's path, P(node) along it, and what is known of it."""
    outcome = said["outcome"]
    if outcome in ("outside", "error"):
        return NOWHERE, None, _NEVER_DECIDED
    # At least as probable as all places that were listed at it or below.
    places = [(tree.find(one["node_id"]), one["confidence"]) for one in said["alternatives"]]
    known = [(k, p) for k, p in places if k is not None]
    decided = tree.find(said["node_id"]) if said["node_id"] is not None else None
    end = known[0][0] if known else decided
    if end is None:
        return NOWHERE, None, _UNKNOWN
    exact = said["level_confidence"] if decided is not None else []
    if decided is not None and lineage[end][level[decided] - 1] != decided:
        end = decided  # a decoder that went another way than to the best place
    sure = [float("nan")] * len(lineage[0])
    for i in range(level[end]):
        if i < len(exact):
            sure[i] = exact[i]
        else:
            at = lineage[end][i]
            sure[i] = min(sum(p for k, p in known if lineage[k][i] == at), sure[i - 1] if i else 1.0, 1.0)
    return end, sure, _KNOWN
