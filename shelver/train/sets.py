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
from shelver.product import Product, title_key
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
    the same id and path; else it teaches its attributes alone. A product whose title stands in validation or test
    of another catalog is not learned from; a picture that does so under another title is not noticed.

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
                attribute = on_tree(attribute, catalog.taxonomy, self.taxonomy)
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
        for number, catalog in enumerate(self.catalogs):
            foreign, spared = self._foreign(catalog), self._spared(number, split)
            for batch in catalog.products(split, images=images):
                yield [
                    replace(p, node_id=None) if p.node_id in foreign else p
                    for p in batch
                    if not spared or title_key(p.title or "") not in spared
                ]

    @cached_property
    def _kept_back(self) -> dict[Part, tuple[frozenset[str], ...]]:
        """The titles in validation and in test, a set for each catalog."""
        parts: tuple[Part, ...] = ("validation", "test")
        return {part: tuple(_titles(catalog, part) for catalog in self.catalogs) for part in parts}

    def _spared(self, number: int, split: Part | None) -> frozenset[str]:
        """The titles that a catalog must not teach, as a later part of another one holds them: each catalog is
        split on its own, and what one tests another might have learned."""
        later: tuple[Part, ...] = ("validation", "test") if split == "train" else ("test",)
        if split not in ("train", "validation"):
            return frozenset()
        others = [of for part in later for at, of in enumerate(self._kept_back[part]) if at != number]
        return frozenset().union(*others)

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


def on_tree(attribute: Attribute, theirs: Taxonomy, tree: Taxonomy) -> Attribute:
    """An attribute of a catalog with another tree, for this one: it applies to the nodes that stand in both under
    the same path, and everywhere where there are none."""
    if theirs.version == tree.version or not attribute.nodes:
        return attribute
    kept = []
    for node_id in attribute.nodes:
        here, there = tree.find(node_id), theirs.find(node_id)
        if here is not None and (there is None or theirs.paths[there] == tree.paths[here]):
            kept.append(node_id)
    return attribute.model_copy(update={"nodes": tuple(kept), "exact": attribute.exact and bool(kept)})


def _titles(catalog: Catalog, split: Part) -> frozenset[str]:
    found = (title_key(p.title or "") for batch in catalog.products(split, images=False) for p in batch)
    return frozenset(key for key in found if key)


def _with_values(known: Attribute, other: Attribute) -> Attribute:
    names = {value.name for value in known.values}
    more = tuple(value for value in other.values if value.name not in names)
    nodes = tuple(dict.fromkeys([*known.nodes, *other.nodes])) if known.nodes and other.nodes else ()
    several = known.multi or other.multi
    return known.model_copy(update={"values": (*known.values, *more), "nodes": nodes, "multi": several})
