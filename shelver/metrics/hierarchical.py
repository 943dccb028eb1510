"""Part of the credit for part of the path, and how bad a mistake is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.metrics.flat import Flags, Nodes, answers, check_also, correct
from shelver.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """Hierarchical precision, recall and F1, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


def hierarchical(
    taxonomy: Taxonomy,
    truth: Nodes,
    predicted: Nodes,
    *,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> Hierarchical:
    """Precision, recall and F1 over sets of ancestors, micro-averaged over products.

    With A(v) the node v and its ancestors without the root, precision is the sum over products of
    |A(predicted) ∩ A(truth)| over the sum of |A(predicted)|, recall the same over the sum of |A(truth)|,
    and F1 their harmonic mean. An unanswered product adds to recall's denominator only. Precision is 0
    where no product is answered.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Kiritchenko et al. 2006, "Learning and evaluation in the presence of class hierarchies".
    """
    answer = answers(truth, predicted, answered)
    truth = nearest(taxonomy, truth, answer, also) if also is not None else truth
    shared = int(taxonomy.lca_level(truth, answer).sum())  # the depth of the common ancestor is |A ∩ A|
    n_predicted = int(taxonomy.level[answer[answer >= 0]].sum())
    n_true = int(taxonomy.level[truth].sum())
    # The harmonic mean of s/p and s/t is 2s / (p + t).
    return Hierarchical(
        precision=shared / n_predicted if n_predicted else 0.0,
        recall=shared / n_true,
        f1=2 * shared / (n_predicted + n_true),
    )


def relative_lca(
    taxonomy: Taxonomy,
    truth: Nodes,
    predicted: Nodes,
    *,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> float:
    """Depth of the lowest common ancestor over the greater of the two nodes' depths, averaged over products.

    1 for the exact node, 0 where only the root is shared or there is no answer.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    return float(agreement(taxonomy, truth, answers(truth, predicted, answered), also).mean())


def at_level(
    taxonomy: Taxonomy, truth: Nodes, predicted: Nodes, level: int
) -> tuple[NDArray[np.intp], Nodes, Nodes]:
    """Both sides cut at a level, to score it with the flat metrics.

    Args:
        taxonomy: the tree of both.
        truth: true nodes, shape (N,).
        predicted: predicted nodes, shape (N,) or (N, T); mask unanswered ones with `answered[rows]`.
        level: 1 is the first below the root.

    Returns:
        The M rows whose truth reaches the level, their true nodes there (M,), and their predicted nodes
        there, (M,) or (M, T), negative where the prediction stops above the level.
    """
    at = taxonomy.ancestors_at(truth, level)
    rows = np.flatnonzero(at >= 0)
    return rows, at[rows], taxonomy.ancestors_at(predicted[rows], level)


def agreement(taxonomy: Taxonomy, truth: Nodes, answer: Nodes, also: Nodes | None = None) -> NDArray[np.float64]:
    """`relative_lca` of each product, shape (N,); `answer` is negative where there is none."""
    truth = nearest(taxonomy, truth, answer, also) if also is not None else truth
    deeper = np.maximum(taxonomy.level[truth], np.where(answer >= 0, taxonomy.level[answer], 0))
    shares: NDArray[np.float64] = taxonomy.lca_level(truth, answer) / deeper
    return shares


def nearest(taxonomy: Taxonomy, truth: Nodes, predicted: Nodes, also: Nodes) -> Nodes:
    """Of each product's right nodes the one that its answer comes nearest to; any metric is lenient with it.

    Nearest is the greatest relative depth of the lowest common ancestor, as in `relative_lca`; of equal ones
    `truth` first, then in the order of `also`. A product without an answer keeps `truth`.

    Args:
        taxonomy: the tree of all.
        truth: true nodes, shape (N,).
        predicted: predicted nodes, negative where there is no answer, shape (N,).
        also: other right nodes, -1 padded, shape (N, A).

    Raises:
        ShapeError: the shapes do not fit.
    """
    check_also(truth, also)
    best, best_share = truth.copy(), agreement(taxonomy, truth, predicted)
    for other in also.T:
        share = agreement(taxonomy, np.where(other >= 0, other, truth), predicted)
        better = (other >= 0) & (share > best_share)
        best[better], best_share[better] = other[better], share[better]
    return best


def heights(taxonomy: Taxonomy) -> NDArray[np.int32]:
    """Height of each node: edges of the longest way down from it to a leaf; 0 at leaves, shape (K,)."""
    height = np.zeros(taxonomy.n_nodes, np.int32)
    for level in range(taxonomy.n_levels, 1, -1):
        of_level = np.flatnonzero(taxonomy.level == level)
        np.maximum.at(height, taxonomy.parent[of_level], height[of_level] + 1)
    return height


def mistake_severity(
    taxonomy: Taxonomy,
    truth: Nodes,
    predicted: Nodes,
    *,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> float | None:
    """Mean height of the lowest common ancestor of truth and answer, over the mistakes.

    Height is that of `heights`: the longest way down to a leaf, which on a ragged tree need not be the way to
    truth or answer. The root's height is the number of levels. The mistakes are the answered products whose answer
    is not exactly a right node; an answer above or below the truth is one, and the upper of the two the common
    ancestor. So the least severity is 1 (within a lowest group of siblings, or a parent for its child), the
    greatest the number of levels. Abstaining is no mistake. A better model may make fewer but graver mistakes:
    read it beside the accuracy.

    Returns:
        None where there is no mistake.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Bertinetto et al. 2020, "Making better mistakes: leveraging class hierarchies with deep networks".
    """
    answer = answers(truth, predicted, answered)
    wrong = (answer >= 0) & ~correct(truth, answer, also=also)
    if not wrong.any():
        return None
    right = nearest(taxonomy, truth, answer, also) if also is not None else truth
    above = taxonomy.lca(right[wrong], answer[wrong])
    return float(np.where(above >= 0, heights(taxonomy)[above], taxonomy.n_levels).mean())


def hierarchical_coverage(
    taxonomy: Taxonomy,
    truth: Nodes,
    predicted: Nodes,
    *,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> float:
    """Share of the levels of the true paths for which the answers name a node, right or wrong.

    The sum over products of min(level of the answer, level of the truth), over the sum of the levels of the truth;
    an abstention names none. 1 where every answer is at least as deep as its truth; in a flat tree it is the plain
    coverage. As coverage does, it says how much is answered and not how rightly: read it
    beside hierarchical precision.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Ours; the idea that a shallower answer covers less is that of Goren et al. 2024, "Hierarchical selective
        classification", who measure depth by entropy.
    """
    answer = answers(truth, predicted, answered)
    truth = nearest(taxonomy, truth, answer, also) if also is not None else truth
    wanted = taxonomy.level[truth]
    named = np.minimum(np.where(answer >= 0, taxonomy.level[answer], 0), wanted)
    return float(named.sum() / wanted.sum())


def right_as_promised(
    taxonomy: Taxonomy,
    truth: Nodes,
    predicted: Nodes,
    *,
    min_level: int = 1,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> Flags:
    """Where the answer is a right node, or an ancestor of one no shallower than `min_level`, shape (N,).

    False where unanswered. This is what `Promise` counts as right.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    answer = answers(truth, predicted, answered)
    on_path = taxonomy.is_ancestor_or_self(answer, truth)
    if also is not None:
        check_also(truth, also)
        for other in also.T:
            on_path = on_path | ((other >= 0) & taxonomy.is_ancestor_or_self(answer, other))
    deep: Flags = (answer >= 0) & (taxonomy.level[np.maximum(answer, 0)] >= min_level)
    return deep & on_path
