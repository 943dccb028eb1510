"""A product as every part of shelver sees it, and the one text normaliser.

Training, evaluation and prediction all read text through `text_of`, so a title means the same to each.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import ftfy
from ftfy.badness import is_bad
from ftfy.fixes import fix_c1_controls
from pydantic import BaseModel, ConfigDict, Field
from selectolax.lexbor import LexborHTMLParser

from shelver.errors import InputError

MAX_RAW_CHARS = 16_384
"""What `clean` looks at, in characters: a hostile text of 10 MB costs no more than one of 16 KB."""

SEPARATOR = " | "
"""Stands between the fields in `text_of`, so that a model can tell where the title ends."""

# A field goes through markup and mojibake repair until nothing changes; honest text needs one or two rounds.
_MAX_ROUNDS = 4

# The parser is only called where this matches. `<` alone is text ("size < 40"), so is `&` alone ("H&M").
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!|<\?|<(?:script|style)\b", re.IGNORECASE)
# Only with its semicolon: browsers also read `&copy` in "cut&copying", which sellers do not mean.
# `&amp;amp;lt;` was escaped several times; all of it is undone at once.
_ENTITY = re.compile(
    r"&(?:amp;|#38;|#0*38;|#x0*26;)*(#[0-9]{1,7};|#x[0-9a-f]{1,6};|[a-z][a-z0-9]{1,31};)", re.IGNORECASE
)
_BARE_AMPERSAND = re.compile(r"&(?!#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)")
# Every tag parts words except those that are used inside a word, as in H<sub>2</sub>O.
_PARTING_TAG = re.compile(
    r"<(?=/?[a-z])(?!/?(?:a|abbr|b|big|del|em|font|i|ins|mark|q|s|small|span|strike|strong|sub|sup|u|wbr)[\s/>])",
    re.IGNORECASE,
)
_UNREAD_ELEMENTS = "script, style, noscript, iframe, template"
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
_C1 = re.compile("[\x80-\x9f]")
# UTF-8 read as something else leaves two odd characters side by side, or these where white space followed.
# Honest French or German seldom does, and so is spared ftfy's slower test.
_MAYBE_DAMAGED = re.compile("[^\x00-\x7f]{2}|[\x80-\x9fÂÃ]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Curly and straight quotes are one word on two keyboards: L’Oréal, L'Oréal.
_QUOTES = (("\u2019", "'"), ("\u2018", "'"), ("\u201c", '"'), ("\u201d", '"'))
_CURLY = re.compile("[\u2018\u2019\u201c\u201d]")
# No script stacks more; without the limit, ordering a flood of marks takes quadratic time.
_MAX_MARKS = 30
_NON_WORD = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Product:
    """One product. Everything but `product_id` may be missing; absent is None or an empty tuple.

    Attributes:
        product_id: the seller's or shop's id, kept as text.
        title, description, brand: raw text, as the seller wrote it.
        images: encoded picture bytes (JPEG, PNG, WebP, ...), not decoded, not trusted.
        image_urls: addresses of pictures that were not downloaded; nothing in the classifier fetches them.
        node_id: id of the labelled category in the catalog's taxonomy; None where unlabelled.
        split: "train", "validation" or "test".
        source, language: free text slices for reports.
        value: business value of the product, for example its sales; None where unknown.
        also_node_ids: other categories that are just as right.
        attributes: labelled values by the attribute's name, in the words of the catalog's vocabulary; an attribute
            that is not there is not known.
    """

    product_id: str
    title: str | None = None
    description: str | None = None
    brand: str | None = None
    images: tuple[bytes, ...] = ()
    image_urls: tuple[str, ...] = ()
    node_id: str | None = None
    split: str | None = None
    source: str | None = None
    language: str | None = None
    value: float | None = None
    also_node_ids: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("product_id", "title", "description", "brand"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "product_id"):
                raise _wrong(name, value, "text" if name == "product_id" else "text, or None")
        if not isinstance(self.images, tuple) or not all(isinstance(data, bytes) for data in self.images):
            raise _wrong("images", self.images, "a tuple of the pictures' encoded bytes")


def _wrong(name: str, value: object, allowed: str) -> InputError:
    return InputError(
        f"Product.{name} = {value!r:.60}",
        allowed=allowed,
        remedy="Convert it first; a picture's bytes are `Path(file).read_bytes()`.",
    )


class TextSpec(BaseModel):
    """Which text a model reads; stands in the model's manifest.

    Attributes:
        fields: the fields in the order in which they are joined by `SEPARATOR`; empty ones are left out.
        max_chars: the joined text is cut here, in characters; the first fields matter most.
        version: of the normaliser `clean`; a model made with another version is refused by whoever loads it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[Literal["title", "brand", "description"], ...] = Field(
        default=("title", "brand", "description"), min_length=1
    )
    max_chars: int = Field(default=2_000, ge=1, le=MAX_RAW_CHARS)
    version: Literal[1] = 1


def text_of(product: Product, spec: TextSpec) -> str | None:
    """The text that a model reads for a product: the cleaned fields of `spec`, joined.

    Returns:
        At most `spec.max_chars` characters, or None when no field has any text left.
    """
    parts: list[str] = []
    length = 0
    for name in spec.fields:
        raw: str | None = getattr(product, name)
        if raw and length < spec.max_chars and (text := clean(raw)):
            parts.append(text)
            length += len(text) + len(SEPARATOR)
    return SEPARATOR.join(parts)[: spec.max_chars].rstrip() or None


def clean(raw: str) -> str:
    """Text as a person would read it: no markup, no damage, one form for each character.

    Tags go (`<br />` becomes a space; what is inside script and style goes too), entities are resolved,
    however often they were escaped, mojibake is repaired, Unicode is brought to NFKC with straight quotes,
    control and zero-width characters go, runs of white space become one space. Cleaning twice changes nothing
    more. Only the first `MAX_RAW_CHARS` characters are read.

    Returns:
        The clean text, stripped; "" where nothing is left. At most `MAX_RAW_CHARS` characters.
    """
    text = raw[:MAX_RAW_CHARS]
    if text.isascii() and "<" not in text and "&" not in text:
        text = " ".join(text.split())
        return text if text.isprintable() else _settle(text)
    # Every way out is a fixed point of the loop's body, which is what makes `clean` idempotent.
    for _ in range(_MAX_ROUNDS):
        before = text
        if _has_markup(text):
            text = _without_markup(text)
        if _is_damaged(text):
            text = _repaired(text)
        text = _settle(text)
        if text == before or not (_has_markup(text) or _is_damaged(text)):
            return text
    # Markup within markup within markup is no honest text: what could start another round is taken out.
    return _settle(text.encode("ascii", "ignore").decode().replace("<", " ").replace("&", " "))


def title_key(raw: str) -> str:
    """The key under which two titles are equal: clean, lower case, words joined by one space."""
    return _NON_WORD.sub(" ", clean(raw).lower()).strip()


def _has_markup(text: str) -> bool:
    return ("<" in text and _TAG.search(text) is not None) or ("&" in text and _ENTITY.search(text) is not None)


def _without_markup(text: str) -> str:
    """Resolves entities and removes tags, once."""
    if "<" not in text or _TAG.search(text) is None:
        return _ENTITY.sub(_resolve, text)
    # A regular expression for tags would keep what is inside <script>.
    text = _SURROGATE.sub("", _CDATA.sub(" ", text))
    text = _BARE_AMPERSAND.sub("&amp;", _PARTING_TAG.sub(" <", text))
    root = LexborHTMLParser(text).root
    if root is None:
        return ""
    for node in root.css(_UNREAD_ELEMENTS):
        node.decompose()
    return root.text()


def _resolve(match: re.Match[str]) -> str:
    return html.unescape("&" + match.group(1))


def _is_damaged(text: str) -> bool:
    return _MAYBE_DAMAGED.search(text) is not None and (_C1.search(text) is not None or bool(is_bad(text)))


def _repaired(text: str) -> str:
    """Undoes a wrong decoding: 'Ã©' is 'é', '\\x92' was an apostrophe in Windows-1252."""
    repaired: str = fix_c1_controls(ftfy.fix_encoding(text))
    return repaired


def _settle(text: str) -> str:
    """NFKC, straight quotes, only printable characters, single spaces, at most MAX_RAW_CHARS; idempotent."""
    if not text.isascii():
        if _CURLY.search(text):
            for curly, straight in _QUOTES:
                text = text.replace(curly, straight)
        text = _normal(text)
    text = " ".join(text.split())
    if not text.isprintable():
        # Controls, zero-width and bidirectional marks, surrogates, private and unassigned code points.
        # What they kept apart may now combine, so normalise again.
        text = " ".join(_normal("".join(filter(str.isprintable, text))).split())
    return text[:MAX_RAW_CHARS].rstrip()


def _normal(text: str) -> str:
    if unicodedata.is_normalized("NFKC", text):
        return text
    if len(text) > _MAX_MARKS:
        text = _limit_marks(text)
    return unicodedata.normalize("NFKC", text)


def _limit_marks(text: str) -> str:
    run = longest = 0
    for char in text:
        run = run + 1 if unicodedata.combining(char) else 0
        longest = max(longest, run)
    if longest <= _MAX_MARKS:
        return text
    kept: list[str] = []
    for char in text:
        run = run + 1 if unicodedata.combining(char) else 0
        if run <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)
