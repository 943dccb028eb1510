"""Words brought to one form for comparing: case, accents, punctuation, British and American spelling, the plural.

The forms are keys, never shown: "dresses" becomes "dress", and so would "dresss".
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

# Numbers keep what joins their digits: 12.5, 3/4, 16:9. Signs that tell values apart are words: C#, A+, 50 %.
_WORD = re.compile(r"\d+(?:[.,/:]\d+)+|[^\W_]+|[#+%°<>≤≥±]")
_POSSESSIVE = re.compile(r"['’`´]s\b|(?<=s)['’](?=\s|$)")
_HUMP = re.compile(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])")
_LETTERS = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i"})
_SPELLINGS: Final = {
    "colour": "color",
    "coloured": "colored",
    "multicolour": "multicolor",
    "multicoloured": "multicolored",
    "grey": "gray",
    "fibre": "fiber",
    "fibreglass": "fiberglass",
    "aluminium": "aluminum",
    "centre": "center",
    "metre": "meter",
    "litre": "liter",
    "jewellery": "jewelry",
    "moulded": "molded",
    "pyjama": "pajama",
    "tyre": "tire",
    "plough": "plow",
    "mold": "mould",
    "cosy": "cozy",
}


def folded_words(text: str) -> list[str]:
    """The words of a text in lower case, without accents and punctuation."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in text if not unicodedata.combining(char)).replace("\u2044", "/")
        text = text.casefold().translate(_LETTERS)
    else:
        text = text.lower()
    if "'" in text or "’" in text or "`" in text or "´" in text:
        text = _POSSESSIVE.sub("", text)
    return _WORD.findall(text)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A folded word without the s of the plural, in American spelling."""
    if len(word) > 3 and word[-1] == "s" and word[-2] not in "sui0123456789":
        if word.endswith(("sses", "ches", "shes", "xes", "zzes")):
            word = word[:-2]
        elif word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        else:
            word = word[:-1]
    return _SPELLINGS.get(word, word)


def stems(text: str) -> list[str]:
    """The stems of a text's words, in order."""
    return [stem(word) for word in folded_words(text)]


def exact_key(text: str) -> str:
    """The folded words, joined; keeps the plural."""
    return " ".join(folded_words(text))


def key(text: str) -> str:
    """The stems, joined: the key under which two writings are one value."""
    return " ".join(stems(text))


def name_key(name: str) -> str:
    """The key of an attribute's name: "baseColour" and "Base color" are one."""
    return key(_HUMP.sub(" ", name))
