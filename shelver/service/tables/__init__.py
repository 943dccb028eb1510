"""The tables of the database, one module a noun. Importing this package declares all of them."""

from __future__ import annotations

from shelver.service.tables import accounts, models, openid, records, repeats, reviews, vectors, work
from shelver.service.tables.declarative import Base

__all__ = ["Base", "accounts", "models", "openid", "records", "repeats", "reviews", "vectors", "work"]
