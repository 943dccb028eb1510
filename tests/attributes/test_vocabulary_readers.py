"""Readers of vocabularies, from small files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelver.attributes import Attribute, Value, Vocabulary, observe, read_vocabulary
from shelver.errors import InputError
from shelver.taxonomy import Taxonomy

ATTRIBUTES = """---
base_attributes:
- id: 1
  name: Color
  description: 'What it''s like: red'
  friendly_id: color
  handle: color
  sorting: custom
  values:
  - color__red
  - color__blue
- id: 2
  name: "Page \\"size\\""
  friendly_id: page/size
  handle: page-size
  values: []
extended_attributes:
- name: Lid color
  handle: lid-color
  friendly_id: lid_color
  values_from: color
"""
VALUES = """- id: 7
  name: Red
  friendly_id: color__red
  handle: color__red
- id: 8
  name: 'Blue: dark'
  friendly_id: color__blue
  handle: color__blue
"""
CATEGORIES = """---
- id: aa
  name: All
  children:
  - aa-1
  attributes:
  - color
  - page/size
- id: aa-1
  name: Some
  children:  []
  attributes:
  - lid_color
"""
FRENCH = """{"version": "1", "attributes": [{"id": "gid://shopify/TaxonomyAttribute/1", "name": "Couleur",
"handle": "color", "description": "",
"extended_attributes": [{"name": "Couleur du couvercle", "handle": "lid-color"}],
"values": [{"id": "gid://shopify/TaxonomyValue/7", "name": "Rouge", "handle": "color__red"}]}]}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "categories").mkdir()
    (tmp_path / "attributes.yml").write_text(ATTRIBUTES)
    (tmp_path / "values.yml").write_text(VALUES)
    (tmp_path / "categories" / "aa.yml").write_text(CATEGORIES)
    (tmp_path / "fr.attributes.json").write_text(FRENCH)
    return tmp_path


def test_a_folder_of_yaml_is_read_with_the_other_languages(folder: Path) -> None:
    vocabulary = read_vocabulary(folder)
    color, page, lid = vocabulary.attributes
    assert [value.name for value in color.values] == ["Red", "Blue: dark"]
    assert color.values[0] == Value(name="Red", id="gid://shopify/TaxonomyValue/7", synonyms=("Rouge",))
    assert (color.synonyms, lid.synonyms) == (("Couleur",), ("Couleur du couvercle",))
    assert (page.name, page.values, lid.values) == ('Page "size"', (), color.values)
    assert (color.kind, color.multi) == ("closed", True)


def test_what_a_category_does_not_list_does_not_apply_to_it(folder: Path) -> None:
    gid = "gid://shopify/TaxonomyCategory/"
    tree = Taxonomy.from_parents([f"{gid}aa", f"{gid}aa-1"], ["All", "Some"], [None, 0])
    assert read_vocabulary(folder).applies(tree).tolist() == [[True, True, False], [False, False, True]]


def test_without_categories_everything_applies_everywhere(folder: Path) -> None:
    vocabulary = read_vocabulary(folder / "fr.attributes.json")
    assert [attribute.name for attribute in vocabulary.attributes] == ["Couleur", "Couleur du couvercle"]
    assert vocabulary.applies(Taxonomy.from_parents(["a"], ["A"], [None])).all()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("values.yml", "name: Red", "name: [Red]", "values.yml, line 2"),
        ("values.yml", "name: Red", "name: Red # or so", "values.yml, line 2"),
        ("values.yml", "name: Red", "name Red", "values.yml, line 2"),
        ("values.yml", "name: Red", "name: |", "values.yml, line 2"),
        ("values.yml", "name: Red", "\tname: Red", "values.yml, line 2"),
        ("values.yml", "name: Red", "id: Red", "values.yml, line 2"),
        ("values.yml", "name: Red", "- Red", "values.yml, line 2"),
        ("values.yml", "'Blue: dark'", "'Blue' dark'", "values.yml, line 6"),
        ("attributes.yml", '\\"size\\"', '\\qsize\\"', "attributes.yml, line 13"),
        ("attributes.yml", "- color__red", "- color__green", "color__green"),
        ("attributes.yml", "values_from: color", "values_from: colour", "colour"),
        ("attributes.yml", "friendly_id: lid_color", "friendly: lid_color", "Lid color lacks friendly_id"),
        ("categories/aa.yml", "  - lid_color", "  - lid_colour", "lid_colour"),
        ("fr.attributes.json", '"name": "Couleur",', "", "fr.attributes.json"),
    ],
)
def test_a_line_that_is_not_understood_is_refused(folder: Path, file: str, old: str, new: str, said: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        read_vocabulary(folder)


def test_a_table_is_read_whatever_parts_its_cells(tmp_path: Path) -> None:
    rows = [
        ("attribute", "value", "synonyms", "kind", "unit", "nodes", "multi"),
        ("Colour", "", "Color|Couleur", "", "", "home|toys", "yes"),
        ("Colour", "Red", "ruby|bordeaux", "closed", "", "", ""),
        ("Colour", "Dark, blue; or so", "", "", "", "", ""),
        ("Weight", "", "", "", "kg", "", ""),
        ("Dishwasher safe", "", "", "boolean", "", "", "no"),
        ("Series", "", "", "", "", "", ""),
    ]
    expected = (
        Attribute(
            name="Colour",
            kind="closed",
            multi=True,
            values=(Value(name="Red", synonyms=("ruby", "bordeaux")), Value(name="Dark, blue; or so")),
            nodes=("home", "toys"),
            synonyms=("Color", "Couleur"),
        ),
        Attribute(name="Weight", kind="number", unit="kg"),
        Attribute(name="Dishwasher safe", kind="boolean"),
        Attribute(name="Series", kind="open"),
    )
    for number, (mark, end) in enumerate([(",", "\n"), (";", "\r\n"), ("\t", "\n")]):
        path = tmp_path / f"{number}.csv"
        lines = (mark.join(f'"{cell}"' if mark in cell else cell for cell in row) for row in rows)
        path.write_bytes(b"\xef\xbb\xbf" + (end.join(lines) + end).encode())
        assert read_vocabulary(path).attributes == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,value\nColor,Red\n", "line 1"),
        ("attribute,value,value\n", "line 1"),
        ("", "line 1"),
        ("attribute,value\nColor,Red\nColor\n", "line 3: 1 cells under 2"),
        ("attribute,value\nColor,Red\n,Blue\n", "line 3: no attribute"),
        ("attribute,value\nColor,Red\nColor,Red\n", "line 3: Color: the value 'Red' stands there twice"),
        ("attribute,kind\nColor,colourful\n", "line 2: the kind 'colourful'"),
        ("attribute,kind\nColor,open\nColor,closed\n", "line 3: Color: kind 'closed' after 'open'"),
        ("attribute,unit\nLength,parsec\n", "line 2: the unit 'parsec'"),
        ("attribute,multi\nLength,perhaps\n", "line 2: multi 'perhaps'"),
        ("attribute,kind,value\nLength,number,3\n", "line 2: Length: a number with listed values"),
        ("attribute,kind,unit\nLength,open,cm\n", "line 2: Length: a unit, but no number"),
        ('attribute,value\nColor,"Red\n', "line 2"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_vocabulary(tmp_path / "v.csv")


def test_a_vocabulary_of_ours_is_read_again(tmp_path: Path) -> None:
    vocabulary = observe({"Colour": Counter(red=2)})
    vocabulary.save(tmp_path / "attributes.json")
    assert read_vocabulary(tmp_path / "attributes.json") == vocabulary


@pytest.mark.parametrize("name", ["missing.csv", "latin.csv", "none.json", "empty"])
def test_what_holds_no_vocabulary_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.csv").write_bytes("attribute\nMatière\n".encode("latin-1"))
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        read_vocabulary(tmp_path / name)


def test_an_attribute_applies_below_its_nodes_unless_it_is_exact() -> None:
    tree = Taxonomy.from_parents(["a", "b", "c", "d"], ["A", "B", "C", "D"], [None, 0, 1, None])
    vocabulary = Vocabulary(
        attributes=(
            Attribute(name="everywhere"),
            Attribute(name="below b", nodes=("b", "unknown")),
            Attribute(name="only b", nodes=("b",), exact=True),
            Attribute(name="nowhere", exact=True),
        )
    )
    expected = {"a": [1, 0, 0, 0], "b": [1, 1, 1, 0], "c": [1, 1, 0, 0], "d": [1, 0, 0, 0]}
    assert {i: row.tolist() for i, row in zip(tree.ids, vocabulary.applies(tree), strict=True)} == expected


def test_what_was_seen_becomes_open_values_the_commonest_first() -> None:
    seen = {
        "Colour": Counter({"Red": 2, "red": 1, "RED": 2, "Blue": 4, "Green": 4, "": 9}),
        "Fit": Counter(slim=1),
    }
    vocabulary = observe(seen, {"Fit": ("shirts",)}, multi=("Colour",), max_values=3)
    colour, fit = vocabulary.attributes
    assert colour.values == (
        Value(name="RED", synonyms=("Red", "red")),
        Value(name="Blue"),
        Value(name="Green"),
    )
    assert (colour.kind, colour.multi, colour.nodes) == ("open", True, ())
    assert (fit.multi, fit.nodes) == (False, ("shirts",))
    assert len(observe(seen, max_values=1).attributes[0].values) == 1


@given(st.dictionaries(st.text(max_size=8), st.integers(-1, 5), max_size=8))
def test_every_spelling_that_was_seen_is_listed_once(counts: dict[str, int]) -> None:
    (attribute,) = observe({"any": Counter(counts)}).attributes
    spellings = [form for value in attribute.values for form in (value.name, *value.synonyms)]
    assert sorted(spellings) == sorted(text for text, count in counts.items() if count > 0 and text.strip())


def test_the_table_that_the_documentation_shows_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "attributes.md"
    (tmp_path / "v.csv").write_text(page.read_text("utf-8").split("```csv\n")[1].split("```")[0])
    vocabulary = read_vocabulary(tmp_path / "v.csv")
    assert [(a.name, a.kind, a.multi) for a in vocabulary.attributes] == [
        ("Color", "closed", True),
        ("Length", "number", False),
        ("Washable", "boolean", False),
        ("Series", "open", False),
    ]
