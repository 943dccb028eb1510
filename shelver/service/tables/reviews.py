"""Tables of the review: what waits for a reviewer, and what reviewers decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now
from shelver.service.tables.records import NAME_CHARS, WORD_CHARS

_EXACT: Final = String(NAME_CHARS).with_variant(VARCHAR(NAME_CHARS, collation="utf8mb4_bin"), "mysql", "mariadb")


class ReviewItem(Base):
    """A prediction that waits for a reviewer, or has waited; it goes with the prediction.

    `audit` says that it was drawn from what sellers accepted; `priority` is the expected loss, from 0 to 1, and of
    those that were drawn a random number; `node_id` is the model's first suggestion.
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

    __table_args__ = (Index("ix_review_items_queue", "state", "audit", "priority", "prediction_id"),)


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
