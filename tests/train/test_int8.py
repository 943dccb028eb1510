"""An encoder in whole numbers: near the fp32 one, the same every time, and refused where it is not near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shelver.errors import ParityError, ShapeError
from shelver.pipeline import open_session
from shelver.train.int8 import N_FLOAT, quantise

WIDTH, N_CONVOLUTIONS = 24, 9


def network(path: Path, *, cancels: bool = False) -> Path:
    """Nine convolutions with ReLU6 between, pooled, as the picture encoders are built.

    `cancels` makes the last one subtract what is nearly alike: no rounded network can answer that.
    """
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "pixels"
    for layer in range(N_CONVOLUTIONS):
        kernel = rng.normal(0, 0.35, (WIDTH, 3 if layer == 0 else WIDTH, 3, 3)).astype(np.float32)
        if cancels and layer == N_CONVOLUTIONS - 1:
            kernel[:, 1::2] = -kernel[:, ::2]
        if cancels and layer == N_CONVOLUTIONS - 2:
            kernel[1::2] = kernel[::2] + rng.normal(0, 1e-4, kernel[::2].shape)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        bias = np.full(WIDTH, 0.0 if cancels and layer == N_CONVOLUTIONS - 1 else 0.2, np.float32)
        weights.append(numpy_helper.from_array(bias, f"b{layer}"))
        nodes.append(
            helper.make_node("Conv", [x, f"w{layer}", f"b{layer}"], [f"c{layer}"], f"conv{layer}", pads=[1] * 4)
        )
        nodes.append(helper.make_node("Clip", [f"c{layer}", "zero", "six"], [f"r{layer}"], f"clip{layer}"))
        x = f"c{layer}" if cancels and layer == N_CONVOLUTIONS - 1 else f"r{layer}"
    nodes.append(helper.make_node("ReduceMean", [x, "axes"], ["embedding"], "pool", keepdims=0))
    for name, value in (("zero", np.float32(0)), ("six", np.float32(6)), ("axes", np.array([2, 3]))):
        weights.append(numpy_helper.from_array(np.asarray(value), name))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def pictures(seed: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (4, 8, 3, 4, 4)).astype(np.float32)
    return list(coarse.repeat(8, axis=3).repeat(8, axis=4))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("int8")
    fp32 = network(folder / "fp32.onnx")
    quantise(fp32, folder / "int8.onnx", pictures(0))
    return fp32, folder / "int8.onnx"


def test_the_vectors_are_near_those_of_the_fp32_file_on_pictures_it_has_not_seen(files: tuple[Path, Path]) -> None:
    feed = {"pixels": pictures(1)[0]}
    wanted, got = (open_session(file, 1).run(None, feed)[0] for file in files)
    cosine = (wanted * got).sum(axis=1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.min() > 0.98
    assert not np.array_equal(wanted, got)


def test_it_says_how_near_they_are(tmp_path: Path, files: tuple[Path, Path]) -> None:
    found = quantise(files[0], tmp_path / "int8.onnx", pictures(0))
    assert found.n_pictures == 32
    assert 0.98 < found.lowest_cosine <= found.cosine <= 1 + 1e-6
    assert 0 < found.difference < 6


def test_the_same_pictures_give_the_same_file_anywhere(tmp_path: Path, files: tuple[Path, Path]) -> None:
    quantise(files[0], tmp_path / "again.onnx", pictures(0))
    assert (tmp_path / "again.onnx").read_bytes() == files[1].read_bytes()
    assert str(tmp_path).encode() not in files[1].read_bytes()
    assert str(files[1].parent).encode() not in files[1].read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.onnx"]


def test_weights_have_seven_bits_and_a_scale_for_each_channel_but_the_first_layers_stay(
    files: tuple[Path, Path],
) -> None:
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(files[1]).graph.initializer}
    assert [arrays[f"w{layer}"].dtype for layer in range(N_FLOAT)] == [np.float32] * N_FLOAT
    for layer in range(N_FLOAT, N_CONVOLUTIONS):
        quantised = arrays[f"w{layer}_quantized"]
        assert quantised.dtype == np.int8
        # Two products of 64 and 255 fit into 16 bits; of 127 and 255 they would not.
        assert 32 < np.abs(quantised.astype(np.int32)).max() <= 64
        assert arrays[f"w{layer}_scale"].shape == (WIDTH,)
        assert (arrays[f"w{layer}_zero_point"] == 0).all()


def test_all_layers_can_be_rounded(tmp_path: Path, files: tuple[Path, Path]) -> None:
    quantise(files[0], tmp_path / "all.onnx", pictures(0), n_float=0)
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(tmp_path / "all.onnx").graph.initializer}
    assert arrays["w0_quantized"].dtype == np.int8


def test_a_network_that_does_not_bear_rounding_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    fp32 = network(tmp_path / "fp32.onnx", cancels=True)
    with pytest.raises(ParityError, match="precision fp32"):
        quantise(fp32, tmp_path / "int8.onnx", pictures(0))
    assert [file.name for file in tmp_path.iterdir()] == ["fp32.onnx"]


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3, 32, 32), np.float32)]])
def test_no_pictures_are_an_error_that_says_so(
    tmp_path: Path, files: tuple[Path, Path], batches: list[NDArray[np.float32]]
) -> None:
    with pytest.raises(ShapeError, match="no pictures"):
        quantise(files[0], tmp_path / "int8.onnx", batches)
