"""What a decision costs: given probabilities over Shopify's 10,595 nodes, decided by each decoder.

    python -m benchmarks.decisions                 100,000 decisions a decoder; writes decisions.json
    python -m benchmarks.decisions --n 5000        fewer, to try

The probabilities are generated: a true place for each product, scores of every slot that are noise plus, along the
true path, a boost that differs from product to product, so that some are sure and some are not; `best_quantiles`
in the file tells how sure. They stand in an .npy file and are read from it chunk by chunk into one buffer; the
reading is part of every figure, and stands alone in the row `read`. `read + max` also looks at every number once,
which is as little as any decoder can do. Figures are the best of some rounds, on one thread: CPU time is what the
decision costs, wall time also what else the machine does meanwhile.

hiclass decides top-down while it asks its local classifiers, and cannot decide from probabilities. To have the
deciding alone, its classifier per parent node gets local classifiers that only look up the best child in the given
probabilities; that is our `greedy` without thresholds, suggestions, confidence or stops at inner nodes. Its other
decoders (per node, per level) and its probabilities have no counterpart here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import facts
from benchmarks.run import DATA, HERE
from shelver.decide import Costs, Policy, Probabilities, decide
from shelver.taxonomy import SiblingGroups, Taxonomy, read_taxonomy

RESULTS: Final = HERE / "decisions.json"
CHUNK: Final = 512
"""Products that are read and decided at a time."""
N_RIVAL: Final = 2000
"""Products that hiclass decides: it takes its time."""
ROUNDS: Final = 3

Row = dict[str, Any]


def policies(tree: Taxonomy, seed: int = 0) -> dict[str, Policy]:
    """What is measured: every decoder, with thresholds where they count, and each kind of costs."""
    ranks = np.random.default_rng(seed).permutation(tree.n_leaves) + 1
    values = {tree.ids[k]: 1000.0 / rank for k, rank in zip(tree.leaves.tolist(), ranks.tolist(), strict=True)}
    return {
        "best_leaf": Policy(),
        "best_leaf, unsure": Policy(thresholds=(0.95, 0.9, 0.8), unsure="review"),
        "greedy": Policy(decoder="greedy", thresholds=(0.95, 0.9, 0.8)),
        "climb": Policy(decoder="climb", thresholds=(0.95, 0.9, 0.8)),
        "top_n": Policy(decoder="top_n"),
        "cost": Policy(decoder="cost"),
        "cost, values": Policy(decoder="cost", costs=Costs(wrong=0.1, values=values)),
        "cost, values partial": Policy(decoder="cost", costs=Costs(wrong=0.1, values=values, partial=True)),
    }


def generate(path: Path, groups: SiblingGroups, n: int, *, seed: int = 0) -> Row:
    """Write probabilities of n products as an .npy file; returns what they are like."""
    tree = groups.taxonomy
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(tree.is_leaf | (groups.here_slot >= 0))
    written = np.lib.format.open_memmap(path, "w+", np.float32, (n, tree.n_nodes))
    best, right = [], []
    for begin in range(0, n, CHUNK):
        rows = min(CHUNK, n - begin)
        true = rng.choice(places, rows)
        scores = rng.standard_normal((rows, groups.n_slots), np.float32)
        slots = groups.target_slots[true]
        boost = np.where(slots >= 0, rng.normal(6, 2, slots.shape), 0).astype(np.float32)
        np.add.at(scores, (np.arange(rows)[:, None], np.maximum(slots, 0)), boost)
        nodes = groups.distribution(scores)
        here = groups.here(nodes)
        best.append(here.max(axis=1))
        right.append(here.argmax(axis=1) == true)
        written[begin : begin + rows] = nodes
    written.flush()
    quantiles = np.quantile(np.concatenate(best), [0.05, 0.25, 0.5, 0.75, 0.95])
    return {
        "n_products": n,
        "n_nodes": tree.n_nodes,
        "n_stops": int(np.count_nonzero(groups.here_slot >= 0)),
        "accuracy": round(float(np.concatenate(right).mean()), 3),
        "best_quantiles": [round(float(q), 3) for q in quantiles],
    }


def chunks(path: Path) -> Iterator[NDArray[np.float32]]:
    """The rows of an .npy file, read into one buffer; each chunk holds until the next one is asked for."""
    n, k = np.load(path, mmap_mode="r").shape
    buffer = np.empty((min(CHUNK, n), k), np.float32)
    with path.open("rb", buffering=0) as file:
        file.seek(-4 * n * k, 2)
        for begin in range(0, n, CHUNK):
            part = buffer[: min(CHUNK, n - begin)]
            view = part.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(view):
                done += file.readinto(view[done:]) or 0
            yield part


def clocked(work: Callable[[], object], n: int, rounds: int) -> Row:
    """Microseconds of CPU and wall time for each of n products: the best of some rounds."""
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - cpu_before)
        wall.append(time.perf_counter() - wall_before)
    return {"cpu_us": round(min(cpu) / n * 1e6, 2), "wall_us": round(min(wall) / n * 1e6, 2)}


def measure(path: Path, groups: SiblingGroups, rounds: int) -> list[Row]:
    """A row for the reading, and one for each policy."""
    tree = groups.taxonomy
    n = len(np.load(path, mmap_mode="r"))
    rows: list[Row] = [
        {"decoder": "read", **clocked(lambda: [None for _ in chunks(path)], n, rounds)},
        {"decoder": "read + max", **clocked(lambda: [part.max(axis=1) for part in chunks(path)], n, rounds)},
    ]
    for name, policy in policies(tree).items():

        def work(policy: Policy = policy) -> int:
            n_decided = 0
            for part in chunks(path):
                probs = Probabilities(part, np.full(len(part), 3, np.int8))
                n_decided += int(decide(probs, tree, groups, policy).answered.sum())
            return n_decided

        decided: list[int] = []
        took = clocked(lambda: decided.append(work()), n, rounds)  # noqa: B023 - called at once
        rows.append({"decoder": name, **took, "coverage": round(decided[0] / n, 3)})
        print(f"{name}: {rows[-1]['cpu_us']} us", flush=True)
    return rows


def of_hiclass(path: Path, groups: SiblingGroups, n: int) -> Row | None:
    """hiclass, with local classifiers that look the best child up; None where it is not installed."""
    try:
        from hiclass import LocalClassifierPerParentNode
        from sklearn.base import BaseEstimator, ClassifierMixin
    except ImportError:
        return None

    class LookUp(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Knows which columns its children have, and nothing else."""

        def fit(self, x: NDArray[np.float32], y: NDArray[np.str_]) -> LookUp:  # noqa: ARG002
            self.classes_ = np.unique(y)
            self.columns_ = np.array([int(str(name).rpartition("::")[2]) for name in self.classes_])
            return self

        def predict(self, x: NDArray[np.float32]) -> NDArray[np.str_]:
            found: NDArray[np.str_] = self.classes_[x[:, self.columns_].argmax(axis=1)]
            return found

    tree = groups.taxonomy
    lineage = tree.lineage[tree.leaves]
    labels = np.where(lineage >= 0, lineage.astype(str), "")
    rival = LocalClassifierPerParentNode(local_classifier=LookUp())
    rival.fit(np.zeros((len(labels), 1), np.float32), labels)
    nodes = np.array(np.load(path, mmap_mode="r")[:n])
    said: list[Any] = []
    took = clocked(lambda: said.append(rival.predict(nodes)), n, 1)
    probs = Probabilities(nodes, np.full(n, 3, np.int8))
    ours = decide(probs, tree, groups, Policy(decoder="greedy")).node
    theirs = np.array([int([name for name in row if name][-1]) for row in said[0]])
    return {
        "decoder": "hiclass, per parent node",
        **took,
        "n": n,
        "agrees": round(float((ours == theirs).mean()), 4),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| decoder | stops | CPU µs a decision | wall µs | decided |", "|---|---|---|---|---|"]
    for row in rows:
        coverage = f"{row['coverage']:.3f}" if "coverage" in row else ""
        lines.append(f"| {row['decoder']} | {row['n_stops']} | {row['cpu_us']} | {row['wall_us']} | {coverage} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Microseconds a decision.")
    parser.add_argument("--n", type=int, default=100_000, help="decisions a decoder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with taxonomies/shopify")
    parser.add_argument("--work", type=Path, default=None, help="folder for 4 GB of probabilities; removed again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    call = parser.parse_args(arguments)
    tree = read_taxonomy(call.data / "taxonomies" / "shopify" / "en.categories.txt")
    said = facts(1)
    rows: list[Row] = []
    inputs: list[Row] = []
    stops = np.random.default_rng(1).random(tree.n_nodes) < 0.1
    with tempfile.TemporaryDirectory(dir=call.work) as folder:
        path = Path(folder) / "nodes.npy"
        for groups, n in ((SiblingGroups.of(tree), call.n), (SiblingGroups.of(tree, stops), max(call.n // 5, 1))):
            like = generate(path, groups, n)
            inputs.append(like)
            found = measure(path, groups, call.rounds)
            if not like["n_stops"] and (rival := of_hiclass(path, groups, min(n, N_RIVAL))) is not None:
                found.append(rival)
            rows += [{**row, "n_stops": like["n_stops"]} for row in found]
            path.unlink()
    call.results.write_text(
        json.dumps({**said, "inputs": inputs, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
