"""Asks a model folder about a split of a catalog, batch by batch, and counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shelver import metrics, registry
from shelver.calibrate import MODALITIES, Modality
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Policy, Predictions, concatenate, greatest, policies_of
from shelver.errors import CatalogError
from shelver.evaluate.examples import ExampleKeeper, examples_of_rows
from shelver.evaluate.figures import N_TOP, bins, curve, cut, level_row, row, select
from shelver.evaluate.honesty import Confidences, PolicyTally, Uncalibrated, calibrated
from shelver.evaluate.mistakes import branches, confusions, siblings
from shelver.evaluate.parts import Figures, Views
from shelver.evaluate.schema import Report
from shelver.pipeline import Classifier, Embedding
from shelver.taxonomy import Taxonomy
from shelver.values import popularity, read_values

MAX_SLICES: Final = 50
BATCH_ROWS: Final = 256
TELL_EVERY_S: Final = 5.0
_POLICY: Final = Policy(n_top=N_TOP)

T = TypeVar("T")
Group = tuple[NDArray[np.int32], Predictions]
"""Some products: their true nodes and what was decided of them."""


@dataclass(slots=True)
class _Column:
    """A column of texts that repeat, as numbers: a million rows must not hold a million strings."""

    codes: dict[str | None, int] = field(default_factory=dict)
    parts: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, values: list[str | None]) -> None:
        self.parts.append(np.array([self.codes.setdefault(v, len(self.codes)) for v in values], np.int32))


@dataclass(slots=True)
class _Answers:
    """What a split's products are and what the model said of them, batch by batch: some 200 bytes a product."""

    examples: ExampleKeeper
    policies: PolicyTally
    before: Confidences = field(default_factory=Confidences)
    after: Confidences = field(default_factory=Confidences)
    truth: list[NDArray[np.int32]] = field(default_factory=list)
    natural: list[Predictions] = field(default_factory=list)
    level_top: list[NDArray[np.int32]] = field(default_factory=list)
    asked: dict[Modality, list[Predictions]] = field(default_factory=lambda: {m: [] for m in MODALITIES})
    asked_truth: list[NDArray[np.int32]] = field(default_factory=list)
    source: _Column = field(default_factory=_Column)
    language: _Column = field(default_factory=_Column)
    n_unlabelled: int = 0
    picture_errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def evaluate(
    model: Path,
    catalog: Catalog,
    *,
    split: Part = "test",
    values: Path | None = None,
    say: Callable[[str], None] = print,
    threads: int | None = None,
) -> Report:
    """Score a model folder on the labelled products of a split.

    Args:
        model: the model folder; its policies are scored with it.
        catalog: the catalog, or a golden set.
        split: "train", "validation" or "test".
        values: a file with the value of each category, as `read_values` reads it. None: the mean value of its
            products in the catalog, if they have one.
        say: told about the progress.
        threads: threads for each ONNX session.

    Raises:
        ModelError: `model` is no whole model folder.
        CatalogError: the split has no labelled product, or labels that the model's tree does not know.
        InputError: `values` is no such file.
        ConfigError: the model's policies cannot be read.
    """
    classifier = Classifier.open(model, threads=threads)
    tree = classifier.taxonomy
    value = read_values(values, tree) if values is not None else popularity(catalog, tree)
    answers = _answer(classifier, catalog, split, policies_of(model), say)
    if not answers.natural:
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its {split} split",
            allowed="a split with labelled products",
            remedy="Name another --split; `shelver describe` lists what the catalog has.",
        )
    everything = truth, said = np.concatenate(answers.truth), concatenate(answers.natural)
    answers.natural.clear()  # a million products need not be held twice
    level_top = np.concatenate(answers.level_top)
    frequency = _frequency(tree, registry.read_labels(model))
    came: dict[Modality, Group] = {
        modality: everything if of.all() else (truth[of], select(said, of))
        for modality, of in [(m, said.modality == i) for i, m in enumerate(MODALITIES, start=1)]
        if of.any()
    }
    asked: dict[Modality, Group] = {}
    if answers.asked_truth:
        asked_truth = np.concatenate(answers.asked_truth)
        asked = {modality: (asked_truth, concatenate(parts)) for modality, parts in answers.asked.items()}

    def views(of: Callable[[NDArray[np.int32], Predictions], T]) -> Views[T]:
        return Views(all=of(*everything), by_modality=_each(came, of), asked=_each(asked, of))

    def worth_of(truth: NDArray[np.int32]) -> NDArray[np.float64] | None:
        return None if value is None else value[truth]

    def figures(truth: NDArray[np.int32], said: Predictions) -> Figures:
        return row(tree, truth, said, worth_of(truth))

    worth = worth_of(truth)
    beside, lost = siblings(tree, truth, said, worth), branches(tree, truth, said, worth)
    shown = examples_of_rows(catalog, split, beside.rows | lost.rows, truth, said)
    levels = range(1, tree.n_levels + 1)
    return Report(
        model=model.resolve().name,
        model_version=classifier.model_version,
        catalog=catalog.folder.resolve().name,
        catalog_version=catalog.info.fingerprint,
        split=split,
        **figures(*everything).model_dump(),
        products_per_s=round(len(truth) / answers.seconds, 1),
        n_unlabelled=answers.n_unlabelled,
        n_errors=Counter(code for code in said.errors if code is not None),
        n_picture_errors=answers.picture_errors,
        by_level={
            str(level): level_row(tree, truth, said, level, top=level_top[:, level - 1], worth=worth)
            for level in levels
        },
        by_modality=_each(came, figures),
        asked=_each(asked, figures),
        by_frequency={
            name: figures(truth[of], select(said, of))
            for name, of in [(f, frequency[truth] == i) for i, f in enumerate(metrics.FREQUENCIES)]
            if of.any()
        },
        by_source=_slices(answers.source, truth, said, figures),
        by_language=_slices(answers.language, truth, said, figures),
        reliability=views(bins),
        values=None if value is None else "catalog" if values is None else "file",
        selective=views(curve),
        selective_by_level={str(level): curve(*cut(tree, truth, said, level)[1:]) for level in levels},
        calibration=calibrated(tree, truth, answers.before, answers.after),
        policies=answers.policies.points(tree, truth, worth),
        confusions=confusions(tree, truth, said, worth),
        siblings=beside.with_examples(shown),
        tree=lost.with_examples(shown),
        examples=answers.examples.examples(),
    )


def _answer(
    classifier: Classifier,
    catalog: Catalog,
    split: Part,
    policies: Mapping[str, Policy],
    say: Callable[[str], None],
) -> _Answers:
    answers = _Answers(ExampleKeeper(classifier.taxonomy), PolicyTally(policies))
    uncalibrated = Uncalibrated(classifier)
    label_of = _label_map(classifier, catalog, split)
    n_total, n_done = catalog.info.by_split.get(split, 0), 0
    started = told = time.monotonic()
    with_images = classifier.image2emb is not None
    for products in catalog.products(split, images=with_images, batch_rows=BATCH_ROWS):
        n_done += len(products)
        labelled = [p for p in products if p.node_id is not None]
        answers.n_unlabelled += len(products) - len(labelled)
        if not labelled:
            continue
        begun = time.perf_counter()
        embedded = classifier.embed(labelled)
        probs = classifier.emb2prob(embedded.text, embedded.image)
        said = classifier.decide(labelled, embedded, probs, policy=_POLICY)
        answers.seconds += time.perf_counter() - begun
        truth = np.array([label_of[p.node_id] for p in labelled if p.node_id is not None], np.int32)
        answers.truth.append(truth)
        answers.natural.append(said)
        raw = uncalibrated(embedded.text, embedded.image)
        answers.before.add(truth, raw, classifier.prob2pred(raw, _POLICY))
        answers.after.add(truth, probs, said)
        answers.policies.add(classifier, probs)
        answers.level_top.append(_best_at_levels(classifier.taxonomy, probs.nodes))
        answers.source.add([p.source for p in labelled])
        answers.language.add([p.language for p in labelled])
        answers.picture_errors.update(code for code in said.picture_errors if code is not None)
        answers.examples.add(labelled, truth, said)
        _ask_each_way(classifier, answers, truth, said.modality == len(MODALITIES), embedded.text, embedded.image)
        now = time.monotonic()
        if now - told > TELL_EVERY_S:
            told = now
            rate = n_done / (now - started)
            say(f"evaluating: {n_done:,} of {n_total:,}, {rate:,.0f}/s, {(n_total - n_done) / rate:,.0f} s left")
    return answers


def _ask_each_way(
    classifier: Classifier,
    answers: _Answers,
    truth: NDArray[np.int32],
    both: NDArray[np.bool_],
    text: Embedding | None,
    image: Embedding | None,
) -> None:
    """Answer the products that have both again, from either alone."""
    if text is None or image is None or not both.any():
        return
    answers.asked_truth.append(truth[both])
    text = Embedding(text.values[both], text.present[both])
    image = Embedding(image.values[both], image.present[both])
    given: dict[Modality, tuple[Embedding | None, Embedding | None]] = {
        "text": (text, None),
        "image": (None, image),
        "both": (text, image),
    }
    for modality, embeddings in given.items():
        answers.asked[modality].append(classifier.prob2pred(classifier.emb2prob(*embeddings), _POLICY))


def _label_map(classifier: Classifier, catalog: Catalog, split: Part) -> dict[str, int]:
    """Catalog node id → index in the model's tree."""
    tree = classifier.taxonomy
    found = {node_id: tree.find(node_id) for node_id in catalog.taxonomy.ids}
    known = {node_id: k for node_id, k in found.items() if k is not None}
    if len(known) == len(found):
        return known
    wanted = {
        p.node_id for products in catalog.products(split, images=False) for p in products if p.node_id is not None
    }
    missing = sorted(wanted - known.keys())
    if missing:
        name = catalog.taxonomy.path(catalog.taxonomy.index(missing[0]))
        raise CatalogError(
            f"{len(missing):,} categories of the {split} split of {catalog.folder}, for example {name!r}, "
            f"are not in the tree of the model",
            allowed="a catalog whose categories the model's tree has",
            remedy="Ingest the catalog with --taxonomy and the model folder's taxonomy.json (rows with other "
            "categories are then quarantined), or train a model on this catalog.",
        )
    return known


def _best_at_levels(tree: Taxonomy, nodes: NDArray[np.float32]) -> NDArray[np.int32]:
    """The most probable nodes of each level, best first, shape (N, L, N_TOP); -1 where a level has fewer."""
    best = np.full((len(nodes), tree.n_levels, N_TOP), -1, np.int32)
    for level in range(1, tree.n_levels + 1):
        first, end = np.searchsorted(tree.level, [level, level + 1])  # a level's nodes are contiguous
        n = min(N_TOP, int(end - first))
        best[:, level - 1, :n] = first + greatest(nodes[:, first:end], n)
    return best


def _frequency(tree: Taxonomy, train_products: Mapping[str, int]) -> NDArray[np.int8]:
    counts = np.array([train_products.get(node_id, 0) for node_id in tree.ids], np.int64)
    return metrics.head_torso_tail(counts)


def _each(
    groups: Mapping[Modality, Group], of: Callable[[NDArray[np.int32], Predictions], T]
) -> dict[Modality, T]:
    return {modality: of(*group) for modality, group in groups.items()}


def _slices(
    column: _Column,
    truth: NDArray[np.int32],
    said: Predictions,
    of: Callable[[NDArray[np.int32], Predictions], Figures],
) -> dict[str, Figures]:
    """Figures for each of the commonest values of a column; empty where the catalog lacks the column."""
    values = np.concatenate(column.parts)
    counts = np.bincount(values, minlength=len(column.codes))
    named = {name: code for name, code in column.codes.items() if name is not None}
    commonest = sorted(named, key=lambda name: (-counts[named[name]], name))[:MAX_SLICES]
    return {name: of(truth[rows], select(said, rows)) for name in commonest for rows in [values == named[name]]}
