"""CSV and TSV: one bad row costs one row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from shelver.catalog.feeds import open_feed
from shelver.catalog.feeds.delimited import column_names, find_delimiter
from shelver.catalog.rows import DEFAULT_LIMITS, BadRow, Limits, Row
from shelver.errors import FeedError

SMALL = Limits(cell_bytes=1_000, row_bytes=4_000)


def _read(
    tmp_path: Path, data: bytes, *, limits: Limits = DEFAULT_LIMITS, name: str = "feed.csv"
) -> list[Row | BadRow]:
    path = tmp_path / name
    path.write_bytes(data)
    return list(open_feed(path, limits=limits).rows)


def _short(rows: Sequence[Row | BadRow]) -> list[tuple[int, object]]:
    return [(row.line, row.code if isinstance(row, BadRow) else list(row.values.values())) for row in rows]


def test_plain_rows_keep_every_cell_as_text(tmp_path: Path) -> None:
    rows = _read(tmp_path, b"id,usage,n\n1,NA,nan\n2,,007\n")
    assert rows == [
        Row(2, {"id": "1", "usage": "NA", "n": "nan"}),
        Row(3, {"id": "2", "usage": "", "n": "007"}),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_will_do_and_the_last_may_lack(tmp_path: Path, end: str) -> None:
    rows = _read(tmp_path, f"a,b{end}1,2{end}3,4".encode())
    assert _short(rows) == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b\n"x, ""y""","1\n2\r\n3"\n5,6\n')
    assert _short(rows) == [(2, ['x, "y"', "1\n2\r\n3"]), (5, ["5", "6"])]


def test_ragged_rows_are_bad_one_by_one(tmp_path: Path) -> None:
    rows = _read(tmp_path, b"a,b\n1\n1,2,3\n4,5\n6,7,,\n")
    assert _short(rows) == [(2, "too_few_cells"), (3, "too_many_cells"), (4, ["4", "5"]), (5, ["6", "7"])]


def test_empty_lines_are_no_rows(tmp_path: Path) -> None:
    assert _short(_read(tmp_path, b"\n\na,b\n\n1,2\n\r\n\n,\n")) == [(5, ["1", "2"]), (8, ["", ""])]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_text_arrives_whole_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    rows = _read(tmp_path, "id,título\n1,crème brûlée\n2,œuf\n".encode(encoding))
    assert [list(row.values.items()) for row in rows if isinstance(row, Row)] == [
        [("id", "1"), ("título", "crème brûlée")],
        [("id", "2"), ("título", "œuf")],
    ]


def test_each_line_has_its_own_fallback_to_windows_1252(tmp_path: Path) -> None:
    rows = _read(tmp_path, b"a,b\n1,caf\xc3\xa9\n2,caf\xe9\n3,\x81\xfe\n4,ok\n")
    assert _short(rows) == [(2, ["1", "café"]), (3, ["2", "café"]), (4, "bad_encoding"), (5, ["4", "ok"])]


def test_an_encoding_that_is_named_is_used_for_every_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\n1,дом\n".encode("koi8-r"))
    assert _short(list(open_feed(path, encoding="koi8-r").rows)) == [(2, ["1", "дом"])]


def test_a_nul_byte_costs_its_row_only(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b\n1,x\x00y\n2,"x\n\x00"\n3,z\n')
    assert _short(rows) == [(2, "nul_byte"), (3, "nul_byte"), (5, ["3", "z"])]


def test_a_quote_that_is_never_closed_does_not_swallow_the_rows_after_it(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b\n1,"open\n2,two\n3,three\n')
    assert _short(rows) == [(2, "unbalanced_quote"), (3, ["2", "two"]), (4, ["3", "three"])]


def test_a_quote_left_open_before_a_quoted_row_costs_its_row_only(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b,c\n1,"open,x\n2,"two",y\n3,three,z\n')
    assert _short(rows) == [(2, "unbalanced_quote"), (3, ["2", "two", "y"]), (4, ["3", "three", "z"])]


def test_two_open_quotes_that_pair_up_do_not_swallow_the_rows_between(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b,c\n1,"open,x\n2,two,y\n3,three,"\n4,four,z\n')
    assert [row.line for row in rows] == [2, 3, 4, 5]
    assert _short(rows)[1] == (3, ["2", "two", "y"])
    assert _short(rows)[3] == (5, ["4", "four", "z"])


def test_the_search_for_a_closing_quote_is_bounded(tmp_path: Path) -> None:
    body = b"".join(b"%d,row\n" % i for i in range(1_000))
    rows = _read(tmp_path, b'a,b\n1,"open\n' + body, limits=SMALL)
    assert len(rows) == 1_001
    assert sum(isinstance(row, Row) for row in rows) == 1_000


def test_sloppy_quotes_inside_one_line_are_read_as_spreadsheets_do(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b\n1,5" screen\n2,"5" screen"\n3,"ab"c\n')
    assert _short(rows) == [(2, ["1", '5" screen']), (3, ["2", '5 screen"']), (4, ["3", "abc"])]


def test_a_cell_over_the_limit_is_one_bad_row(tmp_path: Path) -> None:
    data = b"a,b\n1," + b"x" * 1_001 + b'\n2,"' + b"x" * 1_001 + b'"\n3,' + b"x" * 1_000 + b"\n"
    rows = _read(tmp_path, data, limits=SMALL)
    assert [getattr(row, "code", "ok") for row in rows] == ["cell_too_large", "cell_too_large", "ok"]
    assert all(len(row.excerpt) <= 200 for row in rows if isinstance(row, BadRow))


def test_a_line_without_end_is_skipped_without_being_held(tmp_path: Path) -> None:
    data = b"a,b\n1,2\n" + b"x" * 5_000_000 + b"\n3,4\n" + b"y" * 1_000_000
    rows = _read(tmp_path, data, limits=SMALL)
    assert _short(rows) == [(2, ["1", "2"]), (3, "row_too_large"), (4, ["3", "4"]), (5, "row_too_large")]


@pytest.mark.parametrize("data", [b"", b"\n\n \n", b'"', b'a,"b\n1,2\n', b"a,\x81\n1,2\n", b"a\0b,c\n1,2\n"])
def test_a_feed_without_a_header_that_can_be_read_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FeedError):
        _read(tmp_path, data)


def test_a_header_alone_is_a_feed_without_rows(tmp_path: Path) -> None:
    assert _read(tmp_path, b"a,b\n") == []


def test_unnamed_and_repeated_columns_get_names_of_their_own() -> None:
    header = column_names(["", "a", "a", " b ", "a", "a (2)", ""])
    assert header.columns == ("column_1", "a", "a (3)", "b", "a (4)", "a (2)", "column_7")
    assert header.repeated == ("a",)


@pytest.mark.parametrize(
    ("line", "delimiter"), [("a;b;c", ";"), ("a\tb", "\t"), ("a|b", "|"), ("a", ","), ('"a;b;c",d', ",")]
)
def test_the_delimiter_is_found_outside_quotes(line: str, delimiter: str) -> None:
    assert find_delimiter(line) == delimiter


def test_a_file_without_header_is_read_with_given_names_and_without_quoting(tmp_path: Path) -> None:
    path = tmp_path / "rdc.tsv"
    path.write_bytes(b'"Big" phone 5"\t1>2\n"open\t3\n')
    rows = list(open_feed(path, header=("title", "path"), quoted=False).rows)
    assert _short(rows) == [(1, ['"Big" phone 5"', "1>2"]), (2, ['"open', "3"])]


def test_an_error_in_an_early_row_leaves_line_numbers_true_to_the_end(tmp_path: Path) -> None:
    rows = _read(tmp_path, b'a,b\n1,"x\n2,y\n3,"p\nq"\n4,z\n')
    assert [row.line for row in rows] == [2, 3, 4, 6]
