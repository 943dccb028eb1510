"""The attributes of a catalog's products: read from cells, counted over shards, made a vocabulary."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shelver.attributes import Attribute, Vocabulary, read_specification
from shelver.catalog.rows import Cell
from shelver.taxonomy import Taxonomy

LABELS = pa.map_(pa.string(), pa.list_(pa.string()))
"""A column of attributes: name → values."""
MAX_VALUE_CHARS = 1_000
MAX_VALUES = 100
"""Of one attribute of one product."""


def values_of(cells: Iterable[Cell], *, separator: str | None = None) -> tuple[tuple[str, ...], bool]:
    """The values in the cells of one attribute, each once, in order; a list is several values.

    Text is kept as it stands but for its white space: "NA" is a value, an empty cell is none.

    Args:
        cells: of one product.
        separator: between several values in one cell.

    Returns:
        The values, and whether they are all: an object, bytes that are no text and what is over the limits are
        left out.
    """
    found: dict[str, None] = {}
    whole = True
    for cell in cells:
        for item in cell if isinstance(cell, list) else (cell,):
            if item is None:
                continue
            if isinstance(item, bytes):
                item = item.decode("utf-8", "replace")
            if not isinstance(item, str):
                whole = False
                continue
            for part in item.split(separator) if separator else (item,):
                value = " ".join(part.split())
                if len(value) > MAX_VALUE_CHARS or (len(found) >= MAX_VALUES and value not in found):
                    whole = False
                elif value:
                    found[value] = None
    return tuple(found), whole


def pairs_of(cell: Cell) -> tuple[tuple[str, str], ...]:
    """The keys and values of a table of specifications: text of many forms, an object, or a list of objects."""
    if cell is None:
        return ()
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if not isinstance(cell, str):
        cell = json.dumps(cell, default=str, ensure_ascii=False)
    return tuple(read_specification(cell))


@dataclass(slots=True)
class Seen:
    """What was labelled, counted batch by batch.

    Attributes:
        products: products by attribute.
        values: products by attribute and value.
        places: products by attribute and node id (None where a product has no category).
        multi: attributes of which some product has several values.
        n_nodes: products by node id, whatever they are labelled with.
    """

    products: Counter[str] = field(default_factory=Counter)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    multi: set[str] = field(default_factory=set)
    n_nodes: Counter[str | None] = field(default_factory=Counter)

    def add(self, batch: pa.RecordBatch | pa.Table, column: str = "attributes") -> None:
        """Counts the labels of a column, and the nodes, of rows."""
        nodes = _flat(batch.column("node_id"))
        for entry in nodes.value_counts().to_pylist():
            self.n_nodes[entry["values"]] += entry["counts"]
        row, names, lists = entries(_flat(batch.column(column)))
        if not len(names):
            return
        labels = pa.table({"name": names, "node": nodes.take(pa.array(row))})
        for name, node, n in _counted(labels):
            self.products[name] += n
            self.places[name, node] += n
        sizes = lists.value_lengths().to_numpy()
        self.multi.update(names.filter(pa.array(sizes > 1)).unique().to_pylist())
        of = pa.array(np.repeat(np.arange(len(names)), sizes))
        for name, value, n in _counted(pa.table({"name": names.take(of), "value": lists.flatten()})):
            self.values[name, value] += n


def entries(column: pa.MapArray) -> tuple[NDArray[np.int64], pa.StringArray, pa.ListArray]:
    """The entries of a column of maps, one after the other: the row, the name and the values of each, (P,)."""
    offsets = column.offsets.to_numpy()
    start, n = int(offsets[0]), int(offsets[-1] - offsets[0])
    rows = np.repeat(np.arange(len(column), dtype=np.int64), np.diff(offsets))
    return rows, column.keys.slice(start, n), column.items.slice(start, n)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _counted(pairs: pa.Table) -> Iterable[tuple[str, str, int]]:
    counts = pairs.group_by(pairs.column_names, use_threads=False).aggregate([([], "count_all")])
    columns = (counts[name].to_pylist() for name in (*pairs.column_names, "count_all"))
    return zip(*columns, strict=True)


def unknown_labels(seen: Seen, vocabulary: Vocabulary) -> dict[str, Counter[str]]:
    """The values seen that a vocabulary does not have, and how many products have them, by attribute."""
    known = {attribute.name: _knows(attribute) for attribute in vocabulary.attributes}
    found: dict[str, Counter[str]] = {name: Counter() for name in known}
    for (name, value), n in seen.values.items():
        if not known[name](value):
            found[name][value] += n
    return {name: values for name, values in found.items() if values}


def _knows(attribute: Attribute) -> Callable[[str], bool]:
    if attribute.kind == "number":
        return _is_number
    names = {"yes", "no"} if attribute.kind == "boolean" else {value.name for value in attribute.values}
    return names.__contains__


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def homes(seen: Seen, taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    """Where each labelled attribute applies, as `Attribute.nodes`: () is everywhere.

    Everywhere, unless most of the branches of level 1 that have products never have it: then below those that do.
    """
    nodes = [node for node in seen.n_nodes if node is not None]
    tops = taxonomy.lineage[taxonomy.indices(nodes), 0].tolist() if nodes else []
    branches = {node: taxonomy.ids[top] for node, top in zip(nodes, tops, strict=True)}
    stocked = set(branches.values())
    found: dict[str, set[str]] = {name: set() for name in seen.products}
    for name, node in seen.places:
        if node is not None:
            found[name].add(branches[node])
    return {
        name: () if not at or 2 * len(at) >= len(stocked) else tuple(node for node in taxonomy.ids if node in at)
        for name, at in found.items()
    }
