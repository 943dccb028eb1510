"""The tree of the model that answers: facts, nodes, search."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray

from shelver.service.accounts.identity import allowed
from shelver.service.models.champion import Loaded
from shelver.service.models.payloads import (
    FoundNodes,
    NodeAttribute,
    NodeDetail,
    NodeSearch,
    TaxonomyOut,
    TreeNode,
)
from shelver.service.problems import not_found, responses
from shelver.service.state import ServiceDep
from shelver.taxonomy import Taxonomy

MAX_WORDS: Final = 12
"""Words of a query that are looked for."""
_WORD: Final = re.compile(r"\w+")
_LAST: Final = "\U0010ffff"

router = APIRouter(prefix="/v1/taxonomy", tags=["taxonomy"])
READERS: Final = [allowed("seller", "reviewer", "admin", "service")]


def words_of(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in apart if not unicodedata.combining(c)))


@dataclass(frozen=True, eq=False, slots=True)
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


class Search:
    """Finds nodes of a tree by words of their names and paths; made once a tree, read by any thread."""

    def __init__(self, tree: Taxonomy) -> None:
        own = [words_of(name) for name in tree.names]
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

        A whole word in the node's own name counts most, then its beginning, then a word above it.
        """
        words = words_of(query)[:MAX_WORDS]
        total = np.zeros(len(self._rank), np.int64)
        there = np.full(len(self._rank), bool(words))
        for word in words:
            points = np.zeros(len(self._rank), np.int64)
            points[self._paths.beginning(word)] = 1
            points[self._names.beginning(word)] = 3
            points[self._names.exactly(word)] = 4
            there &= points > 0
            total += points
        (found,) = np.nonzero(there)
        best = found[np.lexsort((self._rank[found], -total[found]))[:n]]
        return [int(k) for k in best]


@lru_cache(maxsize=2)
def search_of(tree: Taxonomy) -> Search:
    """The search of a tree; the current one and the one before it are kept."""
    return Search(tree)


@router.get("", dependencies=READERS, summary="Read facts of the tree")
def read_taxonomy(service: ServiceDep) -> TaxonomyOut:
    """Size and first level of the tree of the model that answers."""
    loaded = service.models.current()
    tree, attributes = loaded.taxonomy, loaded.classifier.prob2pred.attributes
    return TaxonomyOut(
        taxonomy_version=loaded.taxonomy_version,
        model_version=loaded.model_version,
        n_nodes=tree.n_nodes,
        n_leaves=tree.n_leaves,
        n_levels=tree.n_levels,
        nodes_by_level=np.bincount(tree.level)[1:].tolist(),
        attributes=list(attributes.names) if attributes is not None else [],
        roots=[_node(tree, k) for k in np.flatnonzero(tree.level == 1).tolist()],
    )


@router.get("/search", dependencies=READERS, summary="Search the tree")
def search_nodes(asked: Annotated[NodeSearch, Query()], service: ServiceDep) -> FoundNodes:
    """Nodes by words of their names and paths; case and accents do not matter."""
    loaded = service.models.current()
    tree = loaded.taxonomy
    return FoundNodes(
        taxonomy_version=loaded.taxonomy_version,
        nodes=[_node(tree, k) for k in search_of(tree)(asked.q, asked.n)],
    )


@router.get("/nodes/{node_id:path}", dependencies=READERS, summary="Read a node", responses=responses("not_found"))
def read_node(node_id: str, service: ServiceDep) -> NodeDetail:
    """A node by its id: its path, its children, the attributes that apply to it."""
    loaded = service.models.current()
    tree = loaded.taxonomy
    k = tree.find(node_id)
    if k is None:
        raise not_found(
            f"node {node_id[:80]!r} in taxonomy {tree.version}",
            allowed="a node of the tree of the model that answers",
            remedy="Find its id with /v1/taxonomy/search.",
        )
    return NodeDetail(
        **_node(tree, k).model_dump(),
        holds_products=bool(tree.is_leaf[k]) or int(loaded.classifier.prob2pred.groups.here_slot[k]) >= 0,
        parents=[_node(tree, above) for above in tree.ancestors(k).tolist()],
        children=[_node(tree, child) for child in tree.children(k).tolist()],
        attributes=_attributes(loaded, k),
    )


def _node(tree: Taxonomy, k: int) -> TreeNode:
    return TreeNode(
        node_id=tree.ids[k],
        name=tree.names[k],
        path=list(tree.path_names(k)),
        level=int(tree.level[k]),
        is_leaf=bool(tree.is_leaf[k]),
    )


def _attributes(loaded: Loaded, k: int) -> list[NodeAttribute]:
    known = loaded.classifier.prob2pred.attributes
    if known is None:
        return []
    return [
        NodeAttribute(name=known.names[a], multi=known.multi[a], values=list(known.values[a]))
        for a in np.flatnonzero(known.applies[k]).tolist()
    ]
