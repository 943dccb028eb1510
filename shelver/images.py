"""The one picture path: untrusted bytes → RGB picture → float32 for a network.

Training, evaluation and prediction all go `decode` → `fit`, `crop` or `box` → `normalise`; `views` does the first
two for several networks at once. Every function is thread-safe.

Colour profiles (ICC) are ignored: product photos are sRGB or close to it, and a network does not mind.
TIFF is refused: shops do not serve it, and its decoder has the longest record of holes.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shelver.errors import ImageError
from shelver.foreground import product_box

ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"]
Colour = tuple[int, int, int]
View = Literal["fit", "crop", "box"]
"""The whole picture within margins, its centre without, or the part around the product."""
MAX_BYTES = 20_000_000
"""Encoded size. The heaviest honest product photos have some 10 MB."""

MAX_PIXELS = 25_000_000
"""Decoded size: a PNG of 25 megapixels takes some 0.7 s and 100 MB, one of 50 would near the promised 2 s."""

MAX_JPEG_PIXELS = 100_000_000
"""JPEG can be decoded at 1/2, 1/4 or 1/8 of its size (`draft`), so its header may promise more."""

MAX_PROGRESSIVE_PIXELS = 50_000_000
"""A JPEG of several scans keeps all coefficients in memory, `draft` or not."""

_MAX_SCANNED_PIXELS = 500_000_000
"""Pixels times scans: a progressive JPEG has about ten scans, a bomb thousands; each passes over all."""

BOX_MARGIN = 0.06
"""Around the product in the view "box", at each side, in shares of the product's width or height."""

IMAGE_CODES = {
    "image_empty": "there are no bytes",
    "image_too_many_bytes": f"more than {MAX_BYTES} bytes",
    "image_too_large": "more pixels than can be decoded within time and memory, or a decompression bomb",
    "image_format": "not one of JPEG, PNG, WEBP, GIF, BMP, AVIF",
    "image_truncated": "the file ends too early",
    "image_broken": "the bytes cannot be decoded",
}
"""Every code that an `ImageError` of this module carries, and what it means."""

_OPENERS: dict[ImageFormat, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    # The format's own class, not Image.open: that would try MPO and warn (or not) by a process-wide limit.
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
_BMP_HEADERS_BYTES = {12, 16, 40, 52, 56, 64, 108, 124}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


class ImageSpec(BaseModel):
    """How a picture becomes numbers; stands in the model's manifest. Defaults are EfficientNet-Lite0's.

    Attributes:
        height_px, width_px: what the network sees; multiples of 32.
        mean, scale: for each of red, green, blue: (x - mean) / scale, with x in 0..255.
        background: shows through transparency and fills the margins, (R, G, B).
        version: of the picture path; whoever loads a model with another version refuses it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height_px: int = Field(default=224, ge=32, le=2048, multiple_of=32)
    width_px: int = Field(default=224, ge=32, le=2048, multiple_of=32)
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    scale: tuple[float, float, float] = (128.0, 128.0, 128.0)
    background: Colour = (255, 255, 255)
    version: Literal[1] = 1

    @field_validator("scale")
    @classmethod
    def _scale_divides(cls, scale: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(part > 0 and math.isfinite(part) for part in scale):
            raise ValueError("scale must be above 0 for each colour")
        return scale

    @field_validator("background")
    @classmethod
    def _background_is_a_colour(cls, background: Colour) -> Colour:
        if not all(0 <= part <= 255 for part in background):
            raise ValueError("background must be three numbers from 0 to 255")
        return background


def sniff(data: bytes) -> ImageFormat | None:
    """The format by the first bytes, None where it is none of ours. File names and content types lie."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS_BYTES:
        return "BMP"
    return None


def decode(
    data: bytes,
    *,
    target_px: tuple[int, int] | None = None,
    view: View = "fit",
    background: Colour = (255, 255, 255),
) -> Image.Image:
    """Untrusted bytes as an upright RGB picture; of an animation, the first frame.

    Takes under 2 s and a few hundred MB at worst, whatever the bytes are.

    Args:
        data: the encoded picture.
        target_px: (width, height) of the box that the picture will be fitted into. A JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size while that stays at least twice as large as the box: far faster.
            Without it a JPEG is decoded smaller only where it has more than MAX_PIXELS.
        view: whether the picture will lie within the box ("fit") or cover it ("crop"), which takes more of it, or
            whether a part of it will ("box"), which is taken to be half as long and wide.
        background: what shows through transparent parts, (R, G, B).

    Raises:
        ImageError: the picture cannot be used; its `code` is one of `IMAGE_CODES`.
    """
    return _decode(data, target_px, view, background)[0]


def views(data: bytes, wanted: Sequence[tuple[View, ImageSpec]]) -> list[NDArray[np.uint8]]:
    """Untrusted bytes as several networks look at them; `normalise` makes a network's input of each.

    Each view is what `decode` for it alone, and `look`, would give. The picture is decoded once, a large
    JPEG once more for a view that needs another size of it: no view depends on the others, so that its embedding
    can be cached under its own name.

    Args:
        data: the encoded picture.
        wanted: view and size of each; mean and scale play no part.

    Returns:
        For each of `wanted` uint8, shape (H, W, 3).

    Raises:
        ImageError: the picture cannot be used; its `code` is one of `IMAGE_CODES`.
    """
    return [look(image, view, spec) for image, view, spec in decoded(data, wanted)]


def decoded(
    data: bytes, wanted: Sequence[tuple[View, ImageSpec]]
) -> Iterator[tuple[Image.Image, View, ImageSpec]]:
    """The picture as each of `wanted` needs it decoded."""
    kept: dict[tuple[Colour, int], Image.Image] = {}
    size_px: tuple[int, int] | None = None
    for view, spec in wanted:
        target_px = (spec.width_px, spec.height_px)
        image = None
        if size_px is not None:
            image = kept.get((spec.background, _shrink(size_px, target_px, view)[0]))
        if image is None:
            image, size_px = _decode(data, target_px, view, spec.background)
            kept[spec.background, _shrink(size_px, target_px, view)[0]] = image
        yield image, view, spec


def _decode(
    data: bytes, target_px: tuple[int, int] | None, view: View, background: Colour
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, and the size that a JPEG's header gives; (0, 0) for what cannot be decoded smaller."""
    if not data:
        raise _error("image_empty", "an empty picture")
    if len(data) > MAX_BYTES:
        raise _error("image_too_many_bytes", f"a picture of {len(data)} bytes")
    kind = sniff(data)
    if kind is None:
        raise _error("image_format", f"bytes that start with {data[:12]!r}")
    # Pillow names no closed list of what hostile bytes may raise: seen are OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, EOFError, IndexError, KeyError, TypeError, AttributeError, AssertionError,
    # ZeroDivisionError, OverflowError, MemoryError, RuntimeError and its own bomb error. Only Pillow's work
    # on these bytes stands inside the try, so catching all hides no error of ours.
    try:
        with _OPENERS[kind](io.BytesIO(data)) as opened:
            _check_size(opened, data, kind)
            size_px = opened.size if kind == "JPEG" else (0, 0)
            scale, asked_px = _shrink(size_px, target_px, view)
            if scale > 1:
                opened.draft("RGB" if opened.mode != "L" else "L", asked_px)
            opened.load()
            return _upright(_as_rgb(opened, background), opened), size_px
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _error("image_too_large", f"a {kind} picture that is a decompression bomb") from error
    except Exception as error:
        code = "image_truncated" if _is_cut(error, data, kind) else "image_broken"
        raise _error(code, f"a {kind} picture of {len(data)} bytes that cannot be decoded") from error


def look(image: Image.Image, view: View, spec: ImageSpec) -> NDArray[np.uint8]:
    """`fit`, `crop` or `box`, by name."""
    if view == "fit":
        return fit(image, spec)
    return crop(image, spec) if view == "crop" else box(image, spec)


def fit(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """The whole picture, its aspect kept, centred, the margins filled with `spec.background`.

    Returns:
        uint8, shape (H, W, 3), H and W as in `spec`.
    """
    if image.mode != "RGB":
        image = _as_rgb(image, spec.background)
    left, top, width, height = fitted(image.size, spec)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    if (width, height) == (spec.width_px, spec.height_px):
        return np.array(image, dtype=np.uint8)
    canvas = np.empty((spec.height_px, spec.width_px, 3), dtype=np.uint8)
    canvas[:] = spec.background
    canvas[top : top + height, left : left + width] = np.asarray(image)
    return canvas


def fitted(size_px: tuple[int, int], spec: ImageSpec) -> tuple[int, int, int, int]:
    """Where `fit` puts a picture of this size: left, top, width, height."""
    ratio = min(spec.width_px / size_px[0], spec.height_px / size_px[1])
    # A 1x20000 picture still is one pixel wide.
    width = min(spec.width_px, max(1, round(size_px[0] * ratio)))
    height = min(spec.height_px, max(1, round(size_px[1] * ratio)))
    return (spec.width_px - width) // 2, (spec.height_px - height) // 2, width, height


def crop(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """The centre of the picture without margins: the largest centred part that has the shape of the target.

    Reduced to the target, so its short side keeps more detail than in `fit`, and what lies beyond it is lost. A
    picture smaller than the target is enlarged until it covers the target; nothing is filled in.

    Returns:
        uint8, shape (H, W, 3), H and W as in `spec`.
    """
    if image.mode != "RGB":
        image = _as_rgb(image, spec.background)
    left, top, width, height = cropped(image.size, spec)
    if (width, height) == (spec.width_px, spec.height_px):
        return np.array(image.crop((left, top, left + width, top + height)), dtype=np.uint8)
    resized = image.resize(
        (spec.width_px, spec.height_px),
        Image.Resampling.BICUBIC,
        box=(left, top, left + width, top + height),
        reducing_gap=3.0,
    )
    return np.array(resized, dtype=np.uint8)


def cropped(size_px: tuple[int, int], spec: ImageSpec) -> tuple[int, int, int, int]:
    """What `crop` takes of a picture of this size: left, top, width, height."""
    ratio = min(size_px[0] / spec.width_px, size_px[1] / spec.height_px)
    # Whole pixels, and of a 1x20000 picture one.
    width = min(size_px[0], max(1, round(spec.width_px * ratio)))
    height = min(size_px[1], max(1, round(spec.height_px * ratio)))
    return (size_px[0] - width) // 2, (size_px[1] - height) // 2, width, height


def box(image: Image.Image, spec: ImageSpec) -> NDArray[np.uint8]:
    """The part of the picture around the product, fitted; where the product is not found, the whole picture.

    `product_box` says where the product is. With a margin around it, the part is widened to the target's shape as
    far as there is picture; only beyond the picture's edges margins are filled with `spec.background`.

    Returns:
        uint8, shape (H, W, 3), H and W as in `spec`.
    """
    if image.mode != "RGB":
        image = _as_rgb(image, spec.background)
    found = around_product(image, spec)
    return fit(image if found is None else image.crop(found), spec)


def around_product(image: Image.Image, spec: ImageSpec) -> tuple[int, int, int, int] | None:
    """What `box` takes of a picture: left, top, right, bottom; None where it takes all."""
    found = product_box(image, margin=BOX_MARGIN)
    if found is None:
        return None
    left, top, right, bottom = found
    width = max(right - left, round((bottom - top) * spec.width_px / spec.height_px))
    height = max(bottom - top, round((right - left) * spec.height_px / spec.width_px))
    left, right = _widened(left, right, width, image.width)
    top, bottom = _widened(top, bottom, height, image.height)
    return left, top, right, bottom


def _widened(start: int, end: int, wanted: int, side: int) -> tuple[int, int]:
    """From `start` to `end` made as long as wanted about its middle, moved or cut to lie within 0 and `side`."""
    length = min(wanted, side)
    start = min(max(0, (start + end - length) // 2), side - length)
    return start, start + length


def normalise(fitted: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """What a network takes, from what `fit` gave.

    Args:
        fitted: uint8, shape (N, H, W, 3).

    Returns:
        (x - mean) / scale, float32, shape (N, 3, H, W), contiguous.
    """
    values = np.empty((fitted.shape[0], 3, *fitted.shape[1:3]), dtype=np.float32)
    np.copyto(values, fitted.transpose(0, 3, 1, 2))
    values -= np.asarray(spec.mean, dtype=np.float32)[:, None, None]
    values /= np.asarray(spec.scale, dtype=np.float32)[:, None, None]
    return values


def pixels(images: Sequence[Image.Image], spec: ImageSpec) -> NDArray[np.float32]:
    """Fits and normalises pictures.

    Returns:
        float32, shape (N, 3, H, W), contiguous; N may be 0.
    """
    fitted = np.empty((len(images), spec.height_px, spec.width_px, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        fitted[row] = fit(image, spec)
    return normalise(fitted, spec)


def content_hash(data: bytes) -> bytes:
    """SHA-256 of the encoded bytes, 32 bytes: the key under which embeddings are cached."""
    return hashlib.sha256(data).digest()


def _check_size(opened: ImageFile.ImageFile, data: bytes, kind: ImageFormat) -> None:
    width, height = opened.size
    allowed = MAX_PIXELS
    if kind == "JPEG" and isinstance(opened, JpegImagePlugin.JpegImageFile):
        allowed = MAX_JPEG_PIXELS
        if "progressive" in opened.info or _first_scan_components(data) < opened.layers:
            allowed = MAX_PROGRESSIVE_PIXELS
            if width * height * data.count(b"\xff\xda") > _MAX_SCANNED_PIXELS:
                raise _error("image_too_large", f"a JPEG picture of {width}x{height} pixels in too many scans")
    if width <= 0 or height <= 0:
        raise _error("image_broken", f"a {kind} picture of {width}x{height} pixels")
    if width * height > allowed:
        raise _error("image_too_large", f"a {kind} picture of {width}x{height} pixels")


def _first_scan_components(data: bytes) -> int:
    """Colour components in a JPEG's first scan; fewer than it has in all means that more scans follow."""
    at = 2
    while at + 5 < len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:
            at += 1
        elif data[at + 1] == 0xDA:
            return data[at + 4]
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _shrink(
    size_px: tuple[int, int], target_px: tuple[int, int] | None, view: View
) -> tuple[int, tuple[int, int]]:
    """How much smaller a JPEG of this size is decoded, 1, 2, 4 or 8, and the size to ask Pillow's `draft` for.

    The picture may lie on its side, so both sides are measured alike.
    """
    width, height = size_px
    shrink = 1.0
    if target_px is not None:
        side = min(width, height) if view == "crop" else max(width, height)
        # Of a picture for "box" only a part will be shown; how large it is, is not known before decoding.
        shrink = max(1.0, side / ((4 if view == "box" else 2) * max(target_px)))
    if width * height / shrink**2 > MAX_PIXELS:
        # draft() rounds towards the larger picture: ask for the next power of two.
        shrink = 2.0 ** math.ceil(math.log2(math.sqrt(width * height / MAX_PIXELS)))
    asked_px = (max(1, int(width / shrink)), max(1, int(height / shrink)))
    # draft()'s own rule.
    possible = min(width // asked_px[0], height // asked_px[1])
    return next((scale for scale in (8, 4, 2) if possible >= scale), 1), asked_px


def _as_rgb(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion would clip 16 bits to 8: a white picture.
        deep = np.asarray(image)
        image = Image.fromarray((np.clip(deep, 0, 65535) >> 8).astype(np.uint8))
    elif image.mode == "CMYK" and isinstance(image, JpegImagePlugin.JpegImageFile) and "adobe" not in image.info:
        # Adobe stores CMYK inverted; Pillow takes every JPEG for Adobe's. As browsers do: only with its mark.
        image = ImageChops.invert(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, background)
        canvas.paste(shown, mask=shown.getchannel("A"))
        return canvas
    # copy(): a plain RGB picture would else stay tied to its file.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _upright(image: Image.Image, opened: ImageFile.ImageFile) -> Image.Image:
    turn = _TRANSPOSE.get(_orientation(opened.info.get("exif")))
    return image if turn is None else image.transpose(turn)


def _orientation(exif: object) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the block is damaged.

    Read by hand: Pillow's reader goes through every tag, and warns on standard error of what it dislikes.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    first = int.from_bytes(tiff[4:8], order)
    n_tags = int.from_bytes(tiff[first : first + 2], order)
    for at in range(first + 2, min(first + 2 + 12 * n_tags, len(tiff) - 11), 12):
        if int.from_bytes(tiff[at : at + 2], order) == _EXIF_ORIENTATION:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return 1


def _is_cut(error: Exception, data: bytes, kind: ImageFormat) -> bool:
    """Whether the file ends too early; Pillow does not tell truncation from other damage."""
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return True
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "AVIF":
        at = 0
        while at + 8 <= len(data):
            at += max(8, int.from_bytes(data[at : at + 4], "big"))
        return at > len(data)
    return {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}[kind] not in data[-64:]


def _error(code: str, received: str) -> ImageError:
    return ImageError(
        code,
        received,
        allowed=f"JPEG, PNG, WEBP, GIF, BMP or AVIF of at most {MAX_BYTES // 10**6} MB and "
        f"{MAX_PIXELS // 10**6} megapixels (JPEG: {MAX_JPEG_PIXELS // 10**6}, "
        f"progressive JPEG: {MAX_PROGRESSIVE_PIXELS // 10**6})",
        remedy="Save the picture again as JPEG or PNG, or leave it out and send the text alone.",
    )
