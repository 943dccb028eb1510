"""Pictures to embeddings: parts side by side, each as if it stood alone, and colours told without a network."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from shelver.images import ImageSpec, View, pixels
from shelver.pipeline import COLOUR_ID, COLOUR_WIDTH, Image2Emb, Picture, Prepared, colours, pooled
from shelver.pipeline.colour import GRID, N_BINS
from shelver.registry import ImagePart, ImageStage, part_file

SPEC = ImageSpec(height_px=64, width_px=96, mean=(0, 0, 0), scale=(1, 2, 4), background=(9, 8, 7))
SMALL = ImageSpec(height_px=32, width_px=32, mean=(0, 0, 0), scale=(1, 2, 4), background=(9, 8, 7))
RED, BLUE, GREY = (200, 30, 40), (20, 40, 210), (128, 128, 128)


def network(path: Path, width: int) -> None:
    """An ONNX file that averages a picture and multiplies by 1, 2 and so on: enough to tell parts apart."""
    gains = np.arange(1, width + 1, dtype=np.float32)[None] * np.ones((3, 1), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "gains"], ["embedding"]),
        ],
        "mean",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(gains, "gains"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def part(number: int, spec: ImageSpec = SPEC, view: View = "fit", width: int = 3) -> ImagePart:
    file = part_file("image2emb", number)
    return ImagePart(encoder="lite0", source=f"test-{number}", spec=spec, view=view, file=file, width=width)


COLOUR = ImagePart(encoder="colour", source=COLOUR_ID, spec=SPEC, file=None, width=COLOUR_WIDTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts")
    for number, width in enumerate((3, 3, 5)):
        network(path / part_file("image2emb", number), width)
    return path


def opened(folder: Path, *parts: ImagePart) -> Image2Emb:
    return Image2Emb.open(folder, ImageStage(parts=parts), threads=1)


def photo(seed: int, size: tuple[int, int] = (120, 90), kind: str = "JPEG") -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    file = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def prepared(image2emb: Image2Emb, data: bytes) -> Prepared:
    made = image2emb.prepare(data)
    assert isinstance(made, Prepared), made
    return made


def test_one_part_sees_the_pixels_of_the_one_picture_path(folder: Path) -> None:
    image2emb = opened(folder, part(0))
    pictures = [Image.open(io.BytesIO(photo(seed))) for seed in range(19)]
    expected = pixels(pictures, SPEC).mean(axis=(2, 3)).sum(axis=1, keepdims=True) * np.arange(1, 4)
    np.testing.assert_allclose(image2emb.pictures(pictures), expected, rtol=1e-5)


def test_a_prepared_picture_gives_the_very_floats_of_the_decoded_one(folder: Path) -> None:
    image2emb = opened(folder, part(0), part(1, view="crop"), part(2, view="box", width=5), COLOUR)
    data = [photo(seed) for seed in range(3)]
    decoded = image2emb([[Image.open(io.BytesIO(d)) for d in data], []])
    ready = image2emb.embed_prepared([[prepared(image2emb, d) for d in data], []])
    assert ready.values.tobytes() == decoded.values.tobytes()
    assert ready.present.tolist() == [True, False]
    assert (ready.values[1] == 0).all()
    mixed: list[Picture] = [prepared(image2emb, data[0]), Image.open(io.BytesIO(data[1]))]
    assert (
        image2emb.pictures(mixed).tobytes()
        == image2emb.pictures([prepared(image2emb, d) for d in data[:2]]).tobytes()
    )


@pytest.mark.parametrize("size", [(120, 90), (1_400, 500), (700, 2_100)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_parts_stand_side_by_side_each_as_if_alone(folder: Path, size: tuple[int, int], kind: str) -> None:
    parts = (part(0), part(1, SMALL, "crop"), part(2, SMALL, "box", width=5), COLOUR)
    together = opened(folder, *parts)
    assert together.width == 3 + 3 + 5 + COLOUR_WIDTH
    data = [photo(seed, size, kind) for seed in range(2)]
    values = together.embed_prepared([[prepared(together, d)] for d in data]).values
    start = 0
    for one in parts:
        alone = opened(folder, one)
        expected = alone.embed_prepared([[prepared(alone, d)] for d in data]).values
        np.testing.assert_array_equal(values[:, start : start + one.width], expected)
        start += one.width


def test_parts_that_look_alike_share_one_look(folder: Path) -> None:
    other_scale = SPEC.model_copy(update={"mean": (5.0, 5.0, 5.0)})
    image2emb = opened(folder, part(0), part(1, other_scale), COLOUR, part(2, SPEC, "crop", width=5))
    assert [view for view, _ in image2emb.looks] == ["fit", "crop"]
    assert len(prepared(image2emb, photo(1)).looks) == 2


def test_a_picture_that_cannot_be_used_is_a_code(folder: Path) -> None:
    image2emb = opened(folder, part(0), COLOUR)
    assert image2emb.prepare(b"") == "image_empty"
    assert image2emb.prepare(b"<html>") == "image_format"
    assert image2emb.prepare(photo(1)[:400]) == "image_truncated"


def test_no_pictures_give_rows_that_are_not_present(folder: Path) -> None:
    image2emb = opened(folder, part(0), COLOUR)
    assert image2emb([]).values.shape == (0, image2emb.width)
    assert image2emb([[], []]).present.tolist() == [False, False]


def test_several_pictures_of_a_product_are_averaged_in_any_number(folder: Path) -> None:
    image2emb = opened(folder, part(0), COLOUR)
    pictures = [prepared(image2emb, photo(seed)) for seed in range(20)]
    alone = image2emb.pictures(pictures)
    together = image2emb([pictures[:1], pictures[1:3], [], pictures[3:]])
    expected = np.stack([alone[0], alone[1:3].mean(axis=0), np.zeros(image2emb.width), alone[3:].mean(axis=0)])
    np.testing.assert_allclose(together.values, expected, rtol=1e-5, atol=1e-5)


def test_pooling_is_a_mean_and_absent_rows_are_zero() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    result = pooled(values, np.array([0, 2, 1, 0, 3]))
    assert result.present.tolist() == [False, True, True, False, True]
    assert result.values.tolist() == [[0, 0], [1, 2], [4, 5], [0, 0], [8, 9]]
    assert pooled(np.zeros((0, 2), np.float32), np.zeros(3, np.intp)).present.tolist() == [False] * 3


def shown(
    product: tuple[int, int, int], background: tuple[int, int, int] = (255, 255, 255), *, size: int = 30
) -> NDArray[np.uint8]:
    """A square of one colour on a ground of another, shape (1, 64, 96, 3)."""
    image = Image.new("RGB", (96, 64), background)
    ImageDraw.Draw(image).rectangle((48 - size // 2, 32 - size // 2, 48 + size // 2, 32 + size // 2), fill=product)
    return np.asarray(image)[None]


def histogram(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of all the product."""
    return np.square(colours(pictures)[0, :N_BINS])


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of two pictures' histograms, from 0 to 1."""
    return float(np.sqrt(histogram(a) * histogram(b)).sum())


def test_the_histogram_is_of_the_product_not_of_its_background() -> None:
    assert likeness(shown(RED), shown(RED, (20, 20, 20))) > 0.8
    assert likeness(shown(RED), shown(RED, size=50)) > 0.95
    assert likeness(shown(RED), shown(BLUE)) < 0.2
    assert likeness(shown(RED), shown(GREY)) < 0.2


def test_like_colours_have_like_histograms() -> None:
    shades = [shown((200 - 6 * i, 30 + 8 * i, 40)) for i in range(8)]
    along = [likeness(shades[0], shade) for shade in shades]
    assert along == sorted(along, reverse=True)
    assert along[1] > 0.95


def test_a_margin_at_two_sides_is_background_like_the_edge_at_the_others() -> None:
    plain = shown(RED, (20, 20, 20))
    margins = plain.copy()
    margins[:, :, :20] = margins[:, :, -20:] = 255
    assert likeness(plain, margins) > 0.95


def test_a_picture_that_is_all_product_is_counted_whole() -> None:
    full = np.full((1, 64, 96, 3), RED, np.uint8)
    assert likeness(full, shown(RED)) > 0.75
    assert histogram(full).sum() == pytest.approx(1)


def test_a_white_product_before_white_is_told_by_its_outline() -> None:
    white = shown((255, 255, 255))
    image = Image.fromarray(white[0])
    ImageDraw.Draw(image).rectangle((30, 14, 66, 50), outline=RED, width=3)
    outlined = histogram(np.asarray(image)[None])
    bright = colours(np.full((1, 64, 96, 3), 255, np.uint8))[0, :N_BINS] > 0
    # The outline is a third of its square; without filling, white would be left to what counts of all pixels.
    assert outlined[bright].sum() > 0.5


def test_the_middle_and_the_grid_tell_where_a_colour_is() -> None:
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((20, 4, 43, 33), fill=RED)
    ImageDraw.Draw(image).rectangle((20, 34, 43, 59), fill=BLUE)
    upright, turned = (
        colours(np.asarray(one)[None])[0] for one in (image, image.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    )
    start, end = 2 * N_BINS, 2 * N_BINS + 4 * GRID[0] * GRID[1]
    np.testing.assert_allclose(upright[:N_BINS], turned[:N_BINS], atol=0.02)
    cells, other = (of[start:end].reshape(*GRID, 4) for of in (upright, turned))
    np.testing.assert_allclose(cells[::-1], other, atol=0.08)
    b = cells[:, GRID[1] // 2, 2]
    assert b[0] > 0.2, "red above"
    assert b[-1] < -0.5, "blue below"
    assert (cells[..., 3].max(), cells[0, 0, 3]) == (pytest.approx(1, abs=0.05), pytest.approx(1, abs=0.2))


def test_the_middle_of_the_product_has_a_histogram_of_its_own() -> None:
    image = Image.new("RGB", (64, 64), (255, 255, 255))
    ImageDraw.Draw(image).rectangle((8, 8, 55, 55), fill=BLUE)
    ImageDraw.Draw(image).rectangle((24, 24, 39, 39), fill=RED)
    found = np.square(colours(np.asarray(image)[None])[0])
    red = colours(np.full((1, 64, 64, 3), RED, np.uint8))[0, :N_BINS] > 0
    assert found[N_BINS : 2 * N_BINS][red].sum() > 2 * found[:N_BINS][red].sum() > 0


def test_pictures_are_told_alike_alone_and_together() -> None:
    rng = np.random.default_rng(1)
    many = rng.integers(0, 256, (70, 8, 8, 3)).astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    together = colours(many)
    np.testing.assert_allclose(np.concatenate([colours(one[None]) for one in many]), together, atol=1e-5)


def test_colour_features_of_any_size_are_finite_and_bounded() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((32, 32), (64, 96), (224, 160), (32, 2_048)):
        found = colours(rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8))
        assert found.shape == (2, COLOUR_WIDTH)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert np.abs(found).max() < 2
    assert colours(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, COLOUR_WIDTH)


def test_colours_hardly_change_with_the_size_of_the_picture() -> None:
    large = Image.open(io.BytesIO(photo(5, (384, 256), "PNG")))
    sizes = [
        np.asarray(large.resize(size, Image.Resampling.BOX))[None] for size in ((384, 256), (192, 128), (96, 64))
    ]
    assert likeness(sizes[0], sizes[2]) > 0.98
    assert likeness(sizes[0], sizes[1]) > 0.98


def test_lab_is_that_of_the_standard() -> None:
    # White, and the primaries of sRGB, as published with the standard.
    for colour, (lightness, a, b) in (
        ((255, 255, 255), (100, 0, 0)),
        ((255, 0, 0), (53.2, 80.1, 67.2)),
        ((0, 0, 255), (32.3, 79.2, -107.9)),
    ):
        found = colours(np.full((1, 32, 32, 3), colour, np.uint8))[0, -6:-3] * 100
        np.testing.assert_allclose(found, (lightness, a, b), atol=3)
