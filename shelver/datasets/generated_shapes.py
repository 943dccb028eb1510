# ruff: noqa: E501 - a table of data: one shape after another, as long as it is
"""What the demo's products look like: each shape is a list of simple parts on a canvas of 100 by 100.

A part is (kind, tone, numbers[, width]): `poly` x1 y1 x2 y2 ..., `oval` and `rect` left top right bottom,
`ring` as an oval's outline and `line` as an open path, both with a width. The tone `body` carries the
product's colour and pattern, `dark`, `light` and `accent` follow from it, `metal`, `black`, `white`, `wood`
are what they say. Parts are drawn in order; a hole shows the background (`hole`).
"""

from __future__ import annotations

from typing import Literal

Tone = Literal["body", "dark", "light", "accent", "metal", "black", "white", "wood", "hole"]
Kind = Literal["poly", "oval", "rect", "ring", "line"]
Part = tuple[Kind, Tone, tuple[float, ...], float]


def _parts(text: str) -> tuple[Part, ...]:
    found: list[Part] = []
    for piece in text.replace("\n", " ").split(";"):
        if not piece.strip():
            continue
        kind, tone, *numbers = piece.split()
        width = 0.0
        if kind in ("ring", "line"):
            width = float(numbers.pop())
        found.append((kind, tone, tuple(float(number) for number in numbers), width))  # type: ignore[arg-type]
    return tuple(found)


_TEXT = {
    "tshirt": """poly body 32 20 42 24 58 24 68 20 88 34 80 48 70 42 70 84 30 84 30 42 20 48 12 34;
        line dark 42 23 46 29 54 29 58 23 2""",
    "shirt": """poly body 32 18 44 22 56 22 68 18 84 28 92 72 82 75 71 46 71 86 29 86 29 46 18 75 8 72 16 28;
        poly white 42 20 50 30 44 34; poly white 58 20 50 30 56 34; line dark 50 30 50 86 1.2;
        oval white 51 38 54 41; oval white 51 50 54 53; oval white 51 62 54 65; oval white 51 74 54 77""",
    "sweater": """poly body 30 20 40 20 60 20 70 20 86 32 94 76 80 78 72 50 72 84 28 84 28 50 20 78 6 76 14 32;
        line dark 38 20 44 28 56 28 62 20 5; line dark 28 82 72 82 5; line dark 7 74 20 77 5;
        line dark 93 74 80 77 5""",
    "trousers": """poly body 32 12 68 12 76 90 58 90 50 40 42 90 24 90; line dark 32 15 68 15 4;
        line dark 50 16 50 40 1.2; line dark 35 20 40 28 1.5; line dark 65 20 60 28 1.5""",
    "shorts": """poly body 30 26 70 26 80 72 56 74 50 50 44 74 20 72; line dark 30 29 70 29 4;
        line white 48 30 45 40 1.5; line white 52 30 55 40 1.5""",
    "skirt": "poly body 36 22 64 22 86 80 14 80; line dark 36 25 64 25 5; line dark 44 28 36 79 1;"
    "line dark 56 28 64 79 1; line dark 50 28 50 79 1",
    "dress": """poly body 38 10 42 20 58 20 62 10 68 12 66 34 60 44 82 90 18 90 40 44 34 34 32 12;
        line accent 40 44 60 44 4""",
    "hat": "oval body 8 56 92 80; oval dark 28 56 72 70; poly body 30 64 34 30 44 26 56 26 66 30 70 64;"
    "line accent 30 60 70 60 7",
    "glasses": """line black 42 48 58 48 3; line black 10 46 4 38 3; line black 90 46 96 38 3;
        oval body 10 38 44 66; oval body 56 38 90 66; oval black 14 42 40 63; oval black 60 42 86 63;
        line light 20 48 28 45 2; line light 66 48 74 45 2""",
    "sneaker": """poly body 10 44 30 36 46 50 72 56 90 64 92 74 8 74; rect white 7 72 93 80;
        line white 38 46 46 40 2.5; line white 45 50 53 44 2.5; line white 52 53 60 47 2.5;
        poly accent 20 56 34 54 52 68 34 68""",
    "boot": """poly body 34 12 62 12 62 52 84 62 88 78 34 78; rect black 33 78 89 84; rect black 33 78 48 90;
        line dark 62 30 62 50 3; line dark 36 18 60 18 2""",
    "sandal": """poly wood 8 66 60 60 92 66 92 74 8 76; line body 26 64 40 44 58 62 6; line body 62 62 70 48 84 64 6;
        line body 40 44 70 48 4; oval metal 50 42 56 48""",
    "backpack": """ring dark 40 8 60 24 4; poly body 28 22 38 14 62 14 72 22 76 86 24 86; rect dark 32 52 68 80;
        line metal 34 58 66 58 1.5; line dark 28 36 72 36 2; rect accent 46 33 54 42""",
    "handbag": """ring dark 32 10 68 64 4; poly body 20 42 80 42 90 84 10 84; line dark 20 44 80 44 3;
        rect metal 45 50 55 58""",
    "suitcase": """line metal 38 26 38 6 62 6 62 26 3; rect body 24 24 76 86; line dark 34 26 34 84 2;
        line dark 45 26 45 84 2; line dark 56 26 56 84 2; line dark 67 26 67 84 2; oval black 28 86 36 94;
        oval black 64 86 72 94""",
    "mug": "ring body 56 36 88 68 6; rect body 22 26 66 80; oval dark 22 20 66 32; oval light 26 22 62 30",
    "bottle": "rect metal 42 6 58 18; rect dark 40 16 60 22; poly body 40 22 60 22 68 36 68 92 32 92 32 36;"
    "line light 38 40 38 86 3; line dark 32 70 68 70 1.5",
    "wineglass": """poly light 30 10 70 10 68 38 58 52 42 52 32 38; poly body 32 28 68 28 66 40 57 51 43 51 34 40;
        line metal 50 52 50 84 3; oval metal 32 82 68 90; ring metal 30 6 70 14 1.5""",
    "pan": "poly black 60 50 98 42 98 50 62 58; oval body 6 28 68 80; oval dark 12 33 62 75; oval black 15 36 59 72;"
    "line metal 24 48 34 42 2",
    "chair": """rect body 30 8 64 46; line wood 32 10 32 92 4; line wood 62 10 62 88 4; poly body 28 52 66 52 74 62 26 62;
        line wood 28 62 28 94 4; line wood 72 62 72 94 4""",
    "table": """poly body 16 34 84 34 96 48 4 48; rect dark 4 48 96 53; line wood 10 53 10 92 5; line wood 90 53 90 92 5;
        line wood 22 53 22 78 4; line wood 78 53 78 78 4""",
    "sofa": """rect body 16 30 84 62; rect body 6 44 22 78; rect body 78 44 94 78; rect light 22 54 50 68;
        rect light 51 54 78 68; rect dark 16 68 84 79; rect wood 12 79 18 86; rect wood 82 79 88 86""",
    "tablelamp": """poly body 34 20 66 20 78 52 22 52; line metal 50 52 50 62 3; oval accent 38 58 62 88;
        rect metal 36 86 64 91""",
    "floorlamp": "poly body 38 6 62 6 72 28 28 28; line metal 50 28 50 90 3; oval black 34 86 66 94",
    "pendant": """line black 50 0 50 40 1.6; poly body 44 40 56 40 74 56 82 72 18 72 26 56; oval white 40 66 60 80;
        line dark 18 72 82 72 2""",
    "rug": """poly body 20 24 80 24 94 78 6 78; line white 20 24 80 24 2; line white 6 78 94 78 3; line white 8 80 8 85 1;
        line white 22 80 22 85 1; line white 36 80 36 85 1; line white 50 80 50 85 1; line white 64 80 64 85 1;
        line white 78 80 78 85 1; line white 92 80 92 85 1""",
    "cushion": "poly body 14 16 50 22 86 16 80 50 86 84 50 78 14 84 20 50; line light 20 24 40 27 2; oval dark 48 48 52 52",
    "roundcushion": "oval body 12 14 88 86; ring dark 17 19 83 81 1.5; oval dark 46 46 54 54; line dark 50 50 30 30 1;"
    "line dark 50 50 70 30 1; line dark 50 50 70 70 1; line dark 50 50 30 70 1",
    "tallvase": "poly body 42 6 58 6 55 20 62 44 58 92 42 92 38 44 45 20; line light 44 30 43 80 2.5; oval dark 41 3 59 9",
    "roundvase": "rect body 42 18 58 36; oval body 18 30 82 92; oval dark 38 14 62 22; oval light 30 44 42 62",
    "clock": """oval body 12 12 88 88; oval white 20 20 80 80; line black 50 50 50 28 3; line black 50 50 66 58 3;
        oval black 47 47 53 53; line black 50 22 50 26 2; line black 50 74 50 78 2; line black 22 50 26 50 2;
        line black 74 50 78 50 2""",
    "phone": """rect black 30 8 70 92; rect body 33 14 67 84; oval metal 47 85.5 53 90.5; rect white 38 20 46 28;
        rect light 50 20 58 28; rect accent 38 32 46 40; rect white 50 32 58 40""",
    "laptop": "rect black 18 20 82 64; rect body 22 24 78 60; poly metal 18 66 82 66 96 82 4 82; poly dark 24 68 76 68 82 76 18 76",
    "headphones": "ring body 18 10 82 90 6; rect hole 12 62 88 96; rect black 12 46 28 76; rect black 72 46 88 76;"
    "rect accent 16 50 24 72; rect accent 76 50 84 72",
    "speaker": "rect body 28 10 72 90; oval black 35 46 65 78; oval dark 42 53 58 71; oval black 42 20 58 38; oval metal 47 26 53 32",
    "cable": """ring body 22 22 78 78 4; ring body 28 28 72 72 4; line body 76 50 92 24 4; line body 26 50 10 80 4;
        rect metal 86 10 97 24; rect black 88 22 96 32; rect metal 3 80 14 94; rect black 5 72 13 82""",
    "watch": """rect dark 38 2 62 32; rect dark 38 68 62 98; oval metal 26 26 74 74; oval body 31 31 69 69;
        line white 50 50 50 36 2; line white 50 50 60 54 2; rect metal 74 46 79 54""",
    "camera": """rect body 10 32 90 80; rect dark 34 22 58 34; oval black 34 38 72 76; oval metal 40 44 66 70;
        oval black 45 49 61 65; rect white 74 38 84 44; rect accent 16 26 26 32; line light 48 53 52 51 2""",
    "ball": "oval body 14 14 86 86; ring dark 14 14 86 86 1.5; line light 28 32 40 24 3",
    "car": """poly body 6 62 10 52 28 50 40 34 68 34 80 50 94 54 95 68 6 68; poly light 33 49 42 38 52 38 52 49;
        poly light 56 49 56 38 66 38 74 49; oval black 16 58 36 78; oval black 66 58 86 78; oval metal 22 64 30 72;
        oval metal 72 64 80 72; oval white 90 56 95 61""",
    "teddy": """oval body 22 10 40 28; oval body 60 10 78 28; oval body 26 12 74 54; oval body 28 46 72 90;
        oval body 12 50 34 68; oval body 66 50 88 68; oval body 24 76 44 96; oval body 56 76 76 96; oval light 40 32 60 50;
        oval light 38 58 62 82; oval black 38 26 43 31; oval black 57 26 62 31; oval black 47 36 53 40""",
    "blocks": """rect body 12 56 48 88; rect accent 52 56 88 88; rect light 30 24 68 56; rect body 18 50 26 56;
        rect body 34 50 30 56; rect accent 60 50 67 56; rect accent 74 50 81 56; rect light 36 18 44 24;
        rect light 54 18 62 24; line dark 12 56 88 56 1""",
    "box": """poly dark 18 30 28 20 92 20 82 30; poly dark 82 30 92 20 92 72 82 84; rect body 18 30 82 84;
        rect white 26 38 74 52; oval accent 34 58 50 76; rect light 54 58 70 76""",
    "parcel": """poly dark 12 36 30 20 90 20 76 36; poly wood 12 36 30 20 90 20 76 36; rect wood 12 36 76 86;
        poly wood 76 36 90 20 90 68 76 86; line dark 12 36 76 36 1.2; line dark 76 36 76 86 1.2; line dark 76 36 90 20 1.2;
        rect metal 38 36 50 86; rect white 54 62 72 80; line black 57 67 69 67 1.2; line black 57 72 66 72 1.2""",
    "book": """poly white 28 16 78 12 80 86 30 90; poly body 22 12 72 12 72 86 22 86; rect dark 22 12 28 86;
        rect white 34 22 66 34; line light 36 44 64 44 2; line light 36 50 58 50 2; oval accent 40 58 60 78""",
    "disc": "rect dark 12 12 80 88; rect body 18 16 76 84; oval metal 40 26 96 82; oval light 60 46 76 62; oval black 65 51 71 57",
    "tube": """poly white 40 6 60 6 60 16 40 16; line white 46 8 66 8 4; poly body 34 18 66 18 70 30 70 92 30 92 30 30;
        rect white 36 44 64 74; line dark 40 52 60 52 2; line dark 40 58 56 58 2; line dark 40 64 58 64 2""",
    "lipstick": "rect black 36 56 64 92; rect metal 39 44 61 57; poly body 42 44 42 22 58 12 58 44; line light 45 40 45 24 2",
    "pot": """line wood 50 42 50 20 2; oval dark 30 8 50 26; oval dark 50 4 72 24; oval dark 42 18 60 36;
        rect body 20 40 80 52; poly body 26 52 74 52 66 92 34 92; line dark 26 53 74 53 1.5""",
    "shovel": "line wood 50 8 50 62 5; line wood 38 8 62 8 5; poly body 34 56 66 56 66 76 50 96 34 76; line dark 50 60 50 86 2",
    "tent": "poly body 50 16 96 82 4 82; poly dark 50 16 62 82 38 82; poly light 50 40 50 82 40 82; line black 50 16 50 8 2;"
    "line black 4 82 0 90 1.5; line black 96 82 100 90 1.5",
    "racket": """oval body 26 4 74 58; oval hole 31 9 69 53; line white 38 10 38 52 1; line white 46 8 46 54 1;
        line white 54 8 54 54 1; line white 62 10 62 52 1; line white 30 20 70 20 1; line white 30 28 70 28 1;
        line white 30 36 70 36 1; line white 30 44 70 44 1; line body 44 58 50 70 56 58 3; line black 50 66 50 96 6""",
}

SHAPES: dict[str, tuple[Part, ...]] = {name: _parts(text) for name, text in _TEXT.items()}
