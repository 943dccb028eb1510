"""A seller's words to the vocabulary's: "Bordeaux" under "Couleur" is Red under "color"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from shelver.attributes.fold import exact_key, key, name_key
from shelver.attributes.units import read_number, spell_fractions
from shelver.attributes.vocabulary import Attribute, Value, Vocabulary
from shelver.attributes.words import GROUPS, NAMES, Concept, Group
from shelver.errors import InputError
from shelver.product import clean

MAX_VALUE_CHARS: Final = 200
"""A value that is kept as seen is cut here."""
MAX_VALUES: Final = 50
"""A cell that lists more keeps the first."""
MAX_REMEMBERED: Final = 200_000

_MISSING = frozenset({"", "-", "--", "n/a", "na", "n.a.", "null", "nan", "?", "."})
_STRONG = re.compile(r"[;|]|,(?!\d)|(?<!\d),")
_WEAK = re.compile(r"/|\+|&|\s(?:and|et|with|avec)\s", re.IGNORECASE)
_ASIDE = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_BOOLEANS: Final = {
    word: answer
    for answer, words in (
        ("yes", "yes y true oui vrai 1 ja si avec with included available"),
        ("no", "no n false non faux 0 nein sans without none"),
    )
    for word in words.split()
} | {"not included": "no", "not available": "no"}


@dataclass(frozen=True, slots=True)
class Normal:
    """What a cell says, in the vocabulary's words.

    Attributes:
        values: all of them in order, once each: the vocabulary's names, or as seen where it has none.
        unknown: those of `values` that the vocabulary does not have, for counting.
    """

    values: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


_NOTHING: Final = Normal()


class Normaliser:
    """Compiled from a vocabulary; keep it, it remembers cells. Safe to share between threads.

    Attributes:
        vocabulary: that it was made from.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._names = _names(vocabulary)
        self._found: dict[str, Attribute | None] = {}
        self._tables: dict[str, _Table] = {}
        self._seen: dict[tuple[str, str], Normal] = {}

    def find(self, name: str) -> Attribute | None:
        """The attribute that a column or a specification's key names: "Colour" and "Couleur" are "color"."""
        exact = self.vocabulary.by_name.get(name)
        if exact is not None or len(name) > MAX_VALUE_CHARS:
            return exact
        if name not in self._found:
            _make_room(self._found)
            self._found[name] = self._names.get(name_key(name))
        return self._found[name]

    def normalise(self, name: str, raw: str) -> Normal:
        """The values of a cell.

        An attribute that is not `multi` has one value: a cell that lists several is kept whole, as seen. Of a
        number, the plain number in the attribute's unit; of a boolean, "yes" or "no". What says that there is none
        ("", "n/a", "null") is nothing. Normalising what was answered changes nothing more.

        Args:
            name: of an attribute of the vocabulary, see `find`.
            raw: as the seller wrote it.

        Raises:
            InputError: the vocabulary has no such attribute.
        """
        if len(raw) > MAX_VALUE_CHARS:
            return self._normalise(self._attribute(name), raw)
        seen = self._seen.get((name, raw))
        if seen is None:
            _make_room(self._seen)
            self._seen[name, raw] = seen = self._normalise(self._attribute(name), raw)
        return seen

    def _attribute(self, name: str) -> Attribute:
        attribute = self.vocabulary.by_name.get(name)
        if attribute is None:
            raise InputError(
                f"the attribute {name!r:.80}",
                allowed="a name in the vocabulary",
                remedy="Ask `find` first, which also knows other names.",
            )
        return attribute

    def _normalise(self, attribute: Attribute, raw: str) -> Normal:
        # `clean` would make the lines of a list one.
        text = clean(spell_fractions(raw.replace("\n", "; ") if attribute.multi else raw))
        text = text[: MAX_VALUE_CHARS * MAX_VALUES if attribute.multi else MAX_VALUE_CHARS].rstrip()
        if attribute.kind == "boolean":
            answer = _BOOLEANS.get(exact_key(text))
            return Normal((answer,)) if answer else _as_seen(text)
        if attribute.kind == "number":
            return _numbers(attribute, text)
        table = self._tables.get(attribute.name)
        if table is None:
            table = self._tables[attribute.name] = _Table(attribute)
        whole = table.find(text)
        if whole is not None:
            return Normal((whole,))
        if not attribute.multi:
            named = {table.find(atom) for part in _split(text, _STRONG) for atom in _split(part, _WEAK)}
            found = named.pop() if len(named) == 1 else None
            return Normal((found,)) if found is not None else _as_seen(text)
        return _several(table, text)


def values_of(attribute: Attribute) -> Iterator[tuple[str, str, bool]]:
    """Every key that means a value of an attribute: the key (`fold.key`), the value, whether it does in any text.

    A key that could mean two values means neither.
    """
    for word, (value, anywhere) in _Table(attribute).keys.items():
        if value is not None:
            yield word, value, anywhere


def group_of(attribute: Attribute) -> Group | None:
    """The kind of attribute for which we have words of our own, by its name, or else by its values."""
    for text in (attribute.name, *attribute.synonyms):
        words = name_key(text).split()
        for group in GROUPS:
            if words and (words[-1] in group.heads or words[0] in group.heads):
                return group
    names = {key(value.name) for value in attribute.values}
    for group in GROUPS:
        known = sum(1 for name in names if name in group.known)
        if known >= 3 and known >= 0.6 * len(names):
            return group
    return None


class _Table:
    """What a cell of one attribute may say, most certain first: the name itself, its words, its stems."""

    def __init__(self, attribute: Attribute) -> None:
        self.group = group_of(attribute)
        self._exact: dict[str, str] = {}
        self._words: dict[str, str | None] = {}
        self.keys: dict[str, tuple[str | None, bool]] = {}
        for value in attribute.values:
            self._exact.setdefault(clean(value.name), value.name)
        for forms in (
            [(value.name, value.name) for value in attribute.values],
            [(form, value.name) for value in attribute.values for form in value.synonyms],
            [(form, value.name) for value in attribute.values for form in _asides(value)],
        ):
            _add(self._words, ((exact_key(form), name) for form, name in forms))
            plain: dict[str, str | None] = {}
            _add(plain, ((key(form), name) for form, name in forms))
            for word, found in plain.items():
                self.keys.setdefault(word, (found, True))
        if self.group is not None:
            for concept in self.group.concepts.values():
                target = _target(concept, self.group, self.keys)
                for word in concept.words:
                    anywhere = word not in concept.cell_only
                    held = self.keys.setdefault(word, (target, anywhere))
                    if held[1] and not anywhere:
                        self.keys[word] = (held[0], False)

    def find(self, text: str) -> str | None:
        """The value that a whole text names; None where it names none, or two."""
        found = self._exact.get(text)
        if found is None and (words := exact_key(text)):
            found = self._words.get(words) or self._by_stems(key(text))
            if found is None and (aside := _ASIDE.search(text)):
                found = self._by_stems(key(_ASIDE.sub(" ", text))) or self._by_stems(key(aside[1]))
        return found

    def _by_stems(self, words: str) -> str | None:
        found = self.keys.get(words, (None, False))[0]
        if found is None and self.group is not None and self.group.modifiers:
            listed = words.split()
            # 100 % cotton
            kept = [w for w in listed if w not in self.group.modifiers and not ("%" in listed and w[0].isdigit())]
            found = self.keys.get(" ".join(kept), (None, False))[0]
        return found


def _target(concept: Concept, group: Group, keys: dict[str, tuple[str | None, bool]]) -> str | None:
    """The value that a concept means: its own, else that of the next wider concept that has one."""
    passed: set[str] = set()
    at: Concept | None = concept
    while at is not None and at.name not in passed:
        passed.add(at.name)
        for word in at.words:
            held = keys.get(word, (None, False))[0]
            if held is not None:
                return held
        at = group.concepts.get(at.wider) if at.wider else None
    return None


def _asides(value: Value) -> Iterator[str]:
    """What stands before and within brackets: "Extra large (XL)" is also called both."""
    for form in (value.name, *value.synonyms):
        if aside := _ASIDE.search(form):
            yield _ASIDE.sub(" ", form)
            yield aside[1]


def _add(table: dict[str, str | None], forms: Iterable[tuple[str, str]]) -> None:
    """Adds keys that are not there; one that two values claim at once is nobody's."""
    claimed: dict[str, str | None] = {}
    for word, name in forms:
        if word:
            claimed[word] = name if claimed.get(word, name) == name else None
    for word, owner in claimed.items():
        table.setdefault(word, owner)


def _several(table: _Table, text: str) -> Normal:
    """The values of a list. What none of its parts is known of stays whole: "Machine wash & dry"."""
    values: dict[str, bool] = {}
    for part in _split(text, _STRONG):
        if (whole := table.find(part)) is not None:
            values.setdefault(whole, True)
            continue
        atoms = [(atom, table.find(atom)) for atom in _split(part, _WEAK)]
        if all(found is None for _, found in atoms):
            atoms = [(part, None)]
        for atom, found in atoms:
            if found is not None:
                values.setdefault(found, True)
            elif not _is_missing(atom):
                values.setdefault(atom[:MAX_VALUE_CHARS].rstrip(), False)
    listed = list(values.items())[:MAX_VALUES]
    return Normal(tuple(value for value, _ in listed), tuple(value for value, known in listed if not known))


def _numbers(attribute: Attribute, text: str) -> Normal:
    number = read_number(text, attribute.unit)
    if number is not None or not attribute.multi:
        return Normal((number,)) if number is not None else _as_seen(text)
    values: dict[str, bool] = {}
    for part in _split(text, _STRONG):
        read = read_number(part, attribute.unit)
        if read is not None or not _is_missing(part):
            values.setdefault(read or part[:MAX_VALUE_CHARS].rstrip(), read is not None)
    listed = list(values.items())[:MAX_VALUES]
    return Normal(tuple(value for value, _ in listed), tuple(value for value, known in listed if not known))


def _split(text: str, mark: re.Pattern[str]) -> list[str]:
    return [part for piece in mark.split(text) if (part := piece.strip())]


def _as_seen(text: str) -> Normal:
    return _NOTHING if _is_missing(text) else Normal((text,), (text,))


def _is_missing(text: str) -> bool:
    return text.lower() in _MISSING


def _names(vocabulary: Vocabulary) -> dict[str, Attribute | None]:
    """Attributes by the keys of their names, their synonyms, and other names that mean the same."""
    found: dict[str, str | None] = {}
    attributes = vocabulary.attributes
    _add(found, ((name_key(attribute.name), attribute.name) for attribute in attributes))
    _add(found, ((name_key(other), attribute.name) for attribute in attributes for other in attribute.synonyms))
    for names in NAMES:
        known = next((found[name] for name in names if found.get(name)), None)
        if known is not None:
            # Also where several bear the name: in French, five of Shopify's are called "Taille".
            found |= {name: known for name in names if found.get(name) is None}
    return {word: vocabulary.by_name[name] if name else None for word, name in found.items()}


def _make_room(remembered: dict[str, Attribute | None] | dict[tuple[str, str], Normal]) -> None:
    # A feed may hold millions of different cells; forgetting all at once is cheap and seldom.
    if len(remembered) >= MAX_REMEMBERED:
        remembered.clear()
