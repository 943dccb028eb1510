"""The words of a product's raw texts, each with its places, and the product without some of them.

Places are characters of the text as the seller wrote it, so that a page can mark them there: markup is stepped
over, an entity such as `&eacute;` is a letter of its word.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from shelver.product import MAX_RAW_CHARS, Product

Field = Literal["title", "brand", "description"]

_NO_TEXT: Final = re.compile(
    # What an unended comment or script hides is all the rest, so that each character is looked at once.
    r"<!--.*?(?:-->|\Z)|<(script|style|noscript|iframe|template)\b.*?(?:</\1\s*>|\Z)|</?[a-z][^<>]*>|<[!?][^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY: Final = re.compile(
    r"&(?:amp;|#0*38;|#x0*26;)*(#[0-9]{1,7};|#x[0-9a-f]{1,6};|[a-z][a-z0-9]{1,31};)", re.IGNORECASE
)
_JOINERS: Final = frozenset("'’-.&_\u00ad\u200b\u200c\u200d")
"""Between two letters they are inside a word: L’Oréal, T-shirt, 1.5, H&M."""
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
)
"""Letters of scripts that write no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_AT_A_TIME: Final = 2
"""So many letters of such a script are taken for a word."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a word stands: `start` to `end`, in characters of the raw field."""

    field: Field
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word, written alike but for the case, at all its places; `text` is how it is written first."""

    text: str
    places: tuple[Place, ...]


def words_of(product: Product, fields: Sequence[Field], most: int) -> tuple[list[Word], bool]:
    """The first different words of a product's texts, in the order of `fields`.

    Returns:
        At most `most` words, each with its places among all that was read, and whether there were more.
    """
    found: dict[str, list[tuple[str, Place]]] = {}
    more = False
    for field in fields:
        raw: str | None = getattr(product, field)
        for text, start, end in _tokens((raw or "")[:MAX_RAW_CHARS]):
            key = unicodedata.normalize("NFKC", text).casefold()
            if key in found or len(found) < most:
                found.setdefault(key, []).append((text, Place(field, start, end)))
            else:
                more = True
    return [Word(at[0][0], tuple(place for _, place in at)) for at in found.values()], more


def without(product: Product, words: Iterable[Word], put: Callable[[Word], str] = lambda _: "") -> Product:
    """The product without these words, wherever they stand.

    Args:
        put: what stands there instead.
    """
    cuts: dict[Field, list[tuple[Place, str]]] = {}
    for word in words:
        for place in word.places:
            cuts.setdefault(place.field, []).append((place, put(word)))
    texts = {"title": product.title, "brand": product.brand, "description": product.description}
    for field, places in cuts.items():
        raw = texts[field] or ""
        parts, at = [], 0
        for place, instead in sorted(places):
            parts += [raw[at : place.start], instead]
            at = place.end
        texts[field] = "".join([*parts, raw[at:]])
    return replace(product, title=texts["title"], brand=texts["brand"], description=texts["description"])


def _tokens(raw: str) -> Iterator[tuple[str, int, int]]:
    """Words as a person reads them, with their start and end in the raw text."""
    word: list[str] = []
    start = end = n_unspaced = 0
    joiner = ""
    for char, begins, ends in _characters(raw):
        if _is_letter(char):
            unspaced = _UNSPACED.match(char) is not None
            full = unspaced and n_unspaced >= _AT_A_TIME and not unicodedata.category(char).startswith("M")
            if word and (full or unspaced != bool(n_unspaced)):
                yield "".join(word), start, end
                word, n_unspaced, joiner = [], 0, ""
            if not word:
                start, joiner = begins, ""
            word += [joiner, char]
            end, joiner = ends, ""
            if unspaced and not unicodedata.category(char).startswith("M"):
                n_unspaced += 1
        elif word and char in _JOINERS and not joiner:
            joiner = char
        elif word:
            yield "".join(word), start, end
            word, n_unspaced, joiner = [], 0, ""
    if word:
        yield "".join(word), start, end


def _characters(raw: str) -> Iterator[tuple[str, int, int]]:
    """What is read of a raw text: entities as their character, markup as a space."""
    at = 0
    while at < len(raw):
        char = raw[at]
        if char == "<" and (found := _NO_TEXT.match(raw, at)):
            yield " ", at, found.end()
            at = found.end()
        elif char == "&" and (found := _ENTITY.match(raw, at)):
            read = html.unescape("&" + found[1])
            yield read if len(read) == 1 else " ", at, found.end()
            at = found.end()
        else:
            yield char, at, at + 1
            at += 1


def _is_letter(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] in "LNM"
