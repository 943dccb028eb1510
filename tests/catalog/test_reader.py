"""From feeds to products."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductRow, open_products, read_products
from shelver.catalog.rows import DEFAULT_LIMITS, BadRow, Limits
from shelver.errors import ConfigError
from shelver.images import MAX_BYTES
from shelver.product import Product

DATA = Path(os.environ.get("SHELVER_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def _csv(tmp_path: Path, *lines: str, name: str = "feed.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _jsonl(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "feed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _one(path: Path, mapping: Mapping | None = None, *, limits: Limits = DEFAULT_LIMITS) -> ProductRow:
    (row,) = read_products(path, mapping=mapping, limits=limits)
    assert isinstance(row, ProductRow), row
    return row


def _bad(path: Path, mapping: Mapping | None = None) -> BadRow:
    (row,) = read_products(path, mapping=mapping)
    assert isinstance(row, BadRow), row
    return row


def test_standard_columns_become_a_product_and_a_path(tmp_path: Path) -> None:
    path = _csv(
        tmp_path,
        "product_id,title,description,brand,image,category,split,source,language,value",
        " 007 ,Shirt,Blue,Acme,https://x/1.jpg,Apparel > Shirts,Val,shop,en,12.5",
    )
    assert _one(path) == ProductRow(
        2,
        Product(
            "007",
            "Shirt",
            "Blue",
            "Acme",
            (),
            ("https://x/1.jpg",),
            None,
            "validation",
            "shop",
            "en",
            12.5,
        ),
        ("Apparel", "Shirts"),
        (),
    )


def test_all_but_the_id_and_one_piece_may_be_missing(tmp_path: Path) -> None:
    assert _one(_csv(tmp_path, "id,title", "1,NA")) == ProductRow(2, Product("1", "NA"), None, ())


@pytest.mark.parametrize(
    ("header", "row", "code", "field"),
    [
        ("id,title", ",x", "missing_id", "product_id"),
        ("id,title", " ,x", "missing_id", "product_id"),
        ("id,title", "a" * 501 + ",x", "bad_id", "product_id"),
        ("id,title", "a\tb,x", "bad_id", "product_id"),
        ("id,title,brand", "1, ,", "empty_product", None),
        ("id,title,image", "1,,absent.jpg", "image_missing", "image"),
        ("id,title,image", "1,,../a.jpg", "image_refused", "image"),
        ("id,title,value", "1,x,cheap", "bad_value", "value"),
        ("id,title,value", "1,x,inf", "bad_value", "value"),
        ("id,title,value", "1,x,-1", "bad_value", "value"),
        ("id,title,value", "1,x,1_000", "bad_value", "value"),
        ("id,title,split", "1,x,holdout", "bad_split", "split"),
        ("id,title,category", "1,x,A >  > B", "bad_category", "category"),
        ("id,title,category", "1,x," + " > ".join("a" * 40), "bad_category", "category"),
    ],
)
def test_a_row_that_is_no_product_says_why(
    tmp_path: Path, header: str, row: str, code: str, field: str | None
) -> None:
    bad = _bad(_csv(tmp_path, header, row))
    assert (bad.line, bad.code, bad.field) == (2, code, field)
    assert bad.product_id == (None if field == "product_id" else "1")


@pytest.mark.parametrize("text", ["", "NaN", "nan", "None", "null", "N/A", "-"])
def test_a_number_that_is_written_as_nothing_is_unknown(tmp_path: Path, text: str) -> None:
    assert _one(_csv(tmp_path, "id,title,value", f"1,x,{text}")).product.value is None


@pytest.mark.parametrize(
    ("text", "split"),
    [("train", "train"), ("Training", "train"), ("dev", "validation"), (" TEST ", "test"), ("", None)],
)
def test_a_split_has_several_names(tmp_path: Path, text: str, split: str | None) -> None:
    assert _one(_csv(tmp_path, "id,title,split", f"1,x,{text}")).product.split == split


def test_wrong_types_in_json_are_bad_rows_that_name_the_column(tmp_path: Path) -> None:
    rows = list(
        read_products(
            _jsonl(
                tmp_path,
                {"id": 1, "title": ["a"]},
                {"id": {"a": 1}, "title": "x"},
                {"id": 3, "title": "x", "value": [1]},
                {"id": 4, "title": 5, "value": 2.5},
            )
        )
    )
    assert [(row.code, row.field) for row in rows if isinstance(row, BadRow)] == [
        ("wrong_type", "title"),
        ("wrong_type", "id"),
        ("wrong_type", "value"),
    ]
    assert rows[3] == ProductRow(4, Product("4", "5", value=2.5), None, ())


# --- categories ---------------------------------------------------------------------------------------------


def _path(tmp_path: Path, cell: str, mapping: Mapping) -> tuple[str, ...] | str | None:
    return _one(_jsonl(tmp_path, {"id": "1", "title": "x", "category": cell}), mapping).category


def test_a_path_is_stripped_split_and_cut(tmp_path: Path) -> None:
    mapping = Mapping(category_separator=" >> ", category_strip='[]"', max_level=3)
    assert _path(tmp_path, '["A >>  B  b >> C >> D"]', mapping) == ("A", "B b", "C")
    assert _path(tmp_path, "[]", mapping) is None
    assert _path(tmp_path, "", mapping) is None
    assert _path(tmp_path, "A >> ", mapping) == ("A >>",)
    assert _path(tmp_path, "A >>  >> ", mapping) == ("A", ">>")


def test_a_category_may_be_a_node_id(tmp_path: Path) -> None:
    assert _path(tmp_path, " 0166 ", Mapping(category_format="id")) == "0166"


def test_a_category_may_stand_in_one_column_a_level(tmp_path: Path) -> None:
    mapping = Mapping(columns={"category": ("top", "mid", "low")})
    path = _csv(tmp_path, "id,title,top,mid,low", "1,x,A > B,C,", "2,x,A,,C", "3,x,,,")
    rows = list(read_products(path, mapping=mapping))
    assert [row.category if isinstance(row, ProductRow) else row.code for row in rows] == [
        ("A > B", "C"),
        "bad_category",
        None,
    ]


def test_a_category_may_be_a_list_of_names(tmp_path: Path) -> None:
    row = _one(_jsonl(tmp_path, {"id": 1, "title": "x", "category": ["A", "B", None]}))
    assert row.category == ("A", "B")


# --- ids, constants, alternatives ---------------------------------------------------------------------------


def test_a_feed_without_ids_may_use_lines_or_a_hash_of_columns(tmp_path: Path) -> None:
    path = _csv(tmp_path, "text,n", "a,1", '"b\nb",2', "a,1", ",")
    text: dict[Any, Any] = {"title": "text"}
    by_line = list(read_products(path, mapping=Mapping(columns=text, id_from="line")))
    assert [row.product.product_id for row in by_line if isinstance(row, ProductRow)] == ["2", "3", "5"]
    hashed = Mapping(columns=text, id_from="hash", id_columns=("text", "n"))
    ids = [
        row.product.product_id if isinstance(row, ProductRow) else row.code
        for row in read_products(path, mapping=hashed)
    ]
    assert ids[0] == ids[2] != ids[1]
    assert len(ids[0]) == 16
    assert ids[3] == "missing_id"


def test_constants_fill_a_column_for_every_row(tmp_path: Path) -> None:
    mapping = Mapping(constants={"split": "dev", "language": "fr"})
    product = _one(_csv(tmp_path, "id,title", "1,x"), mapping).product
    assert (product.split, product.language) == ("validation", "fr")


def test_several_columns_for_a_text_are_alternatives(tmp_path: Path) -> None:
    mapping = Mapping(columns={"title": ("long", "short")})
    rows = read_products(_csv(tmp_path, "id,long,short", "1,,s", "2,l,s"), mapping=mapping)
    assert [row.product.title for row in rows if isinstance(row, ProductRow)] == ["s", "l"]


def test_a_file_without_header_is_read_with_the_names_of_the_mapping(tmp_path: Path) -> None:
    path = _csv(tmp_path, "Shoe\t1>2>3", name="rdc.tsv")
    mapping = Mapping(header=("title", "category"), category_separator=">", id_from="line", quoted=False)
    assert _one(path, mapping) == ProductRow(1, Product("1", "Shoe"), ("1", "2", "3"), ())


def test_a_mapping_that_does_not_fit_is_an_error_before_the_first_row(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b", "1,2")
    with pytest.raises(ConfigError, match="product_id"):
        read_products(path)
    with pytest.raises(ConfigError, match="'nope'"):
        read_products(path, mapping=Mapping(id_from="line", columns={"title": "nope"}))
    with pytest.raises(ConfigError, match="picture folder"):
        read_products(path, mapping=Mapping(id_from="line"), image_root=tmp_path / "absent")


def test_a_repeated_column_that_is_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than once"):
        read_products(_csv(tmp_path, "id,title,title", "1,a,b"))


# --- pictures -----------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"A")
    (folder / "sub" / "b.jpg").write_bytes(b"B")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "big.jpg").write_bytes(b"x" * 100)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "pictures2").mkdir()
    (tmp_path / "pictures2" / "c.jpg").write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "out").symlink_to(tmp_path)
    (folder / "good-link.jpg").symlink_to(folder / "a.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


@pytest.mark.parametrize(
    ("cell", "images", "warnings"),
    [
        ("a.jpg", (b"A",), ()),
        ("./sub/b.jpg", (b"B",), ()),
        ("sub\\b.jpg", (b"B",), ()),
        ("good-link.jpg", (b"A",), ()),
        ("absent.jpg", (), ("image_missing",)),
        ("empty.jpg", (), ("image_missing",)),
        ("big.jpg", (), ("image_too_many_bytes",)),
        ("sub", (), ("image_missing",)),
        ("pipe.jpg", (), ("image_missing",)),
        ("x" * 5_000, (), ("image_missing",)),
        ("a\u0000b", (), ("image_missing",)),
        ("../secret.jpg", (), ("image_refused",)),
        ("sub/../../secret.jpg", (), ("image_refused",)),
        ("..\\secret.jpg", (), ("image_refused",)),
        ("/etc/hostname", (), ("image_refused",)),
        ("C:\\a.jpg", (), ("image_refused",)),
        ("file:///etc/hostname", (), ("image_refused",)),
        ("data:image/png;base64,AAAA", (), ("image_refused",)),
        ("link.jpg", (), ("image_refused",)),
        ("out/secret.jpg", (), ("image_refused",)),
        ("out/pictures2/c.jpg", (), ("image_refused",)),
        ("", (), ()),
    ],
)
def test_a_picture_is_read_inside_its_folder_only(
    tmp_path: Path, pictures: Path, cell: str, images: tuple[bytes, ...], warnings: tuple[str, ...]
) -> None:
    path = _jsonl(tmp_path, {"id": "1", "title": "x", "image": cell})
    (row,) = read_products(path, image_root=pictures, limits=Limits(image_bytes=50))
    assert isinstance(row, ProductRow)
    assert row.product.title == "x"
    assert row.product.images == images
    assert row.warnings == warnings


def test_the_picture_folder_of_a_mapping_starts_at_the_feed_and_may_be_left_out(
    tmp_path: Path, pictures: Path
) -> None:
    assert pictures.is_dir()
    assert _one(_csv(tmp_path, "id,image", "1,a.jpg"), Mapping(image_folder="pictures")).product.images == (b"A",)
    assert _one(_csv(tmp_path, "id,image", "1,pictures/a.jpg")).product.images == (b"A",)


def test_a_picture_name_may_be_made_from_the_row(tmp_path: Path, pictures: Path) -> None:
    mapping = Mapping(image_pattern="{letter}.jpg", image_folder="pictures")
    path = _csv(tmp_path, "id,title,letter", "1,x,a", "2,x,", "3,x,../secret", "4,x,q")
    rows = [row for row in read_products(path, mapping=mapping) if isinstance(row, ProductRow)]
    assert [row.product.images for row in rows] == [(b"A",), (), (), ()]
    assert [row.warnings for row in rows] == [(), ("image_missing",), ("image_refused",), ("image_missing",)]


def test_addresses_are_kept_and_several_may_stand_in_one_cell(tmp_path: Path) -> None:
    mapping = Mapping(image_separator="|", columns={"image": ("image", "more")})
    path = _csv(tmp_path, "id,image,more", "1,http://x/1.jpg|//x/2.jpg | HTTPS://x/3.jpg,http://x/1.jpg")
    assert _one(path, mapping).product.image_urls == (
        "http://x/1.jpg",
        "https://x/2.jpg",
        "HTTPS://x/3.jpg",
    )


def test_parquet_pictures_are_bytes_structs_or_lists_of_either(tmp_path: Path, pictures: Path) -> None:
    struct = [{"bytes": b"S", "path": "a.jpg"}, {"bytes": None, "path": "a.jpg"}, None]
    pq.write_table(pa.table({"id": [1, 2, 3], "title": ["x"] * 3, "image": struct}), tmp_path / "s.parquet")
    pq.write_table(pa.table({"id": [1], "image": [[b"1", b"2"]]}), tmp_path / "l.parquet")
    pq.write_table(pa.table({"id": [1], "image": [b"raw"], "title": [b"caf\xc3\xa9"]}), tmp_path / "b.parquet")
    rows = list(read_products(tmp_path / "s.parquet", image_root=pictures))
    assert [row.product.images for row in rows if isinstance(row, ProductRow)] == [(b"S",), (b"A",), ()]
    assert _one(tmp_path / "l.parquet").product.images == (b"1", b"2")
    assert _one(tmp_path / "b.parquet").product == Product("1", "café", images=(b"raw",))


def test_a_picture_over_the_limit_or_of_a_strange_kind_is_left_out(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "title": ["x"], "image": [b"x" * 51]}), tmp_path / "b.parquet")
    assert _one(tmp_path / "b.parquet", limits=Limits(image_bytes=50)).warnings == ("image_too_many_bytes",)
    cells: list[object] = [[["a"]], {"url": "x"}, {"bytes": "AAAA", "path": "a"}, ["http://x/1"] * 3, []]
    rows = list(
        read_products(_jsonl(tmp_path, *({"id": i, "title": "x", "image": c} for i, c in enumerate(cells))))
    )
    refused = ("image_refused",)
    assert [row.warnings for row in rows if isinstance(row, ProductRow)] == [refused, refused, refused, (), ()]


def test_the_number_of_pictures_is_bounded(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, {"id": 1, "image": [f"http://x/{i}" for i in range(1_000)]})
    row = _one(path)
    assert len(row.product.image_urls) == DEFAULT_LIMITS.images
    assert row.warnings == ("image_refused",)


def test_a_file_that_a_row_names_often_is_read_once(tmp_path: Path, pictures: Path) -> None:
    path = _jsonl(tmp_path, {"id": 1, "image": ["a.jpg", "./a.jpg", "good-link.jpg", "sub/b.jpg", "a.jpg"]})
    (row,) = read_products(path, image_root=pictures)
    assert isinstance(row, ProductRow)
    assert row.product.images == (b"A", b"B")


def test_the_bytes_of_all_pictures_of_a_product_are_bounded(tmp_path: Path, pictures: Path) -> None:
    for name in "xyz":
        (pictures / f"{name}.jpg").write_bytes(name.encode() * 40)
    path = _jsonl(tmp_path, {"id": 1, "image": ["x.jpg", "y.jpg", "z.jpg", "a.jpg"]})
    (row,) = read_products(path, image_root=pictures, limits=Limits(product_image_bytes=100))
    assert isinstance(row, ProductRow)
    assert row.product.images == (b"x" * 40, b"y" * 40, b"A")
    assert row.warnings == ("image_refused",)


def test_absent_files_count_towards_the_number_of_pictures(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, {"id": 1, "title": "x", "image": [f"{i}.jpg" for i in range(1_000)]})
    assert _one(path).warnings == ("image_missing", "image_refused")


def test_a_picture_that_may_stand_in_a_catalog_may_be_decoded() -> None:
    assert DEFAULT_LIMITS.image_bytes == MAX_BYTES


# --- without labels ---------------------------------------------------------------------------------------------


def test_without_labels_no_row_is_refused_for_what_a_prediction_does_not_use(tmp_path: Path) -> None:
    path = _csv(
        tmp_path,
        "id,title,category,split,value",
        "1,a,A >  > B,train,1",
        "2,b,A,holdout,1",
        "3,c,A,test,cheap",
    )
    assert all(isinstance(row, BadRow) for row in read_products(path))
    rows = [row for row in read_products(path, labels=False) if isinstance(row, ProductRow)]
    assert [row.product for row in rows] == [Product("1", "a"), Product("2", "b"), Product("3", "c")]
    odd = _jsonl(tmp_path, {"id": 1, "title": "x", "source": ["a"], "value": {"a": 1}})
    assert [row.product for row in read_products(odd, labels=False) if isinstance(row, ProductRow)] == [
        Product("1", "x")
    ]


def test_a_mapping_made_for_labelled_feeds_serves_unlabelled_ones(tmp_path: Path) -> None:
    mapping = Mapping(
        columns={"product_id": "uniq", "title": "name", "category": ("a", "b"), "split": "part", "value": "sold"}
    )
    path = _csv(tmp_path, "uniq,name", "1,x")
    with pytest.raises(ConfigError, match="mapped"):
        open_products(path, mapping=mapping)
    (row,) = open_products(path, mapping=mapping, labels=False).rows
    assert isinstance(row, ProductRow)
    assert row == ProductRow(2, Product("1", "x"), None, ())
    with pytest.raises(ConfigError, match="'name'"):
        open_products(_csv(tmp_path, "uniq", "1"), mapping=mapping, labels=False)


# --- whole feeds --------------------------------------------------------------------------------------------


def test_a_feed_whose_rows_are_all_damaged_is_all_quarantine(tmp_path: Path) -> None:
    assert _bad(_jsonl(tmp_path, {"product_id": "1", "title": "half \ud83d"})).code == "bad_encoding"
    path = tmp_path / "late.jsonl"
    path.write_text("[1]\n" * 150 + '{"sku": "1", "name": "late"}\n')
    rows = list(read_products(path))
    assert [row.code for row in rows if isinstance(row, BadRow)] == ["not_an_object"] * 150
    assert rows[150] == ProductRow(151, Product("1", "late"), None, ())


def test_a_google_merchant_feed_needs_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    path.write_text(
        '<rss xmlns:g="http://base.google.com/ns/1.0"><channel><item><g:id>1</g:id><title>Shoe</title>'
        "<g:brand>Acme</g:brand><g:image_link>http://x/1.jpg</g:image_link>"
        "<g:google_product_category>Apparel &gt; Shoes</g:google_product_category></item></channel></rss>"
    )
    assert _one(path) == ProductRow(
        1, Product("1", "Shoe", brand="Acme", image_urls=("http://x/1.jpg",)), ("Apparel", "Shoes"), ()
    )


def test_a_shopify_export_needs_no_mapping_and_a_handle_is_one_product(tmp_path: Path) -> None:
    path = _csv(
        tmp_path,
        "Handle,Title,Body (HTML),Vendor,Product Category,Variant SKU,Image Src",
        "cap,Cap,<p>Red</p>,Acme,Apparel > Caps,c1,http://x/1.jpg",
        "cap,,,,,c2,http://x/2.jpg",
    )
    assert _one(path) == ProductRow(
        2,
        Product("cap", "Cap", "<p>Red</p>", "Acme", (), ("http://x/1.jpg", "http://x/2.jpg")),
        ("Apparel", "Caps"),
        (),
    )


def test_memory_stays_flat_over_a_long_feed(tmp_path: Path) -> None:
    lines = (f'{i},"Some title, number {i}{" and more" * 20}",A > B' for i in range(20_000))
    path = _csv(tmp_path, "product_id,title,category", *lines)
    tracemalloc.start()
    try:
        n_rows = sum(1 for _ in read_products(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_rows == 20_000
    assert peak < 3_000_000 < path.stat().st_size


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data is not at {DATA}")
def test_the_real_feeds_are_read_whole() -> None:
    fashion = Mapping(
        columns={
            "product_id": "id",
            "title": "productDisplayName",
            "category": ("masterCategory", "subCategory", "articleType"),
        }
    )
    flipkart = Mapping(
        category_separator=" >> ",
        category_strip='[]"',
        max_level=3,
        image_folder="images",
        columns={"category": "product_category_tree"},
    )
    rows = list(read_products(DATA / "flipkart" / "products.csv", mapping=flipkart))
    assert len(rows) == 1_050
    assert sum(isinstance(row, ProductRow) and bool(row.product.images) for row in rows) == 1_047
    feed = open_products(DATA / "fashion" / "fashion.parquet", mapping=fashion)
    n_rows = 0
    for row in feed.rows:
        assert isinstance(row, ProductRow)
        assert row.category is not None
        assert len(row.category) == 3
        n_rows += 1
    assert n_rows == 39_668
