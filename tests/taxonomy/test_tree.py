from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shelver.errors import TaxonomyError
from shelver.taxonomy import ROOT, Notes, Taxonomy, path_id


def seven() -> Taxonomy:
    """Seven nodes, three levels: Home > {Chairs > {Bar, Deck}, Lamps}, Toys > Cars."""
    return Taxonomy.from_parents(
        ["h", "t", "hc", "hl", "tc", "hcb", "hcd"],
        ["Home", "Toys", "Chairs", "Lamps", "Cars", "Bar", "Deck"],
        [None, None, 0, 0, 1, 2, 2],
    )


def test_nodes_are_numbered_breadth_first_whatever_order_they_came_in() -> None:
    tree = Taxonomy.from_parents(
        ["hcb", "h", "hc", "t", "hcd", "hl", "tc"],
        ["Bar", "Home", "Chairs", "Toys", "Deck", "Lamps", "Cars"],
        [2, None, 1, None, 2, 1, 3],
    )
    assert tree.ids == seven().ids
    assert tree.version == seven().version
    assert tree.parent.tolist() == [ROOT, ROOT, 0, 0, 1, 2, 2]
    assert tree.level.tolist() == [1, 1, 2, 2, 2, 3, 3]
    assert tree.lineage[5].tolist() == [0, 2, 5]
    assert tree.lineage[4].tolist() == [1, 4, -1]
    assert tree.leaves.tolist() == [3, 4, 5, 6]
    assert (tree.n_nodes, tree.n_leaves, tree.n_levels) == (7, 4, 3)


def test_a_tree_cannot_be_changed() -> None:
    tree = seven()
    with pytest.raises(AttributeError):
        tree.version = "x"  # type: ignore[misc]
    for array in (tree.parent, tree.level, tree.lineage, tree.first_child, tree.is_leaf, tree.leaves):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_paths_and_ids_find_their_node() -> None:
    tree = seven()
    assert tree.path(5) == "Home > Chairs > Bar"
    assert tree.path(5, sep="/") == "Home/Chairs/Bar"
    assert tree.path_names(4) == ("Toys", "Cars")
    assert tree.paths[3] == "Home > Lamps"
    assert tree.find_path(["Home", "Chairs"]) == 2
    assert tree.find_path(["Chairs"]) is None
    assert tree.find("tc") == 4
    assert tree.find("Cars") is None
    assert tree.indices(["hcd", "h"]).tolist() == [6, 0]
    assert tree.indices([]).shape == (0,)


def test_an_unknown_id_is_an_error_that_says_what_is_allowed() -> None:
    with pytest.raises(TaxonomyError, match=r"'nope'.*one of the 7 ids"):
        seven().index("nope")


def test_siblings_of_one_name_share_a_path_that_finds_neither_alone() -> None:
    tree = Taxonomy.from_parents(["1", "2", "3"], ["A", "B", "B"], [None, 0, 0])
    assert tree.find_path(["A", "B"]) is None
    assert tree.find_paths(["A", "B"]).tolist() == [1, 2]
    assert tree.find_paths(["A"]).tolist() == [0]
    assert tree.find_paths(["C"]).tolist() == []


def test_the_root_is_no_node_but_may_be_asked_about() -> None:
    tree = seven()
    assert tree.path(ROOT) == ""
    assert tree.path_names(ROOT) == ()
    assert tree.children(ROOT).tolist() == [0, 1]
    assert tree.ancestors(ROOT).tolist() == tree.siblings(ROOT).tolist() == []
    assert tree.lca(ROOT, 5) == ROOT
    assert tree.ancestors_at([ROOT, 5], 2).tolist() == [ROOT, 2]


def test_lowest_common_ancestors_of_whole_arrays() -> None:
    tree = seven()
    assert tree.lca([5, 5, 5, 2], [6, 3, 4, 5]).tolist() == [2, 0, ROOT, 2]
    assert tree.lca_level([5, 5, 5, 2], [6, 3, 4, 5]).tolist() == [2, 1, 0, 2]
    assert tree.lca([], []).shape == (0,)
    assert tree.lca(5, 6) == 2


def test_a_cut_keeps_ids_and_says_where_each_node_went() -> None:
    small, mapping = seven().cut(2)
    assert small.ids == ("h", "t", "hc", "hl", "tc")
    assert mapping.tolist() == [0, 1, 2, 3, 4, 2, 2]
    assert small.n_leaves == 3
    same, unmoved = seven().cut(9)
    assert same.version == seven().version
    assert unmoved.tolist() == list(range(7))
    with pytest.raises(TaxonomyError, match="level 0"):
        seven().cut(0)
    with pytest.raises(TaxonomyError, match="level 4"):
        seven().ancestors_at([1], 4)


def test_the_version_follows_ids_names_and_parents_only() -> None:
    tree = seven()
    ids, names, parents = list(tree.ids), list(tree.names), [None, None, 0, 0, 1, 2, 2]
    noted = Taxonomy.from_parents(ids, names, parents, source="x", notes=Notes(made_ids=3))
    assert noted.version == tree.version
    assert len(tree.version) == 16
    renamed = Taxonomy.from_parents(ids, [*names[:-1], "Garden"], parents)
    moved = Taxonomy.from_parents(ids, names, [None, None, 0, 0, 0, 2, 2])
    other = Taxonomy.from_parents([*ids[:-1], "x"], names, parents)
    assert len({tree.version, renamed.version, moved.version, other.version}) == 4


def test_paths_make_a_tree_and_create_the_ancestors_that_are_missing() -> None:
    tree = Taxonomy.from_paths([["A", "B", "C"], ["A"], ["D"], ["A", "B", "C"], [" A ", "B", "E"]])
    assert tree.paths == ("A", "D", "A > B", "A > B > C", "A > B > E")
    assert tree.ids[3] == path_id(["A", "B", "C"])
    assert tree.notes.created_nodes == 1


def test_a_path_id_is_twelve_hex_digits_and_tells_paths_apart() -> None:
    assert path_id(["A", "B"]) == path_id([" A", "B "])
    assert len(path_id(["A"])) == 12
    assert len({path_id(["A", "B"]), path_id(["A B"]), path_id(["B", "A"]), path_id(["A", "B", "C"])}) == 4


def test_equal_names_under_different_parents_are_different_nodes() -> None:
    tree = Taxonomy.from_paths([["Men", "Shoes"], ["Women", "Shoes"]])
    assert tree.names == ("Men", "Women", "Shoes", "Shoes")
    assert len(set(tree.ids)) == 4


def test_a_repeated_id_is_an_error_that_names_the_line() -> None:
    with pytest.raises(TaxonomyError, match=r"tree\.csv, line 9: the id 'a' repeats that of line 4"):
        Taxonomy.from_parents(["a", "b", " a"], ["A", "B", "C"], [None, 0, 0], lines=[4, 7, 9], source="tree.csv")


@pytest.mark.parametrize(("ids", "names"), [(["a", "b"], ["A", "  "]), (["a", ""], ["A", "B"])])
def test_an_empty_name_or_id_is_an_error_that_names_the_line(ids: list[str], names: list[str]) -> None:
    with pytest.raises(TaxonomyError, match="line 7: a node with an empty"):
        Taxonomy.from_parents(ids, names, [None, 0], lines=[4, 7])


@pytest.mark.parametrize("parent", [2, 99, -2])
def test_an_orphan_is_an_error_that_names_the_line(parent: int) -> None:
    with pytest.raises(TaxonomyError, match="line 7: an orphan"):
        Taxonomy.from_parents(["a", "b"], ["A", "B"], [None, parent], lines=[4, 7])


@pytest.mark.parametrize(
    ("parents", "line"), [([None, 2, 3, 1, 1], 12), ([None, 1, 0, 0, 0], 12), ([1, 2, 3, 4, 0], 11)]
)
def test_a_cycle_is_an_error_that_names_a_line_on_it(parents: list[int | None], line: int) -> None:
    with pytest.raises(TaxonomyError, match=f"line {line}: the node is its own ancestor"):
        Taxonomy.from_parents(list("abcde"), list("ABCDE"), parents, lines=[11, 12, 13, 14, 15])


def test_what_hangs_on_a_cycle_is_not_blamed_for_it() -> None:
    with pytest.raises(TaxonomyError, match=r"line 3: .* through 2 node"):
        Taxonomy.from_parents(list("abcd"), list("ABCD"), [None, 2, 3, 2], lines=[1, 2, 3, 4])


def test_no_node_uneven_lists_and_broken_text_are_errors() -> None:
    with pytest.raises(TaxonomyError, match="no node"):
        Taxonomy.from_parents([], [], [])
    with pytest.raises(TaxonomyError, match="2 ids, 1 names"):
        Taxonomy.from_parents(["a", "b"], ["A"], [None, None])
    with pytest.raises(TaxonomyError, match="surrogate"):
        Taxonomy.from_parents(["a"], ["\ud800"], [None])
    with pytest.raises(TaxonomyError, match="empty name"):
        Taxonomy.from_paths([["A"], []])


def test_a_tree_deeper_than_64_levels_is_an_error_not_a_full_memory() -> None:
    def chain(n: int) -> Taxonomy:
        ids = [str(i) for i in range(n)]
        return Taxonomy.from_parents(ids, ids, [None, *range(n - 1)])

    assert chain(64).n_levels == 64
    with pytest.raises(TaxonomyError, match="level 65"):
        chain(100_000)


def test_a_saved_tree_loads_as_it_was(tmp_path: Path) -> None:
    tree = Taxonomy.from_paths([["Möbel", 'Stühle, "Bar"'], ["家具"], ["Möbel", "a\\b"]])
    tree.save(tmp_path / "taxonomy.json")
    again = Taxonomy.load(tmp_path / "taxonomy.json")
    assert (again.ids, again.names, again.version, again.notes) == (
        tree.ids,
        tree.names,
        tree.version,
        tree.notes,
    )
    assert np.array_equal(again.lineage, tree.lineage)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "taxonomy.json").read_bytes()


def test_a_tree_that_was_changed_after_saving_is_refused_unless_its_version_is_removed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "taxonomy.json"
    seven().save(file)
    file.write_text(file.read_text().replace("Lamps", "Lights"))
    with pytest.raises(TaxonomyError, match="version"):
        Taxonomy.load(file)
    content = json.loads(file.read_text())
    del content["version"]
    file.write_text(json.dumps(content))
    assert Taxonomy.load(file).names[3] == "Lights"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["hl", "Lamps", "h"]', '["hl", "Lamps", "gone"]', "line 5: an orphan"),
        ('["hl", "Lamps", "h"]', '["t", "Lamps", "h"]', "line 5: the id 't' repeats"),
        ('["hl", "Lamps", "h"]', '["hl", "", "h"]', "line 5: a node with an empty name"),
        ('["hl", "Lamps", "h"]', '["hl", "Lamps", "hl"]', "line 5: the node is its own ancestor"),
        ('["hl", "Lamps", "h"]', '["hl", "Lamps"]', "line 5: "),
        ('["hl", "Lamps", "h"]', '["hl", "Lamps", "h"', "no valid JSON"),
        ('"format_version": 1', '"format_version": 9', "format version 9"),
        ('"format": "shelver taxonomy"', '"format": "other"', "no shelver taxonomy"),
        ('"nodes": [', '"nodes": null, "x": [', "no list of nodes"),
    ],
)
def test_a_mistake_in_a_saved_tree_is_an_error_that_names_the_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "taxonomy.json"
    seven().save(file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy.load(file)


def test_a_path_is_found_whatever_white_space_stands_in_its_names() -> None:
    tree = Taxonomy.from_parents(["1", "2"], ["Home  &\u00a0Garden", "Pots"], [None, 0])
    for path in (["Home & Garden", "Pots"], ["Home  &\u00a0Garden", " Pots"], ["Home\u2009& Garden", "Pots"]):
        assert tree.find_path(path) == 1
        assert tree.find_paths(path).tolist() == [1]
    assert tree.path(0) == "Home  &\u00a0Garden"  # as its owner wrote it
