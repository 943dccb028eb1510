"""What keeps the service running: its health, its metrics, a log line and an id for every request.

A log line never holds a token, a password, a query or a body.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelver.service.accounts.identity import allowed
from shelver.service.logs import set_up_logs as set_up_logs
from shelver.service.problems import ServiceError, internal, problem_response, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.declarative import new_id

router = APIRouter(tags=["operations"])
LOG: Final = "log"
"""Folder in the data folder where the log of predictions waits for the database."""
REQUEST_ID: Final = "X-Request-ID"
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Of every answer that says nothing else."""
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOO_LARGE: Final = "More than is read. Send less at once."
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
log = structlog.get_logger("shelver.access")


def request_id_from(given: str) -> str:
    """The id of a request: what its caller calls it, as long as that may stand in a header and a log."""
    return given if _SANE_ID.fullmatch(given) else new_id()


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
        request_id = scope["request_id"] = request_id_from(Headers(scope=scope).get(REQUEST_ID, ""))
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
                if status == 413 and headers.get("Content-Type", "").startswith("text/plain"):
                    # The framework's own limit answers before any handler of problems could.
                    await problem_response(Request(scope), "too_large", _TOO_LARGE)(scope, receive, sending)
                    too_large = True
                    return
                headers[REQUEST_ID] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            pass  # nobody reads what is said to a caller who has left
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


class Shown:
    """What /metrics reads when somebody looks: the log of predictions, the models, the decoders of pictures."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment."""
        service = self._service
        for name, value in asdict(service.log.figures()).items():
            name = name.removeprefix("n_")
            yield GaugeMetricFamily(f"shelver_log_{name}", f"Log of predictions: {name}.", float(value))
        spill = sum(_size(path) for path in (service.settings.data / LOG).glob("*"))
        yield GaugeMetricFamily("shelver_log_disk_bytes", "What waits on the disk for the database.", float(spill))
        models = service.models
        yield GaugeMetricFamily(
            "shelver_model_stale_seconds", "For how long another model than the champion answers.", models.stale_s
        )
        yield GaugeMetricFamily("shelver_models_ready", "Models that are open beside it.", float(models.n_ready))
        answers = GaugeMetricFamily(
            "shelver_model", "The model that answers.", labels=["model_version", "taxonomy_version"]
        )
        with suppress(ServiceError):
            loaded = models.current()
            answers.add_metric([loaded.model_version, loaded.taxonomy_version], 1.0)
        yield answers
        replaced = service.answering.decoders.processes.n_replaced
        yield CounterMetricFamily(
            "shelver_decoders_replaced", "Picture decoders that hung or died.", float(replaced)
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it went to the database just now
        return 0


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """The service can answer."""

    status: Literal["ready"] = "ready"


@router.head("/healthz", dependencies=[allowed("public")], include_in_schema=False)
@router.get("/healthz", dependencies=[allowed("public")])
async def healthz() -> Health:
    """Whether the process is alive: nothing else is asked."""
    return Health()


@router.head("/readyz", dependencies=[allowed("public")], include_in_schema=False)
@router.get("/readyz", dependencies=[allowed("public")], responses=responses("not_ready"))
def readyz(service: ServiceDep) -> Readiness:
    """Whether requests can be answered: the database answers, the champion is loaded, the log can be written."""
    missing = [name for name, ready in service.checks().items() if not ready]
    if missing:
        raise ServiceError(
            "not_ready",
            f"not ready: {', '.join(missing)}",
            allowed="a database that answers, the champion loaded, a log that is written",
            remedy="Wait; if it lasts, see the log. A new installation needs --model once, or a model that is "
            "registered and promoted.",
            retry_after_s=5,
        )
    return Readiness()


@router.get(
    "/metrics",
    dependencies=[allowed("admin", "service")],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": 'shelver_requests_total{route="/v1/predict"} 12'}}}},
)
def metrics(service: ServiceDep) -> Response:
    """Counters for Prometheus, in its text format; a scraper calls with an API key as its bearer token."""
    return Response(generate_latest(service.metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
