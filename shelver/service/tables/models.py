"""Tables of what the service keeps beside its models: its own policies. The models themselves are folders."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, new_id, now


class StoredPolicy(Base):
    """A policy of the service; it stands before one of the same name in the model folder."""

    __tablename__ = "policies"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[str] = mapped_column(Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"))  # JSON
    revision: Mapped[str] = mapped_column(String(32), default=new_id, onupdate=new_id)  # another after each change
    changed_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    changed_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
