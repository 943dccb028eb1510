"""The node of the least expected cost, reckoned along the tree; never a K x K matrix.

d is the node that is decided, t the one where the product truly stands, A(v) the nodes on the path to v, v
included, l(v) its level, p(t) = P(standing exactly at t). What d costs, and what is expected of it:

tree costs
    wrong * |A(d) - A(t)| + missed * |A(t) - A(d)|, so
    E = missed * sum over all v of P(v)  -  sum over v in A(d) of (wrong + missed) * P(v) - wrong
values, `partial`
    wrong * |A(d) - A(t)| + value(t) * (1 - |A(d) & A(t)| / l(t)), so
    E = sum over t of p(t) * value(t)  -  sum over v in A(d) of W(v) - wrong * (1 - P(v)),
    W(v) = sum over t in the subtree of v of p(t) * value(t) / l(t)
values, exact
    wrong * |A(d) - A(t)| + value(t) unless d is t, so
    E = sum over t of p(t) * value(t)  -  p(d) * value(d)  +  sum over v in A(d) of wrong * (1 - P(v))

The first term does not depend on d; the rest, what d saves, is a sum along its path. On the way down P(v) and
W(v) can only fall, so what is saved by a level falls too: from a node on, no more can be saved than its own part
times the levels below it. The search goes down level by level and leaves a branch as soon as this cannot reach
what a first guess saves; it is exact all the same. Where values are exact, P(d) * (wrong + value(d)) - wrong is a
bound for each node at once.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.exact import most_saved_exactly
from shelver.decide.places import Floats, Index, Ints, best_places
from shelver.decide.plan import Plan, plan_of
from shelver.decide.policy import Policy
from shelver.decide.predictions import Probabilities
from shelver.decide.savings import Doubles, Savings
from shelver.taxonomy import SiblingGroups

_CHUNK: Final = 512
"""Products that are searched at a time."""
_N_GUESSES: Final = 5
"""Best places that the search takes for first guesses."""


def cheapest(
    probs: Probabilities, groups: SiblingGroups, policy: Policy
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The node of the least expected cost for each product, and that cost.

    Nodes above `min_level`, below `max_level`, or with a probability below their threshold are not considered;
    `costs.review`, `unsure` and `outside` are not looked at. Of equal nodes the first in the tree.

    Args:
        probs: the distribution of N products over the tree.
        groups: the tree's sibling groups.
        policy: whose `costs` to count with.

    Returns:
        Nodes, -1 where none may be decided, and costs in the unit of `policy.costs`, then NaN; both of shape (N,).

    Raises:
        ConfigError: the policy names a node that the tree does not have.
    """
    places, _ = best_places(probs.nodes, groups, _N_GUESSES)
    plan = plan_of(policy, groups)
    node, saved = most_saved(probs.nodes, plan, places, exactly=True)
    return node.astype(np.int32), expected_cost(probs.nodes, plan, saved)


def most_saved(nodes: Floats, plan: Plan, places: Ints, *, exactly: bool | None = None) -> tuple[Index, Doubles]:
    """The node of the least expected cost, -1 where none may be decided, and what it saves, then -inf; both (N,).

    Args:
        nodes: P(node), shape (N, K).
        plan: the policy on the tree.
        places: the most probable places of each product, best first, shape (N, n); the first guesses.
        exactly: what is saved has to be known, not only which node saves most; None: if `costs.review` asks.
    """
    costs = _costs_of(plan)
    exactly = plan.policy.costs.review is not None if exactly is None else exactly
    node = np.empty(len(nodes), np.intp)
    saved = np.empty(len(nodes))
    for begin in range(0, len(nodes), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        part = np.ascontiguousarray(nodes[rows])
        guesses = places[rows, :_N_GUESSES]
        if costs.is_exact:
            node[rows], saved[rows] = most_saved_exactly(costs, part, guesses)
        else:
            node[rows], saved[rows] = costs.along(part, guesses, exactly=exactly)
    return node, saved


def expected_cost(nodes: Floats, plan: Plan, saved: Doubles) -> Floats:
    """The expected cost of what `most_saved` found, NaN where it found nothing, shape (N,)."""
    # Not a matrix product: some kernels warn of numbers that they read beside the array.
    missed = np.einsum("nk,k->n", nodes, _costs_of(plan).all_missed)
    cost = np.where(np.isneginf(saved), np.nan, missed - saved)
    return cost.astype(np.float32)


_recent: tuple[Savings, ...] = ()


def _costs_of(plan: Plan) -> Savings:
    global _recent
    for costs in _recent:
        if costs.plan is plan:
            return costs
    costs = Savings(plan)
    _recent = (costs, *_recent)[:4]
    return costs
