"""Policies that promise: fitted on labelled products that the model did not learn from, and held to their word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shelver import registry
from shelver.calibrate.binomial import interval
from shelver.calibrate.promise import fit_promise
from shelver.calibrate.turns import Paths
from shelver.catalog.split import PARTS, Part
from shelver.catalog.store import Catalog
from shelver.decide import OUTCOMES, Policy, Probabilities, Promise
from shelver.errors import CatalogError, ConfigError, InputError
from shelver.evaluate.honesty import PolicyTally
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.taxonomy import Taxonomy

BATCH_ROWS: Final = 256
TELL_EVERY: Final = 20_000
"""Products between two lines about the progress."""

Say = Callable[[str], None]
Word = Literal["kept", "in doubt", "broken"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a policy makes of labelled products.

    Attributes:
        name: of the policy.
        n_products: labelled products, those with nothing to answer from included.
        coverage: of them, the share of which a node was decided.
        n_right: decisions for the true node or an ancestor of it no shallower than the policy's `min_level`.
        precision: n_right over the decisions; None where nothing was decided.
        precision_low, precision_high: its exact 95 % interval (Clopper-Pearson).
        outcomes: products by what became of them.
        promised: the precision that the policy promises; None where it promises nothing.
        promise: "kept" where the precision reaches it, "broken" where even the upper end of the interval does not,
            "in doubt" between; None where nothing was promised or decided.
        value: the share of the products' worth that the decisions earn, partly for ancestors; None where the
            products have no values.
    """

    name: str
    n_products: int
    coverage: float
    n_right: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    outcomes: dict[str, int]
    promised: float | None
    promise: Word | None
    value: float | None


def fit_policy(
    classifier: Classifier,
    model: Path,
    catalog: Catalog,
    policy: Policy,
    *,
    precision: float,
    delta: float = 0.05,
    split: Part = "validation",
    strict: Mapping[int, float] | None = None,
    start: float | None = None,
    say: Say = print,
) -> Policy:
    """Find the thresholds with which a policy keeps a promised precision.

    Args:
        classifier, model: the model, and the folder that it was opened from.
        catalog: with labelled products.
        policy: the decoder, levels, and what becomes of unsure and strange products; its thresholds, `strict` and
            promise are replaced.
        precision: the share of all future decisions that shall be right.
        delta: the chance that the promise is broken by a bad draw of the products.
        split: the products to look at.
        strict: node of the model's tree → the precision that decisions in its branch need.
        start: the threshold at which the search starts, where not as `start_of` says.
        say: told about doubts and the progress.

    Raises:
        InputError: the model learned from these products, or they cannot carry the promise; says what would.
        ConfigError: a number out of range, or a decoder without thresholds.
        CatalogError: no labelled product, or labels that the model's tree does not know.
    """
    if policy.decoder in ("cost", "top_n"):
        raise ConfigError(
            f"a promise for decoder {policy.decoder!r}",
            allowed="best_leaf, greedy, climb: decoders that decide what is sure enough",
            remedy="Name one of these.",
        )
    _refuse_learned(model, catalog, split, say)
    whole = policy.decoder == "best_leaf" and policy.unsure != "stop"
    # Everything is sure: the decoder leads each product as far as it would ever go.
    furthest = policy.model_copy(
        update={"thresholds": (0.0,), "strict": {}, "min_level": 1, "n_top": 1, "promise": None}
    )
    ends: list[NDArray[np.int32]] = []
    sure: list[NDArray[np.float32]] = []
    truth: list[NDArray[np.int32]] = []
    for _, labels, probs in _answers(classifier, catalog, split, say):
        said = classifier.prob2pred(probs, furthest)
        ends.append(np.where(said.answered, said.node, -1).astype(np.int32))
        sure.append(said.level_confidence)
        truth.append(labels)
    paths = Paths(
        classifier.taxonomy, np.concatenate(ends), np.concatenate(sure), np.concatenate(truth), whole=whole
    )
    found = fit_promise(paths, precision, delta=delta, min_level=policy.min_level, strict=strict, start=start)
    promise = Promise(
        precision=precision,
        delta=delta,
        model_version=classifier.model_version,
        catalog_version=catalog.info.fingerprint,
        split=split,
        n_products=found.n_products,
        n_decided=found.n_decided,
        n_right=found.n_right,
        coverage=round(found.coverage, 6),
    )
    branches = {classifier.taxonomy.ids[node]: threshold for node, threshold in found.strict.items()}
    return policy.model_copy(
        update={"thresholds": found.thresholds(policy.min_level), "strict": branches, "promise": promise}
    )


def judge_policies(
    classifier: Classifier,
    catalog: Catalog,
    policies: Mapping[str, Policy],
    *,
    split: Part = "test",
    say: Say = print,
) -> list[Judged]:
    """Decide the labelled products of a split by several policies, each product embedded once.

    Raises:
        CatalogError: no labelled product, or labels that the model's tree does not know.
        ConfigError: a policy that does not fit the model.
    """
    if not policies:
        raise ConfigError("no policy", allowed="one or more", remedy="Fit one: `shelver policy fit`.")
    for name, policy in policies.items():
        promise = policy.promise
        if promise is not None and promise.model_version != classifier.model_version:
            say(f"{name} was fitted for model {promise.model_version}, this is {classifier.model_version}")
        if promise is not None and (promise.catalog_version, promise.split) == (catalog.info.fingerprint, split):
            say(f"{name} was fitted on these very products: they say nothing about its promise")
    tally = PolicyTally(policies)
    truth: list[NDArray[np.int32]] = []
    values: list[float] = []
    for products, labels, probs in _answers(classifier, catalog, split, say):
        tally.add(classifier.prob2pred, products, probs)
        truth.append(labels)
        values += [float("nan") if p.value is None else p.value for p in products]
    true, worth = np.concatenate(truth), _worth(np.array(values))
    judged = []
    for name, point in tally.points(classifier.taxonomy, true, worth).items():
        n_decided = point.outcomes.get("decided", 0)
        n_right = round((point.precision or 0.0) * n_decided)
        low, high = (None, None)
        word: Word | None = None
        if n_decided:
            low, high = (round(float(end), 6) for end in interval(n_right, n_decided))
            if point.promised is not None:
                reached = n_right >= point.promised * n_decided
                word = "kept" if reached else "in doubt" if high >= point.promised else "broken"
        judged.append(
            Judged(
                name=name,
                n_products=len(true),
                coverage=point.coverage,
                n_right=n_right,
                precision=point.precision,
                precision_low=low,
                precision_high=high,
                outcomes={outcome: point.outcomes.get(outcome, 0) for outcome in OUTCOMES},
                promised=point.promised,
                promise=word,
                value=point.value_score_partial,
            )
        )
    return judged


def read_strict(path: Path, tree: Taxonomy) -> dict[int, float]:
    """Read a risk list: a JSON object, id or path of a node → the precision that its branch needs.

    Raises:
        ConfigError: no such file, no such object, a node that the tree lacks, or a number out of range.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", allowed=_RISKS, remedy="Check the file.") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} holds no such object", allowed=_RISKS, remedy="Mend the file.")
    found: dict[int, float] = {}
    for name, share in content.items():
        node = tree.find(name)
        if node is None:
            node = tree.find_path(name.split(" > "))
        if node is None:
            raise ConfigError(
                f"{path}: node {name!r}",
                allowed=f"an id or a path of the model's tree, such as {tree.ids[0]!r} or {tree.paths[0]!r}",
                remedy="Mend the file.",
            )
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(f"{path}, {name!r}: {share!r:.40}", allowed=_RISKS, remedy="Mend the file.")
        found[node] = float(share)
    return found


_RISKS: Final = 'a JSON object: node to precision, above 0 and below 1, such as {"Medicine": 0.99}'


@dataclass(slots=True)
class _Labels:
    """How many products each node id has, by part."""

    by_part: dict[Part, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog) -> _Labels:
        found = cls({part: Counter() for part in PARTS})
        for part in PARTS:
            for rows in catalog.tables(part, columns=["node_id"]):
                found.by_part[part].update(k for k in rows.column("node_id").to_pylist() if k is not None)
        return found


def _refuse_learned(model: Path, catalog: Catalog, split: Part, say: Say) -> None:
    """Refuse products that the model learned from: their number by label stands in its folder."""
    learned = Counter(registry.read_labels(model))
    labels = _Labels.of(catalog).by_part
    both = labels["train"] + labels["validation"]
    if learned == both and labels["validation"]:
        seen: Sequence[Part] = ("train", "validation")
    elif learned == labels["train"]:
        seen = ("train",)
    else:
        say("the model learned from another catalog: see to it that none of these products was in it")
        return
    if split in seen:
        others = [part for part in PARTS if part not in seen and labels[part]]
        raise InputError(
            f"the model learned from the {split} split of {catalog.folder}; of products that it has seen it is "
            "right too often to promise anything by them",
            allowed=f"--split {' or '.join(others)}" if others else "products that the model has not seen",
            remedy="Take these, or another catalog, or a model trained with --no-refit, which learns from train "
            "alone.",
        )
    if split == "validation":
        say(
            "the model was calibrated on these products: a few numbers, so that the promise leans on them a little"
        )


def _answers(
    classifier: Classifier, catalog: Catalog, split: Part, say: Say
) -> Iterator[tuple[list[Product], NDArray[np.int32], Probabilities]]:
    """The labelled products of a split, their nodes in the model's tree, and their probabilities."""
    tree, n_seen = classifier.taxonomy, 0
    with_images = classifier.image2emb is not None
    for products in catalog.products(split, images=with_images, batch_rows=BATCH_ROWS):
        labelled = [p for p in products if p.node_id is not None]
        if not labelled:
            continue
        nodes = [tree.find(p.node_id) for p in labelled if p.node_id is not None]
        if None in nodes:
            raise CatalogError(
                f"category {labelled[nodes.index(None)].node_id!r} of {catalog.folder} is not in the model's tree",
                allowed="a catalog whose categories the model's tree has",
                remedy="Ingest the catalog with --taxonomy and the model folder's taxonomy.json.",
            )
        embedded = classifier.embed(labelled)
        yield labelled, np.array(nodes, np.int32), classifier.emb2prob(embedded.text, embedded.image)
        if n_seen // TELL_EVERY < (n_seen + len(labelled)) // TELL_EVERY:
            say(f"{n_seen + len(labelled):,} products")
        n_seen += len(labelled)
    if not n_seen:
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its {split} split",
            allowed="a split with labelled products",
            remedy="Name another --split; `shelver describe` lists what the catalog has.",
        )


def _worth(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """What each product is worth: those without a value the mean of the others; None where none has one."""
    known = np.isfinite(values)
    if not known.any():
        return None
    return np.where(known, values, values[known].mean()).astype(np.float64)
