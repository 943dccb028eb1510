"""What jobs work with, outside the server: the same database, pictures and models, and nothing that answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select

from shelver.decide import Policy, policies_of
from shelver.errors import ConfigError
from shelver.library import ModelStore
from shelver.service.accounts import secret
from shelver.service.db import Database, migrate, open_database
from shelver.service.jobs.keeping import days_ago, drop_old_jobs, drop_old_uploads
from shelver.service.products.picture_store import PictureStore
from shelver.service.storage import open_pictures, open_store
from shelver.service.tables.models import StoredPolicy
from shelver.settings import read_service_settings


@dataclass(frozen=True)
class Workplace:
    """An installation, as its workers see it.

    Attributes:
        data: its folder; every worker must see the same one as the server.
        database, pictures, store: of the installation.
        threads: for each ONNX session and for training.
        limit_s: how long one attempt at a job may take.
        review_below: answers of less confidence wait for a reviewer.
        keep_days: how long jobs that have ended stay; 0: for ever.
    """

    data: Path
    database: Database
    pictures: PictureStore
    store: ModelStore
    threads: int | None
    limit_s: float
    review_below: float
    keep_days: float

    def policies(self, model: Path) -> dict[str, Policy]:
        """The policies of a model folder, and before them those of the service."""
        found = dict(policies_of(model))
        with self.database.reading() as session:
            rows = session.execute(select(StoredPolicy.name, StoredPolicy.body)).all()
        for name, body in rows:
            try:
                found[name] = Policy.model_validate_json(body)
            except ValidationError as error:
                raise ConfigError(
                    f"the stored policy {name!r:.80} cannot be read",
                    allowed="a policy as this version writes it",
                    remedy="Write the policy again.",
                ) from error
        return found

    def champion(self) -> str:
        """Version of the model that answers now.

        Raises:
            ConfigError: there is none.
        """
        champion = self.store.aliases().champion
        if champion is None:
            raise ConfigError(
                "no model answers", allowed="a service with a champion", remedy="Register and promote a model."
            )
        return champion

    def sweep(self) -> int:
        """Delete what has been kept long enough, and what people who have left have left behind; how many jobs."""
        before = days_ago(self.keep_days)
        drop_old_uploads(self.database, self.data, before)
        return drop_old_jobs(self.database, self.data, before)


@contextmanager
def open_workplace(*, migrated: bool = False, **given: Any) -> Iterator[Workplace]:
    """Open an installation for work.

    Args:
        migrated: the database is known to have the tables of this version.
        given: settings that win over the environment and the file, where they are not None.

    Raises:
        ConfigError: a setting is wrong, or the database is of a newer version.
    """
    settings = read_service_settings(**given)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_database(secret.database_url(settings)) as database:
        if not migrated:
            migrate(database.engine)
        yield Workplace(
            data=settings.data.resolve(),
            database=database,
            pictures=open_pictures(settings),
            store=open_store(settings),
            threads=settings.threads,
            limit_s=settings.job_limit_s,
            review_below=settings.review_below,
            keep_days=settings.job_keep_days,
        )
