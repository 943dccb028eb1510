"""The server: one process that answers over HTTP until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from types import FrameType
from typing import Final, TextIO

import uvicorn
from fastapi import FastAPI

from shelver.errors import ShelverError
from shelver.service.accounts import one_time, secret
from shelver.service.answers.gate import Door
from shelver.service.app import create_app
from shelver.service.db import migrate, open_database
from shelver.service.operations import set_up_logs
from shelver.service.problems import ServiceError
from shelver.settings import ServiceSettings

LISTENERS: Final = 8
"""In each turn of its loop libuv takes one new connection from a listener, and under load a turn takes tens of
milliseconds: callers would wait for seconds before anybody hears them."""
SWITCH_S: Final = 0.001
"""How long one thread may keep others from running Python. Requests and batches have a thread each; at 5 ms, which
Python has by default, a request that needs no model waits for batches again and again."""


def serve(settings: ServiceSettings, *, logs: TextIO | None = None) -> None:
    """Answer until SIGTERM or SIGINT; what has begun by then is finished first.

    Args:
        settings: of the installation.
        logs: where the log goes in place of standard error.

    Raises:
        ShelverError: it cannot start.
    """
    set_up_logs(stream=logs)
    app = create_app(settings)
    sys.setswitchinterval(SWITCH_S)
    # What is there by now stays for ever: looking through all of it for garbage would stop everything for 0.15 s.
    gc.collect()
    gc.freeze()
    # What refuses to start says why by itself; uvicorn would add a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not hasattr(app.state, "refused"))
    try:
        Server(app, settings).run()
    except SystemExit:  # how uvicorn ends where it could not start
        refused = getattr(app.state, "refused", None)
        if isinstance(refused, ShelverError):
            raise refused from None
        raise


class Server(uvicorn.Server):
    """uvicorn, as it answers here."""

    def __init__(self, app: FastAPI, settings: ServiceSettings) -> None:
        self._state = app.state
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=Door,
                lifespan="on",
                log_config=None,  # ours
                access_log=False,  # operations.Requests writes it, without queries
                server_header=False,
                forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
                timeout_graceful_shutdown=settings.stop_s,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen: several times at the same socket."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        for listening in [one for server in self.servers for one in server.sockets]:
            for _ in range(LISTENERS - 1):
                again = socket.socket(fileno=os.dup(listening.fileno()))
                server = await loop.create_server(self._door, sock=again, backlog=self.config.backlog)
                self.servers.append(server)

    def _door(self) -> Door:
        return Door(self.config, self.server_state, self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Told to stop: streams, which would go on for ever, look at `stopping` and end."""
        self._state.stopping = True
        super().handle_exit(sig, frame)


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
