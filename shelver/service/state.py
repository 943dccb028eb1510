"""What a request may use: everything that is opened once and shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from shelver.service.answering import Answering
from shelver.service.champion import Models
from shelver.service.db import Database
from shelver.service.identity import Identities
from shelver.service.limits import Limits
from shelver.service.log import PredictionLog
from shelver.service.passwords import Passwords
from shelver.service.tokens import Tokens
from shelver.settings import ServiceSettings

if TYPE_CHECKING:  # it declares a route, which needs the service
    from shelver.service.pictures import PictureStore


@dataclass(frozen=True)
class Service:
    """Opened in `app.opened`, closed when the server stops.

    Attributes:
        settings: of this installation.
        database: sessions outside a request's own.
        metrics: the counters that /metrics shows.
        passwords, tokens, identities, limits: see their modules.
        models: which one answers.
        log, pictures: where predictions and pictures are kept.
        answering: answers products, many at once.
    """

    settings: ServiceSettings
    database: Database
    metrics: CollectorRegistry
    passwords: Passwords
    tokens: Tokens
    identities: Identities
    limits: Limits
    models: Models
    log: PredictionLog
    pictures: PictureStore
    answering: Answering

    def checks(self) -> dict[str, bool]:
        """What must be well before requests can be answered."""
        return {"database": self.database.answers(), "model": self.models.fresh()}


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
