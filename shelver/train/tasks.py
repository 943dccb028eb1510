"""What is learned at once: the category, and each attribute that has labels enough.

Every expert scores the slots of all tasks, side by side: first the tree's, then one for each value of each
attribute. A product teaches the tasks that it has a label of; what it lacks is masked, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.attributes import Attribute, Value, Vocabulary
from shelver.errors import ConfigError
from shelver.pipeline import value_groups
from shelver.taxonomy import SiblingGroups

Said = Mapping[str, tuple[str, ...]]
"""The labelled values of one product, as `Product.attributes`."""
Labels = NDArray[np.int32] | NDArray[np.int8]
"""Of an attribute that takes one value: its number, shape (N,), int32, -1 where it is not known or not learned. Of
one that takes several: 1, 0, or -1 in the rows where they are not known, shape (N, V), int8."""

MIN_PRODUCTS: Final = 30
"""Labelled products from which on an attribute is learned."""
MIN_OF_VALUE: Final = 2
MAX_VALUES: Final = 400
"""Values of an attribute that are learned, the commonest ones."""
MAX_ALL_VALUES: Final = 1_000
"""Values of all attributes together, unless they are asked for by name: each is a column of every text's
embedding. The attributes with most labels come first."""
MIN_SHARE: Final = 0.5
"""Of the labelled products, those whose value is learned; an attribute of names and numbers, where each product
has a value of its own, is not for a classifier."""


@dataclass(frozen=True, slots=True, eq=False)
class AttributeTask:
    """One attribute that is learned.

    Attributes:
        attribute: with the values that are learned, V of them.
        groups: what its scores are calibrated on, as `value_groups` gives it.
        start: its first slot.
    """

    attribute: Attribute
    groups: SiblingGroups
    start: int

    @property
    def name(self) -> str:
        return self.attribute.name

    @property
    def slots(self) -> slice:
        return slice(self.start, self.start + len(self.attribute.values))


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """What a model learns.

    Attributes:
        groups: the tree's slots; None where only attributes are learned.
        attributes: those that are learned.
    """

    groups: SiblingGroups | None
    attributes: tuple[AttributeTask, ...] = ()

    @classmethod
    def of(cls, groups: SiblingGroups | None, vocabulary: Vocabulary) -> Tasks:
        """The tree's task and one for each attribute of a vocabulary."""
        start = groups.n_slots if groups is not None else 0
        tasks: list[AttributeTask] = []
        for attribute in vocabulary.attributes:
            tasks.append(AttributeTask(attribute, value_groups(attribute), start))
            start += len(attribute.values)
        return cls(groups, tuple(tasks))

    @property
    def n_levels(self) -> int:
        """Of the tree; 1 without."""
        return self.groups.taxonomy.n_levels if self.groups is not None else 1

    @property
    def n_tree_slots(self) -> int:
        return self.groups.n_slots if self.groups is not None else 0

    @property
    def n_values(self) -> int:
        """Slots of all attributes."""
        return sum(len(task.attribute.values) for task in self.attributes)


def learnable(
    said: Iterable[Said], vocabulary: Vocabulary, wanted: Sequence[str] | None
) -> tuple[Vocabulary, list[str]]:
    """The attributes that the labels of some training products can teach, and sentences that say which and why.

    Args:
        said: the labelled values of each product.
        vocabulary: of the catalog; attributes that it lacks are taken as they come.
        wanted: names of those to learn; None: all that can be.

    Raises:
        ConfigError: a wanted attribute is not labelled, or too little.
    """
    counts: dict[str, Counter[str]] = {}
    n_labelled: Counter[str] = Counter()
    for of_one in said:
        for name, values in of_one.items():
            if values:
                n_labelled[name] += 1
                counts.setdefault(name, Counter()).update(set(values))
    known = vocabulary.by_name
    names = [name for name in known if name in counts] + sorted(counts.keys() - known.keys())
    found: list[Attribute] = []
    left_out: list[str] = []
    for name in names:
        if wanted is not None and name not in wanted:
            continue
        attribute = known.get(name) or Attribute(name=name)
        common = [(v, n) for v, n in counts[name].most_common(MAX_VALUES) if n >= MIN_OF_VALUE]
        why = _why_not(attribute, n_labelled[name], common)
        if why is not None:
            left_out.append(f"{name} ({why})")
            continue
        # In an order that does not depend on that of the products.
        of_name = {value.name: value for value in attribute.values}
        learned = tuple(of_name.get(word) or Value(name=word) for word in sorted(value for value, _ in common))
        found.append(attribute.model_copy(update={"values": learned}))
    room, kept = MAX_ALL_VALUES, set[str]()
    for attribute in sorted(found, key=lambda a: (-n_labelled[a.name], a.name)):
        if len(attribute.values) <= room or wanted is not None:
            kept.add(attribute.name)
            room -= len(attribute.values)
        else:
            left_out.append(f"{attribute.name} (too many values beside those of commoner attributes)")
    found = [attribute for attribute in found if attribute.name in kept]
    missing = [name for name in wanted or () if name not in {attribute.name for attribute in found}]
    if missing:
        reasons = [text for text in left_out if text.split(" (")[0] in missing]
        raise ConfigError(
            f"attribute {missing[0]!r} cannot be learned" + (f": {reasons[0]}" if reasons else ""),
            allowed=f"attributes with labels in the training products: {', '.join(names) or 'there are none'}",
            remedy="Look at `shelver describe`; ingest the catalog with a mapping for the attribute's column.",
        )
    choices = []
    if found:
        listed = ", ".join(f"{a.name} ({len(a.values)} values, {n_labelled[a.name]:,} labels)" for a in found)
        choices.append(f"attributes learned with the category: {listed}")
    if left_out:
        shown = "; ".join(left_out[:8]) + (f" and {len(left_out) - 8} more" if len(left_out) > 8 else "")
        choices.append(f"attributes not learned: {shown}")
    return Vocabulary(attributes=tuple(found)), choices


def _why_not(attribute: Attribute, n_labelled: int, common: list[tuple[str, int]]) -> str | None:
    if attribute.kind == "number":
        return "a number"
    if n_labelled < MIN_PRODUCTS:
        return f"{n_labelled} labelled products, of {MIN_PRODUCTS} needed"
    if len(common) < (1 if attribute.multi else 2):
        return "fewer than two values that several products have"
    if sum(n for _, n in common) < MIN_SHARE * n_labelled:
        return "nearly every product has a value of its own"
    return None


def encode(said: Sequence[Said], attribute: Attribute) -> Labels:
    """The labels of an attribute, from what the products are labelled with."""
    number = {value.name: v for v, value in enumerate(attribute.values)}
    if not attribute.multi:
        return np.array([number.get(next(iter(of.get(attribute.name, ())), ""), -1) for of in said], np.int32)
    labels = np.full((len(said), len(number)), -1, np.int8)
    for row, of_one in enumerate(said):
        values = of_one.get(attribute.name)
        if values:
            labels[row] = 0
            labels[row, [number[value] for value in values if value in number]] = 1
    return labels


def is_known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a label, shape (N,)."""
    known: NDArray[np.bool_] = (labels if labels.ndim == 1 else labels[:, 0]) >= 0
    return known
