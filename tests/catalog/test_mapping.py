"""Mapping: which column is what."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shelver.catalog.mapping import _MORE_IMAGES, _SYNONYMS, STANDARD, Mapping
from shelver.catalog.reader import ProductRow, read_products
from shelver.catalog.rows import MEANINGS
from shelver.errors import ConfigError


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_standard_names_need_no_mapping() -> None:
    assert Mapping.guess(STANDARD).columns == {name: name for name in STANDARD}


def test_names_are_guessed_whatever_their_case_spaces_and_dashes() -> None:
    mapping = Mapping.guess(["Product ID", "TITLE", "Category"])
    assert mapping.columns == {"product_id": "Product ID", "title": "TITLE", "category": "Category"}


def test_google_merchant_names_are_known() -> None:
    mapping = Mapping.guess(
        [
            "g:id",
            "title",
            "g:title",
            "g:description",
            "g:brand",
            "g:image_link",
            "g:additional_image_link",
            "g:google_product_category",
            "g:product_type",
        ]
    )
    assert mapping.columns == {
        "product_id": "g:id",
        "title": ("title", "g:title"),
        "description": "g:description",
        "brand": "g:brand",
        "image": ("g:image_link", "g:additional_image_link"),
        "category": "g:google_product_category",
    }


def test_shopify_names_are_known() -> None:
    columns = ["Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Image Src"]
    assert Mapping.guess(columns).columns == {
        "product_id": "Handle",
        "title": "Title",
        "description": "Body (HTML)",
        "brand": "Vendor",
        "category": "Product Category",
        "image": "Image Src",
    }


def test_a_standard_name_wins_over_a_synonym() -> None:
    assert Mapping.guess(["id", "sku", "product_id"]).columns["product_id"] == "product_id"


def test_a_column_that_the_mapping_uses_is_not_guessed_for_something_else() -> None:
    mapping = Mapping(columns={"title": "Description"}, id_from="line").completed(["Description"])
    assert mapping.columns == {"title": "Description"}


def test_a_mapping_is_read_from_toml_and_its_folder_starts_at_the_file(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "m.toml",
        'category_separator = " >> "\nmax_level = 3\nimage_folder = "pics"\n'
        '[columns]\nproduct_id = "uniq"\ncategory = ["a", "b"]\n[constants]\nlanguage = "en"\n',
    )
    mapping = Mapping.load(path)
    assert mapping.columns == {"product_id": "uniq", "category": ("a", "b")}
    assert mapping.constants == {"language": "en"}
    assert mapping.image_folder == str(tmp_path / "pics")
    assert mapping.used_columns() == ("uniq", "a", "b")


def test_the_picture_folder_of_a_mapping_beside_the_feed_is_joined_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop/pics").mkdir(parents=True)
    Path("shop/pics/a.jpg").write_bytes(b"A")
    _write(Path("shop/m.toml"), 'image_folder = "pics"')
    _write(Path("shop/feed.csv"), "id,title,image\n1,x,a.jpg\n")
    (row,) = read_products("shop/feed.csv", mapping=Mapping.load("shop/m.toml"))
    assert isinstance(row, ProductRow)
    assert row.product.images == (b"A",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("categry_separator = '>'", "categry_separator"),
        ("[columns]\ntitel = 'x'", "titel"),
        ("max_level = 0", "max_level"),
        ("max_level = 'deep'", "max_level"),
        ("category_separator = ''", "category_separator"),
        ("id_from = 'guess'", "id_from"),
        ("id_from = 'hash'", "id_columns"),
        ("id_columns = ['a']", "id_columns"),
        ("id_from = 'line'\n[columns]\nproduct_id = 'a'", "product_id"),
        ("[constants]\nproduct_id = '1'", "product_id"),
        ("[columns]\nsplit = 's'\n[constants]\nsplit = 'train'", "split"),
        ("image_pattern = 'photo.jpg'", "image_pattern"),
        ("delimiter = ',,'", "delimiter"),
        ("delimiter = '\"'", "delimiter"),
        ("format = 'xls'", "format"),
        ("this is no toml", "m.toml"),
    ],
)
def test_a_wrong_mapping_is_an_error_that_names_the_entry(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Mapping.load(_write(tmp_path / "m.toml", text))


def test_a_mapping_file_that_is_absent_or_no_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.toml", "bytes.toml"):
        with pytest.raises(ConfigError, match=name):
            Mapping.load(tmp_path / name)


def test_entries_that_do_not_go_together_are_an_error_that_says_where_they_come_from() -> None:
    with pytest.raises(ConfigError, match=r"--column: .*`title` is a column and a constant"):
        Mapping.of({"columns": {"title": "name"}, "constants": {"title": "x"}}, where="--column")


def test_a_mapping_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Mapping().max_level = 2


def test_no_id_column_is_an_error_that_lists_the_columns_and_the_ways_out() -> None:
    with pytest.raises(ConfigError, match=r"a, b.*id_from") as caught:
        Mapping.guess(["a", "b"]).check(["a", "b"])
    assert "header" in caught.value.remedy
    Mapping(id_from="line").check(["a", "b"])


def test_a_mapped_column_that_the_feed_lacks_is_an_error() -> None:
    mapping = Mapping(columns={"product_id": "id", "title": "name"})
    with pytest.raises(ConfigError, match="'name'"):
        mapping.check(["id", "Name"])
    mapping.check(["id"], open_ended=True)


def test_a_column_that_is_read_must_not_stand_twice() -> None:
    mapping = Mapping(columns={"product_id": "id"})
    mapping.check(["id", "x", "x (2)"], repeated=["x"])
    with pytest.raises(ConfigError, match="more than once"):
        mapping.check(["id", "id (2)"], repeated=["id"])


def test_a_picture_name_is_plain_replacement_without_attribute_access() -> None:
    mapping = Mapping(image_pattern="image_{imageid}_product_{productid}.jpg")
    assert mapping.image_placeholders() == ("imageid", "productid")
    assert mapping.image_name({"imageid": "1", "productid": "{imageid}"}) == "image_1_product_{imageid}.jpg"
    assert Mapping(image_pattern="{a.__class__}").image_name({"a.__class__": "x"}) == "x"


def test_the_page_on_mappings_names_every_key_every_known_column_and_every_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mapping.md").read_text(encoding="utf-8")
    names = [*STANDARD, *MEANINGS, *_MORE_IMAGES]
    names += [word for words in _SYNONYMS.values() for word in words]
    assert not [name for name in names if f"`{name}`" not in page]
    assert not [key for key in Mapping.model_fields if f"| `{key}` |" not in page and f"| `[{key}]` |" not in page]
    assert all(f"| `{code}` | {meaning} |" in page for code, meaning in MEANINGS.items())
