"""Picture embeddings that are made once: a cache by content, shared by all runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from shelver.images import content_hash
from shelver.pipeline import Embedding, Image2Emb, available_cores, picture, pooled

FLUSH_PICTURES: Final = 4096


class EmbeddingCache:
    """Embeddings of one encoder by the SHA-256 of the encoded picture.

    A folder of segments, `<name>.keys.npy` beside `<name>.values.npy`. Segments are only ever added, and the keys
    are written last, so a killed run leaves nothing half written and loses at most `FLUSH_PICTURES` pictures.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self._values: list[NDArray[np.float16]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._new: dict[bytes, NDArray[np.float16]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for keys_file in sorted(folder.glob("*.keys.npy")):
            values_file = keys_file.with_name(keys_file.name.replace(".keys.", ".values."))
            try:
                keys = np.load(keys_file, allow_pickle=False)
                values = np.load(values_file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue  # damaged: its pictures are embedded again
            if values.shape == (len(keys), width) and keys.shape == (len(keys), 32):
                self._add(keys, values)

    def _add(self, keys: NDArray[np.uint8], values: NDArray[np.float16]) -> None:
        segment = len(self._values)
        self._values.append(values)
        for row, key in enumerate(keys):
            self._places[key.tobytes()] = (segment, row)

    def get(self, key: bytes) -> NDArray[np.float16] | None:
        """The embedding of a picture, shape (D,); all NaN where the picture is known to be unusable."""
        place = self._places.get(key)
        return self._new.get(key) if place is None else self._values[place[0]][place[1]]

    def put(self, key: bytes, value: NDArray[np.float16]) -> None:
        self._new[key] = value
        if len(self._new) >= FLUSH_PICTURES:
            self.flush()

    def flush(self) -> None:
        """Write what is new as a segment of its own."""
        if not self._new:
            return
        name = uuid.uuid4().hex
        keys = np.frombuffer(b"".join(self._new), np.uint8).reshape(-1, 32)
        values = np.stack(list(self._new.values()))
        for kind, array in (("values", values), ("keys", keys)):
            partial = self.folder / f"{name}.{kind}.partial"
            with partial.open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / f"{name}.{kind}.npy")
        self._add(keys, values)
        self._new = {}


class ImageEmbedder:
    """Embeds the encoded pictures of products through the exported encoder, or takes them from the cache.

    Attributes:
        n_computed, n_cached, n_unusable: pictures so far.
    """

    def __init__(self, image2emb: Image2Emb, cache: EmbeddingCache) -> None:
        self.width = image2emb.width
        self.n_computed = self.n_cached = self.n_unusable = 0
        self._image2emb = image2emb
        self._cache = cache
        self._decoders = ThreadPoolExecutor(available_cores(), thread_name_prefix="shelver-decode")

    def __call__(self, pictures: Sequence[Sequence[bytes]]) -> Embedding:
        """Pooled embeddings of N products, values as float16; an unusable picture counts as none."""
        keys = [[content_hash(data) for data in of_one] for of_one in pictures]
        wanted: dict[bytes, bytes] = {}
        known: dict[bytes, NDArray[np.float16]] = {}
        for of_one, data_of_one in zip(keys, pictures, strict=True):
            for key, data in zip(of_one, data_of_one, strict=True):
                value = self._cache.get(key)
                if value is None:
                    wanted[key] = data
                else:
                    known[key] = value
        self.n_cached += len(known)
        self.n_computed += len(wanted)
        known |= self._compute(wanted)
        values, counts = [], []
        for of_one in keys:
            usable = [known[key] for key in of_one if not np.isnan(known[key][0])]
            self.n_unusable += len(of_one) - len(usable)
            values += usable
            counts.append(len(usable))
        flat = np.stack(values).astype(np.float32) if values else np.zeros((0, self.width), np.float32)
        result = pooled(flat, np.array(counts, np.intp))
        return Embedding(result.values.astype(np.float16), result.present)

    def _compute(self, wanted: dict[bytes, bytes]) -> dict[bytes, NDArray[np.float16]]:
        if not wanted:
            return {}
        decoded = list(self._decoders.map(partial(picture, spec=self._image2emb.spec), wanted.values()))
        good = [image for image in decoded if isinstance(image, Image)]
        embedded = iter(self._image2emb.pictures(good).astype(np.float16)) if good else iter(())
        unusable = np.full(self.width, np.nan, np.float16)
        computed = {}
        for key, image in zip(wanted, decoded, strict=True):
            value = next(embedded) if isinstance(image, Image) else unusable
            computed[key] = value
            self._cache.put(key, value)
        return computed

    def close(self) -> None:
        """Keep what is new, and end the decoding threads."""
        self._cache.flush()
        self._decoders.shutdown()
