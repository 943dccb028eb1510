"""The one picture path: every kind of honest picture, and a code for every kind of bad one."""

from __future__ import annotations

import hashlib
import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from shelver.errors import ImageError
from shelver.images import (
    IMAGE_CODES,
    MAX_BYTES,
    ImageFormat,
    ImageSpec,
    View,
    box,
    content_hash,
    crop,
    decode,
    fit,
    look,
    normalise,
    pixels,
    sniff,
    views,
)

RED, BLUE, WHITE = (200, 30, 40), (20, 40, 210), (255, 255, 255)
FORMATS: tuple[ImageFormat, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    ImageDraw.Draw(image).rectangle((width // 2, 0, width, height), fill=BLUE)
    return image


def colour_at(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def assert_close(found: tuple[int, ...], expected: tuple[int, ...], within: int = 14) -> None:
    assert all(abs(a - b) <= within for a, b in zip(found, expected, strict=True)), (found, expected)


def code_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code in IMAGE_CODES
    return caught.value.code


def png_that_promises(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_bytes_and_decoded_as_rgb(kind: ImageFormat) -> None:
    data = encoded(halves(), kind)
    assert sniff(data) == kind
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    assert_close(colour_at(image, 5, 10), RED)
    assert_close(colour_at(image, 35, 10), BLUE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"<html>404</html>",
        b"%PDF-1.7",
        b"BMW 320d brake pads, new",
        b"RIFF\0\0\0\0WAVE",
        bytes(64),
    ],
)
def test_what_is_no_picture_has_no_format(data: bytes) -> None:
    assert sniff(data) is None
    assert code_of(data) == ("image_format" if data else "image_empty")


def test_tiff_is_refused_as_a_format() -> None:
    assert code_of(encoded(halves(), "TIFF")) == "image_format"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_picture_says_so(kind: ImageFormat) -> None:
    noise = Image.effect_noise((200, 160), 60).convert("RGB")
    data = encoded(noise, kind)
    assert code_of(data[: len(data) // 2]) == "image_truncated"


def test_damage_inside_a_picture_has_a_code_of_its_own() -> None:
    data = bytearray(encoded(halves(), "PNG"))
    at = data.index(b"IDAT") + 6
    data[at : at + 8] = b"\xff" * 8
    assert code_of(bytes(data)) == "image_broken"


def test_more_bytes_than_allowed_are_not_looked_at() -> None:
    assert code_of(encoded(halves(), "JPEG") + bytes(MAX_BYTES)) == "image_too_many_bytes"


@pytest.mark.parametrize("size", [(9_700, 9_700), (65_000, 65_000), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_promises_too_many_pixels_is_refused_at_once(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    assert code_of(png_that_promises(*size)) == "image_too_large"
    assert time.perf_counter() - start < 2


def test_a_jpeg_of_93_megapixels_is_decoded_smaller_and_fast() -> None:
    data = encoded(Image.new("RGB", (10_333, 9_000), RED), "JPEG")
    start = time.perf_counter()
    image = decode(data, target_px=(224, 224))
    assert time.perf_counter() - start < 2
    assert image.size == (1_292, 1_125)
    assert_close(colour_at(image, 500, 500), RED)
    assert decode(data).size == (5_167, 4_500)


def test_a_progressive_jpeg_of_93_megapixels_is_refused_because_it_would_fill_the_memory() -> None:
    assert code_of(encoded(Image.new("L", (10_333, 9_000)), "JPEG", progressive=True)) == "image_too_large"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = encoded(Image.new("RGB", (1_500, 1_500)), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    assert code_of(data[:at] + data[at:-2] * 1_000 + data[-2:]) == "image_too_large"


def test_a_target_makes_a_jpeg_smaller_but_at_least_twice_the_box() -> None:
    image = decode(encoded(halves(1_600, 1_200), "JPEG"), target_px=(224, 224))
    assert image.size == (800, 600)
    assert decode(encoded(halves(400, 300), "JPEG"), target_px=(224, 224)).size == (400, 300)
    assert decode(encoded(halves(1_600, 1_200), "PNG"), target_px=(224, 224)).size == (1_600, 1_200)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in (RED, BLUE, WHITE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert_close(colour_at(decode(data), 16, 12), RED)


def test_16_bit_grey_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    image = decode(encoded(Image.fromarray(ramp), "PNG"))
    assert colour_at(image, 0, 0) == (0, 0, 0)
    assert_close(colour_at(image, 128, 2), (128, 128, 128), within=1)
    assert colour_at(image, 255, 3) == (255, 255, 255)


def test_cmyk_is_read_as_adobe_writes_it_only_where_adobe_signed() -> None:
    data = encoded(halves().convert("CMYK"), "JPEG")
    assert_close(colour_at(decode(data), 5, 10), RED)
    at = data.index(b"\xff\xee")
    unsigned = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    signed_colour, colour = colour_at(decode(data), 35, 10), colour_at(decode(unsigned), 35, 10)
    assert_close(signed_colour, BLUE)
    assert max(abs(a - b) for a, b in zip(signed_colour, colour, strict=True)) > 60


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16", "RGB"])
def test_every_mode_of_png_becomes_rgb(mode: str) -> None:
    image = Image.new("I;16", (8, 6), 30_000) if mode == "I;16" else halves(8, 6).convert(mode)
    assert (decode(encoded(image, "PNG")).mode, decode(encoded(image, "PNG")).size) == ("RGB", (8, 6))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_the_background_shows_through_transparency(mode: str) -> None:
    if mode in ("RGBA", "LA"):
        image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
        ImageDraw.Draw(image).rectangle((0, 0, 9, 19), fill=(90, 90, 90, 255))
        data = encoded(image.convert(mode), "PNG")
    else:
        image = Image.new(mode, (20, 20), (0, 0, 0) if mode == "RGB" else 0)
        ImageDraw.Draw(image).rectangle((0, 0, 9, 19), fill=(90, 90, 90) if mode == "RGB" else 90)
        data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    image = decode(data, background=(10, 250, 20))
    assert colour_at(image, 15, 10) == (10, 250, 20)
    assert colour_at(image, 5, 10) != (10, 250, 20)
    assert colour_at(decode(data), 15, 10) == WHITE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_way_the_camera_was_held(orientation: int) -> None:
    upright = halves(60, 30)
    ImageDraw.Draw(upright).rectangle((0, 0, 10, 10), fill=WHITE)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, "JPEG", exif=exif, quality=95))
    assert image.size == (60, 30)
    assert_close(colour_at(image, 4, 4), WHITE)
    assert_close(colour_at(image, 4, 26), RED)
    assert_close(colour_at(image, 55, 15), BLUE)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_camera_data_leaves_the_picture() -> None:
    data = encoded(halves(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    assert decode(data).size == (40, 20)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 500), (223, 225)])
def test_odd_sizes_fit(size: tuple[int, int]) -> None:
    image = decode(encoded(Image.new("RGB", size, RED), "PNG"))
    fitted = fit(image, ImageSpec())
    assert fitted.shape == (224, 224, 3)
    assert fitted.dtype == np.uint8
    assert_close(tuple(int(part) for part in fitted[111, 111]), RED)


def test_the_whole_picture_is_fitted_centred_and_padded() -> None:
    spec = ImageSpec(height_px=64, width_px=128, background=(9, 8, 7))
    fitted = fit(Image.new("RGB", (300, 300), RED), spec)
    assert fitted.shape == (64, 128, 3)
    assert (fitted[:, :32] == (9, 8, 7)).all()
    assert (fitted[:, 96:] == (9, 8, 7)).all()
    assert (fitted[:, 32:96] == RED).all()
    wide = fit(halves(400, 100), spec)
    assert (wide[:16] == (9, 8, 7)).all()
    assert (wide[48:] == (9, 8, 7)).all()
    assert tuple(wide[32, 5]) == RED
    assert tuple(wide[32, 122]) == BLUE


def test_fit_takes_pictures_of_any_mode() -> None:
    transparent = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert (fit(transparent, ImageSpec(background=(1, 2, 3))) == (1, 2, 3)).all()


def test_pixels_are_normalised_channels_first_and_contiguous() -> None:
    spec = ImageSpec(height_px=32, width_px=64, mean=(127, 100, 0), scale=(128, 50, 255))
    images = [Image.new("RGB", (64, 32), RED), halves(64, 32)]
    values = pixels(images, spec)
    assert values.shape == (2, 3, 32, 64)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    expected = (np.asarray(RED, np.float32) - np.asarray(spec.mean)) / np.asarray(spec.scale)
    np.testing.assert_allclose(values[0, :, 7, 9], expected, rtol=1e-6)
    np.testing.assert_array_equal(values, normalise(np.stack([fit(image, spec) for image in images]), spec))
    assert pixels([], spec).shape == (0, 3, 32, 64)


def test_threads_do_not_disturb_each_other() -> None:
    feeds = [encoded(Image.effect_noise((300 + n, 200), 40).convert("RGB"), FORMATS[n % 5]) for n in range(10)]
    alone = [fit(decode(data), ImageSpec()) for data in feeds]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: fit(decode(data), ImageSpec()), feeds * 4))
    for found, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_image_spec_survives_json_and_refuses_nonsense() -> None:
    spec = ImageSpec(height_px=96, width_px=64, background=(0, 0, 0))
    assert ImageSpec.model_validate_json(spec.model_dump_json()) == spec
    for wrong in ({"height_px": 100}, {"scale": (1, 0, 1)}, {"background": (0, 0, 256)}, {"size": 224}):
        with pytest.raises(ValidationError):
            ImageSpec.model_validate(wrong)


def test_the_content_hash_is_sha_256() -> None:
    assert content_hash(b"abc") == hashlib.sha256(b"abc").digest()


def test_an_image_error_says_what_was_received_what_is_allowed_and_what_to_do() -> None:
    with pytest.raises(ImageError, match=r"<html>.*Allowed: JPEG.*Save the picture again"):
        decode(b"<html>not found</html>")


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_a_jpeg_of_one_line_is_decoded_smaller_too(size: tuple[int, int]) -> None:
    picture = decode(encoded(Image.new("RGB", size, (200, 20, 20)), "JPEG"), target_px=(224, 224))
    assert min(picture.size) == 1
    assert fit(picture, ImageSpec()).shape == (224, 224, 3)


def test_a_crop_is_the_centre_without_margins() -> None:
    spec = ImageSpec(height_px=64, width_px=64, background=(9, 8, 7))
    image = Image.new("RGB", (400, 100), WHITE)
    ImageDraw.Draw(image).rectangle((150, 0, 199, 99), fill=RED)
    ImageDraw.Draw(image).rectangle((200, 0, 249, 99), fill=BLUE)
    seen = crop(image, spec)
    assert seen.shape == (64, 64, 3)
    assert_close(tuple(int(part) for part in seen[32, 2]), RED)
    assert_close(tuple(int(part) for part in seen[32, 61]), BLUE)
    assert (crop(image.transpose(Image.Transpose.ROTATE_90), spec)[61, 32] == RED).all()


def test_a_crop_of_a_picture_of_the_target_shape_is_the_fitted_picture() -> None:
    spec = ImageSpec(height_px=64, width_px=96)
    for size in ((96, 64), (960, 640), (48, 32)):
        image = decode(encoded(Image.effect_noise(size, 60).convert("RGB"), "PNG"))
        np.testing.assert_array_equal(crop(image, spec), fit(image, spec))


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 500), (31, 33)])
def test_a_crop_fills_its_target_from_any_size(size: tuple[int, int]) -> None:
    spec = ImageSpec(height_px=64, width_px=96, background=(0, 255, 0))
    assert (crop(Image.new("RGB", size, RED), spec) == RED).all()


def test_views_are_what_each_would_be_alone() -> None:
    small, large = (
        ImageSpec(height_px=64, width_px=64),
        ImageSpec(height_px=224, width_px=160, background=(1, 2, 3)),
    )
    wanted: list[tuple[View, ImageSpec]] = [("fit", small), ("crop", large), ("crop", small), ("box", large)]
    for size in ((50, 70), (1_800, 1_200), (2_400, 500)):
        for kind in ("JPEG", "PNG"):
            data = encoded(Image.effect_noise(size, 60).convert("RGB"), kind)
            for found, (view, spec) in zip(views(data, wanted), wanted, strict=True):
                (alone,) = views(data, [(view, spec)])
                np.testing.assert_array_equal(found, alone)
                target_px = (spec.width_px, spec.height_px)
                decoded = decode(data, target_px=target_px, view=view, background=spec.background)
                np.testing.assert_array_equal(found, look(decoded, view, spec))


def test_a_crop_keeps_enough_pixels_of_a_large_jpeg() -> None:
    data = encoded(halves(3_200, 800), "JPEG")
    assert decode(data, target_px=(224, 224)).size == (800, 200)
    assert decode(data, target_px=(224, 224), view="crop").size == (3_200, 800)
    assert decode(data, target_px=(224, 224), view="box").size == (1_600, 400)


def test_a_box_shows_the_product_large_within_the_picture_it_stands_in() -> None:
    spec = ImageSpec(height_px=64, width_px=64, background=(9, 8, 7))
    image = Image.new("RGB", (400, 300), (225, 225, 230))
    ImageDraw.Draw(image).rectangle((250, 100, 329, 179), fill=RED)
    share = float((np.abs(box(image, spec).astype(int) - RED).sum(axis=2) < 30).mean())
    whole = float((np.abs(fit(image, spec).astype(int) - RED).sum(axis=2) < 30).mean())
    assert share > 0.5 > 0.1 > whole
    # A tall product in a wide picture: what stands beside it is shown, not margins.
    tall = Image.new("RGB", (400, 300), (225, 225, 230))
    ImageDraw.Draw(tall).rectangle((20, 30, 69, 269), fill=BLUE)
    assert not (box(tall, spec) == (9, 8, 7)).all(axis=2).any()


def test_a_box_without_a_product_is_the_whole_picture_of_any_size_and_mode() -> None:
    spec = ImageSpec(height_px=64, width_px=96, background=(0, 255, 0))
    for size in ((1, 1), (1, 20_000), (31, 33), (400, 300)):
        image = Image.new("RGB", size, RED)
        np.testing.assert_array_equal(box(image, spec), fit(image, spec))
    assert (
        box(Image.new("RGBA", (50, 40), (0, 0, 0, 0)), spec).tolist() == np.full((64, 96, 3), (0, 255, 0)).tolist()
    )


def test_transparent_parts_show_the_background_of_each_view() -> None:
    data = encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG")
    green, blue = (ImageSpec(height_px=64, width_px=64, background=colour) for colour in ((10, 200, 30), BLUE))
    seen = views(data, [("fit", green), ("crop", blue)])
    assert (seen[0] == (10, 200, 30)).all()
    assert (seen[1] == BLUE).all()


def test_views_of_what_is_no_picture_raise_as_decoding_does() -> None:
    with pytest.raises(ImageError) as caught:
        views(b"<html>", [("fit", ImageSpec())])
    assert caught.value.code == "image_format"
