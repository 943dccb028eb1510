"""What a consumer wants of decisions: a small file that people can read."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Decoder = Literal["best_leaf", "greedy", "climb", "cost", "top_n"]
Unsure = Literal["stop", "suggest", "review", "abstain"]

Value = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]

SURE: Final = 0.0
"""The threshold that everything reaches."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Costs(_Frozen):
    """What the `cost` decoder counts with; the unit is free, only proportions matter.

    Deciding node d of a product that truly stands at t costs `wrong` for each level of d's path that is not on
    t's, and what is missed of t's path: each of its levels that d does not name costs `missed`. With `values`,
    what is missed of a product of category t is its value instead: all of it where d is not t, or with `partial`
    the share of t's levels that d does not name.

    Attributes:
        wrong: of a level that is named wrongly.
        missed: of a level that is not named; not used with `values`.
        values: of categories, by node id, from 0; those that are not listed count their mean.
        partial: a right ancestor earns its share of the value.
        review: of having a person look at the product. Products whose least expected cost is higher are unsure.
            None: they never are.
    """

    wrong: float = Field(default=1.0, ge=0)
    missed: float = Field(default=1.0, ge=0)
    values: dict[str, Value] | None = Field(default=None, min_length=1)
    partial: bool = False
    review: float | None = Field(default=None, ge=0)


class Promise(_Frozen):
    """What was promised, and what it rests on.

    "With confidence 1 - delta, at least the share `precision` of all future decisions from this population is
    right." Right: the decided node is the true node, or an ancestor of it no shallower than the policy's
    `min_level`. Of an attribute: the answered value is among the labelled ones; each value is a decision, and only
    products count of which the attribute is known.

    Attributes:
        precision: the target, in (0, 1).
        delta: chance that the promise is broken by a bad draw of the products it was fitted on.
        model_version: of the model whose probabilities were looked at.
        catalog_version: fingerprint of the catalog, `split` its part.
        n_products: labelled products that were looked at.
        n_decided, n_right: of them, at the threshold that was found.
        coverage: the share of the products that are decided, or have an answer.
    """

    precision: float = Field(gt=0, lt=1)
    delta: float = Field(default=0.05, gt=0, lt=1)
    model_version: str
    catalog_version: str
    split: str
    n_products: int
    n_decided: int
    n_right: int
    coverage: float


class AttributeRule(_Frozen):
    """How one attribute is answered.

    Attributes:
        threshold: P(value) from which a value is sure; others are not answered. None: of an attribute that takes
            one value the most probable one is answered, of one that takes several each that is more likely than
            not.
        answer: False leaves the attribute out.
        promise: what `shelver policy fit` found the threshold for.
    """

    threshold: float | None = Field(default=None, ge=0, le=1)
    answer: bool = True
    promise: Promise | None = None


class Policy(_Frozen):
    """How one consumer wants its decisions made.

    Attributes:
        decoder: "best_leaf" takes the most probable place where a product can stand: a leaf, or an inner node at
            which products were seen to stop. "greedy" takes the best node of level 1, then the best of its
            children, and stops where the probability falls below the level's threshold, at a leaf, or where to
            stop is no less probable than the best child. "climb" goes from the best place up until the probability
            reaches the level's threshold. "cost" takes the node of the least expected cost among those that are
            sure. "top_n" decides nothing and suggests.
        thresholds: P(node) from which a node of level 1, 2 and so on is sure; the last one goes on for deeper
            levels. None reaches one above 1: of that level nothing is decided.
        strict: by node id, a threshold in place of the level's for this node and all below it, where it is higher:
            nodes that need more care.
        min_level: the shallowest level that counts as an answer.
        max_level: the deepest level that is wanted; deeper decisions are cut there. None: any.
        n_top: how many suggestions to list.
        unsure: what becomes of a product of which nothing from `min_level` down is sure: "suggest" and "review"
            leave the node open and list suggestions, the latter for a person to decide; "abstain" gives nothing;
            "stop" does the same, but lets best_leaf first climb to the deepest ancestor that is sure.
        outside: products at least so strange are sent away: the share of known products that are less strange, in
            (0, 1). At .99 one in a hundred of the shop's own goes with them. None: nobody is.
        costs: of the `cost` decoder.
        attributes: by name, how an attribute is answered that applies to the product's node; those that are not
            listed always are.
        promise: what `shelver policy fit` found the thresholds for.
    """

    decoder: Decoder = "best_leaf"
    thresholds: tuple[Share, ...] = Field(default=(SURE,), min_length=1)
    strict: dict[str, Share] = {}
    min_level: int = Field(default=1, ge=1)
    max_level: int | None = Field(default=None, ge=1)
    n_top: int = Field(default=5, ge=1)
    unsure: Unsure = "stop"
    outside: float | None = Field(default=None, gt=0, lt=1)
    costs: Costs = Costs()
    attributes: dict[str, AttributeRule] = {}
    promise: Promise | None = None


DEEPEST = Policy()
"""The default: always the most probable place where products can stand, never an abstention."""
