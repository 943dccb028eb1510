"""The leak-safe split: what is the same product, or nearly, stands on one side only.

Two products are tied when their title keys are equal (`shelver.product.title_key`), when the keys are
near-equal (`shelver.catalog.near`), or when they share a picture (the same bytes). Tied products form groups,
also through others, and a group goes to one part whole. The largest groups are dealt first, each to the part
that lacks most, then the rest in the order of a hash of their content: the same catalog is always split in the
same way, in whatever order its rows come. Only near-equal titles that together are more than the largest part
may hold are narrowed (`n_narrowed`); what then leaks is counted.

A feed that brings its own `split` column is not moved: `respect` keeps it and counts what leaks across it.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shelver.catalog.near import NEAR_JACCARD, near_groups, unite
from shelver.errors import ConfigError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, Part, Part] = ("train", "validation", "test")
UNKNOWN = -1
"""In arrays of part indices: the row has no split of its own."""

Ints = NDArray[np.int64]


class Split(BaseModel):
    """The wished shares of train, validation and test, in percent. A part may be 0; the sum is 100."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: int = Field(default=80, ge=0, le=100)
    validation: int = Field(default=10, ge=0, le=100)
    test: int = Field(default=10, ge=0, le=100)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.train + self.validation + self.test != 100:
            raise ValueError("train, validation and test must sum to 100")
        return self

    @classmethod
    def parse(cls, text: str) -> Split:
        """Reads "80/10/10".

        Raises:
            ConfigError: not three whole numbers from 0 to 100 that sum to 100.
        """
        match = re.fullmatch(r"\s*(\d{1,3})\s*/\s*(\d{1,3})\s*/\s*(\d{1,3})\s*", text, re.ASCII)
        shares = [int(share) for share in match.groups()] if match else []
        if sum(shares) != 100:
            raise ConfigError(
                f"split {text[:40]!r}" + (f", which sums to {sum(shares)}" if shares else ""),
                allowed="train/validation/test in percent, three whole numbers that sum to 100; one may be 0",
                remedy="Write for example 80/10/10, or 90/10/0 where the test set is a file of its own.",
            )
        return cls(train=shares[0], validation=shares[1], test=shares[2])

    @property
    def shares(self) -> tuple[int, int, int]:
        """Percent of train, validation, test."""
        return self.train, self.validation, self.test

    def __str__(self) -> str:
        return "/".join(map(str, self.shares))


class SplitReport(BaseModel):
    """How a catalog was split.

    Attributes:
        method: `grouped` by this module, or `own` where the feed or recipe brought its split.
        wish: the shares asked for, "80/10/10"; None where the split is the feed's own.
        n_groups, largest_group: groups of tied products, and the products in the largest.
        near_jaccard: the similarity from which titles are near-equal.
        n_narrowed, exhaustive: see `shelver.catalog.near.NearGroups`; `n_narrowed` counts distinct titles.
        leaking_products: products of validation and test that are tied to one in train, or of test that are
            tied to one in validation, through narrowed groups too. 0 by construction where the method is
            `grouped` and `n_narrowed` is 0.
        leaking_titles: distinct title keys that stand in more than one part.
        leaking_pictures: distinct pictures that stand in more than one part.
        n_placed: rows without a split in a feed that has them; they follow the rows they are tied to (test
            before validation before train), and are train otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["grouped", "own"]
    wish: str | None
    n_groups: int
    largest_group: int
    near_jaccard: float
    n_narrowed: int
    exhaustive: bool
    leaking_products: int
    leaking_titles: int
    leaking_pictures: int
    n_placed: int


class Ties:
    """What ties products together; fed row by row.

    It takes 16 bytes a row and 16 a picture, and each distinct title once, with some 100 bytes around it. Titles
    that give no key (no text at all) tie nothing; such products are tied by their pictures only.
    """

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._key_of = array("q")
        self._picture_row = array("q")
        self._picture_hash = array("q")
        self._identity = array("Q")

    def __len__(self) -> int:
        return len(self._key_of)

    def add(self, key: str, pictures: Sequence[bytes], *, identity: str) -> None:
        """Adds the next product.

        Args:
            key: the title's key; "" for none.
            pictures: the SHA-256 of each picture.
            identity: the product id; it orders groups that have no title.
        """
        row = len(self._key_of)
        self._key_of.append(self._keys.setdefault(key, len(self._keys)) if key else -1)
        for digest in pictures:
            self._picture_row.append(row)
            self._picture_hash.append(int.from_bytes(digest[:8], "big", signed=True))
        self._identity.append(_stable_hash(key or f"\x1f{identity}"))

    def deal(self, wish: Split) -> tuple[Ints, SplitReport]:
        """Deals whole groups to the parts.

        Returns:
            The index into `PARTS` of each product, shape (N,), and the report.
        """
        groups = self._groups(capacity=max(wish.shares) / 100 * len(self))
        n_groups = len(groups.sizes)
        least = np.full(n_groups, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(least, groups.group, np.array(self._identity, np.uint64))
        order = np.lexsort((least, -groups.sizes))
        parts = [p for p in range(3) if wish.shares[p] > 0]
        lacking = [wish.shares[p] / 100 * len(self) for p in range(3)]
        part_of = np.zeros(n_groups, np.int64)
        for group, size in zip(order.tolist(), groups.sizes[order].tolist(), strict=True):
            part = max(parts, key=lambda p: lacking[p])
            part_of[group] = part
            lacking[part] -= size
        parts_of_rows = part_of[groups.group]
        return parts_of_rows, self._report(groups, parts_of_rows, "grouped", wish, 0)

    def respect(self, own: Ints) -> tuple[Ints, SplitReport]:
        """Keeps the feed's own split; rows without one follow their group, or go to train.

        Args:
            own: the index into `PARTS` of each product, or UNKNOWN, shape (N,).

        Returns:
            As `deal`.
        """
        groups = self._groups(capacity=math.inf)
        most_held_out = np.full(len(groups.sizes), 0, np.int64)
        np.maximum.at(most_held_out, groups.group, np.maximum(own, 0))
        parts = np.where(own == UNKNOWN, most_held_out[groups.group], own)
        return parts, self._report(groups, parts, "own", None, int((own == UNKNOWN).sum()))

    def _groups(self, *, capacity: float) -> _Groups:
        keys = list(self._keys)
        order = sorted(range(len(keys)), key=keys.__getitem__)
        to_sorted = np.empty(len(keys), np.int64)
        to_sorted[order] = np.arange(len(keys))
        key_of = np.array(self._key_of, np.int64)
        keyed = np.flatnonzero(key_of >= 0)
        key_of_keyed = to_sorted[key_of[keyed]]
        near = near_groups(
            [keys[i] for i in order],
            weight=np.bincount(key_of_keyed, minlength=len(keys)),
            capacity=capacity,
        )
        group, whole = (self._tied(keyed, labels[key_of_keyed]) for labels in (near.group, near.whole))
        return _Groups(group, whole, np.bincount(group), near.n_narrowed, near.exhaustive)

    def _tied(self, keyed: Ints, near: Ints) -> Ints:
        """The group of each product, from 0: tied by title, of the rows that have one, or by picture."""
        labels = np.arange(len(self), dtype=np.int64)
        _unite_equal(labels, keyed, near)
        _unite_equal(labels, np.array(self._picture_row, np.int64), np.array(self._picture_hash, np.int64))
        return np.unique(labels, return_inverse=True)[1]

    def _report(
        self, groups: _Groups, parts: Ints, method: Literal["grouped", "own"], wish: Split | None, n_placed: int
    ) -> SplitReport:
        first = np.full(len(groups.whole), len(PARTS), np.int64)  # there are no more groups than products
        np.minimum.at(first, groups.whole, parts)
        key_of = np.array(self._key_of, np.int64)
        picture_row = np.array(self._picture_row, np.int64)
        return SplitReport(
            method=method,
            wish=str(wish) if wish is not None else None,
            n_groups=len(groups.sizes),
            largest_group=int(groups.sizes.max(initial=0)),
            near_jaccard=NEAR_JACCARD,
            n_narrowed=groups.n_narrowed,
            exhaustive=groups.exhaustive,
            leaking_products=int((parts > first[groups.whole]).sum()),
            leaking_titles=_n_on_several_sides(key_of[key_of >= 0], parts[key_of >= 0]),
            leaking_pictures=_n_on_several_sides(np.array(self._picture_hash, np.int64), parts[picture_row]),
            n_placed=n_placed,
        )


class _Groups(NamedTuple):
    """Groups of tied products.

    Attributes:
        group: of each product, from 0, shape (N,). sizes: products in each.
        whole: likewise, without any narrowing: what leaks are counted against.
        n_narrowed, exhaustive: see `NearGroups`.
    """

    group: Ints
    whole: Ints
    sizes: Ints
    n_narrowed: int
    exhaustive: bool


def _unite_equal(labels: Ints, rows: Ints, values: Ints) -> None:
    order = np.argsort(values, kind="stable")
    rows, values = rows[order], values[order]
    same = np.flatnonzero(values[1:] == values[:-1])
    unite(labels, rows[same], rows[same + 1])


def _n_on_several_sides(values: Ints, parts: Ints) -> int:
    if not len(values):
        return 0
    _, inverse = np.unique(values, return_inverse=True)
    sides = np.zeros(int(inverse.max()) + 1, np.int64)
    np.bitwise_or.at(sides, inverse, np.int64(1) << parts)
    return int((np.bitwise_count(sides) > 1).sum())


def _stable_hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
