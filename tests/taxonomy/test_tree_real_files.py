"""The published trees, read where they are (`../shared/data`, or the folder that SHELVER_DATA names)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from shelver.taxonomy import ROOT, SiblingGroups, Taxonomy, localise, read_google, read_taxonomy

DATA = Path(os.environ.get("SHELVER_DATA", Path(__file__).parents[3] / "shared" / "data")) / "taxonomies"
GENEROUS_S = 2.0
"""Loading is to take under 0.2 s on an idle core; a busy machine gets ten times that."""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published trees are not at {DATA}")


@pytest.mark.parametrize(
    ("file", "n_nodes", "n_leaves", "n_levels"),
    [
        ("google.en-US.txt", 5_582, 4_709, 7),
        ("google.fr-FR.txt", 5_427, 4_612, 7),
        ("google.zh-CN.txt", 5_427, 4_612, 7),
        ("shopify/en.categories.txt", 10_595, 8_516, 8),
        ("shopify/fr.categories.txt", 10_595, 8_516, 8),
        ("gs1-gpc.json.bz2", 5_932, 4_867, 4),
    ],
)
def test_a_published_tree_has_its_published_size_and_loads_fast(
    file: str, n_nodes: int, n_leaves: int, n_levels: int, tmp_path: Path
) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        tree = read_taxonomy(DATA / file)
        seconds.append(time.perf_counter() - start)
    assert (tree.n_nodes, tree.n_leaves, tree.n_levels) == (n_nodes, n_leaves, n_levels)
    assert min(seconds) < GENEROUS_S
    tree.save(tmp_path / "taxonomy.json")
    start = time.perf_counter()
    again = Taxonomy.load(tmp_path / "taxonomy.json")
    assert time.perf_counter() - start < GENEROUS_S
    assert again.version == tree.version


def test_google_cut_at_level_four_has_3266_leaves() -> None:
    small, mapping = read_taxonomy(DATA / "google.en-US.txt").cut(4)
    assert (small.n_leaves, small.n_levels) == (3_266, 4)
    assert mapping.max() == small.n_nodes - 1


@pytest.mark.parametrize("locale", ["de-DE", "es-ES", "fr-FR", "zh-CN"])
def test_older_locales_of_google_lack_155_ids_which_stay_english(locale: str) -> None:
    english = read_google(DATA / "google.en-US.txt")
    tree = read_google(DATA / "google.en-US.txt", DATA / f"google.{locale}.txt")
    assert tree.notes.fallback_names == 155
    assert tree.notes.unused_names == 0
    assert tree.ids == english.ids
    assert np.array_equal(tree.lineage, english.lineage)
    assert tree.version != english.version


def test_french_shopify_names_join_the_english_tree_whole() -> None:
    french = localise(
        read_taxonomy(DATA / "shopify" / "en.categories.txt"), DATA / "shopify" / "fr.categories.txt"
    )
    assert french.notes.fallback_names == 0
    assert french.version == read_taxonomy(DATA / "shopify" / "fr.categories.txt").version
    shared = [path for path in set(french.paths) if len(french.find_paths(path.split(" > "))) > 1]
    assert len(shared) == 3  # siblings that French gives one name: only gids tell them apart


def test_the_classes_of_gs1_have_ids_of_their_own() -> None:
    tree = read_taxonomy(DATA / "gs1-gpc.json.bz2")
    assert np.bincount(tree.level).tolist() == [0, 39, 139, 887, 4_867]
    made = [node_id for node_id in tree.ids if "/" in node_id]
    assert len(made) == tree.notes.made_ids == 887
    assert {tree.level[tree.index(node_id)] for node_id in made} == {3}
    assert all(tree.ids[tree.parent[tree.index(i)]] == i.partition("/")[0] for i in made)


def test_lowest_common_ancestors_on_the_deepest_tree_agree_with_networkx() -> None:
    tree = read_taxonomy(DATA / "shopify" / "en.categories.txt")
    graph = nx.DiGraph([(int(p), k) for k, p in enumerate(tree.parent)])
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, tree.n_nodes, 300), rng.integers(0, 400, 300)
    b[:150] = np.minimum(a[:150] + rng.integers(0, 20, 150), tree.n_nodes - 1)  # near ones too
    for i, found in enumerate(tree.lca(a, b).tolist()):
        way_a, way_b = (nx.shortest_path(graph, ROOT, int(x[i])) for x in (a, b))
        assert found == [x for x, y in zip(way_a, way_b, strict=False) if x == y][-1]


def test_a_distribution_over_all_google_nodes_is_coherent() -> None:
    tree = read_taxonomy(DATA / "google.en-US.txt")
    groups = SiblingGroups.of(tree, ~tree.is_leaf)
    scores = np.random.default_rng(0).normal(size=(70, groups.n_slots)).astype(np.float32) * 8
    probs = groups.distribution(scores, np.linspace(0.5, 2, tree.n_levels))
    np.testing.assert_allclose(probs[:, tree.level == 1].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(groups.here(probs).sum(axis=1), 1, atol=1e-5)
