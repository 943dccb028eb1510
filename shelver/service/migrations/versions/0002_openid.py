"""Accounts of people whom an issuer of OpenID Connect signs in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from shelver.service.tables.declarative import UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    exact = (
        sa.String(length=255)
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=255), "mariadb")
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=255), "mysql")
    )
    op.create_table(
        "openid_links",
        sa.Column("issuer", exact, nullable=False),
        sa.Column("subject", exact, nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_openid_links_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_openid_links")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_openid_links_issuer_subject")),
    )
    op.create_index(op.f("ix_openid_links_user_id"), "openid_links", ["user_id"], unique=False)
