"""Embeddings that are made once: a cache by content, shared by all runs."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.images import content_hash
from shelver.pipeline import Embedding, Image2Emb, Prepared, available_cores, pooled
from shelver.registry import ImagePart

FLUSH_PICTURES: Final = 4096


class EmbeddingCache:
    """Embeddings of one encoder by the SHA-256 of what was embedded, such as an encoded picture.

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


def cache_name(part: ImagePart) -> str:
    """Folder name under which the vectors of a part are cached: whatever changes them changes it."""
    decisive = part.model_dump_json(include={"encoder", "source", "view", "spec", "precision"})
    readable = re.sub(r"[^\w.-]+", "-", part.source)[:60]
    return f"{readable}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"


class ImageEmbedder:
    """Embeds the encoded pictures of products through the exported encoders, or takes them from the caches.

    Each part has a cache of its own, so that a stage with one part more makes only that part's vectors.

    Attributes:
        width: D_i.
        n_computed, n_cached, n_unusable: pictures so far; one that lacked any part's vector counts as computed.
    """

    def __init__(self, image2emb: Image2Emb, caches: Path) -> None:
        self.width = image2emb.width
        self.n_computed = self.n_cached = self.n_unusable = 0
        self._image2emb = image2emb
        self._caches = [
            EmbeddingCache(caches / "embeddings" / cache_name(part), part.width) for part in image2emb.stage.parts
        ]
        self._decoders = ThreadPoolExecutor(available_cores(), thread_name_prefix="shelver-decode")

    def __call__(self, pictures: Sequence[Sequence[bytes]]) -> Embedding:
        """Pooled embeddings of N products, values as float16; an unusable picture counts as none."""
        keys = [[content_hash(data) for data in of_one] for of_one in pictures]
        data_of = {
            key: data
            for of_one, data_of_one in zip(keys, pictures, strict=True)
            for key, data in zip(of_one, data_of_one, strict=True)
        }
        known: list[dict[bytes, NDArray[np.float16]]] = []
        for cache in self._caches:
            found = ((key, cache.get(key)) for key in data_of)
            known.append({key: value for key, value in found if value is not None})
        wanted = {key: data for key, data in data_of.items() if any(key not in of_part for of_part in known)}
        self.n_computed += len(wanted)
        self.n_cached += len(data_of) - len(wanted)
        self._compute(wanted, known)
        rows, counts = [], []
        for of_one in keys:
            usable = [key for key in of_one if not np.isnan(known[0][key][0])]
            self.n_unusable += len(of_one) - len(usable)
            rows += usable
            counts.append(len(usable))
        flat = np.zeros((len(rows), self.width), np.float32)
        start = 0
        for cache, of_part in zip(self._caches, known, strict=True):
            for row, key in enumerate(rows):
                flat[row, start : start + cache.width] = of_part[key]
            start += cache.width
        result = pooled(flat, np.array(counts, np.intp))
        return Embedding(result.values.astype(np.float16), result.present)

    def _compute(self, wanted: dict[bytes, bytes], known: list[dict[bytes, NDArray[np.float16]]]) -> None:
        """Make what the parts lack, and note it in the caches and in `known`."""
        prepared = dict(zip(wanted, self._decoders.map(self._image2emb.prepare, wanted.values()), strict=True))
        for number, (cache, of_part) in enumerate(zip(self._caches, known, strict=True)):
            lacking = {key: p for key, p in prepared.items() if key not in of_part}
            good = [p for p in lacking.values() if isinstance(p, Prepared)]
            made = iter(self._image2emb.part(number, good).astype(np.float16))
            for key, p in lacking.items():
                of_part[key] = next(made) if isinstance(p, Prepared) else np.full(cache.width, np.nan, np.float16)
                cache.put(key, of_part[key])

    def close(self) -> None:
        """Keep what is new, and end the decoding threads."""
        for cache in self._caches:
            cache.flush()
        self._decoders.shutdown()
