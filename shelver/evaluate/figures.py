"""The figures of some products: flat arrays in, the parts of a report out."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver import metrics
from shelver.decide import Predictions
from shelver.evaluate.schema import Bins, Confusions, Curve, Figures, Mistake
from shelver.taxonomy import Taxonomy

N_TOP: Final = 3
N_POINTS: Final = 50
N_PAIRS: Final = 20
N_FREQUENT: Final = 15


def row(tree: Taxonomy, truth: NDArray[np.int32], said: Predictions) -> Figures:
    """The figures of some products.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
    """
    if not len(truth):
        return Figures(n=0)
    answered = said.answered
    hierarchical = metrics.hierarchical(tree, truth, said.node, answered=answered)
    sure = said.confidence[answered]
    figures = {
        "accuracy": metrics.accuracy(truth, said.node, answered=answered),
        "weighted_f1": metrics.weighted_f1(truth, said.node, answered=answered),
        "macro_f1": metrics.macro_f1(truth, said.node, answered=answered),
        "top3_accuracy": metrics.top_k_accuracy(
            truth, said.top_node, min(N_TOP, said.top_node.shape[1]), answered=answered
        ),
        "hierarchical_precision": hierarchical.precision,
        "hierarchical_recall": hierarchical.recall,
        "hierarchical_f1": hierarchical.f1,
        "relative_lca": metrics.relative_lca(tree, truth, said.node, answered=answered),
        "coverage": metrics.coverage(said.node, answered=answered),
        "ece": metrics.ece(sure, said.node[answered] == truth[answered]) if len(sure) else None,
    }
    return Figures(n=len(truth), **{name: _short(value) for name, value in figures.items()})


def level_row(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, level: int, *, top: NDArray[np.int32]
) -> Figures:
    """The figures with truth and prediction cut at a level, over the products whose truth reaches it.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
        level: 1 is the first below the root.
        top: the most probable nodes of that level, best first, shape (N, N_TOP).
    """
    rows, true_at, said_at = metrics.at_level(tree, truth, said.node, level)
    if not len(rows):
        return Figures(n=0)
    # A prediction that ends above the level has no node there; its confidence in one is 0 and it is wrong.
    here = said.answered[rows] & (said_at >= 0)
    part = select(said, rows)
    confidence = np.where(here, part.level_confidence[:, level - 1], np.float32(0)).astype(np.float32)
    cut = replace(
        part,
        node=np.where(here, said_at, 0).astype(np.int32),
        top_node=top[rows],
        confidence=confidence,
        answered=here,
    )
    return row(tree, true_at.astype(np.int32), cut).model_copy(
        update={"coverage": _short(float(said.answered[rows].mean()))}
    )


def select(said: Predictions, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Predictions:
    """Some rows of predictions."""
    index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    return Predictions(
        taxonomy=said.taxonomy,
        answered=said.answered[index],
        node=said.node[index],
        confidence=said.confidence[index],
        level_confidence=said.level_confidence[index],
        top_node=said.top_node[index],
        top_confidence=said.top_confidence[index],
        modality=said.modality[index],
        errors=tuple(said.errors[i] for i in index.tolist()),
        picture_errors=tuple(said.picture_errors[i] for i in index.tolist()),
    )


def bins(truth: NDArray[np.int32], said: Predictions) -> Bins:
    """Confidence against accuracy of the answered products; empty where there is none."""
    answered = said.answered
    if not answered.any():
        return Bins()
    found = metrics.reliability(said.confidence[answered], said.node[answered] == truth[answered])
    return Bins(
        n=tuple(found.n.tolist()), confidence=_rounded(found.confidence), accuracy=_rounded(found.accuracy)
    )


def curve(truth: NDArray[np.int32], said: Predictions, *, n_points: int = N_POINTS) -> Curve:
    """Accuracy against coverage.

    Products of equal confidence are answered together or not at all, so the curve does not depend on their order.

    Args:
        truth: true nodes, shape (N,).
        said: what was decided; products without an answer count against coverage at every threshold.
        n_points: the most points, spread evenly over the answered products.

    Source:
        El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    answered = said.answered
    confidence, right = said.confidence[answered], (said.node == truth)[answered]
    if not len(confidence):
        return Curve()
    order = np.argsort(-confidence, kind="stable")
    confidence, n_right = confidence[order], np.cumsum(right[order])
    last_of_its_kind = np.flatnonzero(np.append(np.diff(confidence) != 0, True))
    wanted = np.ceil(np.arange(1, n_points + 1) * len(confidence) / n_points).astype(np.intp) - 1
    at = np.unique(last_of_its_kind[np.searchsorted(last_of_its_kind, wanted)])
    return Curve(
        threshold=_rounded(confidence[at]),
        coverage=_rounded((at + 1) / len(truth)),
        accuracy=_rounded(n_right[at] / (at + 1)),
    )


def confusions(tree: Taxonomy, truth: NDArray[np.int32], said: Predictions) -> Confusions:
    """The commonest mistakes, and who is taken for whom among the most frequent true nodes.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
    """
    n_true = np.bincount(truth, minlength=tree.n_nodes)
    frequent = np.argsort(-n_true, kind="stable")[:N_FREQUENT]
    frequent = frequent[n_true[frequent] > 0]
    place = np.full(tree.n_nodes, len(frequent), np.intp)
    place[frequent] = np.arange(len(frequent))
    # Columns: the frequent nodes, any other node, no answer.
    counts = np.zeros((len(frequent) + 1, len(frequent) + 2), np.int64)
    column = np.where(said.answered, place[said.node], len(frequent) + 1)
    np.add.at(counts, (place[truth], column), 1)
    counts = counts[:-1]

    wrong = said.answered & (said.node != truth)
    codes, n_pair = np.unique(truth[wrong].astype(np.int64) * tree.n_nodes + said.node[wrong], return_counts=True)
    commonest = np.argsort(-n_pair, kind="stable")[:N_PAIRS]
    return Confusions(
        pairs=tuple(
            Mistake(
                true_path=tree.paths[code // tree.n_nodes],
                predicted_path=tree.paths[code % tree.n_nodes],
                n=n,
                share=round(n / int(n_true[code // tree.n_nodes]), 6),
            )
            for code, n in zip(codes[commonest].tolist(), n_pair[commonest].tolist(), strict=True)
        ),
        paths=tuple(tree.paths[k] for k in frequent.tolist()),
        matrix=tuple(map(tuple, counts[:, : len(frequent)].tolist())),
        other=tuple(counts[:, -2].tolist()),
        unanswered=tuple(counts[:, -1].tolist()),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())
