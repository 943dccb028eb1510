"""The recipe: read what is true, ask every model, judge each challenger against the first one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelver import registry
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.compare.ask import Answers, Say, ask
from shelver.compare.golden import Golden, read_golden, slices_of
from shelver.compare.judge import judge, model_row
from shelver.compare.schema import Comparison
from shelver.errors import InputError


def compare(
    models: Sequence[Path],
    catalog: Catalog,
    *,
    split: Part = "test",
    values: NDArray[np.float64] | None = None,
    notes: Sequence[str] = (),
    threads: int | None = None,
    say: Say = print,
) -> Comparison:
    """Ask several models about the same labelled products, and say which is better.

    Args:
        models: model folders; the first is the baseline, mostly the champion.
        catalog: a catalog or a golden set, whose categories every model's tree must know.
        split: its part.
        values: what each category of the catalog is worth, shape (K,), as `shelver.values.read_values` reads
            it; None: the mean value of its products in the catalog.
        notes: to stand in the comparison; in place of what it says itself of a split other than test.
        threads: threads for each ONNX session.
        say: told about the progress.

    Raises:
        InputError: no model, or impossible values.
        ModelError: one of them is no whole model folder.
        CatalogError: the split has no labelled product, or a label that a model does not know.
    """
    if not models:
        raise InputError("no model", allowed="one model folder or more", remedy="Name them.")
    for model in models:
        registry.read_manifest(model, verify=False)  # the third of five must not fail after an hour
    golden = read_golden(catalog, split, values)
    names = model_names(models)
    answers = []
    for number, (model, name) in enumerate(zip(models, names, strict=True), start=1):
        say(f"asking {name}, model {number} of {len(models)}, about {len(golden):,} products")
        answers.append(ask(model, catalog, split, golden, name=name, threads=threads, say=say))
    baseline, *challengers = answers
    slices = slices_of(golden, registry.read_labels(models[0]))
    return Comparison(
        catalog=catalog.folder.resolve().name,
        catalog_version=catalog.info.fingerprint,
        split=split,
        n=len(golden),
        n_unlabelled=golden.n_unlabelled,
        values_from=golden.values_from,
        models=tuple(model_row(one, golden) for one in answers),
        pairs=tuple(judge(baseline, challengers, golden, slices)),
        notes=(*(notes or _notes_on(split)), *_notes(answers, golden)),
    )


def _notes_on(split: Part) -> list[str]:
    if split == "test":
        return []
    return [
        f"The {split} split is no test: models may have learned from it (`refit` takes validation too), and were "
        "stopped and calibrated by validation."
    ]


def _notes(answers: Sequence[Answers], golden: Golden) -> list[str]:
    notes = []
    if len({one.tree.version for one in answers}) > 1:
        notes.append(
            "The models have different trees. Decisions are told apart by node id, and part of the credit is "
            "measured along each model's own tree."
        )
    if golden.values_from is None:
        notes.append("No values: the products have none, and no file was named. All products count alike.")
    return notes


def model_names(models: Sequence[Path]) -> list[str]:
    """A short name for each folder: its own, with as much of its path before it as tells it from the others."""
    parts = [Path(os.path.abspath(model)).parts for model in models]  # noqa: PTH100 - links keep their names
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:  # one folder named twice
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered
