"""What products look like to a model, in few numbers, so that those that look alike can be found.

The text's and the picture's embedding are scaled to length 1, each for itself. One that is wider than `WIDTH` is
first projected to `WIDTH` random directions, always the same ones: a cosine c is kept up to (1 - c²) / 16, as a
standard deviation. Vectors of different encoders cannot be compared, so each row names its encoders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.pipeline import Embedded, Embedding
from shelver.registry import NGRAMS, Manifest

WIDTH: Final = 256
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one product looks like: its text and its picture, each of length 1; None where there is none."""

    text: Floats | None
    image: Floats | None

    def __bool__(self) -> bool:
        return self.text is not None or self.image is not None


def encoders_of(manifest: Manifest) -> str:
    """Names the encoders of a model: same name, same vectors."""
    files = [part.file for part in manifest.text.parts] if manifest.text else []
    files += [part.file for part in manifest.image.parts if part.file is not None] if manifest.image else []
    files += [NGRAMS] if manifest.text and any(part.ngrams for part in manifest.text.parts) else []
    files += [part.tokens.file for part in manifest.text.parts if part.tokens] if manifest.text else []
    said = {
        "width": WIDTH,
        "text": manifest.text.model_dump(mode="json") if manifest.text else None,
        "image": manifest.image.model_dump(mode="json") if manifest.image else None,
        "files": {name: manifest.files[name] for name in files},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def looks_of(embedded: Embedded, n: int) -> list[Look]:
    """What n products look like."""
    text, image = _units(embedded.text), _units(embedded.image)
    return [Look(text[i] if text else None, image[i] if image else None) for i in range(n)]


def packed(values: Floats | None) -> bytes | None:
    """As the database keeps it."""
    return None if values is None else values.astype("<f2").tobytes()


def unpacked(data: bytes | None) -> Floats | None:
    """What `packed` wrote."""
    return None if data is None else np.frombuffer(data, "<f2").astype(np.float32)


def _units(embedding: Embedding | None) -> Sequence[Floats | None] | None:
    if embedding is None:
        return None
    values = embedding.values
    if values.shape[1] > WIDTH:
        values = values @ directions(values.shape[1])
    length = np.linalg.norm(values, axis=1)
    there = embedding.present & (length > 0) & np.isfinite(length)
    units = (values / np.where(there, length, 1)[:, None]).astype(np.float32)
    return [row if ok else None for row, ok in zip(units, there.tolist(), strict=True)]


@lru_cache(maxsize=4)
def directions(width: int) -> Floats:
    """Random signs, shape (width, WIDTH), the same on every machine."""
    n = width * WIDTH
    bits = np.frombuffer(hashlib.shake_128(f"shelver {width}".encode()).digest(-(-n // 8)), np.uint8)
    signs = np.unpackbits(bits)[:n].reshape(width, WIDTH).astype(np.float32)
    return (signs * 2 - 1) / np.float32(np.sqrt(WIDTH))
