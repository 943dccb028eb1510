"""Values that a text states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelver.attributes import Attribute, Extractor, Normal, Value, Vocabulary
from shelver.product import Product


def values(*names: str) -> tuple[Value, ...]:
    return tuple(Value(name=name) for name in names)


COLOURS = values("Red", "Blue", "Navy Blue", "Brown", "Black", "Olive", "Multi")
EXTRACTOR = Extractor(
    Vocabulary(
        attributes=(
            Attribute(name="color", values=COLOURS),
            Attribute(name="strap color", values=COLOURS),
            Attribute(
                name="material", multi=True, values=values("Cotton", "Leather", "Faux leather", "Wool", "Glass")
            ),
            Attribute(name="gender", values=values("Men", "Women")),
            Attribute(name="size", values=values("S", "M", "8", "One size")),
            Attribute(name="cheese style", values=values("Blue", "Soft", "Other")),
            Attribute(name="length", kind="number", unit="cm"),
            Attribute(name="width", kind="number", unit="cm"),
            Attribute(name="weight", kind="number", unit="g"),
            Attribute(name="washable", kind="boolean"),
        )
    )
)


def stated(title: str, *, brand: str | None = None, description: str | None = None) -> dict[str, tuple[str, ...]]:
    return EXTRACTOR.extract(Product(product_id="1", title=title, brand=brand, description=description))


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Navy Blue Shirt", {"color": ("Navy Blue",)}),
        ("shirt RED", {"color": ("Red",)}),
        ("Chemise rouge pour homme", {"color": ("Red",), "gender": ("Men",)}),
        ("Redwood table", {}),
        ("Cotton and wool scarf", {"material": ("Cotton", "Wool")}),
        ("Faux leather bag", {"material": ("Faux leather",)}),
        ("Bag without leather", {}),
        ("Wool free coat", {}),
        ("Olive oil", {}),
        ("Oil, color olive", {"color": ("Olive",)}),
        ("Sun glasses", {}),
        ("Glass material", {"material": ("Glass",)}),
        ("Red and brown shoes", {}),
        ("Watch, strap color brown", {"strap color": ("Brown",)}),
        ("Watch with brown strap color", {"strap color": ("Brown",)}),
        ("Model 8 M", {}),
        ("Shoe size 8", {"size": ("8",)}),
        ("Taille M", {"size": ("M",)}),
        ("Soft other things", {}),
        ("Rope 500 g", {"weight": ("500",)}),
        ("Rope 2 m", {}),
        ("Rope length 2 m, width 1½ inch", {"length": ("200",), "width": ("3.81",)}),
        ("", {}),
    ],
)
def test_a_title_states_what_is_safe(title: str, expected: dict[str, tuple[str, ...]]) -> None:
    assert stated(title) == expected


def test_the_brand_is_no_value() -> None:
    assert stated("Red Tape Brown Shoes") == {}
    assert stated("Red Tape Brown Shoes", brand="RED TAPE") == {"color": ("Brown",)}


def test_only_what_applies_is_answered() -> None:
    cheese = Product(product_id="1", title="Blue from Auvergne")
    assert EXTRACTOR.extract(cheese, {"cheese style", "weight"}) == {"cheese style": ("Blue",)}
    assert EXTRACTOR.extract(cheese, ()) == {}


def test_a_specification_counts_before_the_title_and_the_title_before_the_description() -> None:
    product = Product(product_id="1", title="Blue wool coat", description="Red. Material: cotton\nFor men")
    specification = (
        '{"product_specification"=>[{"key"=>"Colour", "value"=>"bordeaux"}, {"key"=>"Washable", "value"=>"Yes"}]}'
    )
    assert EXTRACTOR.extract(product, specification=specification) == {
        "color": ("Red",),
        "washable": ("yes",),
        "material": ("Cotton",),
        "gender": ("Men",),
    }
    assert EXTRACTOR.extract(product)["color"] == ("Blue",)


def test_a_specification_keeps_what_the_vocabulary_lacks_and_tells_it() -> None:
    pairs = [
        ("Colour", "Sparkle"),
        ("Colour", "Red"),
        ("Material", "wool"),
        ("Matière", "Unobtainium"),
        ("Fit", "slim"),
    ]
    assert EXTRACTOR.specified(pairs) == {
        "color": Normal(("Sparkle",), ("Sparkle",)),
        "material": Normal(("Wool", "Unobtainium"), ("Unobtainium",)),
    }
    assert EXTRACTOR.specified(pairs, {"material"}).keys() == {"material"}


def test_a_product_without_text_states_nothing() -> None:
    assert EXTRACTOR.extract(Product(product_id="1")) == {}


@given(st.text(), st.text(), st.text(max_size=5))
def test_any_text_is_read_without_an_error(title: str, description: str, brand: str) -> None:
    product = Product(product_id="1", title=title, description=description, brand=brand)
    assert all(EXTRACTOR.extract(product, specification=description).values())
