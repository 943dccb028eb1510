"""What can be chosen about a training, and what is chosen where nothing is said."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shelver.errors import ConfigError
from shelver.images import ImageSpec
from shelver.ngrams import NgramSpec
from shelver.product import TextSpec

TextEncoder = Literal["auto", "none", "ngram"]
ImageEncoder = Literal["auto", "none", "lite0"]
Head = Literal["tree"]


class TrainConfig(BaseModel):
    """A training, whole. An experiment is a Python file that ends with `config = TrainConfig(...)`.

    Attributes:
        text_encoder: "ngram" (learned from scratch, nothing to download), "none", or "auto": ngram where the
            catalog has texts.
        image_encoder: "lite0" (EfficientNet-Lite0, frozen), "none", or "auto": lite0 where it has pictures.
        head: "tree", a softmax among siblings.
        text: which fields of a product are read, and how much of them.
        ngrams: how a text is taken apart.
        min_count: an n-gram counts when at least so many training texts have it; 1 below 2,000 texts.
        max_features: n-grams kept at most, the commonest.
        text_width: D_t, width of the text embedding.
        image: size and scaling of pictures; None chooses the size from the catalog's own pictures.
        hidden: width of the hidden layer of each branch of the head.
        dropout, image_dropout: share of hidden units, and of embedding entries, left out in training, in the text
            branch and the picture branch.
        ngram_dropout: share of a text's n-grams left out in training.
        drop_text, drop_image: share of the products with both whose text (or picture) is hidden in a step, so that
            one model learns to answer from either.
        epochs: passes over the training products, at most; the learning rate falls to zero over them.
        patience: epochs without a better validation accuracy before training ends; 0 never ends it early.
        batch_size: products a step; None chooses 64 to 512 from the number of products.
        table_lr, lr: peak learning rates of the n-gram table and of the rest.
        weight_decay: of the rest.
        seed: decides the initial weights, the order of products and all dropout.
        time_limit_s: seconds that the whole training may take, export included; None is no limit. With a limit,
            the learning rate falls with the clock, so a run is no longer repeatable to the bit.
        refit: once the number of steps is chosen on validation, train that many on train and validation together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_encoder: TextEncoder = "auto"
    image_encoder: ImageEncoder = "auto"
    head: Head = "tree"
    text: TextSpec = TextSpec()
    ngrams: NgramSpec = NgramSpec()
    min_count: int = Field(default=2, ge=1)
    max_features: int = Field(default=1 << 18, ge=1)
    text_width: int = Field(default=128, ge=8)
    image: ImageSpec | None = None
    hidden: int = Field(default=256, ge=8)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    image_dropout: float = Field(default=0.2, ge=0, lt=1)
    ngram_dropout: float = Field(default=0.1, ge=0, lt=1)
    drop_text: float = Field(default=0.25, ge=0, lt=1)
    drop_image: float = Field(default=0.25, ge=0, lt=1)
    epochs: int = Field(default=12, ge=1)
    patience: int = Field(default=4, ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    table_lr: float = Field(default=2e-2, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    seed: int = Field(default=0, ge=0)
    time_limit_s: float | None = Field(default=None, gt=0)
    refit: bool = False


def load_config(path: Path) -> TrainConfig:
    """Run a config file and take its `config`.

    Args:
        path: a Python file. It is code of the person who trains, run with their rights: never one from a stranger.

    Raises:
        ConfigError: the file is missing, fails, or defines no TrainConfig named `config`.
    """
    remedy = "See configs/ for examples."
    if not path.is_file():
        raise ConfigError(f"no config file {path}", allowed="a Python file", remedy=remedy)
    try:
        found = runpy.run_path(str(path)).get("config")
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path} fails: {type(error).__name__}: {error}", allowed="a Python file that runs", remedy=remedy
        ) from error
    if not isinstance(found, TrainConfig):
        raise ConfigError(f"{path} defines config = {found!r}", allowed="config = TrainConfig(...)", remedy=remedy)
    return found
