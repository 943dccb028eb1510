"""Explanations: what is shown as the reason carries the answer, and its places are those of the raw text."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shelver.decide import Policy
from shelver.errors import InputError
from shelver.explain import Explanation, Word, explain, see, without, words_of
from shelver.explain.regions import REGIONS, Seen, without_region
from shelver.explain.search import LEAST, MOST_TRIED, MOST_WORDS, _weights
from shelver.explain.words import Field
from shelver.images import ImageSpec, View, views
from shelver.pipeline import Classifier, Prepared
from shelver.product import Product, clean
from shelver.windows import placed_views

Draw = Callable[[tuple[int, int, int], int], bytes]
RED = (200, 20, 20)
FIELDS: tuple[Field, ...] = ("title", "brand", "description")


@pytest.fixture(scope="module")
def both(both_model: Path) -> Classifier:
    return Classifier.open(both_model, threads=1)


@pytest.fixture(scope="module")
def of_text(text_model: Path) -> Classifier:
    return Classifier.open(text_model, threads=1)


def read(raw: str) -> list[str]:
    """The words of a title, as they stand there."""
    found, _ = words_of(Product("p", title=raw), FIELDS, MOST_TRIED)
    return [raw[place.start : place.end] for word in found for place in word.places]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("red shoes, size 4.5", ["red", "shoes", "size", "4.5"]),
        ("<p class='red'>Blue <b>T-shirt</b></p>", ["Blue", "T-shirt"]),
        ("Caf&eacute; d&#39;&eacute;t&eacute;", ["Caf&eacute;", "d&#39;&eacute;t&eacute;"]),
        ("H&amp;M&nbsp;bag &amp; more", ["H&amp;M", "bag", "more"]),
        ("<script>evil words</script>lamp<!-- not this -->shade", ["lamp", "shade"]),
        ("size < 40 & more", ["size", "40", "more"]),
        ("हिन्दी टोपी", ["हिन्दी", "टोपी"]),
        ("кроссовки Найк", ["кроссовки", "Найк"]),
        ("男士运动鞋 Nike", ["男士", "运动", "鞋", "Nike"]),
        ("รองเท้า", ["รอ", "งเ", "ท้า"]),
        ("حذاء رياضي", ["حذاء", "رياضي"]),
        ("L\u2019Or\u00e9al \U0001f45f trainers", ["L\u2019Or\u00e9al", "trainers"]),
        ("--- ... &", []),
    ],
)  # fmt: skip
def test_words_are_found_where_the_raw_text_has_them(raw: str, expected: list[str]) -> None:
    assert read(raw) == expected


def test_a_word_is_the_same_wherever_it_stands_and_is_taken_away_everywhere() -> None:
    product = Product("p", title="Red SHOES red", description="<b>shoes</b> &amp; more")
    (red, shoes, more), others = words_of(product, FIELDS, MOST_TRIED)
    assert [place.field for place in shoes.places] == ["title", "description"]
    assert len(red.places) == 2
    assert not others
    left = without(product, [red, shoes])
    assert (left.title, left.description) == ("  ", "<b></b> &amp; more")
    assert without(product, [more], put=lambda word: word.text.upper()).description == "<b>shoes</b> &amp; MORE"
    assert without(product, []) == product


def test_only_the_first_words_of_a_long_text_are_tried_and_that_is_said() -> None:
    product = Product("p", title="first second", description=" ".join(f"word{i} first" for i in range(200)))
    words, more = words_of(product, FIELDS, 60)
    assert len(words) == 60
    assert more
    assert len(words[0].places) == 201, "all places of a word that is tried"


@given(st.text(st.sampled_from("ab é<>/&;#'-.!x鞋ท้ \n1"), max_size=60))
def test_whatever_the_text_words_lie_apart_and_without_them_nothing_else_is_lost(raw: str) -> None:
    product = Product("p", title=raw)
    words, _ = words_of(product, FIELDS, MOST_TRIED)
    places = sorted(place for word in words for place in word.places)
    assert all(0 <= place.start < place.end <= len(raw) for place in places)
    assert all(one.end <= other.start for one, other in pairwise(places))
    left = without(product, words).title
    assert left is not None
    assert len(left) == len(raw) - sum(place.end - place.start for place in places)


@pytest.mark.parametrize(
    "hostile", ["<!--" * 4000, "<script>" * 2000, "<a " * 5000, "&amp;" * 3000 + "x", "<!" * 8000]
)
def test_hostile_markup_costs_no_more_than_honest_text(hostile: str) -> None:
    began = time.process_time()
    words_of(Product("p", title=hostile * 3), FIELDS, MOST_TRIED)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("view", ["fit", "crop", "box"])
@pytest.mark.parametrize("size", [(300, 200), (90, 400), (128, 128)])
def test_a_window_says_what_of_the_picture_a_network_sees(view: View, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (250, 250, 250))
    left, top, right, bottom = (
        round(share * side) for share, side in zip((0.4, 0.45, 0.6, 0.55), size * 2, strict=True)
    )
    image.paste((200, 0, 0), (left, top, right, bottom))
    file = io.BytesIO()
    image.save(file, "PNG")
    spec = ImageSpec(height_px=96, width_px=128)
    ((look, window),) = placed_views(file.getvalue(), [(view, spec)])
    assert np.array_equal(look, views(file.getvalue(), [(view, spec)])[0])
    rows, columns = np.nonzero(look[..., 1] < 128)
    for side, found, n_px, expected in (
        (0, columns, 128, (left / size[0], right / size[0])),
        (1, rows, 96, (top / size[1], bottom / size[1])),
    ):
        a_px = (window[side + 2] - window[side]) / n_px
        shares = window[side] + np.array([found.min(), found.max() + 1]) * a_px
        assert shares == pytest.approx(expected, abs=2 * a_px)


def test_a_region_without_anything_has_the_mean_colour_and_margins_stay() -> None:
    look = np.full((32, 64, 3), 255, np.uint8)
    look[:, 16:48] = 100  # the picture stands between margins
    seen = Seen(Prepared((look,)), ((-0.5, 0.0, 1.5, 1.0),))
    look[:, 32:48] = 200
    (painted,) = without_region(seen, (0.0, 0.0, 0.5, 1.0)).looks
    assert (painted[:, 16:32] == 150).all()
    assert (painted[:, 32:] == look[:, 32:]).all()
    assert (painted[:, :16] == 255).all()
    assert (seen.prepared.looks[0][:, 16:32] == 100).all(), "the picture itself is not touched"
    assert (without_region(seen, (-1.0, -1.0, -0.5, -0.5)).looks[0] == look).all()


def test_the_weights_add_up_to_the_fall_and_what_carries_little_is_left_out() -> None:
    table = {frozenset(): 0.9, frozenset({0}): 0.9, frozenset({1}): 0.9, frozenset({0, 1}): 0.1}
    table |= {of | {2}: p + 0.01 for of, p in table.items()}
    weights = _weights(table, range(3))
    assert weights == pytest.approx({0: 0.4, 1: 0.4}), "either alone would do: they share it"
    assert _weights({frozenset(): 0.9, frozenset({0}): 0.89}, range(1)) == {}


def p_of(classifier: Classifier, product: Product, node: int) -> float:
    embedded = classifier.embed([product])
    return float(classifier.emb2prob(embedded.text, embedded.image).nodes[0, node])


def shown(found: Explanation) -> list[Word]:
    return [one.word for one in found.words]


@pytest.mark.parametrize(
    "title", ["bar stool for the counter no. 12", "reading lamp with shade", "racing car, small"]
)
def test_what_is_shown_is_what_the_answer_hangs_on(of_text: Classifier, title: str) -> None:
    product = Product("p", title=title, description="<p>no. 7</p>")
    found = explain(of_text, product)
    said = of_text([product])[0]
    assert of_text.taxonomy.ids[found.node] == said.node_id
    assert found.probability == pytest.approx(p_of(of_text, product, found.node), abs=1e-5)
    assert found.falls_to == pytest.approx(p_of(of_text, without(product, shown(found)), found.node), abs=1e-5)
    assert 1 <= len(found.words) <= MOST_WORDS
    assert sum(one.weight for one in found.words) == pytest.approx(found.probability - found.falls_to, abs=1e-5)
    assert min(one.weight for one in found.words) >= LEAST * found.probability
    assert found.region is None
    others = [word for word in words_of(product, FIELDS, 60)[0] if word not in shown(found)]
    at_random = p_of(of_text, without(product, others[: len(found.words)]), found.node)
    assert found.falls_to < at_random


def test_another_node_than_the_decided_one_can_be_explained(of_text: Classifier) -> None:
    lamps = of_text.taxonomy.paths.index("Home > Lamps")
    found = explain(of_text, Product("p", title="bar stool beside a reading lamp"), node=lamps)
    assert found.node == lamps
    assert {"lamp", "reading"} & {one.word.text for one in found.words}


def test_where_a_policy_decides_nothing_the_most_probable_leaf_is_explained(of_text: Classifier) -> None:
    product = Product("p", title="stool or lamp")
    never = Policy(decoder="greedy", thresholds=(2.0,), unsure="abstain")
    assert of_text([product], policy=never)[0].node_id is None
    assert explain(of_text, product, policy=never).node == explain(of_text, product).node


def test_where_nothing_carries_the_answer_nothing_is_invented(of_text: Classifier) -> None:
    found = explain(of_text, Product("p", title="qqqq zzzz"))
    assert found.words == ()
    assert found.region is None
    assert found.falls_to == found.probability
    assert found.n_tried == 2


def test_a_product_without_anything_is_refused(both: Classifier, of_text: Classifier, draw: Draw) -> None:
    for classifier, product in (
        (both, Product("p")),
        (both, Product("p", images=(b"no picture",))),
        (of_text, Product("p", images=(draw(RED, 1),))),
    ):
        with pytest.raises(InputError, match="without anything"):
            explain(classifier, product)


def test_the_region_is_the_one_that_the_answer_falls_without(both: Classifier, draw: Draw) -> None:
    product = Product("p", images=(draw(RED, 3),))
    found = explain(both, product)
    assert both.image2emb is not None
    seen = see(product.images[0], both.image2emb)
    assert isinstance(seen, Seen)
    rows = both.image2emb.embed_prepared([[without_region(seen, region)] for region in REGIONS])
    left = both.emb2prob(None, rows).nodes[:, found.node]
    if found.region is None:
        assert left.min() > (1 - LEAST) * found.probability
    else:
        assert REGIONS[int(left.argmin())] == found.region.box
        assert found.falls_to == pytest.approx(float(left.min()), abs=1e-5)
    with_text = explain(both, Product("p", title="bar stool for the counter", images=product.images))
    assert with_text.n_tried == 5
    of_region = with_text.region.weight if with_text.region is not None else 0.0
    assert sum(one.weight for one in with_text.words) + of_region == pytest.approx(
        with_text.probability - with_text.falls_to, abs=1e-5
    )


def test_others_may_go_first_before_each_piece_of_work(both: Classifier, draw: Draw) -> None:
    pauses: list[float] = []
    product = Product("p", title=clean("bar stool for the counter"), images=(draw(RED, 3),))
    explain(both, product, pause=lambda: pauses.append(time.perf_counter()))
    assert len(pauses) >= 6
