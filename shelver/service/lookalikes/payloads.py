"""What goes in and out of the routes of look-alikes, as JSON."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from shelver.service.records.payloads import Name

MAX_SIMILAR: Final = 100
Text = Annotated[str, Field(max_length=100_000)]
Limit = Annotated[int, Field(ge=1, le=MAX_SIMILAR, description="So many products at most.", examples=[10])]


class SimilarIn(BaseModel):
    """A product that others may look like: a text, a picture or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Text | None = Field(default=None, examples=["Folding deck chair, beech"])
    description: Text | None = None
    brand: Text | None = None
    image_base64: str | None = Field(
        default=None, description="A picture as base64, as /v1/predict takes it.", examples=[None]
    )
    node_id: Name | None = Field(default=None, description="Only products of this category.", examples=[None])
    limit: Limit = 10


class SimilarFilters(BaseModel):
    """Which look-alikes of a product are meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Name | None = Field(default=None, description="Only products of this category.")
    limit: Limit = 10


class SimilarProduct(BaseModel):
    """A product that looks alike. What is another seller's shows no more than a shop window."""

    similarity: float = Field(
        description="Cosine of the embeddings: of texts, of pictures, or the mean of both where both have both.",
        examples=[0.87],
    )
    node_id: str | None
    path: str | None = Field(description="Of the category, where the current tree has it.")
    title: str | None
    mine: bool = Field(description="Whether it is the caller's own.", examples=[False])
    product_id: str | None = Field(description="None of products that the caller may not read.")
    owner_id: str | None = Field(description="Only for reviewers and administrators, and of one's own.")
    pictures: list[str] = Field(description="Hashes; none of products that the caller may not read.")


class SimilarOut(BaseModel):
    """Products that look alike, the most similar first."""

    items: list[SimilarProduct]
    complete: bool = Field(
        description="False while products that were saved, or all after a new model, are still being embedded."
    )
    picture_error: str | None = Field(description="Why the picture was left out.", examples=[None])
    model_version: str = Field(examples=["4f9b093fc85d"])
