"""The model folder: a core that is addressed by its content and never changes.

The core files are hashed into `manifest.json`, written last: a folder with a manifest is whole. Beside the
core, free to change, stand `run/` (the training run), `report/` and `README.md`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from shelver.calibrate import Calibration
from shelver.errors import ModelError
from shelver.folders import sha256_of
from shelver.images import ImageSpec
from shelver.ngrams import NgramSpec
from shelver.product import TextSpec

MANIFEST: Final = "manifest.json"
TAXONOMY: Final = "taxonomy.json"
LABELS: Final = "labels.json"
ATTRIBUTES: Final = "attributes.json"
NGRAMS: Final = "ngrams.safetensors"
EMB2PROB: Final = "emb2prob.onnx"


def part_file(stage: Literal["text2emb", "image2emb", "emb2prob"], number: int) -> str:
    """ONNX file of a stage's part, counted from 0: `text2emb.onnx`, `text2emb.1.onnx` and so on."""
    return f"{stage}.onnx" if number == 0 else f"{stage}.{number}.onnx"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenSpec(_Frozen):
    """How a text becomes token numbers: a `tokenizers` file of the model folder, cut at so many tokens.

    Attributes:
        file: name of the tokenizer file.
        max_tokens: tokens of a text that are read, special ones included.
        pad_id: fills a batch up; masked out.
    """

    file: str
    max_tokens: int
    pad_id: int


class TextPart(_Frozen):
    """One text encoder of a model, with a file of its own; the parts' vectors stand side by side.

    Attributes:
        encoder: "ngram", "use" or "hf:NAME".
        source: what it was made from, such as the hash of published weights; names it in caches. None where it was
            learned with this model.
        file: its ONNX file. An n-gram part takes `ids` int64 (N, T) and `weights` float32 (N, T), a token part
            `ids` int64 (N, T) and `mask` float32 (N, T); both give `embedding` float32 (N, width).
        width: of its vector.
        ngrams: how a text is taken apart, of an n-gram part.
        tokens: the same of a token part.
    """

    encoder: str
    source: str | None
    file: str
    width: int
    ngrams: NgramSpec | None = None
    tokens: TokenSpec | None = None


class TextStage(_Frozen):
    """How a text becomes an embedding: the vectors of the parts, side by side."""

    spec: TextSpec
    parts: tuple[TextPart, ...]

    @property
    def width(self) -> int:
        """D_t."""
        return sum(part.width for part in self.parts)


class ImagePart(_Frozen):
    """One look at a picture; the parts' vectors stand side by side.

    Attributes:
        encoder: "lite0", "hf:NAME", "timm:NAME", or "colour", which is computed without a network.
        source: what it was made from, such as the hash of its weights; names it in caches.
        view: "fit", the whole picture, "crop", its centre at full detail, or "box", the part around the product.
        spec: size and scaling of what the encoder sees.
        precision: of the network's arithmetic.
        file: its ONNX file: `pixels` float32 (N, 3, H, W) → `embedding` float32 (N, width); None of "colour".
        width: of its vector.
    """

    encoder: str
    source: str
    view: Literal["fit", "crop", "box"] = "fit"
    spec: ImageSpec
    precision: Literal["fp32", "int8"] = "fp32"
    file: str | None
    width: int


class ImageStage(_Frozen):
    """How a picture becomes an embedding: the vectors of the parts, side by side."""

    parts: tuple[ImagePart, ...]

    @property
    def width(self) -> int:
        """D_i."""
        return sum(part.width for part in self.parts)


class AttributeHead(_Frozen):
    """How one attribute of `attributes.json` is scored.

    Attributes:
        name: of the attribute; its values stand in `attributes.json`, a slot of the scores each.
        start: its first slot in the scores.
        file: the ONNX file that scores it: the tree's own, or one of a task that was added later.
        calibration: how far each expert of that file is believed. Of an attribute that takes several values, each
            is a question of its own with two answers.
    """

    name: str
    start: int
    file: str = EMB2PROB
    calibration: Calibration


class HeadStage(_Frozen):
    """How embeddings become scores.

    Attributes:
        kind: of head.
        stops: ids of the inner nodes at which products may stop.
        attributes: those that were learned, in the order of `attributes.json`.
    """

    kind: Literal["tree", "levels"]
    stops: tuple[str, ...]
    attributes: tuple[AttributeHead, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So that a manifest of before attributes keeps its bytes, and its model its version.
        written: dict[str, Any] = write(self)
        return written if self.attributes else {"kind": written["kind"], "stops": written["stops"]}


class Manifest(_Frozen):
    """What stands in `manifest.json`.

    Attributes:
        format_version: raised when an older shelver could not read the folder.
        shelver_version, git_commit: what wrote it; the commit is None outside a checkout.
        config: the training config, as JSON.
        text, image, head: the stages; a model without texts or pictures lacks that stage.
        taxonomy_version: `Taxonomy.version` of `taxonomy.json`.
        calibration: how far each expert is believed, applied to the scores of `emb2prob.onnx`.
        base: version of the model that this one adds attributes to; None where it was learned whole.
        parity: for each ONNX file, the greatest absolute difference to the trained model, over sample inputs.
        files: SHA-256 of every other core file.
    """

    format_version: Literal[1] = 1
    shelver_version: str
    git_commit: str | None
    config: dict[str, Any]
    text: TextStage | None
    image: ImageStage | None
    head: HeadStage
    taxonomy_version: str
    calibration: Calibration
    base: str | None = None
    parity: dict[str, float]
    files: dict[str, str]

    @property
    def model_version(self) -> str:
        """Twelve hex digits over what decides the answers: same answers from the same files, same version."""
        decisive = self.model_dump(
            mode="json", include={"format_version", "text", "image", "head", "calibration", "files"}
        )
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]

    def core_files(self) -> tuple[str, ...]:
        """The files that a model with these stages runs from."""
        files = [TAXONOMY, LABELS, EMB2PROB, *([ATTRIBUTES] if self.head.attributes else ())]
        files += sorted({head.file for head in self.head.attributes} - {EMB2PROB})
        for part in self.text.parts if self.text else ():
            files += [part.file, *([NGRAMS] if part.ngrams else ()), *([part.tokens.file] if part.tokens else ())]
        files += [part.file for part in (self.image.parts if self.image else ()) if part.file is not None]
        return tuple(files)


def write_labels(
    path: Path, n_products: Mapping[str, int], values: Mapping[str, Mapping[str, int]] | None = None
) -> None:
    """Write how many training products each node id had, and each value of each attribute: reports tell frequent
    from rare labels by it."""
    record: dict[str, Any] = {"train_products": dict(n_products)}
    if values:
        record["train_values"] = {name: dict(counts) for name, counts in values.items()}
    path.write_text(json.dumps(record, sort_keys=True) + "\n", encoding="utf-8")


def read_values(folder: Path) -> dict[str, dict[str, int]]:
    """Training products by attribute and value."""
    record = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    values: dict[str, dict[str, int]] = record.get("train_values", {})
    return values


def read_labels(folder: Path) -> dict[str, int]:
    """Training products by node id."""
    counts: dict[str, int] = json.loads((folder / LABELS).read_text(encoding="utf-8"))["train_products"]
    return counts


def write_core(staged: Path, folder: Path, manifest: Manifest) -> None:
    """Move the staged core files into the model folder and seal them with the manifest.

    Args:
        staged: folder on the same file system that holds every file named in `manifest.files`.
        folder: the model folder.
        manifest: written last, by an atomic rename.

    Raises:
        ModelError: the folder already holds a model; a core never changes.
    """
    refuse_existing(folder)
    for name in manifest.files:
        with (staged / name).open("rb") as file:
            os.fsync(file.fileno())
        (staged / name).replace(folder / name)
    partial = folder / (MANIFEST + ".partial")
    with partial.open("w", encoding="utf-8") as text:
        text.write(json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n")
        text.flush()
        os.fsync(text.fileno())
    partial.replace(folder / MANIFEST)


def refuse_existing(folder: Path) -> None:
    """Raise ModelError where a model already stands in the folder."""
    if (folder / MANIFEST).exists():
        raise ModelError(
            f"{folder} already holds a model",
            allowed="a folder without manifest.json: the core of a model never changes",
            remedy="Name another --out folder, or remove this one first.",
        )


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read and check a model folder.

    Args:
        folder: the model folder.
        verify: also hash every core file.

    Raises:
        ModelError: no manifest, another format, or a core file that is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        unfinished = (folder / "run").is_dir()
        raise ModelError(
            f"{folder} holds no {MANIFEST}" + (", only an unfinished training run" if unfinished else ""),
            allowed="a model folder, as `shelver train` writes it",
            remedy="Finish the training with --resume." if unfinished else "Check the path.",
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(
            f"{path} cannot be read: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}",
            allowed="a manifest of format version 1",
            remedy="Use the shelver version that wrote it, or train the model again.",
        ) from error
    for name in manifest.core_files():
        if name not in manifest.files:
            raise ModelError(
                f"{path} does not list {name}",
                allowed="a manifest with the SHA-256 of every file that the model runs from",
                remedy="Copy the whole model folder again from its source.",
            )
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file() or (verify and sha256_of(file) != expected):
            raise ModelError(
                f"{file} is {'not the file that was exported' if file.is_file() else 'missing'}",
                allowed="the core files exactly as they were exported",
                remedy="Copy the whole model folder again from its source.",
            )
    return manifest
