"""Asks a model about a split of a catalog, batch by batch, and keeps what it said."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES, Modality
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Policy, Predictions, greatest
from shelver.errors import CatalogError
from shelver.evaluate.attributes import AttributeTally
from shelver.evaluate.examples import ExampleKeeper
from shelver.evaluate.figures import N_TOP
from shelver.evaluate.honesty import Confidences, PolicyTally, Uncalibrated
from shelver.evaluate.several import Also
from shelver.pipeline import Classifier, Embedding
from shelver.product import Product
from shelver.taxonomy import Taxonomy

BATCH_ROWS: Final = 256
TELL_EVERY_S: Final = 5.0
_POLICY: Final = Policy(n_top=N_TOP)


@dataclass(slots=True)
class Column:
    """A column of texts that repeat, as numbers: a million rows must not hold a million strings."""

    codes: dict[str | None, int] = field(default_factory=dict)
    parts: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, values: list[str | None]) -> None:
        self.parts.append(np.array([self.codes.setdefault(v, len(self.codes)) for v in values], np.int32))


@dataclass(slots=True)
class Answers:
    """What a split's products are and what the model said of them, batch by batch: some 200 bytes a product."""

    examples: ExampleKeeper
    policies: PolicyTally
    attributes: AttributeTally
    also: Also
    before: Confidences = field(default_factory=Confidences)
    after: Confidences = field(default_factory=Confidences)
    truth: list[NDArray[np.int32]] = field(default_factory=list)
    natural: list[Predictions] = field(default_factory=list)
    level_top: list[NDArray[np.int32]] = field(default_factory=list)
    asked: dict[Modality, list[Predictions]] = field(default_factory=lambda: {m: [] for m in MODALITIES})
    asked_truth: list[NDArray[np.int32]] = field(default_factory=list)
    source: Column = field(default_factory=Column)
    language: Column = field(default_factory=Column)
    n_unlabelled: int = 0
    picture_errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def ask(
    classifier: Classifier,
    catalog: Catalog,
    split: Part,
    policies: Mapping[str, Policy],
    say: Callable[[str], None],
) -> Answers:
    """Ask a model about the labelled products of a split, as they come and each way.

    Args:
        classifier: the model.
        catalog: where the products are, `split` their part.
        policies: decided by beside.
        say: told about the progress.

    Raises:
        CatalogError: labels that the model's tree does not know.
    """
    label_of = _label_map(classifier, catalog, split)
    answers = Answers(
        ExampleKeeper(classifier.taxonomy),
        PolicyTally(policies, catalog.vocabulary),
        AttributeTally(catalog.vocabulary),
        Also(label_of),
    )
    uncalibrated = Uncalibrated(classifier)
    n_total, n_done = catalog.info.by_split.get(split, 0), 0
    started = told = time.monotonic()
    with_images = classifier.image2emb is not None
    for products in catalog.products(split, images=with_images, batch_rows=BATCH_ROWS):
        n_done += len(products)
        labelled = [p for p in products if p.node_id is not None]
        answers.n_unlabelled += len(products) - len(labelled)
        if len(labelled) < len(products) and classifier.manifest.head.attributes:
            _attributes_alone(classifier, answers, [p for p in products if p.node_id is None and p.attributes])
        if not labelled:
            continue
        begun = time.perf_counter()
        embedded = classifier.embed(labelled)
        probs = classifier.emb2prob(embedded.text, embedded.image)
        said = classifier.decide(labelled, embedded, probs, policy=_POLICY)
        answers.seconds += time.perf_counter() - begun
        truth = np.array([label_of[p.node_id] for p in labelled if p.node_id is not None], np.int32)
        answers.attributes.add(labelled, said)
        answers.also.add(labelled)
        said = replace(said, attributes={})  # they are judged by now
        answers.truth.append(truth)
        answers.natural.append(said)
        raw = uncalibrated(embedded.text, embedded.image)
        answers.before.add(truth, raw, classifier.prob2pred(raw, _POLICY))
        answers.after.add(truth, probs, said)
        answers.policies.add(classifier.prob2pred, labelled, probs)
        answers.level_top.append(_best_at_levels(classifier.taxonomy, probs.nodes))
        answers.source.add([p.source for p in labelled])
        answers.language.add([p.language for p in labelled])
        answers.picture_errors.update(code for code in said.picture_errors if code is not None)
        answers.examples.add(labelled, truth, said)
        both = said.modality == len(MODALITIES)
        _ask_each_way(classifier, answers, labelled, truth, both, embedded.text, embedded.image)
        now = time.monotonic()
        if now - told > TELL_EVERY_S:
            told = now
            rate = n_done / (now - started)
            say(f"evaluating: {n_done:,} of {n_total:,}, {rate:,.0f}/s, {(n_total - n_done) / rate:,.0f} s left")
    return answers


def _ask_each_way(
    classifier: Classifier,
    answers: Answers,
    products: Sequence[Product],
    truth: NDArray[np.int32],
    both: NDArray[np.bool_],
    text: Embedding | None,
    image: Embedding | None,
) -> None:
    """Answer the products that have both again, from either alone."""
    if text is None or image is None or not both.any():
        return
    answers.asked_truth.append(truth[both])
    for modality, said in _each_way(classifier, answers.attributes, products, both, text, image).items():
        answers.asked[modality].append(said)


def _attributes_alone(classifier: Classifier, answers: Answers, products: Sequence[Product]) -> None:
    """Judge the attributes of products that have no label of their category."""
    if not products:
        return
    embedded = classifier.embed(products)
    said = classifier.prob2pred(classifier.emb2prob(embedded.text, embedded.image), _POLICY)
    answers.attributes.add(products, said)
    both = said.modality == len(MODALITIES)
    if embedded.text is not None and embedded.image is not None and both.any():
        _each_way(classifier, answers.attributes, products, both, embedded.text, embedded.image)


def _each_way(
    classifier: Classifier,
    attributes: AttributeTally,
    products: Sequence[Product],
    both: NDArray[np.bool_],
    text: Embedding,
    image: Embedding,
) -> dict[Modality, Predictions]:
    """What is said of the products that have both, from the text, the picture and both; the tally has what is said
    of their attributes."""
    some = [products[i] for i in np.flatnonzero(both).tolist()]
    text = Embedding(text.values[both], text.present[both])
    image = Embedding(image.values[both], image.present[both])
    given: dict[Modality, tuple[Embedding | None, Embedding | None]] = {
        "text": (text, None),
        "image": (None, image),
        "both": (text, image),
    }
    found: dict[Modality, Predictions] = {}
    for modality, embeddings in given.items():
        said = classifier.prob2pred(classifier.emb2prob(*embeddings), _POLICY)
        attributes.add(some, said, asked=modality)
        found[modality] = replace(said, attributes={})
    return found


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
