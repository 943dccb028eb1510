"""What a right answer is worth, by category: from a file of the shop's, or from the popularity of its products.

The unit is free, since scores and costs only compare. A category that nothing is known of counts the mean of those
that something is known of.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.errors import InputError
from shelver.taxonomy import Taxonomy

MAX_TOLD: Final = 5
"""Bad lines that an error quotes; it counts the others."""
_REMEDY: Final = "Mend these lines, or leave them out: a category without a line counts the mean."


def read_values(path: Path, taxonomy: Taxonomy) -> NDArray[np.float64]:
    """Read a value for each category from a CSV file.

    The file has a header with `node_id` or `path` (or both; an empty node id leaves it to the path), and `value`;
    other columns are passed over. A path is its names joined by " > ". Commas, semicolons or tabs part the
    columns. A line is about its own category alone, not about those below it.

    Args:
        path: the file, UTF-8.
        taxonomy: the tree.

    Returns:
        shape (K,); categories that the file does not name have the mean of those that it names.

    Raises:
        InputError: no such file, no such columns, no line, or bad lines: an unknown or repeated category, a value
            that is no finite number from 0. The error quotes the first bad lines with their numbers.
    """
    values = np.full(taxonomy.n_nodes, np.nan)
    said_on: dict[int, int] = {}
    bad: list[str] = []
    for line, row in _lines(path):
        node = _node(row, taxonomy)
        value = _number(row.get("value", ""))
        if isinstance(node, str):
            bad.append(f"line {line}: {node}")
        elif node in said_on:
            bad.append(f"line {line}: {taxonomy.paths[node]!r} again, first on line {said_on[node]}")
        elif value is None:
            bad.append(f"line {line}: value {row.get('value', '')!r:.60}")
        else:
            values[node] = value
            said_on[node] = line
    if bad:
        more = f"; and {len(bad) - MAX_TOLD:,} more" if len(bad) > MAX_TOLD else ""
        raise InputError(
            f"{path}: {'; '.join(bad[:MAX_TOLD])}{more}",
            allowed="lines with a category of the tree, each once, and a finite number from 0",
            remedy=_REMEDY,
        )
    if not said_on:
        raise InputError(f"{path} has no line", allowed="a header and one line or more", remedy="Fill it in.")
    return _filled(values)


def popularity(
    catalog: Catalog, taxonomy: Taxonomy, *, by: Literal["mean", "sum"] = "mean", split: Part | None = None
) -> NDArray[np.float64] | None:
    """A value for each category from the `value` column of a catalog's products, such as their sales.

    Args:
        catalog: where the products are; those without a label or a value, with a negative or infinite one, or with
            a category that `taxonomy` does not know, are passed over.
        taxonomy: the tree; mostly a model's.
        by: "mean", what one product of the category is worth; "sum", what the category is worth as a whole.
        split: one part of the catalog, or None for all.

    Returns:
        shape (K,); categories without any such product have the mean of the others. None where no product has a
        value.
    """
    sums, counts = np.zeros(taxonomy.n_nodes), np.zeros(taxonomy.n_nodes, np.int64)
    for batch in catalog.tables(split, columns=["node_id", "value"], batch_rows=65_536):
        known = pc.and_(pc.is_valid(batch["node_id"]), pc.is_valid(batch["value"]))
        rows = batch.filter(known)
        if not rows.num_rows:
            continue
        ids = pc.dictionary_encode(rows["node_id"])
        assert isinstance(ids, pa.DictionaryArray)
        found = np.array([-1 if k is None else k for k in map(taxonomy.find, ids.dictionary.to_pylist())])
        node, value = found[ids.indices.to_numpy()], rows["value"].to_numpy()
        used = (node >= 0) & np.isfinite(value) & (value >= 0)
        sums += np.bincount(node[used], weights=value[used], minlength=taxonomy.n_nodes)
        counts += np.bincount(node[used], minlength=taxonomy.n_nodes)
    if not counts.any():
        return None
    whole = sums if by == "sum" else sums / np.maximum(counts, 1)
    return _filled(np.where(counts > 0, whole, np.nan))


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean for what is NaN."""
    return np.where(np.isnan(values), np.nanmean(values), values)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers, the header's being 1, and cells by column name."""
    allowed = "a CSV file with a header: node_id or path, and value"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [name.strip().lower() for name in next(reader, [])]
            if "value" not in header or not {"node_id", "path"} & {*header}:
                raise InputError(
                    f"{path} has the columns {', '.join(header)[:200] or 'none'}", allowed=allowed,
                    remedy="Name the columns in the first line.",
                )  # fmt: skip
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read: {error}", allowed=f"{allowed}, in UTF-8", remedy="Check the file."
        ) from error


def _node(row: dict[str, str], taxonomy: Taxonomy) -> int | str:
    """The category that a line names, or what is wrong with it."""
    node_id, path = row.get("node_id", ""), row.get("path", "")
    if node_id:
        found = taxonomy.find(node_id)
        return f"no category has the id {node_id!r:.80}" if found is None else found
    if not path:
        return "no category"
    at = taxonomy.find_paths(path.split(" > "))
    if len(at) != 1:
        return f"{f'{len(at)} categories have' if len(at) else 'no category has'} the path {path!r:.120}"
    return int(at[0])


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
