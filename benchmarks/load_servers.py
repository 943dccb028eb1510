"""The servers that `benchmarks.load` asks; each is a process of its own and prints its API key, or nothing."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from shelver.batch import output_row
from shelver.pipeline import Classifier
from shelver.product import Product

SERVERS: Final = ("ours", "plain", "bare")


Run = Callable[[int], None]
"""Answers at a port until the process is told to stop."""


def ours(model: Path, data: Path, threads: int) -> tuple[Run, str]:
    """The whole service as `shelver serve` starts it, with one machine's account, and the key of that."""
    from shelver.service.accounts.secret import database_url
    from shelver.service.accounts.tokens import KEY_PREFIX, hash_of, random_token
    from shelver.service.db import migrate, open_database
    from shelver.service.server import serve
    from shelver.service.tables.accounts import ApiKey, User
    from shelver.settings import ServiceSettings

    settings = ServiceSettings(model=model, data=data, threads=threads)
    key = random_token(KEY_PREFIX)
    with open_database(database_url(settings)) as database:
        migrate(database.engine)
        with database.writing() as session:
            user = User(name="load", role="service")
            session.add(user)
            session.flush()
            session.add(ApiKey(user_id=user.id, hash=hash_of(key), hint=key[:8]))
    return lambda port: serve(settings.model_copy(update={"port": port})), key


def plain(model: Path, _: Path, threads: int) -> tuple[Run, str]:
    """FastAPI as its tutorial has it: a plain function, the classifier called once a request."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    classifier = Classifier.open(model, threads=threads)
    app = FastAPI()

    class Body(BaseModel):
        title: str | None = None
        description: str | None = None
        brand: str | None = None
        image_base64: str | None = None

    def predict(body: Body) -> dict[str, Any]:
        return _answer(classifier, body.model_dump())

    predict.__annotations__["body"] = Body  # a class of this function, which a name does not find
    app.post("/v1/predict")(predict)
    return partial(_run, app), ""


def bare(model: Path, _: Path, threads: int) -> tuple[Run, str]:
    """An ASGI function: JSON in, the classifier called once in a thread, JSON out."""
    classifier = Classifier.open(model, threads=threads)
    workers = ThreadPoolExecutor(2)

    async def app(
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(workers, lambda: json.dumps(_answer(classifier, json.loads(body))))
        content = answer.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return partial(_run, app), ""


def _answer(classifier: Classifier, asked: dict[str, Any]) -> dict[str, Any]:
    image = asked.get("image_base64")
    product = Product(
        "",
        title=asked.get("title"),
        description=asked.get("description"),
        brand=asked.get("brand"),
        images=(base64.b64decode(image),) if image else (),
    )
    row = output_row("", classifier([product])[0], classifier.model_version)
    return {name: getattr(row, name) for name in row.__slots__}


def _run(app: Any, port: int) -> None:
    import uvicorn

    # It takes uvloop and httptools too, as they are installed.
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_servers", description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    call = parser.parse_args()
    run, key = {"ours": ours, "plain": plain, "bare": bare}[call.server](call.model, call.data, call.threads)
    print(key, flush=True)
    run(call.port)


if __name__ == "__main__":
    main()
