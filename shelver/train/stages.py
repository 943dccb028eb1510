"""Which stages a model gets: what the config leaves open is settled from the catalog, and said."""

from __future__ import annotations

from typing import Final

import numpy as np

from shelver.catalog.store import Catalog
from shelver.errors import ConfigError, ImageError
from shelver.images import decode
from shelver.registry import ImageStage, TextStage
from shelver.train.config import TrainConfig
from shelver.train.data import choose_image_spec
from shelver.train.lite0 import WIDTH

PICTURES_SAMPLED: Final = 256


def choose_stages(catalog: Catalog, config: TrainConfig) -> tuple[TextStage | None, ImageStage | None, list[str]]:
    """Settle what the config leaves open, and say why."""
    choices: list[str] = []
    sizes_px = _survey(catalog) if config.image_encoder != "none" else []
    has_text = catalog.info.n_with_text > 0
    has_pictures = bool(sizes_px)
    for flag, encoder, has, what in (
        ("--text-encoder", config.text_encoder, has_text, "texts"),
        ("--image-encoder", config.image_encoder, has_pictures, "pictures"),
    ):
        if encoder not in ("auto", "none") and not has:
            raise ConfigError(
                f"{flag} {encoder}, but the training products of {catalog.folder} have no {what}",
                allowed=f"a catalog with {what}, or {flag} none",
                remedy="Look at `shelver describe`.",
            )
        if encoder == "auto":
            choices.append(f"{what}: {'used' if has else 'none in the training products, not used'}")
    text = image = None
    if has_text and config.text_encoder != "none":
        text = TextStage(encoder="ngram", spec=config.text, ngrams=config.ngrams, width=config.text_width)
    if has_pictures and config.image_encoder != "none":
        spec = config.image
        if spec is None:
            spec = choose_image_spec(sizes_px)
            width, height = np.median(np.array(sizes_px), axis=0)
            choices.append(
                f"picture size: {spec.width_px}x{spec.height_px} px, "
                f"as the median of the catalog's pictures is {width:.0f}x{height:.0f}"
            )
        image = ImageStage(encoder="lite0", spec=spec, width=WIDTH)
    if text is None and image is None:
        raise ConfigError(
            f"nothing to learn from: --text-encoder {config.text_encoder}, "
            f"--image-encoder {config.image_encoder}, and {catalog.folder} has "
            f"{catalog.info.n_with_text:,} products with a text and {catalog.info.n_with_images:,} with a picture",
            allowed="a text encoder and texts, or an image encoder and pictures",
            remedy="Leave out the flags, or ingest the catalog with a mapping for its text or picture columns.",
        )
    return text, image, choices


def _survey(catalog: Catalog) -> list[tuple[int, int]]:
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
