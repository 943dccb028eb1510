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

from pydantic import BaseModel, ConfigDict, ValidationError

from shelver.calibrate import Calibration
from shelver.errors import ModelError
from shelver.folders import sha256_of
from shelver.images import ImageSpec
from shelver.ngrams import NgramSpec
from shelver.product import TextSpec

MANIFEST: Final = "manifest.json"
TAXONOMY: Final = "taxonomy.json"
LABELS: Final = "labels.json"
NGRAMS: Final = "ngrams.safetensors"
TEXT2EMB: Final = "text2emb.onnx"
IMAGE2EMB: Final = "image2emb.onnx"
EMB2PROB: Final = "emb2prob.onnx"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextStage(_Frozen):
    """How a text becomes an embedding."""

    encoder: Literal["ngram"]
    spec: TextSpec
    ngrams: NgramSpec
    width: int


class ImageStage(_Frozen):
    """How a picture becomes an embedding."""

    encoder: Literal["lite0"]
    spec: ImageSpec
    width: int


class HeadStage(_Frozen):
    """How embeddings become scores; `stops` are the ids of the inner nodes at which products may stop."""

    kind: Literal["tree"]
    stops: tuple[str, ...]


class Manifest(_Frozen):
    """What stands in `manifest.json`.

    Attributes:
        format_version: raised when an older shelver could not read the folder.
        shelver_version, git_commit: what wrote it; the commit is None outside a checkout.
        config: the training config, as JSON.
        text, image, head: the stages; a model without texts or pictures lacks that stage.
        taxonomy_version: `Taxonomy.version` of `taxonomy.json`.
        calibration: temperatures, applied to the scores of `emb2prob.onnx`.
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
        text = (NGRAMS, TEXT2EMB) if self.text else ()
        return (TAXONOMY, LABELS, EMB2PROB, *text, *((IMAGE2EMB,) if self.image else ()))


def write_labels(path: Path, n_products: Mapping[str, int]) -> None:
    """Write how many training products each node id had: reports tell frequent from rare labels by it."""
    path.write_text(json.dumps({"train_products": dict(n_products)}, sort_keys=True) + "\n", encoding="utf-8")


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
