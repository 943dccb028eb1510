"""The extractor as a whole: it learns, its folder keeps it, and bad input is refused with a remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from shelver.datasets.extraction import read_examples
from shelver.errors import FeedError, InputError, ModelError
from shelver.extract import Example, Extractor, ExtractSpec, Tally, tally

DATA = Path(os.environ.get("SHELVER_DATA") or Path(__file__).parents[3] / "shared" / "data") / "attribute-values"
COLOURS = ("red", "dark blue", "green", "sky grey", "black", "light pink")
SPEC = ExtractSpec(n_epochs=12, max_words=5)


def generated(n: int, seed: int, brands: str = "BCDFGKLMNP") -> list[Example]:
    """Titles of two categories, each with a brand nobody saw before, a colour or none, and a size."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(n):
        brand = f"{rng.choice(list(brands))}{''.join(rng.choice(list('aeioumnrt'), 5))}"
        colour = str(rng.choice(COLOURS)) if rng.random() < 0.7 else None
        if i % 2:
            size = f"{rng.integers(1, 60)} ml"
            title = f"{brand} Shampoo{f', {colour}' if colour else ''} - {size}"
            values = {"Brand": (brand,), "Volume": (size,)}
        else:
            size = str(rng.integers(30, 50))
            title = f"{brand} Shoe{f' in {colour}' if colour else ''} size {size}"
            values = {"Brand": (brand,), "Size": (size,)}
        examples.append(
            Example(title, "Hair" if i % 2 else "Shoes", {**values, "Color": (colour,) if colour else ()})
        )
    return examples


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor.fit(generated(160, 1), SPEC)


def test_it_finds_values_that_it_never_saw(extractor: Extractor) -> None:
    unseen = generated(60, 2, brands="QVWXZ")
    answers = extractor.answers([example.title for example in unseen], [example.category for example in unseen])
    found = tally(unseen, answers)
    assert found.f1 > 0.95
    assert found.nn >= 10, "where no colour is stated, none is answered"


def test_an_attribute_is_answered_in_its_categories_only(extractor: Extractor) -> None:
    columns = extractor(["Bamoto Shoe in red size 40", "Bamoto Shampoo - 30 ml", "x"], ["Shoes", "Hair", "Toys"])
    assert list(columns) == ["Brand", "Color", "Size", "Volume"]
    assert columns["Size"].applies.tolist() == [True, False, False]
    assert columns["Size"].values == ("40", None, None)
    assert columns["Volume"].values == (None, "30 ml", None)
    assert columns["Size"].confidence[0] > 0.5
    assert columns["Size"].confidence[1:].tolist() == [0, 0]


def test_an_answer_does_not_hang_on_the_other_titles(extractor: Extractor) -> None:
    asked = generated(70, 3)
    titles, categories = [example.title for example in asked], [example.category for example in asked]
    together = extractor(titles, categories)
    for i in (0, 1, 69):
        for name, column in extractor(titles[i : i + 1], categories[i : i + 1]).items():
            assert column.values[0] == together[name].values[i]
            assert column.confidence[0] == pytest.approx(together[name].confidence[i], abs=1e-6)


def test_a_threshold_asks_for_more_or_for_less(extractor: Extractor) -> None:
    titles, categories = ["Tamara Shoe size 38", "unheard of"], ["Shoes", "Shoes"]
    assert extractor.answers(titles, categories, threshold=1.1) == [{}, {}]
    assert [set(row) for row in extractor.answers(titles, categories, threshold=0.0)] == [
        {"Brand", "Color", "Size"}
    ] * 2


def test_titles_without_words_are_answered_with_none(extractor: Extractor) -> None:
    assert extractor.answers(["", "   ", "\ud800"], ["Shoes"] * 3, threshold=0.999) == [{}, {}, {}]
    assert extractor.answers([], []) == []


def test_a_folder_keeps_it_to_the_bit_and_the_same_fit_gives_the_same_bytes(
    extractor: Extractor, tmp_path: Path
) -> None:
    extractor.save(tmp_path / "a")
    opened = Extractor.open(tmp_path / "a")
    opened.save(tmp_path / "b")
    Extractor.fit(generated(160, 1), SPEC).save(tmp_path / "c")
    for name in ("extractor.json", "weights.safetensors"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    titles = [example.title for example in generated(20, 4)]
    before, after = extractor(titles, ["Shoes"] * 20), opened(titles, ["Shoes"] * 20)
    for name, column in before.items():
        assert column.values == after[name].values
        np.testing.assert_array_equal(column.confidence, after[name].confidence)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("weights.safetensors", lambda held: held[:-1] + b"?"),
        ("extractor.json", lambda held: held.replace(b"shelver-extractor", b"another")),
        ("extractor.json", lambda held: held.replace(b'"version": 1', b'"version": 2')),
        ("extractor.json", lambda held: held[:-10]),
    ],
)
def test_a_damaged_folder_is_refused(extractor: Extractor, tmp_path: Path, name: str, spoil: object) -> None:
    extractor.save(tmp_path)
    file = tmp_path / name
    spoiled = spoil(file.read_bytes())  # type: ignore[operator]
    assert spoiled != file.read_bytes()
    file.write_bytes(spoiled)
    with pytest.raises(ModelError, match=name):
        Extractor.open(tmp_path)


def test_a_folder_of_something_else_is_neither_opened_nor_written_over(
    extractor: Extractor, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no extractor"):
        Extractor.open(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        extractor.save(tmp_path)


def test_what_cannot_be_learned_from_or_asked_is_refused(extractor: Extractor) -> None:
    with pytest.raises(InputError, match="none with a value"):
        Extractor.fit([Example("a b", "c", {"x": ("z",)}), Example("a", "c", {"x": ()})], SPEC)
    many = {f"a{i}": ("a",) for i in range(51)}
    with pytest.raises(InputError, match="5,100 pairs"):
        Extractor.fit([Example("a", f"c{i}", many) for i in range(100)], SPEC)
    with pytest.raises(InputError, match="2 titles and 1 categories"):
        extractor(["a", "b"], ["Shoes"])
    with pytest.raises(InputError, match="title 1 is NoneType"):
        extractor(["a", None], ["Shoes", "Shoes"])  # type: ignore[list-item]


def test_what_is_not_listed_is_unknown_only_where_somebody_said_none() -> None:
    stated = [Example("a b", "c", {"x": ("a",)})]
    looked = [*stated, Example("b", "c", {"x": ()})]
    assert ExtractSpec().unlisted_is_none(stated)
    assert not ExtractSpec().unlisted_is_none(looked)
    assert ExtractSpec(unlisted="none").unlisted_is_none(looked)


def test_answers_are_counted_as_the_published_protocol_counts() -> None:
    examples = [
        Example("t", "c", {"a": ("x", "y"), "b": ("x",), "d": (), "e": (), "f": ("z",)}),
        Example("t", "c", {}),
    ]
    answers = [{"a": "y", "b": "X", "d": "q"}, {"a": "x"}]
    found = tally(examples, answers)
    assert found == Tally(nn=1, nv=1, vn=1, vc=1, vw=1)
    assert (found.precision, found.recall, found.f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert tally(examples, answers, unlisted_is_none=True) == Tally(nn=1, nv=2, vn=1, vc=1, vw=1)
    assert Tally().f1 == 0
    with pytest.raises(InputError, match="1 answers to 2 examples"):
        tally(examples, answers[:1])


def test_a_file_is_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    targets = {"Brand": {"Acme ": 1}, "Color": {"n/a": 1}}
    file.write_text(json.dumps({"input": "Acme", "category": "c", "target_scores": targets}) + "\n\n")
    assert read_examples(file) == [Example("Acme", "c", {"Brand": ("Acme",), "Color": ()})]
    for bad in ("{", "[]", '{"input": 1}', '{"input": "a", "category": "c", "target_scores": {"x": []}}'):
        file.write_text("\n" + bad)
        with pytest.raises(FeedError, match="line 2"):
            read_examples(file)
    file.write_text("")
    with pytest.raises(FeedError, match="no line"):
        read_examples(file)
    with pytest.raises(FeedError, match="FileNotFoundError"):
        read_examples(tmp_path / "absent")


def test_real_titles_are_read_better_than_by_chance() -> None:
    folder = DATA / "oa-mine"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    kept = [
        example for example in read_examples(folder / "train_0.2.jsonl") if example.category in {"Tea", "Shoes"}
    ]
    asked = [example for example in read_examples(folder / "test.jsonl") if example.category in {"Tea", "Shoes"}]
    extractor = Extractor.fit(kept, SPEC)
    answers = extractor.answers([example.title for example in asked], [example.category for example in asked])
    assert tally(asked, answers).f1 > 0.5
