"""Where the mistakes are: who is taken for whom, siblings above all, and the branches that lose the most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide import Predictions
from shelver.evaluate.parts import Branch, Confusions, Example, Mistake, SiblingMistake
from shelver.taxonomy import Taxonomy

N_PAIRS: Final = 20
N_SHOWN: Final = 50
N_SIBLINGS: Final = 12
N_BRANCHES: Final = 300
N_OF_PAIR: Final = 3
N_ALIKE: Final = 2
N_OF_BRANCH: Final = 2
N_TREE_EXAMPLES: Final = 150

Rows = NDArray[np.intp]


def confusions(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, worth: NDArray[np.float64] | None = None
) -> Confusions:
    """The commonest mistakes, and who is taken for whom among the true nodes with the most at stake.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
        worth: of each product, shape (N,); None: all the same.
    """
    n_true = np.bincount(truth, minlength=tree.n_nodes)
    stake = _shares(np.bincount(truth, weights=worth, minlength=tree.n_nodes).astype(np.float64))
    shown = np.argsort(-stake, kind="stable")[:N_SHOWN]
    shown = shown[n_true[shown] > 0]
    place = np.full(tree.n_nodes, len(shown), np.intp)
    place[shown] = np.arange(len(shown))
    # Columns: the shown nodes, any other node, no answer.
    counts = np.zeros((len(shown) + 1, len(shown) + 2), np.int64)
    column = np.where(said.answered, place[said.node], len(shown) + 1)
    np.add.at(counts, (place[truth], column), 1)
    counts = counts[:-1]

    wrong = np.flatnonzero(said.answered & (said.node != truth))
    codes, n_pair = np.unique(_pair_codes(tree, truth, said, wrong), return_counts=True)
    commonest = np.argsort(-n_pair, kind="stable")[:N_PAIRS]
    return Confusions(
        by="frequency" if worth is None else "value",
        pairs=tuple(
            Mistake(
                true_path=tree.paths[code // tree.n_nodes],
                predicted_path=tree.paths[code % tree.n_nodes],
                n=n,
                share=round(n / int(n_true[code // tree.n_nodes]), 6),
            )
            for code, n in zip(codes[commonest].tolist(), n_pair[commonest].tolist(), strict=True)
        ),
        paths=tuple(tree.paths[k] for k in shown.tolist()),
        stake=tuple(round(share, 6) for share in stake[shown].tolist()),
        matrix=tuple(map(tuple, counts[:, : len(shown)].tolist())),
        other=tuple(counts[:, -2].tolist()),
        unanswered=tuple(counts[:, -1].tolist()),
    )


@dataclass(frozen=True, slots=True)
class Siblings:
    """Siblings that are taken for each other, and rows of products that show it.

    Attributes:
        mistakes: the pairs that lose the most, without examples.
        wrong, alike: for each pair, rows of products that were taken for the sibling, and of products that rightly
            stand there, the most confident first.
    """

    mistakes: tuple[SiblingMistake, ...]
    wrong: tuple[Rows, ...]
    alike: tuple[Rows, ...]

    @property
    def rows(self) -> set[int]:
        """All of them."""
        return {row for rows in (*self.wrong, *self.alike) for row in rows.tolist()}

    def with_examples(self, of: dict[int, Example]) -> tuple[SiblingMistake, ...]:
        """The pairs with their examples, by row."""
        return tuple(
            pair.model_copy(update={"examples": _some(of, wrong), "like": _some(of, alike)})
            for pair, wrong, alike in zip(self.mistakes, self.wrong, self.alike, strict=True)
        )


def siblings(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, worth: NDArray[np.float64] | None = None
) -> Siblings:
    """Categories that are taken for the one beside them; arguments as in `confusions`."""
    wrong = np.flatnonzero(said.answered & (said.node != truth) & (tree.parent[said.node] == tree.parent[truth]))
    worths = np.ones(len(truth)) if worth is None else worth
    lost_in_all = float(worths[~said.answered | (said.node != truth)].sum())
    codes, of_pair, n_pair = np.unique(
        _pair_codes(tree, truth, said, wrong), return_inverse=True, return_counts=True
    )
    lost = np.bincount(of_pair, weights=worths[wrong], minlength=len(codes))
    greatest = np.lexsort((-n_pair, -lost))[:N_SIBLINGS]
    n_true = np.bincount(truth, minlength=tree.n_nodes)
    right = np.flatnonzero(said.answered & (said.node == truth))
    mistakes, wrong_rows, alike_rows = [], [], []
    for at in greatest.tolist():
        true, node = divmod(int(codes[at]), tree.n_nodes)
        mistakes.append(
            SiblingMistake(
                true_path=tree.paths[true],
                predicted_path=tree.paths[node],
                n=int(n_pair[at]),
                share=round(int(n_pair[at]) / int(n_true[true]), 6),
                lost=round(float(lost[at]) / lost_in_all, 6) if lost_in_all else 0.0,
            )
        )
        wrong_rows.append(_surest(wrong[of_pair == at], said, N_OF_PAIR))
        alike_rows.append(_surest(right[truth[right] == node], said, N_ALIKE))
    return Siblings(tuple(mistakes), tuple(wrong_rows), tuple(alike_rows))


@dataclass(frozen=True, slots=True)
class Branches:
    """The branches that lose the most, without examples, and for each the rows of some."""

    branches: tuple[Branch, ...]
    wrong: tuple[Rows, ...]

    @property
    def rows(self) -> set[int]:
        """All of them."""
        return {row for rows in self.wrong for row in rows.tolist()}

    def with_examples(self, of: dict[int, Example]) -> tuple[Branch, ...]:
        """The branches with their examples, by row."""
        return tuple(
            branch.model_copy(update={"examples": _some(of, rows)})
            for branch, rows in zip(self.branches, self.wrong, strict=True)
        )


def branches(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, worth: NDArray[np.float64] | None = None
) -> Branches:
    """The branches that lose the most, parents before children; arguments as in `confusions`."""
    right = said.answered & (said.node == truth)
    worths = np.ones(len(truth)) if worth is None else worth
    n, n_right, n_inside = (np.zeros(tree.n_nodes) for _ in range(3))
    stake, lost = np.zeros(tree.n_nodes), np.zeros(tree.n_nodes)
    for level in range(1, tree.n_levels + 1):
        at = tree.ancestors_at(truth, level)
        below = at >= 0
        inside = said.answered & (tree.ancestors_at(said.node, level) == at)
        given = ((n, None), (n_right, right), (n_inside, inside), (stake, worths), (lost, worths * ~right))
        for sums, weights in given:
            of_rows = None if weights is None else weights[below].astype(np.float64)
            sums += np.bincount(at[below], weights=of_rows, minlength=tree.n_nodes)
    # A parent loses no less than its child and stands before it, so whoever is kept has its parents kept.
    order = np.lexsort((np.arange(tree.n_nodes), -n, -lost))[:N_BRANCHES]
    kept = np.sort(order[n[order] > 0])
    place = {k: i for i, k in enumerate(kept.tolist())}
    first = tree.level[kept] == 1
    stake_in_all, lost_in_all = float(worths.sum()), float((worths * ~right).sum())
    found = tuple(
        Branch(
            name=tree.names[k],
            parent=None if is_first else place[int(tree.parent[k])],
            n=int(n[k]),
            accuracy=round(float(n_right[k] / n[k]), 6),
            inside=round(float(n_inside[k] / n[k]), 6),
            stake=round(float(stake[k]) / stake_in_all, 6) if stake_in_all else 0.0,
            lost=round(float(lost[k]) / lost_in_all, 6) if lost_in_all else 0.0,
        )
        for k, is_first in zip(kept.tolist(), first.tolist(), strict=True)
    )
    wrong = np.flatnonzero(said.answered & ~right)
    wrong = wrong[np.lexsort((-said.confidence[wrong], truth[wrong]))]
    begins = np.flatnonzero(np.diff(truth[wrong], prepend=-1))
    of_node = {int(truth[wrong[begin]]): wrong[begin : begin + N_OF_BRANCH] for begin in begins.tolist()}
    of_node = {k: rows[truth[rows] == k] for k, rows in of_node.items()}
    left, rows_of = N_TREE_EXAMPLES, {}
    for k in order.tolist():  # those that lose the most first
        rows_of[k] = of_node.get(k, wrong[:0])[:left]
        left -= len(rows_of[k])
    return Branches(found, tuple(rows_of[k] for k in kept.tolist()))


def _pair_codes(tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, rows: Rows) -> NDArray[np.int64]:
    """True and decided node of each row as one number."""
    return truth[rows].astype(np.int64) * tree.n_nodes + said.node[rows]


def _surest(rows: Rows, said: Predictions, n: int) -> Rows:
    return rows[np.argsort(-said.confidence[rows], kind="stable")[:n]]


def _some(of: dict[int, Example], rows: Rows) -> tuple[Example, ...]:
    return tuple(of[row] for row in rows.tolist() if row in of)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = float(values.sum())
    return values / whole if whole else values
