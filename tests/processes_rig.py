"""Servers as processes of their own, which a test may kill, and clients that go on whatever happens to them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

from shelver.service.accounts import secret
from shelver.service.accounts.tokens import Access, Tokens
from shelver.service.db import migrate, open_database
from shelver.service.tables.accounts import SignIn, User
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

START_S: Final = 60.0
NURSERY: Final = """
import json, os, signal, sys
from shelver.service.server import serve
from shelver.settings import ServiceSettings

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    settings = json.loads(line)
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            serve(ServiceSettings(**settings))
        finally:
            os._exit(1)
    print(child, flush=True)
"""
"""To import everything takes longer than all else of a start: it is done once, and each server is a fork."""


class Nursery:
    """Starts servers; `close` ends all of them. What they log goes to a file."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "servers.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NURSERY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self._children: list[int] = []

    def start(self, settings: ServiceSettings) -> int:
        """The process of a new server, once it answers."""
        said = settings.model_dump(mode="json") | {
            "secret": settings.secret and settings.secret.get_secret_value()
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(said)}\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        self._children.append(child)
        end = time.monotonic() + START_S
        with httpx2.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=5) as client:
            while not _ready(client):
                assert psutil.pid_exists(child), self.log.read_text()[-3000:]
                assert time.monotonic() < end, self.log.read_text()[-3000:]
                time.sleep(0.02)
        return child

    def kill(self, child: int) -> None:
        """SIGKILL; returns when the process is gone."""
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        while psutil.pid_exists(child):
            time.sleep(0.005)

    def close(self) -> None:
        for child in self._children:
            self.kill(child)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(START_S)
        self._process.stdout.close()


@contextmanager
def nursery(folder: Path) -> Iterator[Nursery]:
    """A nursery, closed when the block ends."""
    opened = Nursery(folder)
    try:
        yield opened
    finally:
        opened.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def seller_token(settings: ServiceSettings) -> str:
    """An access token of a new seller, made beside the service."""
    settings.data.mkdir(parents=True, exist_ok=True)
    with open_database(secret.database_url(settings)) as database:
        migrate(database.engine)
        with database.writing() as session:
            user = User(name="a seller", role="seller", email=f"{uuid.uuid4().hex}@example.org")
            session.add(user)
            session.flush()
            sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(days=1))
            session.add(sign_in)
            session.flush()
            return Tokens(secret.read_secret(settings), settings.access_s).sign(
                Access(user.id, sign_in.id, user.version)
            )


@dataclass
class Acknowledged:
    """What the service has told its clients that it did.

    Attributes:
        products: the product's id by Idempotency-Key.
        keyed: the answer's bytes by Idempotency-Key, of predictions.
        predictions: ids of all answers.
        judgements: ids of feedback.
        seconds: how long each prediction took.
        refused: statuses of predictions that were not answered, and errors of connections.
    """

    products: dict[str, str] = field(default_factory=dict)
    keyed: dict[str, bytes] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    judgements: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Writer(threading.Thread):
    """A seller's program: it sends until it is stopped, and what has a key again and again until it is answered.

    Args:
        url, token: of the service.
        told: shared by several writers.
        work: of "product", "keyed", "prediction" and "feedback", what it does in random order.
    """

    def __init__(self, url: str, token: str, told: Acknowledged, work: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._client = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        self._told = told
        self._work = work.split()
        self._random = random.Random(seed)
        self._over = threading.Event()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """End when what it has begun is done."""
        self._over.set()
        self.join(120)
        self._client.close()
        assert not self.is_alive()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        try:
            while not self._over.is_set():
                getattr(self, f"_{self._random.choice(self._work)}")()
        except BaseException as error:
            self.error = error

    def _product(self) -> None:
        key = uuid.uuid4().hex
        answer = self._until_answered("/v1/products", {"title": f"chair {key}"}, key)
        self._told.products[key] = answer.json()["id"]

    def _keyed(self) -> None:
        key = uuid.uuid4().hex
        answer = self._until_answered("/v1/predict", {"title": f"chair {key}"}, key)
        self._told.keyed[key] = answer.content
        self._told.predictions.append(answer.json()["prediction_id"])

    def _prediction(self) -> None:
        began = time.monotonic()
        answer = self._send("/v1/predict", {"title": "folding deck chair"})
        self._told.seconds.append(time.monotonic() - began)
        if answer is not None and answer.status_code == 200:
            self._told.predictions.append(answer.json()["prediction_id"])
        else:
            self._told.refused.append("no connection" if answer is None else f"{answer.status_code} {answer.text}")
            time.sleep(0.02)

    def _feedback(self) -> None:
        if self._told.predictions:
            prediction = self._told.predictions[-1]
            answer = self._send(f"/v1/predictions/{prediction}/feedback", {"action": "accept"})
            if answer is not None and answer.status_code == 201:
                self._told.judgements.append(answer.json()["id"])

    def _until_answered(self, path: str, body: dict[str, Any], key: str) -> httpx2.Response:
        end = time.monotonic() + 120
        while True:
            answer = self._send(path, body, key)
            if answer is not None and answer.status_code < 300:
                return answer
            assert answer is None or answer.status_code in (409, 503), answer.text
            assert time.monotonic() < end
            time.sleep(0.02)

    def _send(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx2.Response | None:
        try:
            return self._client.post(path, json=body, headers={} if key is None else {"Idempotency-Key": key})
        except httpx2.TransportError:
            return None


@contextmanager
def writers(n: int, url: str, token: str, work: str) -> Iterator[Acknowledged]:
    """What several writers are told while the block runs, and until each has ended what it had begun."""
    told = Acknowledged()
    threads = [Writer(url, token, told, work, seed) for seed in range(n)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        for thread in threads:
            thread.stop()


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def _ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False
