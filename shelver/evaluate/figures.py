"""The figures of some products: flat arrays in, the parts of a report out."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver import metrics
from shelver.decide import Predictions
from shelver.evaluate.parts import Bins, Curve, Figures, Honesty
from shelver.taxonomy import Taxonomy

N_TOP: Final = 3
N_POINTS: Final = 50
PRECISIONS: Final = (0.90, 0.95, 0.99)


def row(
    tree: Taxonomy,
    truth: NDArray[np.int32],
    said: Predictions,
    worth: NDArray[np.float64] | None = None,
    *,
    also: NDArray[np.int32] | None = None,
) -> Figures:
    """The figures of some products.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
        worth: of each product, shape (N,); None where no values are known.
        also: other right nodes, -1 padded, shape (N, A): the figures are then lenient, each product scored against
            the right node that its answer comes nearest to. None: they are strict.
    """
    if not len(truth):
        return Figures(n=0)
    answered = said.answered
    first = truth
    if also is not None:
        truth = metrics.nearest(tree, truth, np.where(answered, said.node, -1), also).astype(np.int32)
        also = np.column_stack([first, also]).astype(np.int32)
    right = metrics.correct(truth, said.node, answered=answered)
    hierarchical = metrics.hierarchical(tree, truth, said.node, answered=answered)
    sure = said.confidence[answered]
    figures = {
        "accuracy": float(right.mean()),
        "weighted_f1": metrics.weighted_f1(truth, said.node, answered=answered),
        "macro_f1": metrics.macro_f1(truth, said.node, answered=answered),
        "top3_accuracy": metrics.top_k_accuracy(
            truth, said.top_node, min(N_TOP, said.top_node.shape[1]), answered=answered, also=also
        ),
        "hierarchical_precision": hierarchical.precision,
        "hierarchical_recall": hierarchical.recall,
        "hierarchical_f1": hierarchical.f1,
        "relative_lca": metrics.relative_lca(tree, truth, said.node, answered=answered),
        "coverage": metrics.coverage(said.node, answered=answered),
        "ece": metrics.ece(sure, right[answered]) if len(sure) else None,
        "brier": metrics.brier(sure, right[answered]) if len(sure) else None,
        "aurc": metrics.aurc(said.confidence, right, answered=answered),
        "e_aurc": metrics.e_aurc(said.confidence, right, answered=answered),
        "severity": metrics.mistake_severity(tree, truth, said.node, answered=answered),
        "hierarchical_coverage": metrics.hierarchical_coverage(tree, truth, said.node, answered=answered),
    }
    for precision in PRECISIONS:
        figures[f"coverage_at_{100 * precision:.0f}"] = metrics.coverage_at_precision(
            said.confidence, right, precision, answered=answered
        )
    if worth is not None:
        figures["value_score"] = metrics.value_score(truth, said.node, worth, answered=answered)
        figures["value_score_partial"] = metrics.value_score(
            truth, said.node, worth, taxonomy=tree, answered=answered
        )
    return Figures(n=len(truth), **{name: short(value) for name, value in figures.items()})


def level_row(
    tree: Taxonomy,
    truth: NDArray[np.int32],
    said: Predictions,
    level: int,
    *,
    top: NDArray[np.int32],
    worth: NDArray[np.float64] | None = None,
    also: NDArray[np.int32] | None = None,
) -> Figures:
    """The figures with truth and prediction cut at a level, over the products whose truth reaches it.

    Calibration error and Brier score alone are those of `honesty_at`, over all answers that reach the level: a
    probability that the product lies there also speaks of those that do not.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
        level: 1 is the first below the root.
        top: the most probable nodes of that level, best first, shape (N, N_TOP).
        worth: of each product, shape (N,); None where no values are known.
        also: other right nodes, as in `row`; of several right paths the one that the whole answer comes nearest to
            is cut.
    """
    if also is not None:
        first = truth
        truth = metrics.nearest(tree, truth, np.where(said.answered, said.node, -1), also).astype(np.int32)
        also = tree.ancestors_at(np.column_stack([first, also]), level).astype(np.int32)
    rows, true_at, part = cut(tree, truth, said, level)
    if not len(rows):
        return Figures(n=0)
    part = replace(part, top_node=top[rows])
    smaller, place = tree.cut(level)  # keeps the numbers of the nodes that it keeps
    figures = row(
        smaller,
        true_at,
        part,
        None if worth is None else worth[rows],
        also=None if also is None else also[rows],
    )
    honesty = honesty_at(tree, truth, said.node, said.level_confidence, said.answered, level)
    answered = said.answered[rows]
    named = metrics.hierarchical_coverage(smaller, true_at, place[said.node[rows]], answered=answered)
    return figures.model_copy(
        update={
            "coverage": short(float(answered.mean())),
            "hierarchical_coverage": short(named),
            "ece": honesty.ece,
            "brier": honesty.brier,
        }
    )


def cut(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, level: int
) -> tuple[NDArray[np.intp], NDArray[np.int32], Predictions]:
    """Truth and predictions cut at a level: the M rows whose truth reaches it, their true nodes there (M,), and
    what was decided of them there."""
    rows, true_at, said_at = metrics.at_level(tree, truth, said.node, level)
    # A prediction that ends above the level has no node there; its confidence in one is 0 and it is wrong.
    here = said.answered[rows] & (said_at >= 0)
    part = select(said, rows)
    confidence = np.where(here, part.level_confidence[:, level - 1], np.float32(0)).astype(np.float32)
    node = np.where(here, said_at, 0).astype(np.int32)
    return rows, true_at.astype(np.int32), replace(part, node=node, confidence=confidence, answered=here)


def select(said: Predictions, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Predictions:
    """Some rows of predictions, without attributes."""
    index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    some: dict[str, Any] = {}
    for field in fields(said):
        column = getattr(said, field.name)
        if isinstance(column, np.ndarray):
            some[field.name] = column[index]
        elif isinstance(column, tuple):
            some[field.name] = tuple(column[i] for i in index.tolist())
    return replace(said, **some, attributes={})


def honesty(
    right: NDArray[np.bool_], confidence: NDArray[np.float32], of_level: NDArray[np.float32] | None = None
) -> Honesty:
    """How far the confidences of some answers can be believed.

    Args:
        right: whether each is right, shape (N,).
        confidence: of each, shape (N,).
        of_level: Brier scores over all outcomes of a level, of all answered products, shape (M,).
    """
    over_all = None if of_level is None or not len(of_level) else short(float(of_level.mean()))
    if not len(right):
        return Honesty(n=0, brier_all=over_all)
    return Honesty(
        n=len(right),
        ece=short(metrics.ece(confidence, right)),
        brier=short(metrics.brier(confidence, right)),
        brier_all=over_all,
        reliability=_bins(right, confidence),
    )


def honesty_at(
    tree: Taxonomy,
    truth: NDArray[np.int32],
    node: NDArray[np.int32],
    level_confidence: NDArray[np.float32],
    answered: NDArray[np.bool_],
    level: int,
    of_level: NDArray[np.float32] | None = None,
) -> Honesty:
    """`honesty` of the decided nodes' ancestors at a level, right where they are the true nodes' too.

    Args:
        tree: the tree of both.
        truth, node: true and decided nodes, shape (N,).
        level_confidence: P(node) of the decided nodes' lineages, shape (N, L).
        answered: shape (N,).
        level: 1 is the first below the root.
        of_level: as in `honesty`.
    """
    at = tree.ancestors_at(node, level)
    here = answered & (at >= 0)
    right = (at == tree.ancestors_at(truth, level))[here]
    return honesty(right, level_confidence[here, level - 1], of_level)


def bins(truth: NDArray[np.int32], said: Predictions) -> Bins:
    """Confidence against accuracy of the answered products; empty where there is none."""
    answered = said.answered
    if not answered.any():
        return Bins()
    return _bins((said.node == truth)[answered], said.confidence[answered])


def _bins(right: NDArray[np.bool_], confidence: NDArray[np.float32]) -> Bins:
    found = metrics.reliability(confidence, right)
    return Bins(
        n=tuple(found.n.tolist()), confidence=_rounded(found.confidence), accuracy=_rounded(found.accuracy)
    )


def curve(truth: NDArray[np.int32], said: Predictions, *, n_points: int = N_POINTS) -> Curve:
    """Accuracy against coverage of decided nodes: `curve_of` them.

    Args:
        truth: true nodes, shape (N,).
        said: what was decided; products without an answer count against coverage at every threshold.
        n_points: the most points.
    """
    return curve_of(said.confidence, said.node == truth, said.answered, n_points=n_points)


def curve_of(
    confidence: NDArray[np.floating],
    right: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    *,
    n_points: int = N_POINTS,
) -> Curve:
    """Accuracy against coverage.

    Answers of equal confidence are given together or not at all, so the curve does not depend on their order.

    Args:
        confidence: of each answer, shape (N,).
        right: whether it is right, shape (N,).
        answered: whether there is one, shape (N,); what is not answered counts against coverage at every
            threshold.
        n_points: the most points, spread evenly over the answers.

    Source:
        El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    every = metrics.risk_coverage(confidence, right, answered=answered)
    if not len(every.coverage):
        return Curve()
    # The first points at which so many answers are given.
    wanted = np.arange(1, n_points + 1) * (every.coverage[-1] / n_points)
    at = np.unique(np.minimum(np.searchsorted(every.coverage, wanted * (1 - 1e-9)), len(every.coverage) - 1))
    return Curve(
        threshold=_rounded(every.threshold[at]),
        coverage=_rounded(every.coverage[at]),
        accuracy=_rounded(1 - every.risk[at]),
    )


def short(value: float | None) -> float | None:
    """A figure with six digits."""
    return None if value is None else round(value, 6)


def _rounded(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values.tolist())
