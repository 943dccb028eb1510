"""Other right paths of the products that have some, gathered batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shelver.product import Product


@dataclass(slots=True)
class Also:
    """The nodes that are right beside the first one; products without any cost nothing.

    Attributes:
        index: place in the tree by node id. Ids that are not there are passed over: an answer cannot be one.
    """

    index: Mapping[str, int]
    n: int = 0
    _row: list[int] = field(default_factory=list)
    _node: list[int] = field(default_factory=list)

    def add(self, products: Sequence[Product]) -> None:
        """Take in the next products."""
        for row, product in enumerate(products, start=self.n):
            for node_id in product.also_node_ids:
                if node_id != product.node_id and node_id in self.index:
                    self._row.append(row)
                    self._node.append(self.index[node_id])
        self.n += len(products)

    def nodes(self) -> NDArray[np.int32] | None:
        """As the metrics take them: -1 padded, shape (N, A); None where no product has any."""
        return padded(np.array(self._row, np.int64), np.array(self._node, np.int32), self.n)


def padded(row: NDArray[np.int64], node: NDArray[np.int32], n: int) -> NDArray[np.int32] | None:
    """Nodes side by side for each product.

    Args:
        row: whose each node is, rising, shape (P,).
        node: shape (P,).
        n: products.

    Returns:
        -1 padded, shape (n, A); None where there is no node.
    """
    if not len(row):
        return None
    counts = np.bincount(row, minlength=n)
    table = np.full((n, int(counts.max())), -1, np.int32)
    table[row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]] = node
    return table
