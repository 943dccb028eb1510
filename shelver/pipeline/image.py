"""Pictures to embeddings: each part of the stage looks at the picture, and their vectors stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL.Image import Image

from shelver.errors import ImageError, ModelError
from shelver.images import ImageSpec, View, look, normalise, views
from shelver.pipeline.colour import COLOUR_ID, COLOUR_WIDTH, colours
from shelver.pipeline.embedding import Embedding
from shelver.pipeline.session import open_session
from shelver.registry import ImageStage

BATCH_PICTURES: Final = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture, decoded and fitted as a stage looks at it: small, so that a batch never holds large pictures.

    Attributes:
        looks: for each distinct view of the stage uint8, shape (H, W, 3), in the order of `Image2Emb.looks`.
    """

    looks: tuple[NDArray[np.uint8], ...]


Picture = Image | Prepared


class Image2Emb:
    """Pictures to embeddings; several pictures of one product are averaged.

    Attributes:
        stage: the parts.
        width: of the parts' vectors together.
        looks: the distinct views and sizes that the parts need; parts may share one.
    """

    def __init__(self, stage: ImageStage, sessions: Sequence[onnxruntime.InferenceSession | None]) -> None:
        self.stage = stage
        self.width = stage.width
        self._sessions = tuple(sessions)
        places: dict[tuple[View, int, int, tuple[int, int, int]], int] = {}
        looks: list[tuple[View, ImageSpec]] = []
        self._look_of: list[int] = []
        for part in stage.parts:
            key = (part.view, part.spec.height_px, part.spec.width_px, part.spec.background)
            if key not in places:
                places[key] = len(looks)
                looks.append((part.view, part.spec))
            self._look_of.append(places[key])
        self.looks = tuple(looks)

    @classmethod
    def open(cls, folder: Path, stage: ImageStage, *, threads: int | None = None) -> Image2Emb:
        """Open the files of a stage's parts; None takes all available cores for each.

        Raises:
            ModelError: the model was learned with colour features that are computed otherwise now.
        """
        for part in stage.parts:
            if part.file is None and (part.source, part.width) != (COLOUR_ID, COLOUR_WIDTH):
                raise ModelError(
                    f"{folder} was learned with the colour features {part.source}, {part.width} wide",
                    allowed=f"{COLOUR_ID}, {COLOUR_WIDTH} wide",
                    remedy="Use the shelver version that wrote the model, or train it again.",
                )
        return cls(
            stage,
            [open_session(folder / part.file, threads) if part.file is not None else None for part in stage.parts],
        )

    def prepare(self, data: bytes) -> Prepared | str:
        """An encoded picture as this stage looks at it, or the code that says why it cannot be used."""
        try:
            return Prepared(tuple(views(data, self.looks)))
        except ImageError as error:
            return error.code

    def prepare_decoded(self, image: Image) -> Prepared:
        """The same of a picture that is decoded already."""
        return Prepared(tuple(look(image, view, spec) for view, spec in self.looks))

    def part(self, number: int, pictures: Sequence[Prepared]) -> NDArray[np.float32]:
        """Vectors of one part, picture by picture, shape (n, part.width)."""
        part, place, session = self.stage.parts[number], self._look_of[number], self._sessions[number]
        values = np.zeros((len(pictures), part.width), np.float32)
        for start in range(0, len(pictures), BATCH_PICTURES):
            seen = np.stack([picture.looks[place] for picture in pictures[start : start + BATCH_PICTURES]])
            rows = slice(start, start + len(seen))
            if session is None:
                values[rows] = colours(seen)
            else:
                (values[rows],) = session.run(None, {"pixels": normalise(seen, part.spec)})
        return values

    def pictures(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Embed pictures one by one, shape (n, D)."""
        prepared = [p if isinstance(p, Prepared) else self.prepare_decoded(p) for p in pictures]
        return np.concatenate([self.part(number, prepared) for number in range(len(self.stage.parts))], axis=1)

    def embed_prepared(self, pictures: Sequence[Sequence[Prepared]]) -> Embedding:
        """Embed the prepared pictures of N products; an empty sequence gives a row that is not present."""
        return self(pictures)

    def __call__(self, pictures: Sequence[Sequence[Picture]]) -> Embedding:
        """Embed the pictures of N products, decoded or prepared; none at all give a row that is not present."""
        counts = np.array([len(of_one) for of_one in pictures], dtype=np.intp)
        return pooled(self.pictures([picture for of_one in pictures for picture in of_one]), counts)


def pooled(values: NDArray[np.float32], counts: NDArray[np.intp]) -> Embedding:
    """Mean of each product's picture embeddings.

    Args:
        values: embeddings of all pictures, shape (counts.sum(), D), product after product.
        counts: pictures of each product, shape (N,).
    """
    result = Embedding.absent(len(counts), values.shape[1])
    product = np.repeat(np.arange(len(counts)), counts)
    np.add.at(result.values, product, values)
    np.greater(counts, 0, out=result.present)
    result.values[result.present] /= counts[result.present, None]
    return result
