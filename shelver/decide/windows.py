"""Weighted sums over the descendants of many nodes, of many products at once.

At each level the descendants of a node are one stretch of columns. Gathering them number by number takes several
nanoseconds each, copying a window of neighbours hardly one. So each stretch is cut into windows beforehand; the
weights beyond its end are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.places import Floats, Index, members, starts_of

_WIDTH: Final = 64
_BLOCK: Final = 512
"""So many windows are copied at a time: more fall out of a core's cache before they are looked at."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Where the descendants of each of K nodes stand, and what each of them counts.

    Attributes:
        first, count: each node's windows among the T of all, both of shape (K,).
        start: the first column of each window, shape (T,).
        weights: of its columns, shape (T, width).
    """

    first: Index
    count: Index
    start: Index
    weights: Floats

    @classmethod
    def of(cls, stretches: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> Windows:
        """Cut stretches of columns into windows.

        Args:
            stretches: some for each node: the first column and how many, both of shape (K,), and what each column
                of the tree counts there, shape (K,).
        """
        k = len(stretches[0][0])
        width = min(_WIDTH, k)
        node, start, weights = [], [], []
        for first, count, of_column in stretches:
            pieces = -(-count.astype(np.intp) // width)
            owner, piece = members(np.zeros(k, np.intp), pieces)
            begin = first[owner] + piece * width
            end = np.minimum(begin + width, (first + count)[owner])
            at = np.minimum(begin, k - width)  # the last window must not reach into the next product
            column = at[:, None] + np.arange(width)
            inside = (column >= begin[:, None]) & (column < end[:, None])
            node.append(owner)
            start.append(at)
            weights.append(np.where(inside, of_column[column], 0).astype(np.float32))
        owner = np.concatenate(node)
        order = np.argsort(owner, kind="stable")
        count = np.bincount(owner, minlength=k)
        return cls(starts_of(count), count, np.concatenate(start)[order], np.concatenate(weights)[order])

    def sums(self, flat: Floats, rows: Index, columns: NDArray[Any]) -> NDArray[np.float64]:
        """The weighted sums of P over the descendants of pairs of rows and nodes, shape (P,).

        Args:
            flat: P(node) of all rows, one after another.
            rows, columns: the pairs, both of shape (P,).
        """
        pair, window = members(self.first[columns], self.count[columns])
        if not len(pair):
            return np.zeros(len(rows))
        width = self.weights.shape[1]
        neighbours = np.ndarray((len(flat) - width + 1, width), flat.dtype, flat, strides=flat.strides * 2)
        at = self.start[window]
        at += (rows * len(self.first))[pair]
        sums = np.empty(len(at), np.float32)
        for begin in range(0, len(at), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            np.einsum("ij,ij->i", neighbours[at[block]], self.weights[window[block]], out=sums[block])
        return np.bincount(pair, weights=sums, minlength=len(rows)).astype(np.float64, copy=False)
