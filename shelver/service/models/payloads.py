"""What goes in and out of the routes of models, policies and the tree, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shelver.decide import Policy

Alias = Literal["champion", "challenger", "previous"]
VERSION: Final = "4f9b093fc85d"
"""In examples."""


class ModelOut(BaseModel):
    """A registered model."""

    model_version: str = Field(examples=[VERSION])
    aliases: list[Alias] = Field(description="What it is now.", examples=[["champion"]])
    sha256: str = Field(description="Of its manifest, which holds those of its files.", examples=["5c" * 32])
    taxonomy_version: str = Field(examples=["7d30f8442dcc0dd9"])
    base: str | None = Field(description="The model that it was made from, if it was.", examples=[None])
    source: str = Field(description="Name of the folder that it was copied from.", examples=["fashion-2"])
    registered_at: datetime
    registered_by: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    n_bytes: int = Field(examples=[37914624])
    has_report: bool = Field(examples=[True])


class ModelsOut(BaseModel):
    """All models, the latest first."""

    models: list[ModelOut]
    revision: int = Field(description="Counts the changes of the aliases.", examples=[3])


class RegisterIn(BaseModel):
    """Which model to register."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        max_length=500,
        description="A model folder, from the import folder of the service on.",
        examples=["fashion-2"],
    )
    model_version: str | None = Field(None, description="Refuse any other than this one.", examples=[VERSION])
    challenger: bool = Field(False, description="Make it the challenger.", examples=[True])


class ChangedOut(BaseModel):
    """What is what after a change."""

    champion: str | None = Field(examples=[VERSION])
    challenger: str | None = Field(examples=[None])
    previous: str | None = Field(examples=["c0ffee123456"])
    revision: int = Field(examples=[4])
    misfits: dict[str, str] = Field(
        description="Policies of the service that do not fit the champion, and why.", examples=[{}]
    )


class PolicyOut(BaseModel):
    """A policy."""

    name: str = Field(examples=["default"])
    policy: Policy = Field(examples=[{"decoder": "climb", "thresholds": [0.8], "n_top": 3}])
    kept_by: Literal["model", "service"] = Field(
        description="Whether it came with the model, or is the service's own.", examples=["service"]
    )
    promised_for: str | None = Field(
        description="The model whose probabilities its promise was found for.", examples=[None]
    )
    changed_at: datetime | None
    changed_by: str | None = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])


class PoliciesOut(BaseModel):
    """All policies, by name."""

    policies: list[PolicyOut]
    model_version: str = Field(examples=["4f9b093fc85d"])


class TreeNode(BaseModel):
    """A node in a list."""

    node_id: str = Field(examples=["1604"])
    name: str = Field(examples=["Clothing"])
    path: list[str] = Field(examples=[["Apparel & Accessories", "Clothing"]])
    level: int = Field(description="1 is the first below the root.", examples=[2])
    is_leaf: bool = Field(examples=[False])


class NodeAttribute(BaseModel):
    """An attribute that applies to a node."""

    name: str = Field(examples=["colour"])
    multi: bool = Field(description="A product may have several values.", examples=[False])
    values: list[str] = Field(description="Those that the model can answer.", examples=[["black", "white"]])


class NodeDetail(TreeNode):
    """A node, what is around it, and what applies to it."""

    holds_products: bool = Field(description="Whether the model may put a product here.", examples=[True])
    parents: list[TreeNode] = Field(description="From level 1 down to the parent.")
    children: list[TreeNode]
    attributes: list[NodeAttribute]


class TaxonomyOut(BaseModel):
    """Facts of the tree."""

    taxonomy_version: str = Field(examples=["8f8c3ceda1ab8ca8"])
    model_version: str = Field(examples=["4f9b093fc85d"])
    n_nodes: int = Field(examples=[10595])
    n_leaves: int = Field(examples=[8000])
    n_levels: int = Field(examples=[7])
    nodes_by_level: list[int] = Field(examples=[[21, 192]])
    attributes: list[str] = Field(description="Those that the model has learned.", examples=[["colour"]])
    roots: list[TreeNode] = Field(description="The nodes of level 1.")


class NodeSearch(BaseModel):
    """What a search of the tree asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: str = Field(min_length=1, max_length=200, description="Words, or their beginnings.", examples=["chair"])
    n: int = Field(default=20, ge=1, le=100, description="At most so many.")


class FoundNode(TreeNode):
    """A node that a search found."""

    also: list[str] | None = Field(
        description="Its path in the language that was searched in, where that is not the tree's own.",
        examples=[["Vêtements et accessoires", "Vêtements"]],
    )


class FoundNodes(BaseModel):
    """Nodes that a search found, the best first."""

    taxonomy_version: str = Field(examples=["8f8c3ceda1ab8ca8"])
    nodes: list[FoundNode]
