"""Attributes of catalogs: columns and specifications in, settled labels and a vocabulary out."""

from __future__ import annotations

import json
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shelver.attributes import EMPTY, Attribute, Value, Vocabulary
from shelver.catalog.attributes import LABELS, Seen, entries, pairs_of, unknown_labels, values_of
from shelver.catalog.describe import describe
from shelver.catalog.golden import freeze
from shelver.catalog.ingest import IngestReport, ingest
from shelver.catalog.labelling import least_products
from shelver.catalog.mapping import Mapping
from shelver.catalog.split import Split
from shelver.catalog.store import ATTRIBUTES_FILE, SCHEMA, Catalog, write_table
from shelver.errors import CatalogError, ConfigError
from shelver.folders import sha256_of
from shelver.product import Product

Labels = dict[str, AnyMapping[str, tuple[str, ...]]]

COLOURS = Vocabulary(
    attributes=(
        Attribute(
            name="colour",
            kind="closed",
            synonyms=("color", "couleur"),
            values=(Value(name="Red", synonyms=("bordeaux",)), Value(name="Blue", synonyms=("bleu",))),
        ),
        Attribute(name="material", multi=True, values=(Value(name="Cotton"), Value(name="Wool"))),
        Attribute(name="width", kind="number", unit="cm"),
    )
)


def make(folder: Path, rows: Sequence[Any], **options: Any) -> tuple[IngestReport, Catalog]:
    feed = folder / "feed.jsonl"
    plain = {"category": "Clothing > Shirts"}
    lines = ({"product_id": f"p{i}", "title": f"thing {i * 7919}", **plain, **row} for i, row in enumerate(rows))
    feed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"split": Split.parse("100/0/0"), **options}
    report = ingest(feed, folder / "catalog", overwrite=True, **options)
    return report, Catalog.open(folder / "catalog")


def labels(catalog: Catalog) -> Labels:
    return {p.product_id: p.attributes for batch in catalog.products() for p in batch}


def test_a_mapped_column_becomes_an_attribute_as_seen_and_na_is_a_value(tmp_path: Path) -> None:
    rows = [{"use": "NA", "tone": ["red", "blue"]}, {"use": " ", "tone": None}, {"use": "Sports", "tone": "red"}]
    mapping = Mapping(attributes={"usage": "use", "tone": "tone"})
    report, catalog = make(tmp_path, rows, mapping=mapping)
    assert labels(catalog) == {
        "p0": {"usage": ("NA",), "tone": ("red", "blue")},
        "p1": {},
        "p2": {"usage": ("Sports",), "tone": ("red",)},
    }
    usage, tone = catalog.vocabulary.attributes
    assert (usage.name, usage.kind, usage.multi, usage.nodes) == ("usage", "open", False, ())
    assert [value.name for value in usage.values] == ["NA", "Sports"]
    assert (tone.multi, [value.name for value in tone.values]) == (True, ["red", "blue"])
    assert report.attributes == {"usage": 2, "tone": 2} == catalog.info.attributes
    assert report.columns["attributes.usage"] == "use"


def test_spellings_that_differ_in_case_are_one_value_the_commonest(tmp_path: Path) -> None:
    rows = [{"fit": "Slim"}, {"fit": "slim"}, {"fit": "Slim"}, {"fit": "SLIM"}]
    _, catalog = make(tmp_path, rows, mapping=Mapping(attributes={"fit": "fit"}))
    assert {value["fit"] for value in labels(catalog).values()} == {("Slim",)}
    assert catalog.vocabulary.attributes[0].values == (Value(name="Slim", synonyms=("SLIM", "slim")),)


def test_columns_of_one_attribute_are_taken_together_and_a_cell_is_parted_where_said(tmp_path: Path) -> None:
    mapping = Mapping(attributes={"stuff": ("outer", "lining")}, attribute_separator="/")
    _, catalog = make(tmp_path, [{"outer": "wool / silk", "lining": "silk/ cotton"}], mapping=mapping)
    assert labels(catalog)["p0"] == {"stuff": ("wool", "silk", "cotton")}


def test_google_merchants_columns_are_attributes_without_a_mapping(tmp_path: Path) -> None:
    _, catalog = make(tmp_path, [{"colour": "Red", "g:material": "Oak", "size": "XL"}])
    assert labels(catalog)["p0"] == {"color": ("Red",), "material": ("Oak",)}


def test_a_specification_becomes_attributes_and_a_mapped_column_wins_over_it(tmp_path: Path) -> None:
    ruby = '{"product_specification"=>[{"key"=>"Material", "value"=>"Wool"}, {"key"=>"Fit", "value"=>"Slim"}]}'
    rows = [
        {"specs": ruby, "tint": "Red"},
        {"specs": {"Material": "Cotton", "Colour": "Blue"}, "tint": "Red"},
        {"specs": "Material: Cotton\nColour: Green", "tint": ""},
    ]
    _, catalog = make(tmp_path, rows, mapping=Mapping(attributes={"colour": "tint"}))
    assert labels(catalog) == {
        "p0": {"colour": ("Red",), "Material": ("Wool",), "Fit": ("Slim",)},
        "p1": {"colour": ("Red",), "Material": ("Cotton",)},
        "p2": {"colour": ("Green",), "Material": ("Cotton",)},
    }


def test_a_listed_value_is_parted_only_where_each_part_stands_alone_elsewhere(tmp_path: Path) -> None:
    cells = ["Red", "Blue", "red, Blue", "Red, with stripes"]
    _, catalog = make(tmp_path, [{"specs": {"Tone": cell}} for cell in cells])
    assert labels(catalog)["p2"] == {"Tone": ("Red", "Blue")}
    assert labels(catalog)["p3"] == {"Tone": ("Red, with stripes",)}


def test_a_key_that_few_products_have_is_left_out_and_counted(tmp_path: Path) -> None:
    assert [least_products(n) for n in (1, 199, 200, 799, 800, 10**6)] == [1, 1, 2, 4, 5, 5]
    rows = [{"specs": {"Common": f"v{i % 3}", **({"Rare": "x"} if i < 1 else {})}} for i in range(200)]
    report, catalog = make(tmp_path, rows)
    assert report.warnings == {"specification_rare": 1}
    assert catalog.info.attributes == {"Common": 200}


def test_an_attribute_of_few_branches_applies_to_them_only(tmp_path: Path) -> None:
    rows = [
        {"category": f"{top} > x", "strap": "steel" if top == "Watches" else ""} for top in ("Watches", *"ABC")
    ]
    rows += [{"category": f"{top} > x", "tone": "red" if top in "AB" else ""} for top in "ABCD"]
    _, catalog = make(tmp_path, rows, mapping=Mapping(attributes={"strap": "strap", "tone": "tone"}))
    strap, tone = catalog.vocabulary.attributes
    tree = catalog.taxonomy
    assert [tree.path(tree.index(node)) for node in strap.nodes] == ["Watches"]
    assert [tree.path(tree.index(node)) for node in tone.nodes] == ["A", "B"]
    _, catalog = make(tmp_path, rows[4:], mapping=Mapping(attributes={"tone": "tone"}))
    assert catalog.vocabulary.attributes[0].nodes == ()  # two of four branches are not few


def test_with_a_vocabulary_labels_are_its_words_and_others_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [
        {"Couleur": "BORDEAUX", "specs": {"Width": "1.2 m", "Fit": "slim"}},
        {"Couleur": "octarine"},
        {"Couleur": "octarine", "Material": "coton; wool"},
    ]
    report, catalog = make(tmp_path, rows, vocabulary=COLOURS)
    assert labels(catalog)["p0"] == {"colour": ("Red",), "width": ("120",), "Fit": ("slim",)}
    assert labels(catalog)["p1"]["colour"] == ("octarine",)
    assert set(labels(catalog)["p2"]["material"]) >= {"Wool"}
    assert report.unknown_values["colour"] == 2
    assert report.warnings["attribute_unknown"] >= 2
    assert [a.name for a in catalog.vocabulary.attributes] == ["colour", "material", "width", "Fit"]
    summary = describe(catalog).attributes[0]
    assert (summary.n_labelled, summary.n_unknown, summary.unknown) == (3, 2, (("octarine", 2),))
    assert "octarine 2" in str(describe(catalog))


def test_titles_are_searched_where_nothing_else_says_and_only_if_wished(tmp_path: Path) -> None:
    rows = [{"title": "Blue cotton shirt 12", "tint": ""}, {"title": "Blue wool shirt 77", "tint": "Red"}]
    options: dict[str, Any] = {"mapping": Mapping(attributes={"colour": "tint"}), "vocabulary": COLOURS}
    _, catalog = make(tmp_path, rows, **options)
    assert labels(catalog) == {
        "p0": {"colour": ("Blue",), "material": ("Cotton",)},
        "p1": {"colour": ("Red",), "material": ("Wool",)},
    }
    _, catalog = make(tmp_path, rows, **options, extract=False)
    assert labels(catalog) == {"p0": {}, "p1": {"colour": ("Red",)}}


def test_an_attribute_of_another_tree_applies_where_it_was_labelled(tmp_path: Path) -> None:
    foreign = Vocabulary(attributes=(Attribute(name="strap", nodes=("aa-1",), exact=True),))
    tops = ["Watches", "Bags", "Toys", "Books"]
    rows = [{"category": top, "strap": "steel" if top == "Watches" else ""} for top in tops]
    _, catalog = make(tmp_path, rows, vocabulary=foreign)
    assert catalog.vocabulary.applies(catalog.taxonomy)[:, 0].tolist() == [
        name == "Watches" for name in catalog.taxonomy.names
    ]


def test_an_ingest_with_another_vocabulary_or_extraction_is_another_catalog(tmp_path: Path) -> None:
    make(tmp_path, [{"colour": "Red"}])
    for options in ({"vocabulary": COLOURS}, {"extract": True}, {"mapping": Mapping(attributes={"c": "colour"})}):
        with pytest.raises(CatalogError, match="other options"):
            ingest(tmp_path / "feed.jsonl", tmp_path / "catalog", split=Split.parse("100/0/0"), **options)
    assert ingest(tmp_path / "feed.jsonl", tmp_path / "catalog", split=Split.parse("100/0/0")).up_to_date


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[attributes]\nColour = 'a'\ncolour = 'b'", "given twice"),
        ("[attributes]\n'' = 'a'", "attributes"),
        ("[attributes]\ncolour = 3", "attributes"),
        ("[constants]\nspecification = 'a: b'", "specification"),
        ("category_alternatives = '|'\n[columns]\ncategory = ['a', 'b']", "category_alternatives"),
    ],
)
def test_a_wrong_attribute_table_is_an_error_that_names_the_entry(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError, match=word):
        Mapping.load(tmp_path / "m.toml")


def test_an_attributes_column_that_the_feed_lacks_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("product_id,title,category\n1,a,B\n")
    with pytest.raises(ConfigError, match="'hue' is mapped, but the feed has: product_id") as caught:
        ingest(tmp_path / "f.csv", tmp_path / "out", mapping=Mapping(attributes={"colour": "hue"}))
    assert caught.value.remedy


def test_objects_and_endless_values_are_left_out_with_a_warning(tmp_path: Path) -> None:
    rows = [{"tone": {"a": "b"}}, {"tone": "x" * 1_001}, {"tone": [f"t{i}" for i in range(101)]}, {"tone": "ok"}]
    report, catalog = make(tmp_path, rows, mapping=Mapping(attributes={"tone": "tone"}))
    assert report.warnings == {"attribute_refused": 3}
    assert [len(found.get("tone", ())) for found in labels(catalog).values()] == [0, 0, 100, 1]


def test_values_and_pairs_of_odd_cells() -> None:
    assert values_of([None, " a  b ", b"c", ["a b", None, "d"]]) == (("a b", "c", "d"), True)
    assert values_of(["a|b", "|"], separator="|") == (("a", "b"), True)
    assert pairs_of(None) == pairs_of("") == pairs_of([]) == ()
    assert pairs_of([{"name": "Fit", "value": "Slim"}]) == (("Fit", "Slim"),)
    assert pairs_of(b"Fit: Slim") == (("Fit", "Slim"),)


def test_labels_are_counted_alike_from_slices_and_whole_tables() -> None:
    rows = [{"node_id": node, "attributes": {"a": ["x", "y"], "b": ["x"]}} for node in ("1", None, "2")]
    rows += [{"node_id": "1", "attributes": {}}, {"node_id": "1", "attributes": None}]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("node_id", pa.string()), ("attributes", LABELS)]))
    whole, parts = Seen(), Seen()
    whole.add(table)
    for at in range(0, 5, 2):
        parts.add(table.slice(at, 2))
    assert whole == parts
    assert whole.products == {"a": 3, "b": 3}
    assert whole.multi == {"a"}
    assert (whole.places["a", None], whole.n_nodes["1"]) == (1, 3)
    row, names, lists = entries(table.slice(1, 2).column("attributes").combine_chunks())
    assert (row.tolist(), names.to_pylist()) == ([0, 0, 1, 1], ["a", "b", "a", "b"])
    assert lists.to_pylist() == [["x", "y"], ["x"]] * 2
    seen = Vocabulary(attributes=(Attribute(name="a", values=(Value(name="x"),)), Attribute(name="b")))
    assert unknown_labels(whole, seen) == {"a": {"y": 3}, "b": {"x": 3}}


def test_the_vocabulary_is_held_against_its_hash_and_goes_into_golden_sets(tmp_path: Path) -> None:
    rows = [{"colour": "Red"}, {"colour": "octarine"}]
    _, catalog = make(tmp_path, rows, vocabulary=COLOURS, split=Split.parse("0/0/100"))
    golden = freeze(catalog, "test", tmp_path / "golden")
    assert golden.vocabulary == catalog.vocabulary
    assert labels(golden) == labels(catalog)
    assert (golden.info.attributes, golden.info.unknown_values) == ({"colour": 2}, {"colour": 1})
    path = catalog.folder / ATTRIBUTES_FILE
    path.write_text(path.read_text().replace("Blue", "Blau"))
    with pytest.raises(CatalogError, match=r"attributes\.json was changed"):
        _ = Catalog.open(catalog.folder).vocabulary
    with pytest.raises(CatalogError, match=r"attributes\.json was changed"):
        catalog.verify()


def test_an_overwritten_catalog_keeps_no_vocabulary_of_the_one_before(tmp_path: Path) -> None:
    make(tmp_path, [{"colour": "Red"}])
    _, catalog = make(tmp_path, [{"size": "XL"}])
    assert catalog.vocabulary == EMPTY
    assert not (catalog.folder / ATTRIBUTES_FILE).exists()
    assert b"attributes" not in (catalog.folder / "catalog.json").read_bytes()


def test_a_catalog_of_before_opens_and_reads_as_empty(tmp_path: Path) -> None:
    _, catalog = make(tmp_path, [{}, {}])
    (shard,) = catalog.info.shards
    batches = catalog.tables(
        columns=[name for name in SCHEMA.names if name not in ("attributes", "also_node_ids")]
    )
    write_table(catalog.folder / shard.file, pa.Table.from_batches(list(batches)))
    path = catalog.folder / shard.file
    info = json.loads((catalog.folder / "catalog.json").read_bytes())
    info["shards"][0] |= {"n_bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (catalog.folder / "catalog.json").write_text(json.dumps(info))
    old = Catalog.open(catalog.folder)
    old.verify()
    assert old.vocabulary == EMPTY
    products: list[Product] = [p for batch in old.products() for p in batch]
    assert [(p.attributes, p.also_node_ids) for p in products] == [({}, ()), ({}, ())]
    assert describe(old).attributes == ()
    assert freeze(old, "train", tmp_path / "golden").info.n_products == 2
