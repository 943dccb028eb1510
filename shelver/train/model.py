"""What is learned: an n-gram table and a head that scores the tree's slots from text, picture or both."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_DEVIATION: Final = 10.0
"""Standard deviations; a standardised feature is clipped there."""


class NgramTable(nn.Module):
    """The text encoder: the weighted sum of the vectors of a text's n-grams."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(n_features, width, mode="sum", sparse=True, include_last_offset=True)
        nn.init.normal_(self.bag.weight, std=0.5 / width**0.5)

    def forward(self, ids: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Flat bags: ids (n,), weights (n,), offsets (N + 1,) → (N, width)."""
        out: Tensor = self.bag(ids, offsets, weights)
        return out


class PaddedNgramTable(nn.Module):
    """The same sum over rectangles, for export: ONNX has no embedding bag."""

    def __init__(self, table: NgramTable) -> None:
        super().__init__()
        self.table = nn.Parameter(table.bag.weight.detach().clone(), requires_grad=False)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """ids (N, T), weights (N, T) with 0 for padding → (N, width)."""
        return torch.bmm(weights.unsqueeze(1), self.table[ids]).squeeze(1)


class TextBranch(nn.Module):
    """Scores from a text alone: a linear part beside a hidden layer."""

    def __init__(self, width: int, hidden: int, n_slots: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(width, n_slots)
        self.outer = nn.Linear(hidden, n_slots, bias=False)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D_t) → scores (N, M) and the hidden layer (N, H)."""
        hidden = F.relu(self.inner(self.drop(self.norm(text))))
        scores = self.linear(self.drop(text)) + self.outer(self.drop(hidden))
        return scores, hidden


class ImageBranch(nn.Module):
    """Scores from a picture alone. The frozen encoder's features are standardised first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, hidden: int, n_slots: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.inner = nn.Linear(len(mean), hidden)
        self.drop = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden, n_slots)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D_i) → scores (N, M) and the hidden layer (N, H)."""
        # Clipped: a feature that hardly varied in training must not swamp the rest on an unusual picture.
        standard = ((image - self.mean) * self.scale).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        hidden = F.relu(self.inner(self.drop(standard)))
        return self.outer(self.drop(hidden)), hidden


class TreeHead(nn.Module):
    """Embeddings to raw scores of the slots.

    Text and picture each score alone, and where a product has both, a joint layer sees both hidden layers; the
    scores are added. What a product lacks is masked out: a missing picture and a blank one are different things.
    """

    def __init__(self, text: TextBranch | None, image: ImageBranch | None, hidden: int, n_slots: int) -> None:
        super().__init__()
        self.text = text
        self.image = image
        both = text is not None and image is not None
        self.joint = nn.Linear(2 * hidden, hidden) if both else None
        self.joint_out = nn.Linear(hidden, n_slots, bias=False) if both else None

    def forward(
        self, text: Tensor | None, text_present: Tensor | None, image: Tensor | None, image_present: Tensor | None
    ) -> Tensor:
        """Values (N, D), presence (N, 1) as 0 or 1; a head without a branch ignores that pair → (N, M)."""
        if self.text is None:
            assert self.image is not None
            assert image is not None
            assert image_present is not None
            return self.image(image)[0] * image_present  # type: ignore[no-any-return]
        assert text is not None
        assert text_present is not None
        text_scores, text_hidden = self.text(text)
        if self.image is None or self.joint is None or self.joint_out is None:
            return text_scores * text_present  # type: ignore[no-any-return]
        assert image is not None
        assert image_present is not None
        image_scores, image_hidden = self.image(image)
        joint = self.joint_out(F.relu(self.joint(torch.cat([text_hidden, image_hidden], dim=1))))
        scores: Tensor = (
            text_scores * text_present + image_scores * image_present + joint * (text_present * image_present)
        )
        return scores


class ProductModel(nn.Module):
    """Everything that is trained together."""

    def __init__(self, table: NgramTable | None, head: TreeHead) -> None:
        super().__init__()
        self.table = table
        self.head = head
