"""Where all places are taken, predictions are refused before anything is read of the request.

A refusal must cost next to nothing, or too many requests would stop the service all the same. `Door` refuses below
ASGI, for a tenth of what an answer costs; `Gate` does it in servers other than ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shelver.service.answers.batcher import N_PLACES, N_SPARE, BusyError
from shelver.service.operations import HEADERS, REQUEST_ID, request_id_from
from shelver.service.problems import response_of

if TYPE_CHECKING:
    from shelver.service.answers.answering import Answering
    from shelver.service.state import Service

GATED: Final = frozenset(
    {
        *("/v1/predict", "/v1/predict/batch", "/v1/embed/text", "/v1/embed/image", "/v1/probabilities"),
        *("/v1/decide", "/v1/explain"),
    }
)
_GATED_URLS: Final = {path.encode(): path for path in GATED}
_CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key"})

REST_S: Final = 0.002
"""How long the loop's thread rests after refusing. All places are taken then, so there is little else to do, and
each time it wakes it takes the interpreter from the thread that answers; those who come meanwhile are refused
together."""

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI has them: names in small letters."""


def credential_of(headers: Headers) -> int | None:
    """A number for what a caller signs in with; not the secret itself. None where he does not sign in."""
    found = tuple(header for header in headers if header[0] in _CREDENTIALS)
    return hash(found) if found else None


def is_full_for(answering: Answering, headers: Headers) -> bool:
    """Whether a prediction with these headers would only be refused."""
    batcher = answering.batcher
    # Many come at once, and take their places only later.
    if max(batcher.n_held, answering.n_inside) < batcher.n_places:
        return False
    if answering.n_inside >= batcher.n_places + N_SPARE:
        return True
    # Who is not known may still be one who has no place yet: he must say who he is first.
    return not batcher.has_room(answering.callers.get(credential_of(headers), ""))


class Gate:
    """ASGI middleware that refuses what is bound to be refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in GATED:
            await self._app(scope, receive, send)
            return
        answering: Answering = scope["app"].state.service.answering
        app = self._app
        if _INSIDE not in scope and is_full_for(answering, scope["headers"]):
            scope["route"] = _Refused(scope["path"])
            answering.figures.refused(scope["path"])
            app = response_of(Request(scope), BusyError(answering.batcher.n_places))
        try:
            await app(scope, receive, send)
        finally:
            if _INSIDE in scope:
                answering.n_inside -= 1


class _Refused(NamedTuple):
    """In place of a route, which nobody has looked for yet; metrics and log want its path."""

    path: str


class Door(HttpToolsProtocol):
    """The server's side of a connection: answers by itself what is bound to be refused.

    No application sees these requests. They have no line of their own in the log and are not among the requests
    of /metrics, which has `shelver_refused`.
    """

    _refused_lately = _entering = False

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._refused_lately = False
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Refuse, or hand the request to the application."""
        if self.cycle is _SAID and self.transport.is_closing():
            return  # what follows a refusal that was the last
        path = _GATED_URLS.get(self.url) if self.parser.get_method() == b"POST" else None
        free = self.cycle is None or self.cycle.response_complete
        # One who waits to be told to go on may keep his body to himself: then nobody knows where the next begins.
        if path is None or not free or self.expect_100_continue or self.parser.should_upgrade():
            super().on_headers_complete()
            return
        service: Service | None = self.app_state.get("service")
        if service is None or not is_full_for(service.answering, self.headers):
            self._entering = service is not None
            super().on_headers_complete()
            return
        service.answering.figures.refused(path)
        self._rest()
        keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        # One who asks on and on, and does not read what he is told, gets no more of our time and memory.
        keep = keep and not self._refused_lately and self.transport.get_write_buffer_size() == 0
        self._refused_lately = True
        self.cycle = _SAID
        self.transport.write(self._refusal(path, keep=keep))
        if not keep:
            self.transport.close()

    def _rest(self) -> None:
        """Rest when this turn of the loop is over, once for all who are refused in it."""
        if not self.app_state.get(_RESTING):
            self.app_state[_RESTING] = True
            self.loop.call_soon(self._resting)

    def _resting(self) -> None:
        self.app_state[_RESTING] = False
        time.sleep(REST_S)

    def on_message_complete(self) -> None:
        """The end of a request: after a refusal the connection waits for the next one."""
        if self.cycle is _SAID:
            if not self.transport.is_closing():
                self.on_response_complete()
            return
        # Not before it has come whole: those who send slowly keep nobody out. `Gate` counts it off.
        if self._entering and not self.cycle.response_complete:
            self.scope[_INSIDE] = True  # type: ignore[typeddict-unknown-key]
            self.app_state["service"].answering.n_inside += 1
        self._entering = False
        super().on_message_complete()

    def _refusal(self, path: str, *, keep: bool) -> bytes:
        given = next((value for name, value in self.headers if name == _REQUEST_ID), b"")
        request_id = request_id_from(given.decode("latin-1")).encode()
        head, before, after = _refusal_of(path)
        default = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        length = len(before) + len(request_id) + len(after)
        return b"HTTP/1.1 503 Service Unavailable\r\n%b%b%b: %b\r\nContent-Length: %d\r\n%b\r\n%b%b%b" % (
            *(default, head, REQUEST_ID.encode(), request_id, length),
            *(b"" if keep else b"Connection: close\r\n", before, request_id, after),
        )


class _Said:
    """In place of the exchange of a request and its answer, where no application takes part."""

    response_complete = True
    message_event = type("Nobody waits", (), {"set": lambda _: None})()


_INSIDE: Final = "shelver_inside"
_RESTING: Final = "shelver_resting"
_SAID: Final[Any] = _Said()
_REQUEST_ID: Final = REQUEST_ID.lower().encode()


@cache
def _refusal_of(path: str) -> tuple[bytes, bytes, bytes]:
    """The headers of a refusal, and its document before and after the id of the request."""
    mark = "the id of the request"
    scope = {
        "type": "http",
        "path": path,
        "headers": [],
        "server": ("", 80),
        "query_string": b"",
        "scheme": "http",
    }
    response = response_of(Request({**scope, "request_id": mark}), BusyError(N_PLACES))
    before, _, after = bytes(response.body).partition(json.dumps(mark)[1:-1].encode())
    headers = {**dict(response.headers), **HEADERS}
    del headers["content-length"]
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items()), before, after
