"""The server: one process that answers over HTTP until it is told to stop."""

from __future__ import annotations

import uvicorn

from shelver.errors import ShelverError
from shelver.service import one_time, secret
from shelver.service.app import create_app
from shelver.service.db import migrate, open_database
from shelver.service.operations import set_up_logs
from shelver.service.problems import ServiceError
from shelver.settings import ServiceSettings


def serve(settings: ServiceSettings) -> None:
    """Answer until SIGTERM or SIGINT; what has begun by then is finished first.

    Raises:
        ShelverError: it cannot start.
    """
    set_up_logs()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="on",
        log_config=None,  # ours
        access_log=False,  # operations.Requests writes it, without queries
        server_header=False,
        timeout_graceful_shutdown=settings.stop_s,
    )
    server = uvicorn.Server(config)
    server.run()
    refused = getattr(app.state, "refused", None)
    if isinstance(refused, ShelverError):
        raise refused


def first_admin_token(settings: ServiceSettings) -> str:
    """A token that makes the first administrator, once.

    Raises:
        ServiceError: there is an administrator.
    """
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_database(secret.database_url(settings)) as database:
        migrate(database.engine)
        with database.writing() as session:
            if one_time.has_admin(session):
                raise ServiceError(
                    "conflict",
                    "there is an administrator already",
                    allowed="an installation without one",
                    remedy="Ask an administrator for a role or a new password.",
                )
            return one_time.make_token(session, "first_admin", user_id=None, lives_s=settings.one_time_s)
