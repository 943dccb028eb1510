"""How strange a product is to a model: whether it belongs anywhere in the tree at all.

A classifier puts everything somewhere: a lamp on a grocer's shelves, a row that says "test". The probabilities
alone cannot tell, since they are shares among the shelves that there are. The linear part can: it finds little
that it knows in a text of another business, and thinks every shelf alike. Where it cannot be asked, doubt
stands in: the distribution has no favourite, neither at the first level nor among the leaves.

Strangeness means little by itself, so it is compared with that of products that the model did not learn from, of
the same modality: `outside` is the share of these that are less strange (a conformal p-value turned round). At
outside = .99, one in a hundred of the shop's own products is sent away too. Beside n known products nothing is
above n / (n + 1), so .99 needs 99 of them. How well strangers are told: `benchmarks/outside.py`.

Source:
    Vovk et al. 2005, "Algorithmic learning in a random world" (conformal p-values); Hendrycks and Gimpel 2017, "A
    baseline for detecting misclassified and out-of-distribution examples in neural networks" (doubt). To ask a
    linear model how even it is was found by trying (`benchmarks/outside.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shelver.calibrate.modality import Modality, can_answer
from shelver.taxonomy import SiblingGroups

MIN_KNOWN: Final = 50
"""With fewer known products of a modality, nothing is said about it."""
MAX_QUANTILES: Final = 257
"""So many say what the known products are like: the greatest and the least, and evenly between."""
WITNESS: Final = "linear"
"""The expert whose evenness tells strangers best (benchmarks/outside.py)."""
_BLOCK: Final = 64


class Known(BaseModel):
    """How strange the known products of a modality are.

    Attributes:
        witness: number of the expert whose evenness is strangeness; None takes the doubt of the distribution.
        n: known products.
        quantiles: of their strangeness, ascending; at evenly spaced ranks from 1 to n.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    witness: int | None
    n: int = Field(ge=1)
    quantiles: tuple[float, ...] = Field(min_length=2)

    @classmethod
    def of(cls, strangeness: NDArray[np.float32], witness: int | None) -> Known | None:
        """What is kept of the known products' strangeness, shape (n,); None of fewer than `MIN_KNOWN`."""
        n = len(strangeness)
        if n < MIN_KNOWN:
            return None
        at = _ranks(n, min(n, MAX_QUANTILES)) - 1
        # Nine digits bring a float32 back exactly.
        kept = np.sort(strangeness.astype(np.float64))[at]
        return cls(witness=witness, n=n, quantiles=tuple(float(f"{value:.9g}") for value in kept))

    def share_less_strange(self, strangeness: NDArray[np.float32]) -> NDArray[np.float32]:
        """The share of known products that are less strange, shape (N,), from 0 to n / (n + 1)."""
        quantiles = np.array(self.quantiles, np.float32)
        ranks = _ranks(self.n, len(quantiles))
        # Of equal quantiles the first counts: who is just as strange is not less strange.
        first = np.searchsorted(quantiles, quantiles, side="left")
        keep = first == np.arange(len(quantiles))
        found = np.interp(strangeness, quantiles[keep], ranks[keep] - 1.0, left=0.0)
        beyond = strangeness > quantiles[-1]
        return (np.where(beyond, self.n, found) / (self.n + 1)).astype(np.float32)


class Outside(BaseModel):
    """How strange known products are, by modality; one that is not listed cannot be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    known: dict[Modality, Known]

    def __call__(
        self,
        modality: Modality,
        scores: Sequence[NDArray[np.float32]],
        nodes: NDArray[np.float32],
        groups: SiblingGroups,
    ) -> NDArray[np.float32]:
        """How strange N products of one modality are, shape (N,); NaN where the modality cannot be told.

        Args:
            modality: what they are answered from.
            scores: E arrays of raw scores of the slots, (N, M).
            nodes: P(node), shape (N, K).
            groups: the slots' sibling groups.
        """
        known = self.known.get(modality)
        if known is None:
            return np.full(len(nodes), np.nan, np.float32)
        return known.share_less_strange(strangeness(scores, nodes, groups, known.witness))


def witness_of(experts: Mapping[str, Modality], modality: Modality) -> int | None:
    """The number of the expert that is asked how strange a product of a modality is; None where there is none.

    Args:
        experts: what each looks at, by name, in the order of its scores.
        modality: what the product is answered from.
    """
    able = WITNESS in experts and can_answer(experts[WITNESS], modality)
    return list(experts).index(WITNESS) if able else None


def strangeness(
    scores: Sequence[NDArray[np.float32]], nodes: NDArray[np.float32], groups: SiblingGroups, witness: int | None
) -> NDArray[np.float32]:
    """How strange N products are on a scale of its own, shape (N,).

    With a witness its evenness: the mean over slots of the logarithm of what it puts there, which is greatest
    where it puts as much everywhere. Else doubt: (1 - the greatest P(node) of level 1) times (1 - that of a leaf).
    """
    if witness is not None:
        of = scores[witness]
        even: NDArray[np.float32] = of @ np.full(of.shape[1], 1.0 / of.shape[1], np.float32)
        return even
    tree = groups.taxonomy
    n_first = int(groups.size[0]) - int(groups.is_here[: groups.size[0]].sum())
    leaves = tree.is_leaf.astype(np.float32)
    doubt = np.empty(len(nodes), np.float32)
    for begin in range(0, len(nodes), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        doubt[rows] = (1 - nodes[rows, :n_first].max(axis=1)) * (1 - (nodes[rows] * leaves).max(axis=1))
    return doubt


def _ranks(n: int, n_kept: int) -> NDArray[np.int64]:
    """Ranks from 1 to n, evenly spaced."""
    return np.rint(np.linspace(1, n, n_kept)).astype(np.int64)
