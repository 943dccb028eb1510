"""EfficientNet-Lite0 taken apart for fine-tuning: a part that stays frozen, a part that learns, a linear head."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.train.lite0 import WIDTH, Block, Lite0, SameConv

N_BLOCKS: Final = 16
CACHED_PX: Final = 100_000
"""Pixels that pass the wide first layers together: their activations stay in a core's cache."""


class Network(nn.Module):
    """An encoder and the head that it is tuned with.

    Attributes:
        encoder: its stem and first blocks are frozen, the rest learns.
        head: scores from standardised features.

    Args:
        encoder: taken over, not copied.
        n_scores: M.
        n_frozen: blocks that stay as they are, beside the stem.
        dropout: share of features hidden from the head in training.
        drop_path: share of pictures that skip the last residual block in training; of earlier ones less.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, encoder: Lite0, n_scores: int, *, n_frozen: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(WIDTH, n_scores)
        self.drop = nn.Dropout(dropout)
        self.n_frozen = n_frozen
        self.drop_path = drop_path
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH))
        encoder.requires_grad_(True)
        encoder.stem.requires_grad_(False)
        encoder.blocks[:n_frozen].requires_grad_(False)

    def frozen(self, pixels: Tensor) -> Tensor:
        """What never changes: (N, 3, H, W) → (N, D, h, w). Sides need not be multiples of 32."""
        few = max(1, CACHED_PX // (pixels.shape[2] * pixels.shape[3]))
        if pixels.device.type != "cpu":
            few = max(len(pixels), 1)
        parts = []
        with torch.no_grad():
            for part in torch.split(pixels.contiguous(memory_format=torch.channels_last), few):
                x = F.relu6(self.encoder.stem(part))
                for block in self.encoder.blocks[: self.n_frozen]:
                    x = block(x)
                parts.append(x)
        return torch.cat(parts)

    def features(self, x: Tensor) -> Tensor:
        """What learns: (N, D, h, w) → (N, 1280), the same as `encoder` gives from the pixels."""
        for i in range(self.n_frozen, N_BLOCKS):
            block = self.encoder.blocks[i]
            assert isinstance(block, Block)
            y = _residue(block, x)
            if not block.residual:
                x = y
                continue
            rate = self.drop_path * i / (N_BLOCKS - 1)
            if self.training and rate:
                kept = torch.rand(len(y), 1, 1, 1, device=y.device) >= rate
                y = y * (kept / (1.0 - rate))
            x = x + y
        return F.relu6(self.encoder.head(x)).mean(dim=(2, 3))

    def scores(self, features: Tensor) -> Tensor:
        """(N, 1280) → (N, M)."""
        out: Tensor = self.head(self.drop((features - self.mean) * self.scale))
        return out


def _residue(block: Block, x: Tensor) -> Tensor:
    """What the block would add to its input."""
    y = x if block.expand is None else F.relu6(block.expand(x))
    return block.project(F.relu6(_depthwise(block.depthwise, y)))  # type: ignore[no-any-return]


def _depthwise(conv: SameConv, x: Tensor) -> Tensor:
    if conv.kernel_size != (5, 5) or x.device.type != "cpu" or not torch.is_grad_enabled():
        out: Tensor = conv(x)
        return out
    padding = 2
    if conv.lopsided is not None:
        x, padding = F.pad(x, conv.lopsided), 0
    tensor: Tensor = _Depthwise5.apply(x, conv.weight, conv.bias, conv.stride[0], padding)  # type: ignore[no-untyped-call]
    return tensor


class _Depthwise5(torch.autograd.Function):
    """A depthwise 5x5 convolution; the gradient of its weights is put together from four of 3x3.

    On CPUs oneDNN has fast code for the weights' gradient of a depthwise 3x3 convolution and none for 5x5: a
    twentieth of the arithmetic took a third of the time of a step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = gradients
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = _gradient(out, x, weight, ctx.stride, ctx.padding, (True, False))
        # As (N, H, W, C): slices of the other view are copied many times slower.
        wide = (F.pad(x, (ctx.padding,) * 4) if ctx.padding else x).permute(0, 2, 3, 1)
        rows, columns = (ctx.stride * (n - 1) + 3 for n in out.shape[2:])
        to_weight = torch.empty_like(weight)
        part = weight[:, :, :3, :3]
        for top in (0, 2):
            for left in (0, 2):
                seen = wide[:, top : top + rows, left : left + columns].contiguous().permute(0, 3, 1, 2)
                found = _gradient(out, seen, part, ctx.stride, 0, (False, True))
                to_weight[:, :, top : top + 3, left : left + 3] = found
        return to_x, to_weight, out.sum((0, 2, 3)), None, None


def _gradient(
    out: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> Tensor:
    """Gradient of a depthwise convolution's input, or of its weights."""
    found = torch.ops.aten.convolution_backward(
        out,
        x,
        weight,
        None,
        [stride, stride],
        [padding, padding],
        [1, 1],
        False,
        [0, 0],
        len(weight),
        [*wanted, False],
    )
    gradient: Tensor = found[0] if wanted[0] else found[1]
    return gradient
