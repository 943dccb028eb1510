"""The recipe: from a catalog to a model folder.

Read the products, embed their pictures, learn on train while validation says when to stop, calibrate on
validation, perhaps learn again on both, export each stage with its proof, and seal the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from shelver import __version__, registry
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, ModelError
from shelver.folders import refuse_file, sha256_of, writing_alone
from shelver.pipeline import Image2Emb
from shelver.registry import HeadStage, ImageStage, Manifest
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Say, read_examples
from shelver.train.embed import EmbeddingCache, ImageEmbedder
from shelver.train.export import export_head, export_text
from shelver.train.lite0 import LITE0_ID, WIDTH, export_lite0
from shelver.train.phases import Fitted, Trainer
from shelver.train.stages import choose_stages

RUN: Final = "run"


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        folder: the model folder.
        model_version: its name.
        choices: what was chosen where the config left it open, and why, as sentences.
        validation: figures on validation of the chosen weights; empty without a validation split.
        seconds: of this call.
        was_done: the folder was whole already, nothing was trained.
    """

    folder: Path
    model_version: str
    choices: tuple[str, ...]
    validation: dict[str, float]
    seconds: float
    was_done: bool = False


def train(
    catalog: Catalog,
    out: Path,
    config: TrainConfig,
    *,
    cache: Path,
    threads: int | None = None,
    resume: bool = False,
    say: Say = print,
) -> Trained:
    """Train a model and write its folder.

    Args:
        catalog: an ingested catalog with labelled products in its train split.
        out: the model folder; `out/run` keeps the record.
        config: what to do.
        cache: folder for picture embeddings, shared by all runs.
        threads: threads for the ONNX session that embeds pictures; all available cores by default.
        resume: go on with the run in `out/run`.
        say: receives progress, a line at a time.

    Raises:
        CatalogError: there is nothing to learn from.
        ConfigError: the config asks for what the catalog lacks, or differs from the run to resume.
        ModelError: `out` holds a model or an unfinished run already.
    """
    run = out / RUN
    refuse_file(out)
    if not resume:
        _refuse_strangers(out)
    run.mkdir(parents=True, exist_ok=True)
    with writing_alone(run):
        return _train(catalog, out, config, cache=cache, threads=threads, resume=resume, say=say)


def _train(
    catalog: Catalog,
    out: Path,
    config: TrainConfig,
    *,
    cache: Path,
    threads: int | None,
    resume: bool,
    say: Say,
) -> Trained:
    started = time.monotonic()
    run = out / RUN
    _open_run(run, out, catalog, config, resume=resume)
    if resume and (out / registry.MANIFEST).exists():
        manifest = registry.read_manifest(out)
        _tidy(run)
        return Trained(out, manifest.model_version, (), {}, time.monotonic() - started, was_done=True)
    progress = Checkpoints(run / "checkpoint").progress() or Progress()
    watch = Stopwatch(progress.elapsed_s)
    staged = run / "staged"
    # Whatever lies there becomes a core file, so nothing that a killed run left half written may.
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    parity: dict[str, float] = {}
    text, image, choices = choose_stages(catalog, config)
    for choice in choices:
        say(choice)
    embedder = None
    if image is not None:
        say(f"exporting {image.encoder} at {image.spec.width_px}x{image.spec.height_px} px")
        parity[registry.IMAGE2EMB] = export_lite0(
            staged / registry.IMAGE2EMB, image.spec.height_px, image.spec.width_px
        )
        embedder = _embedder(staged / registry.IMAGE2EMB, image, cache, threads)
    learned, held = (
        read_examples(
            catalog,
            split,
            text=text.spec if text else None,
            embedder=embedder,
            n_expected=catalog.info.by_split.get(split, 0),
            say=say,
        )
        for split in ("train", "validation")
    )
    if embedder is not None:
        embedder.close()
        say(
            f"pictures: {embedder.n_computed:,} embedded, {embedder.n_cached:,} from the cache, "
            f"{embedder.n_unusable:,} unusable"
        )
    if not len(learned):
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its train split",
            allowed="a catalog with a category for the products in train",
            remedy="Look at `shelver describe`, then check the mapping of the category column and the --split.",
        )
    trainer = Trainer(config, text, image, Checkpoints(run / "checkpoint"), watch, run, say)
    fitted = trainer.learn(learned, held, catalog.taxonomy, progress)

    say("exporting")
    manifest = _seal(out, staged, catalog, config, fitted, parity)
    _tidy(run)
    seconds = time.monotonic() - started
    return Trained(out, manifest.model_version, tuple(choices), fitted.chosen.validation, seconds)


def _refuse_strangers(out: Path) -> None:
    """A model folder holds a model and nothing else: a catalog or somebody's files in it would be written over."""
    registry.refuse_existing(out)
    found = {path.name for path in out.iterdir()} - {RUN} if out.is_dir() else set()
    if found and not (out / RUN / "config.json").is_file():
        raise ModelError(
            f"{out} holds other files, for example {min(found)}",
            allowed="a new or empty folder",
            remedy="Name another --out; nothing was touched.",
        )


def _tidy(run: Path) -> None:
    """Remove what only an unfinished run needs."""
    Checkpoints(run / "checkpoint").remove()
    shutil.rmtree(run / "staged", ignore_errors=True)


def _open_run(run: Path, out: Path, catalog: Catalog, config: TrainConfig, *, resume: bool) -> None:
    """Record what the run is, or check that the run to resume is the same."""
    record: dict[str, Any] = {"config": config.model_dump(mode="json"), "catalog": catalog.info.fingerprint}
    file = run / "config.json"
    if resume:
        if not file.is_file():
            raise ModelError(
                f"{out} holds no run to resume",
                allowed="the --out folder of a training that was cut off",
                remedy="Train without --resume.",
            )
        before = json.loads(file.read_text(encoding="utf-8"))
        if before != record:
            now, then = record["config"], before["config"]
            differing = sorted(f"{k} = {now[k]}, was {then.get(k)}" for k in now if then.get(k) != now[k])
            raise ConfigError(
                f"the run in {run} was started "
                + (f"with other settings ({'; '.join(differing)})" if differing else "on another catalog"),
                allowed="the same catalog and the same settings",
                remedy="Leave the flags out, since --resume knows them, or train into another folder.",
            )
        return
    # A run without a checkpoint, such as one refused for its settings, has lost nothing: it may start again.
    if file.is_file() and (run / "checkpoint").is_dir():
        raise ModelError(
            f"{out} holds an unfinished training",
            allowed="an empty --out folder, or --resume",
            remedy=f"Add --resume to go on with it, or remove {run}.",
        )
    partial = file.with_name("config.json.partial")
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(file)


def recorded_config(out: Path) -> TrainConfig | None:
    """The settings of the run in a model folder, or None where there is none."""
    file = out / RUN / "config.json"
    if not file.is_file():
        return None
    return TrainConfig.model_validate(json.loads(file.read_text(encoding="utf-8"))["config"])


def _seal(
    out: Path, staged: Path, catalog: Catalog, config: TrainConfig, fitted: Fitted, parity: dict[str, float]
) -> Manifest:
    """Export what is not exported yet, and write the core of the model folder."""
    text, image, groups = fitted.text, fitted.image, fitted.groups
    tree = catalog.taxonomy
    if text is not None and fitted.model.table is not None and fitted.vocabulary is not None:
        fitted.vocabulary.save(staged / registry.NGRAMS)
        parity[registry.TEXT2EMB] = export_text(fitted.model.table, staged / registry.TEXT2EMB)
    parity[registry.EMB2PROB] = export_head(
        fitted.model.head,
        staged / registry.EMB2PROB,
        text_width=text.width if text else None,
        image_width=image.width if image else None,
    )
    tree.save(staged / registry.TAXONOMY)
    nodes, counts = np.unique(fitted.nodes, return_counts=True)
    seen = {tree.ids[k]: n for k, n in zip(nodes.tolist(), counts.tolist(), strict=True)}
    registry.write_labels(staged / registry.LABELS, seen)
    stops = np.flatnonzero(groups.here_slot >= 0).tolist()
    manifest = Manifest(
        shelver_version=__version__,
        git_commit=_git_commit(),
        config=config.model_dump(mode="json"),
        text=text,
        image=image,
        head=HeadStage(kind=config.head, stops=tuple(tree.ids[k] for k in stops)),
        taxonomy_version=tree.version,
        calibration=fitted.chosen.calibration,
        parity=parity,
        files={file.name: sha256_of(file) for file in sorted(staged.iterdir())},
    )
    registry.write_core(staged, out, manifest)
    return manifest


def _git_commit() -> str | None:
    """The commit of the checkout that this module stands in, or None outside one."""
    git = shutil.which("git")
    if git is None:
        return None
    package = Path(__file__).parents[1]
    call = [git, "-C", str(package), "rev-parse", "--show-toplevel", "HEAD"]
    found = subprocess.run(call, capture_output=True, text=True, check=False).stdout.split("\n")  # noqa: S603
    # Installed into an environment inside somebody's own repository, that repository's commit would be a lie.
    return found[1] if len(found) > 1 and Path(found[0]) == package.parent else None


def _embedder(path: Path, image: ImageStage, cache: Path, threads: int | None) -> ImageEmbedder:
    spec = image.spec.model_dump_json()
    name = f"{LITE0_ID}-{hashlib.sha256(spec.encode()).hexdigest()[:12]}"
    return ImageEmbedder(
        Image2Emb.open(path, image.spec, WIDTH, threads=threads),
        EmbeddingCache(cache / "embeddings" / name, WIDTH),
    )
