"""Are promises kept? Policies are fitted on small draws of a pool and judged on the rest of it.

    python -m benchmarks.promises                        all sets, into benchmarks/promises.json
    python -m benchmarks.promises --sets generated --draws 50 --json trial.json

For each set, decoder and target: draws of labelled products without replacement, a fit on each, and the rest of
the pool as the truth. The pools:

    fashion    validation and test as one pool, draws of 1,000
    instacart  the same, draws of 500
    generated  100,000 products with known truth, draws of 1,000

The models of the first two saw nothing of the pool, not even to be calibrated: an eighth of the train part, by a
hash of the title, is their validation part. They read texts alone, by the encoders named in `TEXTS`, and learn on
the first call.

The generated products have scores on a tree of 12 x 6 x 5: Gumbel noise, times a clarity of their own that is
log-normal. A product's true category is drawn from the softmax among siblings of these scores; the model sees the
scores divided by .85, so that it is surer of itself than it should be.

A row says: `refused`, draws from which no promise could be made; `kept`, the share of the other draws in which the
precision on the rest reached the target, and `broken`, the share of all draws in which it did not; `coverage`, the
mean over the draws that were not refused; `plain_kept` and `plain_coverage`, the same of the loosest threshold
that just meets the target on the same draw; `hindsight`, the coverage of the loosest threshold that meets it on
the whole pool, and `ratio`, coverage over hindsight; `hindsight_apart` and `ratio_apart`, the same where deeper
levels may also have the target for a threshold of their own, as promises give them; `ceiling`, what a single test
at the best threshold known in hindsight would cover on average, refusals counted as nothing, over hindsight: how
much the draws can carry at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate.binomial import at_most
from shelver.calibrate.promise import GRID, Found, fit_promise
from shelver.calibrate.turns import Paths, Turns
from shelver.catalog.ingest import ingest
from shelver.catalog.reader import ProductRow
from shelver.catalog.rows import BadRow
from shelver.catalog.store import Catalog
from shelver.datasets.recipes import RECIPES, Recipe
from shelver.decide import Policy, Probabilities, decide
from shelver.decide.policy import Decoder
from shelver.errors import InputError, ShelverError
from shelver.pipeline import Classifier
from shelver.product import title_key
from shelver.registry import MANIFEST
from shelver.taxonomy import SiblingGroups, Taxonomy

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "promises.json"
DATA: Final = Path(os.environ.get("SHELVER_DATA") or HERE.parent.parent / "shared" / "data")
DRAWN: Final = {"fashion": 1_000, "instacart": 500, "generated": 1_000}
"""Products of a draw, by set."""
TEXTS: Final = {"fashion": "ngram", "instacart": "ngram+use"}
"""Text encoders by set: the default's, but for fashion, where n-grams alone are as good and learned sooner."""
DECODERS: Final[tuple[Decoder, ...]] = ("greedy", "climb", "best_leaf")
TARGETS: Final = (0.9, 0.95, 0.99)
DELTA: Final = 0.05
DRAWS: Final = 200
GENERATED: Final = 100_000
_WIDTHS: Final = (12, 6, 5)
_CLARITY, _SPREAD, _TEMPERATURE = 6.0, 0.8, 0.85
_CHUNK: Final = 5_000

Row = dict[str, Any]
Chunk = tuple[Probabilities, NDArray[np.int32]]
"""Some products' probabilities and their true nodes."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Labelled products, as decoders lead them.

    Attributes:
        name: of the set.
        n_drawn: products of a draw.
        paths: by decoder.
    """

    name: str
    n_drawn: int
    paths: dict[Decoder, Paths]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", default=",".join(DRAWN), help="with commas between")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="for catalogs and models")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the rows")
    call = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in call.sets.split(","):
        pool = generated() if name == "generated" else real(name, call.data, call.work / "promises")
        for row in rows_of(pool, call.draws):
            rows.append(row)
            print(told(row), flush=True)
        call.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def rows_of(pool: Pool, draws: int) -> Iterator[Row]:
    """The rows of a pool; every decoder and target sees the same draws."""
    size = len(next(iter(pool.paths.values())))
    rng = np.random.default_rng(0)
    picked = [rng.permutation(size) < pool.n_drawn for _ in range(draws)]
    for decoder, paths in pool.paths.items():
        turns = paths.turns()
        for target in TARGETS:
            yield {"set": pool.name, "decoder": decoder, "target": target} | judged(paths, turns, picked, target)


def judged(paths: Paths, turns: Turns, picked: Sequence[NDArray[np.bool_]], target: float) -> Row:
    """What came of fitting on each draw; see the module."""
    found = [fitted(paths.of(drawn), target) for drawn in picked]
    plain = [just_meets(turns.of(drawn), target) for drawn in picked]
    by_deeper = {one.deeper: turns_of(paths, one.deeper) for one in found if one is not None}
    promised = [None if one is None else (by_deeper[one.deeper], one.threshold) for one in found]
    kept, coverage = on_the_rest(promised, picked, target)
    plain_kept, plain_coverage = on_the_rest(
        [None if threshold is None else (turns, threshold) for threshold in plain], picked, target
    )
    best = hindsight(turns, target)
    apart = max(best, hindsight(turns_of(paths, None if paths.whole else target), target))
    n_promised = len(kept)
    return {
        "draws": len(picked),
        "drawn": int(picked[0].sum()),
        "pool": len(turns),
        "refused": len(picked) - n_promised,
        "kept": mean(kept),
        "broken": (n_promised - sum(kept)) / len(picked),
        "coverage": mean(coverage),
        "plain_kept": mean(plain_kept),
        "plain_coverage": mean(plain_coverage),
        "hindsight": round(best, 4),
        "ratio": round(float(np.mean(coverage)) / best, 4) if coverage and best else None,
        "hindsight_apart": round(apart, 4),
        "ratio_apart": round(float(np.mean(coverage)) / apart, 4) if coverage and apart else None,
        "ceiling": round(ceiling(turns, picked, target) / best, 4) if best else None,
    }


def fitted(paths: Paths, target: float) -> Found | None:
    """The thresholds that were promised for, None where the promise was refused."""
    try:
        return fit_promise(paths, target, delta=DELTA)
    except InputError:
        return None


def turns_of(paths: Paths, deeper: float | None) -> Turns:
    """The turns of the first level's threshold, the deeper levels having one of their own."""
    return (paths if deeper is None else paths.cut_where_unsure(deeper, 1)).turns()


def just_meets(turns: Turns, target: float) -> float | None:
    """The loosest threshold with a precision of at least the target on these very products."""
    n_decided, n_wrong = turns.counts(GRID)
    meets = np.flatnonzero((n_decided > 0) & (n_decided - n_wrong >= target * n_decided))
    return float(GRID[meets[-1]]) if len(meets) else None


def on_the_rest(
    found: Sequence[tuple[Turns, float] | None], picked: Sequence[NDArray[np.bool_]], target: float
) -> tuple[list[bool], list[float]]:
    """Whether the target was reached, and the coverage, on what each draw left; for draws with a threshold."""
    kept, coverage = [], []
    for drawn, one in zip(picked, found, strict=True):
        if one is not None:
            turns, threshold = one
            rest = turns.of(~drawn)
            (n_decided,), (n_wrong,) = rest.counts(threshold)
            kept.append(bool(n_decided - n_wrong >= target * n_decided))
            coverage.append(float(n_decided) / len(rest))
    return kept, coverage


def hindsight(turns: Turns, target: float) -> float:
    """The greatest coverage of any threshold with which the whole pool meets the target."""
    thresholds = np.unique(turns.decided_at[np.isfinite(turns.decided_at)])
    n_decided, n_wrong = turns.counts(thresholds)
    meets = n_decided - n_wrong >= target * n_decided
    return float(n_decided[meets].max(initial=0)) / len(turns)


def ceiling(turns: Turns, picked: Sequence[NDArray[np.bool_]], target: float) -> float:
    """The mean coverage of the best single threshold, tested alone on each draw; a failure covers nothing."""
    counts = [turns.of(drawn).counts(GRID) for drawn in picked]
    passes = np.mean([at_most(n_wrong, n, 1 - target) <= DELTA for n, n_wrong in counts], axis=0)
    return float((passes * turns.counts(GRID)[0]).max()) / len(turns)


def mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def told(row: Row) -> str:
    """A row on a line."""

    def share(name: str) -> str:
        return f"{row[name]:.3f}" if row[name] is not None else "-"

    return (
        f"{row['set']:>9} {row['decoder']:>9} {row['target']:.2f}: refused {row['refused']:3d} of {row['draws']}, "
        f"kept {share('kept')}, coverage {share('coverage')} of {share('hindsight')} ({share('ratio')}, ceiling "
        f"{share('ceiling')}); plain kept {share('plain_kept')}, coverage {share('plain_coverage')}"
    )


# --- pools ----------------------------------------------------------------------------------------------------


def real(name: str, data: Path, work: Path) -> Pool:
    """The pool of a data set; its model learns where it is not there."""
    catalog_folder, model = work / "catalogs" / name, work / "models" / name
    ingest(data / name, catalog_folder, recipe=unseen_pool(RECIPES[name]))
    catalog = Catalog.open(catalog_folder)
    if not (model / MANIFEST).is_file():
        from shelver.train.config import TrainConfig
        from shelver.train.run import train

        config = TrainConfig(text_encoder=TEXTS[name], image_encoder="none", refit=False, folds=0)
        train(catalog, model, config, cache=work / "cache", threads=1, resume=(model / "run").is_dir())
    classifier = Classifier.open(model, threads=1)

    def chunks() -> Iterator[Chunk]:
        for products in catalog.products("test", images=False, batch_rows=256):
            labelled = [p for p in products if p.node_id is not None]
            embedded = classifier.embed(labelled)
            truth = classifier.taxonomy.indices([p.node_id for p in labelled if p.node_id is not None])
            yield classifier.emb2prob(embedded.text, embedded.image), truth

    return Pool(name, DRAWN[name], led(chunks(), classifier.taxonomy, classifier.prob2pred.groups))


def unseen_pool(recipe: Recipe) -> Recipe:
    """A recipe without pictures whose validation and test are one part, "test", and an eighth of whose train part,
    by a hash of the title, is validation."""

    def rows(source: Path) -> Iterator[ProductRow | BadRow]:
        for row in recipe.rows(source):
            if isinstance(row, BadRow):
                yield row
                continue
            product = replace(row.product, images=(), image_urls=())
            if product.split == "train":
                digest = hashlib.sha256(("held:" + title_key(product.title or "")).encode()).hexdigest()
                yield replace(
                    row, product=replace(product, split="validation" if int(digest, 16) % 8 == 0 else "train")
                )
            else:
                yield replace(row, product=replace(product, split="test"))

    return replace(recipe, name=f"{recipe.name}-pool", rows=rows, pictures=RECIPES["instacart"].pictures)


def generated(n: int = GENERATED, n_drawn: int = DRAWN["generated"]) -> Pool:
    """Products of a known truth and a model that is surer than it should be; see the module."""
    paths = [
        (f"{a}", f"{b}", f"{c}") for a in range(_WIDTHS[0]) for b in range(_WIDTHS[1]) for c in range(_WIDTHS[2])
    ]
    tree = Taxonomy.from_paths(paths)
    groups = SiblingGroups.of(tree)
    rng = np.random.default_rng(1)

    def chunks() -> Iterator[Chunk]:
        for start in range(0, n, _CHUNK):
            size = min(_CHUNK, n - start)
            clarity = _CLARITY * np.exp(_SPREAD * rng.normal(size=(size, 1)))
            scores = (rng.gumbel(size=(size, groups.n_slots)) * clarity).astype(np.float32)
            true = groups.distribution(scores)[:, tree.leaves].cumsum(axis=1, dtype=np.float64)
            at = (true <= rng.random((size, 1)) * true[:, -1:]).sum(axis=1)
            probs = Probabilities(groups.distribution(scores / np.float32(_TEMPERATURE)), np.ones(size, np.int8))
            yield probs, tree.leaves[at]

    return Pool("generated", n_drawn, led(chunks(), tree, groups))


def led(chunks: Iterator[Chunk], tree: Taxonomy, groups: SiblingGroups) -> dict[Decoder, Paths]:
    """Where each decoder leads the products when everything is sure."""
    ends: dict[Decoder, list[NDArray[np.int32]]] = {decoder: [] for decoder in DECODERS}
    sure: dict[Decoder, list[NDArray[np.float32]]] = {decoder: [] for decoder in DECODERS}
    truth: list[NDArray[np.int32]] = []
    for probs, labels in chunks:
        truth.append(labels)
        for decoder in DECODERS:
            said = decide(probs, tree, groups, Policy(decoder=decoder, n_top=1, unsure="abstain"))
            ends[decoder].append(np.where(said.answered, said.node, -1).astype(np.int32))
            sure[decoder].append(said.level_confidence)
    return {
        decoder: Paths(
            tree,
            np.concatenate(ends[decoder]),
            np.concatenate(sure[decoder]),
            np.concatenate(truth),
            whole=decoder == "best_leaf",
        )
        for decoder in DECODERS
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
