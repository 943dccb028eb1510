"""A policy on a tree: its words as arrays over the nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shelver.decide.policy import Policy
from shelver.errors import ConfigError
from shelver.taxonomy import SiblingGroups, Taxonomy


@dataclass(frozen=True, eq=False)
class Plan:
    """A policy, worked out for one tree.

    Attributes:
        policy: as it was written.
        groups: the tree's sibling groups.
        thresholds: P(node) from which each node is sure, shape (K,), float32.
    """

    policy: Policy
    groups: SiblingGroups
    thresholds: NDArray[np.float32]

    @property
    def tree(self) -> Taxonomy:
        return self.groups.taxonomy

    @cached_property
    def anything_is_sure(self) -> bool:
        return bool((self.thresholds <= 0).all())

    @cached_property
    def max_level(self) -> int:
        """The deepest level at which to answer."""
        return min(self.policy.max_level or self.tree.n_levels, self.tree.n_levels)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Value of a product of each category, shape (K,); 0 where no product can stand.

        Raises:
            ConfigError: a value names a node that the tree does not have.
        """
        values = self.policy.costs.values
        assert values is not None
        found = np.full(self.tree.n_nodes, np.mean(list(values.values())))
        found[_known(values, self.tree, "costs.values")] = list(values.values())
        found[~self.tree.is_leaf & (self.groups.here_slot < 0)] = 0
        return found


_recent: tuple[Plan, ...] = ()
_N_RECENT = 8


def plan_of(policy: Policy, groups: SiblingGroups) -> Plan:
    """The policy on this tree; made once where the same policy decides batch after batch.

    Raises:
        ConfigError: the policy names a node that the tree does not have.
    """
    global _recent
    for plan in _recent:
        if plan.policy is policy and plan.groups is groups:
            return plan
    plan = _worked_out(policy, groups)
    # Threads that come here at once each make their own; one of the equal plans stays.
    _recent = (plan, *_recent)[:_N_RECENT]
    return plan


def _worked_out(policy: Policy, groups: SiblingGroups) -> Plan:
    tree = groups.taxonomy
    with np.errstate(over="ignore"):  # what float32 cannot hold is as good as infinity: never sure
        by_level = np.asarray(policy.thresholds, np.float32)
        thresholds = by_level[np.minimum(tree.level, len(by_level)) - 1]
        for k, strict in zip(_known(policy.strict, tree, "strict").tolist(), policy.strict.values(), strict=True):
            below = tree.lineage[:, tree.level[k] - 1] == k
            thresholds[below] = np.maximum(thresholds[below], np.float32(strict))
    plan = Plan(policy, groups, thresholds)
    if policy.costs.values is not None:
        _known(policy.costs.values, tree, "costs.values")
    return plan


def _known(node_ids: Iterable[str], tree: Taxonomy, field: str) -> NDArray[np.int32]:
    ids = list(node_ids)
    unknown = [node_id for node_id in ids if tree.find(node_id) is None]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise ConfigError(
            f"the policy's `{field}` names node {unknown[0]!r}{more}, not in this tree",
            allowed=f"ids of the {tree.n_nodes} nodes of taxonomy {tree.version}, such as {tree.ids[0]!r}",
            remedy="Write the policy for the tree of this model, or take these nodes out of it.",
        )
    return tree.indices(ids)
