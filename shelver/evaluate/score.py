"""Counts what a model folder said of a split of a catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shelver import metrics, registry
from shelver.calibrate import MODALITIES, Modality
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Predictions, concatenate, policies_of
from shelver.errors import CatalogError
from shelver.evaluate.ask import Column, ask
from shelver.evaluate.examples import examples_of_rows
from shelver.evaluate.figures import bins, curve, cut, level_row, row, select
from shelver.evaluate.honesty import calibrated
from shelver.evaluate.mistakes import branches, confusions, siblings
from shelver.evaluate.parts import Figures, Lenient, Views
from shelver.evaluate.schema import Report
from shelver.pipeline import Classifier
from shelver.taxonomy import Taxonomy
from shelver.values import popularity, read_values

MAX_SLICES: Final = 50

T = TypeVar("T")
Group = tuple[NDArray[np.int32], Predictions]
"""Some products: their true nodes and what was decided of them."""


def evaluate(
    model: Path,
    catalog: Catalog,
    *,
    split: Part = "test",
    values: Path | None = None,
    say: Callable[[str], None] = print,
    threads: int | None = None,
) -> Report:
    """Score a model folder on the labelled products of a split.

    Args:
        model: the model folder; its policies are scored with it.
        catalog: the catalog, or a golden set.
        split: "train", "validation" or "test".
        values: a file with the value of each category, as `read_values` reads it. None: the mean value of its
            products in the catalog, if they have one.
        say: told about the progress.
        threads: threads for each ONNX session.

    Raises:
        ModelError: `model` is no whole model folder.
        CatalogError: the split has no labelled product, or labels that the model's tree does not know.
        InputError: `values` is no such file.
        ConfigError: the model's policies cannot be read.
    """
    classifier = Classifier.open(model, threads=threads)
    tree = classifier.taxonomy
    value = read_values(values, tree) if values is not None else popularity(catalog, tree)
    answers = ask(classifier, catalog, split, policies_of(model), say)
    if not answers.natural:
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its {split} split",
            allowed="a split with labelled products",
            remedy="Name another --split; `shelver describe` lists what the catalog has.",
        )
    everything = truth, said = np.concatenate(answers.truth), concatenate(answers.natural)
    answers.natural.clear()  # a million products need not be held twice
    level_top = np.concatenate(answers.level_top)
    frequency = _frequency(tree, registry.read_labels(model))
    came: dict[Modality, Group] = {
        modality: everything if of.all() else (truth[of], select(said, of))
        for modality, of in [(m, said.modality == i) for i, m in enumerate(MODALITIES, start=1)]
        if of.any()
    }
    asked: dict[Modality, Group] = {}
    if answers.asked_truth:
        asked_truth = np.concatenate(answers.asked_truth)
        asked = {modality: (asked_truth, concatenate(parts)) for modality, parts in answers.asked.items()}

    def views(of: Callable[[NDArray[np.int32], Predictions], T]) -> Views[T]:
        return Views(all=of(*everything), by_modality=_each(came, of), asked=_each(asked, of))

    def worth_of(truth: NDArray[np.int32]) -> NDArray[np.float64] | None:
        return None if value is None else value[truth]

    def figures(truth: NDArray[np.int32], said: Predictions) -> Figures:
        return row(tree, truth, said, worth_of(truth))

    worth = worth_of(truth)
    also = answers.also.nodes()
    beside, lost = siblings(tree, truth, said, worth), branches(tree, truth, said, worth)
    shown = examples_of_rows(catalog, split, beside.rows | lost.rows, truth, said)
    levels = range(1, tree.n_levels + 1)
    return Report(
        model=model.resolve().name,
        model_version=classifier.model_version,
        catalog=catalog.folder.resolve().name,
        catalog_version=catalog.info.fingerprint,
        split=split,
        **figures(*everything).model_dump(),
        products_per_s=round(len(truth) / answers.seconds, 1),
        n_unlabelled=answers.n_unlabelled,
        n_errors=Counter(code for code in said.errors if code is not None),
        n_picture_errors=answers.picture_errors,
        by_level={
            str(level): level_row(tree, truth, said, level, top=level_top[:, level - 1], worth=worth)
            for level in levels
        },
        by_modality=_each(came, figures),
        asked=_each(asked, figures),
        by_frequency={
            name: figures(truth[of], select(said, of))
            for name, of in [(f, frequency[truth] == i) for i, f in enumerate(metrics.FREQUENCIES)]
            if of.any()
        },
        by_source=_slices(answers.source, truth, said, figures),
        by_language=_slices(answers.language, truth, said, figures),
        lenient=None if also is None else _lenient(tree, truth, said, worth, also, level_top),
        attributes=answers.attributes.reports(),
        reliability=views(bins),
        values=None if value is None else "catalog" if values is None else "file",
        selective=views(curve),
        selective_by_level={
            str(level): curve(*of_level)
            for level in levels
            # The products of this split may all end above the deepest levels of the tree.
            if len((of_level := cut(tree, truth, said, level)[1:])[0])
        },
        calibration=calibrated(tree, truth, answers.before, answers.after),
        policies=answers.policies.points(tree, truth, worth),
        confusions=confusions(tree, truth, said, worth),
        siblings=beside.with_examples(shown),
        tree=lost.with_examples(shown),
        examples=answers.examples.examples(),
    )


def _lenient(
    tree: Taxonomy,
    truth: NDArray[np.int32],
    said: Predictions,
    worth: NDArray[np.float64] | None,
    also: NDArray[np.int32],
    level_top: NDArray[np.int32],
) -> Lenient:
    return Lenient(
        n_several=int((also >= 0).any(axis=1).sum()),
        figures=row(tree, truth, said, worth, also=also),
        by_level={
            str(level): level_row(tree, truth, said, level, top=level_top[:, level - 1], worth=worth, also=also)
            for level in range(1, tree.n_levels + 1)
        },
    )


def _frequency(tree: Taxonomy, train_products: Mapping[str, int]) -> NDArray[np.int8]:
    counts = np.array([train_products.get(node_id, 0) for node_id in tree.ids], np.int64)
    return metrics.head_torso_tail(counts)


def _each(
    groups: Mapping[Modality, Group], of: Callable[[NDArray[np.int32], Predictions], T]
) -> dict[Modality, T]:
    return {modality: of(*group) for modality, group in groups.items()}


def _slices(
    column: Column,
    truth: NDArray[np.int32],
    said: Predictions,
    of: Callable[[NDArray[np.int32], Predictions], Figures],
) -> dict[str, Figures]:
    """Figures for each of the commonest values of a column; empty where the catalog lacks the column."""
    values = np.concatenate(column.parts)
    counts = np.bincount(values, minlength=len(column.codes))
    named = {name: code for name, code in column.codes.items() if name is not None}
    commonest = sorted(named, key=lambda name: (-counts[named[name]], name))[:MAX_SLICES]
    return {name: of(truth[rows], select(said, rows)) for name in commonest for rows in [values == named[name]]}
