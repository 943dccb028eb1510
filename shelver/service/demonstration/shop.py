"""`prepare` makes the demo's installation: two models, people, weeks of visits, jobs; whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from prometheus_client import CollectorRegistry
from sqlalchemy import update

from shelver.decide import Policy
from shelver.errors import ConfigError
from shelver.library import ModelStore, Registered
from shelver.library.records import write
from shelver.library.remote import MODELS, REGISTERED
from shelver.service.accounts.identity import Identity
from shelver.service.app import opened
from shelver.service.audit import audit
from shelver.service.demonstration.calendar import DAYS, days_until
from shelver.service.demonstration.cast import Cast, engage
from shelver.service.demonstration.visits import WAREHOUSE, WINDOW, listings
from shelver.service.demonstration.weeks import Weeks, plan, split_at, with_doubtful
from shelver.service.demonstration.work import start_jobs
from shelver.service.jobs.keeping import CATALOGS
from shelver.service.models.policies import write_policy
from shelver.service.models.routes import promote_model
from shelver.service.state import Service
from shelver.service.storage import open_store
from shelver.service.tables.accounts import AuditEntry
from shelver.service.tables.declarative import now
from shelver.service.tables.models import StoredPolicy
from shelver.settings import ServiceSettings, read_service_settings

CATALOG: Final = "demo"
READY: Final = "demonstration"
"""A file in the data folder that is written last."""
N_VISITS: Final = 720
_N_FEED: Final = 48
_PROMOTED: Final = DAYS * 4 // 7
"""The day on which the demo's model takes over."""
_MORNING: Final = timedelta(hours=7, minutes=42)
_TRIED: Final = timedelta(hours=16)
"""Between a model's coming and its first answer."""
_ALIASES: Final = "aliases.json"
_POLICIES: Final = {
    # What is not sure goes to a person; what is less sure climbs to a broader shelf.
    WAREHOUSE: Policy(thresholds=(0.8,), unsure="review"),
    WINDOW: Policy(decoder="climb", thresholds=(0.5, 0.6, 0.7), unsure="suggest"),
}


@dataclass(frozen=True, slots=True)
class Stock:
    """What the demo has made before.

    Attributes:
        catalog: the demo's catalog.
        earlier: a model folder, of the model that answered first.
        model: the model that answers now.
        first_row: the generator's first row that no model has seen; seed: of the generator.
    """

    catalog: Path
    earlier: Path
    model: Path
    first_row: int
    seed: int = 0


def settings_of(data: Path, **given: object) -> ServiceSettings:
    """Settings of the demo's installation: all of it in one folder, with a shop window that everybody sees.

    Args:
        data: its folder.
        given: what else was asked for.

    Raises:
        ConfigError: a setting is wrong, or one of this machine would keep the demo's pictures elsewhere.
    """
    found = read_service_settings(
        data=data,
        database=f"sqlite:///{data.absolute() / 'shelver.db'}",
        examples=CATALOG,
        similar_across_sellers=True,
        audit_share=0.1,
        review_below=0.7,
        stop_s=5,
        **given,
    )
    if found.storage is not None:
        raise ConfigError(
            "object storage for the demo",
            allowed="an installation in one folder",
            remedy="Unset SHELVER_SERVICE_STORAGE, or leave the folder with its shelver.toml.",
        )
    alone = ("model", "secret", "openid_issuer", "openid_client_id", "openid_redirect", "mail_hook", "mail_secret")
    return found.model_copy(update={**dict.fromkeys(alone), "openid_client_secret": None})


def is_ready(settings: ServiceSettings) -> bool:
    """Whether the installation is there whole."""
    return (settings.data / READY).is_file()


def prepare(
    settings: ServiceSettings,
    stock: Stock,
    *,
    n_visits: int = N_VISITS,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Make the installation; one that is there whole stays as it is, one that is not is made anew.

    Args:
        settings: of the installation.
        stock: models and catalog.
        n_visits: how often somebody asks.
        say: is told how it goes on.
    """
    if is_ready(settings):
        return
    shutil.rmtree(settings.data, ignore_errors=True)
    settings.data.mkdir(parents=True, mode=0o700)
    shutil.copytree(stock.catalog, settings.data / CATALOGS / CATALOG)
    moment = now()
    days = days_until(moment)
    promoted = days[_PROMOTED] + _MORNING
    store = open_store(settings)
    first = store.register(stock.earlier, by="the demo", trial=False)
    store.promote(first.model_version, by="the demo")
    rng = Random(f"shelver demo weeks {stock.seed}")
    found = listings(stock.first_row, n_visits + _N_FEED + n_visits // 3, seed=stock.seed)
    # What was saved is embedded when the server starts, and takes no time from the visits.
    quiet = settings.model_copy(update={"model": None, "similar_products": 0})
    with opened(quiet, CollectorRegistry()) as service:
        with service.database.writing() as session:
            cast = engage(session, days[0])
        _write_policies(service, cast, days[2] + timedelta(hours=15))
        before, after = split_at(promoted, plan(rng, moment, found[:n_visits]))
        weeks = Weeks(service, cast, moment, rng)
        say(f"the first model answers {sum(len(day.visits) for day in before):,} visits of four weeks")
        weeks.pass_by(before)
        second = _promote(service, cast, stock.model, promoted)
        weeks.warm_up(found[:8])
        after = with_doubtful(service, rng, moment, after, found[n_visits + _N_FEED :])
        say(f"the demo's model answers {sum(len(day.visits) for day in after):,} visits of two weeks")
        weeks.pass_by(after)
        with service.database.writing() as session:
            start_jobs(service, session, cast, found[n_visits : n_visits + _N_FEED], CATALOG)
    _date_models(store, {first: days[0] - _TRIED, second: promoted - _TRIED}, promoted)
    (settings.data / READY).touch()


def _write_policies(service: Service, cast: Cast, at: datetime) -> None:
    for name, policy in _POLICIES.items():
        with service.database.writing() as session:
            write_policy(name, policy, service, cast.admin, session)
            session.flush()
            session.execute(update(StoredPolicy).where(StoredPolicy.name == name).values(changed_at=at))
            session.execute(update(AuditEntry).where(AuditEntry.subject == name).values(at=at))


def _promote(service: Service, cast: Cast, model: Path, moment: datetime) -> Registered:
    """Register the demo's model and let it answer, at that moment."""
    admin: Identity = cast.admin
    found = service.models.store.register(model, by=str(admin.user_id), trial=False)
    with service.database.writing() as session:
        detail = {"sha256": found.sha256, "source": found.source, "challenger": False}
        audit(session, admin, "model.register", found.model_version, detail)
    promote_model(found.model_version, service, admin)
    subject = AuditEntry.subject == found.model_version
    with service.database.writing() as session:
        for action, at in (("model.register", moment - _TRIED), ("model.promote", moment)):
            dated = update(AuditEntry).where(subject, AuditEntry.action == action)
            session.execute(dated.values(at=at))
    return found


def _date_models(store: ModelStore, came: Mapping[Registered, datetime], promoted: datetime) -> None:
    """Let the store say when the models came, as the log says when they answered."""
    for one, at in came.items():
        write(store.folder / MODELS / one.address / REGISTERED, one.model_copy(update={"registered_at": at}))
    write(store.folder / _ALIASES, store.aliases().model_copy(update={"changed_at": promoted}))
