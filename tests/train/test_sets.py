"""Several catalogs as one: whose categories, whose attributes, and what stays held back."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.attributes import Attribute, Value, Vocabulary
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import Catalog
from shelver.taxonomy import Taxonomy
from shelver.train.config import TrainConfig
from shelver.train.sets import Sets, on_tree
from shelver.train.stages import settle


def catalog(folder: Path, rows: list[dict[str, str | None]], vocabulary: Vocabulary | None = None) -> Catalog:
    feed = folder.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(rows), feed)
    ingest(feed, folder, mapping=Mapping(attributes={"tone": "tone"}), vocabulary=vocabulary)
    return Catalog.open(folder)


def row(number: int, title: str, category: str, split: str, tone: str) -> dict[str, str | None]:
    return {"product_id": f"{number}", "title": title, "category": category, "split": split, "tone": tone}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """The first catalog holds a lamp and a chair back; the second one teaches the lamp, and a shelf of its own."""
    folder = tmp_path_factory.mktemp("sets")
    first = [
        row(1, "red chair", "Home > Chairs", "train", "warm"),
        row(2, "blue lamp", "Home > Lamps", "test", "cold"),
        row(3, "old chair", "Home > Chairs", "validation", "warm"),
    ]
    second = [
        row(1, "Blue  Lamp!", "Home > Lamps", "train", "cold"),
        row(2, "oak shelf", "Home > Shelves", "train", "warm"),
        row(3, "Old chair", "Home > Chairs", "train", "warm"),
        row(4, "green chair", "Home > Chairs", "validation", "cold"),
    ]
    return Sets([catalog(folder / "first", first), catalog(folder / "second", second)])


def titles(sets: Sets, split: str) -> list[str | None]:
    assert split in ("train", "validation", "test")
    return [p.title for batch in sets.products(split) for p in batch]  # type: ignore[arg-type]


def test_what_one_catalog_holds_back_is_not_learned_from_another(both: Sets) -> None:
    assert titles(both, "train") == ["red chair", "oak shelf"]
    assert titles(both, "validation") == ["old chair", "green chair"]
    assert titles(both, "test") == ["blue lamp"]


def test_a_category_that_the_first_tree_lacks_teaches_attributes_alone_and_that_is_said(both: Sets) -> None:
    shelf = next(p for batch in both.products("train") for p in batch if p.title == "oak shelf")
    assert shelf.node_id is None
    assert shelf.attributes == {"tone": ("warm",)}
    assert both.n_foreign() == 1
    choices = settle(both, TrainConfig(text_encoder="ngram", image_encoder="none")).choices
    assert any("1 categories of the other catalogs are not in the tree" in choice for choice in choices)


def test_an_attribute_moves_to_the_nodes_that_both_trees_have_under_one_path() -> None:
    ours = Taxonomy.from_parents(["1", "2"], ["Home", "Toys"], [None, None])
    theirs = Taxonomy.from_parents(["1", "2", "3"], ["Home", "Cars", "Toys"], [None, None, None])
    tone = Attribute(name="tone", nodes=("1", "2"), exact=True)
    assert on_tree(tone, theirs, ours).nodes == ("1",)  # their 2 is another place
    nowhere = on_tree(Attribute(name="tone", nodes=("3",), exact=True), theirs, ours)
    assert (nowhere.nodes, nowhere.exact) == ((), False)
    assert Vocabulary(attributes=(nowhere,)).applies(ours).all()
    assert on_tree(tone, ours, ours) is tone


def test_an_attribute_takes_several_values_where_any_catalog_says_so(tmp_path: Path) -> None:
    said = [row(n, f"thing {n}", "Home", "train", "warm") for n in range(3)]
    values = (Value(name="warm"), Value(name="cold"))
    one, more = (
        Vocabulary(attributes=(Attribute(name="tone", kind="closed", multi=multi, values=values[: 1 + multi]),))
        for multi in (False, True)
    )
    for number, order in enumerate([(one, more), (more, one)]):
        opened = [catalog(tmp_path / f"{number}-{k}", said, vocabulary) for k, vocabulary in enumerate(order)]
        (tone,) = Sets(opened).vocabulary.attributes
        assert tone.multi
        assert {value.name for value in tone.values} == {"warm", "cold"}
