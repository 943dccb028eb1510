"""What pages say: every text has its French, and numbers and times follow the language."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from babel.messages.catalog import Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

from shelver.service.pages.locales import LOCALES, words_in
from shelver.service.pages.render import TEMPLATES
from shelver.service.problems import CODES

PAGES = TEMPLATES.parent / "pages"
KEYWORDS = {"_": None, "mark": None, "several": (1, 2), "words.several": (1, 2)}


def said() -> dict[str, str]:
    """Every English text, and where it stands."""
    found: dict[str, str] = {code.title: "problems.py" for code in CODES.values()}
    for method, paths in (
        ("python", sorted(PAGES.glob("*.py"))),
        ("jinja2.ext:babel_extract", sorted(TEMPLATES.glob("*.html"))),
    ):
        for path in paths:
            for line, text, _, _ in extract_from_file(method, path, keywords=KEYWORDS):
                for one in (text,) if isinstance(text, str) else text or ():
                    found.setdefault(one, f"{path.name}:{line}")
    return found


def translated() -> list[tuple[str, Message]]:
    return [
        (path.name, message)
        for path in sorted((LOCALES / "fr").glob("*.po"))
        for message in read_po(path.open("rb"), locale="fr")
        if message.id
    ]


def ids_of(message: Message) -> tuple[str, ...]:
    return (message.id,) if isinstance(message.id, str) else tuple(message.id)


def strings_of(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string or ())


def test_every_text_of_a_page_has_its_french() -> None:
    known = {one for _, message in translated() if all(strings_of(message)) for one in ids_of(message)}
    missing = {text: where for text, where in said().items() if text not in known}
    assert not missing, "\n".join(f"{where}: {text!r}" for text, where in missing.items())


def test_no_french_is_left_without_a_page_that_says_it() -> None:
    texts = said()
    left = [f"{name}: {one!r}" for name, message in translated() for one in ids_of(message) if one not in texts]
    assert not left, "\n".join(left)


def test_each_text_is_translated_once_and_keeps_its_placeholders() -> None:
    counted = Counter(ids_of(message)[0] for _, message in translated())
    assert [text for text, n in counted.items() if n > 1] == []
    for name, message in translated():
        wanted = {part.split(")")[0] for one in ids_of(message) for part in one.split("%(")[1:]}
        for string in strings_of(message):
            given = {part.split(")")[0] for part in string.split("%(")[1:]}
            assert given == wanted or (len(ids_of(message)) > 1 and given <= wanted), (name, message.id)


@pytest.mark.parametrize(
    ("language", "number", "share"), [("en", "12,345.6", "97.5%"), ("fr", "12\u202f345,6", "97,5\xa0%")]
)
def test_numbers_follow_the_language(language: str, number: str, share: str) -> None:
    words = words_in(language)
    assert words.number(12345.61, 1) == number
    assert words.percent(0.97504, 1) == share
    assert words.percent(1.0) == ("100%" if language == "en" else "100\xa0%")
    when = words.when(datetime(2026, 11, 22, 3, 4, tzinfo=UTC))
    assert 'datetime="2026-11-22T03:04:00+00:00"' in when
