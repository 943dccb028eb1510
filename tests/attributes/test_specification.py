"""Pairs of key and value out of what sellers put into one cell."""

from __future__ import annotations

import csv
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelver.attributes import read_specification
from shelver.attributes.specification import MAX_KEY_CHARS, MAX_PAIRS, MAX_VALUE_CHARS
from shelver.product import clean

DATA = Path(os.environ.get("SHELVER_DATA", Path(__file__).parents[3] / "shared" / "data")) / "flipkart"
COLOR_SIZE = [("Color", "Red"), ("Size", "M")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"product_specification"=>[{"key"=>"Color", "value"=>"Red"}, {"key"=>"Size", "value"=>"M"}]}',
         COLOR_SIZE),
        ('{"product_specification"=>{"key"=>"Color", "value"=>"Red"}}', COLOR_SIZE[:1]),
        ('{"product_specification"=>[{"value"=>"1 Year Warranty"}, {"value"=>"M", "key"=>"Size"}]}',
         COLOR_SIZE[1:]),
        ('{"Color"=>"Red", "Size"=>"M"}', COLOR_SIZE),
        ('{"product_specification"=>nil}', []),
        ('{"product_specification"=>[{"key"=>"Color", "value"=>"Red"}, {"key"=>"Si', COLOR_SIZE[:1]),
        ('[{"key"=>"Screen", "value"=>"5.5\\" \\u00e9"}]', [("Screen", '5.5" é')]),
        ('{"Color": "Red", "Size": "M"}', COLOR_SIZE),
        ('[{"name": "Color", "value": "Red"}, {"name": "Size", "value": "M"}]', COLOR_SIZE),
        ('{"specs": {"Color": ["Red", "Blue"], "Pieces": 3, "Washable": true}}',
         [("Color", "Red, Blue"), ("Pieces", "3"), ("Washable", "yes")]),
        ('{"Color": "Red", "Size": "M", "Wei', COLOR_SIZE),
        ("<table><tr><th>Color:</th><td>Red</td></tr><tr><td>Size</td><td>M</td></tr></table>", COLOR_SIZE),
        ("<table><tr><td>Color</td><td>Red</td><td>Size</td><td>M</td></tr></table>", COLOR_SIZE),
        ("<tr><td>Color<td>Red<tr><td>Size<td><b>M</b>", []),
        ("<dl><dt>Color</dt> <dd>Red</dd><dt>Size</dt><dd>M</dd></dl>", COLOR_SIZE),
        ("<ul><li>Nice</li><li>Color: Red</li><li>Size : M</li></ul>", COLOR_SIZE),
        ("Color: Red<br>Size: M", COLOR_SIZE),
        ("Color: Red\nSize: M", COLOR_SIZE),
        ("A fine shirt. Color: Red, Size: M", COLOR_SIZE),
        ("• Color - Red\n• Size = M", COLOR_SIZE),
        ("Color\tRed; Size\tM", COLOR_SIZE),
        ("Color: Red\nColor: Red", COLOR_SIZE[:1]),
        ("Material: Polyester, cotton; Fit: slim", [("Material", "Polyester, cotton"), ("Fit", "slim")]),
        ("Matière : Coton &amp; lin", [("Matière", "Coton & lin")]),
        ("see https://example.org/a and http://b", []),
        ("A shirt that says a lot, and then some more: nothing", []),
        ("", []),
    ],
)  # fmt: skip
def test_each_form_is_read(text: str, expected: list[tuple[str, str]]) -> None:
    assert read_specification(text) == expected


@given(st.text() | st.lists(st.sampled_from([*'"\\{}[]<>:=,;&\n\t ', "=>", "<tr>", "<td>", "<dt>", "a", "key", "value", "nil", "é", "\ud800", "\x00"])).map("".join))  # fmt: skip  # noqa: E501
def test_any_text_is_read_without_an_error(text: str) -> None:
    pairs = read_specification(text)
    assert len(pairs) <= MAX_PAIRS
    for key, value in pairs:
        assert 0 < len(key) <= MAX_KEY_CHARS
        assert 0 < len(value) <= MAX_VALUE_CHARS
        assert clean(key) == key


@pytest.mark.parametrize(
    "unit",
    ['"\\', '{"', "[", "<table><tr><td>", "<li>", "<dl><dt>", "<dl><dt>a</dt><dd>", "<ul><li>a:", "a:", "a, ",
     "a =>", "&amp;", "<br ", "\t", " - ", '{"a":', '{"key"=>', "a" * 39 + ",", "<tr><td>a</td><td>", "<", "a. "],
)  # fmt: skip
def test_a_hostile_text_costs_little(unit: str) -> None:
    start = time.process_time()
    pairs = read_specification(unit * (1_000_000 // len(unit)))
    assert time.process_time() - start < 1.0
    assert len(pairs) <= MAX_PAIRS


@pytest.mark.skipif(not DATA.is_dir(), reason=f"Flipkart's products are not at {DATA}")
def test_flipkarts_own_hashes_are_read_to_the_last_pair() -> None:
    with (DATA / "products.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["product_specifications"] for row in csv.DictReader(file)]
    # Counted in the text: pairs whose value is printed in the same hash.
    pair = re.compile(r'\{"key"=>"((?:[^"\\]|\\.)*)", "value"=>"((?:[^"\\]|\\.)*)"\}')
    for cell in cells:
        found = read_specification(cell)
        whole = [key for key, value in dict.fromkeys(pair.findall(cell)) if clean(key) and clean(value)]
        assert len(found) == len([key for key in whole if len(clean(key)) <= MAX_KEY_CHARS])
