"""Finds nodes of a tree as somebody types, in every language that is loaded.

Names in other languages lie in the folder `names` of the service's data, a file a language: as Google and Shopify
publish them, joined to the tree by their ids. They are read when a tree is first searched.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from shelver.errors import TaxonomyError
from shelver.taxonomy import Taxonomy
from shelver.taxonomy.locale import localise

NAMES: Final = "names"
"""Folder of names in other languages, in the data folder."""
MAX_WORDS: Final = 12
"""Words of a query that are looked for."""
_LEAST_INSIDE, _LEAST_WRONG = 3, 4
"""Letters of a word that is looked for inside of others, or with one letter wrong."""
_N_LETTERS: Final = 40
_WORD: Final = re.compile(r"\w+")
_SHORT: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Writing whose words are a letter or two, and stand without spaces."""
_LAST: Final = "\U0010ffff"
_log = structlog.get_logger("shelver.service")


def words_of(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in apart if not unicodedata.combining(c)))


@dataclass(frozen=True, eq=False)
class _Postings:
    """Which nodes have a word: those of `words[w]` are `nodes[offsets[w]:offsets[w + 1]]`; words ascend, so those
    that share a beginning are one range."""

    words: tuple[str, ...]
    offsets: NDArray[np.int64]
    nodes: NDArray[np.int32]

    @classmethod
    def of(cls, found: Sequence[Iterable[str]]) -> _Postings:
        nodes_of: dict[str, list[int]] = {}
        for k, words in enumerate(found):
            for word in set(words):
                nodes_of.setdefault(word, []).append(k)
        words = tuple(sorted(nodes_of))
        offsets = np.zeros(len(words) + 1, np.int64)
        np.cumsum([len(nodes_of[word]) for word in words], out=offsets[1:])
        nodes = np.fromiter((k for word in words for k in nodes_of[word]), np.int32, int(offsets[-1]))
        return cls(words, offsets, nodes)

    def exactly(self, word: str) -> NDArray[np.int32]:
        at = bisect_left(self.words, word)
        if at == len(self.words) or self.words[at] != word:
            return self.nodes[:0]
        return self.nodes[self.offsets[at] : self.offsets[at + 1]]

    def beginning(self, word: str) -> NDArray[np.int32]:
        first, last = bisect_left(self.words, word), bisect_left(self.words, word + _LAST)
        return self.nodes[self.offsets[first] : self.offsets[last]]

    def near(self, word: str) -> set[str]:
        """The words that have this one inside; else those that begin with it but for one letter."""
        if len(word) >= _LEAST_INSIDE or _SHORT.search(word):
            at = bisect_left(self._ends, (word, -1))
            inside = set[str]()
            while at < len(self._ends) and self._ends[at][0].startswith(word):
                inside.add(self.words[self._ends[at][1]])
                at += 1
            if inside:
                return inside
        if len(word) < _LEAST_WRONG:
            return set()
        found = set[str]()
        for other in set(self._edits(word)):
            first, last = bisect_left(self.words, other), bisect_left(self.words, other + _LAST)
            found.update(self.words[first:last])
        return found

    @cached_property
    def _ends(self) -> list[tuple[str, int]]:
        """The ends of all words, sorted, and which word each is of."""
        return sorted((word[i:], w) for w, word in enumerate(self.words) for i in range(1, len(word)))

    @cached_property
    def _letters(self) -> str:
        return "".join(letter for letter, _ in Counter("".join(self.words)).most_common(_N_LETTERS))

    def _edits(self, word: str) -> Iterator[str]:
        """The word with one letter too many, too few, another one, or two in the wrong order."""
        for i in range(len(word)):
            before, after = word[:i], word[i + 1 :]
            yield before + after
            if after:
                yield before + after[0] + word[i] + after[1:]
            for letter in self._letters:
                yield before + letter + after
                yield before + letter + word[i:]


class Search:
    """Finds nodes of a tree by words of their names and paths; made once a tree, read by any thread.

    Args:
        tree: its own names.
        others: the same tree with names in other languages.
    """

    def __init__(self, tree: Taxonomy, others: Sequence[Taxonomy] = ()) -> None:
        self._trees = (tree, *others)
        own = [[word for one in self._trees for word in words_of(one.names[k])] for k in range(tree.n_nodes)]
        along: list[set[str]] = []
        for words, parent in zip(own, tree.parent.tolist(), strict=True):
            along.append({*words, *(along[parent] if parent >= 0 else ())})
        self._names = _Postings.of(own)
        self._paths = _Postings.of(along)
        # Between equals the shorter name, then the shallower node, then the order of the tree.
        lengths = np.array([len(words) for words in own])
        self._rank = np.empty(tree.n_nodes, np.int64)
        self._rank[np.lexsort((tree.level, lengths))] = np.arange(tree.n_nodes)

    def __call__(self, query: str, n: int) -> list[int]:
        """The nodes whose path has a word that begins with each word of the query, the best first, at most n.

        A whole word in the node's own name counts most, then its beginning, then a word above it. A word that
        begins none is looked for inside of others, and then with one letter wrong.
        """
        words = words_of(query)[:MAX_WORDS]
        total = np.zeros(len(self._rank), np.int64)
        there = np.full(len(self._rank), bool(words))
        for word in words:
            points = np.zeros(len(self._rank), np.int64)
            points[self._paths.beginning(word)] = 1
            points[self._names.beginning(word)] = 3
            points[self._names.exactly(word)] = 4
            if not points.any():
                near = self._paths.near(word)
                for other in near:
                    points[self._paths.exactly(other)] = 1
                for other in near:
                    points[self._names.exactly(other)] = 2
            there &= points > 0
            total += points
        (found,) = np.nonzero(there)
        best = found[np.lexsort((self._rank[found], -total[found]))[:n]]
        return [int(k) for k in best]

    def also(self, k: int, query: str) -> list[str] | None:
        """The path of a node in the language that a query was written in; None where that is the tree's own."""
        asked = words_of(query)[:MAX_WORDS]
        counts = []
        for one in self._trees:
            known = [word for name in one.path_names(k) for word in words_of(name)]
            counts.append(sum(any(word.startswith(a) for word in known) for a in asked))
        best = int(np.argmax(counts))
        return list(self._trees[best].path_names(k)) if best else None


_searches: dict[tuple[str, Path | None], Search] = {}
_making = threading.Lock()
_N_SEARCHES: Final = 2


def search_of(tree: Taxonomy, names: Path | None = None) -> Search:
    """The search of a tree; the current one and the one before it are kept, also where another model has the same.

    Args:
        tree: which one.
        names: folder of its names in other languages; a file that does not fit is left out, and the log says why.
    """
    found = _searches.get((tree.version, names))
    if found is not None:
        return found
    with _making:  # who comes while it is made waits for it
        found = _searches.get((tree.version, names))
        if found is None:
            found = Search(tree, _in_other_languages(tree, names))
            _searches[tree.version, names] = found
            for old in [*_searches][:-_N_SEARCHES]:
                _searches.pop(old, None)
    return found


def warm(tree: Taxonomy, names: Path | None = None) -> threading.Thread:
    """Make the search of a tree in a thread of its own, so that nobody waits; a large tree takes a second."""
    # A word that no name has looks at all that a search is made of.
    thread = threading.Thread(
        target=lambda: search_of(tree, names)("q" * 9, 1), name="shelver-search", daemon=True
    )
    thread.start()
    return thread


def _in_other_languages(tree: Taxonomy, names: Path | None) -> list[Taxonomy]:
    others = []
    for path in sorted(names.glob("*.txt")) if names is not None else ():
        try:
            others.append(localise(tree, path))
        except (TaxonomyError, OSError, UnicodeError) as error:
            _log.warning("names of a language left out", file=path.name, error=str(error))
    return others
