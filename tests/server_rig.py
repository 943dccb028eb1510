"""`shelver serve` as a process of its own, and what talks to it without getting in its way."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from shelver.service.accounts.secret import database_url
from shelver.service.accounts.tokens import KEY_PREFIX, hash_of, random_token
from shelver.service.db import migrate, open_database
from shelver.service.tables.accounts import ApiKey, User
from shelver.settings import ServiceSettings

START_S = 120.0
_PROGRAM = """
import sys
from shelver.service.server import serve
from shelver.settings import ServiceSettings
serve(ServiceSettings.model_validate_json(sys.argv[1]))
"""


def key_for(settings: ServiceSettings, role: str) -> str:
    """An API key of a new account, written before any server runs."""
    settings.data.mkdir(parents=True, exist_ok=True)
    key = random_token(KEY_PREFIX)
    with open_database(database_url(settings)) as database:
        migrate(database.engine)
        with database.writing() as session:
            user = User(name=f"a {role}", role=role)
            session.add(user)
            session.flush()
            session.add(ApiKey(user_id=user.id, hash=hash_of(key), hint=key[:8]))
    return key


@dataclass(eq=False)
class Serving:
    """A server that runs."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]


class Asker:
    """One keep-alive connection."""

    def __init__(self, port: int, key: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer, which is JSON."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def close(self) -> None:
        self._connection.close()


@contextmanager
def serving(settings: ServiceSettings, *, ready: bool = True) -> Iterator[Serving]:
    """A server of these settings at a free port; killed at the end where it still runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings.data.mkdir(parents=True, exist_ok=True)
    log = settings.data / f"server-{port}.txt"
    given = settings.model_copy(update={"port": port}).model_dump_json(exclude_defaults=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as stream,
        subprocess.Popen([sys.executable, "-c", _PROGRAM, given], env=environment, stderr=stream) as process,
    ):
        server = Serving(port, process, log)
        try:
            _await(server, "/readyz" if ready else "/healthz")
            yield server
        finally:
            if process.poll() is None:
                process.kill()


def _await(server: Serving, path: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log.read_text(encoding="utf-8")[-3000:]
        with contextlib.suppress(OSError, http.client.HTTPException):
            asker = Asker(server.port)
            try:
                if asker.ask("GET", path)[0] == 200:
                    return
            finally:
                asker.close()
        time.sleep(0.1)
    raise AssertionError(server.log.read_text(encoding="utf-8")[-3000:])
