"""How much is read of a request's body, and how slowly it may come.

A body is read, and parsed, before a route knows who sent it. So what strangers send must be small: a large one
would keep the event loop busy for seconds, and many slow ones would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelver.service.accounts.identity import Role, identify
from shelver.service.answers.gate import GATED
from shelver.service.problems import ServiceError

if TYPE_CHECKING:
    from shelver.service.state import Service

SMALL_BYTES: Final = 64 * 2**10
"""Of strangers, and of everybody where nothing large is taken."""
LARGE: Final = (*sorted(GATED), "/v1/products", "/v1/similar", "/v1/uploads", "/sell", "/listings", "/feeds")
MIDDLE: Final = {"/v1/policies": 2**20, "/policies": 2**21}
"""Costs or thresholds of all nodes of a large tree; only administrators write them."""
PATIENCE_S: Final = 30.0
SLOWEST_BYTES_S: Final = 16 * 2**10
"""A body may take PATIENCE_S, and a second for each so many bytes that have come."""
_WITHOUT: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class BodyLimits:
    """ASGI middleware that limits bodies by route and by who sends them.

    Args:
        app: what it stands before; a route may allow itself more.
        max_bytes: of those who have signed in, where something large is taken.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._small_bytes = min(SMALL_BYTES, max_bytes)
        self._small = RequestBodyLimitMiddleware(app, self._small_bytes)
        self._large = RequestBodyLimitMiddleware(app, max_bytes)
        self._middle = {
            path: RequestBodyLimitMiddleware(app, min(most, max_bytes)) for path, most in MIDDLE.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT:
            await self._app(scope, receive, send)
            return
        limited = self._small
        path = scope["path"]
        if path.startswith(LARGE) and self._is_large(scope) and await _may_send(scope):
            limited = self._large
        elif path.startswith(tuple(MIDDLE)) and self._is_large(scope) and await _may_send(scope, "admin"):
            limited = next(of for prefix, of in self._middle.items() if path.startswith(prefix))
        await limited(scope, in_time(receive), send)

    def _is_large(self, scope: Scope) -> bool:
        length = Headers(scope=scope).get("content-length", "")
        return not length.isdecimal() or int(length) > self._small_bytes


async def _may_send(scope: Scope, role: Role | None = None) -> bool:
    """Whether he has signed in, and has this role."""
    service: Service = scope["app"].state.service
    if service.settings.public_per_minute > 0 and scope["path"] in GATED:
        return True
    try:
        identity = await identify(Request(scope))
        return identity.user_id is not None and role in (None, identity.role)
    except ServiceError:
        return False
    except (OperationalError, PoolTimeoutError):  # the route says what is wrong
        return True


def in_time(receive: Receive, *, patience_s: float = PATIENCE_S) -> Receive:
    """The same, until the body is there; one that comes too slowly is given up."""
    until: float | None = None
    done = False

    async def received() -> Message:
        nonlocal until, done
        if done:  # what comes now is only that the caller has left
            return await receive()
        if until is None:
            until = asyncio.get_running_loop().time() + patience_s
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        until += len(message.get("body", b"")) / SLOWEST_BYTES_S
        done = not message.get("more_body", False)
        return message

    return received
