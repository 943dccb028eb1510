"""What was asked, of predictions that wait for a reviewer; how sure the model was, and who skipped them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table, and fill the confidence in where the prediction has one."""
    op.create_table(
        "review_texts",
        sa.Column("prediction_id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("category_hint", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["review_items.prediction_id"],
            name=op.f("fk_review_texts_prediction_id_review_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("prediction_id", name=op.f("pk_review_texts")),
    )
    op.create_index(op.f("ix_review_texts_user_id"), "review_texts", ["user_id"])
    op.add_column("review_items", sa.Column("confidence", sa.Double(), nullable=True))
    op.add_column("review_items", sa.Column("skipped_by", sa.String(length=32), nullable=True))
    op.create_index(op.f("ix_review_items_skipped_by"), "review_items", ["skipped_by"])
    op.execute(
        "UPDATE review_items SET confidence ="
        " (SELECT confidence FROM predictions WHERE predictions.id = review_items.prediction_id)"
    )
