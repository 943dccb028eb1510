"""What a request may use: everything that is opened once and shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from shelver.service.accounts.identity import Identities
from shelver.service.accounts.issuer import Issuer
from shelver.service.accounts.passwords import Passwords
from shelver.service.accounts.tokens import Tokens
from shelver.service.answers.answering import Answering
from shelver.service.answers.fetching import Fetching
from shelver.service.bounded import Bounded
from shelver.service.db import Database
from shelver.service.jobs.events import Follower
from shelver.service.limits import Limits
from shelver.service.lookalikes.keeper import Lookalikes
from shelver.service.models.champion import Models
from shelver.service.models.kept import Kept
from shelver.service.records.held import Held
from shelver.service.records.log import MAX_WAITING, PredictionLog
from shelver.service.reviews.waiting import Waiting
from shelver.settings import ServiceSettings

if TYPE_CHECKING:  # it declares a route, which needs the service
    from shelver.service.accounts.mail import MailHook
    from shelver.service.products.pictures import PictureStore


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
        issuer, mail: of OpenID Connect, and the hook for mail; None where the installation has none.
        answering: answers products, many at once.
        fetching: fetches pictures that come as addresses.
        held: answers to what somebody is still typing.
        waiting, lookalikes: what waits for reviewers, and what products look like.
        follower: looks for events of the jobs that somebody follows.
        previews: what previews of policies have read of the log.
        streams, uploading: how many streams of events are open, and how many feeds come in.
        explaining: how many explanations are made or wait for that.
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
    fetching: Fetching
    held: Held
    waiting: Waiting
    lookalikes: Lookalikes
    issuer: Issuer | None
    mail: MailHook | None
    follower: Follower = field(default_factory=Follower)
    previews: Kept = field(default_factory=Kept)
    streams: Bounded = field(default_factory=lambda: Bounded("streams of events", a_caller=8, in_all=200))
    uploading: Bounded = field(default_factory=lambda: Bounded("uploads", a_caller=2, in_all=20))
    explaining: Bounded = field(default_factory=lambda: Bounded("explanations", a_caller=2, in_all=8))

    def checks(self) -> dict[str, bool]:
        """What must be well before requests can be answered."""
        return {
            "database": self.database.answers(),
            "model": self.models.fresh(),
            "log": self.log.figures().n_waiting < MAX_WAITING // 2,
        }


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
