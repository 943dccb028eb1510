"""Pictures of products in a known place, drawn for the detector's figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from shelver.datasets.generated_shapes import SHAPES
from shelver.images import Colour

Kind = Literal["plain", "gradient", "textured", "cluttered"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_FIXED: Final[dict[str, Colour]] = {
    "metal": (176, 180, 186),
    "black": (40, 40, 44),
    "white": (246, 245, 240),
    "wood": (168, 122, 76),
}

Place = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def draw(seed: int, kind: Kind) -> tuple[Image.Image, Place]:
    """A product somewhere before a background, and the box around what was drawn of it."""
    rng = Random(f"{kind}-{seed}")
    width = rng.choice((160, 200, 240))
    height = round(width * rng.choice((0.75, 1, 1.33)))
    picture = backdrop(rng, kind, width, height)
    side = rng.uniform(0.3, 0.9) * min(width, height)
    turn = math.radians(rng.gauss(0, 8))
    free = (1 - side / min(width, height)) / 2
    middle = width * (0.5 + rng.uniform(-0.8, 0.8) * free), height * (0.5 + rng.uniform(-0.8, 0.8) * free)
    body = _colour(rng, 10, 245)
    tones = {**_FIXED, "body": body, "accent": _colour(rng, 20, 235)}
    tones |= {"dark": _mixed(body, (0, 0, 0), 0.42), "light": _mixed(body, (255, 255, 255), 0.5)}
    where, empty = Image.new("L", picture.size), picture.copy()
    on_picture, on_where = ImageDraw.Draw(picture), ImageDraw.Draw(where)
    for shape, tone, numbers, thick in SHAPES[rng.choice(sorted(SHAPES))]:
        points = []
        for x, y in _outline(shape, numbers):
            a, b = (x - 50) * side / 100, (y - 50) * side / 100
            points.append(
                (
                    middle[0] + a * math.cos(turn) - b * math.sin(turn),
                    middle[1] + a * math.sin(turn) + b * math.cos(turn),
                )
            )
        if shape in ("line", "ring"):
            px = max(1, round(thick * side / 100))
            on_picture.line(points, fill=tones[tone], width=px)
            on_where.line(points, fill=255, width=px)
        elif tone == "hole":
            hole = Image.new("L", picture.size)
            ImageDraw.Draw(hole).polygon(points, fill=255)
            picture.paste(empty, mask=hole)
            where.paste(0, mask=hole)
        else:
            on_picture.polygon(points, fill=tones[tone])
            on_where.polygon(points, fill=255)
    place = where.getbbox()
    assert place is not None
    return picture, place


def backdrop(rng: Random, kind: Kind, width: int, height: int) -> Image.Image:
    """A background: one colour, two that run into each other, a texture, or a room full of other things."""
    size = (width, height)
    if kind == "plain":
        return Image.new(
            "RGB", size, rng.choice(((255, 255, 255), (246, 246, 246), _colour(rng), _colour(rng, 0)))
        )
    if kind == "gradient":
        straight = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270)))
        ramp = straight if rng.random() < 0.6 else Image.radial_gradient("L")
        ends = (Image.new("RGB", size, _colour(rng)), Image.new("RGB", size, _colour(rng, 60, 220)))
        return Image.composite(*ends, ramp.resize(size))
    if kind == "textured":
        return _texture(rng, width, height)
    room = Image.new("RGB", size, _colour(rng, 150, 240))
    on_room = ImageDraw.Draw(room)
    on_room.rectangle((0, rng.randint(height // 2, height), *size), fill=_colour(rng, 100, 220))
    for _ in range(rng.randint(4, 9)):
        x, y = rng.randrange(width), rng.randrange(height)
        right, bottom = x + rng.randint(width // 12, width // 4), y + rng.randint(height // 12, height // 4)
        behind = room.getpixel((x, y))
        assert isinstance(behind, tuple)
        fill = _mixed((behind[0], behind[1], behind[2]), _colour(rng, 0), 0.45)
        rng.choice((on_room.rectangle, on_room.ellipse))((x, y, right, bottom), fill=fill)
    return room


def _texture(rng: Random, width: int, height: int) -> Image.Image:
    base = np.array(_colour(rng, 60, 230))
    noise = np.random.default_rng(rng.randrange(2**31))
    kind = rng.choice(("cloth", "stripes", "checks"))
    if kind == "cloth":
        coarse = (noise.normal(128, 40, (max(2, height // 6), max(2, width // 6)))).clip(0, 255).astype(np.uint8)
        waves = np.asarray(Image.fromarray(coarse).resize((width, height)), np.float64) - 128
        waves += noise.normal(0, 10, waves.shape)
    else:
        down, across = np.mgrid[0:height, 0:width]
        turn, step = rng.uniform(0, math.pi), rng.randint(8, 22) / math.tau
        waves = 28 * np.sin((across * math.cos(turn) + down * math.sin(turn)) / step)
        if kind == "checks":
            waves = waves * 0.7 + 20 * np.sin((across * math.sin(turn) - down * math.cos(turn)) / step)
    return Image.fromarray((base + waves[:, :, None]).clip(0, 255).astype(np.uint8))


def _outline(shape: str, numbers: Sequence[float]) -> list[tuple[float, float]]:
    if shape in ("poly", "line"):
        return list(zip(numbers[::2], numbers[1::2], strict=True))
    left, top, right, bottom = numbers
    if shape == "rect":
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    turns = [step * math.tau / 40 for step in range(41)]
    half = (right - left) / 2, (bottom - top) / 2
    return [(left + half[0] * (1 + math.cos(turn)), top + half[1] * (1 + math.sin(turn))) for turn in turns]


def _colour(rng: Random, low: int = 120, high: int = 255) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
