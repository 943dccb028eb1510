"""A vocabulary out of what a catalog's own columns hold, for who has none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from shelver.attributes.fold import key
from shelver.attributes.vocabulary import Attribute, Value, Vocabulary


def observe(
    pairs: Mapping[str, Counter[str]],
    nodes: Mapping[str, tuple[str, ...]] | None = None,
    *,
    multi: Collection[str] = (),
    max_values: int = 10_000,
) -> Vocabulary:
    """The open attributes that were seen.

    Spellings that differ in case, accents, punctuation or the plural only are one value; it bears the commonest
    one, and the others are its synonyms.

    Args:
        pairs: how often each value of each attribute was seen, as the sellers wrote it.
        nodes: ids of the nodes that an attribute applies to; one that is not there applies everywhere.
        multi: names of the attributes that may have several values.
        max_values: of one attribute, the commonest; others are not listed (a product keeps its own all the same).

    Returns:
        Attributes in the order of `pairs`, values by count, then name.
    """
    return Vocabulary(
        attributes=tuple(
            Attribute(
                name=name,
                kind="open",
                multi=name in multi,
                values=_values(counts, max_values),
                nodes=(nodes or {}).get(name, ()),
            )
            for name, counts in pairs.items()
        )
    )


def _values(counts: Counter[str], max_values: int) -> tuple[Value, ...]:
    spellings: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for text, count in counts.items():
        if count > 0 and text.strip():
            # What folds to nothing, such as "++", is compared as it stands.
            spellings[key(text) or text].append((-count, text))
    ranked = sorted(
        (sum(count for count, _ in forms), [text for _, text in sorted(forms)]) for forms in spellings.values()
    )
    return tuple(Value(name=forms[0], synonyms=tuple(forms[1:])) for _, forms in ranked[:max_values])
