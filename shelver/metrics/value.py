"""A right answer counts what its product is worth."""

from __future__ import annotations

import numpy as np

from shelver.errors import ShapeError
from shelver.metrics.flat import Flags, Floats, Nodes, answers, check, correct
from shelver.metrics.hierarchical import agreement
from shelver.taxonomy import Taxonomy


def value_score(
    truth: Nodes,
    predicted: Nodes,
    worth: Floats,
    *,
    taxonomy: Taxonomy | None = None,
    answered: Flags | None = None,
    also: Nodes | None = None,
) -> float | None:
    """Share of the products' worth that the answers earn: the sum of worth times credit over the sum of worth.

    Credit is 1 for exactly a right node and else 0, or with a taxonomy partial: the depth of the lowest common
    ancestor over the greater of the two depths, as in `relative_lca`. An abstention earns nothing. Where all
    products are worth the same, this is the accuracy, or the relative LCA.

    Args:
        truth: true nodes, shape (N,).
        predicted: predicted nodes, shape (N,).
        worth: of each product, from 0; mostly `values[truth]`, with a value for each category, shape (N,).
        taxonomy: given, there is partial credit.
        answered: False where a product has no answer, shape (N,).
        also: other right nodes, -1 padded, shape (N, A); a product is worth the same whichever is met.

    Returns:
        In [0, 1]; None where the products are worth nothing.

    Raises:
        ShapeError: the shapes differ, N is 0, or a worth is negative or not finite.
    """
    answer = answers(truth, predicted, answered)
    check(truth, worth)
    if not (np.isfinite(worth).all() and (worth >= 0).all()):
        raise ShapeError(
            "a product of negative or unknown worth",
            allowed="finite numbers from 0",
            remedy="Take the mean for what is unknown.",
        )
    worth = worth.astype(np.float64)
    whole = float(worth.sum())
    if whole == 0:
        return None
    if taxonomy is None:
        return float(worth @ correct(truth, answer, also=also) / whole)
    return float(worth @ agreement(taxonomy, truth, answer, also) / whole)
