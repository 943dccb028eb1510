"""Attributes on fashion: one model for category and all attributes, beside one for the category alone and SVMs.

    python -m benchmarks.attributes whole CATALOG --work DIR [--config FILE] [--cache DIR] [--json FILE]
    python -m benchmarks.attributes svm CATALOG --work DIR [--json FILE]
    python -m benchmarks.attributes two CATALOG --work DIR ...
    python -m benchmarks.attributes add CATALOG --work DIR ...
    python -m benchmarks.attributes balanced CATALOG --work DIR ...
    python -m benchmarks.attributes titles CATALOG --work DIR ...

CATALOG is fashion, ingested by its recipe, which brings gender, baseColour, season and usage. `whole` trains with
all attributes and without any, by the same config. `two` gives one half of the products the colour alone and the
other half all but the colour, as two catalogs. `add` trains without season and adds it then. Judged on test, asked
with the text alone, the picture alone and both; macro-F1 over the values with 20 test products or more. The config
is the default one or a file's; a cache of embeddings that is filled already saves time, on all sides alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.machine import facts
from benchmarks.measure import Stopwatch
from shelver import metrics
from shelver.attributes import Extractor
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.evaluate import Figures, evaluate
from shelver.evaluate.attribute_parts import AttributeFigures
from shelver.product import Product, TextSpec, text_of

COLOUR: Final = "baseColour"
ADDED: Final = "season"
COMMON: Final = 20
THREADS: Final = 1

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; with --json also add the rows to a file, in place of those of the same systems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(EXPERIMENTS))
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for models and catalogs")
    parser.add_argument("--cache", type=Path, help="of embeddings; else one in the work folder")
    parser.add_argument("--config", type=Path, help="a training config; else the default one")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    given = facts(THREADS)
    cache = args.cache or args.work / "cache"
    rows = EXPERIMENTS[args.what](Catalog.open(args.catalog), args.work, args.config, cache)
    rows = [{**row, "config": str(args.config or "default"), **given} for row in rows]
    for row in rows:
        print(json.dumps(row))
    if args.json is not None:
        before = json.loads(args.json.read_text(encoding="utf-8")) if args.json.is_file() else []
        done = {(row["system"], row["config"]) for row in rows}
        kept = [row for row in before if (row["system"], row.get("config")) not in done]
        args.json.write_text(json.dumps(kept + rows, indent=1) + "\n", encoding="utf-8")


def whole(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:
    """One model for all, and one for the category alone."""
    name = file.stem if file is not None else "default"
    rows = _trained([catalog], catalog, work / f"{name}-all", file, cache, {}, f"all, {name}")
    return rows + _trained(
        [catalog], catalog, work / f"{name}-category", file, cache, {"attributes": ()}, f"category, {name}"
    )


def two(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:
    """Two catalogs, of which each labels what the other does not; and one that labels all, beside them."""
    halves = _halves(catalog, work)
    rows = _trained(halves, catalog, work / "two-sets", file, cache, {}, "two sets")
    return rows + _trained([catalog], catalog, work / "one-set", file, cache, {}, "one set")


def balanced(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:
    """The weights of the tasks learned from their noise; to be held against `one set`, where they are all 1."""
    return _trained([catalog], catalog, work / "balanced", file, cache, {"balanced": True}, "balanced")


def add(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:
    """A model without season, the same with season added, and one that learned all at once."""
    from shelver.train.add import add_attributes
    from shelver.train.config import TrainConfig, load_config

    names = tuple(a.name for a in catalog.vocabulary.attributes if a.name != ADDED)
    base = work / "without-season"
    rows = _trained([catalog], catalog, base, file, cache, {"attributes": names}, "without season")
    config = load_config(file) if file is not None else TrainConfig()
    out = work / "season-added"
    resumed, watch = _cut_off(out), Stopwatch()
    add_attributes(
        catalog, out, config, base=base, names=[ADDED], cache=cache, threads=THREADS, resume=(out / "run").is_dir()
    )
    rows += _judged(out, catalog, "season added", _spent(out, watch, resumed=resumed))
    return rows + _trained([catalog], catalog, work / "one-set", file, cache, {}, "one set")


def svm(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:  # noqa: ARG001
    """TF-IDF and a linear SVM for each attribute, on the titles."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    learned, asked = _products(catalog, ("train", "validation")), _products(catalog, ("test",))
    rows = []
    for name in (attribute.name for attribute in catalog.vocabulary.attributes):
        texts, labels = _labelled(learned, name)
        watch = Stopwatch()
        model = make_pipeline(
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
            ),
            LinearSVC(C=0.5, random_state=0),
        ).fit(texts, labels)
        cpu_s = watch.cpu_s()
        of_test, truth = _labelled(asked, name)
        rows.append(
            {"system": "SVM", "task": name, "asked": "text", "train_cpu_s": round(cpu_s, 1)}
            | _figures(np.array(truth), model.predict(of_test))
        )
    return rows


def titles(catalog: Catalog, work: Path, file: Path | None, cache: Path) -> list[Row]:  # noqa: ARG001
    """What titles state by the vocabulary's own words, held against the labels of train and validation."""
    extractor = Extractor(catalog.vocabulary)
    products = _products(catalog, ("train", "validation"))
    told = [extractor.extract(Product(p.product_id, title=p.title)) for p in products]
    rows = []
    for name in (attribute.name for attribute in catalog.vocabulary.attributes):
        stated = [(of.get(name), p.attributes.get(name)) for of, p in zip(told, products, strict=True)]
        right = [found[0] in labels for found, labels in stated if found and labels]
        n = sum(labels is not None for _, labels in stated)
        shares = {"coverage": round(len(right) / n, 4), "precision": round(sum(right) / max(len(right), 1), 4)}
        rows.append({"system": "titles", "task": name, "asked": "text", "n": n, **shares})
    return rows


EXPERIMENTS: Final[dict[str, Callable[[Catalog, Path, Path | None, Path], list[Row]]]] = {
    "whole": whole,
    "two": two,
    "add": add,
    "balanced": balanced,
    "svm": svm,
    "titles": titles,
}


def _products(catalog: Catalog, splits: Sequence[Part]) -> list[Product]:
    return [p for split in splits for batch in catalog.products(split, images=False) for p in batch]


def _labelled(products: Sequence[Product], name: str) -> tuple[list[str], list[str]]:
    """Texts and labels of the products that have one."""
    known = [p for p in products if p.attributes.get(name)]
    return [text_of(p, TextSpec()) or "" for p in known], [p.attributes[name][0] for p in known]


def _figures(truth: NDArray[np.str_], answers: NDArray[np.str_]) -> Row:
    """As `shelver evaluate` counts them: accuracy, and F1 averaged over values with `COMMON` products or more."""
    names, codes = np.unique(np.concatenate([truth, answers]), return_inverse=True)
    true, said = codes[: len(truth)].astype(np.int32), codes[len(truth) :].astype(np.int32)
    common = np.flatnonzero(np.bincount(true, minlength=len(names)) >= COMMON)
    f1 = []
    for value in common.tolist():
        right = np.count_nonzero((true == value) & (said == value))
        f1.append(2 * right / (np.count_nonzero(true == value) + np.count_nonzero(said == value)))
    return {
        "n": len(truth),
        "accuracy": round(metrics.accuracy(true, said), 4),
        "macro_f1_common": round(float(np.mean(f1)), 4),
    }


def _trained(
    catalogs: Sequence[Catalog],
    judged_on: Catalog,
    out: Path,
    file: Path | None,
    cache: Path,
    changes: dict[str, Any],
    system: str,
) -> list[Row]:
    """Train, or go on with a run that was cut off, and judge."""
    from shelver.train.config import TrainConfig, load_config
    from shelver.train.run import train

    start = load_config(file) if file is not None else TrainConfig()
    config = TrainConfig.model_validate({**start.model_dump(), **changes})
    resumed, watch = _cut_off(out), Stopwatch()
    train(catalogs, out, config, cache=cache, threads=THREADS, resume=(out / "run").is_dir())
    return _judged(out, judged_on, system, _spent(out, watch, resumed=resumed))


def _cut_off(out: Path) -> bool:
    """Whether a training stands there that is not done."""
    return (out / "run").is_dir() and not (out / "manifest.json").is_file()


def _spent(out: Path, watch: Stopwatch, *, resumed: bool) -> float:
    """CPU seconds of a training; not a number where a call that was cut off took some of them."""
    note = out.with_name(f"{out.name}.cpu_s")
    if not note.is_file():
        note.write_text(str(float("nan") if resumed else watch.cpu_s()))
    return float(note.read_text())


def _judged(model: Path, catalog: Catalog, system: str, cpu_s: float) -> list[Row]:
    """A row for each task and each way of asking."""
    report = evaluate(model, catalog, split="test", threads=THREADS, say=print)
    same = {"system": system, "train_cpu_s": round(cpu_s, 1)}
    rows: list[Row] = []
    ways: list[tuple[str, Figures]] = [("as they come", report.figures), *report.asked.items()]
    for way, figures in ways:
        rows.append(
            {**same, "task": "path", "asked": way, "n": figures.n}
            | {"accuracy": round(figures.accuracy or 0, 4), "macro_f1": round(figures.macro_f1 or 0, 4)}
        )
    for name, of in report.attributes.items():
        ways_of: list[tuple[str, AttributeFigures]] = [("as they come", of), *of.asked.items()]
        for asked, one in ways_of:
            rows.append(
                {**same, "task": name, "asked": asked, "n": one.n, "accuracy": round(one.accuracy or 0, 4)}
                | {"macro_f1_common": round(one.macro_f1_common or 0, 4), "ece": round(one.ece or 0, 4)}
            )
    return rows


def _halves(catalog: Catalog, work: Path) -> list[Catalog]:
    """Every other product with its colour alone, and the rest with all but the colour; test is left out."""
    names = [attribute.name for attribute in catalog.vocabulary.attributes]
    parts: tuple[list[Row], list[Row]] = ([], [])
    number = 0
    splits: tuple[Part, ...] = ("train", "validation")
    for split in splits:
        for batch in catalog.products(split):
            for product in batch:
                half = number % 2
                number += 1
                has = {n: v[0] for n, v in product.attributes.items() if v and (n == COLOUR) == (half == 0)}
                row = {"product_id": product.product_id, "title": product.title, "image": product.images[0]}
                row |= {"category": product.node_id if half else None, "split": split}
                parts[half].append(row | {n: has.get(n) for n in names if (n == COLOUR) == (half == 0)})
    made = []
    # The one with the categories comes first: its tree is learned.
    for name, rows in (("rest", parts[1]), ("colour", parts[0])):
        folder = work / f"half-{name}"
        if not (folder / "catalog.json").is_file():
            feed = work / f"half-{name}.parquet"
            work.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), feed)
            wanted: dict[str, str | tuple[str, ...]] = {n: n for n in names if n in rows[0]}
            mapping = Mapping(category_format="id", attributes=wanted)
            ingest(feed, folder, mapping=mapping, taxonomy=catalog.taxonomy)
        made.append(Catalog.open(folder))
    return made


if __name__ == "__main__":
    main()
