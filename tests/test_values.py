"""Values by category: from a file, from popularity, and what a bad file is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.errors import InputError
from shelver.taxonomy import Taxonomy
from shelver.values import popularity, read_values


def written(folder: Path, text: str) -> Path:
    path = folder / "values.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "node_id,value\nBar,6\nToys,0\n",
        "\ufeffPath;note;Value\r\nHome > Chairs > Bar;x;6\r\n\r\nToys;;0\r\n",
        "node_id\tpath\tvalue\nBar\tnowhere\t6.0\n\tToys\t0e3\n",
    ],
)
def test_a_file_names_categories_by_id_or_path_and_the_others_count_the_mean(
    text: str, seven: Taxonomy, tmp_path: Path
) -> None:
    # Home 0, Toys 1, Chairs 2, Lamps 3, Cars 4, Bar 5, Deck 6
    assert read_values(written(tmp_path, text), seven).tolist() == [3, 0, 3, 3, 3, 6, 3]


def test_bad_lines_are_told_with_their_numbers(seven: Taxonomy, tmp_path: Path) -> None:
    lines = [
        "node_id,path,value",
        "Bar,,1",
        "Sofa,,1",
        "Deck,,-1",
        "Lamps,,nan",
        "Bar,,2",
        "Cars,,",
        "Toys",
        ",,3",
    ]
    with pytest.raises(InputError) as raised:
        read_values(written(tmp_path, "\n".join(lines)), seven)
    told = raised.value.received
    for piece in ("line 3: no category has the id 'Sofa'", "line 4: value '-1'", "line 5: value 'nan'"):
        assert piece in told
    assert "line 6: 'Home > Chairs > Bar' again, first on line 2" in told
    assert "line 7" in told
    assert told.endswith("and 2 more")
    with pytest.raises(InputError, match=r"line 2: no category has the path 'Home > Sofa'"):
        read_values(written(tmp_path, "path,value\nHome > Sofa,1\n"), seven)


def test_line_numbers_count_newlines_inside_quotes(seven: Taxonomy, tmp_path: Path) -> None:
    text = 'node_id,note,value\nBar,"two\nlines",1\nSofa,,2\n'
    with pytest.raises(InputError, match="line 4: no category"):
        read_values(written(tmp_path, text), seven)


@pytest.mark.parametrize("text", ["", "node_id\nBar\n", "value\n1\n", "node_id,value\n", "\x00"])
def test_what_is_no_file_of_values_is_refused(text: str, seven: Taxonomy, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_values(written(tmp_path, text), seven)
    with pytest.raises(InputError, match="cannot be read"):
        read_values(tmp_path / "absent.csv", seven)
    (tmp_path / "latin.csv").write_bytes("node_id,value\nBär,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_values(tmp_path / "latin.csv", seven)


def test_siblings_of_one_name_must_be_told_apart_by_id(tmp_path: Path) -> None:
    tree = Taxonomy.from_parents(["a", "b"], ["Same", "Same"], [None, None])
    with pytest.raises(InputError, match="2 categories have the path 'Same'"):
        read_values(written(tmp_path, "path,value\nSame,1\n"), tree)


def test_popularity_is_the_mean_or_the_sum_of_the_products_values(tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    rows = ["1,a,x > y,1,train", "2,b,x > y,3,test", "3,c,x > z,10,train", "4,d,x > w,,train", "5,e,,99,train"]
    feed.write_text("product_id,title,category,value,split\n" + "\n".join(rows) + "\n")
    ingest(feed, tmp_path / "catalog")
    catalog = Catalog.open(tmp_path / "catalog")
    tree = catalog.taxonomy
    place = [tree.paths.index(path) for path in ("x > y", "x > z", "x > w")]
    by_mean, by_sum = popularity(catalog, tree), popularity(catalog, tree, by="sum")
    assert by_mean is not None
    assert by_sum is not None
    assert by_mean[place].tolist() == [2, 10, 6]
    assert by_sum[place].tolist() == [4, 10, 7]
    of_train = popularity(catalog, tree, split="train")
    assert of_train is not None
    assert of_train[place].tolist() == [1, 10, 5.5]
    other = Taxonomy.from_paths([["x", "z"], ["v"]])
    of_other = popularity(catalog, other)
    assert of_other is not None
    assert np.array_equal(of_other, np.full(3, 10.0))
    assert popularity(catalog, Taxonomy.from_paths([["v"]])) is None
