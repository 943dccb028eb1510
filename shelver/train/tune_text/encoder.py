"""The way of a fine-tuning from a catalog to weights, its place on disk, and the part of a model it becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from shelver.catalog.split import Part
from shelver.errors import CatalogError
from shelver.folders import sha256_of, writing_alone
from shelver.product import TextSpec
from shelver.registry import TextPart, TokenSpec
from shelver.train import hf_text, use
from shelver.train.checkpoint import Checkpoints, Stopwatch
from shelver.train.data import Say, read_examples
from shelver.train.hf_text import MeanPooled, export_hf_text, hf_folder, load_hf_text, read_tokenizer
from shelver.train.sets import Source
from shelver.train.tune_text.loop import tune_text
from shelver.train.tune_text.spec import TextTuning
from shelver.train.tune_text.tokens import LabelledTokens
from shelver.train.use import Use, export_use, load_use, use_tokenizer

DONE: Final = "tuned.json"
WEIGHTS: Final = "tuned.safetensors"
MAX_JUDGED: Final = 10_000
"""Validation texts that are judged after an epoch."""
_VERSION: Final = 1  # raised when the same record would give other weights


@dataclass(frozen=True, slots=True)
class TunedText:
    """A tuned encoder.

    Attributes:
        encoder: "use" or "hf:NAME", what it was before.
        module: in evaluation mode; `export_tuned` writes it as ONNX.
        weights: its safetensors file.
        weights_sha256: of that file; names caches of embeddings.
        validation: accuracy of the head it was tuned with: on the untouched features, then after each epoch; empty
            without labelled texts in the validation split.
        seconds: of all runs together.
    """

    encoder: str
    module: Use | MeanPooled
    weights: Path
    weights_sha256: str
    validation: tuple[float, ...]
    seconds: float


def tuned_text(
    catalog: Source,
    encoder: str,
    tuning: TextTuning,
    text: TextSpec,
    *,
    work: Path,
    seed: int,
    say: Say,
    threads: int | None = None,
    device: torch.device | None = None,
) -> TunedText:
    """Tune an encoder on the train split, or go on where a killed run stopped, or open what was made before.

    On a CPU the weights are the same to the bit, however often the run was cut off.

    Args:
        catalog: labelled products with texts; a label is a node of its tree.
        encoder: "use" or "hf:NAME".
        tuning: the recipe.
        text: which fields of a product make its text.
        work: folder for states and weights. Calls may share it: each takes a folder in it, named after all that
            decides its result.
        seed: decides the order of the texts and all dropout.
        say: told about rate and time left.
        threads: of torch on the CPU; None leaves them as they are.
        device: where to compute; the CPU by default. Others use mixed precision.

    Raises:
        CatalogError: there is no labelled text to learn from.
        InputError: another process is doing the same.
        MissingExtraError, ConfigError, ModelError: the published encoder cannot be had, or is another one.
    """
    device = device or torch.device("cpu")
    module, tokenizer, tokens, source = _published(encoder)
    record: dict[str, Any] = {
        "version": _VERSION,
        "catalog": catalog.info.fingerprint,
        "labels": catalog.taxonomy.version,
        "encoder": source,
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "max_tokens": tokens.max_tokens,
        "text": text.model_dump(mode="json"),
        "tuning": tuning.model_dump(mode="json"),
        "seed": seed,
        "device": device.type,
    }
    folder = work / f"text-{hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]}"
    done = folder / DONE
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        before = torch.get_num_threads()
        with writing_alone(folder):
            try:
                torch.set_num_threads(threads or before)
                if not done.is_file():
                    say(f"tuning the text encoder {encoder}")
                    learned, judged = (
                        _tokens(catalog, split, tokenizer, tokens, text, say) for split in ("train", "validation")
                    )
                    _run(module, learned, judged, tuning, folder, record, seed, device, say)
            finally:
                torch.set_num_threads(before)
    note = json.loads(done.read_text(encoding="utf-8"))
    weights = folder / WEIGHTS
    module.load_state_dict(load_file(weights))
    return TunedText(
        encoder,
        module.eval().requires_grad_(False),
        weights,
        note["sha256"],
        tuple(note["validation"]),
        note["seconds"],
    )


def export_tuned(
    tuned: TunedText, folder: Path, number: int, *, parity: MutableMapping[str, float] | None = None
) -> TextPart:
    """Write a tuned encoder as part `number` of a text stage; its source is named after its weights.

    Raises:
        ParityError: the file's answers are too far from torch's.
    """
    if isinstance(tuned.module, Use):
        part = export_use(folder, number, module=tuned.module, parity=parity)
    else:
        part = export_hf_text(tuned.encoder, folder, number, module=tuned.module, parity=parity)
    return part.model_copy(update={"source": f"tuned-{tuned.weights_sha256[:12]}"})


def _published(encoder: str) -> tuple[Use | MeanPooled, Tokenizer, TokenSpec, str]:
    """An encoder as it comes, its tokenizer, how much of a text it reads, and a name that follows its weights."""
    if encoder == "use":
        spec = TokenSpec(file="tokens.json", max_tokens=use.MAX_TOKENS, pad_id=0)
        return load_use(), use_tokenizer(), spec, use.USE_ID
    folder = hf_folder(encoder)
    module = load_hf_text(encoder)
    config: Any = module.transformer.config
    # As `export_hf_text` has it.
    spec = TokenSpec(
        file="tokens.json",
        max_tokens=min(hf_text.MAX_TOKENS, hf_text._longest(module.transformer)),
        pad_id=config.pad_token_id if config.pad_token_id is not None else 0,
    )
    hashes = [sha256_of(file) for file in (folder / "config.json", *sorted(folder.glob("*.safetensors")))]
    return module, read_tokenizer(folder), spec, " ".join(hashes)


def _tokens(
    catalog: Source, split: Part, tokenizer: Tokenizer, tokens: TokenSpec, text: TextSpec, say: Say
) -> LabelledTokens:
    n_expected = catalog.info.by_split.get(split, 0)
    examples = read_examples(catalog, split, text=text, embedder=None, n_expected=n_expected, say=say)
    read = np.array([said is not None for said in examples.texts], np.bool_)
    rows = np.flatnonzero(read & (examples.node >= 0))
    if split == "validation":
        rows = rows[:: max(-(-len(rows) // MAX_JUDGED), 1)]
    elif not len(rows):
        raise CatalogError(
            f"{catalog.folder} has no labelled product with a text in its train split",
            allowed="products with a category and a text to learn from",
            remedy="Look at `shelver describe`, or leave the text encoder as it is.",
        )
    texts = [said for said in (examples.texts[row] for row in rows.tolist()) if said is not None]
    return LabelledTokens.of(tokenizer, tokens, texts, examples.node[rows].astype(np.int64))


def _run(
    module: Use | MeanPooled,
    learned: LabelledTokens,
    judged: LabelledTokens,
    tuning: TextTuning,
    folder: Path,
    record: dict[str, Any],
    seed: int,
    device: torch.device,
    say: Say,
) -> None:
    """Tune from the last state on, and write the weights and the note that says they are whole."""
    checkpoints = Checkpoints(folder / "checkpoint")
    progress = checkpoints.progress()
    watch = Stopwatch(progress.elapsed_s if progress is not None else 0.0)
    validation = tune_text(
        module, learned, judged, tuning, seed=seed, device=device, checkpoints=checkpoints, say=say
    )
    if len(judged) and validation[-1] < validation[0]:
        say(
            f"the tuned text encoder is worse on validation than the untouched one ({validation[-1]:.4f}, was "
            f"{validation[0]:.4f}): better train without @tuned, or with a lower lr"
        )
    partial = folder / (WEIGHTS + ".partial")
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, partial)
    partial.replace(folder / WEIGHTS)
    note = {
        "run": record,
        "sha256": sha256_of(folder / WEIGHTS),
        "validation": validation if len(judged) else [],
        "seconds": watch.elapsed_s(),
    }
    partial = folder / (DONE + ".partial")
    partial.write_text(json.dumps(note, indent=1), encoding="utf-8")
    partial.replace(folder / DONE)
    checkpoints.remove()
