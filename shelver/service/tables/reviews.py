"""Tables of the review: what waits for a reviewer, and what reviewers decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now
from shelver.service.tables.records import ID_CHARS, NAME_CHARS, WORD_CHARS

_EXACT: Final = String(NAME_CHARS).with_variant(VARCHAR(NAME_CHARS, collation="utf8mb4_bin"), "mysql", "mariadb")


class ReviewItem(Base):
    """A prediction that waits for a reviewer, or has waited; it goes with the prediction.

    `audit` says that it was drawn from what sellers accepted; `priority` is the expected loss, from 0 to 1, and of
    those that were drawn a random number; `node_id` is the model's first suggestion, `confidence` how sure it was.
    Whoever skipped it gets it again last.
    """

    __tablename__ = "review_items"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    input_hash: Mapped[str] = mapped_column(String(WORD_CHARS), index=True)
    node_id: Mapped[str | None] = mapped_column(_EXACT)
    reason: Mapped[str] = mapped_column(String(WORD_CHARS))  # shelver.service.queueing.Reason
    audit: Mapped[bool]
    priority: Mapped[float]
    state: Mapped[str] = mapped_column(String(16), default="waiting")  # then decided
    created_at: Mapped[datetime] = mapped_column(default=now)
    claimed_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
    claimed_until: Mapped[datetime | None]
    confidence: Mapped[float | None]
    skipped_by: Mapped[str | None] = mapped_column(String(ID_CHARS), index=True)

    __table_args__ = (Index("ix_review_items_queue", "state", "audit", "priority", "prediction_id"),)


class ReviewText(Base):
    """What was asked, of a prediction that waits: the log has only a hash of it. It goes with the item.

    `user_id` is who asked, so that he finds it among what is stored about him.
    """

    __tablename__ = "review_texts"

    prediction_id: Mapped[str] = mapped_column(
        ForeignKey("review_items.prediction_id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[str | None] = mapped_column(String(ID_CHARS), index=True)
    title: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    brand: Mapped[str | None] = mapped_column(Text)
    category_hint: Mapped[str | None] = mapped_column(Text)


class ReviewDecision(WithId, Base):
    """What a reviewer decided in one go; `items` holds for each prediction its id, the id of the label, and of the
    label that he had given before, if there was one."""

    __tablename__ = "review_decisions"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    at: Mapped[datetime] = mapped_column(default=now)
    n_items: Mapped[int]
    items: Mapped[list[Any]] = mapped_column(JSON)
    undone_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_review_decisions_latest", "user_id", "at", "id"),)
