"""The history of the tables, for Alembic; `shelver.service.db.migrate` runs it when a server starts.

A revision makes and changes tables only, or what it does to rows can be done twice: MariaDB commits each statement
by itself, and a revision that was killed half way is run again.
"""
