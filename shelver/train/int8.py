"""A picture encoder in whole numbers: 8-bit weights and activations, ranges measured on pictures of the catalog.

An int8 encoder runs about twice as fast, and its vectors are not those of the fp32 one: a head is trained on the
vectors it will be asked with, and the two are never mixed.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from shelver.errors import ParityError, ShapeError
from shelver.pipeline import open_session

N_FLOAT: Final = 6
"""Convolutions that stay in fp32, from the input on: few channels, so rounding hurts them most, and little work.

In EfficientNet-Lite0 these are the stem and the first two blocks; see docs/LOG.md for what other numbers give.
"""

MIN_COSINE: Final = 0.9
"""Between the vectors of both files, on average; below it the network does not bear rounding."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """How far an int8 encoder is from the fp32 one, over the pictures that it was measured on.

    Attributes:
        n_pictures: how many.
        cosine: between the two vectors of a picture, on average.
        lowest_cosine: of the worst picture.
        difference: greatest absolute difference of a number in a vector.
    """

    n_pictures: int
    cosine: float
    lowest_cosine: float
    difference: float


def quantise(
    fp32_file: Path, out_file: Path, batches: Sequence[NDArray[np.float32]], *, n_float: int = N_FLOAT
) -> Quantised:
    """Write the int8 form of an exported picture encoder. The same input gives the same file.

    Weights are symmetric, each channel with its own scale, and keep 7 bits: processors without VNNI add two
    products of 8 bits in 16, where they would overflow. Activations keep 8 bits, over the range that they had on
    the batches, which a network's ReLU6 bounds.

    Args:
        fp32_file: takes `pixels` float32 (N, 3, H, W), gives `embedding` float32 (N, D).
        out_file: appears only when whole and near enough; may not be `fp32_file`.
        batches: some hundred pictures of the catalog, as the encoder takes them.
        n_float: the first so many convolutions stay in fp32.

    Raises:
        ShapeError: there are no pictures.
        ParityError: the vectors are too far from those of the fp32 file; nothing was written.

    Source:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
        inference"; Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference".
    """
    n_pictures = sum(len(batch) for batch in batches)
    if not n_pictures:
        raise ShapeError(
            "no pictures to measure the ranges of the int8 encoder on",
            allowed="some hundred pictures of the catalog",
            remedy="Use precision fp32, or a catalog with usable pictures.",
        )
    model = onnx.load(fp32_file)
    # The exporter's notes on shapes contradict the quantised graph.
    del model.graph.value_info[:]
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory(dir=out_file.parent, prefix=f".{out_file.name}-") as scratch:
        plain, staged = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, plain)
        with _quiet():
            quantize_static(
                plain,
                staged,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=convolutions[:n_float],
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
        found = _compared(plain, staged, batches)
        if not found.cosine >= MIN_COSINE:  # also refuses NaN
            raise ParityError(
                f"{out_file.name}: int8 and fp32 vectors have a cosine of {found.cosine:.3f}",
                allowed=f"at least {MIN_COSINE}",
                remedy="Nothing was written. This network does not bear rounding: use precision fp32.",
            )
        staged.replace(out_file)
    return found


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[NDArray[np.float32]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def _compared(fp32_file: Path, int8_file: Path, batches: Sequence[NDArray[np.float32]]) -> Quantised:
    sessions = [open_session(file, None) for file in (fp32_file, int8_file)]
    cosines, difference = [], 0.0
    for batch in batches:
        wanted, got = (session.run(None, {"pixels": batch})[0] for session in sessions)
        lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
        cosines.append((wanted * got).sum(axis=1) / np.maximum(lengths, 1e-12))
        difference = max(difference, float(np.abs(wanted - got).max(initial=0.0)))
    cosine = np.concatenate(cosines)
    return Quantised(len(cosine), float(cosine.mean()), float(cosine.min()), difference)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, on the root logger, to preprocess what is preprocessed."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
