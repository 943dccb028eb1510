"""The table of answers that are given again to a request that is sent again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.dialects.mysql import MEDIUMBLOB
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base


class RepeatRow(Base):
    """An answer under the SHA-256 of its caller and Idempotency-Key; kept for a day."""

    __tablename__ = "repeats"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes] = mapped_column(LargeBinary().with_variant(MEDIUMBLOB(), "mysql", "mariadb"))
    at: Mapped[datetime] = mapped_column(index=True)
