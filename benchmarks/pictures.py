"""The picture path, products a second, against decoding plus bare ONNX Runtime on the same pictures in one run.

    python -m benchmarks.pictures grocery:fp32=models/grocery grocery:int8=models/grocery-int8

A model is timed end to end: encoded bytes in, decisions out, through `Classifier`. Bare is the least that anyone
has to do: each picture decoded and fitted, batches normalised, and the model's own networks run on them; no
products, no checks, no pooling, no colours, no head, no decision. Both take turns, so that both meet the same
machine; the figures are medians over the turns. Both have the same threads for ONNX Runtime. Accuracy is that of
the whole test part, from the picture alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import SETS, Set, catalogs_of, labelled
from benchmarks.machine import facts
from benchmarks.measure import Stopwatch
from benchmarks.ours import predictor
from benchmarks.run import DATA, HERE, keep
from benchmarks.systems import named_paths
from shelver import metrics
from shelver.catalog.store import Catalog
from shelver.errors import ConfigError, ShelverError
from shelver.images import normalise, views
from shelver.pipeline import Classifier, open_session
from shelver.product import Product
from shelver.registry import read_manifest

RESULTS: Final = HERE / "pictures.json"
BATCH_PICTURES: Final = 16
N_PICTURES: Final = 512
N_TURNS: Final = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """One pass over the pictures, both ways."""

    ours_wall_s: float
    ours_cpu_s: float
    bare_wall_s: float
    bare_cpu_s: float


def bare(model: Path, threads: int) -> Callable[[Sequence[bytes]], list[NDArray[np.float32]]]:
    """What runs a model's networks on encoded pictures and does nothing else.

    Raises:
        ConfigError: the model has no network for pictures.
    """
    image = read_manifest(model).image
    parts = [part for part in (image.parts if image is not None else ()) if part.file is not None]
    if not parts:
        raise ConfigError(
            f"{model} has no network for pictures",
            allowed="a model folder with one",
            remedy="Train with pictures.",
        )
    sessions = [open_session(model / str(part.file), threads) for part in parts]
    wanted = [(part.view, part.spec) for part in parts]

    def run(pictures: Sequence[bytes]) -> list[NDArray[np.float32]]:
        found = []
        for start in range(0, len(pictures), BATCH_PICTURES):
            looks = [views(data, wanted) for data in pictures[start : start + BATCH_PICTURES]]
            for at, (part, session) in enumerate(zip(parts, sessions, strict=True)):
                batch = normalise(np.stack([look[at] for look in looks]), part.spec)
                found.append(session.run(None, {"pixels": batch})[0])
        return found

    return run


def turn(classifier: Classifier, run: Callable[[Sequence[bytes]], object], products: Sequence[Product]) -> Turn:
    """Both ways once, over the same pictures."""
    watch = Stopwatch()
    classifier(products)
    ours = watch.wall_s(), watch.cpu_s()
    encoded = [data for product in products for data in product.images]
    watch = Stopwatch()
    run(encoded)
    return Turn(*ours, watch.wall_s(), watch.cpu_s())


def measure(
    models: Sequence[tuple[str, Path]], one: Set, catalog: Catalog, *, threads: int, n_pictures: int, n_turns: int
) -> list[dict[str, Any]]:
    """A row for each model on the test pictures of a catalog."""
    products, truth = labelled(catalog, ("test",), "picture")
    timed = [product for product in products if product.images][:n_pictures]
    opened = [(Classifier.open(folder, threads=threads), bare(folder, threads)) for _, folder in models]
    turns: list[list[Turn]] = [[] for _ in models]
    for number in range(n_turns + 1):
        for of_model, (classifier, run) in zip(turns, opened, strict=True):
            found = turn(classifier, run, timed)
            if number:  # the first one warms up
                of_model.append(found)
    rows: list[dict[str, Any]] = []
    for (name, folder), of_model, (classifier, _) in zip(models, turns, opened, strict=True):
        image = read_manifest(folder).image
        assert image is not None
        ours_s = statistics.median(t.ours_wall_s for t in of_model)
        rows.append(
            {
                "set": one.name,
                "system": name,
                "precision": "+".join(sorted({p.precision for p in image.parts if p.file is not None})),
                "products_per_s": round(len(timed) / ours_s, 2),
                "bare_per_s": round(len(timed) / statistics.median(t.bare_wall_s for t in of_model), 2),
                "ratio": round(statistics.median(t.bare_wall_s / t.ours_wall_s for t in of_model), 4),
                "cpu_ratio": round(statistics.median(t.bare_cpu_s / t.ours_cpu_s for t in of_model), 4),
                "accuracy": round(metrics.accuracy(truth, predictor(classifier)(products)), 6),
                "n_test": len(products),
                "n_timed": len(timed),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", metavar="CATALOG:NAME=FOLDER")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where catalogs are")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=N_PICTURES, help="how many are timed")
    parser.add_argument("--turns", type=int, default=N_TURNS)
    call = parser.parse_args(arguments)
    asked: dict[str, list[tuple[str, Path]]] = {}
    for name, folder in named_paths(call.models):
        catalog, _, model = name.partition(":")
        asked.setdefault(catalog, []).append((model, folder))
    for catalog, models in asked.items():
        one = next((s for s in SETS if s.catalog == catalog and s.ask == "picture"), None)
        if one is None:
            raise ConfigError(
                f"{catalog!r} in {call.models}",
                allowed=", ".join(s.catalog for s in SETS if s.ask == "picture"),
                remedy="Write CATALOG:NAME=FOLDER.",
            )
        (folder,) = catalogs_of(one, call.data, call.work)
        known = facts(call.threads)
        rows = measure(
            models, one, Catalog.open(folder), threads=call.threads, n_pictures=call.pictures, n_turns=call.turns
        )
        keep(call.results, [{**row, **known} for row in rows])
        for row in rows:
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
