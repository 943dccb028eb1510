"""The table of OpenID Connect: which account belongs to whom at the issuer."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now

NAME_CHARS: Final = 255
# MariaDB would take two subjects that differ in case alone for one person.
_EXACT: Final = String(NAME_CHARS).with_variant(VARCHAR(NAME_CHARS, collation="utf8mb4_bin"), "mysql", "mariadb")


class OpenIdLink(WithId, Base):
    """An account, and the person at the issuer whom it belongs to. The e-mail address plays no part."""

    __tablename__ = "openid_links"

    issuer: Mapped[str] = mapped_column(_EXACT)
    subject: Mapped[str] = mapped_column(_EXACT)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (UniqueConstraint("issuer", "subject"),)
