"""Each reader on small files of its format, whole and broken; and the formats told by their content."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelver.errors import TaxonomyError
from shelver.taxonomy import (
    Taxonomy,
    TreeFormat,
    from_id_paths,
    localise,
    path_id,
    read_flat,
    read_google,
    read_gs1,
    read_id_paths,
    read_paths,
    read_shopify,
    read_taxonomy,
)

GOOGLE = """# Google_Product_Taxonomy_Version: 2030-01-01
10 - Pets
20 - Pets > Birds & Bats
31 - Pets > Birds & Bats > Cages
40 - Tools
"""
GID = "gid://shopify/TaxonomyCategory/"
SHOPIFY = f"""# Shopify Product Taxonomy - Categories: 2030-01
# Format: {{GID}} : {{Ancestor name}} > ... > {{Category name}}

{GID}pe        : Pets
{GID}pe-1      : Pets > Toys
{GID}pe-1-1    : Pets > Toys > Balls
{GID}pe-1-10   : Pets > Toys > Balls
{GID}to        : Tools
"""


def row(level: str, code: str, name: str, **above: str) -> dict[str, str | None]:
    key = "brick" if level == "brick" else "text"
    return {"level": level, "code": code, key: name, "definition": "", "original definition": None, **above}


GS1 = [
    row("segment", "700", "Arts"),
    row("family", "701", "Paint", segment="Arts"),
    row("class", "701", "Paint", segment="Arts", family="Paint"),
    row("brick", "1", "Oil", segment="Arts", family="Paint", klass="Paint"),
    row("class", "701", "Paint", segment="Arts", family="Paint"),
    row("brick", "2", "Brush", segment="Arts", family="Paint", klass="Paint"),
    row("family", "702", "Music", segment="Arts"),
    row("class", "7021", "Drums", segment="Arts", family="Music"),
]


def put(folder: Path, text: str | bytes, name: str = "tree.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_google_lines_become_a_tree_by_their_paths(tmp_path: Path) -> None:
    tree = read_google(put(tmp_path, GOOGLE))
    assert tree.ids == ("10", "40", "20", "31")
    assert tree.path(3) == "Pets > Birds & Bats > Cages"


def test_google_names_of_a_locale_are_joined_by_id_and_gaps_stay_english_and_are_counted(
    tmp_path: Path,
) -> None:
    french = "# v\n40 - Outils\n10 - Animaux\n20 - Animaux > Oiseaux \n99 - Outils > Scies\n"
    tree = read_google(put(tmp_path, GOOGLE), put(tmp_path, french, "fr.txt"))
    assert tree.ids == ("10", "40", "20", "31")
    assert tree.path(3) == "Animaux > Oiseaux > Cages"
    assert tree.notes.fallback_names == 1
    assert tree.notes.unused_names == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("31 - Pets > Cats", "line 6: the id '31' repeats that of line 4"),
        ("50 - Pets > Fish > Tanks", "line 6: an orphan"),
        ("50 - Pets >  > Tanks", "line 6: "),
        ("50 - Pets > ", "line 6: a node with an empty name"),
        ("50 - Tools", "line 6: the path of line 5 again"),
        ("fifty - Tools > Saws", "line 6: 'fifty"),
    ],
)
def test_a_mistake_in_a_google_file_is_an_error_that_names_the_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_google(put(tmp_path, GOOGLE + line + "\n"))


def test_a_shopify_gid_is_the_id_and_tells_the_parent_even_where_siblings_share_a_name(
    tmp_path: Path,
) -> None:
    tree = read_shopify(put(tmp_path, SHOPIFY))
    assert tree.ids == (GID + "pe", GID + "to", GID + "pe-1", GID + "pe-1-1", GID + "pe-1-10")
    assert tree.find_paths(["Pets", "Toys", "Balls"]).tolist() == [3, 4]
    french = localise(tree, put(tmp_path, f"{GID}pe-1-1 : Animaux > Jouets > Balles\n", "fr.txt"))
    assert french.path(3) == "Pets > Toys > Balles"
    assert french.notes.fallback_names == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{GID}pe-1 : Pets > Cats", "line 9: the id .* repeats that of line 5"),
        (f"{GID}pe-7-1 : Pets > Fish > Tanks", "line 9: an orphan"),
        (f"{GID}pe-7 : Pets > Fish > Tanks", "line 9: .* path of 3 names"),
        (f"{GID}pe-7 : Pets > ", "line 9: a node with an empty name"),
        ("pe-7 : Pets > Fish", "line 9: 'pe-7"),
    ],
)
def test_a_mistake_in_a_shopify_file_is_an_error_that_names_the_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_shopify(put(tmp_path, SHOPIFY + line + "\n"))


def test_a_locale_of_another_taxonomy_or_with_mistakes_is_an_error(tmp_path: Path) -> None:
    tree = read_google(put(tmp_path, GOOGLE))
    for text, message in [
        (SHOPIFY, "none of its 5 ids"),
        ("10 - A\n10 - B\n", "line 2: the id '10' again"),
        ("10 - A > \n", "line 1"),
        ("ten\n", "line 1"),
    ]:
        with pytest.raises(TaxonomyError, match=message):
            localise(tree, put(tmp_path, text, "other.txt"))


@pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
def test_gs1_rows_whose_code_repeats_get_an_id_by_position(tmp_path: Path, pack: type[bytes]) -> None:
    tree = read_taxonomy(put(tmp_path, pack(json.dumps(GS1).encode()), "gpc.json.packed"))
    assert tree.ids == ("700", "701", "702", "701/1", "701/2", "7021", "1", "2")
    assert tree.path(6) == "Arts > Paint > Paint > Oil"
    assert tree.ids[tree.parent[7]] == "701/2"
    assert tree.notes.made_ids == 2


def test_the_nested_export_of_gs1_gives_the_same_tree_down_to_bricks(tmp_path: Path) -> None:
    def element(level: int, code: int, title: str, *below: object) -> dict[str, object]:
        return {"Level": level, "Code": code, "Title": title, "Childs": list(below)}

    attribute = element(5, 9, "Colour")
    paint = element(
        2,
        701,
        "Paint",
        element(3, 701, "Paint", element(4, 1, "Oil", attribute)),
        element(3, 701, "Paint", element(4, 2, "Brush")),
    )
    music = element(2, 702, "Music", element(3, 7021, "Drums"))
    nested = {"LanguageCode": "EN", "Schema": [element(1, 700, "Arts", paint, music)]}
    listed = read_gs1(put(tmp_path, json.dumps(GS1)))
    assert read_taxonomy(put(tmp_path, json.dumps(nested))).version == listed.version


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("brick", "3", "Saw", segment="Arts", family="Tools", klass="Saws"), "row 8 .*orphan"),
        (row("class", "3", "Saw", segment="Arts", family="Paint"), "row 8 .*orphan"),
        (row("brick", "3", "", segment="Arts", family="Music", klass="Drums"), "empty name"),
        (row("shelf", "3", "Saw"), "row 8 .*rank 'shelf'"),
        ({"level": "segment", "code": 3, "text": "A"}, "row 8 .*code 3"),
    ],
)
def test_a_mistake_in_a_gs1_file_is_an_error_that_names_the_row(tmp_path: Path, bad: object, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_gs1(put(tmp_path, json.dumps([*GS1, bad])))


@pytest.mark.parametrize("sep", [" > ", ">>", " >> ", "/", "|", "\t", " › ", "::"])
def test_path_lists_may_have_any_separator(tmp_path: Path, sep: str) -> None:
    text = "".join(f"{sep.join(path)}\n" for path in [("Pets", "Birds", "Cages"), ("Pets",), ("Tools",)])
    tree = read_paths(put(tmp_path, text), sep)
    assert tree.paths == ("Pets", "Tools", "Pets > Birds", "Pets > Birds > Cages")
    assert tree.ids[3] == path_id(["Pets", "Birds", "Cages"])
    assert tree.notes.created_nodes == 1
    assert read_taxonomy(tmp_path / "tree.txt", sep=sep).version == tree.version


def test_a_mistake_in_a_path_list_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="line 4: a repeated id, the path of line 2 again"):
        read_paths(put(tmp_path, "# heading\nA > B\n\nA >  B\n"))
    with pytest.raises(TaxonomyError, match="line 2: a path with an empty name"):
        read_paths(put(tmp_path, "A > B\nA >  > C\n"))


def test_an_id_path_is_the_id_of_its_node_since_one_code_may_have_two_parents(tmp_path: Path) -> None:
    tree = read_id_paths(put(tmp_path, "3292>3581>3145\n3292>77\n40>77\n"))
    assert tree.ids == ("3292", "40", "3292>3581", "3292>77", "40>77", "3292>3581>3145")
    assert tree.names[5] == "3145"
    assert tree.notes.created_nodes == 3
    labels = ["40>77", "3292>3581>3145", "40>77"]
    assert from_id_paths(labels).indices(labels).tolist() == [2, 4, 2]


@pytest.mark.parametrize("sep", [",", "\t", ";"])
@pytest.mark.parametrize("head", [("prdtypecode", "name"), None])
def test_the_code_of_a_flat_table_is_the_id_and_stays_text(
    tmp_path: Path, sep: str, head: tuple[str, str] | None
) -> None:
    rows = [*([head] if head else []), ("0010", "Used books"), ("10", f'"Toys{sep} games"'), ("2905", "Games")]
    tree = read_flat(put(tmp_path, "".join(f"{sep.join(cells)}\r\n" for cells in rows)))
    assert tree.ids == ("0010", "10", "2905")
    assert tree.names[1] == f"Toys{sep} games"
    assert tree.n_levels == 1


def test_a_table_with_a_column_parent_is_a_tree_of_any_depth(tmp_path: Path) -> None:
    tree = read_taxonomy(put(tmp_path, 'id,name,parent\n7,"Cages\nand ""more""",3\n3,Birds,1\n1,Pets,\n'))
    assert tree.ids == ("1", "3", "7")
    assert tree.names[2] == 'Cages\nand "more"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name,parent\n1,A,\n2,B,9\n", "line 3: an orphan"),
        ("id,name,parent\n1,A,\n2,B,3\n3,C,2\n", "line 3: the node is its own ancestor"),
        ('1,"A\nA"\n2,B\n1,C\n', "line 4: the id '1' repeats that of line 1"),
        ("1,A\n2,\n", "line 2: a node with an empty name"),
        ("1,A\n,B\n", "line 2: a node with an empty id"),
        ("1,A\n2,B,C\n", "line 2: 3 columns"),
        ('1,A\n2,"B"x\n', "line 2: no row of a table"),
        ("id,name\n", "no node"),
    ],
)
def test_a_mistake_in_a_table_is_an_error_that_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_flat(put(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "n_nodes", "n_levels"),
    [
        (GOOGLE, 4, 3),
        ("\ufeff" + GOOGLE.replace("\n", "\r\n"), 4, 3),
        (SHOPIFY, 5, 3),
        (json.dumps(GS1), 8, 4),
        ("A, b & c > D\nE\n", 3, 2),
        ("A >> B >> C\n", 3, 3),
        ("A>B\n", 2, 2),
        ("A / B/C\n", 2, 2),
        ("A | B\n", 2, 2),
        ("Chairs\nTables\n", 2, 1),
        ("3292>3581>3145\n3292\n", 3, 3),
        ("10,Books\n2905,Games\n", 2, 1),
        ("10\tBooks > old\n2905\tGames\n", 2, 1),
        ("code;name\n10;Books\n", 1, 1),
        ("10,Books / Comics\nA-7,Games > old\n", 2, 1),
    ],
)
def test_the_format_is_told_by_the_content(tmp_path: Path, text: str, n_nodes: int, n_levels: int) -> None:
    tree = read_taxonomy(put(tmp_path, text, "whatever"))
    assert (tree.n_nodes, tree.n_levels) == (n_nodes, n_levels)
    tree.save(tmp_path / "taxonomy.json")
    assert read_taxonomy(tmp_path / "taxonomy.json").version == tree.version
    assert read_taxonomy(tmp_path).version == tree.version  # a folder that holds one


def test_the_same_tree_has_the_same_version_whatever_format_it_came_from(tmp_path: Path) -> None:
    table = read_taxonomy(put(tmp_path, "id,name,parent\n10,Pets,\n40,Tools,\n20,Birds & Bats,10\n31,Cages,20\n"))
    assert table.version == read_google(put(tmp_path, GOOGLE)).version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        (" \n\n", "an empty file"),
        ("title,price,stock\nLamp,3,4\n", "cannot be told"),
        ("# only a comment\n", "no node"),
        (GOOGLE.replace("10 - Pets", "ten - Pets"), "line 2: 'ten - Pets'"),
        ('{"Schema": [' + "9" * 5000 + "]}", "cannot be read"),
        (b"10 - Pets\n20 - Pets > B\xfcrste\n", "line 2: bytes that are no UTF-8"),
        (b"BZh91AY&SY-damaged", "cannot be read"),
        (b"\x1f\x8b\x08damaged", "cannot be read"),
        ('{"a": 1}', "no GPC"),
        ('{"a": \n1', "line 2: no valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "no node"),
        ("[3]", "row 0"),
    ],
)
def test_what_is_no_tree_is_an_error_that_says_so(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(put(tmp_path, text))


def test_a_file_that_is_not_there_and_a_format_that_is_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="no such file"):
        read_taxonomy(tmp_path / "gone.txt")
    with pytest.raises(TaxonomyError, match=r"taxonomy\.json: no such file"):
        read_taxonomy(tmp_path)
    with pytest.raises(TaxonomyError, match=r"format 'xml'.*google"):
        read_taxonomy(put(tmp_path, GOOGLE), format="xml")  # type: ignore[arg-type]


def test_a_format_that_is_given_is_the_one_that_is_read(tmp_path: Path) -> None:
    file = put(tmp_path, "1>2\n")
    formats: list[TreeFormat] = ["paths", "idpaths"]
    trees: list[Taxonomy] = [read_taxonomy(file, format=form) for form in formats]
    assert [tree.ids[0] for tree in trees] == [path_id(["1"]), "1"]


@settings(max_examples=150, deadline=None)
@given(
    text=st.sampled_from([GOOGLE, SHOPIFY, json.dumps(GS1), "1,A\n2,B\n", "A > B\nC\n", "1>2\n3>4\n"]),
    noise=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), min_size=1, max_size=4),
)
def test_a_mutated_file_is_a_tree_or_a_taxonomy_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, noise: list[tuple[int, bytes]]
) -> None:
    data = text.encode()
    for place, junk in noise:
        data = data[:place] + junk + data[place + 2 :]
    path = put(tmp_path_factory.getbasetemp(), data, "mutated")
    try:
        tree = read_taxonomy(path)
    except TaxonomyError:
        return
    assert tree.n_nodes == len(set(tree.ids))
    assert all(tree.names)
