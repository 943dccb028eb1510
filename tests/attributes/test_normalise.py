"""A seller's words to the vocabulary's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelver.attributes import Attribute, Normal, Normaliser, Value, Vocabulary
from shelver.attributes.fold import key, stem
from shelver.attributes.units import read_number, shown
from shelver.attributes.words import GROUPS
from shelver.errors import InputError


def values(*names: str) -> tuple[Value, ...]:
    return tuple(Value(name=name) for name in names)


VOCABULARY = Vocabulary(
    attributes=(
        Attribute(
            name="baseColour",
            values=(
                *values("Red", "Blue", "Grey", "Off White"),
                Value(name="Sky", synonyms=("bleu ciel", "céleste")),
            ),
        ),
        Attribute(
            name="Colours",
            kind="closed",
            multi=True,
            values=values("Red", "Blue", "Navy Blue", "Maroon", "Black & white"),
        ),
        Attribute(name="Material", multi=True, values=values("Cotton", "Leather", "Polyurethane (PU)", "Glass")),
        Attribute(name="Gender", values=values("Men", "Women", "Boys", "Girls", "Unisex")),
        Attribute(name="Season", values=values("Fall", "Winter")),
        Attribute(name="Lenses", values=values("Glass", "Glasses", "C", "C#", "3/4", "16:9")),
        Attribute(name="Length", kind="number", unit="mm"),
        Attribute(name="Lengths", kind="number", unit="cm", multi=True),
        Attribute(name="Pieces", kind="number"),
        Attribute(name="Dishwasher safe", kind="boolean"),
        Attribute(name="Notes", multi=True, synonyms=("Remarks",)),
    )
)
NORMALISER = Normaliser(VOCABULARY)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("baseColour", "Red", "Red"),
        ("baseColour", " RED ", "Red"),
        ("baseColour", "reds", "Red"),
        ("baseColour", "ruby", "Red"),
        ("baseColour", "bordeaux", "Red"),
        ("baseColour", "Rouge", "Red"),
        ("baseColour", "rouge foncé", "Red"),
        ("baseColour", "dark-red", "Red"),
        ("baseColour", "gray", "Grey"),
        ("baseColour", "Gris", "Grey"),
        ("baseColour", "off-white", "Off White"),
        ("baseColour", "Bleu marine", "Blue"),
        ("baseColour", "celeste", "Sky"),
        ("baseColour", "Red (RAL 3000)", "Red"),
        ("baseColour", "Red / rouge", "Red"),
        ("Colours", "bordeaux", "Maroon"),
        ("Colours", "Bleu marine", "Navy Blue"),
        ("Material", "100% coton", "Cotton"),
        ("Material", "cuir véritable", "Leather"),
        ("Material", "PU", "Polyurethane (PU)"),
        ("Gender", "Men's", "Men"),
        ("Gender", "femme", "Women"),
        ("Gender", "garçons", "Boys"),
        ("Gender", "male", "Men"),
        ("Season", "autumn", "Fall"),
        ("Season", "Automne", "Fall"),
        ("Lenses", "glasses", "Glasses"),
        ("Lenses", "glass", "Glass"),
        ("Lenses", "c#", "C#"),
        ("Lenses", "c", "C"),
        ("Lenses", "3/4", "3/4"),
    ],
)
def test_a_sellers_word_becomes_the_vocabularys(name: str, raw: str, expected: str) -> None:
    assert NORMALISER.normalise(name, raw) == Normal((expected,))


@pytest.mark.parametrize(
    "raw", ["red/blue", "Red, Blue", "red and blue", "Rouge et bleu", "RED;blue;Red", "red + blue", "red\nblue"]
)
def test_a_list_is_parted_where_several_values_may_be(raw: str) -> None:
    assert NORMALISER.normalise("Colours", raw) == Normal(("Red", "Blue"))
    whole = " ".join(raw.split())
    assert NORMALISER.normalise("baseColour", raw) == Normal((whole,), (whole,))


def test_a_value_that_holds_a_mark_is_one_value() -> None:
    assert NORMALISER.normalise("Colours", "Black & White, red") == Normal(("Black & white", "Red"))


def test_what_is_not_in_the_vocabulary_is_kept_as_seen_and_told() -> None:
    assert NORMALISER.normalise("baseColour", "Sparkle ") == Normal(("Sparkle",), ("Sparkle",))
    assert NORMALISER.normalise("Colours", "Sparkle / red") == Normal(("Sparkle", "Red"), ("Sparkle",))
    assert NORMALISER.normalise("Notes", "wash &amp; dry, cold") == Normal(
        ("wash & dry", "cold"), ("wash & dry", "cold")
    )


@pytest.mark.parametrize("raw", ["", "  ", "-", "n/a", "NULL", "NaN"])
def test_what_says_that_there_is_none_is_nothing(raw: str) -> None:
    for attribute in VOCABULARY.attributes:
        assert NORMALISER.normalise(attribute.name, raw) == Normal()


@pytest.mark.parametrize(
    ("raw", "unit", "expected"),
    [
        ("12.5 cm", "mm", "125"),
        ("12,5cm", "mm", "125"),
        ("5 in", "cm", "12.7"),
        ('5"', "in", "5"),
        ("1 1/2 inch", "mm", "38.1"),
        ("1-1/2 in.", "mm", "38.1"),
        ("5' 10\"", "in", "70"),
        ("5 ft. 10 in.", "cm", "177.8"),
        ("90 inch / 230 cm", "cm", "230"),
        ("5 in (12.7 cm)", "mm", "127"),
        ("1,5 kg", "g", "1500"),
        ("1,500 g", "kg", "1.5"),
        ("1 500 g", "kg", "1.5"),
        ("1.500,5 g", "g", "1500.5"),
        ("0,125 kg", "g", "125"),
        ("2 lbs", "kg", "0.907185"),
        ("16 fl oz", "ml", "473.176"),
        ("3000mAh", "Ah", "3"),
        ("32GB", "GB", "32"),
        ("1.2 kW", "W", "1200"),
        ("230 Volts", "V", "230"),
        ("50 %", "%", "50"),
        ("12", "mm", "12"),
        ("3 pcs", None, "3"),
        ("-5 °C", "°C", "-5"),
        ("30 x 40 cm", "cm", None),
        ("10-12 cm", "cm", None),
        ("90 inch / 100 cm", "cm", None),
        ("3 cm", None, None),
        ("1,5 kg", "l", None),
        ("3/0 in", "in", None),
        ("about three", "cm", None),
        ("", "cm", None),
    ],
)
def test_a_number_is_brought_to_the_unit(raw: str, unit: str | None, expected: str | None) -> None:
    assert read_number(raw, unit) == expected


def test_cells_of_numbers_and_booleans_are_read() -> None:
    assert NORMALISER.normalise("Length", "1½ inch") == Normal(("38.1",))
    assert NORMALISER.normalise("Length", "long") == Normal(("long",), ("long",))
    assert NORMALISER.normalise("Lengths", "12 cm, 1,5 m; long") == Normal(("12", "150", "long"), ("long",))
    assert NORMALISER.normalise("Pieces", "Pack 3") == Normal(("Pack 3",), ("Pack 3",))
    for raw, answer in {"Yes": "yes", "OUI": "yes", "true": "yes", "1": "yes", "non": "no", "False": "no"}.items():
        assert NORMALISER.normalise("Dishwasher safe", raw) == Normal((answer,))
    assert NORMALISER.normalise("Dishwasher safe", "top rack") == Normal(("top rack",), ("top rack",))


@given(st.floats(-1e14, 1e14, allow_nan=False))
def test_a_shown_number_reads_as_itself(number: float) -> None:
    text = shown(number)
    assert "e" not in text
    assert float(text) == pytest.approx(number, rel=1e-5, abs=1e-300)
    assert read_number(text, "cm") in (text, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("baseColour", "baseColour"),
        ("Base Color", "baseColour"),
        ("Couleur", "Colours"),
        ("colours", "Colours"),
        ("matière", "Material"),
        ("Ideal For", "Gender"),
        ("saison", "Season"),
        ("remarks", "Notes"),
        ("DISHWASHER-SAFE", "Dishwasher safe"),
        ("Nonsense", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_a_columns_name_finds_its_attribute(name: str, expected: str | None) -> None:
    found = NORMALISER.find(name)
    assert (found.name if found else None) == expected


def test_an_attribute_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="Couleur"):
        NORMALISER.normalise("Couleur", "rouge")


WORDS = sorted(word for group in GROUPS for concept in group.concepts.values() for word in concept.words)
CELLS = st.text(max_size=40) | st.lists(
    st.sampled_from(
        [*WORDS, "/", ",", ", ", " and ", " & ", " ", "5", "1/2", "cm", "kg", "100 %", "(", ")", "½", "x"]
    ),
    max_size=8,
).map("".join)


@given(CELLS, st.sampled_from(VOCABULARY.attributes))
def test_normalising_twice_changes_nothing_more(raw: str, attribute: Attribute) -> None:
    first = NORMALISER.normalise(attribute.name, raw)
    assert len(set(first.values)) == len(first.values)
    assert set(first.unknown) <= set(first.values)
    for value in first.values:
        again = Normal((value,), (value,) if value in first.unknown else ())
        assert NORMALISER.normalise(attribute.name, value) == again


@given(st.sampled_from(VOCABULARY.attributes), st.data())
def test_a_vocabularys_own_name_is_itself(attribute: Attribute, data: st.DataObject) -> None:
    if attribute.values:
        value = data.draw(st.sampled_from(attribute.values))
        assert NORMALISER.normalise(attribute.name, value.name) == Normal((value.name,))


def test_our_own_words_agree_with_each_other() -> None:
    for group in GROUPS:
        claimed: dict[str, str] = {}
        for concept in group.concepts.values():
            assert concept.wider is None or concept.wider in group.concepts
            for word in concept.words:
                assert claimed.setdefault(word, concept.name) == concept.name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dresses", "dress"),
        ("batteries", "Battery"),
        ("Café-crème", "cafe CREME"),
        ("men’s", "men"),
        ("Colours", "color"),
    ],
)
def test_writings_of_one_word_have_one_key(one: str, other: str) -> None:
    assert key(one) == key(other)


def test_words_that_only_look_plural_stay() -> None:
    assert [stem(word) for word in ("glass", "canvas", "iris", "bus", "gas")] == [
        "glass",
        "canva",
        "iris",
        "bus",
        "gas",
    ]
