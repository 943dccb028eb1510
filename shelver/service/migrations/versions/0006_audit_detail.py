"""Details of the audit that are longer than MariaDB's TEXT."""

from __future__ import annotations

from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Widen the column; the others hold any length."""
    if op.get_bind().dialect.name in ("mysql", "mariadb"):
        op.alter_column(
            "audit", "detail", existing_type=mysql.TEXT(), type_=mysql.MEDIUMTEXT(), existing_nullable=False
        )
