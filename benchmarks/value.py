"""What decisions earn: `cost` beside `greedy` with the same number of products sent to a person.

    python -m benchmarks.value fashion MODEL CATALOG instacart MODEL CATALOG

A product put exactly where it belongs earns the value of its category, elsewhere nothing. Values follow Zipf:
1000 / rank, the ranks a random order of the categories (seed 0) - a heavy tail that knows nothing of how often a
category is sold or how hard it is. A product that a person looks at earns its whole value with either decoder.
`greedy` has its least certain products reviewed, by P(standing at the decided node); `cost` those of which most
value is expected to be lost, E[value] - E[earned]. `cost` has one choice to make, what a wrong level costs, and
makes it on validation products; the test products are scored once.

Rows: what each earns over what all products are worth, and the difference with a 95 % interval from a paired
bootstrap over the test products.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import facts
from benchmarks.run import HERE
from shelver.catalog.store import Catalog
from shelver.decide import Costs, Policy, Probabilities, cheapest, decide
from shelver.pipeline import Classifier
from shelver.taxonomy import SiblingGroups

RESULTS: Final = HERE / "value.json"
LOADS: Final = (0.0, 0.05, 0.1, 0.2, 0.3)
WRONG: Final = (0.0, 0.01, 0.1, 1.0)
"""What a wrong level may cost, in mean values of a category; validation chooses."""
N_DRAWS: Final = 2000

Row = dict[str, Any]
Floats = NDArray[np.float64]


class Labelled(NamedTuple):
    """Products with their probabilities, true nodes and values; all of length N."""

    probs: Probabilities
    truth: NDArray[np.int32]
    value: Floats


class Decided(NamedTuple):
    """What a decoder makes of N products: what each earns, and how much it wants a person to look at it."""

    earned: Floats
    doubt: Floats


def values_of(groups: SiblingGroups, seed: int = 0) -> Floats:
    """The value of each category, shape (K,), 0 where no product can stand."""
    places = np.flatnonzero(groups.taxonomy.is_leaf | (groups.here_slot >= 0))
    ranks = np.random.default_rng(seed).permutation(len(places)) + 1
    values = np.zeros(groups.taxonomy.n_nodes)
    values[places] = 1000.0 / ranks
    return values


def labelled(
    classifier: Classifier,
    catalog: Catalog,
    split: Literal["validation", "test"],
    values: Floats,
    *,
    text_only: bool = False,
) -> Labelled:
    """The labelled products of a split, perhaps without their pictures."""
    tree = classifier.taxonomy
    nodes, modality, truth = [], [], []
    for batch in catalog.products(split):
        batch = [product for product in batch if product.node_id is not None]
        if text_only:
            batch = [replace(product, images=(), image_urls=()) for product in batch]
        embedded = classifier.embed(batch)
        probs = classifier.emb2prob(embedded.text, embedded.image)
        nodes.append(probs.nodes)
        modality.append(probs.modality)
        truth.append(tree.indices([str(product.node_id) for product in batch]))
    at = np.concatenate(truth)
    return Labelled(Probabilities(np.concatenate(nodes), np.concatenate(modality)), at, values[at])


def greedily(products: Labelled, groups: SiblingGroups) -> Decided:
    """Greedy to the end; the least certain want a person."""
    said = decide(products.probs, groups.taxonomy, groups, Policy(decoder="greedy"))
    right = said.answered & (said.node == products.truth)
    return Decided(right * products.value, 1.0 - np.where(said.answered, said.confidence, 0.0).astype(np.float64))


def by_cost(products: Labelled, groups: SiblingGroups, values: Floats, wrong: float) -> Decided:
    """The least expected cost; those with the most value to lose want a person."""
    tree = groups.taxonomy
    known = np.flatnonzero(values)
    mean = float(values[known].mean())
    costs = Costs(wrong=wrong * mean, values={tree.ids[k]: float(values[k]) for k in known.tolist()})
    node, _ = cheapest(products.probs, groups, Policy(decoder="cost", costs=costs))
    mass = groups.here(products.probs.nodes)
    kept = mass[np.arange(len(node)), node] * values[node]
    answered = products.probs.modality > 0
    right = answered & (node == products.truth)
    lost = np.where(answered, mass @ values - kept, values[known].mean())
    return Decided(right * products.value, lost)


def earned(decided: Decided, value: Floats, load: float) -> Floats:
    """What each product earns where a share of them is reviewed, shape (N,)."""
    n_reviewed = round(load * len(value))
    reviewed = np.argsort(-decided.doubt, kind="stable")[:n_reviewed]
    total = decided.earned.copy()
    total[reviewed] = value[reviewed]
    return total


def interval(ours: Floats, theirs: Floats, value: Floats, seed: int = 0) -> tuple[float, float]:
    """95 % of the difference of the shares earned, over products drawn again with both of their answers."""
    rng = np.random.default_rng(seed)
    apart = ours - theirs
    found = np.empty(N_DRAWS)
    for i in range(N_DRAWS):
        drawn = rng.integers(0, len(value), len(value))
        found[i] = apart[drawn].sum() / value[drawn].sum()
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def compare(name: str, model: Path, catalog: Path, *, text_only: bool = False) -> list[Row]:
    """A row for each load."""
    classifier, opened = Classifier.open(model, threads=1), Catalog.open(catalog)
    groups = classifier.prob2pred.groups
    values = values_of(groups)
    held = labelled(classifier, opened, "validation", values, text_only=text_only)
    choices = {wrong: by_cost(held, groups, values, wrong) for wrong in WRONG}
    test = labelled(classifier, opened, "test", values, text_only=text_only)
    theirs = greedily(test, groups)
    rows: list[Row] = []
    for load in LOADS:
        wrong = max(WRONG, key=lambda w: earned(choices[w], held.value, load).sum())
        ours = by_cost(test, groups, values, wrong)
        a, b = earned(ours, test.value, load), earned(theirs, test.value, load)
        low, high = interval(a, b, test.value)
        rows.append(
            {
                "set": name,
                "model_version": classifier.model_version,
                "text_only": text_only,
                "n_test": len(test.value),
                "load": load,
                "wrong": wrong,
                "cost": round(float(a.sum() / test.value.sum()), 4),
                "greedy": round(float(b.sum() / test.value.sum()), 4),
                "difference": round(float((a - b).sum() / test.value.sum()), 4),
                "low": round(low, 4),
                "high": round(high, 4),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| set | reviewed | cost | greedy | difference, 95 % |", "|---|---|---|---|---|"]
    for row in rows:
        apart = f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        lines.append(f"| {row['set']} | {row['load']:.0%} | {row['cost']:.4f} | {row['greedy']:.4f} | {apart} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What `cost` and `greedy` earn at equal review load.")
    parser.add_argument("sets", nargs="+", metavar="NAME MODEL CATALOG", help="three words a set")
    parser.add_argument("--text-only", action="store_true", help="leave the pictures out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    call = parser.parse_args(arguments)
    if len(call.sets) % 3:
        parser.error("three words a set: its name, a model folder, a catalog folder")
    rows: list[Row] = []
    for i in range(0, len(call.sets), 3):
        rows += compare(call.sets[i], Path(call.sets[i + 1]), Path(call.sets[i + 2]), text_only=call.text_only)
    call.results.write_text(json.dumps({**facts(1), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
