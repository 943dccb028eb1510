"""What goes in and out of the routes of products, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from shelver.service.records.payloads import Name, Paged

MAX_PICTURES: Final = 12
"""A product."""
MAX_ATTRIBUTE_CHARS: Final = 16_000
"""Names and values of a product's attributes together: lists show them all."""
MAX_SELLER_ID_CHARS: Final = 500
"""As of `shelver.catalog.reader`: what a feed may say."""
# Without space around it: MariaDB takes no notice of space at the end.
SellerProductId = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=MAX_SELLER_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]
"""What a seller calls a product himself, as in a feed."""


Standing = Literal["listed", "without_category", "proposed", "reviewed"]


class PictureIn(BaseModel):
    """A picture of a product: its bytes as base64, or the hash of one that a product of the caller's shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base64: str | None = Field(default=None, examples=["R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="])
    hash: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", examples=[None])


class ProductBody(BaseModel):
    """A product as its seller says it; everything may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seller_product_id: SellerProductId | None = Field(
        default=None,
        description="What the seller calls it himself: none of his other products may be called so. A change that "
        "does not name it leaves it as it is.",
        examples=["DC-104"],
    )
    title: Annotated[Name, StringConstraints(max_length=1000)] | None = Field(
        default=None, examples=["Folding deck chair, beech"]
    )
    description: Annotated[str, StringConstraints(max_length=50_000, pattern=r"^[^\x00]*$")] | None = None
    brand: Name | None = None
    attributes: dict[Name, Annotated[list[Name], Field(max_length=50)]] = Field(
        default_factory=dict, max_length=200, examples=[{"material": ["beech"]}]
    )
    node_id: Name | None = Field(
        default=None, description="The category that the seller chose, of the current tree.", examples=[None]
    )
    prediction_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{32}$",
        description="The caller's own prediction that he chose the category from.",
        examples=[None],
    )
    pictures: Annotated[list[PictureIn], Field(max_length=MAX_PICTURES)] | None = Field(
        default=None, description="In their order; where they are missing, a change leaves them as they are."
    )

    @field_validator("attributes")
    @classmethod
    def _not_too_long(cls, attributes: dict[str, list[str]]) -> dict[str, list[str]]:
        n_chars = sum(len(name) + sum(map(len, values)) for name, values in attributes.items())
        if n_chars > MAX_ATTRIBUTE_CHARS:
            raise ValueError(f"at most {MAX_ATTRIBUTE_CHARS} characters of attributes, not {n_chars}")
        return attributes


class ProductRead(BaseModel):
    """A product as it is stored."""

    id: str = Field(examples=["9f3b0e6f5a0b4e27a9d0b8c7f2b3d4e5"])
    owner_id: str
    # None by default: answers of before are kept for a day.
    seller_product_id: str | None = Field(
        default=None, description="What the seller calls it himself, as in his feeds.", examples=["DC-104"]
    )
    title: str | None
    description: str | None
    brand: str | None
    attributes: dict[str, list[str]]
    node_id: str | None
    path: str | None = Field(description="Of the category, where the current tree has it.")
    taxonomy_version: str | None = Field(description="The tree that the category was chosen from.")
    prediction_id: str | None
    pictures: list[str] = Field(description="Hashes; /v1/pictures/{hash} has the bytes.")
    version: int = Field(description="As in the `ETag`.")
    created_at: datetime
    updated_at: datetime


class ProductPage(BaseModel):
    """Some products, newest first."""

    items: list[ProductRead]
    next: str | None = Field(description="`after` of the next page; none where this is the last.")


class ProductFilters(Paged):
    """Which products are meant; all that are given must hold."""

    q: Name | None = Field(
        default=None,
        description="Words of the title or brand, or parts of them; or the seller's own id, whole.",
        examples=["chair"],
    )
    seller_product_id: SellerProductId | None = Field(
        default=None, description="Called exactly so by its seller.", examples=[None]
    )
    node_id: Name | None = None
    owner_id: Name | None = Field(default=None, description="Only for who sees those of others.")
    standing: Standing | None = Field(
        default=None,
        description="With a category or without one; without one, though one is proposed; or a reviewer has "
        "judged an answer for it.",
        examples=[None],
    )


class ExampleOut(BaseModel):
    """A product to try, as its seller sent it."""

    product_id: str = Field(examples=["D0000123"])
    title: str | None
    description: str | None
    brand: str | None
    image_base64: str | None = Field(
        description="The bytes of its picture.", examples=["R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="]
    )
    media_type: str | None = Field(description="Of the picture.", examples=["image/gif"])
