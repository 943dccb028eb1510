"""Whether words count apart from subwords: asked of the catalog's own held-out products.

In a long text the subwords drown the words; in a short title there are few of either, and their weights are best
left as they come. How long is long depends on the words, so a linear part is fitted both ways and judged.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelver.ngrams import NgramSpec
from shelver.taxonomy import Taxonomy
from shelver.train.build import Plan, fit_vocabulary
from shelver.train.data import Examples
from shelver.train.linear import fit_linear

WORD_SHARE: Final = 0.5
MAX_PRODUCTS: Final = 8_000
"""To learn from: a few seconds for each way."""
MAX_HELD: Final = 4_000
MAX_LABELS: Final = 400
PASSES: Final = 6


class _Texts(NamedTuple):
    """Texts and what they are, a number each."""

    texts: list[str]
    labels: NDArray[np.int32]


def choose_ngrams(
    plan: Plan, tree: Taxonomy, learned: Examples, held: Examples, *, folds: int, seed: int
) -> tuple[NgramSpec, str]:
    """How texts are best weighed, and a sentence that says why.

    Args:
        plan: its n-grams are one of the two ways, and stay where the other is not better.
        tree: of the labels; they are cut above the first level with more than `MAX_LABELS`.
        learned: what is learned from.
        held: what is judged on, where there are no folds.
        folds: parts of all products that are judged on in turn; 0 judges on `held`.
        seed: decides the folds, and which of many products are looked at.
    """
    assert plan.ngrams is not None
    rng = np.random.default_rng((seed, 7))
    level = max((k for k in range(1, tree.n_levels + 1) if _n_labels(tree, learned, k) <= MAX_LABELS), default=1)
    rounds: list[tuple[_Texts, _Texts]] = []
    if folds:
        everything = learned + held
        fold_of = rng.permutation(len(everything)) % folds
        for fold in range(folds):
            rest, out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            rounds.append((_texts(tree, everything, level, rest), _texts(tree, everything, level, out)))
    else:
        few, judged = (
            np.sort(rng.permutation(len(part))[:most])
            for part, most in ((learned, MAX_PRODUCTS), (held, MAX_HELD))
        )
        rounds.append((_texts(tree, learned, level, few), _texts(tree, held, level, judged)))
    n_judged = sum(len(part.texts) for _, part in rounds)
    if not n_judged or not all(train.texts for train, _ in rounds):
        return plan.ngrams, "texts: words and subwords as they come, as there is nothing to compare on"
    apart = plan.ngrams.model_copy(update={"word_share": WORD_SHARE})
    as_they_come, by_share = (
        sum(_n_right(plan, spec, *one, seed=seed) for one in rounds) / n_judged for spec in (plan.ngrams, apart)
    )
    better = by_share > as_they_come
    way = "words count as much as all subwords" if better else "words and subwords as they come"
    return apart if better else plan.ngrams, (
        f"texts: {way} (a linear part on {n_judged:,} held-out products: {by_share:.4f} right where words count "
        f"as much, {as_they_come:.4f} as they come)"
    )


def _n_labels(tree: Taxonomy, examples: Examples, level: int) -> int:
    return len(np.unique(_cut(tree, examples.node, level)))


def _cut(tree: Taxonomy, nodes: NDArray[np.int32], level: int) -> NDArray[np.int32]:
    """The nodes' ancestors at a level; those that stand above it stay."""
    above = tree.ancestors_at(nodes, level)
    return np.where(above >= 0, above, nodes).astype(np.int32)


def _texts(tree: Taxonomy, examples: Examples, level: int, rows: NDArray[np.intp]) -> _Texts:
    with_text = [row for row in rows.tolist() if examples.texts[row] is not None]
    labels = _cut(tree, examples.node[np.array(with_text, np.intp)], level)
    return _Texts([examples.texts[row] or "" for row in with_text], labels)


def _n_right(plan: Plan, spec: NgramSpec, learned: _Texts, judged: _Texts, *, seed: int) -> int:
    """How many of the judged texts a linear part is right about, with n-grams weighed one way."""
    vocabulary = fit_vocabulary(plan.with_ngrams(spec), learned.texts)
    assert vocabulary is not None
    labels, place = np.unique(learned.labels, return_inverse=True)
    linear = fit_linear(
        vocabulary.weigh(learned.texts),
        place,
        n_features=max(len(vocabulary), 1),
        n_labels=len(labels),
        passes=PASSES,
        seed=seed,
    )
    scores = linear.of_ngrams(vocabulary.weigh(judged.texts)) + linear.bias
    return int((labels[scores.argmax(axis=1)] == judged.labels).sum())
