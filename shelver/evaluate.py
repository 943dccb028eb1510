"""How good a model folder is: its answers for a split of a catalog, scored.

Only ever the exported folder, through the same `Classifier` that answers users. Every figure is defined in
`shelver.metrics`; a row of figures holds

- `n`: labelled products;
- `accuracy`: the decided node is exactly the true node;
- `weighted_f1`, `macro_f1`: over labels; macro over those present in truth or prediction;
- `top3_accuracy`: the true node is among the first three suggestions;
- `hierarchical_precision`, `_recall`, `_f1`: over sets of ancestors, micro over products, root excluded;
- `relative_lca`: depth of the lowest common ancestor over the greater of the two depths;
- `coverage`: products answered over products;
- `ece`: calibration error of the confidence, 15 bins of equal mass, debiased; null where nothing was answered.

The report holds such a row for all products, and then
`by_level` (truth and prediction cut at the level; products whose truth ends above it left out; the three
suggestions are the most probable nodes of that level),
`by_modality` (products as they came: what the model had to answer from),
`asked` (the products that have both a usable text and a usable picture, asked with the text alone, the picture
alone, and both: the same products, so the rows can be compared),
`by_frequency` (true label among the head, torso or tail of the training products),
`by_source` and `by_language` where the catalog has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver import metrics, registry
from shelver.calibrate import MODALITIES, Modality
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Policy, Predictions, concatenate, greatest
from shelver.errors import CatalogError
from shelver.pipeline import Classifier, Embedding
from shelver.product import Product
from shelver.taxonomy import Taxonomy

REPORT: Final = "report.json"
FORMAT_VERSION: Final = 1
N_TOP: Final = 3
MAX_SLICES: Final = 50
_POLICY: Final = Policy(n_top=N_TOP)
TELL_EVERY_S: Final = 5.0

Row = dict[str, float | int | None]


@dataclass(slots=True)
class _Answers:
    """What a split's products are and what the model said of them, batch by batch."""

    truth: list[NDArray[np.int32]] = field(default_factory=list)
    natural: list[Predictions] = field(default_factory=list)
    level_top: list[NDArray[np.int32]] = field(default_factory=list)
    asked: dict[Modality, list[Predictions]] = field(default_factory=lambda: {m: [] for m in MODALITIES})
    asked_truth: list[NDArray[np.int32]] = field(default_factory=list)
    source: list[str | None] = field(default_factory=list)
    language: list[str | None] = field(default_factory=list)
    n_unlabelled: int = 0
    picture_errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate(
    model: Path,
    catalog: Catalog,
    *,
    split: Part = "test",
    say: Callable[[str], None] = print,
    threads: int | None = None,
) -> dict[str, Any]:
    """Score a model folder on the labelled products of a split.

    Args:
        model: the model folder.
        catalog: the catalog, or a golden set.
        split: "train", "validation" or "test".
        say: told about the progress.
        threads: threads for each ONNX session.

    Returns:
        The report; see the module.

    Raises:
        ModelError: `model` is no whole model folder.
        CatalogError: the split has no labelled product, or labels that the model's tree does not know.
    """
    classifier = Classifier.open(model, threads=threads)
    tree = classifier.taxonomy
    answers = _answer(classifier, catalog, split, say)
    if not answers.natural:
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its {split} split",
            allowed="a split with labelled products",
            remedy="Name another --split; `shelver describe` lists what the catalog has.",
        )
    truth = np.concatenate(answers.truth)
    said = concatenate(answers.natural)
    level_top = np.concatenate(answers.level_top)
    frequency = _frequency(tree, registry.read_labels(model))
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "model_version": classifier.model_version,
        "catalog": catalog.folder.name,
        "catalog_version": catalog.info.fingerprint,
        "split": split,
        **row(tree, truth, said),
        "products_per_s": round(len(truth) / answers.seconds, 1),
        "n_unlabelled": answers.n_unlabelled,
        "n_errors": _count(code for code in said.errors if code is not None),
        "n_picture_errors": answers.picture_errors,
        "by_level": {
            str(level): level_row(tree, truth, said, level, top=level_top[:, level - 1])
            for level in range(1, tree.n_levels + 1)
        },
        "by_modality": {
            name: row(tree, truth[of], select(said, of))
            for name, of in [(m, said.modality == i) for i, m in enumerate(MODALITIES, start=1)]
            if of.any()
        },
        "by_frequency": {
            name: row(tree, truth[of], select(said, of))
            for name, of in [(f, frequency[truth] == i) for i, f in enumerate(metrics.FREQUENCIES)]
            if of.any()
        },
        "by_source": _slices(tree, truth, said, answers.source),
        "by_language": _slices(tree, truth, said, answers.language),
    }
    if answers.asked_truth:
        asked_truth = np.concatenate(answers.asked_truth)
        report["asked"] = {m: row(tree, asked_truth, concatenate(parts)) for m, parts in answers.asked.items()}
    return report


def write_report(report: dict[str, Any], folder: Path) -> Path:
    """Write `report.json` into a folder, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / REPORT
    partial = path.with_name(REPORT + ".partial")
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def _answer(classifier: Classifier, catalog: Catalog, split: Part, say: Callable[[str], None]) -> _Answers:
    answers = _Answers()
    label_of = _label_map(classifier, catalog, split)
    n_total, n_done = catalog.info.by_split.get(split, 0), 0
    started = told = time.monotonic()
    for products in _batches(catalog, split, images=classifier.image2emb is not None):
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
        answers.level_top.append(_best_at_levels(classifier.taxonomy, probs.nodes))
        answers.source += [p.source for p in labelled]
        answers.language += [p.language for p in labelled]
        for code in said.picture_errors:
            if code is not None:
                answers.picture_errors[code] = answers.picture_errors.get(code, 0) + 1
        _ask_each_way(classifier, answers, truth, said.modality == len(MODALITIES), embedded.text, embedded.image)
        now = time.monotonic()
        if now - told > TELL_EVERY_S:
            told = now
            rate = n_done / (now - started)
            say(f"evaluating: {n_done:,} of {n_total:,}, {rate:,.0f}/s, {(n_total - n_done) / rate:,.0f} s left")
    return answers


def _batches(catalog: Catalog, split: Part, *, images: bool) -> Iterator[list[Product]]:
    return catalog.products(split, images=images, batch_rows=256)


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


def row(tree: Taxonomy, truth: NDArray[np.int32], said: Predictions) -> Row:
    """The figures of some products."""
    answered = said.answered
    hierarchical = metrics.hierarchical(tree, truth, said.node, answered=answered)
    figures: Row = {
        "n": len(truth),
        "accuracy": metrics.accuracy(truth, said.node, answered=answered),
        "weighted_f1": metrics.weighted_f1(truth, said.node, answered=answered),
        "macro_f1": metrics.macro_f1(truth, said.node, answered=answered),
        "top3_accuracy": metrics.top_k_accuracy(
            truth, said.top_node, min(N_TOP, said.top_node.shape[1]), answered=answered
        ),
        "hierarchical_precision": hierarchical.precision,
        "hierarchical_recall": hierarchical.recall,
        "hierarchical_f1": hierarchical.f1,
        "relative_lca": metrics.relative_lca(tree, truth, said.node, answered=answered),
        "coverage": metrics.coverage(said.node, answered=answered),
        "ece": _ece(said.confidence[answered], (truth == said.node)[answered]),
    }
    return {
        name: value if isinstance(value, int) or value is None else round(value, 6)
        for name, value in figures.items()
    }


def _best_at_levels(tree: Taxonomy, nodes: NDArray[np.float32]) -> NDArray[np.int32]:
    """The most probable nodes of each level, best first, shape (N, L, N_TOP); -1 where a level has fewer."""
    best = np.full((len(nodes), tree.n_levels, N_TOP), -1, np.int32)
    for level in range(1, tree.n_levels + 1):
        first, end = np.searchsorted(tree.level, [level, level + 1])  # a level's nodes are contiguous
        n = min(N_TOP, int(end - first))
        best[:, level - 1, :n] = first + greatest(nodes[:, first:end], n)
    return best


def level_row(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, level: int, *, top: NDArray[np.int32]
) -> Row:
    """The figures with truth and prediction cut at a level, over the products whose truth reaches it.

    Args:
        tree: the tree of both.
        truth: true nodes, shape (N,).
        said: what was decided.
        level: 1 is the first below the root.
        top: the most probable nodes of that level, best first, shape (N, N_TOP).
    """
    rows, true_at, said_at = metrics.at_level(tree, truth, said.node, level)
    if not len(rows):
        return {"n": 0}
    # A prediction that ends above the level has no node there; its confidence in one is 0 and it is wrong.
    here = said.answered[rows] & (said_at >= 0)
    part = select(said, rows)
    confidence = np.where(here, part.level_confidence[:, level - 1], np.float32(0)).astype(np.float32)
    cut = replace(
        part,
        node=np.where(here, said_at, 0).astype(np.int32),
        top_node=top[rows],
        confidence=confidence,
        answered=here,
    )
    return row(tree, true_at.astype(np.int32), cut) | {"coverage": round(float(said.answered[rows].mean()), 6)}


def select(said: Predictions, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Predictions:
    """Some rows of predictions."""
    index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    return Predictions(
        taxonomy=said.taxonomy,
        answered=said.answered[index],
        node=said.node[index],
        confidence=said.confidence[index],
        level_confidence=said.level_confidence[index],
        top_node=said.top_node[index],
        top_confidence=said.top_confidence[index],
        modality=said.modality[index],
        errors=tuple(said.errors[i] for i in index.tolist()),
        picture_errors=tuple(said.picture_errors[i] for i in index.tolist()),
    )


def _ece(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float | None:
    return metrics.ece(confidence, right) if len(right) else None


def _frequency(tree: Taxonomy, train_products: dict[str, int]) -> NDArray[np.int8]:
    counts = np.array([train_products.get(node_id, 0) for node_id in tree.ids], np.int64)
    return metrics.head_torso_tail(counts)


def _slices(
    tree: Taxonomy, truth: NDArray[np.int32], said: Predictions, names: list[str | None]
) -> dict[str, Row]:
    """A row for each of the commonest values of a column; empty where the catalog lacks the column."""
    counts = _count(name for name in names if name is not None)
    column = np.array([name or "" for name in names], dtype=object)
    commonest = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_SLICES]
    return {name: row(tree, truth[column == name], select(said, column == name)) for name in commonest}


def _count(codes: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in codes:
        counts[code] = counts.get(code, 0) + 1
    return counts
