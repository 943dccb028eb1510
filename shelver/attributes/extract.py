"""Values that a text states, by the vocabulary's own words: "Navy Blue Cotton Shirt" has a colour and a material.

What a specification says of an attribute counts before the title, the title before the description. In running
text a word counts only where it is safe: see `Extractor`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from shelver.attributes.fold import name_key, stems
from shelver.attributes.normalise import Normal, Normaliser, values_of
from shelver.attributes.specification import Pair, read_specification
from shelver.attributes.units import in_unit, measured, quantities, spell_fractions
from shelver.attributes.vocabulary import Attribute, Vocabulary
from shelver.attributes.words import COMMON, NAMES, NOT_BEFORE, NOT_BEHIND
from shelver.product import MAX_RAW_CHARS, Product, clean

_MAX_WORDS: Final = 8
"""A value of more words is found in cells only."""
_LINKS: Final = frozenset({"is", "in", "of", "est", "en"})


@dataclass(frozen=True, slots=True)
class _Meaning:
    """One value that a key may mean; `anywhere`: in a running text, without its attribute's name beside it."""

    attribute: str
    value: str
    anywhere: bool


Found = dict[str, dict[str, None]]


class Extractor:
    """Compiled from a vocabulary; keep it. Safe to share between threads.

    In running text the longest value at a place counts, as whole words, whatever the case and the number:

    - not where it is part of the product's brand, or denied ("without leather", "sugar free");
    - not a single letter, a bare number, a common word, an attribute's name, or a word that means a value only in
      a cell ("olive"), unless its attribute's name stands beside it ("size 8", "cotton fabric");
    - not where it is a value of several attributes that apply, unless one's name stands beside it or only one is
      the plain one (`color` beside `strap color`);
    - of an attribute that is not multi, not where the text names several.

    A number counts with its unit, where one attribute that applies measures that and the text has one such number,
    or where the attribute's name stands before it. Booleans are read in specifications only.

    Attributes:
        normaliser: that reads the cells of specifications.
    """

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser | None = None) -> None:
        self.normaliser = normaliser or Normaliser(vocabulary)
        self._by_name = vocabulary.by_name
        self._meanings: dict[str, tuple[_Meaning, ...]] = {}
        self._longest: dict[str, int] = {}
        self._called = {a.name: _calls(a) for a in vocabulary.attributes}
        self._plain = frozenset(a.name for a in vocabulary.attributes if name_key(a.name) in _PLAIN)
        self._sizes = {a.name: what for a in vocabulary.attributes if a.unit and (what := measured(a.unit))}
        self._fill(vocabulary)

    def extract(
        self, product: Product, applicable: Collection[str] | None = None, *, specification: str | None = None
    ) -> dict[str, tuple[str, ...]]:
        """The values that a product's texts state.

        Args:
            product: its title, description and brand are read.
            applicable: names of the attributes that apply to its node; None: all may.
            specification: a further text that holds its specification, as in a feed's column of that name.

        Returns:
            Values by the attribute's name: the vocabulary's names; out of a specification also values that it does
            not have, as seen, and of an attribute that is not multi one. What is not stated is not there.
        """
        description = product.description or ""
        pairs = read_specification(specification) if specification else []
        if description:
            pairs += read_specification(description)
        found = {
            name: normal.values
            for name, normal in self.specified(pairs, applicable).items()
            if normal.values and (self._by_name[name].multi or len(normal.values) == 1)
        }
        brand = stems(product.brand) if product.brand else []
        for text in (product.title, description):
            if text:
                for name, values in self._stated(
                    clean(spell_fractions(text[:MAX_RAW_CHARS])), brand, applicable
                ).items():
                    if self._by_name[name].multi or len(values) == 1:
                        found.setdefault(name, tuple(values))
        return found

    def specified(self, pairs: Iterable[Pair], applicable: Collection[str] | None = None) -> dict[str, Normal]:
        """The values that a specification states, by the attribute's name; `Normal.unknown` tells those to count.

        Keys that name no attribute that applies are passed over. Several keys of one attribute are joined where it
        is multi; else the first counts.
        """
        found: dict[str, Normal] = {}
        for said, raw in pairs:
            attribute = self.normaliser.find(said)
            if attribute is None or (applicable is not None and attribute.name not in applicable):
                continue
            normal = self.normaliser.normalise(attribute.name, raw)
            before = found.get(attribute.name)
            if before is not None and attribute.multi:
                normal = Normal(_joined(before.values, normal.values), _joined(before.unknown, normal.unknown))
            elif before is not None:
                continue
            if normal.values:
                found[attribute.name] = normal
        return found

    def _fill(self, vocabulary: Vocabulary) -> None:
        meanings: dict[str, list[_Meaning]] = defaultdict(list)
        # "Fabric" is a material, but mostly announces one.
        names = {" ".join(called) for listed in self._called.values() for called in listed}
        for attribute in vocabulary.attributes:
            if attribute.kind not in ("closed", "open"):
                continue
            for word, value, anywhere in values_of(attribute):
                words = word.split()
                if len(words) > _MAX_WORDS:
                    continue
                named = word in _PLAIN or word in names
                safe = anywhere and not (named or all(part in COMMON or _is_bare(part) for part in words))
                meanings[word].append(_Meaning(attribute.name, value, safe))
                self._longest[words[0]] = max(len(words), self._longest.get(words[0], 0))
        self._meanings = {word: tuple(listed) for word, listed in meanings.items()}

    def _stated(self, text: str, brand: list[str], applicable: Collection[str] | None) -> Found:
        words = stems(text)
        found: Found = {}
        own = _places(words, brand)
        at, n_words = 0, len(words)
        while at < n_words:
            size = min(self._longest.get(words[at], 0), n_words - at)
            while size:
                meanings = self._meanings.get(" ".join(words[at : at + size]) if size > 1 else words[at])
                if meanings is not None:
                    if at not in own and not _is_denied(words, at, at + size):
                        meant = self._meant(meanings, words, at, at + size, applicable)
                        if meant is not None:
                            found.setdefault(meant.attribute, {}).setdefault(meant.value)
                    break
                size -= 1
            at += size or 1
        if self._sizes:
            self._measure(text, applicable, found)
        return found

    def _meant(
        self,
        meanings: tuple[_Meaning, ...],
        words: list[str],
        start: int,
        end: int,
        applicable: Collection[str] | None,
    ) -> _Meaning | None:
        if applicable is not None:
            meanings = tuple(meaning for meaning in meanings if meaning.attribute in applicable)
        if len(meanings) == 1 and meanings[0].anywhere:
            return meanings[0]
        named = [(self._named_by(m.attribute, words, start, end), m) for m in meanings]
        longest = max((size for size, _ in named), default=0)
        if longest:
            # "Strap color brown" names `strap color`, and `color` too.
            best = [meaning for size, meaning in named if size == longest]
            return best[0] if len(best) == 1 else None
        plain = [m for m in meanings if m.attribute in self._plain]
        return plain[0] if len(plain) == 1 and plain[0].anywhere else None

    def _named_by(self, attribute: str, words: list[str], start: int, end: int) -> int:
        """How many words of the attribute's name stand right before or behind a value; 0 where it does not."""
        if start and words[start - 1] in _LINKS:
            start -= 1
        sizes = [
            len(called)
            for called in self._called[attribute]
            if (start >= len(called) and words[start - len(called) : start] == called)
            or words[end : end + len(called)] == called
        ]
        return max(sizes, default=0)

    def _measure(self, text: str, applicable: Collection[str] | None, found: Found) -> None:
        counted = quantities(text)
        for what in {what for _, _, what in counted}:
            names = [n for n, m in self._sizes.items() if m == what and (applicable is None or n in applicable)]
            sizes = {size for _, size, measure in counted if measure == what}
            if len(names) == 1 and len(sizes) == 1:
                self._count(names[0], sizes.pop(), found)
                continue
            for name in names:
                for start, size, measure in counted:
                    before = stems(text[max(0, start - 40) : start])
                    if measure == what and any(before[-len(called) :] == called for called in self._called[name]):
                        self._count(name, size, found)

    def _count(self, name: str, size: float, found: Found) -> None:
        found.setdefault(name, {}).setdefault(in_unit(size, self._by_name[name].unit or ""))


def _calls(attribute: Attribute) -> list[list[str]]:
    """What an attribute is called, as stems, the plain names that mean the same included."""
    called = dict.fromkeys(name_key(name) for name in (attribute.name, *attribute.synonyms))
    for names in NAMES:
        if not called.keys().isdisjoint(names):
            called |= dict.fromkeys(names)
    return [name.split() for name in called if name]


def _is_bare(word: str) -> bool:
    return len(word) < 3 or word[0].isdigit()


def _places(words: list[str], part: list[str]) -> set[int]:
    """Indices of the words where `part` stands."""
    if not part or part[0] not in words:
        return set()
    size = len(part)
    starts = (i for i in range(len(words) - size + 1) if words[i] == part[0] and words[i : i + size] == part)
    return {i + step for i in starts for step in range(size)}


def _is_denied(words: list[str], start: int, end: int) -> bool:
    return (start > 0 and words[start - 1] in NOT_BEFORE) or (end < len(words) and words[end] in NOT_BEHIND)


def _joined(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(left + right))


_PLAIN: Final = frozenset(name for names in NAMES for name in names)
