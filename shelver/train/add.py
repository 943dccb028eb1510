"""Attributes added to a trained model: what it knows stays as it is, to the bit.

The model's own encoders, learned n-grams included, are frozen and read the products; new experts learn the new
attributes from these embeddings. They stand in files of their own beside those of the model, so nothing that was
learned is forgotten, and nothing is learned twice.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from shelver import __version__, registry
from shelver.attributes import EMPTY
from shelver.attributes import Vocabulary as Attributes
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, ModelError
from shelver.folders import refuse_file, sha256_of, writing_alone
from shelver.ngrams import Vocabulary
from shelver.pipeline import Image2Emb, Text2Emb
from shelver.registry import AttributeHead, Manifest, TextPart, TextStage
from shelver.taxonomy import Taxonomy
from shelver.train import workers
from shelver.train.build import Plan, colour_columns
from shelver.train.checkpoint import Checkpoints, Progress, Stopwatch
from shelver.train.config import TrainConfig
from shelver.train.data import Examples, Say, read_examples
from shelver.train.embed import ImageEmbedder
from shelver.train.embed_text import embed_texts
from shelver.train.export import export_head, export_ngrams
from shelver.train.folder import RUN, open_run, refuse_strangers, staging, tidy
from shelver.train.phases import Fitted, Trainer, value_counts
from shelver.train.run import Trained
from shelver.train.seal import PROBES, git_commit
from shelver.train.sets import Sets, Source, on_tree
from shelver.train.stages import REFIT, WIDE
from shelver.train.tasks import is_known, learnable

CHUNK_TEXTS: Final = 1024
ADDED_EPOCHS: Final = 5
"""Where the config says nothing: encoders have learned already, and what reads them learns quickly."""


def add_attributes(
    catalogs: Catalog | Sequence[Catalog],
    out: Path,
    config: TrainConfig,
    *,
    base: Path,
    names: Sequence[str],
    cache: Path,
    threads: int | None = None,
    resume: bool = False,
    say: Say = print,
) -> Trained:
    """Learn attributes on top of a model, and write a model folder that knows them too.

    Args:
        catalogs: products that are labelled with the new attributes; a category is not needed.
        out: the new model folder.
        config: how the new experts learn; what concerns encoders is the base's.
        base: the model to start from; it is read only.
        names: the attributes to add.
        cache: folder for embeddings, shared by all runs.
        threads: for networks.
        resume: go on with the run in `out/run`.
        say: receives progress, a line at a time.

    Raises:
        ConfigError: the model knows an attribute already, or the catalogs lack its labels.
        CatalogError: no labelled product has anything that the model can read.
        ModelError: `base` is no model, or `out` holds one or an unfinished run already.
    """
    started = time.monotonic()
    several = [catalogs] if isinstance(catalogs, Catalog) else list(catalogs)
    source: Source = several[0] if len(several) == 1 else Sets(several)
    manifest = registry.read_manifest(base)
    known = Attributes.load(base / registry.ATTRIBUTES) if manifest.head.attributes else EMPTY
    again = [name for name in names if name in known.by_name]
    if again or not names:
        raise ConfigError(
            f"attribute {again[0]!r} to add to {base}, which knows it" if again else "no attribute to add",
            allowed="names of attributes that the model does not know; it knows "
            + (", ".join(known.by_name) or "none"),
            remedy="Leave it out. To learn it anew, train a model without --base.",
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "attributes to add, in several processes",
            allowed="one process: new experts are small",
            remedy="Run `shelver train` without torchrun.",
        )
    if threads is not None:
        torch.set_num_threads(threads)
    refuse_file(out)
    run = out / RUN
    if resume and (out / registry.MANIFEST).exists():
        done = registry.read_manifest(out)
        if done.base != manifest.model_version or not set(names) <= {head.name for head in done.head.attributes}:
            raise ModelError(
                f"{out} holds another model",
                allowed="the --out folder of this very run",
                remedy="Name another --out, or leave --resume out to start anew elsewhere.",
            )
        tidy(run)
        return Trained(out, done.model_version, (), {}, time.monotonic() - started, was_done=True)
    if not resume:
        refuse_strangers(out)
    run.mkdir(parents=True, exist_ok=True)
    config = config.model_copy(update={"attributes": tuple(names)})
    with writing_alone(run):
        record = {"config": config.model_dump(mode="json"), "catalog": source.info.fingerprint}
        open_run(out, {**record, "base": manifest.model_version}, resume=resume)
        progress = Checkpoints(run / "checkpoint").progress() or Progress()
        watch = Stopwatch(progress.elapsed_s)
        with staging(run) as staged:
            splits = [
                _read(source, base, manifest, "train", cache=cache, threads=threads, say=say),
                _read(source, base, manifest, "validation", cache=cache, threads=threads, say=say),
            ]
            vocabulary, choices = learnable(splits[0].said, source.vocabulary, names)
            tree = Taxonomy.load(base / registry.TAXONOMY)
            there = tuple(on_tree(attribute, source.taxonomy, tree) for attribute in vocabulary.attributes)
            vocabulary = Attributes(attributes=there)
            for choice in choices:
                say(choice)
            learned, held = (part.labelled(vocabulary.attributes) for part in splits)
            # The category is the base's affair: only the new attributes' labels count.
            learned, held = (_of_attributes_alone(part) for part in (learned, held))
            if not len(learned):
                raise CatalogError(
                    f"{source.folder} has no product labelled with {', '.join(names)} in its train split",
                    allowed="a catalog with labels of the attributes to add",
                    remedy="Look at `shelver describe`.",
                )
            trainer = _trainer(base, manifest, config, vocabulary, len(learned) + len(held), run, watch, say)
            fitted = trainer.learn(learned, held, progress)
            say("exporting")
            new = _seal(out, staged, base, manifest, known, fitted, learned)
        tidy(run)
    return Trained(out, new.model_version, tuple(choices), fitted.chosen.validation, time.monotonic() - started)


def _read(
    source: Source,
    base: Path,
    manifest: Manifest,
    split: Part,
    *,
    cache: Path,
    threads: int | None,
    say: Say,
) -> Examples:
    """A split, embedded by the base's own stages."""
    embedder = None
    if manifest.image is not None:
        embedder = ImageEmbedder(Image2Emb.open(base, manifest.image, threads=threads), cache)
    examples = read_examples(
        source,
        split,
        text=manifest.text.spec if manifest.text is not None else None,
        embedder=embedder,
        n_expected=source.info.by_split.get(split, 0),
        say=say,
    )
    if embedder is not None:
        embedder.close()
    if manifest.text is None:
        return examples
    vectors: list[NDArray[np.float16]] = []
    for part in manifest.text.parts:
        if part.tokens is not None:
            vectors.append(embed_texts(part, base, examples.texts, cache=cache, threads=threads, say=say))
        else:
            vectors.append(_of_ngrams(part, base, manifest.text, examples.texts, threads=threads))
    return replace(examples, frozen=np.concatenate(vectors, axis=1))


def _of_ngrams(
    part: TextPart, base: Path, stage: TextStage, texts: Sequence[str | None], *, threads: int | None
) -> NDArray[np.float16]:
    """What the base learned of n-grams; too quick to be worth a cache."""
    text2emb = Text2Emb.open(base, TextStage(spec=stage.spec, parts=(part,)), threads=threads)
    found = np.zeros((len(texts), part.width), np.float16)
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = slice(start, start + CHUNK_TEXTS)
        found[chunk] = text2emb(texts[chunk]).values
    return found


def _of_attributes_alone(examples: Examples) -> Examples:
    """The products that have a label of an attribute, without their category."""
    labelled = np.zeros(len(examples), np.bool_)
    for labels in examples.labels:
        labelled |= is_known(labels)
    kept = examples.rows(np.flatnonzero(labelled))
    return replace(kept, node=np.full(len(kept), -1, np.int32))


def _trainer(
    base: Path,
    manifest: Manifest,
    config: TrainConfig,
    vocabulary: Attributes,
    n_products: int,
    run: Path,
    watch: Stopwatch,
    say: Say,
) -> Trainer:
    """As the base was trained, but that its n-grams are given and only the attributes are learned."""
    ngrams = next((part.ngrams for part in (manifest.text.parts if manifest.text else ()) if part.ngrams), None)
    plan = Plan(
        head="tree",
        fusion=config.fusion,
        ngrams=ngrams,
        linear=ngrams is not None and config.linear is not False,
        network=False,
        text_width=WIDE,
        hidden=config.hidden or WIDE,
        dropout=config.dropout,
        image_dropout=config.image_dropout,
        min_count=config.min_count,
        max_features=config.max_features,
        seed=config.seed,
        balanced=config.balanced,
        colour=colour_columns(manifest.image),
    )
    return Trainer(
        config,
        plan,
        None,
        vocabulary,
        config.folds or 0,
        config.refit if config.refit is not None else n_products <= REFIT,
        config.epochs or ADDED_EPOCHS,
        Checkpoints(run / "checkpoint"),
        watch,
        run,
        workers.device_for(config.device),
        say,
        Vocabulary.load(base / registry.NGRAMS, ngrams) if ngrams is not None else None,
    )


def _seal(
    out: Path,
    staged: Path,
    base: Path,
    manifest: Manifest,
    known: Attributes,
    fitted: Fitted,
    learned: Examples,
) -> Manifest:
    """The base's files as they are, those of the new experts beside them, and a manifest over both."""
    for name in manifest.files:
        shutil.copyfile(base / name, staged / name)
    parity, text, built = dict(manifest.parity), manifest.text, fitted.built
    if built.linear is not None:
        assert text is not None
        file = registry.part_file("text2emb", len(text.parts))
        parity[file] = export_ngrams(None, built.linear, staged / file)
        part = TextPart(
            encoder="ngram",
            source=None,
            file=file,
            width=len(built.linear.bias),
            ngrams=next(part.ngrams for part in text.parts if part.ngrams),
        )
        text = text.model_copy(update={"parts": (*text.parts, part)})
    file = registry.part_file(
        "emb2prob", 1 + len({head.file for head in manifest.head.attributes} - {registry.EMB2PROB})
    )
    examples = learned.rows(np.arange(min(len(learned), PROBES)))
    parity[file] = export_head(
        built.model.to("cpu").head,
        staged / file,
        text=Text2Emb.open(staged, text)(examples.texts).values if text is not None else None,
        image=examples.image.values.astype(np.float32) if examples.image is not None else None,
    )
    heads = tuple(
        AttributeHead(name=task.name, start=task.start, file=file, calibration=fitted.chosen.values[task.name])
        for task in fitted.tasks.attributes
    )
    attributes = (*known.attributes, *(task.attribute for task in fitted.tasks.attributes))
    Attributes(attributes=attributes).save(staged / registry.ATTRIBUTES)
    counts = {**registry.read_values(base), **value_counts(fitted)}
    registry.write_labels(staged / registry.LABELS, registry.read_labels(base), counts)
    new = manifest.model_copy(
        update={
            "shelver_version": __version__,
            "git_commit": git_commit(),
            "text": text,
            "head": manifest.head.model_copy(update={"attributes": (*manifest.head.attributes, *heads)}),
            "base": manifest.model_version,
            "parity": parity,
            "files": {file.name: sha256_of(file) for file in sorted(staged.iterdir())},
        }
    )
    registry.write_core(staged, out, new)
    return new
