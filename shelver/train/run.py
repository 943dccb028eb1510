"""The recipe: from a catalog to a model folder.

Read the products, embed their pictures, learn on train while validation says when to stop, calibrate on
validation, perhaps learn again on both, export each stage with its proof, and seal the folder.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from shelver import registry
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError
from shelver.folders import refuse_file, writing_alone
from shelver.images import ImageSpec, View
from shelver.pipeline import Image2Emb, sibling_groups
from shelver.registry import ImagePart, ImageStage, TextPart
from shelver.train import workers
from shelver.train.build import colour_columns
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Examples, Say, read_examples
from shelver.train.embed import ImageEmbedder
from shelver.train.embed_text import embed_texts
from shelver.train.folder import RUN, open_run, refuse_strangers, staging, tidy
from shelver.train.hf_text import export_hf_text
from shelver.train.image_encoders import CALIBRATION_PICTURES, calibration_pictures, export_image_part
from shelver.train.lite0 import Lite0
from shelver.train.phases import Trainer
from shelver.train.seal import seal
from shelver.train.sets import Sets, Source
from shelver.train.stages import Settled, settle
from shelver.train.tasks import learnable
from shelver.train.tune import tune_lite0
from shelver.train.tune_text import export_tuned, tuned_text
from shelver.train.use import export_use
from shelver.train.weighing import choose_ngrams


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
    catalogs: Catalog | Sequence[Catalog],
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
        catalogs: an ingested catalog with labelled products in its train split, or several of them (see `Sets`).
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
    several = [catalogs] if isinstance(catalogs, Catalog) else list(catalogs)
    catalog: Source = several[0] if len(several) == 1 else Sets(several)
    run = out / RUN
    workers.join(workers.device_for(config.device))
    try:
        if workers.rank():
            workers.meet()  # the first one has the folder, and speaks for all
            return _train(catalog, out, config, cache=cache, threads=threads, resume=resume, say=_quiet)
        refuse_file(out)
        if not resume:
            refuse_strangers(out)
        run.mkdir(parents=True, exist_ok=True)
        with writing_alone(run):
            record = {"config": config.model_dump(mode="json"), "catalog": catalog.info.fingerprint}
            open_run(out, record, resume=resume)
            workers.meet()
            return _train(catalog, out, config, cache=cache, threads=threads, resume=resume, say=say)
    finally:
        workers.leave()


def _quiet(line: str) -> None:
    """One of several processes says nothing of its own."""


def _train(
    catalog: Source,
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
            tidy(run)
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
    with staging(run) as staged:
        parity: dict[str, float] = {}
        with workers.first_alone():
            text, image = _export_frozen(
                catalog, config, settled, staged, parity, cache=cache, threads=threads, say=say
            )
            learned, held = _read(catalog, config, text, image, staged, cache=cache, threads=threads, say=say)
        vocabulary, said = learnable(learned.said, catalog.vocabulary, config.attributes)
        for choice in said:
            say(choice)
        settled = replace(settled, choices=(*settled.choices, *said))
        learned, held = (part.labelled(vocabulary.attributes) for part in (learned, held))
        if not (learned.node >= 0).any():
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
            replace(settled.plan, colour=colour_columns(image)),
            catalog.taxonomy,
            vocabulary,
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
        manifest = seal(out, staged, catalog.taxonomy, config, settled, fitted, text, image, learned, parity)
    tidy(run)
    seconds = time.monotonic() - started
    return Trained(out, manifest.model_version, settled.choices, fitted.chosen.validation, seconds)


def _export_frozen(
    catalog: Source,
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
        looked: View = "crop" if "crop" in said else "box" if "box" in said else "fit"
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
    catalog: Source,
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
    catalog: Source,
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
