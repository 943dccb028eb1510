"""All functions of the tree against networkx, on random ragged trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shelver.taxonomy import ROOT, Taxonomy

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]

SOURCE_ROOT = "root"


@st.composite
def trees(draw: st.DrawFn) -> tuple[Taxonomy, Graph]:
    """A random tree, listed in random order, and the same tree in networkx with ids for nodes."""
    n = draw(st.integers(1, 40))
    parents = [draw(st.integers(-1, i - 1)) for i in range(n)]
    order = draw(st.permutations(range(n)))
    place = {old: new for new, old in enumerate(order)}
    listed = [None if parents[old] < 0 else place[parents[old]] for old in order]
    ids = [f"id{old}" for old in order]
    names = [draw(st.sampled_from("abc")) for _ in order]
    graph: Graph = nx.DiGraph()
    graph.add_node(SOURCE_ROOT)
    for node_id, parent in zip(ids, listed, strict=True):
        graph.add_edge(SOURCE_ROOT if parent is None else ids[parent], node_id)
    return Taxonomy.from_parents(ids, names, listed), graph


def ids_of(tree: Taxonomy, nodes: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> list[str]:
    return [tree.ids[k] if k != ROOT else SOURCE_ROOT for k in nodes.tolist()]


@settings(max_examples=80, deadline=None)
@given(trees())
def test_nodes_levels_and_parents_agree_with_networkx(drawn: tuple[Taxonomy, Graph]) -> None:
    tree, graph = drawn
    depth = nx.single_source_shortest_path_length(graph, SOURCE_ROOT)
    assert set(tree.ids) == set(graph) - {SOURCE_ROOT}
    assert tree.n_levels == max(depth.values())
    assert tree.n_leaves == sum(graph.out_degree(node) == 0 for node in tree.ids)
    assert ids_of(tree, tree.parent) == [next(graph.predecessors(node)) for node in tree.ids]
    assert tree.level.tolist() == [depth[node] for node in tree.ids]
    assert tree.is_leaf.tolist() == [graph.out_degree(node) == 0 for node in tree.ids]
    assert tree.n_children.tolist() == [graph.out_degree(node) for node in tree.ids]
    for k, node in enumerate(tree.ids):
        way = nx.shortest_path(graph, SOURCE_ROOT, node)[1:]
        assert ids_of(tree, tree.lineage[k, : len(way)]) == way
        assert (tree.lineage[k, len(way) :] == -1).all()


@settings(max_examples=80, deadline=None)
@given(trees())
def test_families_agree_with_networkx(drawn: tuple[Taxonomy, Graph]) -> None:
    tree, graph = drawn
    assert ids_of(tree, tree.children(ROOT)) == list(graph.successors(SOURCE_ROOT))
    assert set(ids_of(tree, tree.descendants(ROOT))) == nx.descendants(graph, SOURCE_ROOT)
    for k, node in enumerate(tree.ids):
        (above,) = graph.predecessors(node)
        # networkx keeps the order in which edges were added: that of the source
        assert ids_of(tree, tree.children(k)) == list(graph.successors(node))
        assert ids_of(tree, tree.siblings(k)) == [other for other in graph.successors(above) if other != node]
        assert set(ids_of(tree, tree.descendants(k))) == nx.descendants(graph, node)
        assert set(ids_of(tree, tree.ancestors(k))) == nx.ancestors(graph, node) - {SOURCE_ROOT}
        assert tree.level[tree.ancestors(k)].tolist() == list(range(1, tree.level[k]))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_lowest_common_ancestors_agree_with_networkx(drawn: tuple[Taxonomy, Graph]) -> None:
    tree, graph = drawn
    nodes = np.arange(ROOT, tree.n_nodes)  # the root too
    lca, level = tree.lca(nodes[:, None], nodes), tree.lca_level(nodes[:, None], nodes)
    above = tree.is_ancestor_or_self(nodes[:, None], nodes)
    names = [SOURCE_ROOT, *tree.ids]
    depth = nx.single_source_shortest_path_length(graph, SOURCE_ROOT)
    below = {node: nx.descendants(graph, node) | {node} for node in names}
    pairs = [(a, b) for a in names for b in names]
    for (a, b), found in nx.all_pairs_lowest_common_ancestor(graph, pairs):
        i, j = names.index(a), names.index(b)
        assert ids_of(tree, lca[i, j].reshape(1)) == [found]
        assert level[i, j] == depth[found]
        assert above[i, j] == (b in below[a])


@settings(max_examples=80, deadline=None)
@given(trees(), st.data())
def test_a_cut_agrees_with_networkx(drawn: tuple[Taxonomy, Graph], data: st.DataObject) -> None:
    tree, graph = drawn
    level = data.draw(st.integers(1, tree.n_levels))
    small, mapping = tree.cut(level)
    ball = nx.ego_graph(graph, SOURCE_ROOT, radius=level)
    assert set(small.ids) == set(ball) - {SOURCE_ROOT}
    assert small.n_leaves == sum(ball.out_degree(node) == 0 for node in small.ids)
    assert small.n_levels == level
    for k, node in enumerate(tree.ids):
        kept = nx.shortest_path(graph, SOURCE_ROOT, node)[1 : level + 1][-1]
        assert small.ids[mapping[k]] == kept
    at = tree.ancestors_at(np.arange(ROOT, tree.n_nodes), level)
    deep = tree.level >= level
    assert at[0] == ROOT
    assert (at[1:][~deep] == ROOT).all()
    assert ids_of(tree, at[1:][deep]) == [small.ids[k] for k in mapping[deep]]


@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_tree_that_is_listed_in_its_own_order_stays_the_same(drawn: tuple[Taxonomy, Graph]) -> None:
    tree, _ = drawn
    parents = [None if p == ROOT else p for p in tree.parent.tolist()]
    again = Taxonomy.from_parents(tree.ids, tree.names, parents)
    assert again.version == tree.version
    assert again.ids == tree.ids
    assert (np.diff(tree.level) >= 0).all()
    assert (np.diff(tree.parent) >= 0).all()
    inner = np.flatnonzero(~tree.is_leaf)
    assert tree.first_child[inner].tolist() == [tree.children(k)[0] for k in inner.tolist()]
    assert (tree.first_child[tree.is_leaf] == -1).all()
