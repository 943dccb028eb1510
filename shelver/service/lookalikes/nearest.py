"""Vectors of many products in memory, and which are nearest to one: every one is compared, none is missed.

A comparison reads each vector once, so a search takes as long as the memory needs to give them: N products of 256
and 256 numbers are N · 2 KB.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from shelver.service.lookalikes.vectors import Floats, Look

_FIRST: Final = 256
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A product as it is compared: whose it is, its category, the version that its look is of."""

    product_id: str
    owner_id: str
    node_id: str | None
    version: int
    look: Look


class Near(NamedTuple):
    """A product, and the cosine: the mean of that of the texts and that of the pictures, where both have both."""

    product_id: str
    similarity: float


class Codes(dict[str, int]):
    """Numbers for names, in the order of their coming."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class Nearest:
    """The vectors; any thread may ask and change.

    Args:
        most: so many products are held; further ones are left out.

    Attributes:
        full: whether some were left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._text = self._image = np.zeros((0, 0), np.float32)
        self._kinds = np.zeros((0, 2), np.float32)  # whether a row has a text, and a picture
        self._owner = self._node = np.zeros(0, np.int32)
        self._row_of: dict[str, int] = {}
        self._ids: list[str | None] = []
        self._versions: list[int] = []
        self._free: list[int] = []
        self._owners, self._nodes = Codes(), Codes()
        self.full = False

    def __len__(self) -> int:
        return len(self._row_of)

    def version(self, product_id: str) -> int | None:
        """The version of a product that is held, if one is."""
        row = self._row_of.get(product_id)
        return None if row is None else self._versions[row]

    def put(self, products: Iterable[Placed]) -> None:
        """Add products, or replace them."""
        with self._lock:
            for product in products:
                row = self._row_of.get(product.product_id)
                if row is None:
                    if len(self._row_of) >= self._most:
                        self.full = True
                        continue
                    row = self._free.pop() if self._free else self._new_row()
                self._row_of[product.product_id] = row
                self._ids[row], self._versions[row] = product.product_id, product.version
                self._owner[row] = self._owners[product.owner_id]
                self._node[row] = -1 if product.node_id is None else self._nodes[product.node_id]
                self._text = _set(self._text, row, product.look.text, len(self._owner))
                self._image = _set(self._image, row, product.look.image, len(self._owner))
                self._kinds[row] = (product.look.text is not None, product.look.image is not None)

    def drop(self, product_ids: Iterable[str]) -> None:
        """Forget products."""
        with self._lock:
            for product_id in product_ids:
                row = self._row_of.pop(product_id, None)
                if row is not None:
                    self._ids[row] = None
                    self._kinds[row] = 0
                    self._free.append(row)

    def to(
        self, look: Look, n: int, *, node_id: str | None = None, owner_id: str | None = None, sold: bool = False
    ) -> list[Near]:
        """The n products that are nearest, the nearest first; of those that have a text or a picture in common.

        Args:
            look: what is compared with.
            n: how many.
            node_id: only products of this category.
            owner_id: only products of this owner.
            sold: and with that, others' products that have a category.
        """
        with self._lock:
            used = len(self._ids)
            scores, common = np.zeros(used, np.float32), np.zeros(used, np.float32)
            for values, matrix, kind in ((look.text, self._text, 0), (look.image, self._image, 1)):
                if values is not None and matrix.shape[1] == len(values):
                    scores += matrix[:used] @ values
                    common += self._kinds[:used, kind]
            wanted = common > 0
            if node_id is not None:
                wanted &= self._node[:used] == self._nodes.get(node_id, -2)
            if owner_id is not None:
                own = self._owner[:used] == self._owners.get(owner_id, -1)
                wanted &= own | (self._node[:used] >= 0) if sold else own
            rows = np.flatnonzero(wanted)
            scores = scores[rows] / common[rows]
            if len(rows) > n:
                best = np.argpartition(-scores, n - 1)[:n]
                rows, scores = rows[best], scores[best]
            order = np.argsort(-scores, kind="stable")
            found = zip(rows[order].tolist(), scores[order].tolist(), strict=True)
            return [Near(id_, score) for row, score in found if (id_ := self._ids[row]) is not None]

    def _new_row(self) -> int:
        row = len(self._ids)
        self._ids.append(None)
        self._versions.append(0)
        if row >= len(self._owner):
            room = max(_FIRST, 2 * row)
            self._kinds = _grown(self._kinds, room)
            self._owner, self._node = _grown(self._owner, room), _grown(self._node, room)
        return row


def _set(matrix: Floats, row: int, values: Floats | None, room: int) -> Floats:
    """The matrix with this row; made wider or longer where that is needed."""
    if values is not None and matrix.shape[1] != len(values):
        matrix = np.zeros((room, len(values)), np.float32)  # the first vector of its kind
    if matrix.shape[1] and len(matrix) < room:
        matrix = _grown(matrix, room)
    if matrix.shape[1]:
        matrix[row] = 0 if values is None else values
    return matrix


def _grown(values: NDArray[Scalar], room: int) -> NDArray[Scalar]:
    grown = np.zeros((room, *values.shape[1:]), values.dtype)
    grown[: len(values)] = values
    return grown
