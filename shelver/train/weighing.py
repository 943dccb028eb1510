"""Whether words count apart from subwords: asked of the catalog's own held-out products.

In a long text the subwords drown the words; in a short title there are few of either, and their weights are best
left as they come. How long is long depends on the words, so a linear part is fitted both ways and judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.ngrams import NgramSpec
from shelver.taxonomy import Taxonomy
from shelver.train.build import Plan, fit_vocabulary
from shelver.train.linear import Targets, fit_linear

WORD_SHARE: Final = 0.5
FOLDS: Final = 3
MAX_PRODUCTS: Final = 12_000
"""To look at: some ten seconds for both ways."""
MAX_LABELS: Final = 256
PASSES: Final = 6


def choose_ngrams(
    plan: Plan, tree: Taxonomy, texts: Sequence[str | None], nodes: NDArray[np.int32], *, seed: int
) -> tuple[NgramSpec, str]:
    """How texts are best weighed, and a sentence that says why.

    Each of `FOLDS` parts is judged by what was learned from the others. Words count apart only where that is right
    more often by more than its standard error: a coin should not decide what a model sees.

    Args:
        plan: its n-grams are one of the two ways, and stay where the other is not better.
        tree: of the labels; they are cut above the first level with more than `MAX_LABELS`.
        texts: all that may be learned from, N of them.
        nodes: their labels, shape (N,); those with -1 are passed over.
        seed: decides the folds, and which of many products are looked at.
    """
    assert plan.ngrams is not None
    rng = np.random.default_rng((seed, 7))
    with_text = np.flatnonzero([text is not None and node >= 0 for text, node in zip(texts, nodes, strict=True)])
    rows = rng.permutation(with_text)[:MAX_PRODUCTS]
    if len(rows) < FOLDS:
        return plan.ngrams, "texts: words and subwords as they come, as there is nothing to compare on"
    level = max((k for k in range(1, tree.n_levels + 1) if _n_labels(tree, nodes, k) <= MAX_LABELS), default=1)
    looked_at = [texts[row] or "" for row in rows.tolist()]
    labels = _cut(tree, nodes[rows], level)
    apart = plan.ngrams.model_copy(update={"word_share": WORD_SHARE})
    as_they_come, by_share = (
        _right(plan.with_ngrams(spec), looked_at, labels, seed=seed) for spec in (plan.ngrams, apart)
    )
    gain = by_share.astype(np.float64) - as_they_come
    better = gain.mean() > gain.std() / np.sqrt(len(gain))
    way = "words count as much as all subwords" if better else "words and subwords as they come"
    return apart if better else plan.ngrams, (
        f"texts: {way} (a linear part on {len(rows):,} held-out products: {by_share.mean():.4f} right where words "
        f"count as much, {as_they_come.mean():.4f} as they come)"
    )


def _right(plan: Plan, texts: list[str], labels: NDArray[np.int32], *, seed: int) -> NDArray[np.bool_]:
    """Which texts a linear part is right about that learned from the other folds, shape (N,)."""
    right = np.zeros(len(texts), np.bool_)
    fold_of = np.arange(len(texts)) % FOLDS
    for fold in range(FOLDS):
        learned, judged = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        of_learned = [texts[row] for row in learned.tolist()]
        vocabulary = fit_vocabulary(plan, of_learned)
        assert vocabulary is not None
        known, place = np.unique(labels[learned], return_inverse=True)
        linear = fit_linear(
            vocabulary.weigh(of_learned),
            Targets.of_one(place, len(known)),
            n_features=max(len(vocabulary), 1),
            passes=PASSES,
            seed=seed,
        )
        scores = linear.of_ngrams(vocabulary.weigh([texts[row] for row in judged.tolist()])) + linear.bias
        right[judged] = known[scores.argmax(axis=1)] == labels[judged]
    return right


def _n_labels(tree: Taxonomy, nodes: NDArray[np.int32], level: int) -> int:
    return len(np.unique(_cut(tree, nodes, level)))


def _cut(tree: Taxonomy, nodes: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    """The nodes' ancestors at a level; those that stand above it stay."""
    above = tree.ancestors_at(nodes, level)
    return np.where(above >= 0, above, nodes).astype(np.int32)
