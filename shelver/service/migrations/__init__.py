"""The history of the tables, for Alembic; `shelver.service.db.migrate` runs it when a server starts."""
