"""What a model is made of: what the config leaves open is settled from the catalog, and said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from shelver.errors import ConfigError, ImageError
from shelver.images import ImageSpec, decode
from shelver.ngrams import NgramSpec
from shelver.train.build import Plan
from shelver.train.config import TrainConfig
from shelver.train.data import choose_image_spec
from shelver.train.sets import Sets, Source

PICTURES_SAMPLED: Final = 256
FEW_PRODUCTS: Final = 3_000
"""Up to so many, hidden layers are narrow and everything is chosen by cross-validation."""
SENTENCES: Final = 60_000
"""Up to so many products, a pretrained sentence encoder reads the texts too: minutes on a CPU, and plenty of
products teach n-grams what it knows."""
REFIT: Final = 60_000
"""Up to so many products, the validation split is worth learning from, and learning again is cheap."""
LINEAR_LABELS: Final = 400
LINEAR_PRODUCTS: Final = 100_000
"""Most labels and products of a linear part: it has a weight for each n-gram and label."""
FOLDS: Final = 5
ENOUGH_HELD: Final = 200
"""Validation products from which on a small catalog is judged by them, not by folds."""
EPOCHS: Final = 20
NARROW: Final = 64
MIDDLE: Final = 128
WIDE: Final = 256
"""Widths of hidden layers: few products teach a narrow one; with many products and labels width costs most."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A config with nothing left open.

    Attributes:
        text_parts, image_parts: encoders by name; empty where the model does without.
        image: size of the pictures; None without pictures.
        plan: of the experts.
        folds: to cross-validate by; 0 holds the validation split out.
        refit: learn again from train and validation.
        epochs: passes over the products.
        choices: what was chosen and why, as sentences.
    """

    text_parts: tuple[str, ...]
    image_parts: tuple[str, ...]
    image: ImageSpec | None
    plan: Plan
    folds: int
    refit: bool
    epochs: int
    choices: tuple[str, ...]


def settle(catalog: Source, config: TrainConfig) -> Settled:
    """Settle what the config leaves open, and say why.

    Raises:
        ConfigError: the config asks for what the catalog lacks.
    """
    choices: list[str] = []
    if isinstance(catalog, Sets) and (n_foreign := catalog.n_foreign()):
        choices.append(
            f"{n_foreign:,} categories of the other catalogs are not in the tree of the first: their products "
            "teach attributes alone"
        )
    n_products = sum(catalog.info.by_split.get(split, 0) for split in ("train", "validation"))
    sizes_px = _survey(catalog) if config.image_encoder != "none" else []
    text_parts = _text_parts(catalog, config, n_products, choices)
    image_parts = _image_parts(catalog, config, sizes_px, choices)
    if not text_parts and not image_parts:
        raise ConfigError(
            f"nothing to learn from: --text-encoder {config.text_encoder}, "
            f"--image-encoder {config.image_encoder}, and {catalog.folder} has "
            f"{catalog.info.n_with_text:,} products with a text and {catalog.info.n_with_images:,} with a picture",
            allowed="a text encoder and texts, or an image encoder and pictures",
            remedy="Leave out the flags, or ingest the catalog with a mapping for its text or picture columns.",
        )
    image = config.image
    if image_parts and image is None:
        image = choose_image_spec(sizes_px)
        width, height = np.median(np.array(sizes_px), axis=0)
        choices.append(
            f"picture size: {image.width_px}x{image.height_px} px, "
            f"as the median of the catalog's pictures is {width:.0f}x{height:.0f}"
        )
    few = n_products <= FEW_PRODUCTS
    # A tuned encoder has learned the training products' labels, so folds of them would flatter it.
    tuned = any("@tuned" in part for part in (*text_parts, *image_parts))
    n_held = catalog.info.by_split.get("validation", 0)
    # Folds cut through groups of near-equal products, which a catalog's own split keeps together: on grocery's
    # bursts of photos they promise .92 where .65 is true. So they are for splits too small to say much.
    spared = n_held > 0 if tuned else n_held >= ENOUGH_HELD
    folds = config.folds if config.folds is not None else FOLDS if few and not spared else 0
    refit = config.refit if config.refit is not None else n_products <= REFIT
    if folds:
        choices.append(f"{n_products:,} products to learn from: chosen by {folds}-fold cross-validation")
    elif refit:
        choices.append(f"{n_products:,} products to learn from: chosen on validation, then learned from all")
    else:
        choices.append(f"{n_products:,} products to learn from: chosen on validation")
    linear = config.linear
    if "ngram" in text_parts and linear is None:
        n_labels = int(np.count_nonzero(catalog.taxonomy.is_leaf))
        linear = n_labels <= LINEAR_LABELS and n_products <= LINEAR_PRODUCTS
        why = f"{n_labels:,} leaves and {n_products:,} products"
        choices.append(f"linear part beside the n-gram network: {'yes' if linear else 'no'}, {why}")
    epochs = config.epochs or (EPOCHS if n_products <= REFIT else EPOCHS // 2)
    if "ngram" in text_parts and not linear and not config.network:
        raise ConfigError(
            "linear = False and network = False with n-grams",
            allowed="one of the two, or a text encoder without ngram",
            remedy="Set linear = True, or leave network out. Without both nothing reads the n-grams.",
        )
    plan = Plan(
        head="tree" if config.head == "auto" else config.head,
        fusion=config.fusion,
        ngrams=(config.ngrams or NgramSpec()) if "ngram" in text_parts else None,
        linear=bool(linear) and "ngram" in text_parts,
        network=config.network,
        text_width=config.text_width or (NARROW if few else WIDE if n_products <= REFIT else MIDDLE),
        hidden=config.hidden or (NARROW if few else WIDE),
        dropout=config.dropout,
        image_dropout=config.image_dropout,
        min_count=config.min_count,
        max_features=config.max_features,
        seed=config.seed,
        balanced=config.balanced,
    )
    return Settled(
        text_parts, image_parts, image if image_parts else None, plan, folds, refit, epochs, tuple(choices)
    )


def _text_parts(catalog: Source, config: TrainConfig, n_products: int, choices: list[str]) -> tuple[str, ...]:
    encoder, has = config.text_encoder, catalog.info.n_with_text > 0
    if encoder == "none" or (encoder == "auto" and not has):
        if encoder == "auto":
            choices.append("texts: none in the training products, not used")
        return ()
    if not has:
        raise _lacking("--text-encoder", encoder, catalog, "texts")
    if encoder == "auto":
        encoder = "ngram+use" if n_products <= SENTENCES else "ngram"
        choices.append(f"texts: {encoder}, as there are {n_products:,} products to learn from")
    # The n-grams' part stands last: what it learns with the model follows what is frozen.
    return tuple(sorted(encoder.split("+"), key=lambda name: name == "ngram"))


def _image_parts(
    catalog: Source, config: TrainConfig, sizes_px: list[tuple[int, int]], choices: list[str]
) -> tuple[str, ...]:
    encoder, has = config.image_encoder, bool(sizes_px)
    if encoder == "none" or (encoder == "auto" and not has):
        if encoder == "auto":
            choices.append("pictures: none in the training products, not used")
        return ()
    if not has:
        raise _lacking("--image-encoder", encoder, catalog, "pictures")
    if encoder == "auto":
        encoder = "lite0"
        if catalog.vocabulary.attributes and config.attributes != ():
            encoder = "lite0+colour"  # networks look past colour, and many attributes are about it
        choices.append(f"pictures: {encoder}, frozen")
    return tuple(encoder.split("+"))


def _lacking(flag: str, encoder: str, catalog: Source, what: str) -> ConfigError:
    return ConfigError(
        f"{flag} {encoder}, but the training products of {catalog.folder} have no {what}",
        allowed=f"a catalog with {what}, or {flag} none",
        remedy="Look at `shelver describe`.",
    )


def _survey(catalog: Source) -> list[tuple[int, int]]:
    """Sizes (width, height) of some of the training pictures that can be used; none where there are none."""
    sizes_px: list[tuple[int, int]] = []
    if not catalog.info.n_with_images:
        return sizes_px
    for products in catalog.products("train"):
        for data in (data for p in products for data in p.images):
            try:
                sizes_px.append(decode(data).size)
            except ImageError:
                continue
            if len(sizes_px) >= PICTURES_SAMPLED:
                return sizes_px
    return sizes_px
