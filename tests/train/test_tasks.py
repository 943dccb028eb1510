"""Attributes learned with the category: what can be learned, what is masked, and that answers come out right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shelver.attributes import Attribute, Value, Vocabulary
from shelver.errors import ConfigError
from shelver.pipeline import value_groups
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.checkpoint import Progress
from shelver.train.data import Features
from shelver.train.linear import Targets, fit_linear
from shelver.train.loop import held_out
from shelver.train.losses import loss_for
from shelver.train.phases import value_counts
from shelver.train.tasks import MIN_PRODUCTS, Said, Tasks, encode, is_known, learnable

if TYPE_CHECKING:
    from conftest import Bench

Benches = Callable[..., "Bench"]


def attribute(name: str, *values: str, multi: bool = False) -> Attribute:
    return Attribute(name=name, kind="closed", multi=multi, values=tuple(Value(name=value) for value in values))


COLOUR = attribute("colour", "blue", "green", "red")
MARKS = attribute("marks", "striped", "dotted", multi=True)
BOTH = Vocabulary(attributes=(COLOUR, MARKS))


def test_labels_that_are_missing_are_masked_and_those_that_are_not_learned_too() -> None:
    said: list[Said] = [
        {"colour": ("red",)},
        {},
        {"colour": ("violet",)},
        {"marks": ("dotted",), "colour": ("blue", "red")},
    ]
    assert encode(said, COLOUR).tolist() == [2, -1, -1, 0]
    assert encode(said, MARKS).tolist() == [[-1, -1], [-1, -1], [-1, -1], [0, 1]]
    assert is_known(encode(said, MARKS)).tolist() == [False, False, False, True]
    assert is_known(encode(said, COLOUR)).tolist() == [True, False, False, True]


def test_an_attribute_is_learned_where_several_products_share_its_values() -> None:
    said = [
        {"colour": (("blue", "red")[row % 2],), "sku": (f"n{row}",), "length": ("3",), "rare": ("a",)}
        for row in range(MIN_PRODUCTS)
    ]
    said[0].pop("rare")
    vocabulary = Vocabulary(attributes=(COLOUR, Attribute(name="length", kind="number", unit="cm")))
    found, choices = learnable(said, vocabulary, None)
    assert [(a.name, [v.name for v in a.values]) for a in found.attributes] == [("colour", ["blue", "red"])]
    assert "colour (2 values, 30 labels)" in choices[0]
    for reason in ("length (a number)", "rare (29 labelled products, of 30 needed)", "sku (fewer than two values"):
        assert reason in choices[1]


def test_values_of_a_product_s_own_are_no_task_for_a_classifier() -> None:
    said = [{"model": ("same" if row < 4 else "other" if row < 8 else f"n{row}",)} for row in range(40)]
    found, choices = learnable(said, Vocabulary(), None)
    assert not found.attributes
    assert "model (nearly every product has a value of its own)" in choices[0]


def test_a_wanted_attribute_without_labels_is_refused_by_name() -> None:
    said = [{"colour": (("blue", "red")[row % 2],)} for row in range(MIN_PRODUCTS)]
    assert learnable(said, BOTH, ())[0].attributes == ()
    with pytest.raises(ConfigError, match="'season' cannot be learned") as error:
        learnable(said, BOTH, ["season"])
    assert "colour" in str(error.value)


def test_the_loss_is_the_sum_over_the_tasks_that_a_product_has_a_label_of(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    tasks = Tasks.of(groups, BOTH)
    torch.manual_seed(0)
    scores = torch.randn(3, tasks.n_tree_slots + tasks.n_values)
    nodes = torch.tensor([3, -1, 4])
    colour = torch.tensor([1, 2, -1])
    marks = torch.tensor([[-1, -1], [1, 0], [0, 0]])
    tree = loss_for("tree", Tasks(groups), level_weights=None, smoothing=0.0)
    loss = loss_for("tree", tasks, level_weights=None, smoothing=0.0, share=0.5)
    at = tasks.n_tree_slots
    of_tree = tree(scores[:, :at], nodes.clamp(min=0), ()) * torch.tensor([1.0, 0.0, 1.0])
    of_colour = F.cross_entropy(scores[:, at : at + 3], colour.clamp(min=0), reduction="none")
    asked = F.binary_cross_entropy_with_logits(scores[:, at + 3 :], marks.clamp(min=0).float(), reduction="none")
    expected = of_tree + 0.5 * (
        of_colour * torch.tensor([1.0, 1.0, 0.0]) + asked.sum(dim=1) * torch.tensor([0.0, 1.0, 1.0])
    )
    torch.testing.assert_close(loss(scores, nodes, (colour, marks)), expected)
    # A task with a variance of e counts 1 / e, and pays for it only where it is asked.
    noisy = loss(scores, nodes, (colour, marks), torch.tensor([0.0, 1.0, 0.0]))
    difference = 0.5 * (of_colour / np.e - of_colour + 0.5)
    torch.testing.assert_close((noisy - expected)[:2], difference[:2])
    assert float(noisy[2]) == pytest.approx(float(expected[2]))


def test_the_linear_part_learns_each_task_as_if_it_were_alone(bench: Benches) -> None:
    small = bench(vocabulary=BOTH)
    examples = small.examples(60, 1)
    from shelver.train.build import _targets, fit_vocabulary

    vocabulary = fit_vocabulary(small.trainer(Path()).plan, examples.texts)
    assert vocabulary is not None
    features = Features.of(examples, vocabulary)
    rows = np.flatnonzero(features.text_present)
    assert features.ngrams is not None
    ngrams = features.ngrams.rows(rows)
    node = examples.node[rows]
    node[::3] = -1  # some have no category
    features.node[rows] = node
    labels = np.unique(node[node >= 0])
    tasks = Tasks.of(SiblingGroups.of(small.tree, np.arange(7) == 1), BOTH)
    together = fit_linear(ngrams, _targets(features, rows, labels, tasks), n_features=len(vocabulary), passes=80)
    has = np.flatnonzero(node >= 0)
    alone = fit_linear(
        ngrams.rows(has),
        Targets.of_one(np.searchsorted(labels, node[has]), len(labels)),
        n_features=len(vocabulary),
        passes=80,
    )
    np.testing.assert_allclose(together.weight[:, : len(labels)], alone.weight, atol=0.01)
    colour = examples.labels[0][rows].astype(np.intp)
    alone = fit_linear(ngrams, Targets.of_one(colour, 3), n_features=len(vocabulary), passes=80)
    np.testing.assert_allclose(together.weight[:, len(labels) : len(labels) + 3], alone.weight, atol=0.01)


@pytest.mark.parametrize(("linear", "balanced", "head"), [(True, False, "tree"), (False, True, "levels")])
def test_attributes_are_learned_with_the_category_from_text_and_from_picture(
    bench: Benches, tmp_path: Path, linear: bool, balanced: bool, head: str
) -> None:
    small = bench(vocabulary=BOTH, epochs=30, linear=linear, balanced=balanced, head=head)
    fitted = small.learn(tmp_path, n=300, n_held=100)
    figures = fitted.chosen.validation
    assert figures["accuracy"] > 0.8
    assert figures["colour_accuracy"] > 0.85
    assert figures["marks_accuracy"] > 0.85
    assert set(fitted.chosen.values) == {"colour", "marks"}
    counts = value_counts(fitted)
    assert sum(counts["colour"].values()) == 300
    assert fitted.built.model.head.noise is None or bool((fitted.built.model.head.noise != 0).all())
    # From the picture alone, where the marks cannot be seen.
    seen = [b for b in held_out(fitted.built.model, _features(small, fitted.built)) if len(b.node)]
    task = fitted.tasks.attributes[0]
    believed = fitted.chosen.values["colour"].ready("image", task.groups)
    right = total = 0
    for batch in seen:
        of = batch.of_attribute(0, task).that_have("image")
        right += int((believed(of.scores).argmax(axis=1) == of.node).sum())
        total += len(of.node)
    assert right / total > 0.7


def _features(small: Bench, built: object) -> Features:
    from dataclasses import replace

    from shelver.train.build import Built

    assert isinstance(built, Built)
    features = Features.of(small.examples(150, 9), built.vocabulary)
    if built.linear is not None and features.ngrams is not None:
        features = replace(features, wide=built.linear.of_ngrams(features.ngrams))
    return features


def test_two_sets_with_different_labels_teach_what_each_knows(bench: Benches, tmp_path: Path) -> None:
    from dataclasses import replace

    small = bench(vocabulary=BOTH, epochs=30)
    whole = small.examples(400, 1)
    colours_only = np.arange(400) % 2 == 0
    node = np.where(colours_only, -1, whole.node).astype(np.int32)
    colour, marks = whole.labels[0].copy(), whole.labels[1].copy()
    colour[~colours_only] = -1
    marks[colours_only] = -1
    parted = replace(whole, node=node, labels=(colour, marks))
    fitted = small.trainer(tmp_path).learn(parted, small.examples(100, 2), Progress())
    assert (fitted.learned.node >= 0).sum() == 200
    assert sum(value_counts(fitted)["colour"].values()) == 200
    assert fitted.chosen.validation["accuracy"] > 0.8
    assert fitted.chosen.validation["colour_accuracy"] > 0.8


def test_an_attribute_of_several_values_is_calibrated_as_questions_with_two_answers() -> None:
    assert value_groups(COLOUR).taxonomy.names == ("blue", "green", "red")
    assert value_groups(MARKS).n_slots == 2
