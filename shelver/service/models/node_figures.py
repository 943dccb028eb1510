"""How good the answers are at each node of the tree, counted along its branches; /v1/taxonomy/quality.

Products are those that stand there now. Predictions, and what people said of them, are those of a range of time.
One query each reads them; what lies below a node is summed with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from shelver.calibrate.binomial import interval
from shelver.service.models.kept import Kept
from shelver.service.models.node_payloads import ChildCounts, Confusion, NodeCounts, NodeQualityOut
from shelver.service.models.payloads import TreeNode
from shelver.service.records.payloads import Figure
from shelver.service.records.quality import labels_of
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

MAX_LABELS: Final = 100_000
"""Judgements that are looked at, the latest predictions first."""
MAX_CONFUSIONS: Final = 12
Ints = NDArray[np.int64]
_ROOT: Final = -1


@dataclass(frozen=True, eq=False, slots=True)
class TreeFigures:
    """What is counted at each of K nodes, and N labels.

    Attributes:
        start, end: of the predictions.
        products_own: stored products of exactly this node, shape (K,).
        products, predictions: at it or below, shape (K,).
        judged, right: predictions decided at it or below that have a label, and those of them that it agrees with.
        true, found: labels at it or below, and those of them that were decided exactly.
        decided, truth: of each label, -1 where none, shape (N,).
        n_outside_tree, complete: as in `NodeQualityOut`.
    """

    start: datetime
    end: datetime
    products_own: Ints
    products: Ints
    predictions: Ints
    judged: Ints
    right: Ints
    true: Ints
    found: Ints
    decided: NDArray[np.int32]
    truth: NDArray[np.int32]
    n_outside_tree: int
    complete: bool


def tree_figures(session: Session, tree: Taxonomy, kept: Kept, days: int) -> TreeFigures:
    """The figures of a tree, as they were a moment ago."""
    return kept.get(("nodes", tree.version, days), lambda: _read(session, tree, days))


def quality_of(tree: Taxonomy, figures: TreeFigures, k: int) -> NodeQualityOut:
    """What happens at node k; -1 is the whole tree."""
    children = tree.children(k)
    counts = _counts(figures, children)
    mistaken, missed, within = _confusions(tree, figures, k)
    return NodeQualityOut(
        start=figures.start,
        end=figures.end,
        taxonomy_version=tree.version,
        node=node_out(tree, k) if k != _ROOT else None,
        parents=[node_out(tree, above) for above in tree.ancestors(k).tolist()],
        counts=_counts(figures, np.array([k], np.int32))[0] if k != _ROOT else _of_all(tree, figures),
        children=[
            ChildCounts(**node_out(tree, child).model_dump(), **one.model_dump())
            for child, one in zip(children.tolist(), counts, strict=True)
        ],
        mistaken_here=mistaken,
        missed=missed,
        within=within,
        n_outside_tree=figures.n_outside_tree,
        complete=figures.complete,
    )


def node_out(tree: Taxonomy, k: int) -> TreeNode:
    """A node as it is shown in lists."""
    return TreeNode(
        node_id=tree.ids[k],
        name=tree.names[k],
        path=list(tree.path_names(k)),
        level=int(tree.level[k]),
        is_leaf=bool(tree.is_leaf[k]),
    )


def products_at(tree: Taxonomy, figures: TreeFigures, k: int, *, below: bool) -> Select[ProductRow]:
    """The products of a node, with `below` also those of its branch."""
    nodes = np.append(tree.descendants(k), k) if below else np.array([k])
    # Only categories that have a product: a branch may have thousands of nodes.
    ids = [tree.ids[node] for node in nodes.tolist() if node == k or figures.products_own[node]]
    return select(ProductRow).where(ProductRow.node_id.in_(ids))


def _read(session: Session, tree: Taxonomy, days: int) -> TreeFigures:
    end = datetime.now(UTC)
    start = end - timedelta(days=days)
    products = _by_node(
        tree, session.execute(select(ProductRow.node_id, func.count()).group_by(ProductRow.node_id))
    )
    asked = (
        select(PredictionRow.node_id, func.count())
        .where(PredictionRow.at >= start)
        .group_by(PredictionRow.node_id)
    )
    predictions = _by_node(tree, session.execute(asked))
    wanted = (
        select(
            *(FeedbackRow.prediction_id, FeedbackRow.role, FeedbackRow.at, FeedbackRow.id),
            *(FeedbackRow.action, FeedbackRow.node_before, FeedbackRow.node_after),
        )
        .where(FeedbackRow.current_of.is_not(None), FeedbackRow.predicted_at >= start)
        .order_by(FeedbackRow.predicted_at.desc(), FeedbackRow.id.desc())
        .limit(MAX_LABELS + 1)
    )
    rows = session.execute(wanted).all()
    labels = labels_of(rows[:MAX_LABELS])  # type: ignore[arg-type]
    lost = [row for row in labels if row.node_after is not None and tree.find(row.node_after) is None]
    decided = _nodes(tree, [row.node_before for row in labels])
    truth = _nodes(tree, [row.node_after for row in labels])
    right = np.array([row.action == "accept" for row in labels], np.bool_)
    has, known = decided >= 0, truth >= 0
    return TreeFigures(
        start=start,
        end=end,
        products_own=products,
        products=_summed(tree, products),
        predictions=_summed(tree, predictions),
        judged=_summed(tree, _counted(tree, decided[has])),
        right=_summed(tree, _counted(tree, decided[has & right])),
        true=_summed(tree, _counted(tree, truth[known])),
        found=_summed(tree, _counted(tree, truth[known & (decided == truth)])),
        decided=decided,
        truth=truth,
        n_outside_tree=len(lost),
        complete=len(rows) <= MAX_LABELS,
    )


def _by_node(tree: Taxonomy, rows: Any) -> Ints:
    counts = np.zeros(tree.n_nodes, np.int64)
    for node_id, n in rows:
        k = None if node_id is None else tree.find(node_id)
        if k is not None:
            counts[k] += n
    return counts


def _nodes(tree: Taxonomy, ids: Sequence[str | None]) -> NDArray[np.int32]:
    found = [None if node_id is None else tree.find(node_id) for node_id in ids]
    return np.array([_ROOT if k is None else k for k in found], np.int32)


def _counted(tree: Taxonomy, nodes: NDArray[np.int32]) -> Ints:
    return np.bincount(nodes, minlength=tree.n_nodes).astype(np.int64)


def _summed(tree: Taxonomy, own: Ints) -> Ints:
    """What stands at each node or below it."""
    total = np.zeros(tree.n_nodes, np.int64)
    there = np.flatnonzero(own)
    for above in tree.lineage[there].T:
        known = above >= 0
        np.add.at(total, above[known], own[there][known])
    return total


def _counts(figures: TreeFigures, nodes: NDArray[np.int32]) -> list[NodeCounts]:
    """What is counted at some nodes, shape (n,)."""
    accuracy = _shares(figures.right[nodes], figures.judged[nodes])
    found = _shares(figures.found[nodes], figures.true[nodes])
    return [
        NodeCounts(
            n_products_own=int(figures.products_own[k]),
            n_products=int(figures.products[k]),
            n_predictions=int(figures.predictions[k]),
            n_labels=int(figures.judged[k]),
            accuracy=accuracy[i],
            found=found[i],
        )
        for i, k in enumerate(nodes.tolist())
    ]


def _of_all(tree: Taxonomy, figures: TreeFigures) -> NodeCounts:
    first = tree.children(_ROOT)
    right, judged, found, true = (
        np.array([of[first].sum()]) for of in (figures.right, figures.judged, figures.found, figures.true)
    )
    return NodeCounts(
        n_products_own=0,
        n_products=int(figures.products[first].sum()),
        n_predictions=int(figures.predictions[first].sum()),
        n_labels=int(judged[0]),
        accuracy=_shares(right, judged)[0],
        found=_shares(found, true)[0],
    )


def _shares(k: Ints, n: Ints) -> list[Figure | None]:
    if not len(n):
        return []
    some = np.maximum(n, 1)
    low, high = interval(np.minimum(k, some), some)
    return [
        Figure(value=right / of, low=float(a), high=float(b), n=of) if of else None
        for right, of, a, b in zip(k.tolist(), n.tolist(), low, high, strict=True)
    ]


def _confusions(
    tree: Taxonomy, figures: TreeFigures, k: int
) -> tuple[list[Confusion], list[Confusion], list[Confusion]]:
    both = (figures.decided >= 0) & (figures.truth >= 0) & (figures.decided != figures.truth)
    decided, truth = figures.decided[both], figures.truth[both]
    if k == _ROOT:
        return [], [], _most(tree, decided, truth)
    level = int(tree.level[k])
    here, belongs = tree.lineage[decided, level - 1] == k, tree.lineage[truth, level - 1] == k
    return (
        _most(tree, decided[here & ~belongs], truth[here & ~belongs]),
        _most(tree, decided[belongs & ~here], truth[belongs & ~here]),
        _most(tree, decided[here & belongs], truth[here & belongs]),
    )


def _most(tree: Taxonomy, decided: NDArray[np.int32], truth: NDArray[np.int32]) -> list[Confusion]:
    if not len(decided):
        return []
    found, counts = np.unique(np.stack([decided, truth]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_CONFUSIONS]
    return [
        Confusion(
            decided=node_out(tree, int(found[0, i])), true=node_out(tree, int(found[1, i])), n=int(counts[i])
        )
        for i in order.tolist()
    ]
