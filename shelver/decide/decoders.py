"""From probabilities on the tree to decisions."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.attributes import Applying, answer_attributes, check_rules
from shelver.decide.costs import expected_cost, most_saved
from shelver.decide.places import Floats, Index, Ints, best_places, exact_mass, members, starts_of
from shelver.decide.plan import Plan, plan_of
from shelver.decide.policy import Policy
from shelver.decide.predictions import (
    ABSTAINED,
    DECIDED,
    ERROR,
    OUTSIDE,
    REVIEW,
    SUGGESTED,
    Predictions,
    Probabilities,
)
from shelver.errors import ConfigError, ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy

NOWHERE: Final = -1
"""In place of a node where none is decided; inside this module only."""
_UNSURE: Final = {"stop": ABSTAINED, "abstain": ABSTAINED, "suggest": SUGGESTED, "review": REVIEW}


def decide(
    probs: Probabilities,
    taxonomy: Taxonomy,
    groups: SiblingGroups,
    policy: Policy,
    attributes: Applying | None = None,
) -> Predictions:
    """Make decisions from probabilities; `Policy` says what each decoder does.

    A product's outcome is the first of these that holds: there was nothing to answer from; it is at least as
    strange as the policy's `outside` says; a node was decided; what the policy's `unsure` says.

    Args:
        probs: the distribution of N products over the K nodes of `taxonomy`.
        taxonomy: the tree.
        groups: its sibling groups; they know at which inner nodes products may stop.
        policy: what the consumer wants.
        attributes: those that the model has learned; None: none.

    Raises:
        ShapeError: `probs.nodes` is not (N, K), or those of an attribute are not (N, V).
        ConfigError: the policy names a node that the tree does not have, or an attribute that the model has not
            learned, or sends strange products away although `probs` does not say how strange they are.
    """
    nodes = probs.nodes
    n, k = len(nodes), taxonomy.n_nodes
    if nodes.ndim != 2 or nodes.shape[1] != k:
        raise ShapeError(
            f"probabilities of shape {nodes.shape}",
            allowed=f"(N, {k}), a column for each node of the tree",
            remedy="Take them from the Emb2Prob stage of the same model folder.",
        )
    plan = plan_of(policy, groups)
    check_rules(policy, attributes)
    outcome = np.full(n, DECIDED, np.int8)
    top_node, top_confidence = best_places(nodes, groups, policy.n_top)
    node = _decoded(nodes, plan, top_node)
    outcome[node == NOWHERE] = SUGGESTED if policy.decoder == "top_n" else _UNSURE[policy.unsure]
    outcome[_strange(probs, policy)] = OUTSIDE
    outcome[probs.modality == 0] = ERROR

    decided = outcome == DECIDED
    rows = np.flatnonzero(decided)
    at = node[rows]
    confidence = np.full(n, np.nan, np.float32)
    # A node above the best place is decided for all that lies below it, so what lies below counts.
    exactly = exact_mass(nodes, groups, rows, at)
    confidence[rows] = np.where(at == top_node[rows, 0], exactly, nodes[rows, at])
    level_confidence = np.full((n, taxonomy.n_levels), np.nan, np.float32)
    lineage = taxonomy.lineage[at]
    level_confidence[rows] = np.where(
        lineage >= 0, nodes[rows[:, None], np.maximum(lineage, 0)], np.float32(np.nan)
    )
    silent = ~np.isin(outcome, (DECIDED, SUGGESTED, REVIEW))
    columns = {}
    if attributes is not None:
        columns = answer_attributes(
            probs.attributes,
            probs.sources,
            modality=probs.modality,
            node=np.where(silent, NOWHERE, np.where(decided, node, top_node[:, 0])),
            applying=attributes,
            rules=policy.attributes,
        )
    node[~decided] = 0
    top_node[silent] = 0
    top_confidence[silent] = np.nan
    return Predictions(
        taxonomy=taxonomy,
        answered=decided,
        node=node.astype(np.int32),
        confidence=confidence,
        level_confidence=level_confidence,
        top_node=top_node,
        top_confidence=top_confidence,
        modality=probs.modality,
        errors=tuple("empty_product" if code == ERROR else None for code in outcome.tolist()),
        picture_errors=(None,) * n,
        outcome=outcome,
        attributes=columns,
    )


def _strange(probs: Probabilities, policy: Policy) -> NDArray[np.bool_]:
    if policy.outside is None:
        return np.zeros(len(probs.nodes), np.bool_)
    if probs.outside is None:
        raise ConfigError(
            f"a policy with outside = {policy.outside}, and a model that cannot tell how strange a product is",
            allowed="a policy without `outside`, or a model that was trained to tell",
            remedy="Take `outside` out of the policy, or train the model again.",
        )
    return probs.outside >= policy.outside


def _decoded(nodes: Floats, plan: Plan, places: Ints) -> Index:
    """The decided node of each product, NOWHERE where it is unsure, shape (N,), from its best places, (N, n)."""
    match plan.policy.decoder:
        case "best_leaf" if plan.policy.unsure != "stop":
            return _best_or_nothing(nodes, plan, places[:, 0])
        case "best_leaf" | "climb":
            return _climbed(nodes, plan, places[:, 0])
        case "greedy":
            return _greedy(nodes, plan)
        case "cost":
            node, saved = most_saved(nodes, plan, places)
            review = plan.policy.costs.review
            if review is not None:
                node[expected_cost(nodes, plan, saved) > review] = NOWHERE
            return node
        case "top_n":
            return np.full(len(nodes), NOWHERE)


def _best_or_nothing(nodes: Floats, plan: Plan, best: Ints) -> Index:
    """The best place, cut at the deepest level wanted, where it is sure and deep enough."""
    tree = plan.tree
    at = np.where(tree.level[best] > plan.max_level, tree.lineage[best, plan.max_level - 1], best)
    sure = nodes[np.arange(len(at)), at] >= plan.thresholds[at]
    return np.where(sure & (tree.level[at] >= plan.policy.min_level), at, NOWHERE).astype(np.intp)


def _climbed(nodes: Floats, plan: Plan, best: Ints) -> Index:
    """From the best place up to the first node that is sure."""
    lineage = plan.tree.lineage[best][:, : plan.max_level]
    at = np.maximum(lineage, 0)
    sure = (nodes[np.arange(len(at))[:, None], at] >= plan.thresholds[at]) & (lineage >= 0)
    sure[:, : plan.policy.min_level - 1] = False
    deepest = sure.shape[1] - 1 - sure[:, ::-1].argmax(axis=1)
    return np.where(sure.any(axis=1), lineage[np.arange(len(at)), deepest], NOWHERE).astype(np.intp)


def _greedy(nodes: Floats, plan: Plan) -> Index:
    """Down from the root, each time to the best child, for as long as it is sure.

    Stopping at a node competes with going to its children: where P(stopping there) is as great as the best child's
    probability, the product stays.
    """
    tree, groups = plan.tree, plan.groups
    n_first = int(np.count_nonzero(tree.level == 1))
    node = np.full(len(nodes), NOWHERE)
    rows = np.arange(len(nodes))
    child = np.ascontiguousarray(nodes[:, :n_first]).argmax(axis=1)
    for level in range(1, plan.max_level + 1):
        sure = nodes[rows, child] >= plan.thresholds[child]
        rows, child = rows[sure], child[sure]
        node[rows] = child
        goes_on = ~tree.is_leaf[child]
        rows, parent = rows[goes_on], child[goes_on]
        if level == plan.max_level or not len(rows):
            break
        count = tree.n_children[parent]
        begin = starts_of(count)
        owner, member = members(tree.first_child[parent], count)
        prob = nodes[rows[owner], member]
        most = np.maximum.reduceat(prob, begin)
        at_most = np.flatnonzero(prob == most[owner])
        _, first = np.unique(owner[at_most], return_index=True)
        child = member[at_most[first]]
        here = nodes[rows, parent] - np.add.reduceat(prob, begin)
        goes_on = (groups.here_slot[parent] < 0) | (most > np.maximum(here, 0))
        rows, child = rows[goes_on], child[goes_on]
    node[(node != NOWHERE) & (tree.level[node] < plan.policy.min_level)] = NOWHERE
    return node
