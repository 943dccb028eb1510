"""What is said of a product beside its shelf: only what applies there, and only what is sure enough."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shelver.attributes import EMPTY, Attribute, Value, Vocabulary
from shelver.decide import (
    OUTCOMES,
    Applying,
    AttributeAnswer,
    AttributeRule,
    Policy,
    Predictions,
    Probabilities,
    concatenate,
    decide,
)
from shelver.errors import ConfigError, ShapeError
from shelver.pipeline import Prob2Pred
from shelver.taxonomy import SiblingGroups, Taxonomy

HOME, TOYS, CHAIRS, LAMPS, CARS, BAR, DECK = range(7)


def attribute(name: str, values: str, *nodes: str, multi: bool = False) -> Attribute:
    named = tuple(Value(name=value) for value in values.split())
    return Attribute(name=name, values=named, nodes=nodes, multi=multi)


VOCABULARY = Vocabulary(
    attributes=(
        attribute("colour", "red blue green"),
        attribute("seats", "one two", "Chairs"),
        attribute("rooms", "hall bath garden", "Lamps", "Chairs", multi=True),
    )
)


def at(tree: Taxonomy, *places: int) -> NDArray[np.float32]:
    """Products that stand there almost surely, .9 of each."""
    nodes = np.zeros((len(places), tree.n_nodes), np.float32)
    for row, k in zip(nodes, places, strict=True):
        for other in np.flatnonzero(tree.is_leaf):
            share = 0.9 if other == k else 0.1 / (tree.n_leaves - 1)
            row[[*tree.ancestors(int(other)).tolist(), other]] += np.float32(share)
    return nodes


def probabilities(nodes: NDArray[np.float32], **values: list[list[float]]) -> Probabilities:
    found = {name: np.array(of_one, np.float32) for name, of_one in values.items()}
    sources = {name: np.full(len(nodes), 1, np.int8) for name in found}
    return Probabilities(nodes, np.full(len(nodes), 3, np.int8), attributes=found, sources=sources)


@pytest.fixture
def chairs_and_cars(seven: Taxonomy) -> Probabilities:
    return probabilities(
        at(seven, BAR, LAMPS, CARS),
        colour=[[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6]],
        seats=[[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]],
        rooms=[[0.6, 0.9, 0.4], [0.1, 0.2, 0.3], [0.9, 0.9, 0.9]],
    )


def said_of(
    probs: Probabilities, tree: Taxonomy, policy: Policy | None = None, vocabulary: Vocabulary = VOCABULARY
) -> Predictions:
    prob2pred = Prob2Pred(tree, SiblingGroups.of(tree), Applying.of(vocabulary, tree))
    return prob2pred(probs, policy or Policy())


def values_of(said: Predictions) -> list[dict[str, str | tuple[str, ...]]]:
    return [{name: answer.value for name, answer in one.attributes.items()} for one in said]


def test_without_a_policy_everything_that_applies_is_answered(
    seven: Taxonomy, chairs_and_cars: Probabilities
) -> None:
    said = said_of(chairs_and_cars, seven)
    assert values_of(said) == [
        {"colour": "red", "seats": "one", "rooms": ("bath", "hall")},
        {"colour": "blue"},  # a lamp has no seats, and none of its rooms is more likely than not
        {"colour": "green"},
    ]
    bar = said[0].attributes
    assert bar["colour"] == AttributeAnswer("red", pytest.approx(0.7), "text")  # type: ignore[arg-type]
    assert bar["rooms"].confidence == pytest.approx(0.6)  # of the least sure one
    column = said.attributes["rooms"]
    assert (column.row.tolist(), column.value.tolist(), column.multi) == ([0, 0], [1, 0], True)
    assert [x.dtype for x in (column.row, column.value, column.confidence, column.source)] == [
        *(np.int32, np.int32, np.float32, np.int8)
    ]


def test_what_applies_to_a_node_applies_below_it_and_not_above(seven: Taxonomy) -> None:
    applying = Applying.of(VOCABULARY, seven)
    seats = applying.names.index("seats")
    assert np.flatnonzero(applying.applies[:, seats]).tolist() == [CHAIRS, BAR, DECK]
    probs = probabilities(at(seven, BAR, BAR), seats=[[0.9, 0.1], [0.9, 0.1]])
    for level, answered in ((1, {}), (2, {"seats": "one"}), (3, {"seats": "one"})):
        said = said_of(probs, seven, Policy(max_level=level))
        assert [seven.level[k] for k in said.node] == [level, level]
        assert values_of(said) == [answered, answered]


def test_what_is_not_sure_enough_is_not_answered(seven: Taxonomy, chairs_and_cars: Probabilities) -> None:
    def answered(name: str, rule: AttributeRule) -> list[str | tuple[str, ...] | None]:
        return [
            one.get(name) for one in values_of(said_of(chairs_and_cars, seven, Policy(attributes={name: rule})))
        ]

    assert answered("colour", AttributeRule(threshold=0.6)) == ["red", None, "green"]  # .6 reaches .6 as float32
    assert answered("colour", AttributeRule(threshold=0.601)) == ["red", None, None]
    assert answered("colour", AttributeRule(threshold=1)) == [None, None, None]
    assert answered("rooms", AttributeRule(threshold=0.7)) == [("bath",), None, None]
    assert answered("rooms", AttributeRule(threshold=0.25)) == [("bath", "hall", "garden"), ("garden",), None]
    out = said_of(chairs_and_cars, seven, Policy(attributes={"colour": AttributeRule(answer=False)}))
    assert list(out.attributes) == ["seats", "rooms"]


def test_suggestions_and_reviews_count_the_most_probable_node_and_silence_says_nothing(
    seven: Taxonomy, chairs_and_cars: Probabilities
) -> None:
    sure = said_of(chairs_and_cars, seven)
    for unsure in ("suggest", "review"):
        said = said_of(chairs_and_cars, seven, Policy(thresholds=(2.0,), unsure=unsure))
        assert not said.answered.any()
        assert values_of(said) == values_of(sure)
    assert values_of(said_of(chairs_and_cars, seven, Policy(decoder="top_n"))) == values_of(sure)
    for policy in (Policy(thresholds=(2.0,), unsure="abstain"), Policy(thresholds=(2.0,))):
        assert values_of(said_of(chairs_and_cars, seven, policy)) == [{}, {}, {}]
    strange = Probabilities(
        chairs_and_cars.nodes,
        np.array([0, 1, 2], np.int8),
        np.array([1.0, 0.99, 0.5], np.float32),
        chairs_and_cars.attributes,
        {},
    )
    said = said_of(strange, seven, Policy(outside=0.9))
    assert [OUTCOMES[code] for code in said.outcome] == ["error", "outside", "decided"]
    assert values_of(said) == [{}, {}, {"colour": "green"}]
    assert said[2].attributes["colour"].source == "image"  # without a source, what the product has


def test_an_attribute_that_nothing_was_seen_of_is_not_answered(seven: Taxonomy) -> None:
    probs = probabilities(at(seven, BAR), colour=[[0.0, 0.0, 0.0]], rooms=[[0.0, 0.0, 0.0]])
    anything = {name: AttributeRule(threshold=0.0) for name in ("colour", "rooms")}
    said = said_of(probs, seven, Policy(attributes=anything))
    assert values_of(said) == [{}]
    assert set(said.attributes) == {"colour", "rooms"}  # seats were not given


def test_a_policy_for_attributes_that_the_model_lacks_is_refused(
    seven: Taxonomy, chairs_and_cars: Probabilities
) -> None:
    policy = Policy(attributes={"size": AttributeRule(threshold=0.9), "kind": AttributeRule()})
    with pytest.raises(ConfigError, match="'size' and 1 more") as refused:
        said_of(chairs_and_cars, seven, policy)
    assert refused.value.allowed == "the attributes of the model: colour, seats, rooms"
    assert refused.value.remedy
    for without in (None, Applying.of(EMPTY, seven)):
        with pytest.raises(ConfigError, match="none: this model"):
            decide(chairs_and_cars, seven, SiblingGroups.of(seven), policy, without)


def test_values_of_another_model_are_refused(seven: Taxonomy) -> None:
    for wrong in ([[0.5, 0.5]], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]):
        with pytest.raises(ShapeError, match="'colour'"):
            said_of(probabilities(at(seven, BAR), colour=wrong), seven)


def test_answers_become_json(seven: Taxonomy, chairs_and_cars: Probabilities) -> None:
    answers = said_of(chairs_and_cars, seven)[0].attributes
    written = json.loads(json.dumps({name: answer.as_json() for name, answer in answers.items()}))
    assert written == {
        "colour": {"value": "red", "confidence": 0.7, "source": "text"},
        "seats": {"value": "one", "confidence": 0.8, "source": "text"},
        "rooms": {"value": ["bath", "hall"], "confidence": 0.6, "source": "text"},
    }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_batches_rows_and_a_slow_reference_agree(data: st.DataObject) -> None:
    names = ["Home", "Toys", "Chairs", "Lamps", "Cars", "Bar", "Deck"]
    seven = Taxonomy.from_parents(names, names, [None, None, 0, 0, 1, 2, 2])
    n = data.draw(st.integers(0, 8))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    share = st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 1.0])
    rules = {
        one.name: AttributeRule(threshold=data.draw(share), answer=data.draw(st.booleans()))
        for one in VOCABULARY.attributes
        if data.draw(st.booleans())
    }
    policy = Policy(
        thresholds=(data.draw(st.sampled_from([0.0, 0.95])),),
        unsure=data.draw(st.sampled_from(["stop", "suggest", "abstain"])),
        attributes=rules,
    )
    groups = SiblingGroups.of(seven)
    nodes = groups.distribution(rng.normal(scale=2, size=(n, groups.n_slots)).astype(np.float32))
    found = {
        one.name: (rng.integers(0, 9, (n, len(one.values))) / 8).astype(np.float32)
        for one in VOCABULARY.attributes
    }
    sources = {name: rng.integers(1, 4, n).astype(np.int8) for name in found}
    modality = rng.integers(0, 4, n).astype(np.int8)
    said = said_of(Probabilities(nodes, modality, None, found, sources), seven, policy)

    for i, one in enumerate(said):
        assert one == said[i] == said[i - n]
        place = one.node_id
        if one.outcome == "suggested":
            place = one.alternatives[0].node_id
        for described in VOCABULARY.attributes:
            rule = rules.get(described.name, AttributeRule())
            line = [] if place is None else [*seven.ancestors(names.index(place)).tolist(), names.index(place)]
            applies = bool(line) and (not described.nodes or any(names[k] in described.nodes for k in line))
            probs = found[described.name][i].tolist()
            least = rule.threshold if rule.threshold is not None else 0.5 if described.multi else 0.0
            ranked = sorted(range(len(probs)), key=lambda v: (-probs[v], v))
            if not described.multi:
                ranked = ranked[:1]
            sure = [v for v in ranked if probs[v] >= least and probs[v] > 0]
            answer = one.attributes.get(described.name)
            if not (applies and rule.answer and sure):
                assert answer is None
                continue
            assert answer is not None
            words = tuple(described.values[v].name for v in sure)
            assert answer.value == (words if described.multi else words[0])
            assert answer.confidence == probs[sure[-1]]
            assert answer.source == ("text", "image", "both")[sources[described.name][i] - 1]

    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    parts = [
        said_of(
            Probabilities(
                nodes[part],
                modality[part],
                None,
                {name: probs[part] for name, probs in found.items()},
                {name: of_one[part] for name, of_one in sources.items()},
            ),
            seven,
            policy,
        )
        for part in (slice(a, b) for a, b in zip([0, *cuts], [*cuts, n], strict=True))
    ]
    together = concatenate(parts)
    assert list(together) == list(said)
    for name, column in said.attributes.items():
        for field in ("row", "value", "confidence", "source"):
            ours, theirs = getattr(together.attributes[name], field), getattr(column, field)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert (np.diff(column.row) >= 0).all()


def test_a_row_that_is_not_there_is_an_index_error(seven: Taxonomy, chairs_and_cars: Probabilities) -> None:
    said = said_of(chairs_and_cars, seven)
    assert said[-1] == said[2]
    for i in (3, -4):
        with pytest.raises(IndexError):
            said[i]
