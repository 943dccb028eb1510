"""What can be chosen about a training, and what is chosen where nothing is said."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shelver.errors import ConfigError, ShelverError
from shelver.images import ImageSpec
from shelver.ngrams import NgramSpec
from shelver.product import TextSpec
from shelver.train.tune import TuneSpec
from shelver.train.tune_text import TextTuning

Defined = TypeVar("Defined")
HeadChoice = Literal["auto", "tree", "levels"]
Fusion = Literal["auto", "late", "joint"]
Device = Literal["auto", "cpu", "cuda"]

TEXT_ENCODERS: Final = (
    "auto, none, ngram, use, hf:NAME, the last two perhaps with @tuned, or several with a plus, such as "
    "ngram+use@tuned"
)
IMAGE_ENCODERS: Final = (
    "auto, none, lite0, lite0@tuned, colour, hf:NAME, timm:NAME, each perhaps with @crop or @box, or several with "
    "a plus, such as lite0+lite0@box+colour"
)
# NAME(@tuned)?(@crop or @box)?, the two in any order.
_TEXT_PART: Final = re.compile(r"ngram|(use|hf:[^+@]+)(@tuned)?")
_IMAGE_PART: Final = re.compile(
    r"lite0(@tuned)?(@(crop|box))?|lite0@(crop|box)@tuned|(colour|(hf|timm):[^+@]+)(@(crop|box))?"
)


class TrainConfig(BaseModel):
    """A training, whole. An experiment is a Python file that ends with `config = TrainConfig(...)`.

    Attributes:
        text_encoder: parts with a plus between: "ngram" (learned from scratch, nothing to download), "use"
            (multilingual, frozen, from the package index), "hf:NAME" (transformers, frozen); "@tuned" behind one
            of these two fine-tunes it on this catalog first (see `tune_text`); "none"; "auto" chooses by the
            number of products.
        image_encoder: parts with a plus between: "lite0" (EfficientNet-Lite0, frozen), "lite0@tuned" (the same,
            fine-tuned on this catalog; see `tune`), "colour", "hf:NAME", "timm:NAME"; "@crop" looks at the centre
            at full detail, "@box" around the product; "none"; "auto" is lite0 where the catalog has pictures, and
            lite0+colour where it has attributes too.
        head: "tree", a softmax among siblings; "levels", a softmax a level, the parent level's feeding the
            child's; "auto" is the one that was better on validation of the public sets.
        fusion: "late" weighs the text's and the picture's own experts, "joint" answers products with both from the
            expert that saw both, "auto" weighs all of them, as validation says.
        linear: whether the wide linear part is learned; None decides by the number of n-grams and labels.
        network: whether a network is learned on the n-grams. Without, they go through the linear part alone: as
            accurate as a support vector machine, learned in seconds, and less sure of itself than it could be.
        text: which fields of a product are read, and how much of them.
        ngrams: how a text is taken apart; None takes the usual n-grams and weighs words and subwords as held-out
            products say.
        min_count: an n-gram counts when at least so many training texts have it; 1 below 2,000 texts.
        max_features: n-grams kept at most, the commonest.
        text_width: width of the n-grams' vectors; None chooses by the number of products.
        image: size and scaling of pictures; None chooses the size from the catalog's own pictures.
        precision: "int8" runs the networks that see pictures in eight bits; the head learns from what they give.
        tune: how "lite0@tuned" is made. tune_text: how "use@tuned" and "hf:NAME@tuned" are.
        hidden: width of the hidden layer of each expert; None chooses by the number of products.
        dropout, image_dropout: share of hidden units, and of embedding entries, left out in training, for text and
            for pictures.
        ngram_dropout: share of a text's n-grams left out in training.
        drop_text, drop_image: share of the products with both whose text (or picture) is hidden from the joint
            expert in a step, so that it leans on neither.
        level_weights: of the levels' parts of the loss, level 1 first; the last one goes on for deeper levels;
            None weighs all alike.
        label_smoothing: share of a label's weight spread over its siblings.
        balance: products of a label with n products weigh n ** -balance in the loss; 0 weighs all alike.
        attributes: names of the attributes to learn with the category; None: all that have labels enough.
        attribute_share: of the attributes' losses beside the category's.
        balanced: the tasks' weights in the loss are learned: a noisier task weighs less.
        value_weight: products of value v weigh v ** value_weight in the loss; unknown values count as the mean.
        epochs: passes over the training products, at most; the learning rate falls to zero over them. None chooses
            20, or 10 for many products.
        patience: epochs without a better validation accuracy before training ends and the best weights are taken;
            0 takes the last ones, where the learning rate has fallen to zero.
        batch_size: products a step; None chooses 64 to 512 from the number of products.
        table_lr, lr: peak learning rates of the n-gram table and of the rest.
        weight_decay: of the rest.
        seed: decides the initial weights, the order of products and all dropout.
        time_limit_s: seconds that the whole training may take, export included; None is no limit. With a limit,
            the learning rate falls with the clock, so a run is no longer repeatable to the bit.
        folds: parts of train and validation together that are held out in turn to choose by; 0 chooses on the
            validation split; None decides by the number of products.
        refit: once chosen, learn again from train and validation together; None decides by the number of products.
        device: "cuda" computes on a GPU in mixed precision, "auto" where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_encoder: str = "auto"
    image_encoder: str = "auto"
    head: HeadChoice = "auto"
    fusion: Fusion = "auto"
    linear: bool | None = None
    network: bool = True
    text: TextSpec = TextSpec()
    ngrams: NgramSpec | None = None
    min_count: int = Field(default=2, ge=1)
    max_features: int = Field(default=1 << 18, ge=1)
    text_width: int | None = Field(default=None, ge=8)
    image: ImageSpec | None = None
    precision: Literal["fp32", "int8"] = "fp32"
    tune: TuneSpec = TuneSpec()
    tune_text: TextTuning = TextTuning()
    hidden: int | None = Field(default=None, ge=8)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    image_dropout: float = Field(default=0.2, ge=0, lt=1)
    ngram_dropout: float = Field(default=0.1, ge=0, lt=1)
    drop_text: float = Field(default=0.25, ge=0, lt=1)
    drop_image: float = Field(default=0.25, ge=0, lt=1)
    level_weights: tuple[float, ...] | None = Field(default=None, min_length=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    balance: float = Field(default=0.0, ge=0, le=1)
    attributes: tuple[str, ...] | None = None
    attribute_share: float = Field(default=1.0, gt=0)
    balanced: bool = False
    value_weight: float = Field(default=0.0, ge=0, le=1)
    epochs: int | None = Field(default=None, ge=1)
    patience: int = Field(default=0, ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    table_lr: float = Field(default=2e-2, gt=0)
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    seed: int = Field(default=0, ge=0)
    time_limit_s: float | None = Field(default=None, gt=0)
    folds: int | None = Field(default=None, ge=0, le=20)
    refit: bool | None = None
    device: Device = "auto"

    @field_validator("text_encoder")
    @classmethod
    def _text_parts_are_known(cls, encoder: str) -> str:
        return _checked_parts(encoder, _TEXT_PART, TEXT_ENCODERS)

    @field_validator("image_encoder")
    @classmethod
    def _image_parts_are_known(cls, encoder: str) -> str:
        return _checked_parts(encoder, _IMAGE_PART, IMAGE_ENCODERS)

    @field_validator("folds")
    @classmethod
    def _one_fold_holds_nothing_out(cls, folds: int | None) -> int | None:
        if folds == 1:
            raise ValueError("0, or from 2 to 20")
        return folds


def _checked_parts(encoder: str, part: re.Pattern[str], allowed: str) -> str:
    parts = encoder.split("+")
    known = encoder in ("auto", "none") or all(part.fullmatch(name) for name in parts)
    if not known or len({frozenset(name.split("@")) for name in parts}) < len(parts):
        raise ValueError(allowed)
    return encoder


def load_config(path: Path) -> TrainConfig:
    """Run a config file and take its `config`; see `defined_in`."""
    return defined_in(path, "config", TrainConfig, remedy="See configs/ for examples.")


def defined_in(path: Path, name: str, kind: type[Defined], *, remedy: str) -> Defined:
    """Run an experiment's file and take what it defines under a name.

    Args:
        path: a Python file. It is code of the person who trains, run with their rights: never one from a stranger.
        name: of what is wanted in it.
        kind: its class.
        remedy: where to look for an example.

    Raises:
        ConfigError: the file is missing, fails, or defines nothing of this kind under the name.
    """
    if not path.is_file():
        raise ConfigError(f"no {name} file {path}", allowed="a Python file", remedy=remedy)
    try:
        found = runpy.run_path(str(path)).get(name)
    except ShelverError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{path}: {'.'.join(map(str, first['loc'])) or error.title} is not right",
            allowed=first["msg"].removeprefix("Value error, "),
            remedy=remedy,
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path} fails: {type(error).__name__}: {error}", allowed="a Python file that runs", remedy=remedy
        ) from error
    if not isinstance(found, kind):
        raise ConfigError(
            f"{path} defines {name} = {found!r}", allowed=f"{name} = {kind.__name__}(...)", remedy=remedy
        )
    return found
