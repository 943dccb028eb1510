"""What goes in and out of the figures of a node, as JSON."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from shelver.service.models.payloads import TreeNode
from shelver.service.records.payloads import Figure


class NodeAsked(BaseModel):
    """Which node, and which time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: str | None = Field(
        default=None,
        max_length=255,
        description="Of the tree; the whole tree where it is missing.",
        examples=["436"],
    )
    days: int = Field(default=30, ge=1, le=366, description="Predictions of so many days.")


class NodeCounts(BaseModel):
    """What is counted at a node and below it."""

    n_products_own: int = Field(description="Stored products of exactly this category.", examples=[12])
    n_products: int = Field(description="Of it or one below.", examples=[140])
    n_predictions: int = Field(description="Predictions that decided it or one below.", examples=[900])
    n_labels: int = Field(description="Of these, those that somebody judged.", examples=[210])
    accuracy: Figure | None = Field(description="Of what was decided here or below and judged: the right share.")
    found: Figure | None = Field(
        description="Of what truly belongs here or below: the share that was decided exactly."
    )


class ChildCounts(TreeNode, NodeCounts):
    """A child, and what is counted at it and below."""


class Confusion(BaseModel):
    """A category that was decided, the true one, and how often."""

    decided: TreeNode
    true: TreeNode
    n: int = Field(examples=[7])


class NodeQualityOut(BaseModel):
    """What happens at a node."""

    start: datetime
    end: datetime
    taxonomy_version: str
    node: TreeNode | None = Field(description="None: the whole tree.")
    parents: list[TreeNode] = Field(description="From level 1 down.")
    counts: NodeCounts
    children: list[ChildCounts] = Field(description="In the order of the tree.")
    mistaken_here: list[Confusion] = Field(
        description="Decided here or below, but truly elsewhere; most often first."
    )
    missed: list[Confusion] = Field(description="Truly here or below, but decided elsewhere.")
    within: list[Confusion] = Field(description="Both here or below, but not the same.")
    n_outside_tree: int = Field(description="Labels whose node the tree has lost.", examples=[0])
    complete: bool = Field(description="False where there were more judgements than are looked at.")
