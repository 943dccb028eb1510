"""Titles as words and spans: every span can be cut out again, and the hashes do not hang on the neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from shelver.extract.words import MAX_TITLE_CHARS, Words, read_words, shape_of

TITLES = ["Nike Men's 40mm/3.5g  Shoe, UV400", "", "Printed Shirts", "  \t ", "Café 北京 ÅÉ_x"]


def words_of(words: Words, title: int) -> list[str]:
    places = range(int(words.offsets[title]), int(words.offsets[title + 1]))
    return [words.titles[title][int(words.starts[word]) : int(words.ends[word])] for word in places]


def test_words_are_letters_digits_and_signs_with_plurals_apart() -> None:
    words = read_words([*TITLES, "red gas pants children's"], 4)
    assert words_of(words, 5) == ["red", "ga", "s", "pant", "s", "child", "ren", "'", "s"]
    assert words_of(words, 0) == [
        "Nike",
        "Men",
        "'",
        "s",
        "40",
        "mm",
        "/",
        "3",
        ".",
        "5",
        "g",
        "Shoe",
        ",",
        "UV",
        "400",
    ]
    assert words_of(words, 1) == words_of(words, 3) == []
    assert words_of(words, 2) == ["Print", "ed", "Shirt", "s"]
    assert words_of(words, 4) == ["Café", "北京", "ÅÉ", "_", "x"]


def test_spans_are_all_runs_of_words_up_to_the_longest() -> None:
    words = read_words(TITLES, 3)
    for title in range(len(TITLES)):
        begin, end = int(words.offsets[title]), int(words.offsets[title + 1])
        expected = [(first, last) for first in range(begin, end) for last in range(first, min(first + 3, end))]
        low, high = int(words.span_offsets[title]), int(words.span_offsets[title + 1])
        assert list(zip(words.first[low:high], words.last[low:high], strict=True)) == expected


@pytest.mark.parametrize("value", ["Men", "Men's", "40mm", "3.5", "UV400", "Nike Men's"])
def test_a_value_is_found_where_it_stands_and_cut_out_letter_for_letter(value: str) -> None:
    words = read_words(["Shoe", TITLES[0]], 4)
    (span,) = words.spans_of(1, value)
    assert words.text(span, 1) == value


@pytest.mark.parametrize("value", ["ike", "men", "Nike Men's 40mm/3.5g", "", "shoe"])
def test_no_value_is_found_inside_a_word_or_in_another_case_or_longer_than_a_span(value: str) -> None:
    assert read_words(TITLES, 4).spans_of(0, value) == []


def test_a_title_has_the_same_features_alone_and_among_others() -> None:
    together, alone = read_words(TITLES, 4), read_words(TITLES[2:3], 4)
    rows = slice(int(together.offsets[2]), int(together.offsets[3]))
    spans = slice(int(together.span_offsets[2]), int(together.span_offsets[3]))
    for side in ("firsts", "lasts", "insides", "nones"):
        np.testing.assert_array_equal(getattr(together, side)[rows], getattr(alone, side))
    np.testing.assert_array_equal(together.wholes[spans], alone.wholes)


def test_the_same_words_have_one_hash_wherever_they_stand_and_whatever_their_case() -> None:
    words = read_words(["dark blue and Dark Blue", "blue dark"], 2)
    (first,), (second,) = words.spans_of(0, "dark blue"), words.spans_of(0, "Dark Blue")
    (turned,) = words.spans_of(1, "blue dark")
    assert words.whole[first] == words.whole[second] != words.whole[turned]


def test_features_are_the_same_on_every_machine() -> None:
    words = read_words(["Acme red"], 2)
    assert [f"{int(value):016x}" for value in words.whole] == HASHES


def test_shapes_and_long_titles() -> None:
    assert [shape_of(text) for text in ("Nike", "UV", "men", "400", "12345", "A", "a-1B")] == [
        *("Xx", "X", "x", "ddd", "ddd", "Xx", "x-dXx"),
    ]
    assert read_words(["ab " * 5000], 2).n_words == MAX_TITLE_CHARS // 3 + 1


HASHES = ["32f80c2943061885", "08320058380eecf8", "26595d9c8f267792"]
