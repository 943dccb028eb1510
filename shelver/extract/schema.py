"""Which attributes each category has, as columns, and how an extractor is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shelver.extract.examples import Example

Ints = NDArray[np.int64]


class ExtractSpec(BaseModel):
    """How an extractor reads titles and learns.

    Attributes:
        max_words: the longest value, in words; longer ones are neither learned nor found.
        min_count: titles that must have a feature before it gets a weight.
        hidden: share of the features that each step does not see, so that no single one carries a value alone.
        n_epochs: how often each title is learned from.
        batch: titles of one category that a step looks at.
        rate: the step of AdaGrad.
        decay: how strongly weights are drawn to 0.
        unlisted: what an attribute of the category that an example does not list means: "none", the title does not
            state it; "unknown", nobody looked, and nothing is learned from it; "auto" is "unknown" where any
            example lists an attribute without a value, since such labels would be needless otherwise.
        seed: of the order of the titles and of what is hidden.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_words: int = Field(default=10, ge=1, le=40)
    min_count: int = Field(default=2, ge=1)
    hidden: float = Field(default=0.3, ge=0, lt=1)
    n_epochs: int = Field(default=15, ge=1, le=1000)
    batch: int = Field(default=32, ge=1, le=4096)
    rate: float = Field(default=0.3, gt=0)
    decay: float = Field(default=1e-3, ge=0)
    unlisted: Literal["auto", "none", "unknown"] = "auto"
    seed: int = Field(default=0, ge=0)

    def unlisted_is_none(self, examples: Sequence[Example]) -> bool:
        """What `unlisted` comes to with these examples."""
        if self.unlisted == "auto":
            return all(values for example in examples for values in example.values.values())
        return self.unlisted == "none"


@dataclass(frozen=True)
class Schema:
    """The attributes of each category.

    A *pair* is a category and one of its attributes; pairs of a category stand side by side. An attribute that
    several categories have is one *name*.

    Attributes:
        attributes: category to its attributes, both sorted.
    """

    attributes: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Schema:
        """All that is listed."""
        found: dict[str, set[str]] = {}
        for example in examples:
            found.setdefault(example.category, set()).update(example.values)
        return cls({category: tuple(sorted(found[category])) for category in sorted(found)})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All attributes, sorted."""
        return tuple(sorted({name for names in self.attributes.values() for name in names}))

    @cached_property
    def n_pairs(self) -> int:
        """How many pairs there are."""
        return sum(map(len, self.attributes.values()))

    @cached_property
    def name_of_pair(self) -> Ints:
        """Each pair's name, shape (n_pairs,)."""
        number = {name: i for i, name in enumerate(self.names)}
        return np.array([number[name] for names in self.attributes.values() for name in names], np.int64)

    @cached_property
    def _first_pair(self) -> dict[str, int]:
        first, found = 0, {}
        for category, names in self.attributes.items():
            found[category] = first
            first += len(names)
        return found

    def pairs(self, category: str) -> slice:
        """The pairs of a category."""
        first = self._first_pair[category]
        return slice(first, first + len(self.attributes[category]))
