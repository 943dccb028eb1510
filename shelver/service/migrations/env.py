"""Alembic runs this for each command; `shelver.service.db.migrate` hands it the connection."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
# MariaDB commits each statement that changes a table by itself.
context.configure(connection=connection, transactional_ddl=connection.dialect.name not in ("mysql", "mariadb"))
with context.begin_transaction():
    context.run_migrations()
