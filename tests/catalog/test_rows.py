"""Rows, bad rows and reason codes."""

from __future__ import annotations

from shelver.catalog.rows import EXCERPT_CHARS, MEANINGS, BadRow, Code, bad_row, excerpt


def test_every_reason_code_has_a_meaning_in_one_line() -> None:
    assert set(MEANINGS) == set(Code)
    assert all(meaning and "\n" not in meaning for meaning in MEANINGS.values())


def test_a_code_is_plain_text_that_json_can_hold() -> None:
    bad = bad_row(7, Code.bad_split, "what", field="split", raw="dev2", product_id="a")
    assert bad == BadRow(7, "split", "bad_split", "what", "dev2", "a")
    assert type(bad.code) is str


def test_an_excerpt_is_short_printable_and_valid_unicode() -> None:
    for raw in ("x" * 10_000, b"\xff\xfe" * 500, "a\x00b\ncd\ud800", ["a", None], "‮right to left", 3):
        text = excerpt(raw)
        assert len(text) <= EXCERPT_CHARS
        assert text.isprintable()
        text.encode("utf-8")
