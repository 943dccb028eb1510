"""The model's arithmetic, against brute force and finite differences, on tiny titles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from shelver.extract import Example, Schema
from shelver.extract.choice import Layout, Truth, Weights, lay_out, loss, probabilities, score
from shelver.extract.known import N_FACTS, Own, learn_known
from shelver.extract.learn import truth_of
from shelver.extract.words import Words, read_words

EXAMPLES = [
    Example("Acme red shirt", "Shirts", {"Brand": ("Acme",), "Color": ("red",)}),
    Example("dark blue shirt dark blue", "Shirts", {"Brand": (), "Color": ("dark blue",)}),
    Example("", "Shirts", {"Brand": ()}),
    Example("Bolt red cap, red", "Shirts", {"Brand": ("Bolt",), "Color": ("red", "cap")}),
]


@pytest.fixture
def words() -> Words:
    return read_words([example.title for example in EXAMPLES], 3)


@pytest.fixture
def truth(words: Words) -> Truth:
    return truth_of(EXAMPLES, ("Brand", "Color"), words, unlisted_is_none=False)


@pytest.fixture
def layout(words: Words, truth: Truth) -> Layout:
    schema, own = Schema.of(EXAMPLES), Own(truth.spans, truth.listed)
    known = learn_known([("Shirts", words, own)], schema)
    sides = (words.firsts, words.lasts, words.insides, words.nones, words.wholes)
    features = np.unique(np.concatenate([side.ravel() for side in sides]))[::2]  # half of them have no weight
    return lay_out(words, features, known, schema.pairs("Shirts"), schema.name_of_pair, own)


@pytest.fixture
def weights(layout: Layout) -> Weights:
    rng = np.random.default_rng(5)
    parts = (rng.normal(0, 0.4, shape).astype(np.float32) for shape in ((len(layout.rows), 2), (N_FACTS, 2), (2,)))
    return Weights(*parts)


def test_the_score_of_a_span_is_the_sum_of_the_weights_of_its_parts(layout: Layout, weights: Weights) -> None:
    words = layout.words
    spans, none = score(layout, weights)
    facts = dict(zip(layout.span.tolist(), layout.facts, strict=True))

    def of(block: int, item: int) -> np.ndarray:
        held = layout.blocks[block]
        total: np.ndarray = weights.features[held.feature[held.item == item]].sum(axis=0)
        return total

    for span, (first, last) in enumerate(zip(words.first, words.last, strict=True)):
        expected = of(0, first) + of(1, last) + sum(of(2, word) for word in range(first, last + 1)) + of(4, span)
        if span in facts:
            expected = expected + (facts[span] * weights.facts.T).sum(axis=1)
        np.testing.assert_allclose(spans[span], expected, atol=1e-5)
    for title, (start, end) in enumerate(itertools.pairwise(words.offsets)):
        expected = weights.none + sum(of(3, word) for word in range(start, end))
        np.testing.assert_allclose(none[title], expected, atol=1e-5)


def test_probabilities_are_those_of_trying_every_answer(layout: Layout, weights: Weights) -> None:
    spans, none = score(layout, weights)
    p_spans, p_none = probabilities(layout, weights)
    for title, (low, high) in enumerate(itertools.pairwise(layout.words.span_offsets)):
        powers = np.exp(np.concatenate([spans[low:high], none[title : title + 1]]).astype(np.float64))
        expected = powers / powers.sum(axis=0)
        np.testing.assert_allclose(p_spans[low:high], expected[:-1], rtol=1e-5)
        np.testing.assert_allclose(p_none[title], expected[-1], rtol=1e-5)
        # The best answer of all is the one that brute force finds.
        assert (p_spans[low:high].max(axis=0, initial=0) > p_none[title]).tolist() == (
            powers[:-1].max(axis=0, initial=0) > powers[-1]
        ).tolist()


def test_the_gradient_is_that_of_finite_differences(layout: Layout, weights: Weights, truth: Truth) -> None:
    _, gradient = loss(layout, weights, truth)
    step = 1e-2
    for name in ("features", "facts", "none"):
        values, slopes = getattr(weights, name), getattr(gradient, name)
        assert np.abs(slopes).max() > 1e-2
        for where in list(np.ndindex(values.shape))[:: 1 + values.size // 150]:
            kept = values[where]
            around = []
            for sign in (1, -1):
                values[where] = kept + sign * step
                around.append(loss(layout, weights, truth)[0])
            values[where] = kept
            assert slopes[where] == pytest.approx((around[0] - around[1]) / (2 * step), abs=2e-3)


def test_what_is_not_listed_teaches_nothing(layout: Layout, weights: Weights, truth: Truth) -> None:
    assert truth.listed.tolist() == [[True, True], [True, True], [True, False], [True, True]]
    unlisted = Truth(truth.spans, truth.none, np.zeros_like(truth.listed))
    total, gradient = loss(layout, weights, unlisted)
    assert total == 0
    assert not gradient.features.any()
    assert not gradient.none.any()


def test_a_value_is_right_wherever_the_title_states_it(words: Words, truth: Truth) -> None:
    said = [words.text(int(span), int(words.title_of_span[span])) for span in np.flatnonzero(truth.spans[:, 1])]
    assert sorted(said) == ["cap", "dark blue", "dark blue", "red", "red", "red"]


def test_a_title_does_not_count_its_own_labels(words: Words, truth: Truth) -> None:
    schema, own = Schema.of(EXAMPLES), Own(truth.spans, truth.listed)
    known = learn_known([("Shirts", words, own)], schema)
    pairs = schema.pairs("Shirts")
    span, facts = known.facts(words, pairs, schema.name_of_pair, own)
    _, asked = known.facts(words, pairs, schema.name_of_pair)
    was_value = {
        (int(words.title_of_span[place]), words.text(int(place), int(words.title_of_span[place]))): (
            facts[i, :, 0].tolist(),
            asked[i, :, 0].tolist(),
        )
        for i, place in enumerate(span)
    }
    # "Acme" is a brand in its own title only; "red" is a colour in another title too.
    assert was_value[0, "Acme"] == ([0, 0], [1, 0])
    assert was_value[0, "red"] == ([0, 1], [0, 1])
    assert was_value[1, "dark blue"] == ([0, 0], [0, 1])
