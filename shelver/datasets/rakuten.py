"""The two Rakuten challenges, by their official file formats. Neither set may be handed on.

Rakuten France: `X_train_update.csv` (an unnamed index, designation, description, productid, imageid) is joined
with `Y_train_*.csv` (index, prdtypecode) by the index. Pictures, where the folder `image_train` is there (also
below `images/`), are `image_<imageid>_product_<productid>.jpg`. The rows of `X_test_update.csv` have no labels:
there is nothing to learn from them or to score, so they are not read here, whether the file is there or not. A
test part is dealt from the labelled rows, and `shelver predict` answers the test file with the mapping
`product_id = "productid"`, `title = "designation"`.

Rakuten 2018: a title, a tab, and an id path such as `3292>3581>3145`, no header. A node's id is its whole id path;
its name is the path's last code.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from shelver.catalog.categories import MAX_LEVELS
from shelver.catalog.feeds import open_feed
from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductRow, read_products
from shelver.catalog.rows import BadRow, Code, Row, bad_row
from shelver.datasets.places import file_in
from shelver.errors import FeedError
from shelver.taxonomy import Taxonomy, from_id_paths, plain_name

FR_CODES = (
    *("10", "40", "50", "60", "1140", "1160", "1180", "1280", "1281", "1300", "1301", "1302", "1320", "1560"),
    *("1920", "1940", "2060", "2220", "2280", "2403", "2462", "2522", "2582", "2583", "2585", "2705", "2905"),
)
"""The 27 product type codes; the challenge gives them no names."""


def fr_files(source: Path) -> list[Path]:
    """The two files of the training set; raises FeedError where one is missing."""
    folder = source.parent if source.is_file() else source
    return [
        file_in(folder, "X_train_update.csv", "X_train*.csv", recipe="rakuten-fr", given=source),
        file_in(folder, "Y_train_CVw08PX.csv", "Y_train*.csv", recipe="rakuten-fr", given=source),
    ]


def fr_pictures(source: Path) -> Path | None:
    """The folder of the training pictures; None where it is absent."""
    folder = source.parent if source.is_file() else source
    for name in ("image_train", "images/image_train"):
        if (folder / name).is_dir():
            return folder / name
    return None


def fr_taxonomy(_: Path) -> Taxonomy:
    """The 27 codes as a flat tree."""
    return Taxonomy.from_parents(FR_CODES, FR_CODES, [None] * len(FR_CODES), source="rakuten-fr")


def fr_rows(source: Path) -> Iterator[ProductRow | BadRow]:
    """The training rows with their codes.

    Raises:
        FeedError: a file is missing, or the labels cannot be read.
    """
    rows_file, labels_file = fr_files(source)
    labels = _labels(labels_file)
    pictures = fr_pictures(source)
    mapping = Mapping(
        columns={
            "product_id": "productid",
            "title": "designation",
            "description": "description",
            "category": _index_column(rows_file),
        },
        image_pattern="image_{imageid}_product_{productid}.jpg" if pictures is not None else None,
    )
    for row in read_products(rows_file, mapping=mapping, image_root=pictures):
        if isinstance(row, BadRow):
            yield row
            continue
        index = row.category[0] if row.category else ""
        code = labels.get(index)
        if code is None:
            message = f"{labels_file.name} has no label for the index {index[:40]!r}"
            yield bad_row(
                row.line,
                Code.missing_category,
                message,
                field="prdtypecode",
                raw=index,
                product_id=row.product.product_id,
            )
        else:
            yield replace(row, category=code)


def _index_column(path: Path) -> str:
    """The name under which the reader has the first, unnamed column."""
    return open_feed(path).header.columns[0]


def _labels(path: Path) -> dict[str, str]:
    """Index → code, both as text."""
    labels: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, cells in enumerate(csv.reader(file), start=1):
            if len(cells) != 2:
                raise FeedError(
                    f"{path.name}, line {line}: {len(cells)} cells",
                    allowed="an index and a prdtypecode in each row",
                    remedy="Take the file as the challenge hands it out.",
                )
            if line > 1:
                labels[cells[0].strip()] = cells[1].strip()
    return labels


_2018 = Mapping(
    id_from="line",
    category_separator=">",
    format="tsv",
    header=("title", "category"),
    quoted=False,
)


def files_2018(source: Path) -> list[Path]:
    """The training file; raises FeedError where it is missing."""
    return [file_in(source, "rdc-catalog-train.tsv", "*train*.tsv", "*.tsv", recipe="rakuten-2018")]


def taxonomy_2018(source: Path) -> Taxonomy | None:
    """The tree of the training file's id paths; None where no row has one."""
    cells: dict[str, None] = {}
    rows = open_feed(
        files_2018(source)[0], format=_2018.format, delimiter="\t", header=_2018.header, quoted=_2018.quoted
    ).rows
    for row in rows:
        if isinstance(row, Row) and isinstance(cell := row.values["category"], str):
            cells.setdefault(cell)
    paths = [[plain_name(code) for code in cell.split(">")] for cell in cells]
    whole = [">".join(path) for path in paths if all(path) and len(path) <= MAX_LEVELS]
    return from_id_paths(whole, source="rakuten-2018") if whole else None


def rows_2018(source: Path) -> Iterator[ProductRow | BadRow]:
    """The rows of the training file; their ids are line numbers."""
    return read_products(files_2018(source)[0], mapping=_2018)
