"""What travels between the stages: one vector a product, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector a product.

    Attributes:
        values: shape (N, D), float32; rows that are not present are zero.
        present: shape (N,), bool; False where the product had no text (or no usable picture).
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]

    @classmethod
    def absent(cls, n: int, width: int) -> Embedding:
        return cls(np.zeros((n, width), np.float32), np.zeros(n, np.bool_))
