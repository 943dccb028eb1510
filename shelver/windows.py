"""What of a picture a network sees: the windows of `shelver.images.views`, so that a place in the one can be found
in the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shelver.images import ImageSpec, View, around_product, cropped, decoded, fitted, look

Window = tuple[float, float, float, float]
"""Left, top, right, bottom, in shares of a picture's width and height."""


def placed_views(data: bytes, wanted: Sequence[tuple[View, ImageSpec]]) -> list[tuple[NDArray[np.uint8], Window]]:
    """As `views`, each with what it shows of the picture."""
    return [(look(image, view, spec), window(image, view, spec)) for image, view, spec in decoded(data, wanted)]


def window(image: Image.Image, view: View, spec: ImageSpec) -> Window:
    """What `look` shows of a picture: the edges of its array; margins lie beyond 0 to 1."""
    part = (0, 0, *image.size)
    if view == "crop":
        left, top, width, height = cropped(image.size, spec)
        part = (left, top, left + width, top + height)
        inner = (0, 0, spec.width_px, spec.height_px)
    else:
        if view == "box":
            part = around_product(image, spec) or part
        inner = fitted((part[2] - part[0], part[3] - part[1]), spec)
    edges = []
    for side, whole, shown in ((0, image.width, spec.width_px), (1, image.height, spec.height_px)):
        a_px = (part[side + 2] - part[side]) / inner[side + 2]
        first = (part[side] - inner[side] * a_px) / whole
        edges.append((first, first + shown * a_px / whole))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]
