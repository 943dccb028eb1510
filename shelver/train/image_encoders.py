"""Picture encoders by name, each exported as one part of a model's picture stage."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shelver.errors import ConfigError, ImageError
from shelver.images import ImageSpec, View, normalise, views
from shelver.pipeline import COLOUR_ID, COLOUR_WIDTH
from shelver.registry import ImagePart, part_file
from shelver.train.export import PARITY_TOLERANCE, Inputs, export
from shelver.train.hf_image import PublishedEncoder, load_hf_image, load_timm
from shelver.train.int8 import quantise
from shelver.train.lite0 import LITE0_ID, MEAN, SCALE, WIDTH, load_lite0

CALIBRATION_PICTURES: Final = 256
"""Pictures that the ranges of an int8 encoder are measured on."""

_BATCH: Final = 16


def export_image_part(
    encoder: str,
    spec: ImageSpec,
    folder: Path,
    number: int,
    *,
    view: View = "fit",
    precision: Literal["fp32", "int8"] = "fp32",
    model: nn.Module | None = None,
    calibration: NDArray[np.uint8] | None = None,
    parity: MutableMapping[str, float] | None = None,
) -> ImagePart:
    """Write a picture encoder into a folder, after proving that the file answers as torch does.

    Args:
        encoder: "lite0", "colour", "hf:NAME" or "timm:NAME".
        spec: the size that the encoder sees. Mean and scale are replaced by the encoder's own.
        folder: gets `part_file("image2emb", number)`; "colour" has no file.
        number: of the part in its stage.
        view: which part of a picture the encoder sees.
        precision: "int8" is faster, and needs `calibration`.
        model: the encoder after fine-tuning; None takes the published one.
        calibration: pictures of the catalog to measure ranges on, uint8 (n, H, W, 3); see `calibration_pictures`.
        parity: is told the greatest absolute difference to torch under the file's name; of an int8 file that to
            the fp32 one, over the calibration pictures.

    Returns:
        What the manifest says about the part.

    Raises:
        MissingExtraError: the encoder's package is not installed.
        ConfigError: there is no such encoder, its weights cannot be had, or int8 was asked for without pictures.
        ModelError: the installed weights are not the published ones.
        ParityError: the file's answers are too far from torch's.
    """
    if encoder == "colour":
        return ImagePart(encoder=encoder, source=COLOUR_ID, view=view, spec=spec, file=None, width=COLOUR_WIDTH)
    made = _encoder(encoder, spec, model)
    part = ImagePart(
        encoder=encoder,
        source=made.source,
        view=view,
        spec=made.spec,
        precision=precision,
        file=part_file("image2emb", number),
        width=made.width,
    )
    assert part.file is not None
    path = folder / part.file
    if precision == "fp32":
        difference = _export(made.module, path, part.spec)
    else:
        if calibration is None or not len(calibration):
            raise ConfigError(
                f"precision int8 for the picture encoder `{encoder}`, but no pictures to measure its ranges on",
                allowed="int8 with a catalog that has pictures, or fp32",
                remedy="Use precision fp32.",
            )
        batches = [
            normalise(calibration[start : start + _BATCH], part.spec)
            for start in range(0, len(calibration), _BATCH)
        ]
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{part.file}-") as scratch:
            plain = Path(scratch) / "fp32.onnx"
            _export(made.module, plain, part.spec)
            difference = quantise(plain, path, batches).difference
    if parity is not None:
        parity[part.file] = difference
    return part


def calibration_pictures(data: Sequence[bytes], view: View, spec: ImageSpec) -> NDArray[np.uint8]:
    """The first usable pictures, `CALIBRATION_PICTURES` at most, as an encoder sees them: uint8 (n, H, W, 3)."""
    seen: list[NDArray[np.uint8]] = []
    for encoded in data:
        if len(seen) == CALIBRATION_PICTURES:
            break
        try:
            seen += views(encoded, [(view, spec)])
        except ImageError:
            continue
    return np.stack(seen) if seen else np.zeros((0, spec.height_px, spec.width_px, 3), np.uint8)


def _encoder(encoder: str, spec: ImageSpec, model: nn.Module | None) -> PublishedEncoder:
    if encoder == "lite0":
        scaled = spec.model_copy(update={"mean": (MEAN,) * 3, "scale": (SCALE,) * 3})
        # The published weights are not looked for where others take their place.
        made = PublishedEncoder(load_lite0() if model is None else model, LITE0_ID, scaled, WIDTH)
    elif encoder.startswith("hf:"):
        made = load_hf_image(encoder, spec)
    elif encoder.startswith("timm:"):
        made = load_timm(encoder, spec)
    else:
        raise ConfigError(
            f"the picture encoder `{encoder}`",
            allowed="lite0, colour, hf:NAME or timm:NAME",
            remedy="Name one of these.",
        )
    return made if model is None else replace(made, module=model, source=f"tuned-{fingerprint(model)}")


def _export(module: nn.Module, path: Path, spec: ImageSpec) -> float:
    probes = _probes(spec)
    with torch.inference_mode():
        largest = float(module(torch.from_numpy(probes[0]["pixels"])).abs().max())
    return export(
        module,
        path,
        probes,
        output="embedding",
        dynamic={"pixels": {0: "batch"}},
        # Rounding grows with the numbers; some encoders give vectors with entries of 20.
        tolerance=PARITY_TOLERANCE * max(1.0, largest),
    )


def _probes(spec: ImageSpec) -> list[Inputs]:
    """Batches of several sizes: noise over the whole range, shapes with hard edges, and one colour."""
    height, width = spec.height_px, spec.width_px
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, height, width, 3))
    rows, columns = np.mgrid[0:height, 0:width]
    drawn = np.full((2, height, width, 3), 255)
    drawn[0, np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 3] = (200, 30, 60)
    drawn[1, (rows // 8 + columns // 8) % 2 == 0] = (10, 90, 160)
    plain = np.full((1, height, width, 3), 127)
    return [{"pixels": normalise(batch.astype(np.uint8), spec)} for batch in (noise, drawn, plain)]


def fingerprint(module: nn.Module) -> str:
    """Twelve hex digits over the weights of a module."""
    digest = hashlib.sha256()
    state: dict[str, Any] = module.state_dict()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
