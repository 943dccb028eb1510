"""What a fine-tuning learns from: the pictures of a catalog, as the blocks that stay frozen pass them on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shelver.attributes import Attribute
from shelver.catalog.split import Part
from shelver.errors import ImageError
from shelver.images import ImageSpec, View, normalise, views
from shelver.train.data import Say
from shelver.train.sets import Source

READ_PICTURES: Final = 64
TELL_EVERY_S: Final = 5.0
_DONE: Final = "inputs.json"
_VALUES: Final = "inputs.bin"
_LABELS: Final = "labels.npy"

MAX_STRETCH: Final = math.log(4 / 3)

Frozen = Callable[[Tensor], Tensor]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Training pictures on disk; reading a row touches nothing but the row.

    Attributes:
        values: float16 (N, C, h, w, D), what the frozen blocks gave for each of C copies (the picture, then its
            mirror image), or uint8 (N, 1, H, W, 3), the pictures themselves.
        labels: node of each picture, then its value of each attribute, -1 where it is not known; shape (N, 1 + A),
            int32.
        spec: size of the pictures.
    """

    values: NDArray[np.float16] | NDArray[np.uint8]
    labels: NDArray[np.int32]
    spec: ImageSpec

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cached(self) -> bool:
        """Whether the frozen blocks have been passed."""
        return self.values.dtype == np.float16


def prepare(
    folder: Path,
    catalog: Source,
    splits: Sequence[Part],
    spec: ImageSpec,
    *,
    view: View = "fit",
    attributes: Sequence[Attribute] = (),
    frozen: Frozen | None,
    mirror: bool,
    say: Say,
) -> Inputs:
    """Fit the labelled pictures of some splits and pass them through the frozen blocks; done once a folder.

    A picture that cannot be decoded is left out; each picture of a product is an example.

    Args:
        folder: where the files go. What a killed run left unfinished there is made again.
        catalog: the catalog.
        splits: parts to learn from.
        spec: size of the pictures; its sides need not be multiples of 32 here.
        view: which part of a picture is seen.
        attributes: those whose labels are wanted too, A of them.
        frozen: (N, 3, H, W) → (N, D, h, w); None keeps the pictures themselves.
        mirror: keep what `frozen` makes of each mirror image too.
        say: told about rate and time left.
    """
    if not (folder / _DONE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(
            folder, catalog, splits, spec, view=view, attributes=attributes, frozen=frozen, mirror=mirror, say=say
        )
    noted = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    shape = tuple(noted["shape"])
    values = np.memmap(folder / _VALUES, dtype=noted["dtype"], mode="r", shape=shape) if shape[0] else None
    return Inputs(
        np.zeros(shape, np.dtype(noted["dtype"])) if values is None else values,
        np.load(folder / _LABELS, allow_pickle=False),
        spec,
    )


def _write(
    folder: Path,
    catalog: Source,
    splits: Sequence[Part],
    spec: ImageSpec,
    *,
    view: View,
    attributes: Sequence[Attribute],
    frozen: Frozen | None,
    mirror: bool,
    say: Say,
) -> None:
    expected = sum(catalog.info.by_split.get(split, 0) for split in splits)
    labels: list[NDArray[np.int32]] = []
    shape: tuple[int, ...] = (1, spec.height_px, spec.width_px, 3)
    started = told = time.monotonic()
    with (folder / _VALUES).open("wb") as file:
        for batch in _batches(catalog, splits, spec, view, attributes):
            pictures = np.stack([seen for _, _, seen in batch])
            values = pictures[:, None] if frozen is None else _passed(frozen, pictures, spec, mirror)
            shape = values.shape[1:]
            file.write(values.tobytes())
            labels += [of_one for _, of_one, _ in batch]
            now = time.monotonic()
            if now - told > TELL_EVERY_S:
                told = now
                n_products = batch[-1][0] + 1
                left_s = max(0, expected - n_products) * (now - started) / n_products
                size = f"{spec.width_px}x{spec.height_px}"
                rate = len(labels) / (now - started)
                say(f"frozen blocks: {len(labels):,} pictures at {size} px, {rate:,.0f}/s, {left_s:,.0f} s left")
        file.flush()
        os.fsync(file.fileno())
    made = np.array(labels, np.int32).reshape(len(labels), 1 + len(attributes))
    np.save(folder / _LABELS, made, allow_pickle=False)
    partial = folder / (_DONE + ".partial")
    kind = "uint8" if frozen is None else "float16"
    partial.write_text(json.dumps({"shape": [len(labels), *shape], "dtype": kind}), encoding="utf-8")
    partial.replace(folder / _DONE)


def _passed(frozen: Frozen, pictures: NDArray[np.uint8], spec: ImageSpec, mirror: bool) -> NDArray[np.float16]:
    pixels = torch.from_numpy(normalise(pictures, spec))
    copies = [pixels, pixels.flip(3)] if mirror else [pixels]
    with torch.no_grad():
        made = [frozen(copy).permute(0, 2, 3, 1).to("cpu", torch.float16).numpy() for copy in copies]
    return np.stack(made, axis=1)


def _batches(
    catalog: Source, splits: Sequence[Part], spec: ImageSpec, view: View, attributes: Sequence[Attribute]
) -> Iterator[list[tuple[int, NDArray[np.int32], NDArray[np.uint8]]]]:
    batch = []
    before = 0
    for split in splits:
        for number, labels, seen in labelled_pictures(catalog, split, spec, view=view, attributes=attributes):
            batch.append((before + number, labels, seen))
            if len(batch) == READ_PICTURES:
                yield batch
                batch = []
        before += catalog.info.by_split.get(split, 0)
    if batch:
        yield batch


def at_size(picture: NDArray[np.uint8], size: ImageSpec, box: Box | None = None) -> NDArray[np.uint8]:
    """A picture, or the part of it in a box, as large as `size` says; uint8 (H, W, 3) both."""
    target = (size.width_px, size.height_px)
    if box is None and target == (picture.shape[1], picture.shape[0]):
        return picture
    image = Image.fromarray(picture)
    return np.array(image.resize(target, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0), dtype=np.uint8)


def random_box(height: int, width: int, least: float, rng: np.random.Generator) -> Box:
    """A part of a picture: at least the share `least` of its area, stretched by up to a third; the most that fits.

    Source:
        Szegedy et al. 2015, "Going deeper with convolutions" (training on crops of many sizes and shapes).
    """
    share = rng.uniform(least, 1.0)
    stretch = math.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH) / 2)
    side = math.sqrt(share)
    wide, high = min(width, width * side * stretch), min(height, height * side / stretch)
    left, top = rng.uniform(0.0, width - wide), rng.uniform(0.0, height - high)
    return left, top, left + wide, top + high


def labelled_pictures(
    catalog: Source,
    split: Part,
    spec: ImageSpec,
    *,
    view: View = "fit",
    attributes: Sequence[Attribute] = (),
    every: int = 1,
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.uint8]]]:
    """The usable pictures of the labelled products of a split, in order.

    Args:
        catalog: the catalog.
        split: which part.
        spec: size of the pictures.
        view: which part of a picture is seen.
        attributes: those whose labels are wanted too, A of them, each of one value.
        every: look only at each so many-th product.

    Yields:
        (number of the product in its split, its labels as in `Inputs`, int32 (1 + A,), uint8 (H, W, 3)).
    """
    number = -1
    numbers = [{value.name: v for v, value in enumerate(attribute.values)} for attribute in attributes]
    for products in catalog.products(split):
        for product in products:
            number += 1
            if product.node_id is None or number % every:
                continue
            labels = np.full(1 + len(attributes), -1, np.int32)
            labels[0] = catalog.taxonomy.index(product.node_id)
            for a, attribute in enumerate(attributes):
                labels[1 + a] = numbers[a].get(next(iter(product.attributes.get(attribute.name, ())), ""), -1)
            for data in product.images:
                try:
                    (seen,) = views(data, [(view, spec)])
                except ImageError:
                    continue
                yield number, labels, seen
