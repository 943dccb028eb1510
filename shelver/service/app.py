"""The application: opens everything, includes every router, closes everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from shelver import __version__
from shelver.errors import ShelverError
from shelver.service import (
    accounts,
    audit,
    feedback,
    keys,
    models,
    operations,
    pictures,
    policies,
    predict,
    predictions,
    products,
    quality,
    secret,
    taxonomy,
    users,
)
from shelver.service.answering import Answering
from shelver.service.champion import open_models
from shelver.service.db import migrate, open_database
from shelver.service.identity import Identities
from shelver.service.limits import Limits
from shelver.service.log import PredictionLog
from shelver.service.openapi import describe_problems
from shelver.service.passwords import Passwords
from shelver.service.pictures import PictureStore
from shelver.service.predict import Gate
from shelver.service.problems import handle_problems
from shelver.service.state import Service
from shelver.service.tokens import Tokens
from shelver.settings import ServiceSettings

_ROUTERS: Final = (
    predict.router,  # first: routes are tried in this order
    operations.router,
    accounts.router,
    users.router,
    keys.router,
    audit.router,
    predictions.router,
    products.router,
    pictures.router,
    feedback.router,
    quality.router,
    models.router,
    taxonomy.router,
    policies.router,
)


@contextmanager
def opened(settings: ServiceSettings, metrics: CollectorRegistry) -> Iterator[Service]:
    """Everything that requests share, open as long as the block runs."""
    with ExitStack() as stack:
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
        log = stack.enter_context(PredictionLog(database, settings.data / "log", keep_days=keep_days))
        operations.show_log(metrics, log)
        answering = Answering(models.current, metrics)
        stack.callback(answering.close)
        yield Service(
            settings=settings,
            database=database,
            metrics=metrics,
            passwords=passwords,
            tokens=Tokens(secret.read_secret(settings), settings.access_s),
            identities=Identities(database, stale_s=settings.access_s),
            limits=Limits(),
            models=models,
            log=log,
            pictures=PictureStore(settings.data / "pictures"),
            answering=answering,
        )


def create_app(settings: ServiceSettings) -> FastAPI:
    """The application of an installation; it opens its database and model when its lifespan begins."""
    metrics = CollectorRegistry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            try:
                app.state.service = stack.enter_context(opened(settings, metrics))
            except ShelverError as error:
                app.state.refused = error  # for whoever started the server
                raise
            yield

    app = FastAPI(
        title="shelver",
        version=__version__,
        description="Puts every product on the right shelf.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    handle_problems(app)
    app.add_middleware(Gate)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.body_max_bytes)
    app.add_middleware(operations.Requests, metrics=metrics)  # the last added is the outermost
    for router in _ROUTERS:
        app.include_router(router)
    describe_problems(app)
    return app
