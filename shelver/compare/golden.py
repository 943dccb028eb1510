"""The labelled products that all models are asked about, what they are worth, and how they are sliced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.compare.schema import SliceKind, ValuesFrom
from shelver.errors import CatalogError, InputError
from shelver.evaluate.several import padded
from shelver.metrics import FREQUENCIES, head_torso_tail
from shelver.taxonomy import Taxonomy
from shelver.values import popularity

MIN_PRODUCTS: Final = 20
"""A slice with fewer says nothing, and every slice makes the correction for their number stricter."""
MAX_SLICES: Final = 20
"""Of one kind, and of branches at one level: the most valuable ones."""
DEEP_SHARE: Final = 0.05
"""Share of the value from which a branch below level 1 is looked at by itself."""
INPUTS: Final = ("neither", "text", "image", "both")


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the products: `rows` is (N,) bool."""

    kind: SliceKind
    name: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Golden:
    """The labelled products of a split, in the catalog's order.

    Attributes:
        tree: the catalog's.
        node: true nodes, indices into `tree`, shape (N,).
        value: what each product's category is worth, shape (N,), from 0; all 1 where nothing is known.
        values_from: where the values are from; None where nothing is known.
        inputs: what each product came with, an index into INPUTS, shape (N,).
        source, language: of each product, None where unknown, shape (N,).
        n_unlabelled: products of the split without a label.
        also: other right nodes, -1 padded, shape (N, A); None where no product has any.
    """

    tree: Taxonomy
    node: NDArray[np.int32]
    value: NDArray[np.float64]
    values_from: ValuesFrom | None
    inputs: NDArray[np.int8]
    source: NDArray[Any]
    language: NDArray[Any]
    n_unlabelled: int
    also: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.node)


def read_golden(catalog: Catalog, split: Part, values: NDArray[np.float64] | None = None) -> Golden:
    """Read what the products are, without asking anybody.

    Args:
        catalog: a catalog or a golden set.
        split: its part.
        values: of the catalog's categories, shape (K,); None: the mean value of the category's products in the
            catalog, as `shelver.evaluate` has it.

    Raises:
        CatalogError: no labelled product.
        InputError: `values` has negative or unknown ones, or none above 0 for these products.
    """
    columns = ["title", "description", "brand", "node_id", "source", "language", "also_node_ids"]
    pictures = ["images"] if catalog.info.n_with_images else []
    parts, n_unlabelled = [], 0
    for batch in catalog.tables(split, columns=[*columns, *pictures], batch_rows=1024):
        table = pa.Table.from_batches([batch])
        labelled = table.filter(pc.is_valid(table["node_id"]))
        n_unlabelled += table.num_rows - labelled.num_rows
        inputs = np.zeros(labelled.num_rows, np.int8)
        for name in ("title", "description", "brand"):
            inputs |= pc.fill_null(pc.greater(pc.utf8_length(labelled[name]), 0), False).to_numpy().astype(np.int8)
        for name in pictures:
            has = pc.fill_null(pc.list_value_length(labelled[name]), 0).to_numpy() > 0
            inputs |= (has * np.int8(2)).astype(np.int8)
        kept = ["node_id", "source", "language", "also_node_ids"]
        parts.append(labelled.select(kept).append_column("inputs", [inputs]))
    n = sum(part.num_rows for part in parts)
    if not n:
        raise CatalogError(
            f"{catalog.folder} has no labelled product in its {split} split",
            allowed="a split with labelled products",
            remedy="Name another --split; `shelver describe` lists what the catalog has.",
        )
    table = pa.concat_tables(parts)
    tree = catalog.taxonomy
    named = table["node_id"].combine_chunks().dictionary_encode()
    node = tree.indices(named.dictionary.to_pylist())[named.indices.to_numpy()]
    value, values_from = _worth(catalog, values, node)
    return Golden(
        tree=tree,
        node=node,
        value=value,
        values_from=values_from,
        inputs=table["inputs"].to_numpy(),
        source=table["source"].to_numpy(),
        language=table["language"].to_numpy(),
        n_unlabelled=n_unlabelled,
        also=_also(table["also_node_ids"], tree),
    )


def _also(column: pa.ChunkedArray, tree: Taxonomy) -> NDArray[np.int32] | None:
    """Other right nodes; ids that the tree does not have are passed over."""
    row = pc.list_parent_indices(column.combine_chunks()).to_numpy()
    named = pc.list_flatten(column).combine_chunks().dictionary_encode()
    if not len(row):
        return None
    place = np.array([-1 if k is None else k for k in map(tree.find, named.dictionary.to_pylist())], np.int32)
    node = place[named.indices.to_numpy()]
    return padded(row[node >= 0].astype(np.int64), node[node >= 0], len(column))


def _worth(
    catalog: Catalog, values: NDArray[np.float64] | None, node: NDArray[np.int32]
) -> tuple[NDArray[np.float64], ValuesFrom | None]:
    """What each product is worth, and how it is known."""
    if values is None:
        known = popularity(catalog, catalog.taxonomy)
        if known is None or not known[node].any():
            return np.ones(len(node)), None
        return known[node], "products"
    worth = values[node]
    if not (np.isfinite(worth).all() and (worth >= 0).all() and worth.any()):
        raise InputError(
            "values that are below 0, unknown, or 0 for every one of the products",
            allowed="a number from 0 for each category, above 0 for one that the products have",
            remedy="Read them with `shelver.values.read_values`, and look at the file.",
        )
    return worth, "file"


def slices_of(golden: Golden, train_products: Mapping[str, int]) -> list[Slice]:
    """The slices that models are compared by: those with MIN_PRODUCTS or more that are not the whole.

    Branches are all of level 1, and deeper ones that hold DEEP_SHARE of the value; MAX_SLICES of a kind (of
    branches: of a level), the most valuable ones.

    Args:
        golden: the products.
        train_products: of the baseline's training, by node id; says what is head, torso and tail.
    """
    tree = golden.tree
    counts = np.array([train_products.get(node_id, 0) for node_id in tree.ids], np.int64)
    columns: dict[SliceKind, NDArray[Any]] = {
        "modality": np.array(INPUTS, object)[golden.inputs],
        "source": golden.source,
        "language": golden.language,
        "frequency": np.array(FREQUENCIES, object)[head_torso_tail(counts)[golden.node]],
    }
    found = list(_branches(golden))
    for kind, column in columns.items():
        names, codes = np.unique(np.where(column == np.array(None), "", column).astype(str), return_inverse=True)
        found += _largest(kind, codes, names.tolist(), golden, wanted=names != "")
    return found


def _branches(golden: Golden) -> Iterator[Slice]:
    tree = golden.tree
    floor = DEEP_SHARE * golden.value.sum()
    above = np.full(tree.n_nodes, len(golden) + 1)
    for level in range(1, tree.n_levels + 1):
        at = tree.ancestors_at(golden.node, level)
        n = np.bincount(at[at >= 0], minlength=tree.n_nodes)
        worth = np.bincount(at[at >= 0], weights=golden.value[at >= 0], minlength=tree.n_nodes)
        # An only child holds what its parent holds.
        wanted = n < above if level == 1 else (worth >= floor) & (n < above[tree.parent])
        yield from _largest("branch", at, tree.paths, golden, wanted=wanted)
        above = n


def _largest(
    kind: SliceKind, codes: NDArray[Any], names: Sequence[str], golden: Golden, *, wanted: NDArray[np.bool_]
) -> list[Slice]:
    """The most valuable of the products' groups; `codes` (N,) are indices into `names`, negative in none."""
    inside = codes >= 0
    n = np.bincount(codes[inside], minlength=len(names))
    worth = np.bincount(codes[inside], weights=golden.value[inside], minlength=len(names))
    fit = np.flatnonzero(wanted & (n >= MIN_PRODUCTS) & (n < len(golden)))
    largest = fit[np.argsort(-worth[fit], kind="stable")][:MAX_SLICES].tolist()
    return [Slice(kind, names[k], codes == k) for k in largest]
