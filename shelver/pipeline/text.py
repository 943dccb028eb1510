"""Texts to embeddings: each part of the stage reads the text, and their vectors stand side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shelver.errors import ModelError
from shelver.ngrams import Ngrams, Vocabulary
from shelver.pipeline.embedding import Embedding
from shelver.pipeline.session import open_session
from shelver.registry import NGRAMS, TextStage, TokenSpec

MAX_BAG: Final = 1 << 19
"""Numbers (n-grams of a padded batch x width of their vectors) that are gathered at once: 2 MB, which stay in the
processor's caches, and a bound on memory."""
MAX_TOKENS: Final = 1 << 9
"""Tokens of a padded batch: more only leave the caches, and cost up to a third more."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# The tokenizer's own threads save little, ignore `threads`, and complain when the process forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Text2Emb:
    """Texts to embeddings: hashed n-grams and tokens, each through networks of their own.

    Attributes:
        stage: the parts.
        width: of the parts' vectors together.
    """

    def __init__(self, stage: TextStage, sessions: Sequence[onnxruntime.InferenceSession], folder: Path) -> None:
        self.stage = stage
        self.width = stage.width
        self._sessions = tuple(sessions)
        self._vocabularies = {
            part.ngrams: Vocabulary.load(folder / NGRAMS, part.ngrams) for part in stage.parts if part.ngrams
        }
        self._tokenizers = {
            part.tokens: open_tokenizer(folder, part.tokens) for part in stage.parts if part.tokens
        }

    @classmethod
    def open(cls, folder: Path, stage: TextStage, *, threads: int | None = None) -> Text2Emb:
        """Open the files of a stage's parts; None takes all available cores for each.

        Raises:
            ModelError: a tokenizer file cannot be read.
        """
        return cls(stage, [open_session(folder / part.file, threads) for part in stage.parts], folder)

    def __call__(self, texts: Sequence[str | None]) -> Embedding:
        """Embed N texts; None gives a row that is not present, a text that says nothing to a part zeros there."""
        result = Embedding.absent(len(texts), self.width)
        result.present[:] = [text is not None for text in texts]
        found = [text for text in texts if text is not None]
        # Parts that take texts apart alike share the n-grams: finding them is most of the work.
        bags = {spec: vocabulary.weigh(found) for spec, vocabulary in self._vocabularies.items()}
        start = 0
        for number, part in enumerate(self.stage.parts):
            of_part = self.part(number, found, bags.get(part.ngrams) if part.ngrams else None)
            result.values[result.present, start : start + part.width] = of_part
            start += part.width
        return result

    def part(self, number: int, texts: Sequence[str], bags: Ngrams | None = None) -> NDArray[np.float32]:
        """Vectors of one part, shape (n, part.width); `bags` are the texts' n-grams where they are known."""
        part, session = self.stage.parts[number], self._sessions[number]
        values = np.zeros((len(texts), part.width), np.float32)
        if part.ngrams is not None:
            bags = self._vocabularies[part.ngrams].weigh(texts) if bags is None else bags
            for rows, ids, weights in padded(bags, np.arange(len(texts)), part.width):
                (values[rows],) = session.run(None, {"ids": ids, "weights": weights})
        elif part.tokens is not None:
            tokenizer = self._tokenizers[part.tokens]
            for rows, ids, mask in token_batches(tokenizer, texts, part.tokens.pad_id):
                (values[rows],) = session.run(None, {"ids": ids, "mask": mask})
        return values


def open_tokenizer(folder: Path, spec: TokenSpec) -> Tokenizer:
    """A tokenizer that cuts at `spec.max_tokens` and does not pad.

    Raises:
        ModelError: the file is not there or is no tokenizer.
    """
    path = folder / spec.file
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ModelError(
            f"{path} cannot be read as a tokenizer ({error})",
            allowed="a file that the `tokenizers` library wrote",
            remedy="Copy the whole model folder again from its source, or install a newer `tokenizers`.",
        ) from error
    tokenizer.enable_truncation(spec.max_tokens)
    tokenizer.no_padding()
    return tokenizer


def padded(
    bags: Ngrams, rows: NDArray[np.intp], width: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]]:
    """Bags of n-grams as rectangles, texts of like length together.

    Args:
        bags: n-grams of N texts.
        rows: the texts that are wanted.
        width: of an n-gram's vector; n-grams x width of a rectangle stay below `MAX_BAG`, but for a text alone.

    Yields:
        (rows, ids, weights) with shapes (n,), (n, T), (n, T); padding has weight 0.
    """
    lengths = np.diff(bags.offsets)[rows]
    for chosen in _alike(lengths, MAX_BAG // width):
        inside = np.arange(max(int(lengths[chosen[-1]]), 1)) < lengths[chosen][:, None]
        source = (bags.offsets[rows[chosen]][:, None] + np.arange(inside.shape[1]))[inside]
        ids = np.zeros(inside.shape, np.int64)
        weights = np.zeros(inside.shape, np.float32)
        ids[inside] = bags.ids[source]
        weights[inside] = bags.weights[source]
        yield rows[chosen], ids, weights


def token_batches(
    tokenizer: Tokenizer, texts: Sequence[str], pad_id: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]]:
    """Tokens as rectangles, texts of like length together; texts without tokens of their own are left out.

    Yields:
        (rows, ids, mask) with shapes (n,), (n, T), (n, T); padding is `pad_id` and has mask 0.
    """
    # The tokenizer refuses a lone surrogate, which a damaged feed may hold.
    readable = [text if text.isascii() else _SURROGATE.sub("\ufffd", text) for text in texts]
    encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(readable)]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    marks = tokenizer.num_special_tokens_to_add(is_pair=False)
    rows = np.flatnonzero(lengths > marks)
    for chosen in _alike(lengths[rows], MAX_TOKENS):
        of_batch = rows[chosen]
        inside = np.arange(lengths[of_batch[-1]]) < lengths[of_batch][:, None]
        ids = np.full(inside.shape, pad_id, np.int64)
        ids[inside] = np.fromiter(chain.from_iterable(encoded[row] for row in of_batch), np.int64, inside.sum())
        yield of_batch, ids, inside.astype(np.float32)


def _alike(lengths: NDArray[np.int64], most: int) -> Iterator[NDArray[np.intp]]:
    """Positions of `lengths`, shortest first, in runs whose rectangle has at most `most` entries."""
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    start = 0
    while start < len(order):
        shortest = int(ascending[start])
        # Growing by a quarter at most wastes little padding; a run's last one is its longest.
        run = ascending[start : start + max(most // max(shortest, 1), 1)]
        run = run[run <= int(shortest * 1.25) + 8]
        n = int(np.searchsorted(run * np.arange(1, len(run) + 1), most, side="right"))
        stop = start + max(n, 1)
        yield order[start:stop]
        start = stop
