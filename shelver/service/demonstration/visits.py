"""One visit: a listing is asked about, the current model answers, and the seller makes something of the answer.

What is said and stored is said and stored by the functions behind the routes; only its time is another one.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Final, Literal

from fastapi import Request, Response
from sqlalchemy import update
from sqlalchemy.orm import Session

from shelver.datasets.generated import demo_rows
from shelver.product import Product, clean
from shelver.service.accounts.identity import Identity
from shelver.service.answers.payloads import PredictIn, PredictOut
from shelver.service.answers.predict import answer_one
from shelver.service.demonstration.cast import Cast
from shelver.service.products.payloads import PictureIn, ProductBody
from shelver.service.products.routes import create_product
from shelver.service.records.entries import Entry
from shelver.service.records.feedback import judge
from shelver.service.records.payloads import FeedbackIn
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

Kind = Literal["sell", "look", "feed"]
"""To list a product; to look what it would be; a machine's row of the night."""
WINDOW: Final = "shop-window"
WAREHOUSE: Final = "warehouse"
"""Policies of the service, see `shop`."""
_P_WINDOW: Final = 0.4
_P_WRONG: Final = 0.03
"""Of a seller who chooses another category than the right one that was suggested."""
_P_REJECT: Final = 0.12
"""Of a wrong answer: the seller says so and knows no better."""
_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class Listing:
    """A product of the generator that no model has seen.

    Attributes:
        number: of its row in the generator.
        seller: its name there.
        title, description, brand: as the seller typed them.
        picture: its bytes.
        path: of the category that it stands in, names from level 1 down.
    """

    number: int
    seller: str
    title: str | None
    description: str | None
    brand: str | None
    picture: bytes | None
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody asks about a listing.

    Attributes:
        at: when.
        kind: what for.
        listing: about which.
        careless: the chance that a wrong answer is accepted unseen.
    """

    at: datetime
    kind: Kind
    listing: Listing
    careless: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A visit with the answer that it got."""

    visit: Visit
    answer: PredictOut
    identity: Identity


def listings(start: int, n: int, *, seed: int) -> list[Listing]:
    """Listings from the row `start` of the generator on."""
    found = []
    for number, row in enumerate(demo_rows(range(start, start + n), seed=seed), start):
        said: Any = row
        path = tuple(said["category"].split(" > "))
        # The shop's people type what they mean; what exports make of it is for those who learn from feeds.
        title, description, brand = (
            None if said[name] is None else clean(said[name]) for name in ("title", "description", "brand")
        )
        found.append(Listing(number, said["source"], title, description, brand, said["image"], path))
    return found


async def asked(
    service: Service, cast: Cast, visits: Sequence[Visit], rng: Random, *, logged: bool = True
) -> list[Answered]:
    """The answers of the model that is current now; each stands in the log, at the time of its visit."""
    turn = asyncio.Semaphore(_AT_ONCE)
    policies = [_policy(visit, rng) for visit in visits]

    async def one(visit: Visit, policy: str) -> Answered:
        async with turn:
            return await _asked(service, cast, visit, policy, logged=logged)

    found = await asyncio.gather(*(one(visit, policy) for visit, policy in zip(visits, policies, strict=True)))
    await asyncio.to_thread(service.log.safe, timeout_s=60.0)
    return found


def sold(service: Service, session: Session, visit: Answered, rng: Random) -> str:
    """The seller saves the product with the category that he takes for right, and says so; the product's id."""
    tree, listing = service.models.current().taxonomy, visit.visit.listing
    at = visit.visit.at + timedelta(seconds=rng.uniform(8, 90))
    chosen = _chosen(tree, visit, rng)
    body = ProductBody(
        seller_product_id=f"{listing.seller[:2].upper()}-{listing.number}-{visit.answer.prediction_id[:4]}",
        title=listing.title,
        description=listing.description,
        brand=listing.brand,
        attributes={
            name: said.value if isinstance(said.value, list) else [said.value]
            for name, said in visit.answer.attributes.items()
            if said.confidence > 0.5
        },
        node_id=chosen,
        prediction_id=visit.answer.prediction_id,
        pictures=[PictureIn(base64=base64.b64encode(listing.picture).decode())] if listing.picture else None,
    )
    made = create_product(visit.identity, body, Response(), session, service)
    product_id = made.id if not isinstance(made, Response) else ""
    dated = update(ProductRow).where(ProductRow.id == product_id)
    session.execute(dated.values(created_at=at, updated_at=at))
    prediction = session.get(PredictionRow, visit.answer.prediction_id)
    if prediction is not None:
        said = FeedbackIn(action="reject") if chosen is None else FeedbackIn(action="correct", node_id=chosen)
        judge(session, service, visit.identity, prediction, said).at = at
    return product_id


def truth_of(tree: Taxonomy, listing: Listing) -> str | None:
    """The node that a listing stands at, None where the tree has it not."""
    node = tree.find_path(listing.path)
    return None if node is None else tree.ids[node]


def _chosen(tree: Taxonomy, visit: Answered, rng: Random) -> str | None:
    """The category that the seller takes; None where he takes none."""
    truth, said = truth_of(tree, visit.visit.listing), visit.answer
    if said.node_id is not None and said.node_id == truth:
        others = [one.node_id for one in said.alternatives if one.node_id != truth]
        return others[0] if others and rng.random() < _P_WRONG else truth
    if said.node_id is not None and rng.random() < visit.visit.careless:
        return said.node_id
    return None if rng.random() < _P_REJECT else truth


def _policy(visit: Visit, rng: Random) -> str:
    if visit.kind == "feed":
        return WAREHOUSE
    return WINDOW if visit.kind == "look" and rng.random() < _P_WINDOW else "default"


async def _asked(service: Service, cast: Cast, visit: Visit, policy: str, *, logged: bool) -> Answered:
    listing = visit.listing
    identity = cast.machine if visit.kind == "feed" else cast.sellers[listing.seller]
    body = PredictIn(
        title=listing.title,
        description=listing.description,
        brand=listing.brand,
        policy=policy,
        product_id=f"WH-{listing.number}" if visit.kind == "feed" else None,
        category_hint=listing.path[0] if visit.kind == "feed" else None,
    )
    product = Product("", title=body.title, description=body.description, brand=body.brand)

    def write(entry: Entry) -> None:
        if logged:
            service.log.write(service.waiting.with_texts(replace(entry, at=visit.at), product, body.category_hint))

    answer = await answer_one(_request(service), identity, body, listing.picture, write=write)
    return Answered(visit, answer, identity)


def _request(service: Service) -> Request:
    """A request of nobody who could leave."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    app = SimpleNamespace(state=SimpleNamespace(service=service))
    scope = {"type": "http", "app": app, "headers": [], "client": ("127.0.0.1", 0), "request_id": new_id()}
    return Request(scope, receive)
