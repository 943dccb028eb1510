"""Several catalogs learned from at once: each may label what the others do not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from shelver.attributes import Attribute, Vocabulary
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.product import Product
from shelver.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class SetsInfo:
    """What is in all catalogs together; the fields mean what those of `CatalogInfo` do."""

    fingerprint: str
    by_split: dict[Part, int]
    n_with_text: int
    n_with_images: int


class Sets:
    """Catalogs, one after the other, as one.

    The first one's tree is learned. A product of another catalog keeps its category where that tree has it, under
    the same id and path; else it teaches its attributes alone.

    Attributes:
        catalogs: two or more.
        folder: of the first one.
    """

    def __init__(self, catalogs: Sequence[Catalog]) -> None:
        self.catalogs = tuple(catalogs)
        self.folder: Path = self.catalogs[0].folder

    @property
    def taxonomy(self) -> Taxonomy:
        """The first catalog's tree."""
        return self.catalogs[0].taxonomy

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The attributes of all catalogs; what two of them know is as the first one has it, with all values."""
        found: dict[str, Attribute] = {}
        for catalog in self.catalogs:
            for attribute in catalog.vocabulary.attributes:
                found[attribute.name] = _with_values(found.get(attribute.name, attribute), attribute)
        return Vocabulary(attributes=tuple(found.values()))

    @cached_property
    def info(self) -> SetsInfo:
        infos = [catalog.info for catalog in self.catalogs]
        splits: tuple[Part, ...] = ("train", "validation", "test")
        return SetsInfo(
            fingerprint=hashlib.sha256("\n".join(info.fingerprint for info in infos).encode()).hexdigest(),
            by_split={split: sum(info.by_split.get(split, 0) for info in infos) for split in splits},
            n_with_text=sum(info.n_with_text for info in infos),
            n_with_images=sum(info.n_with_images for info in infos),
        )

    def products(self, split: Part | None = None, *, images: bool = True) -> Iterator[list[Product]]:
        """The products of all catalogs in batches, as `Catalog.products` gives them."""
        for catalog in self.catalogs:
            foreign = self._foreign(catalog)
            for batch in catalog.products(split, images=images):
                yield [replace(p, node_id=None) if p.node_id in foreign else p for p in batch]

    def _foreign(self, catalog: Catalog) -> frozenset[str]:
        """Ids of a catalog's nodes that the tree does not have, or has elsewhere."""
        tree, theirs = self.taxonomy, catalog.taxonomy
        if theirs.version == tree.version:
            return frozenset()
        paths = dict(zip(tree.ids, tree.paths, strict=True))
        return frozenset(i for i, path in zip(theirs.ids, theirs.paths, strict=True) if paths.get(i) != path)

    def n_foreign(self) -> int:
        """Categories of the other catalogs that the tree does not have."""
        return sum(len(self._foreign(catalog)) for catalog in self.catalogs[1:])


Source = Catalog | Sets
"""What a training reads."""


def _with_values(known: Attribute, other: Attribute) -> Attribute:
    names = {value.name for value in known.values}
    more = tuple(value for value in other.values if value.name not in names)
    nodes = tuple(dict.fromkeys([*known.nodes, *other.nodes])) if known.nodes and other.nodes else ()
    return known.model_copy(update={"values": (*known.values, *more), "nodes": nodes})
