"""The recipe: from a catalog to a model folder.

Read the products, embed their pictures, learn on train while validation says when to stop, calibrate on
validation, perhaps learn again on both, export each stage with its proof, and seal the folder.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from shelver import __version__, registry
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, ModelError
from shelver.folders import refuse_file, sha256_of, writing_alone
from shelver.images import ImageSpec, View
from shelver.pipeline import Image2Emb, Text2Emb, sibling_groups
from shelver.registry import HeadStage, ImagePart, ImageStage, Manifest, TextPart, TextStage
from shelver.train import workers
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Examples, Say, read_examples
from shelver.train.embed import ImageEmbedder
from shelver.train.embed_text import embed_texts
from shelver.train.export import export_head, export_ngrams
from shelver.train.hf_text import export_hf_text
from shelver.train.image_encoders import CALIBRATION_PICTURES, calibration_pictures, export_image_part
from shelver.train.lite0 import Lite0
from shelver.train.phases import Fitted, Trainer
from shelver.train.stages import Settled, settle
from shelver.train.tune import tune_lite0
from shelver.train.tune_text import export_tuned, tuned_text
from shelver.train.use import export_use
from shelver.train.weighing import choose_ngrams

RUN: Final = "run"
PROBES: Final = 16
"""Training products that the exported head is compared on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training.

    Attributes:
        folder: the model folder.
        model_version: its name; empty in a process that helped the first one.
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
        threads: threads for networks, in training and in ONNX Runtime; all available cores by default.
        resume: go on with the run in `out/run`.
        say: receives progress, a line at a time.

    Raises:
        CatalogError: there is nothing to learn from.
        ConfigError: the config asks for what the catalog lacks, or differs from the run to resume.
        ModelError: `out` holds a model or an unfinished run already.
    """
    run = out / RUN
    workers.join(workers.device_for(config.device))
    try:
        if workers.rank():
            workers.meet()  # the first one has the folder, and speaks for all
            return _train(catalog, out, config, cache=cache, threads=threads, resume=resume, say=_quiet)
        refuse_file(out)
        if not resume:
            _refuse_strangers(out)
        run.mkdir(parents=True, exist_ok=True)
        with writing_alone(run):
            _open_run(run, out, catalog, config, resume=resume)
            workers.meet()
            return _train(catalog, out, config, cache=cache, threads=threads, resume=resume, say=say)
    finally:
        workers.leave()


def _quiet(line: str) -> None:
    """One of several processes says nothing of its own."""


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
    if resume and (out / registry.MANIFEST).exists():
        manifest = registry.read_manifest(out)
        workers.meet()
        if not workers.rank():
            _tidy(run)
        return Trained(out, manifest.model_version, (), {}, time.monotonic() - started, was_done=True)
    device = workers.device_for(config.device)
    if threads is not None:
        torch.set_num_threads(threads)
    progress = Checkpoints(run / "checkpoint").progress() or Progress()
    watch = Stopwatch(progress.elapsed_s)
    settled = settle(catalog, config)
    for choice in settled.choices:
        say(choice)
    # Processes that train together each stage files of their own; only the first one's become a model.
    with _staging(run) as staged:
        parity: dict[str, float] = {}
        with workers.first_alone():
            text, image = _export_frozen(
                catalog, config, settled, staged, parity, cache=cache, threads=threads, say=say
            )
            learned, held = _read(catalog, config, text, image, staged, cache=cache, threads=threads, say=say)
        if not len(learned):
            raise CatalogError(
                f"{catalog.folder} has no labelled product in its train split",
                allowed="a catalog with a category for the products in train",
                remedy="Look at `shelver describe`, then check the category column's mapping and the --split.",
            )
        if settled.plan.ngrams is not None and config.ngrams is None:
            texts, nodes = [*learned.texts, *held.texts], np.concatenate([learned.node, held.node])
            spec, why = choose_ngrams(settled.plan, catalog.taxonomy, texts, nodes, seed=config.seed)
            say(why)
            settled = replace(settled, plan=settled.plan.with_ngrams(spec), choices=(*settled.choices, why))
        trainer = Trainer(
            config,
            settled.plan,
            catalog.taxonomy,
            settled.folds,
            settled.refit,
            settled.epochs,
            Checkpoints(run / "checkpoint"),
            watch,
            run,
            device,
            say,
        )
        fitted = trainer.learn(learned, held, progress)
        seconds = time.monotonic() - started
        if workers.rank():
            return Trained(out, "", settled.choices, fitted.chosen.validation, seconds)
        say("exporting")
        manifest = _seal(out, staged, catalog, config, settled, fitted, text, image, learned, parity)
    _tidy(run)
    seconds = time.monotonic() - started
    return Trained(out, manifest.model_version, settled.choices, fitted.chosen.validation, seconds)


@contextmanager
def _staging(run: Path) -> Iterator[Path]:
    """A folder for the files that become the core; whatever lay there is gone first, so that nothing that a killed
    run left half written becomes a part of it."""
    staged = run / ("staged" if not workers.rank() else f"staged-{workers.rank()}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    yield staged
    shutil.rmtree(staged, ignore_errors=True)


def _export_frozen(
    catalog: Catalog,
    config: TrainConfig,
    settled: Settled,
    staged: Path,
    parity: dict[str, float],
    *,
    cache: Path,
    threads: int | None,
    say: Say,
) -> tuple[tuple[TextPart, ...], ImageStage | None]:
    """Export the encoders that do not learn with the head: the frozen text parts and the picture stage."""
    text: list[TextPart] = []
    for number, name in enumerate(name for name in settled.text_parts if name != "ngram"):
        encoder, _, tuned = name.partition("@")
        say(f"exporting the text encoder {name}")
        if tuned:
            made = tuned_text(
                catalog,
                encoder,
                config.tune_text,
                config.text,
                work=cache / "tuned",
                seed=config.seed,
                threads=threads,
                say=say,
                device=workers.device_for(config.device),
            )
            text.append(export_tuned(made, staged, number, parity=parity))
        elif encoder == "use":
            text.append(export_use(staged, number, parity=parity))
        else:
            text.append(export_hf_text(encoder, staged, number, parity=parity))
    parts: list[ImagePart] = []
    for number, name in enumerate(settled.image_parts):
        assert settled.image is not None
        encoder, *said = name.split("@")
        say(f"exporting the picture encoder {name} at {settled.image.width_px}x{settled.image.height_px} px")
        looked: View = "crop" if "crop" in said else "fit"
        model = None
        if "tuned" in said:
            model = _tuned(catalog, config, settled.image, looked, cache=cache, threads=threads, say=say)
        calibration = None
        if config.precision == "int8" and encoder != "colour":
            sample = (data for batch in catalog.products("train") for p in batch for data in p.images)
            few = list(itertools.islice(sample, CALIBRATION_PICTURES))
            calibration = calibration_pictures(few, looked, settled.image)
        parts.append(
            export_image_part(
                encoder,
                settled.image,
                staged,
                number,
                view=looked,
                precision="fp32" if encoder == "colour" else config.precision,
                model=model,
                calibration=calibration,
                parity=parity,
            )
        )
    return tuple(text), ImageStage(parts=tuple(parts)) if parts else None


def _tuned(
    catalog: Catalog,
    config: TrainConfig,
    spec: ImageSpec,
    view: View,
    *,
    cache: Path,
    threads: int | None,
    say: Say,
) -> Lite0:
    """The picture encoder fine-tuned on the catalog, or as an earlier run with the same recipe left it."""
    tree = catalog.taxonomy
    groups = sibling_groups(tree, [tree.ids[k] for k in np.flatnonzero(~tree.is_leaf).tolist()])
    tuned = tune_lite0(
        catalog,
        groups,
        spec,
        config.tune,
        view=view,
        work=cache / "tuned",
        seed=config.seed,
        threads=threads,
        say=say,
        device=workers.device_for(config.device),
    )
    return tuned.model


def _read(
    catalog: Catalog,
    config: TrainConfig,
    text: tuple[TextPart, ...],
    image: ImageStage | None,
    staged: Path,
    *,
    cache: Path,
    threads: int | None,
    say: Say,
) -> tuple[Examples, Examples]:
    """Train and validation, embedded by the frozen encoders."""
    uses_text = config.text_encoder != "none"
    embedder = ImageEmbedder(Image2Emb.open(staged, image, threads=threads), cache) if image is not None else None
    splits: list[Examples] = []
    for split in ("train", "validation"):
        examples = read_examples(
            catalog,
            split,
            text=config.text if uses_text else None,
            embedder=embedder,
            n_expected=catalog.info.by_split.get(split, 0),
            say=say,
        )
        vectors = [
            embed_texts(part, staged, examples.texts, cache=cache, threads=threads, say=say) for part in text
        ]
        splits.append(replace(examples, frozen=np.concatenate(vectors, axis=1)) if vectors else examples)
    if embedder is not None:
        embedder.close()
        say(
            f"pictures: {embedder.n_computed:,} embedded, {embedder.n_cached:,} from the cache, "
            f"{embedder.n_unusable:,} unusable"
        )
    return splits[0], splits[1]


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
    for left in run.glob("staged*"):
        shutil.rmtree(left, ignore_errors=True)


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
    out: Path,
    staged: Path,
    catalog: Catalog,
    config: TrainConfig,
    settled: Settled,
    fitted: Fitted,
    frozen: tuple[TextPart, ...],
    image: ImageStage | None,
    learned: Examples,
    parity: dict[str, float],
) -> Manifest:
    """Export what learned, and write the core of the model folder."""
    tree, built = catalog.taxonomy, fitted.built
    model = built.model.to("cpu")
    parts = frozen
    if built.vocabulary is not None:
        file = registry.part_file("text2emb", len(frozen))
        built.vocabulary.save(staged / registry.NGRAMS)
        parity[file] = export_ngrams(model.table, built.linear, staged / file)
        width = (settled.plan.text_width if model.table is not None else 0) + (
            len(built.labels) if built.linear is not None else 0
        )
        parts = (
            *frozen,
            TextPart(encoder="ngram", source=None, file=file, width=width, ngrams=settled.plan.ngrams),
        )
    text = TextStage(spec=config.text, parts=parts) if parts else None
    examples = learned.rows(np.arange(min(len(learned), PROBES)))
    parity[registry.EMB2PROB] = export_head(
        model.head,
        staged / registry.EMB2PROB,
        text=Text2Emb.open(staged, text)(examples.texts).values if text is not None else None,
        image=examples.image.values.astype(np.float32) if examples.image is not None else None,
    )
    tree.save(staged / registry.TAXONOMY)
    nodes, counts = np.unique(fitted.nodes, return_counts=True)
    seen = {tree.ids[k]: n for k, n in zip(nodes.tolist(), counts.tolist(), strict=True)}
    registry.write_labels(staged / registry.LABELS, seen)
    stops = np.flatnonzero(fitted.groups.here_slot >= 0).tolist()
    manifest = Manifest(
        shelver_version=__version__,
        git_commit=_git_commit(),
        config=config.model_dump(mode="json"),
        text=text,
        image=image,
        head=HeadStage(kind=settled.plan.head, stops=tuple(tree.ids[k] for k in stops)),
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
