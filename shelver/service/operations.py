"""What keeps the service running: its health, its metrics, a log line and an id for every request.

A log line never holds a token, a password, a query or a body.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from functools import partial
from typing import Any, Final, Literal

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelver.service.identity import allowed
from shelver.service.log import PredictionLog
from shelver.service.problems import MEDIA_TYPE, ServiceError, internal, problem_response, responses
from shelver.service.state import ServiceDep
from shelver.service.tables.declarative import new_id

router = APIRouter(tags=["operations"])
REQUEST_ID: Final = "X-Request-ID"
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOO_LARGE: Final = "More than is read. Send less at once."
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
log = structlog.get_logger("shelver.access")


def set_up_logs(*, stream: Any = None) -> None:
    """One JSON object a line on standard error, from now on; uvicorn's own lines too."""
    out = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.INFO)


class Requests:
    """ASGI middleware: gives each request an id, measures it, logs it, and answers for errors of no known kind."""

    def __init__(self, app: ASGIApp, *, metrics: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "shelver_request_seconds", "Time of a request.", ("route",), registry=metrics, buckets=_BUCKETS_S
        )
        self._count = Counter("shelver_requests", "Requests.", ("route", "method", "status"), registry=metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = scope["request_id"] = given if _SANE_ID.fullmatch(given) else new_id()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began, status, too_large = time.perf_counter(), 0, False

        async def sending(message: Message) -> None:
            nonlocal status, too_large
            if too_large:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if status == 413 and headers.get("Content-Type") != MEDIA_TYPE:
                    # The framework's own limit answers before any handler of problems could.
                    await problem_response(Request(scope), "too_large", _TOO_LARGE)(scope, receive, sending)
                    too_large = True
                    return
                headers[REQUEST_ID] = request_id
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:  # the outermost frame of a request
            answer = internal(Request(scope), error)
            if not status:
                await answer(scope, receive, sending)
            else:
                raise  # half an answer has left: the server must break the connection
        finally:
            self._note(scope, status or 499, time.perf_counter() - began)  # 499: the caller has left

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "none"
        self._seconds.labels(route).observe(seconds)
        self._count.labels(route, scope["method"], str(status)).inc()
        if route in ("/healthz", "/readyz", "/metrics") and status < 400:
            return
        log.info(
            "request",
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            user_id=scope.get("user_id"),
            code=scope.get("problem_code"),
            address=(scope.get("client") or ("",))[0],
        )


def show_log(metrics: CollectorRegistry, log: PredictionLog) -> None:
    """Let /metrics tell what the log of predictions does."""
    for name in ("waiting", "stored", "spilled", "rejected"):
        gauge = Gauge(f"shelver_log_{name}", f"Entries of the log of predictions: {name}.", registry=metrics)
        gauge.set_function(partial(lambda field: getattr(log.figures(), field), f"n_{name}"))


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """The service can answer."""

    status: Literal["ready"] = "ready"


@router.get("/healthz", dependencies=[allowed("public")])
async def healthz() -> Health:
    """Whether the process is alive: nothing else is asked."""
    return Health()


@router.get("/readyz", dependencies=[allowed("public")], responses=responses("not_ready"))
def readyz(service: ServiceDep) -> Readiness:
    """Whether requests can be answered: the database answers, and a model is loaded."""
    missing = [name for name, ready in service.checks().items() if not ready]
    if missing:
        raise ServiceError(
            "not_ready",
            f"not ready: {', '.join(missing)}",
            allowed="a database that answers and a model that is loaded",
            remedy="Wait; if it lasts, see the log.",
            retry_after_s=5,
        )
    return Readiness()


@router.get(
    "/metrics",
    dependencies=[allowed("admin", "service")],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(service: ServiceDep) -> Response:
    """Counters for Prometheus, in its text format; a scraper calls with an API key as its bearer token."""
    return Response(generate_latest(service.metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
