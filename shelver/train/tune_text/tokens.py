"""Labelled texts as token numbers, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from shelver.registry import TokenSpec


@dataclass(frozen=True, slots=True)
class LabelledTokens:
    """Texts as token numbers.

    Attributes:
        ids: tokens of each text, N of them.
        labels: label of each text, shape (N,); any numbers, such as nodes of a tree.
        pad_id: token number of padding.
    """

    ids: list[NDArray[np.int64]]
    labels: NDArray[np.int64]
    pad_id: int

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, spec: TokenSpec, texts: Sequence[str], labels: NDArray[np.int64]
    ) -> LabelledTokens:
        """Read texts; the tokenizer is told to cut as `spec` says."""
        tokenizer.enable_truncation(spec.max_tokens)
        ids = [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch_fast(list(texts))]
        return cls(ids, labels, spec.pad_id)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: NDArray[np.intp]) -> LabelledTokens:
        """Some of them, in the order of `rows`."""
        return LabelledTokens([self.ids[row] for row in rows.tolist()], self.labels[rows], self.pad_id)

    def order(self, size: int, rng: np.random.Generator | None) -> list[NDArray[np.intp]]:
        """Rows of each batch, texts of like length together; with `rng`, in a random order."""
        lengths = np.array([len(of_one) for of_one in self.ids])
        blurred = (
            lengths if rng is None else lengths * (1 + 0.3 * rng.random(len(self))) + 4 * rng.random(len(self))
        )
        rows = np.argsort(blurred, kind="stable")
        starts = np.arange(0, len(self), size)
        return [rows[start : start + size] for start in (starts if rng is None else rng.permutation(starts))]

    def batch(self, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Ids, int64 (n, T), and mask, float32 (n, T), of some texts."""
        lengths = np.array([len(self.ids[row]) for row in rows.tolist()])
        inside = np.arange(max(int(lengths.max()), 1)) < lengths[:, None]
        ids = np.full(inside.shape, self.pad_id, np.int64)
        ids[inside] = np.concatenate([self.ids[row] for row in rows.tolist()])
        return torch.from_numpy(ids), torch.from_numpy(inside.astype(np.float32))

    def batches(
        self, size: int, rng: np.random.Generator | None
    ) -> Iterator[tuple[NDArray[np.intp], Tensor, Tensor]]:
        """Rows (n,), ids (n, T) and mask (n, T) of each batch, as `order` puts them."""
        for rows in self.order(size, rng):
            yield rows, *self.batch(rows)
