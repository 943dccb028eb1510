"""Hostile pictures: mutated ones and bombs; everything follows from the generator's seed."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from shelver.images import MAX_PIXELS

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L", "RGB"),
    "BMP": ("RGB", "L", "P", "1"),
    "AVIF": ("RGB", "RGBA"),
}
MAGIC = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x10\0\0\0WEBPVP8 ",
    b"BM",
    b"\0\0\0\x1cftypavif",
)


def honest(rng: np.random.Generator) -> bytes:
    """A picture in one of all formats and modes; some animated, progressive, interlaced or with odd data."""
    kind = str(rng.choice(KINDS))
    mode = str(rng.choice(MODES[kind]))
    width, height = (int(side) for side in rng.integers(1, 160, 2))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (height, width)).astype(np.uint16))
    else:
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 4)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((width, height)).convert("RGB" if mode == "CMYK" else mode)
        image = image.convert(mode)
    options: dict[str, object] = {}
    if kind in ("GIF", "WEBP", "AVIF", "PNG") and mode in ("RGB", "RGBA", "P") and rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    if kind == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(0, 10))
        options |= {
            "progressive": bool(rng.random() < 0.4),
            "exif": exif,
            "quality": int(rng.integers(5, 96)),
        }
    if kind in ("JPEG", "PNG") and rng.random() < 0.2:
        options |= {"icc_profile": rng.bytes(200)}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(rng: np.random.Generator) -> bytes:
    """A small file that promises a large picture, or that holds one."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    width, height = (int(2 ** rng.uniform(0, 31)) for _ in range(2))
    depth, colour = ((8, 2), (16, 6), (1, 0), (8, 3), (16, 0), (7, 9))[int(rng.integers(6))]
    if rng.random() < 0.3:
        # Really full: as large as allowed, every row there.
        width = int(2 ** rng.uniform(4, 20))
        height = max(1, MAX_PIXELS // width)
    rows = bytes(min(height * (1 + width * depth * (4 if colour == 6 else 3) // 8), 60_000_000))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(rng.random() < 0.3))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))) if rng.random() < 0.3 else b""
    body = chunk(b"IDAT", zlib.compress(rows, 1))
    return MAGIC[1] + chunk(b"IHDR", header) + text + body + chunk(b"IEND", b"")


def mutated(rng: np.random.Generator) -> bytes:
    """A hostile picture; everything follows from the generator."""
    choice = rng.random()
    if choice < 0.04:
        return bomb(rng)
    data = bytearray(honest(rng))
    if choice < 0.12:
        return bytes(data)
    for _ in range(int(rng.integers(1, 4))):
        how = rng.integers(8)
        at = int(rng.integers(0, max(1, len(data))))
        if how == 0:
            del data[at:]
        elif how == 1:
            for place in rng.integers(0, max(1, len(data)), int(rng.integers(1, 30))):
                if data:
                    data[int(place) % len(data)] ^= 1 << int(rng.integers(8))
        elif how == 2:
            # The headers hold the sizes.
            for place in rng.integers(0, 64, int(rng.integers(1, 6))):
                if place < len(data):
                    data[int(place)] = int(rng.choice((0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256)))))
        elif how == 3:
            magic = MAGIC[int(rng.integers(len(MAGIC)))]
            data[: len(magic)] = magic
        elif how == 4:
            data[at:] = honest(rng)[at:]
        elif how == 5:
            del data[at : at + int(rng.integers(1, 64))]
        elif how == 6:
            data[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 2_000))] * int(rng.integers(1, 40))
    return bytes(data)
