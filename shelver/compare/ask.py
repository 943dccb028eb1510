"""Asks one model: what it said of each product, how long it took, how much room it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver import registry
from shelver.attributes import EMPTY
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.compare.golden import Golden
from shelver.compare.schema import Latency
from shelver.decide import Policy, Predictions, concatenate
from shelver.errors import CatalogError
from shelver.evaluate import AttributeFigures, Figures, row
from shelver.evaluate.attributes import AttributeTally
from shelver.evaluate.attributes import figures as attribute_figures
from shelver.metrics.hierarchical import agreement
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.taxonomy import Taxonomy

BATCH_ROWS: Final = 256
N_SINGLE: Final = 200
"""Products that are asked about one by one, for the latency."""
N_WARM_UP: Final = 5
TELL_EVERY_S: Final = 5.0
_POLICY: Final = Policy(n_top=3)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AttributeAnswers:
    """What one model said of one attribute.

    Attributes:
        figures: over the M products with a label of it.
        right: which of them have exactly the labelled values as their answer, in the catalog's order, shape (M,).
    """

    figures: AttributeFigures
    right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said of N products.

    Attributes:
        name: of the model in tables and sentences.
        model_version: twelve hex digits.
        tree: the model's.
        node: decided nodes, indices into `tree`, -1 where there is no answer, shape (N,).
        confidence: of the decided node, NaN where there is no answer, shape (N,).
        correct: the decided node is exactly the true one, shape (N,).
        credit: depth of the common ancestor with the truth over the greater of the two depths, 0 where there is no
            answer, shape (N,); its mean is `metrics.relative_lca`.
        figures: of all products.
        seconds: that answering took.
        latency: of single products.
        core_bytes: of the files that the model runs from.
        lenient: figures with any of several right paths right; None where no product has several.
        attributes: by name, those with a label.
    """

    name: str
    model_version: str
    tree: Taxonomy
    node: NDArray[np.int32]
    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    credit: NDArray[np.float64]
    figures: Figures
    seconds: float
    latency: Latency
    core_bytes: int
    lenient: Figures | None = None
    attributes: Mapping[str, AttributeAnswers] = field(default_factory=dict)


def ask(
    model: Path,
    catalog: Catalog,
    split: Part,
    golden: Golden,
    *,
    name: str,
    threads: int | None = None,
    say: Say = print,
) -> Answers:
    """Ask a model folder about the labelled products of a split.

    Unanswered products count as wrong.

    Args:
        model: the model folder.
        catalog: where the products are; `golden` was read from it.
        split: its part.
        golden: what the products truly are.
        name: of the model.
        threads: threads for each ONNX session.
        say: told about the progress.

    Raises:
        ModelError: `model` is no whole model folder.
        CatalogError: products whose labels the model's tree does not know.
    """
    classifier = Classifier.open(model, threads=threads)
    tree = classifier.taxonomy
    truth = _in_tree(tree, golden, model)
    singles = set(np.unique(np.linspace(0, len(golden) - 1, N_SINGLE).astype(int)).tolist())
    alone: list[Product] = []
    parts: list[Predictions] = []
    tally = AttributeTally(EMPTY)
    seconds, n_done = 0.0, 0
    told = time.monotonic()
    with_images = classifier.image2emb is not None
    for products in catalog.products(split, images=with_images, batch_rows=BATCH_ROWS):
        labelled = [p for p in products if p.node_id is not None]
        if not labelled:
            continue
        if not parts:
            classifier(labelled, policy=_POLICY)  # the first call sets up what later ones find
        begun = time.perf_counter()
        answer = classifier(labelled, policy=_POLICY)
        seconds += time.perf_counter() - begun
        tally.add(labelled, answer)
        parts.append(replace(answer, attributes={}))
        alone += [p for i, p in enumerate(labelled, start=n_done) if i in singles]
        n_done += len(labelled)
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            say(f"asking {name}: {n_done:,} of {len(golden):,}, {n_done / seconds:,.0f}/s")
    said = concatenate(parts)
    node = np.where(said.answered, said.node, -1).astype(np.int32)
    manifest = classifier.manifest
    worth = golden.value if golden.values_from is not None else None
    also = _others_in_tree(tree, golden)
    return Answers(
        name=name,
        model_version=classifier.model_version,
        tree=tree,
        node=node,
        confidence=said.confidence,
        correct=node == truth,
        credit=agreement(tree, truth, node),
        figures=row(tree, truth, said, worth),
        seconds=seconds,
        latency=_latency(classifier, alone),
        core_bytes=sum((model / file).stat().st_size for file in (registry.MANIFEST, *manifest.files)),
        lenient=None if also is None else row(tree, truth, said, worth, also=also),
        attributes={
            name: AttributeAnswers(attribute_figures(judged), judged.exactly_right())
            for name, judged in tally.judged().items()
        },
    )


def differing(one: Answers, other: Answers) -> NDArray[np.bool_]:
    """Where two models decide differently, shape (N,); nodes of different trees are told apart by their ids."""
    said = other.node
    if one.tree.version != other.tree.version:
        found = [one.tree.find(node_id) for node_id in other.tree.ids]
        place = np.array([*(-2 if k is None else k for k in found), -1], np.int32)  # last: no answer, at index -1
        said = place[said]
    differ: NDArray[np.bool_] = one.node != said
    return differ


def _in_tree(tree: Taxonomy, golden: Golden, model: Path) -> NDArray[np.int32]:
    """The true nodes as indices into a model's tree."""
    place = np.array([-1 if k is None else k for k in map(tree.find, golden.tree.ids)], np.int32)
    truth: NDArray[np.int32] = place[golden.node]
    missing = np.unique(golden.node[truth < 0])
    if len(missing):
        raise CatalogError(
            f"{len(missing):,} categories of the products, for example {golden.tree.paths[missing[0]]!r}, are not "
            f"in the tree of {model}",
            allowed="products whose categories every one of the models knows",
            remedy="Leave this model out, or ingest the catalog with --taxonomy and its taxonomy.json (rows with "
            "other categories are then quarantined).",
        )
    return truth


def _others_in_tree(tree: Taxonomy, golden: Golden) -> NDArray[np.int32] | None:
    """The other right nodes as indices into a model's tree, -1 where that does not know them."""
    if golden.also is None:
        return None
    place = np.array([*(-1 if k is None else k for k in map(tree.find, golden.tree.ids)), -1], np.int32)
    return place[golden.also]  # the last, at index -1, stands for none


def _latency(classifier: Classifier, products: Sequence[Product]) -> Latency:
    """One product at a time, as a service that serves one customer would be asked."""
    for product in products[:N_WARM_UP]:
        classifier([product], policy=_POLICY)
    took_ms = []
    for product in products:
        begun = time.perf_counter()
        classifier([product], policy=_POLICY)
        took_ms.append((time.perf_counter() - begun) * 1000)
    p50, p95 = np.percentile(took_ms, [50, 95])
    return Latency(n=len(took_ms), p50_ms=round(float(p50), 2), p95_ms=round(float(p95), 2))
