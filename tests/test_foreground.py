"""Where the product is: found before backgrounds of several kinds, and left alone where there is no telling."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks.drawn import KINDS, draw
from benchmarks.views import overlap
from shelver.foreground import codes, lab, lab_table, otsu, pieces, product_box, standing_out

RED, WHITE, GREEN = (200, 30, 40), (255, 255, 255), (30, 140, 60)


def picture(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (120, 160)) -> Image.Image:
    image = Image.new("RGB", size, WHITE)
    for box in boxes:
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=RED)
    return image


def test_a_product_before_one_colour_is_found_to_within_two_pixels_of_its_thumbnail() -> None:
    found = product_box(picture((30, 40, 90, 100)))
    assert found is not None
    # 160 pixels are 64 of the thumbnail.
    np.testing.assert_allclose(found, (30, 40, 90, 100), atol=2 * 160 / 64)


def test_a_margin_is_a_share_of_the_box_and_ends_with_the_picture() -> None:
    image = picture((0, 40, 60, 100))
    bare, wide = product_box(image), product_box(image, margin=0.2)
    assert bare is not None
    assert wide is not None
    assert wide[0] == 0
    np.testing.assert_allclose(wide[1:], (40 - 12, 60 + 12, 100 + 12), atol=8)
    assert bare[2] < wide[2]


def test_both_shoes_are_the_product_and_a_speck_is_not() -> None:
    both = product_box(picture((20, 60, 50, 100), (70, 60, 100, 100)))
    alone = product_box(picture((20, 60, 50, 100), (110, 4, 116, 10)))
    assert both is not None
    assert alone is not None
    np.testing.assert_allclose(both, (20, 60, 100, 100), atol=5)
    np.testing.assert_allclose(alone, (20, 60, 50, 100), atol=5)


def test_where_there_is_no_telling_there_is_no_box() -> None:
    assert product_box(Image.new("RGB", (90, 60), GREEN)) is None
    assert product_box(Image.new("RGB", (1, 900), GREEN)) is None
    assert product_box(Image.new("RGB", (1, 1), GREEN)) is None
    assert product_box(picture((2, 2, 118, 158))) is None, "all of the picture"
    shade = np.linspace(40, 220, 120).astype(np.uint8)
    ramp = np.broadcast_to(shade[None, :, None], (90, 120, 3))
    assert product_box(Image.fromarray(np.ascontiguousarray(ramp))) is None, "a gradient is background"


def test_a_box_lies_within_its_picture_whatever_the_picture_is() -> None:
    rng = np.random.default_rng(0)
    for size in ((8, 8), (9, 200), (333, 50), (64, 64), (500, 401)):
        for _ in range(5):
            coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8))
            found = product_box(coarse.resize(size), margin=0.3)
            if found is not None:
                assert 0 <= found[0] < found[2] <= size[0]
                assert 0 <= found[1] < found[3] <= size[1]


@pytest.mark.parametrize(("kind", "least"), list(zip(KINDS, (0.8, 0.7, 0.75, 0.5), strict=True)))
def test_drawn_products_are_mostly_found(kind: str, least: float) -> None:
    (known,) = (one for one in KINDS if one == kind)
    drawn = [draw(500 + number, known) for number in range(40)]
    overlaps = [overlap(product_box(image) or (0, 0, *image.size), place) for image, place in drawn]
    whole = [overlap((0, 0, *image.size), place) for image, place in drawn]
    assert np.mean(overlaps) > least
    assert np.mean(overlaps) > 2 * np.mean(whole)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
def test_pieces_are_those_of_scipy(share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    for shape in ((40, 56), (1, 30), (30, 1), (17, 17)):
        mask = rng.random(shape) < share
        found, expected = pieces(mask), ndimage.label(mask, np.ones((3, 3)))[0]
        assert ((found > 0) == mask).all()
        pairs = set(zip(found[mask].tolist(), expected[mask].tolist(), strict=True))
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def test_the_threshold_parts_two_groups_as_trying_every_one_does() -> None:
    rng = np.random.default_rng(3)
    values = np.abs(np.concatenate([rng.normal(3, 1, 900), rng.normal(20, 4, 300)])).astype(np.float32)
    tried = np.linspace(0.5, float(values.max()) - 0.5, 400)
    spread = [
        np.mean(values < at)
        * np.mean(values >= at)
        * (values[values < at].mean() - values[values >= at].mean()) ** 2
        for at in tried
    ]
    assert otsu(values) == pytest.approx(tried[int(np.argmax(spread))], abs=1.5)


def test_nothing_stands_out_of_one_colour_and_what_does_by_its_distance() -> None:
    plain = np.full((20, 30, 3), (50, 0, 0), np.float32)
    np.testing.assert_allclose(standing_out(plain), 0, atol=1e-3)
    plain[8:13, 10:20] = (80, 0, 40)
    assert standing_out(plain)[10, 15] == pytest.approx(50, abs=0.1)


def test_lab_of_the_primaries_is_as_published_and_the_table_agrees() -> None:
    rgb = np.array([(255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0)])
    expected = [(100, 0, 0), (53.2, 80.1, 67.2), (32.3, 79.2, -107.9), (0, 0, 0)]
    np.testing.assert_allclose(lab(rgb.astype(np.float64)), expected, atol=0.1)
    np.testing.assert_allclose(lab_table(6)[codes(rgb.astype(np.uint8), 6)], expected, atol=2)
