"""The folder of an extractor: `extractor.json` and `weights.safetensors`.

The JSON file says the format, the spec, the attributes of each category and the SHA-256 of the other; it is
written last, so its presence means that the folder is whole. Weights that are 0 are not stored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shelver.errors import InputError, ModelError
from shelver.extract.known import N_FACTS, Known
from shelver.extract.learn import Learned
from shelver.extract.schema import ExtractSpec, Schema
from shelver.folders import refuse_file, writing_alone

DESCRIPTION: Final = "extractor.json"
WEIGHTS: Final = "weights.safetensors"
FORMAT: Final = "shelver-extractor"

_SPARSE: Final = ("shared", "own", "hits", "seen")
_DENSE: Final = ("features", "values", "facts", "none")


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shelver-extractor"]
    version: Literal[1]
    spec: ExtractSpec
    attributes: dict[str, tuple[str, ...]]
    n_features: int
    n_values: int
    weights_sha256: str


def write_folder(folder: Path, schema: Schema, spec: ExtractSpec, learned: Learned) -> None:
    """Write an extractor; see `Extractor.save`."""
    refuse_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in {DESCRIPTION, WEIGHTS})
    if foreign:
        raise InputError(
            f"{folder} holds {foreign[0]}, which is no part of an extractor",
            allowed="a new or empty folder, or an extractor's",
            remedy="Name another --out.",
        )
    known = learned.known
    tensors: dict[str, NDArray[Any]] = {
        "features": learned.features,
        "values": known.values,
        "facts": learned.facts,
        "none": learned.none,
    }
    tables = {"shared": learned.shared, "own": learned.own, "hits": known.hits, "seen": known.seen}
    for name, table in tables.items():
        row, column = np.nonzero(table)
        tensors[f"{name}.row"] = row.astype(np.uint32)
        tensors[f"{name}.column"] = column.astype(np.uint16)
        tensors[f"{name}.value"] = table[row, column]
    # Their order decides the bytes.
    written = save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})
    described = _Description(
        format="shelver-extractor",
        version=1,
        spec=spec,
        attributes=schema.attributes,
        n_features=len(learned.features),
        n_values=len(known.values),
        weights_sha256=hashlib.sha256(written).hexdigest(),
    )
    with writing_alone(folder):
        (folder / DESCRIPTION).unlink(missing_ok=True)
        (folder / WEIGHTS).write_bytes(written)
        text = json.dumps(described.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def read_folder(folder: Path) -> tuple[Schema, ExtractSpec, Learned]:
    """Read an extractor; see `Extractor.open`."""
    try:
        text = (folder / DESCRIPTION).read_text(encoding="utf-8")
        written = (folder / WEIGHTS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(folder, f"{folder} is no extractor: {type(error).__name__}") from error
    try:
        described = _Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or DESCRIPTION
        raise _refused(folder, f"{folder / DESCRIPTION}: {where}: {first['msg']}") from error
    if hashlib.sha256(written).hexdigest() != described.weights_sha256:
        raise _refused(folder, f"{folder / WEIGHTS} is not the file that {DESCRIPTION} names")
    schema = Schema(described.attributes)
    try:
        tensors = load(written)
        learned = _learned(tensors, described, schema)
    except (SafetensorError, KeyError, IndexError, ValueError) as error:
        raise _refused(folder, f"{folder / WEIGHTS}: {error}") from error
    return schema, described.spec, learned


def _learned(tensors: dict[str, NDArray[Any]], described: _Description, schema: Schema) -> Learned:
    n, n_values, n_names, n_pairs = described.n_features, described.n_values, len(schema.names), schema.n_pairs
    shapes = {"features": (n,), "values": (n_values,), "facts": (N_FACTS, n_pairs), "none": (n_pairs,)}
    for name in _DENSE:
        if tensors[name].shape != shapes[name]:
            raise ValueError(f"{name} has the shape {tensors[name].shape}, not {shapes[name]}")
    widths = {
        "shared": (n, n_names),
        "own": (n, n_pairs),
        "hits": (n_values, n_pairs),
        "seen": (n_values, n_pairs),
    }
    tables = {}
    for name in _SPARSE:
        value = tensors[f"{name}.value"]
        table = np.zeros(widths[name], value.dtype)
        table[tensors[f"{name}.row"], tensors[f"{name}.column"]] = value
        tables[name] = table
    known = Known.of(tensors["values"], tables["hits"], tables["seen"], schema)
    return Learned(known, tensors["features"], tables["shared"], tables["own"], tensors["facts"], tensors["none"])


def _refused(folder: Path, received: str) -> ModelError:
    return ModelError(
        received,
        allowed=f"a folder with {DESCRIPTION} and {WEIGHTS}, as `shelver extract fit` writes it",
        remedy=f"Check the path, or learn it again: shelver extract fit DATA --out {folder}",
    )
