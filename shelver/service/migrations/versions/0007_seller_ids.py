"""What sellers call their products themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column, and that a seller has no two products of one name."""
    exact = (
        sa.String(length=500)
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=500), "mariadb")
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=500), "mysql")
    )
    op.add_column("products", sa.Column("seller_product_id", exact, nullable=True))
    op.create_index(
        op.f("ix_products_owner_id_products_seller_product_id"),
        "products",
        ["owner_id", "seller_product_id"],
        unique=True,
    )
