"""Tables of what the service keeps of its work: predictions, products with their pictures, and people's labels."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT, VARCHAR
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now

ID_CHARS: Final = 32
NAME_CHARS: Final = 255
"""Ids of products and nodes, names of policies. Three such columns still fit into an index of MariaDB."""
FEED_ID_CHARS: Final = 500
"""Of what a seller calls a product himself: as much as a feed may say."""
WORD_CHARS: Final = 64
"""Versions, outcomes and other words of ours."""

# MariaDB would compare without regard to case and accents, and cut a TEXT at 64 KiB.
_EXACT: Final = String(NAME_CHARS).with_variant(VARCHAR(NAME_CHARS, collation="utf8mb4_bin"), "mysql", "mariadb")
_EXACT_FEED_ID: Final = String(FEED_ID_CHARS).with_variant(
    VARCHAR(FEED_ID_CHARS, collation="utf8mb4_bin"), "mysql", "mariadb"
)
_LONG: Final = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


class PredictionRow(Base):
    """The log: one row an answer; see `shelver.service.records.log.Entry`.

    No foreign key: entries are written later than they are made, and must go in whatever became of the user.
    """

    __tablename__ = "predictions"

    id: Mapped[str] = mapped_column(String(ID_CHARS), primary_key=True)
    at: Mapped[datetime]
    user_id: Mapped[str | None] = mapped_column(String(ID_CHARS))
    input_hash: Mapped[str] = mapped_column(String(WORD_CHARS))
    product_id: Mapped[str | None] = mapped_column(_EXACT, index=True)
    answer: Mapped[str] = mapped_column(_LONG)
    node_id: Mapped[str | None] = mapped_column(_EXACT)
    confidence: Mapped[float | None]
    outcome: Mapped[str] = mapped_column(String(WORD_CHARS))
    policy: Mapped[str] = mapped_column(String(NAME_CHARS))
    model_version: Mapped[str] = mapped_column(String(WORD_CHARS))
    taxonomy_version: Mapped[str] = mapped_column(String(WORD_CHARS))
    modality: Mapped[str | None] = mapped_column(String(WORD_CHARS))
    latency_ms: Mapped[float]

    # Every index costs each answer: only the lists of all, of one user, of one node and of one product have one.
    __table_args__ = (
        Index(None, "at", "id"),
        Index(None, "user_id", "at", "id"),
        Index(None, "node_id", "at", "id"),
    )


class PictureRow(Base):
    """A picture in the store, named by the SHA-256 of its bytes in hex."""

    __tablename__ = "pictures"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    n_bytes: Mapped[int]
    kind: Mapped[str] = mapped_column(String(WORD_CHARS))  # shelver.images.ImageFormat
    created_at: Mapped[datetime] = mapped_column(default=now)


class ProductRow(WithId, Base):
    """A seller's product.

    `seller_product_id` is what he calls it himself, in his feeds; he has no two that are called the same.
    `node_id` is the category that he chose, in the tree `taxonomy_version`; `prediction_id` is the proposal that
    he chose it from; `version` counts the changes; `search_key` is what the search looks at.
    """

    __tablename__ = "products"

    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    seller_product_id: Mapped[str | None] = mapped_column(_EXACT_FEED_ID)
    title: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(_LONG)
    brand: Mapped[str | None] = mapped_column(Text)
    attributes: Mapped[dict[str, list[str]]] = mapped_column(JSON)
    search_key: Mapped[str] = mapped_column(Text)
    node_id: Mapped[str | None] = mapped_column(_EXACT)
    taxonomy_version: Mapped[str | None] = mapped_column(String(WORD_CHARS))
    prediction_id: Mapped[str | None] = mapped_column(String(ID_CHARS), index=True)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (
        Index(None, "owner_id", "created_at", "id"),
        Index(None, "created_at", "id"),
        Index(None, "node_id", "created_at", "id"),
        Index(None, "owner_id", "seller_product_id", unique=True),  # NULL is not the same as NULL
    )


class ProductPicture(Base):
    """That a product shows a picture; `position` is its place among the product's pictures."""

    __tablename__ = "product_pictures"

    product_id: Mapped[str] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"), primary_key=True)
    hash: Mapped[str] = mapped_column(ForeignKey("pictures.hash"), primary_key=True, index=True)
    position: Mapped[int]


class FeedbackRow(WithId, Base):
    """One judgement of a person on a prediction. Rows are added; only `current_of` of an older one is emptied.

    What the prediction was stands here once more, since labels are kept longer than the log. `current_of` is
    "PREDICTION/USER" on a person's latest judgement and empty on his older ones: unique, so that two at the same
    moment cannot both be the latest.
    """

    __tablename__ = "feedback"

    prediction_id: Mapped[str] = mapped_column(String(ID_CHARS))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    role: Mapped[str] = mapped_column(String(16))  # of the person, then
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    action: Mapped[str] = mapped_column(String(WORD_CHARS))  # accept, correct or reject
    note: Mapped[str | None] = mapped_column(Text)
    current_of: Mapped[str | None] = mapped_column(String(2 * ID_CHARS + 1), unique=True)
    audit: Mapped[bool]
    product_id: Mapped[str | None] = mapped_column(_EXACT)
    predicted_at: Mapped[datetime]
    predicted_for: Mapped[str | None] = mapped_column(String(ID_CHARS))
    node_before: Mapped[str | None] = mapped_column(_EXACT)
    node_after: Mapped[str | None] = mapped_column(_EXACT)
    confidence: Mapped[float | None]
    outcome: Mapped[str] = mapped_column(String(WORD_CHARS))
    policy: Mapped[str] = mapped_column(String(NAME_CHARS))
    modality: Mapped[str | None] = mapped_column(String(WORD_CHARS))
    model_version: Mapped[str] = mapped_column(String(WORD_CHARS))
    taxonomy_version: Mapped[str] = mapped_column(String(WORD_CHARS))

    __table_args__ = (Index(None, "prediction_id", "at"), Index(None, "predicted_at", "id"))
