"""Draws the demo's product photos: shape, colour, pattern, and each seller's own background."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from random import Random

from PIL import Image, ImageChops, ImageDraw

from shelver.datasets.generated_shapes import SHAPES, Part

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (196, 40, 44),
    "blue": (38, 84, 172),
    "navy": (28, 38, 84),
    "green": (52, 132, 70),
    "yellow": (232, 190, 54),
    "orange": (226, 120, 40),
    "pink": (230, 140, 168),
    "purple": (118, 66, 146),
    "brown": (122, 82, 52),
    "grey": (128, 130, 134),
    "black": (42, 42, 46),
    "white": (236, 234, 228),
    "turquoise": (58, 168, 170),
    "beige": (208, 188, 156),
}
BACKGROUNDS = ("studio", "paper", "gradient", "table", "shop")
"""How a seller photographs: white, coloured paper, a gradient, a wooden table, a cluttered grey room."""

_CANVAS_PX = 240
_FIXED: dict[str, RGB] = {
    "metal": (176, 180, 186),
    "black": (40, 40, 44),
    "white": (246, 245, 240),
    "wood": (168, 122, 76),
}


def draw_product(
    rng: Random,
    *,
    shapes: Sequence[str],
    colour: str,
    pattern: str,
    background: str,
    quality: int,
    zoom: float = 1.0,
) -> bytes:
    """Draws one photo; several shapes stand side by side.

    Args:
        rng: decides pose, light, size; the same state draws the same bytes.
        shapes: names in SHAPES.
        colour: a name in COLOURS.
        pattern: "plain", "striped", "checked", "dotted" or "floral".
        background: one of BACKGROUNDS.
        quality: of the JPEG, 1 to 95.
        zoom: above 1 for a close-up that cuts off the edges.

    Returns:
        JPEG bytes, 96 to 160 pixels a side.
    """
    canvas = _backdrop(rng, background)
    base = _vary(rng, COLOURS[colour])
    accent = _vary(rng, rng.choice([rgb for name, rgb in COLOURS.items() if name != colour]))
    # The cloth is cut from one bolt: all parts in the body's tone carry the same pattern.
    cloth = _cloth(rng, pattern, base)
    empty = canvas.copy()
    n = len(shapes)
    for place, shape in enumerate(shapes):
        size = zoom * rng.uniform(0.74, 0.92) * (1.0 if n == 1 else 1.25 / n)
        centre = ((place + 0.5) / n, 0.5 + (0.0 if n == 1 else rng.uniform(-0.12, 0.12)))
        _draw_shape(rng, canvas, empty, SHAPES[shape], cloth, base, accent, size, centre)
    canvas = ImageChops.multiply(canvas, _light(rng.randrange(6)))
    side = rng.randint(96, 160)
    height = round(side * rng.choice((1.0, 1.0, 1.0, 0.85, 1.0)))
    crop = (_CANVAS_PX - round(_CANVAS_PX * height / side)) // 2
    photo = canvas.resize((side, height), Image.Resampling.BILINEAR, (0, crop, _CANVAS_PX, _CANVAS_PX - crop))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _draw_shape(
    rng: Random,
    canvas: Image.Image,
    empty: Image.Image,
    parts: Sequence[Part],
    cloth: Image.Image,
    base: RGB,
    accent: RGB,
    size: float,
    centre: Point,
) -> None:
    turn = math.radians(rng.gauss(0, 5))
    flip = -1 if rng.random() < 0.5 else 1
    scale_x = size * _CANVAS_PX / 100 * rng.uniform(0.92, 1.08)
    scale_y = size * _CANVAS_PX / 100 * rng.uniform(0.92, 1.08)
    left = (centre[0] + rng.gauss(0, 0.02 * size**2)) * _CANVAS_PX
    top = (centre[1] + rng.gauss(0, 0.02 * size**2)) * _CANVAS_PX
    cos, sin = math.cos(turn), math.sin(turn)

    def placed(points: Sequence[Point]) -> list[Point]:
        moved = []
        for x, y in points:
            a, b = (x - 50) * scale_x * flip, (y - 50) * scale_y
            moved.append((left + a * cos - b * sin, top + a * sin + b * cos))
        return moved

    tones = dict(_FIXED) | {"dark": _mix(base, (0, 0, 0), 0.42), "light": _mix(base, (255, 255, 255), 0.5)}
    tones["accent"] = accent
    draw = ImageDraw.Draw(canvas)
    shadow = placed(_outline("oval", (12, 86, 88, 98)))
    draw.polygon(shadow, fill=_mix(empty.getpixel((4, _CANVAS_PX - 4)), (0, 0, 0), 0.18))
    unit = (scale_x + scale_y) / 2
    for kind, tone, numbers, width in parts:
        if kind in ("ring", "line"):
            points = (
                _outline("oval", numbers)
                if kind == "ring"
                else list(zip(numbers[::2], numbers[1::2], strict=True))
            )
            closed = placed([*points, points[0]] if kind == "ring" else points)
            fill = base if tone == "body" else tones[tone]
            draw.line(closed, fill=fill, width=max(1, round(width * unit)), joint="curve")
            continue
        points = placed(_outline(kind, numbers))
        if tone in ("body", "hole"):
            stencil = Image.new("L", canvas.size)
            ImageDraw.Draw(stencil).polygon(points, fill=255)
            canvas.paste(cloth if tone == "body" else empty, mask=stencil)
            if tone == "body":
                draw.line([*points, points[0]], fill=_mix(base, (0, 0, 0), 0.3), width=2)
        else:
            draw.polygon(points, fill=tones[tone])


def _outline(kind: str, numbers: Sequence[float]) -> list[Point]:
    if kind == "poly":
        return list(zip(numbers[::2], numbers[1::2], strict=True))
    x1, y1, x2, y2 = numbers
    if kind == "rect":
        return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    mid_x, mid_y, half_x, half_y = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
    return [(mid_x + half_x * x, mid_y + half_y * y) for x, y in _circle()]


@cache
def _circle() -> tuple[Point, ...]:
    return tuple((math.cos(step * math.tau / 40), math.sin(step * math.tau / 40)) for step in range(40))


def _cloth(rng: Random, pattern: str, base: RGB) -> Image.Image:
    cloth = Image.new("RGB", (_CANVAS_PX, _CANVAS_PX), base)
    if pattern == "plain":
        return cloth
    draw = ImageDraw.Draw(cloth)
    pale = sum(base) > 420
    other = _mix(base, (30, 30, 40) if pale else (255, 252, 240), rng.uniform(0.6, 0.9))
    step = rng.randint(20, 32)
    shift = rng.randrange(step)
    if pattern in ("striped", "checked"):
        for at in range(shift - step, _CANVAS_PX, step):
            draw.rectangle((0, at, _CANVAS_PX, at + step // 2), fill=other)
        if pattern == "checked":
            crossing = cloth.transpose(Image.Transpose.ROTATE_90)
            return Image.blend(cloth, crossing, 0.5)
        return cloth
    for row, y in enumerate(range(shift - step, _CANVAS_PX + step, step)):
        for x in range(shift - step + (row % 2) * step // 2, _CANVAS_PX + step, step):
            if pattern == "dotted":
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=other)
                continue
            for dx, dy in ((-5, 0), (5, 0), (0, -5), (0, 5)):
                draw.ellipse((x + dx - 4, y + dy - 4, x + dx + 4, y + dy + 4), fill=other)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(240, 200, 60))
    return cloth


def _backdrop(rng: Random, background: str) -> Image.Image:
    size = (_CANVAS_PX, _CANVAS_PX)
    if background == "studio":
        level = rng.randint(244, 255)
        return Image.new("RGB", size, (level, level, level))
    if background == "paper":
        return Image.new("RGB", size, _vary(rng, rng.choice(((202, 220, 236), (238, 226, 204), (214, 232, 212)))))
    if background == "gradient":
        top, bottom = _vary(rng, (236, 236, 244)), _vary(rng, (150, 160, 186))
        ramp = Image.linear_gradient("L").resize(size)
        return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), ramp)
    if background == "table":
        wall = Image.new("RGB", size, _vary(rng, (226, 218, 206)))
        draw = ImageDraw.Draw(wall)
        edge = rng.randint(150, 190)
        wood = _vary(rng, (178, 138, 98))
        draw.rectangle((0, edge, *size), fill=wood)
        for y in range(edge + 6, _CANVAS_PX, rng.randint(10, 18)):
            draw.line((0, y, _CANVAS_PX, y + rng.randint(-3, 3)), fill=_mix(wood, (0, 0, 0), 0.15), width=2)
        return wall
    room = Image.new("RGB", size, _vary(rng, (188, 190, 194)))
    draw = ImageDraw.Draw(room)
    for _ in range(rng.randint(3, 6)):
        x, y = rng.randrange(_CANVAS_PX), rng.randrange(_CANVAS_PX)
        fill = _mix((188, 190, 194), rng.choice(tuple(COLOURS.values())), 0.25)
        draw.rectangle((x, y, x + rng.randint(20, 90), y + rng.randint(20, 90)), fill=fill)
    return room


@cache
def _light(number: int) -> Image.Image:
    """One of six soft lights, to be multiplied."""
    ramp = Image.linear_gradient("L").resize((_CANVAS_PX, _CANVAS_PX)).point(lambda level: 205 + level * 50 // 255)
    if number < 4:
        return ramp.rotate(90 * number).convert("RGB")
    glow = Image.radial_gradient("L").resize((_CANVAS_PX, _CANVAS_PX))
    return glow.point(lambda level: 255 - level * (30 + 10 * (number - 4)) // 255).convert("RGB")


def _vary(rng: Random, colour: RGB) -> RGB:
    shift = rng.randint(-12, 12)
    red, green, blue = (min(255, max(0, part + shift + rng.randint(-10, 10))) for part in colour)
    return red, green, blue


def _mix(colour: object, other: RGB, share: float) -> RGB:
    assert isinstance(colour, tuple)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue
