"""Labels as the sellers gave them become the catalog's: one name and one spelling each, the surest source first.

A mapped column wins over the table of specifications, and that over what a title states. With a vocabulary, names
and values are brought to its words, and a value that it does not have is kept as seen and counted. Without one, or
for what it does not know, the names and values are those that were seen; spellings that differ in case alone are
one, the commonest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from shelver.attributes import Attribute, Extractor, Normaliser, Value, Vocabulary
from shelver.attributes.fold import name_key
from shelver.catalog.attributes import LABELS, Seen, homes
from shelver.product import Product
from shelver.taxonomy import Taxonomy

MAX_LEAST = 5
"""A key of specification tables that fewer products have is left out; see `least_products`."""
TEXT_COLUMNS = ("product_id", "title", "description", "brand")

Labels = dict[str, tuple[str, ...]]


def least_products(n_products: int) -> int:
    """How many products must have a key of specification tables: 1 in a tiny catalog, 5 from 800 products."""
    return min(MAX_LEAST, 1 + n_products // 200)


class Labeller:
    """Settles the labels of one catalog; made when all rows were counted.

    Args:
        mapped: labels of mapped columns. specified: pairs of specification tables.
        order: names of the mapped attributes, as they are to stand.
        given: the vocabulary, if any.
        taxonomy: the catalog's tree.
        extract: titles and descriptions are searched for values too.
        n_products: of the catalog.

    Attributes:
        n_rare: pairs of specification tables left out, since too few products have their key.
    """

    def __init__(
        self,
        mapped: Seen,
        specified: Seen,
        *,
        order: Iterable[str],
        given: Vocabulary | None,
        taxonomy: Taxonomy,
        extract: bool,
        n_products: int,
    ) -> None:
        self._given = Normaliser(given) if given is not None else None
        self._taxonomy = taxonomy
        self._names = {name: self._known(name) or name for name in (*order, *sorted(mapped.products))}
        self._keys = self._name_keys(specified, least_products(n_products))
        self.n_rare = sum(n for key, n in specified.products.items() if key not in self._keys)
        self._spellings = self._spell(mapped, specified)
        self._wholes = {
            name: {fold for fold in found if "," not in fold} for name, found in self._spellings.items()
        }
        self._order = dict.fromkeys([*self._names.values(), *self._keys.values()])
        self._active = bool(mapped.products or specified.products)
        self._extractor: Extractor | None = None
        if extract and (given is not None or self._order):
            # What a given vocabulary does not know is not looked for: any word can be a value of it.
            self._sought = given if given is not None else self._draft()
            self._extractor = Extractor(self._sought)
            self._active = True
            self._applicable: dict[str | None, frozenset[str]] = {}

    def settle(self, batch: pa.RecordBatch) -> pa.Array:
        """The labels of staged rows, as a column of `SCHEMA`, shape (N,)."""
        if not self._active:
            return batch.column("attributes")
        columns = ["attributes", "specified", *(["node_id", *TEXT_COLUMNS] if self._extractor else ())]
        rows = batch.select(columns).to_pylist()
        return pa.array([[*self._labels(row).items()] for row in rows], LABELS)

    def vocabulary(self, seen: Seen) -> Vocabulary:
        """The catalog's vocabulary: the given one, then what was seen beside it; `seen`: the settled labels.

        A given attribute that only names nodes of another tree applies where it was labelled.
        """
        taxonomy = self._taxonomy
        places = homes(seen, taxonomy)
        known = list(self._given.vocabulary.attributes) if self._given is not None else []
        for at, attribute in enumerate(known):
            lost = attribute.nodes and all(taxonomy.find(node) is None for node in attribute.nodes)
            if lost and attribute.name in places:
                known[at] = attribute.model_copy(update={"nodes": places[attribute.name], "exact": False})
        values: dict[str, list[tuple[int, str]]] = {}
        for (name, value), n in seen.values.items():
            values.setdefault(name, []).append((-n, value))
        names = {attribute.name for attribute in known}
        for name in self._order:
            if name not in names and name in values:
                known.append(
                    Attribute(
                        name=name,
                        multi=name in seen.multi,
                        values=tuple(self._value(name, value) for _, value in sorted(values[name])),
                        nodes=places.get(name, ()),
                    )
                )
        return Vocabulary(attributes=tuple(known))

    def _known(self, name: str) -> str | None:
        found = self._given.find(name) if self._given is not None else None
        return found.name if found is not None else None

    def _name_keys(self, specified: Seen, least: int) -> dict[str, str]:
        """Key of specification tables → attribute, without the keys that are left out."""
        groups: dict[str, list[str]] = {}
        for key in sorted(specified.products, key=lambda key: (-specified.products[key], key)):
            groups.setdefault(name_key(key) or key, []).append(key)
        mapped = {name_key(name): final for name, final in self._names.items()}
        found: dict[str, str] = {}
        for folded, keys in groups.items():
            name = mapped.get(folded) or self._known(keys[0])
            if name is None and sum(specified.products[key] for key in keys) >= least:
                name = keys[0]
            if name is not None:
                found.update(dict.fromkeys(keys, name))
        return found

    def _spell(self, mapped: Seen, specified: Seen) -> dict[str, dict[str, Counter[str]]]:
        """Attribute → value in lower case → its spellings, for attributes that the vocabulary does not have."""
        found: dict[str, dict[str, Counter[str]]] = {}
        for names, seen in ((self._names, mapped), (self._keys, specified)):
            for (raw_name, value), n in seen.values.items():
                name = names.get(raw_name)
                if name is not None and not self._has(name):
                    found.setdefault(name, {}).setdefault(value.casefold(), Counter())[value] += n
        return found

    def _has(self, name: str) -> bool:
        return self._given is not None and name in self._given.vocabulary.by_name

    def _draft(self) -> Vocabulary:
        return Vocabulary(
            attributes=tuple(
                Attribute(
                    name=name, values=tuple(Value(name=_commonest(c)) for c in self._spellings[name].values())
                )
                for name in self._order
                if name in self._spellings
            )
        )

    def _value(self, name: str, value: str) -> Value:
        spellings = self._spellings.get(name, {}).get(value.casefold(), ())
        return Value(name=value, synonyms=tuple(sorted(other for other in spellings if other != value)))

    def _labels(self, row: Mapping[str, Any]) -> Labels:
        labels: Labels = {}
        for raw_name, raw in row["attributes"] or ():
            self._add(labels, self._names[raw_name], raw)
        specified: dict[str, list[str]] = {}
        for key, raw in row["specified"] or ():
            name = self._keys.get(key)
            if name is not None and name not in labels:
                specified.setdefault(name, []).extend(part for cell in raw for part in self._listed(name, cell))
        for name, cells in specified.items():
            self._add(labels, name, cells)
        if self._extractor is not None:
            applying = self._applying(row["node_id"])
            product = Product(**{name: row[name] for name in TEXT_COLUMNS})
            # Labelled ones are among them: a word of theirs is then not taken for another attribute's.
            labels = {**self._extractor.extract(product, applying), **labels}
        return labels

    def _add(self, labels: Labels, name: str, cells: Iterable[str]) -> None:
        found: dict[str, None] = dict.fromkeys(labels.get(name, ()))
        if self._given is not None and self._has(name):
            for cell in cells:
                found.update(dict.fromkeys(self._given.normalise(name, cell).values))
        else:
            spellings = self._spellings[name]
            found.update(dict.fromkeys(_commonest(spellings[cell.casefold()]) for cell in cells))
        if found:
            labels[name] = tuple(found)

    def _listed(self, name: str, cell: str) -> list[str]:
        """The values of a specification: "Red, Blue" are two where each stands alone elsewhere."""
        if "," not in cell or self._has(name):
            return [cell]
        parts = [part for piece in cell.split(",") if (part := piece.strip())]
        return parts if parts and all(part.casefold() in self._wholes[name] for part in parts) else [cell]

    def _applying(self, node_id: str | None) -> frozenset[str]:
        """The attributes that are looked for in the text of a product at a node."""
        if not self._applicable:
            attributes = self._sought.attributes
            # What a column or a specification names matters to this catalog, whatever tree the vocabulary is of.
            everywhere = np.array([not (a.nodes or a.exact) or a.name in self._order for a in attributes], bool)
            applies = self._sought.applies(self._taxonomy) | everywhere
            names = np.array([a.name for a in attributes], object)
            self._applicable = {
                node: frozenset(names[row].tolist()) for node, row in zip(self._taxonomy.ids, applies, strict=True)
            }
            self._applicable[None] = frozenset(names[everywhere].tolist())
        return self._applicable[node_id]


def _commonest(spellings: Counter[str]) -> str:
    return min(spellings, key=lambda spelling: (-spellings[spelling], spelling))
