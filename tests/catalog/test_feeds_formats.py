"""The other formats, gzip, and how a format is found."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog.feeds import detect, open_feed
from shelver.catalog.rows import BadRow, Limits, Row
from shelver.errors import ConfigError, FeedError

CSV = b"product_id,title\n1,one\n2,two\n"
HEAD = (
    b'<?xml version="1.0"?>\n<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">\n'
    b"<channel><title>Shop</title>\n"
)
TAIL = b"</channel></rss>\n"


def _item(number: int, title: str = "shoe") -> bytes:
    return f"<item><g:id>{number}</g:id><title>{title}</title></item>\n".encode()


def _write(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def _codes(path: Path, limits: Limits | None = None) -> list[str]:
    rows = open_feed(path, limits=limits or Limits()).rows
    return [row.code if isinstance(row, BadRow) else "ok" for row in rows]


# --- finding the format -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "format_"),
    [
        ("a.csv", CSV, "csv"),
        ("a.tsv", b"a\tb\n", "tsv"),
        ("a.tsv.gz", gzip.compress(b"a\tb\n", mtime=0), "tsv"),
        ("a", CSV, "csv"),
        ("a.csv", b'{"a": 1}\n', "jsonl"),
        ("a.txt", b'\xef\xbb\xbf {"a": 1}\n', "jsonl"),
        ("a.jsonl", b"broken\n", "jsonl"),
        ("a.csv", b"<rss/>", "xml"),
        ("a.csv", b"PAR1....", "parquet"),
        ("a.gz", gzip.compress(HEAD, mtime=0), "xml"),
    ],
)
def test_content_decides_the_format_and_the_ending_what_content_leaves_open(
    tmp_path: Path, name: str, data: bytes, format_: str
) -> None:
    assert detect(_write(tmp_path, name, data)) == format_


@pytest.mark.parametrize(
    "data", [b"", gzip.compress(b"", mtime=0), b"PK\x03\x04zip", b"\x89PNG\r\n", b"\x1f\x8b\x08"]
)
def test_what_is_no_feed_is_refused_as_a_whole(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FeedError):
        open_feed(_write(tmp_path, "a.csv", data))


def test_an_absent_file_a_folder_and_an_unknown_format_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(FeedError):
            open_feed(path)
    path = _write(tmp_path, "a.csv", CSV)
    with pytest.raises(ConfigError):
        open_feed(path, format="xls")  # type: ignore[arg-type]
    for encoding in ("klingon", "zip"):
        with pytest.raises(ConfigError, match=encoding):
            open_feed(path, encoding=encoding)


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="jq"):
        open_feed(_write(tmp_path, "a.json", b'[{"id": 1}]'))


# --- gzip ---------------------------------------------------------------------------------------------------


def test_gzip_is_found_by_its_content_and_may_have_several_members(tmp_path: Path) -> None:
    data = gzip.compress(CSV) + gzip.compress(b"3,three\n") + b"\0" * 512
    rows = list(open_feed(_write(tmp_path, "a.csv", data)).rows)
    assert [row.values["title"] for row in rows if isinstance(row, Row)] == ["one", "two", "three"]


def test_a_cut_gzip_gives_the_rows_before_the_cut_and_one_bad_row(tmp_path: Path) -> None:
    lines = [b"%d,title %d\n" % (i, zlib.crc32(b"%d" % i)) for i in range(5_000)]
    data = gzip.compress(b"product_id,title\n" + b"".join(lines))
    rows = list(open_feed(_write(tmp_path, "a.csv.gz", data[: len(data) // 2])).rows)
    assert 2_000 < len(rows) < 3_000
    assert [row.line for row in rows] == list(range(2, len(rows) + 2))
    last = rows.pop()
    assert isinstance(last, BadRow)
    assert last.code == "damaged_file"
    for row, line in zip(rows, lines, strict=False):
        assert isinstance(row, Row)
        assert list(row.values.values()) == line.decode().strip().split(",")


def test_damage_inside_gzip_keeps_the_rows_right_up_to_it(tmp_path: Path) -> None:
    lines = b"".join(b"%d,title %d\n" % (i, zlib.crc32(b"%d" % i)) for i in range(2_000))
    data = bytearray(gzip.compress(b"product_id,title\n" + lines))
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xff" * 200
    codes = _codes(_write(tmp_path, "a.csv.gz", bytes(data)))
    assert codes[-1] == "damaged_file"
    assert codes[:800] == ["ok"] * 800


def test_a_gzip_with_a_wrong_checksum_or_bytes_behind_it_ends_in_a_bad_row(tmp_path: Path) -> None:
    whole = gzip.compress(CSV)
    assert _codes(_write(tmp_path, "a.gz", whole[:-8] + b"x" * 8)) == ["ok", "ok", "damaged_file"]
    assert _codes(_write(tmp_path, "b.gz", whole + b"garbage")) == ["ok", "ok", "damaged_file"]


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"product_id,title\n" + b"1,x\n" * 500_000, 9)
    limits = Limits(bomb_bytes=1_000_000)
    with pytest.raises(FeedError, match="bomb"):
        _codes(_write(tmp_path, "a.csv.gz", packed), limits)


def test_a_parquet_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    table = pa.table({"product_id": ["1"], "title": ["x" * 120_000_000]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", write_statistics=False)
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(FeedError, match="bomb"):
        list(open_feed(tmp_path / "a.parquet").rows)
    (row,) = open_feed(tmp_path / "a.parquet", limits=Limits(bomb_ratio=1_000_000)).rows
    assert isinstance(row, BadRow)  # trusted, but no cell is that large


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="more than 1 rows"):
        _codes(_write(tmp_path, "a.csv", CSV), Limits(rows=1))


# --- JSON lines ---------------------------------------------------------------------------------------------


def test_json_numbers_and_truth_values_are_text_and_typed_nothing_is_none(tmp_path: Path) -> None:
    line = '{"id": 0012, "a": 1}\n{"id": 12345678901234567890, "p": 1.10, "t": true, "n": null, "x": NaN}\n'
    rows = list(open_feed(_write(tmp_path, "a.jsonl", line.encode())).rows)
    assert [getattr(row, "code", "ok") for row in rows] == ["bad_json", "ok"]
    assert rows[1] == Row(2, {"id": "12345678901234567890", "p": "1.10", "t": "true", "n": None, "x": None})


def test_every_bad_json_line_is_one_bad_row(tmp_path: Path) -> None:
    lines = [
        b'{"id": "1"}',
        b"{not json",
        b"[1, 2]",
        b'"text"',
        b"12",
        b"",
        b'{"id": "\\ud800"}',
        b'{"id": "a\x00"}',
        b'{"id": "\x81"}',
        b'{"id": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"id": "caf\xe9"}',
    ]
    assert _codes(_write(tmp_path, "a.jsonl", b"\n".join(lines))) == [
        "ok",
        "bad_json",
        "not_an_object",
        "not_an_object",
        "not_an_object",
        "bad_encoding",
        "nul_byte",
        "bad_encoding",
        "ok",
        "bad_json",
        "bad_json",
        "bad_json",
        "ok",
    ]


def test_json_lists_and_objects_keep_their_kind(tmp_path: Path) -> None:
    row = {"id": "1", "category": ["A", "B"], "image": {"path": "a.jpg", "bytes": None}}
    rows = list(open_feed(_write(tmp_path, "a.jsonl", json.dumps(row).encode())).rows)
    assert rows == [Row(1, {"id": "1", "category": ["A", "B"], "image": {"path": "a.jpg", "bytes": None}})]


def test_a_json_cell_over_the_limit_is_one_bad_row(tmp_path: Path) -> None:
    data = json.dumps({"id": "1", "title": "x" * 2_000}).encode() + b'\n{"id": "2"}\n'
    assert _codes(_write(tmp_path, "a.jsonl", data), Limits(cell_bytes=1_000)) == ["cell_too_large", "ok"]


# --- Parquet ------------------------------------------------------------------------------------------------


def test_parquet_types_become_cells(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1.0, None, float("nan")], pa.float64()),
            "n": pa.array([7, None, 9], pa.int64()),
            "usage": pa.array(["NA", "nan", None]).dictionary_encode(),
            "image": pa.array([{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "p"}]),
            "images": pa.array([[b"a", b"b"], [], None]),
            "ok": pa.array([True, False, None]),
            "day": pa.array([0, 1, None], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second, third = open_feed(tmp_path / "a.parquet").rows
    assert first == Row(
        1,
        {
            "id": "1",
            "n": "7",
            "usage": "NA",
            "image": {"bytes": b"x", "path": None},
            "images": [b"a", b"b"],
            "ok": "true",
            "day": "1970-01-01",
        },
    )
    assert isinstance(second, Row)
    assert second.values["usage"] == "nan"
    assert isinstance(third, Row)
    assert third.values["id"] is None
    assert third.values["image"] == {"bytes": None, "path": "p"}


def test_parquet_text_that_is_no_utf8_costs_its_row_only(tmp_path: Path) -> None:
    values = pa.array([b"ok", b"\xff\xfe", b"fine"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    pq.write_table(pa.table({"id": ["1", "2", "3"], "title": broken}), tmp_path / "a.parquet")
    assert _codes(tmp_path / "a.parquet") == ["ok", "bad_encoding", "ok"]


def test_parquet_may_be_gzipped(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1", "2"]}), tmp_path / "a.parquet")
    data = gzip.compress((tmp_path / "a.parquet").read_bytes())
    assert _codes(_write(tmp_path, "b.parquet.gz", data)) == ["ok", "ok"]


def test_damaged_parquet_is_an_error_of_the_whole_feed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [str(i) for i in range(1_000)]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for data in (
        whole[:-10],
        whole[: len(whole) // 2],
        b"PAR1",
        b"PAR1" + b"\0" * 100 + b"PAR1",
        gzip.compress(whole)[:-20],
    ):
        with pytest.raises(FeedError, match="Parquet"):
            _codes(_write(tmp_path, "b.parquet", data))


# --- Google Merchant XML ------------------------------------------------------------------------------------


def test_rss_items_become_rows_with_their_line_and_lists_of_pictures(tmp_path: Path) -> None:
    item = (
        b"<item>\n<g:id>7</g:id><title><![CDATA[A & B]]></title><g:price/>"
        b"<g:image_link>http://x/1.jpg</g:image_link>"
        b"<g:additional_image_link>http://x/2.jpg</g:additional_image_link>"
        b"<g:additional_image_link>http://x/3.jpg</g:additional_image_link>"
        b"<g:product_type>A &gt; B</g:product_type><g:product_type>C</g:product_type></item>\n"
    )
    rows = list(open_feed(_write(tmp_path, "a.xml", HEAD + item + _item(8) + TAIL)).rows)
    assert rows[0] == Row(
        4,
        {
            "g:id": "7",
            "title": "A & B",
            "g:price": "",
            "g:image_link": ["http://x/1.jpg"],
            "g:additional_image_link": ["http://x/2.jpg", "http://x/3.jpg"],
            "g:product_type": "A > B",
        },
    )
    assert rows[1].line == 6


def test_atom_entries_become_rows(tmp_path: Path) -> None:
    data = (
        b'<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>S</title>'
        b'<entry><g:id>1</g:id><title>t</title><link href="http://x/1"/></entry></feed>'
    )
    rows = list(open_feed(_write(tmp_path, "a.atom", data)).rows)
    assert rows == [Row(1, {"g:id": "1", "title": "t", "link": "http://x/1"})]


@pytest.mark.parametrize(
    "bad",
    [
        _item(2, "a & b"),
        _item(2, "a &nbsp; b"),
        _item(2, "a \x0b b"),
        _item(2).replace(b"</title>", b""),
        _item(2).replace(b"</item>", b""),
        _item(2, "<a>" * 200 + "</a>" * 200),
    ],
)
def test_an_item_that_is_not_well_formed_costs_its_row_only(tmp_path: Path, bad: bytes) -> None:
    rows = list(open_feed(_write(tmp_path, "a.xml", HEAD + _item(1) + bad + _item(3) + _item(4) + TAIL)).rows)
    assert [getattr(row, "code", "ok") for row in rows] == ["ok", "bad_xml", "ok", "ok"]
    assert [row.line for row in rows] == [4, 5, 6, 7]
    assert isinstance(rows[1], BadRow)
    assert rows[1].product_id == "2"


def test_many_damaged_items_over_many_blocks_are_counted_one_by_one(tmp_path: Path) -> None:
    items = [_item(i, "&" if i % 7 == 0 else "shoe") for i in range(4_000)]
    rows = list(open_feed(_write(tmp_path, "a.xml", HEAD + b"".join(items) + TAIL)).rows)
    assert [row.line for row in rows] == list(range(4, 4_004))
    assert [isinstance(row, BadRow) for row in rows] == [i % 7 == 0 for i in range(4_000)]


def test_cut_xml_gives_the_rows_before_the_cut_and_one_bad_row(tmp_path: Path) -> None:
    data = HEAD + _item(1) + _item(2) + _item(3)[:20]
    assert _codes(_write(tmp_path, "a.xml", data)) == ["ok", "ok", "damaged_file"]
    for end in (b"<item ", b"<item>", b"<item><g:id>3</g:i", b"<!-- ", b"", b"<item><title><![CDATA[x"):
        assert _codes(_write(tmp_path, "c.xml", HEAD + _item(1) + end)) == ["ok", "damaged_file"], end
    packed = gzip.compress(HEAD + b"".join(_item(i, str(zlib.crc32(b"%d" % i))) for i in range(3_000)))
    codes = _codes(_write(tmp_path, "b.xml.gz", packed[: len(packed) // 2]))
    assert codes[-1] == "damaged_file"
    assert set(codes[:-1]) == {"ok"}
    assert len(codes) > 1_000


def test_entities_and_document_types_are_refused_as_a_whole(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE rss [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>'
    outside = b'<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    for doctype in (bomb, outside, b'<!DOCTYPE rss SYSTEM "http://localhost/x.dtd">'):
        data = HEAD.replace(b"?>\n", b"?>\n" + doctype, 1) + _item(1, "&b;&x;") + TAIL
        with pytest.raises(FeedError, match="document type"):
            _codes(_write(tmp_path, "a.xml", data))


@pytest.mark.parametrize(
    "data", [b"<", b"<a", b"<html><p>no feed</html>", b"<rss/>", b'<?xml version="1.0" encoding="x"?><a/>']
)
def test_xml_without_a_single_item_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FeedError):
        _codes(_write(tmp_path, "a.xml", data))


def test_an_xml_cell_or_tag_over_the_limit_is_one_bad_row(tmp_path: Path) -> None:
    limits = Limits(cell_bytes=1_000, row_bytes=50_000)
    data = HEAD + _item(1) + _item(2, "x" * 2_000) + _item(3) + TAIL
    assert _codes(_write(tmp_path, "a.xml", data), limits) == ["ok", "cell_too_large", "ok"]
    data = HEAD + _item(1) + b"<!--" + b"x" * 300_000 + b"-->" + _item(3) + TAIL
    assert _codes(_write(tmp_path, "a.xml", data), limits) == ["ok", "bad_xml", "ok"]


# --- Shopify ------------------------------------------------------------------------------------------------

SHOPIFY = (
    b"Handle,Title,Body (HTML),Vendor,Product Category,Option1 Value,Image Src\n"
    b"shirt,Shirt,<p>Fine</p>,Acme,Apparel > Shirts,S,http://x/1.jpg\n"
    b"shirt,,,,,M,http://x/2.jpg\n"
    b"shirt,,,,,L,http://x/1.jpg\n"
    b"cap,Cap,,Acme,Apparel > Caps,,\n"
    b"broken,row\n"
    b"cap,,,,,XL,http://x/3.jpg\n"
    b"shirt,Again,,,,,\n"
)


def test_the_lines_of_one_shopify_handle_are_one_row_and_a_bad_line_is_its_own(tmp_path: Path) -> None:
    feed = open_feed(_write(tmp_path, "a.csv", SHOPIFY))
    rows = list(feed.rows)
    assert feed.format == "shopify"
    assert [getattr(row, "code", "ok") for row in rows] == ["ok", "too_few_cells", "ok", "ok"]
    assert rows[0] == Row(
        2,
        {
            "Handle": "shirt",
            "Title": "Shirt",
            "Body (HTML)": "<p>Fine</p>",
            "Vendor": "Acme",
            "Product Category": "Apparel > Shirts",
            "Option1 Value": "S",
            "Image Src": ["http://x/1.jpg", "http://x/2.jpg"],
        },
    )
    assert isinstance(rows[2], Row)
    assert rows[2].values["Image Src"] == ["http://x/3.jpg"]
    assert rows[3].line == 8


def test_shopify_lines_without_a_handle_are_not_merged(tmp_path: Path) -> None:
    data = b"Handle,Title,Vendor\n,a,x\n,b,x\n"
    assert len(_codes(_write(tmp_path, "a.csv", data))) == 2


def test_a_csv_that_is_said_to_be_shopify_needs_a_handle(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="Handle"):
        open_feed(_write(tmp_path, "a.csv", CSV), format="shopify")
