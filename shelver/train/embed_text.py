"""Text embeddings of frozen encoders, made once: a cache by the text's SHA-256, shared by all runs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.pipeline.text import Text2Emb
from shelver.product import TextSpec
from shelver.registry import TextPart, TextStage
from shelver.train.embed import EmbeddingCache

CHUNK_TEXTS: Final = 256
TELL_S: Final = 5.0


def embed_texts(
    part: TextPart,
    folder: Path,
    texts: Sequence[str | None],
    *,
    cache: Path,
    threads: int | None,
    say: Callable[[str], None],
) -> NDArray[np.float16]:
    """Vectors of texts through a frozen part's exported files, or from the cache.

    Args:
        part: of tokens; its `source` names it in the cache.
        folder: holds the part's files.
        texts: N texts, as `text_of` gave them; equal ones are embedded once.
        cache: the folder of all caches; what is new is written to `embeddings/<source>-<tokens>` in it, and stays
            there even if the process is killed, but for the last few thousand.
        threads: of ONNX Runtime; None takes all available cores.
        say: told about the progress every few seconds.

    Returns:
        float16, shape (N, part.width); zeros for None.
    """
    assert part.tokens is not None, "an n-gram part learns with the model"
    assert part.source is not None, "a part that learned with one model is no use to another"
    kept = EmbeddingCache(cache / "embeddings" / f"{part.source}-{part.tokens.max_tokens}", part.width)
    keys = [None if text is None else text_key(text) for text in texts]
    missing = {
        key: text
        for key, text in zip(keys, texts, strict=True)
        if key is not None and text is not None and kept.get(key) is None
    }
    if missing:
        text2emb = Text2Emb.open(folder, TextStage(spec=TextSpec(), parts=(part,)), threads=threads)
        # Long texts first: a batch is then of like length, and the time left is no less than what is said.
        todo = sorted(missing.items(), key=lambda item: len(item[1]), reverse=True)
        started = told = time.monotonic()
        chars, all_chars = 0, sum(map(len, missing.values()))
        for start in range(0, len(todo), CHUNK_TEXTS):
            chunk = todo[start : start + CHUNK_TEXTS]
            # Beyond float16 there is only infinity; no head needs to tell such values apart.
            limit = float(np.finfo(np.float16).max)
            values = text2emb.part(0, [text for _, text in chunk]).clip(-limit, limit).astype(np.float16)
            for (new, text), value in zip(chunk, values, strict=True):
                kept.put(new, value)
                chars += len(text)
            now = time.monotonic()
            if now - told >= TELL_S:
                told = now
                done, spent = start + len(chunk), now - started
                say(
                    f"embedding texts with {part.encoder}: {done:,} of {len(todo):,}, {done / spent:,.0f}/s, "
                    f"{spent / max(chars, 1) * (all_chars - chars):,.0f} s left"
                )
        kept.flush()
    result = np.zeros((len(texts), part.width), np.float16)
    for row, key in enumerate(keys):
        if key is not None:
            result[row] = kept.get(key)
    return result


def text_key(text: str) -> bytes:
    """SHA-256 of a text, 32 bytes: the key under which its vectors are cached."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
