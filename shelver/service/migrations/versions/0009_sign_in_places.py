"""Where a sign-in began, so that its owner can tell it from one that is not his."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns; sign-ins of before have neither."""
    op.add_column("sign_ins", sa.Column("address", sa.String(length=64), nullable=True))
    op.add_column("sign_ins", sa.Column("agent", sa.String(length=200), nullable=True))
