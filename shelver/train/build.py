"""From examples to an untrained model: which experts there are and what each looks at.

The columns of a text embedding, from the left: the vectors of frozen encoders, the n-grams' learned vector, and
the linear part's scores of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shelver.ngrams import NgramSpec, Vocabulary
from shelver.registry import ImageStage
from shelver.train.config import Fusion
from shelver.train.data import Features
from shelver.train.linear import Linear, Targets, fit_linear
from shelver.train.model import (
    Expert,
    Head,
    HeadKind,
    ImageExpert,
    JointExpert,
    NgramTable,
    ProductModel,
    Sentence,
    TextExpert,
    WideExpert,
    beside_ngrams,
    label_slots,
)
from shelver.train.tasks import Tasks, is_known

FEW_TEXTS: Final = 2_000
"""Below this many texts, n-grams that occur once are kept too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a config leaves open, settled for a catalog.

    Attributes:
        head: the kind of head.
        fusion: how text and picture come together.
        ngrams: how texts are taken apart; None where the model reads no n-grams.
        linear: whether the wide linear part is learned.
        network: whether a network is learned on the n-grams.
        text_width, hidden: of the n-grams' vectors, which are their experts' hidden layer, and of other hidden
            layers.
        dropout, image_dropout: for text and for pictures.
        min_count, max_features: of n-grams.
        seed: of the first weights.
        balanced: the tasks' weights in the loss are learned.
        colour: the columns of the picture embedding that hold colour features beside others; None without.
    """

    head: HeadKind
    fusion: Fusion
    ngrams: NgramSpec | None
    linear: bool
    network: bool
    text_width: int
    hidden: int
    dropout: float
    image_dropout: float
    min_count: int
    max_features: int
    seed: int
    balanced: bool = False
    colour: tuple[int, int] | None = None

    def with_ngrams(self, spec: NgramSpec) -> Plan:
        """The same plan with texts taken apart otherwise."""
        return replace(self, ngrams=spec)


@dataclass(frozen=True, slots=True)
class Built:
    """A model ready to learn step by step, with what was fitted at once.

    Attributes:
        linear: the wide part, done; None without.
        labels: nodes that it scores, ascending, shape (C,); the attributes' values come after them.
    """

    model: ProductModel
    vocabulary: Vocabulary | None
    linear: Linear | None
    labels: NDArray[np.int32]


def colour_columns(image: ImageStage | None) -> tuple[int, int] | None:
    """Where the colour features stand in the picture embedding; None without them, or with nothing else."""
    at = 0
    for part in image.parts if image is not None and len(image.parts) > 1 else ():
        if part.encoder == "colour":
            return at, at + part.width
        at += part.width
    return None


def fit_vocabulary(plan: Plan, training: Sequence[str | None]) -> Vocabulary | None:
    """The n-grams of the training texts; None where the model reads none."""
    if plan.ngrams is None:
        return None
    texts = [text for text in training if text is not None]
    min_count = 1 if len(texts) < FEW_TEXTS else plan.min_count
    return Vocabulary.fit(texts, plan.ngrams, min_count=min_count, max_features=plan.max_features)


def fit_wide(
    features: Features,
    vocabulary: Vocabulary,
    labels: NDArray[np.int32],
    tasks: Tasks,
    sentence: Sentence | None,
    seed: int,
) -> Linear:
    """The linear part, on the products that have a text; `labels` are the nodes of all products, ascending."""
    rows = np.flatnonzero(features.text_present)
    assert features.ngrams is not None
    dense = None
    if sentence is not None and features.frozen is not None:
        with torch.inference_mode():
            dense = beside_ngrams(sentence(torch.from_numpy(features.frozen[rows].astype(np.float32)))).numpy()
    return fit_linear(
        features.ngrams.rows(rows),
        _targets(features, rows, labels, tasks),
        n_features=max(len(vocabulary), 1),  # as many rows as the table has
        dense=dense,
        seed=seed,
    )


def _targets(features: Features, rows: NDArray[np.intp], labels: NDArray[np.int32], tasks: Tasks) -> Targets:
    """What some products teach the linear part, the tree's labels first, then the attributes' values."""
    products: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    asked: list[NDArray[np.bool_]] = []
    sizes: list[int] = []
    if tasks.groups is not None:
        node = features.node[rows]
        asked.append(node >= 0)
        products.append(np.flatnonzero(asked[-1]))
        columns.append(np.searchsorted(labels, node[asked[-1]]))
        sizes.append(len(labels))
    for task, of_task in zip(tasks.attributes, features.labels, strict=True):
        of_rows = of_task[rows]
        asked.append(is_known(of_rows))
        if task.attribute.multi:
            product, value = np.nonzero(of_rows == 1)
        else:
            product = np.flatnonzero(asked[-1])
            value = of_rows[product].astype(np.intp)
        products.append(product)
        columns.append(value + sum(sizes))
        sizes.append(len(task.attribute.values))
    product = np.concatenate(products)
    order = np.argsort(product, kind="stable")
    counts = np.bincount(product, minlength=len(rows))
    return Targets(
        np.concatenate(columns)[order],
        np.concatenate([[0], np.cumsum(counts)]),
        np.stack(asked, axis=1),
        np.repeat(np.arange(len(sizes)), sizes),
    )


def fit_sentence(features: Features) -> Sentence | None:
    """How the frozen encoders' vectors are standardised; None without."""
    if features.frozen is None:
        return None
    mean, scale = _standard(features.frozen[features.text_present])
    return Sentence((0, len(mean)), mean, scale)


def build(
    plan: Plan,
    features: Features,
    tasks: Tasks,
    *,
    vocabulary: Vocabulary | None,
    linear: Linear | None,
    sentence: Sentence | None,
    labels: NDArray[np.int32],
    device: torch.device,
) -> Built:
    """A model with random weights, the same ones for the same seed."""
    torch.manual_seed(plan.seed)
    experts: dict[str, Expert] = {}
    table = ngrams = None
    at = 0
    if sentence is not None:
        at = sentence.width
    if vocabulary is not None and plan.network:
        table = NgramTable(max(len(vocabulary), 1), plan.text_width)
        ngrams = (at, at + plan.text_width)
        at += plan.text_width

    def text_expert(sentence: Sentence | None, ngrams: tuple[int, int] | None) -> TextExpert:
        width = plan.text_width if ngrams is not None else plan.hidden
        # Where there is no wide linear part, the expert needs a straight way of its own.
        straight = ngrams is not None and linear is None
        return TextExpert(
            width, tasks, plan.dropout, plan.head, sentence=sentence, ngrams=ngrams, straight=straight
        )

    if sentence is not None and ngrams is not None:
        experts["text"] = text_expert(sentence, ngrams)
    if ngrams is not None:
        experts["ngram"] = text_expert(None, ngrams)
    elif sentence is not None:
        experts["sentence"] = text_expert(sentence, None)
    if features.image is not None:
        mean, scale = _standard(features.image.values[features.image.present])
        experts["image"] = ImageExpert(mean, scale, plan.hidden, tasks, plan.image_dropout, plan.head)
        if plan.colour is not None and tasks.attributes:
            # Errs otherwise than one that also sees what networks make of the picture: together they are right
            # about fashion's colours one point more often.
            first, last = plan.colour
            experts["colour"] = ImageExpert(
                mean[first:last],
                scale[first:last],
                plan.hidden,
                tasks,
                plan.image_dropout,
                plan.head,
                columns=plan.colour,
            )
        if at and plan.fusion != "late":
            experts["joint"] = JointExpert((0, at), mean, scale, plan.hidden, tasks, plan.image_dropout, plan.head)
    if linear is not None:
        inside = np.zeros((0, 0), np.float32) if tasks.groups is None else label_slots(tasks.groups, labels)
        experts["linear"] = WideExpert(
            (at, at + len(linear.bias)),
            torch.from_numpy(linear.bias),
            torch.from_numpy(inside),
            sentence=sentence if linear.dense is not None else None,
            dense=torch.from_numpy(linear.dense) if linear.dense is not None else None,
        )
    n_balanced = 1 + len(tasks.attributes) if plan.balanced and tasks.attributes else 0
    model = ProductModel(table, Head(experts, n_balanced)).to(device)
    return Built(model, vocabulary, linear, labels)


def _standard(values: NDArray[np.float16] | NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each column, shape (D,) each."""
    if not len(values):
        return torch.zeros(values.shape[1]), torch.ones(values.shape[1])
    # In float64 block by block: a copy of everything in float32 would double the memory.
    total = np.zeros(values.shape[1])
    square = np.zeros(values.shape[1])
    for start in range(0, len(values), 4096):
        block = values[start : start + 4096].astype(np.float64)
        total += block.sum(axis=0)
        square += (block**2).sum(axis=0)
    mean = total / len(values)
    deviation = np.sqrt(np.maximum(square / len(values) - mean**2, 0.0))
    return (
        torch.from_numpy(mean.astype(np.float32)),
        torch.from_numpy((1.0 / np.maximum(deviation, 1e-3)).astype(np.float32)),
    )
