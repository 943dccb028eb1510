"""The table of what products look like to a model."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, now
from shelver.service.tables.records import WORD_CHARS


class ProductVector(Base):
    """How a version of a product looks to some encoders: float16 of length 1, empty where it has no such part.

    Other encoders have rows of their own, so that a model that comes back finds its own again.
    """

    __tablename__ = "product_vectors"

    encoders: Mapped[str] = mapped_column(String(WORD_CHARS), primary_key=True)
    product_id: Mapped[str] = mapped_column(
        ForeignKey("products.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    version: Mapped[int]  # of the product
    at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    text: Mapped[bytes | None] = mapped_column(LargeBinary)
    image: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (Index("ix_product_vectors_fresh", "encoders", "at", "product_id"),)
