"""The review queue, reviewers' decisions, and what products look like."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from shelver.service.tables.declarative import UtcDateTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    exact = (
        sa.String(length=255)
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=255), "mariadb")
        .with_variant(mysql.VARCHAR(collation="utf8mb4_bin", length=255), "mysql")
    )
    op.create_table(
        "review_items",
        sa.Column("prediction_id", sa.String(length=32), nullable=False),
        sa.Column("input_hash", sa.String(length=64), nullable=False),
        sa.Column("node_id", exact, nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("audit", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("claimed_by", sa.String(length=32), nullable=True),
        sa.Column("claimed_until", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name=op.f("fk_review_items_prediction_id_predictions"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["claimed_by"], ["users.id"], name=op.f("fk_review_items_claimed_by_users")),
        sa.PrimaryKeyConstraint("prediction_id", name=op.f("pk_review_items")),
    )
    op.create_index("ix_review_items_queue", "review_items", ["state", "audit", "priority", "prediction_id"])
    op.create_index(op.f("ix_review_items_input_hash"), "review_items", ["input_hash"])
    op.create_index(op.f("ix_review_items_claimed_by"), "review_items", ["claimed_by"])
    op.create_table(
        "review_decisions",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("undone_at", UtcDateTime(), nullable=True),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_review_decisions_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_decisions")),
    )
    op.create_index("ix_review_decisions_latest", "review_decisions", ["user_id", "at", "id"])
    op.create_table(
        "product_vectors",
        sa.Column("encoders", sa.String(length=64), nullable=False),
        sa.Column("product_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=True),
        sa.Column("image", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
            name=op.f("fk_product_vectors_product_id_products"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("encoders", "product_id", name=op.f("pk_product_vectors")),
    )
    op.create_index(op.f("ix_product_vectors_product_id"), "product_vectors", ["product_id"])
    op.create_index("ix_product_vectors_fresh", "product_vectors", ["encoders", "at", "product_id"])
