"""The way of a fine-tuning from a catalog to weights, and its place on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from shelver.attributes import Attribute
from shelver.catalog.split import Part
from shelver.errors import CatalogError, ConfigError
from shelver.folders import sha256_of, writing_alone
from shelver.images import ImageSpec, View
from shelver.taxonomy import SiblingGroups
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.data import Say
from shelver.train.lite0 import LITE0_ID, Lite0, load_lite0
from shelver.train.sets import Source
from shelver.train.tune.loop import JUDGED_EACH_EPOCH, MAX_JUDGED, Judged, Tuner
from shelver.train.tune.network import Network
from shelver.train.tune.pictures import Inputs, prepare
from shelver.train.tune.spec import TuneSpec

MAX_CACHE_BYTES: Final = 16 << 30
"""Disk that activations may take; of more pictures than that, the frozen blocks are run at every step."""
DONE: Final = "tuned.json"
WEIGHTS: Final = "tuned.safetensors"


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned encoder.

    Attributes:
        model: in evaluation mode; `export_lite0(..., model=...)` writes it as ONNX.
        weights: its safetensors file; `open_tuned` reads it.
        weights_sha256: of that file. Name caches of embeddings after it.
        validation: accuracy and macro-F1 of the head it was tuned with, each product's features averaged over its
            pictures; empty without labelled pictures in the validation split, or where that was learned from.
        seconds: of all runs together.
    """

    model: Lite0
    weights: Path
    weights_sha256: str
    validation: dict[str, float]
    seconds: float


def tune_lite0(
    catalog: Source,
    groups: SiblingGroups,
    spec: ImageSpec,
    tune: TuneSpec,
    *,
    view: View = "fit",
    work: Path,
    seed: int,
    threads: int | None,
    say: Say,
    splits: Sequence[Part] = ("train",),
    device: torch.device | None = None,
) -> Tuned:
    """Tune the encoder, or go on where a killed run stopped, or open what the same call has made before.

    On a CPU the weights are the same to the bit, however often the run was cut off.

    Args:
        catalog: labelled products with pictures.
        groups: of the catalog's tree; labels are its nodes.
        spec: the size that the encoder will be used at.
        tune: the recipe.
        view: which part of a picture the encoder will see.
        work: folder for states and activations (3 bytes a training pixel, 6 with `mirror`, removed at the end).
            Calls may share it: each takes a folder in it, named after all that decides its result.
        seed: decides the order of the pictures and all dropout.
        threads: of torch on the CPU; None leaves them as they are.
        say: told about rate and time left.
        splits: what to learn from.
        device: where to compute; the CPU by default. Others use mixed precision.

    Raises:
        CatalogError: there is no labelled picture to learn from.
        InputError: another process is doing the same.
        MissingExtraError, ModelError: the published weights are not there, or are others.
    """
    device = device or torch.device("cpu")
    record = {
        "catalog": catalog.info.fingerprint,
        "labels": groups.taxonomy.version,
        "encoder": LITE0_ID,
        "spec": spec.model_dump(mode="json"),
        "view": view,
        "tune": tune.model_dump(mode="json"),
        "seed": seed,
        "splits": list(splits),
        "device": device.type,
    }
    folder = work / hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    with writing_alone(folder):
        try:
            torch.set_num_threads(threads or before)
            if not (folder / DONE).is_file():
                progress = Checkpoints(folder / "checkpoint").progress()
                watch = Stopwatch(progress.elapsed_s if progress else 0.0)
                tuner = _prepared(catalog, spec, view, tune, folder, seed, say, tuple(splits), device)
                _run(tuner, catalog, spec, view, folder, record, watch, judged="validation" not in splits)
        finally:
            torch.set_num_threads(before)
    note = json.loads((folder / DONE).read_text(encoding="utf-8"))
    weights = folder / WEIGHTS
    return Tuned(open_tuned(weights), weights, note["sha256"], note["validation"], note["seconds"])


def open_tuned(weights: Path) -> Lite0:
    """Tuned weights as an encoder, frozen and in evaluation mode."""
    model = Lite0()
    model.load_state_dict(load_file(weights))
    return model.eval().requires_grad_(False)


def _prepared(
    catalog: Source,
    spec: ImageSpec,
    view: View,
    tune: TuneSpec,
    folder: Path,
    seed: int,
    say: Say,
    splits: tuple[Part, ...],
    device: torch.device,
) -> Tuner:
    """Everything that a run needs, before its first step."""
    attributes = _attributes(catalog, tune)
    encoder = load_lite0().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def network(n_scores: int) -> Network:
        made = Network(
            encoder, n_scores, n_frozen=tune.frozen_blocks, dropout=tune.dropout, drop_path=tune.drop_path
        )
        return made.to(device)

    probe = network(1).eval()
    n_products = sum(catalog.info.by_split.get(split, 0) for split in splits)
    n_full = min(tune.full_epochs, tune.epochs)
    small = tune.train_size(spec)
    # The head is fitted at the size of the first epoch, so there is one even where nothing else is tuned.
    sizes = [small] * (tune.epochs - n_full) + [spec] * n_full or [spec]
    by_size: dict[ImageSpec, Inputs] = {}
    # Crops are cut from the pictures at the size in use, whatever size an epoch sees them at.
    kept = [spec] * len(sizes) if tune.crops is not None else sizes
    for size in dict.fromkeys(kept):
        # 24 channels of 2 bytes for each cell of 4x4 px, in the usual case.
        n_bytes = n_products * size.height_px * size.width_px * 3 * (2 if tune.mirror else 1)
        cached = tune.crops is None and n_bytes <= MAX_CACHE_BYTES
        by_size[size] = prepare(
            folder / "inputs" / f"{size.height_px}x{size.width_px}",
            catalog,
            splits,
            size,
            view=view,
            attributes=attributes,
            frozen=(lambda pixels: probe.frozen(pixels.to(device))) if cached else None,
            mirror=tune.mirror,
            say=say,
        )
    inputs = tuple(by_size[size] for size in kept)
    if not len(inputs[0]):
        raise CatalogError(
            f"{catalog.folder} has no labelled product with a usable picture in {', '.join(splits)}",
            allowed="products with a category and a picture to learn from",
            remedy="Look at `shelver describe`, or leave the picture encoder as it is.",
        )
    nodes = np.unique(inputs[0].labels[:, 0])
    torch.manual_seed(seed)
    n_scores = len(nodes) + sum(len(attribute.values) for attribute in attributes)
    return Tuner(network(n_scores), inputs, tuple(sizes), nodes, tune, seed, device, say, attributes)


def _attributes(catalog: Source, tune: TuneSpec) -> tuple[Attribute, ...]:
    """Those that the recipe names, with the values that the catalog knows."""
    known = catalog.vocabulary.by_name
    for name in tune.attributes:
        if name not in known or known[name].multi or not known[name].values:
            raise ConfigError(
                f"tune.attributes names {name!r}, "
                + ("which takes several values" if name in known and known[name].multi else "which is not known"),
                allowed="attributes of one value in the catalog's vocabulary: "
                + (", ".join(n for n, a in known.items() if not a.multi and a.values) or "there are none"),
                remedy="Leave it out, or ingest the catalog with a mapping for its column.",
            )
    return tuple(known[name] for name in tune.attributes)


def _run(
    tuner: Tuner,
    catalog: Source,
    spec: ImageSpec,
    view: View,
    folder: Path,
    record: dict[str, Any],
    watch: Stopwatch,
    *,
    judged: bool,
) -> None:
    """Train from the last state on, and write the weights and the note that says they are whole."""
    checkpoints = Checkpoints(folder / "checkpoint")
    progress = checkpoints.progress()
    optimizer = tuner.optimizer()
    if progress is None:
        tuner.fit_head()
        progress = Progress(elapsed_s=watch.elapsed_s())
        checkpoints.save(progress, tuner.network, [optimizer])
    else:
        checkpoints.restore(tuner.network, [optimizer])
    few = Judged.of(catalog, spec, view, JUDGED_EACH_EPOCH if judged else 0, tuner.attributes)
    tuner.learn(progress, optimizer, checkpoints, watch, few)
    validation = tuner.judge(Judged.of(catalog, spec, view, MAX_JUDGED if judged else 0, tuner.attributes))
    state = {name: value.cpu().contiguous() for name, value in tuner.network.encoder.state_dict().items()}
    partial = folder / (WEIGHTS + ".partial")
    save_file(state, partial)
    partial.replace(folder / WEIGHTS)
    note = {
        "run": record,
        "sha256": sha256_of(folder / WEIGHTS),
        "validation": validation,
        "seconds": watch.elapsed_s(),
    }
    partial = folder / (DONE + ".partial")
    partial.write_text(json.dumps(note, indent=1), encoding="utf-8")
    partial.replace(folder / DONE)
    checkpoints.remove()
    shutil.rmtree(folder / "inputs")
