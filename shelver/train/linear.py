"""The wide linear part: a support vector machine for every label, on weighted n-grams.

One vector of scores for each label straight from a text's n-grams: what a linear model with as many weights as
n-grams and labels knows, and a narrow network forgets. Strong where a label has few products.

Source:
    Hsieh et al. 2008, "A dual coordinate descent method for large-scale linear SVM" (the method of LIBLINEAR).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelver.ngrams import Ngrams

COST: Final = 0.5
PASSES: Final = 10
"""Over instacart and hpc3level the tenth pass is within 0.2 points of LIBLINEAR's converged solution."""


class Targets(NamedTuple):
    """Which of C columns each of N products belongs to; the columns are those of T tasks, side by side.

    Attributes:
        columns, offsets: product i belongs to `columns[offsets[i]:offsets[i + 1]]`; shapes (n,) and (N + 1,).
        asked: whether a product has a label of a task, shape (N, T), bool; the columns of the others do not learn
            from it.
        task: of each column, shape (C,).
    """

    columns: NDArray[np.intp]
    offsets: NDArray[np.intp]
    asked: NDArray[np.bool_]
    task: NDArray[np.intp]

    @classmethod
    def of_one(cls, labels: NDArray[np.intp], n_labels: int) -> Targets:
        """Those of one task, of which every product has one label, shape (N,)."""
        n = len(labels)
        return cls(labels, np.arange(n + 1), np.ones((n, 1), np.bool_), np.zeros(n_labels, np.intp))


class Linear(NamedTuple):
    """What scores C labels, float32.

    Attributes:
        weight: of the n-grams, shape (V, C).
        bias: shape (C,).
        dense: weights of a dense vector beside the n-grams, shape (D, C); None without one.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    dense: NDArray[np.float32] | None

    def of_ngrams(self, ngrams: Ngrams) -> NDArray[np.float32]:
        """What the n-grams of N texts add to their scores, shape (N, C)."""
        scores = np.zeros((len(ngrams), len(self.bias)), np.float32)
        for row in range(len(ngrams)):
            of = slice(ngrams.offsets[row], ngrams.offsets[row + 1])
            scores[row] += ngrams.weights[of] @ self.weight.take(ngrams.ids[of], axis=0)
        return scores


def fit_linear(
    ngrams: Ngrams,
    targets: Targets,
    *,
    n_features: int,
    dense: NDArray[np.float32] | None = None,
    cost: float = COST,
    passes: int = PASSES,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> Linear:
    """Fit one against all others with squared hinge loss, for all labels at once.

    Each step solves one product's dual variables exactly, those of all labels together: they share the product's
    n-grams, so one gather and one scatter of weight rows serve all labels, and a pass costs two multiply-adds an
    n-gram and label. The result approaches the minimum of
    `0.5 * |weight|**2 + cost * sum(max(0, 1 - y * score)**2)`, the bias counted among the weights.

    Args:
        ngrams: texts, each scaled to length 1; N of them.
        targets: what they are labelled with.
        n_features: V.
        dense: a vector beside each text's n-grams, shape (N, D), of a length near theirs.
        cost: of a violated margin.
        passes: over the products.
        seed: decides their order.
        tell: told the number of passes done.
    """
    n, n_labels = len(ngrams), len(targets.task)
    unasked = [None if of.all() else ~of[targets.task] for of in targets.asked]
    # The bias is one more feature that every text has; its row is the last.
    weight = np.zeros((n_features + 1, n_labels), np.float32)
    dual = np.zeros((n, n_labels), np.float32)
    ridge = np.float32(0.5 / cost)
    lengths = np.diff(ngrams.offsets)
    squares = np.ones(n, np.float32)
    row_of = np.repeat(np.arange(n), lengths)
    squares += np.bincount(row_of, ngrams.weights.astype(np.float64) ** 2, minlength=n).astype(np.float32)
    of_dense = None
    if dense is not None:
        of_dense = np.zeros((dense.shape[1], n_labels), np.float32)
        squares += np.einsum("nd,nd->n", dense, dense)
    places = np.insert(ngrams.ids, ngrams.offsets[1:], n_features).astype(np.intp)
    values = np.insert(ngrams.weights, ngrams.offsets[1:], np.float32(1))
    starts = ngrams.offsets + np.arange(n + 1)
    rng = np.random.default_rng(seed)
    for done in range(1, passes + 1):
        for i in rng.permutation(n).tolist():
            of = slice(starts[i], starts[i + 1])
            rows, x = places[of], values[of]
            touched = weight.take(rows, axis=0)
            score = x @ touched
            if dense is not None and of_dense is not None:
                score += dense[i] @ of_dense
            old = dual[i]
            gradient = ridge * old - 1.0 - score
            own = targets.columns[targets.offsets[i] : targets.offsets[i + 1]]
            gradient[own] += 2.0 * score[own]  # y = 1 here, -1 everywhere else
            new = np.maximum(old - gradient / (squares[i] + ridge), 0.0)
            silent = unasked[i]
            if silent is not None:
                new[silent] = 0
            step = old - new
            step[own] = -step[own]
            if not step.any():
                continue
            dual[i] = new
            touched += x[:, None] * step
            weight[rows] = touched
            if dense is not None and of_dense is not None:
                moved = np.flatnonzero(step)
                of_dense[:, moved] += dense[i][:, None] * step[moved]
        if tell is not None:
            tell(done)
    return Linear(weight[:-1].copy(), weight[-1].copy(), of_dense)
