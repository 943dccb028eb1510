"""What is learned: an n-gram table, and experts that score the tree's slots from text, picture or both.

Each expert scores on its own and has its own loss, so that one cannot lean on another; how far each is believed is
decided afterwards, on products that none of them learned from (`shelver.calibrate`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.calibrate import Modality
from shelver.taxonomy import SiblingGroups
from shelver.train.tasks import Tasks

MAX_DEVIATION: Final = 10.0
"""Standard deviations; a standardised feature is clipped there."""
SHARPNESS: Final = 5.0
"""What a margin of 1 between two labels is worth in nats, about; the calibration finds the rest."""
DENSE_LENGTH: Final = 0.7
"""Length of a sentence vector beside n-grams of length 1: of .7, 1 and 1.5 the best on validation."""
HIDDEN_SHARE: Final = 0.25
"""Of the products, those whose n-grams (or sentence vector) an expert on both does not see in a step."""
OWN_WIDTH: Final = 128
"""Of an attribute's own hidden layer; half as many were some half a point worse on fashion's validation."""
_LEAST_SHARE: Final = 1e-12

HeadKind = Literal["tree", "levels"]


class NgramTable(nn.Module):
    """The n-gram text encoder: the weighted sum of the vectors of a text's n-grams."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(n_features, width, mode="sum", sparse=True, include_last_offset=True)
        nn.init.normal_(self.bag.weight, std=0.5 / width**0.5)

    def forward(self, ids: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Flat bags: ids (n,), weights (n,), offsets (N + 1,) → (N, width)."""
        out: Tensor = self.bag(ids, offsets, weights)
        return out


class TreeScores(nn.Module):
    """The `tree` head: a layer scores every slot; a softmax among siblings makes probabilities of them."""

    def __init__(self, hidden: int, groups: SiblingGroups) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, groups.n_slots)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) → (N, M)."""
        scores: Tensor = self.out(hidden)
        return scores


class LevelScores(nn.Module):
    """The `levels` head: a softmax a level, each level told what the level above made of the product.

    It does not know the tree while it learns: which child belongs to which parent shows in the labels only. The
    slots' scores become coherent afterwards, by the softmax among siblings that every head goes through.

    Source:
        Gao et al. 2020, "Deep hierarchical classification for category prediction in e-commerce system".
    """

    def __init__(self, hidden: int, groups: SiblingGroups) -> None:
        super().__init__()
        sizes = level_sizes(groups)
        self.outs = nn.ModuleList(
            nn.Linear(hidden + (sizes[level - 1] if level else 0), size) for level, size in enumerate(sizes)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) → (N, M)."""
        scores: list[Tensor] = []
        for out in self.outs:
            known = torch.cat([hidden, scores[-1].softmax(dim=1)], dim=1) if scores else hidden
            scores.append(out(known))
        return torch.cat(scores, dim=1)


class TaskScores(nn.Module):
    """A head for several tasks: the tree's own, and a layer that scores the values of all attributes."""

    def __init__(self, tree: TreeScores | LevelScores | None, hidden: int, n_values: int) -> None:
        super().__init__()
        self.tree = tree
        self.values = nn.Linear(hidden, n_values)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, H) → (N, M + values)."""
        scores: Tensor = self.values(hidden)
        return scores if self.tree is None else torch.cat([self.tree(hidden), scores], dim=1)


def level_sizes(groups: SiblingGroups) -> list[int]:
    """Slots of each level; a level's slots stand together, level 1 first."""
    slot_level = groups.level[groups.slot_group]
    sizes: list[int] = np.bincount(slot_level, minlength=groups.taxonomy.n_levels + 1)[1:].tolist()
    return sizes


def scores_for(kind: HeadKind, hidden: int, tasks: Tasks) -> nn.Module:
    """A new head for some tasks; `kind` is that of the tree's."""
    tree: TreeScores | LevelScores | None = None
    if tasks.groups is not None:
        tree = TreeScores(hidden, tasks.groups) if kind == "tree" else LevelScores(hidden, tasks.groups)
    if tree is not None and not tasks.attributes:
        return tree
    return TaskScores(tree, hidden, tasks.n_values)


class TextExpert(nn.Module):
    """Scores from a text: one hidden layer over the n-grams' vector, a frozen encoder's vector, or both added.

    The n-grams' vector is as wide as the hidden layer and is its input without another layer between. With
    thousands of labels so narrow a layer behind a ReLU forgets too much; `straight`, the vector itself reaches the
    scores, and a hidden layer over its standardised form beside it.

    Args:
        sentence: where a frozen encoder's vector stands in the text embedding; None without.
        ngrams: first and last column of the n-grams' vector; None without.
        hidden: H.
        straight: see above.
    """

    needs: Modality = "text"

    def __init__(
        self,
        hidden: int,
        tasks: Tasks,
        dropout: float,
        kind: HeadKind,
        *,
        sentence: Sentence | None,
        ngrams: tuple[int, int] | None,
        straight: bool = False,
    ) -> None:
        super().__init__()
        self.sentence = sentence
        self.inner = nn.Linear(sentence.width, hidden, bias=False) if sentence is not None else None
        self.ngrams = ngrams
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.drop = nn.Dropout(dropout)
        self.over = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU()) if straight else None
        self.out = scores_for(kind, 2 * hidden if straight else hidden, tasks)

    def forward(self, text: Tensor, image: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N, D_t) → (N, M)."""
        total: Tensor = self.bias
        both = self.inner is not None and self.ngrams is not None
        # In training either is hidden from a quarter of the products where there are both, so that the expert does
        # not lean on n-grams that it has learned by heart.
        hide = torch.rand(len(text), 1, device=text.device) if self.training and both else None
        if self.sentence is not None and self.inner is not None:
            part = self.inner(self.drop(self.sentence(text)))
            total = total + (part if hide is None else part * (hide >= HIDDEN_SHARE))
        if self.ngrams is not None:
            part = text[:, self.ngrams[0] : self.ngrams[1]]
            total = total + (part if hide is None else part * (hide < 1.0 - HIDDEN_SHARE))
        seen = F.relu(total) if self.over is None else torch.cat([total, self.over(total)], dim=1)
        scores: Tensor = self.out(self.drop(seen))
        return scores


class Sentence(nn.Module):
    """A frozen encoder's columns of the text embedding, standardised, and small beside the n-grams' vector."""

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: tuple[int, int], mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.columns = columns
        self.width = len(mean)
        # Copies: experts that look at the same embedding must not share what a checkpoint holds for each.
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, text: Tensor) -> Tensor:
        """(N, D_t) → (N, width)."""
        standard = (text[:, self.columns[0] : self.columns[1]] - self.mean) * self.scale
        return 0.1 * standard.clamp(-MAX_DEVIATION, MAX_DEVIATION)


class OwnLayers(nn.Module):
    """Scores of the values of attributes, each from a hidden layer of its own.

    What tells a shelf in a picture is not what tells a season: behind one hidden layer for all, fashion's season
    was one point less often right from the picture.
    """

    def __init__(self, width: int, tasks: Tasks, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, OWN_WIDTH * len(tasks.attributes))
        self.drop = nn.Dropout(dropout)
        self.outs = nn.ModuleList(nn.Linear(OWN_WIDTH, len(task.attribute.values)) for task in tasks.attributes)

    def forward(self, seen: Tensor) -> Tensor:
        """(N, D) → (N, values of all)."""
        hidden = self.drop(F.relu(self.inner(seen)))
        parts = [
            out(hidden[:, OWN_WIDTH * number : OWN_WIDTH * (number + 1)]) for number, out in enumerate(self.outs)
        ]
        return torch.cat(parts, dim=1)


class ImageExpert(nn.Module):
    """Scores from a picture alone. The frozen encoder's features are standardised first.

    Args:
        mean, scale: of the columns of the picture embedding that it sees.
        columns: the first and last of them; None sees all.
    """

    needs: Modality = "image"
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        hidden: int,
        tasks: Tasks,
        dropout: float,
        kind: HeadKind,
        columns: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.drop = nn.Dropout(dropout)
        self.inner = self.out = None
        if tasks.groups is not None:
            self.inner = nn.Linear(len(mean), hidden)
            self.out = scores_for(kind, hidden, Tasks(tasks.groups))
        self.values = OwnLayers(len(mean), tasks, dropout) if tasks.attributes else None

    def forward(self, text: Tensor | None, image: Tensor) -> Tensor:  # noqa: ARG002
        """(N, D_i) → (N, M)."""
        if self.columns is not None:
            image = image[:, self.columns[0] : self.columns[1]]
        # Clipped: a feature that hardly varied in training must not swamp the rest on an unusual picture.
        standard = ((image - self.mean) * self.scale).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        seen = self.drop(standard)
        parts: list[Tensor] = []
        if self.inner is not None and self.out is not None:
            parts.append(self.out(self.drop(F.relu(self.inner(seen)))))
        if self.values is not None:
            parts.append(self.values(seen))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class JointExpert(nn.Module):
    """Scores from a text and a picture together: fusion that is learned, with either hidden now and then.

    Args:
        columns: first and last column of the text embedding that it sees.
        mean, scale: of the picture embedding.
    """

    needs: Modality = "both"

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        columns: tuple[int, int],
        mean: Tensor,
        scale: Tensor,
        hidden: int,
        tasks: Tasks,
        dropout: float,
        kind: HeadKind,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.norm = nn.LayerNorm(columns[1] - columns[0])
        self.text = nn.Linear(columns[1] - columns[0], hidden)
        self.image = nn.Linear(len(mean), hidden)
        self.drop = nn.Dropout(dropout)
        self.out = scores_for(kind, 2 * hidden, tasks)

    def forward(
        self, text: Tensor, image: Tensor, text_shown: Tensor | None = None, image_shown: Tensor | None = None
    ) -> Tensor:
        """(N, D_t), (N, D_i) → (N, M); in training (N, 1) of 0 and 1 hide the text or the picture."""
        # Detached: what the text's vectors mean is for the text experts to learn, so that a model asked for a text
        # alone is the model that never saw a picture.
        seen = self.norm(text[:, self.columns[0] : self.columns[1]].detach())
        standard = ((image - self.mean) * self.scale).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        from_text = F.relu(self.text(self.drop(seen)))
        from_image = F.relu(self.image(self.drop(standard)))
        if text_shown is not None and image_shown is not None:
            from_text, from_image = from_text * text_shown, from_image * image_shown
        scores: Tensor = self.out(self.drop(torch.cat([from_text, from_image], dim=1)))
        return scores


class WideExpert(nn.Module):
    """The linear part's scores of the labels, as scores of the slots.

    A label's score times a fixed sharpness goes through one softmax over all labels; a slot's score is the
    logarithm of what lies in it, so that the softmax among siblings gives just this distribution back. A value of
    an attribute has a slot of its own, and needs no more than the sharpness.

    Args:
        columns: where the n-grams' part of the labels' scores stands in the text embedding; labels of the tree
            come first, C of them, then values.
        bias: of all of them.
        inside: 1 where label c lies in slot m of the tree, shape (C, M).
        sentence: the frozen encoder's vector, where the linear part looks at it too.
        dense: its weights, shape (D, C).
    """

    needs: Modality = "text"

    bias: Tensor
    inside: Tensor
    dense: Tensor | None

    def __init__(
        self,
        columns: tuple[int, int],
        bias: Tensor,
        inside: Tensor,
        *,
        sentence: Sentence | None,
        dense: Tensor | None,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.sentence = Sentence(sentence.columns, sentence.mean, sentence.scale) if sentence is not None else None
        self.register_buffer("bias", bias)
        self.register_buffer("inside", inside)
        self.register_buffer("dense", dense)

    def forward(self, text: Tensor, image: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(N, D_t) → (N, M)."""
        scores = text[:, self.columns[0] : self.columns[1]] + self.bias
        if self.sentence is not None and self.dense is not None:
            scores = scores + beside_ngrams(self.sentence(text)) @ self.dense
        n_labels = len(self.inside)
        parts: list[Tensor] = []
        if n_labels:
            of_labels = (SHARPNESS * scores[:, :n_labels]).softmax(dim=1)
            parts.append(torch.log((of_labels @ self.inside).clamp(min=_LEAST_SHARE)))
        if scores.shape[1] > n_labels:
            parts.append(SHARPNESS * scores[:, n_labels:])
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def beside_ngrams(sentence: Tensor) -> Tensor:
    """Vectors (N, D) at a length that goes well with n-grams of length 1."""
    return DENSE_LENGTH * F.normalize(sentence, dim=1)


def label_slots(groups: SiblingGroups, labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """1 where label c (a node) lies in slot m, shape (C, M): the slots that the label's path passes."""
    inside = np.zeros((len(labels), groups.n_slots + 1), np.float32)
    slots = groups.target_slots[labels]
    inside[np.arange(len(labels))[:, None], slots] = 1.0  # -1, the padding, falls into the extra last column
    return inside[:, :-1]


Expert = TextExpert | ImageExpert | JointExpert | WideExpert


class Head(nn.Module):
    """Embeddings to raw scores of the slots, one array an expert, in the order of `experts`.

    Args:
        experts: by name.
        n_balanced: tasks whose weights in the loss are learned; 0 where they are not.
    """

    def __init__(self, experts: Mapping[str, Expert], n_balanced: int = 0) -> None:
        super().__init__()
        self.experts = nn.ModuleDict(experts)
        self.noise = nn.Parameter(torch.zeros(n_balanced)) if n_balanced else None

    def named(self) -> dict[str, Expert]:
        """The experts by name."""
        return dict(self.experts.items())  # type: ignore[arg-type]

    def learning(self) -> list[TextExpert | ImageExpert | JointExpert]:
        """The experts that learn step by step: all but the linear part, which is fitted at once."""
        return [expert for expert in self.named().values() if not isinstance(expert, WideExpert)]

    def forward(self, text: Tensor | None, image: Tensor | None) -> tuple[Tensor, ...]:
        """(N, D_t), (N, D_i) → as many (N, M) as there are experts; None where no expert needs it."""
        return tuple(expert(text, image) for expert in self.experts.values())


class ProductModel(nn.Module):
    """Everything that is trained together: the n-gram table, where n-grams are read, and the head."""

    def __init__(self, table: NgramTable | None, head: Head) -> None:
        super().__init__()
        self.table = table
        self.head = head

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device
