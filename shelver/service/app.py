"""The application: opens everything, includes every router, closes everything."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError

from shelver import __version__
from shelver.errors import ShelverError
from shelver.service import audit, documentation, openapi, operations
from shelver.service.accounts import keys, mail, openid, personal, secret, users
from shelver.service.accounts import routes as accounts
from shelver.service.accounts.identity import Identities
from shelver.service.accounts.issuer import issuer_of
from shelver.service.accounts.passwords import Passwords
from shelver.service.accounts.tokens import Tokens
from shelver.service.answers import predict
from shelver.service.answers.answering import Answering
from shelver.service.answers.fetching import Fetching
from shelver.service.answers.gate import Gate
from shelver.service.answers.repeat_store import RepeatStore
from shelver.service.answers.repeats import Repeats
from shelver.service.body_limits import BodyLimits
from shelver.service.db import migrate, open_database
from shelver.service.housekeeping import Housekeeping, parts_of
from shelver.service.jobs import routes as jobs
from shelver.service.limits import Limits
from shelver.service.lookalikes import routes as similar
from shelver.service.lookalikes.keeper import Lookalikes
from shelver.service.models import policies, taxonomy
from shelver.service.models import routes as models
from shelver.service.models.champion import open_models
from shelver.service.openapi import describe, operation_id
from shelver.service.pages import account, dashboard, feeds, home, issuer, listings, sell, static, tokens, training
from shelver.service.pages import accounts as account_pages
from shelver.service.pages import audit as audit_pages
from shelver.service.pages import jobs as job_pages
from shelver.service.pages import keys as key_pages
from shelver.service.pages import log as log_pages
from shelver.service.pages import models as model_pages
from shelver.service.pages import policies as policy_pages
from shelver.service.pages import review as review_pages
from shelver.service.pages import taxonomy as taxonomy_pages
from shelver.service.pages import users as user_pages
from shelver.service.pages.problem import problem_page
from shelver.service.problems import ServiceError, handle_problems
from shelver.service.products import pictures, samples, uploads
from shelver.service.products import routes as products
from shelver.service.records import feedback, labelled, predictions, quality, traffic
from shelver.service.records.held import Held
from shelver.service.records.log import PredictionLog
from shelver.service.reviews import routes as review
from shelver.service.reviews.waiting import Waiting
from shelver.service.state import Service
from shelver.service.storage import open_pictures
from shelver.settings import ServiceSettings

_ROUTERS: Final = (
    predict.router,  # first: routes are tried in this order
    operations.router,
    openapi.router,
    documentation.router,
    accounts.router,
    openid.router,
    personal.router,
    mail.router,
    users.router,
    keys.router,
    audit.router,
    predictions.router,
    products.router,
    pictures.router,
    samples.router,
    feedback.router,
    quality.router,
    labelled.router,
    traffic.router,
    review.router,
    similar.router,
    models.router,
    taxonomy.router,
    policies.router,
    jobs.router,
    uploads.router,
    # The web application.
    static.router,
    home.router,
    account_pages.router,
    issuer.router,
    tokens.router,
    account.router,
    user_pages.router,
    key_pages.router,
    audit_pages.router,
    job_pages.router,
    dashboard.router,
    training.router,
    model_pages.router,
    policy_pages.router,
    taxonomy_pages.router,
    review_pages.router,
    sell.router,
    listings.router,
    feeds.router,
    log_pages.router,
)


@contextmanager
def opened(settings: ServiceSettings, metrics: CollectorRegistry) -> Iterator[Service]:
    """Everything that requests share, open as long as the block runs."""
    with ExitStack() as stack:
        issuer = issuer_of(settings)
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = stack.enter_context(open_database(secret.database_url(settings)))
        migrate(database.engine)
        passwords = Passwords(
            characters=settings.password_characters, kib=settings.password_kib, passes=settings.password_passes
        )
        stack.callback(passwords.close)
        # Models, log and batcher open here, in this order: what is opened last is closed first.
        models = stack.enter_context(open_models(settings, database))
        keep_days = settings.log_keep_days or None
        waiting = Waiting(models.current, settings.review_below)
        log = stack.enter_context(
            PredictionLog(database, settings.data / operations.LOG, keep_days=keep_days, also=waiting.add)
        )
        held = Held(log.write)
        stack.callback(held.close)
        answering = Answering(models.current, metrics, repeats=Repeats(RepeatStore(database, metrics)))
        stack.callback(answering.close)
        fetching = Fetching(metrics, networks=settings.picture_networks, n_at_once=settings.picture_fetches)
        stack.callback(fetching.close)
        picture_store = open_pictures(settings, check=answering.decoders.processes.check)
        batcher = answering.batcher
        lookalikes = stack.enter_context(
            Lookalikes(
                database,
                models.current,
                picture_store,
                busy=lambda: batcher.n_waiting > 0,
                most=settings.similar_products,
            )
        )
        hook = mail.mail_hook_of(settings, database, metrics)
        if hook is not None:
            stack.enter_context(hook)
        stack.enter_context(Housekeeping(parts_of(settings, database, picture_store), metrics))
        service = Service(
            settings=settings,
            database=database,
            metrics=metrics,
            passwords=passwords,
            tokens=Tokens(secret.read_secret(settings), settings.access_s),
            identities=Identities(database, stale_s=settings.access_s),
            limits=Limits(),
            models=models,
            log=log,
            pictures=picture_store,
            answering=answering,
            fetching=fetching,
            held=held,
            waiting=waiting,
            lookalikes=lookalikes,
            issuer=issuer,
            mail=hook,
        )
        metrics.register(operations.Shown(service))
        yield service


def _without_database(error: OperationalError) -> ServiceError:
    if isinstance(error.orig, sqlite3.Error):  # a full disk, say; its words name no secret
        return ServiceError(
            "database_unavailable",
            f"a database file that cannot be used: {error.orig}",
            allowed="a file in a folder that can be written, with room on its disk",
            remedy="Make room, or name another file with --database; then start the service again.",
        )
    return ServiceError(
        "database_unavailable",
        "a database that does not answer",
        allowed="one that runs, under the URL of --database or SHELVER_SERVICE_DATABASE",
        remedy="Start it, or mend the URL; then start the service again.",
    )


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application of an installation; it opens its database and model when its lifespan begins."""
    metrics = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Service]]:
        with ExitStack() as stack:
            try:
                app.state.service = stack.enter_context(opened(settings, metrics))
            except OperationalError as error:
                app.state.refused = _without_database(error)
                raise app.state.refused from error
            except ShelverError as error:
                app.state.refused = error  # for whoever started the server
                raise
            yield {"service": app.state.service}  # the server looks at it before a request is read
            # Who is at work still needs this loop to end.
            await asyncio.to_thread(app.state.service.answering.close)

    app = FastAPI(
        title="shelver",
        version=__version__,
        description="Puts every product on the right shelf.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `openapi` and `documentation` have routes of their own
        generate_unique_id_function=operation_id,
    )
    handle_problems(app)
    app.state.problem_page = problem_page
    app.add_middleware(BodyLimits, max_bytes=settings.body_max_bytes)
    app.add_middleware(Gate)
    app.add_middleware(operations.Requests, metrics=metrics)  # the last added is the outermost
    for router in _ROUTERS:
        app.include_router(router)
    describe(app)
    return app
