"""/v1/predict and /v1/predict/batch: products in, their shelves out; each answer stands in the log.

A product comes as JSON with its picture as base64, or as a form with the picture as a file; or its picture as an
address, which is fetched before the request takes a place.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import structlog
from fastapi import APIRouter, Header, Request, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from shelver.errors import InputError
from shelver.product import Product
from shelver.service.accounts.identity import Identity
from shelver.service.answers import explain, pieces
from shelver.service.answers.answering import Answered, Asked, decision_of, input_hash
from shelver.service.answers.batcher import Places
from shelver.service.answers.decoding import Source
from shelver.service.answers.fetching import BATCH_S, N_OF_CALLER
from shelver.service.answers.gate import credential_of
from shelver.service.answers.json_bodies import body_of, content_type, parsed, told, wrong_fields, wrong_type
from shelver.service.answers.payloads import (
    ItemProblem,
    PredictBatchIn,
    PredictBatchItem,
    PredictBatchOut,
    PredictIn,
    PredictOut,
    ProductIn,
    schema_of,
)
from shelver.service.answers.pieces import Caller, caller_of
from shelver.service.answers.sources import place, source_of
from shelver.service.problems import ServiceError, request_id_of, responses
from shelver.service.records.entries import Entry
from shelver.service.state import Service, service_of
from shelver.service.tables.declarative import new_id

PATIENCE_S: Final = 0.05
"""An answer that takes longer is given up when its caller leaves; looking earlier costs more than it saves."""
_MAX_PARTS: Final = 50_000
_FIELDS: Final = frozenset(PredictIn.model_fields) - {"image_base64"}

T = TypeVar("T")
log = structlog.get_logger("shelver.service")


router = APIRouter(tags=["predictions"])


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """What the answers of one request share."""

    service: Service
    identity: Identity
    request_id: str
    began_s: float


@router.post(
    "/v1/predict",
    response_model=PredictOut,
    responses=responses(
        *("invalid_input", "picture_unusable", "picture_not_fetched", "too_large", "key_reused", "busy"),
        "not_signed_in",
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema_of(PredictIn)},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            **{name: {"type": "string"} for name in sorted(_FIELDS)},
                            "image": {"type": "string", "contentMediaType": "application/octet-stream"},
                        },
                    },
                    "example": {"title": "Folding deck chair, beech", "image": "the bytes of a file"},
                },
            },
        }
    },
)
async def predict(
    request: Request,
    identity: Caller,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Put one product on its shelf.

    JSON, or a form with the same fields and the picture as the file `image`. A picture that cannot be fetched or
    used is left out and `picture_error` says why. With an `Idempotency-Key` the same request gets the same answer
    again for a day, as long as this server runs; the key with another request is refused.
    """
    began_s = time.perf_counter()
    service = service_of(request)
    body, upload = await _read(request)
    asking = _Request(service, identity, request_id_of(request), began_s)
    caller = caller_of(request, identity)
    _remember(request, service, caller)

    async def one() -> str:
        source = upload or await source_of(service, body.image_base64, body.image_url, caller)
        with service.answering.batcher.reserve(caller) as places:
            return await _answered(asking, body, source, body.policy, body.top_n, places)

    async def answer() -> bytes:
        return (await unless_left(request, one())).encode()

    if idempotency_key is None:
        return Response(await answer(), media_type="application/json")
    body_hash = await asyncio.to_thread(_hash, "predict", body, upload)
    made, again = await service.answering.repeats.once(caller, idempotency_key, body_hash, answer)
    return _repeated(made, again=again)


@router.post(
    "/v1/predict/batch",
    response_model=PredictBatchOut,
    responses=responses("invalid_input", "too_large", "key_reused", "busy", "not_signed_in"),
    openapi_extra=told(PredictBatchIn),
)
async def predict_batch(
    request: Request,
    identity: Caller,
    body: Annotated[PredictBatchIn, body_of(PredictBatchIn)],
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Put up to 256 products on their shelves. What cannot be answered has a problem in place of its answer, and
    the others are answered all the same."""
    began_s = time.perf_counter()
    service = service_of(request)
    asking = _Request(service, identity, request_id_of(request), began_s)
    caller = caller_of(request, identity, n=len(body.products))
    _remember(request, service, caller)

    async def answer() -> bytes:
        return (await unless_left(request, _batch(asking, body, caller))).encode()

    if idempotency_key is None:
        return Response(await answer(), media_type="application/json")
    body_hash = await asyncio.to_thread(_hash, "batch", body, None)
    made, again = await service.answering.repeats.once(caller, idempotency_key, body_hash, answer)
    return _repeated(made, again=again)


async def answer_one(
    request: Request,
    identity: Identity,
    body: PredictIn,
    picture: Source | None = None,
    *,
    write: Callable[[Entry], None] | None = None,
) -> PredictOut:
    """The answer to one product for a page: counted, limited and logged as those of /v1/predict.

    Args:
        request: whoever sent it; the answer is given up when he leaves.
        identity: of him.
        body: its texts, and how it is to be decided; a picture in it is not looked at.
        picture: its bytes, or base64.
        write: takes the entry for the log in place of the log.

    Raises:
        ServiceError: as /v1/predict.
    """
    began_s = time.perf_counter()
    service = service_of(request)
    asking = _Request(service, identity, request_id_of(request), began_s)
    caller = caller_of(request, identity)

    async def one() -> tuple[str, Entry]:
        with service.answering.batcher.reserve(caller) as places:
            return await _made(asking, body, picture, body.policy, body.top_n, places)

    out, entry = await unless_left(request, one())
    (write or service.log.write)(entry)
    return PredictOut.model_validate_json(out)


async def _batch(asking: _Request, body: PredictBatchIn, caller: str) -> str:
    """Answers as JSON, several products at work at a time.

    They share places, which are taken at once or not at all. Where pictures must be fetched each product takes its
    own place when it needs it: nobody holds a place who waits for strangers.
    """
    batcher = asking.service.answering.batcher
    if all(product.image_url is None or product.image_base64 is not None for product in body.products):
        n = min(len(body.products), batcher.max_batch, batcher.n_places)
        with batcher.reserve(caller, n) as places:
            return await _items(
                asking,
                body,
                n,
                lambda one: _answered(asking, one, one.image_base64, body.policy, body.top_n, places),
            )
    until_s = time.monotonic() + BATCH_S

    async def fetched(product: ProductIn) -> str:
        source = await source_of(asking.service, product.image_base64, product.image_url, caller, until_s=until_s)
        with await place(asking.service, caller) as places:
            return await _answered(asking, product, source, body.policy, body.top_n, places)

    return await _items(asking, body, min(len(body.products), N_OF_CALLER), fetched)


async def _items(
    asking: _Request, body: PredictBatchIn, n: int, answered: Callable[[ProductIn], Awaitable[str]]
) -> str:
    """Answers as JSON; `n` products are at work at a time."""
    left = iter(enumerate(body.products))
    items: dict[int, str] = {}
    n_problems = 0

    async def work() -> None:
        nonlocal n_problems
        for i, product in left:
            problem: ItemProblem | None = None
            try:
                items[i] = f'{{"answer":{await answered(product)},"problem":null}}'
                continue
            except ServiceError as error:
                problem = ItemProblem(code=error.code, detail=str(error))
            except InputError as error:
                problem = ItemProblem(code="invalid_input", detail=str(error))
            except Exception as error:
                log.error("unexpected error", request_id=asking.request_id, exc_info=error)
                problem = ItemProblem(code="internal", detail="An unexpected error; the log has more.")
            n_problems += 1
            items[i] = PredictBatchItem(answer=None, problem=problem).model_dump_json()

    await asyncio.gather(*(work() for _ in range(n)))
    answers = ",".join(items[i] for i in range(len(items)))
    return f'{{"answers":[{answers}],"n_problems":{n_problems}}}'


async def _answered(
    asking: _Request,
    body: ProductIn,
    source: Source | None,
    policy: str,
    top_n: int | None,
    places: Places[Asked, Answered],
) -> str:
    """The answer to one product as JSON, written into the log."""
    out, entry = await _made(asking, body, source, policy, top_n, places)
    asking.service.log.write(entry)
    return out


async def _made(
    asking: _Request,
    body: ProductIn,
    source: Source | None,
    policy: str,
    top_n: int | None,
    places: Places[Asked, Answered],
) -> tuple[str, Entry]:
    """The answer to one product as JSON, and what the log is to say of it."""
    product = Product(body.product_id or "", title=body.title, description=body.description, brand=body.brand)
    answering = asking.service.answering
    answered, sha256 = await answering.answer(product, source, policy=policy, top_n=top_n, places=places)
    said = answered.said
    decision = decision_of(said, answered.policy, answered.versions)
    prediction_id = new_id()
    out = PredictOut.model_construct(
        **decision.__dict__,
        prediction_id=prediction_id,
        product_id=body.product_id,
        picture_error=answered.picture_error,
        category_hint=body.category_hint,
        request_id=asking.request_id,
    ).model_dump_json()
    entry = Entry(
        id=prediction_id,
        at=datetime.now(UTC),
        user_id=asking.identity.user_id,
        input_hash=input_hash(product, sha256),
        product_id=body.product_id,
        answer=out,
        node_id=said.node_id,
        confidence=decision.confidence,
        outcome=said.outcome,
        policy=answered.policy,
        model_version=answered.versions.model,
        taxonomy_version=answered.versions.taxonomy,
        modality=said.modality,
        latency_ms=(time.perf_counter() - asking.began_s) * 1000,
    )
    return out, asking.service.waiting.with_texts(entry, product, body.category_hint)


async def _read(request: Request) -> tuple[PredictIn, bytes | None]:
    """The body, and the picture that came as a file.

    Raises:
        RequestValidationError: a field is wrong.
        ServiceError: it is neither JSON nor a form, or has too many parts.
    """
    kind = content_type(request)
    if kind == "application/json":
        return parsed(PredictIn, await request.body(), _MAX_PARTS), None
    if kind == "multipart/form-data":
        return await _read_form(request)
    raise wrong_type(kind, "application/json or multipart/form-data")


async def _read_form(request: Request) -> tuple[PredictIn, bytes | None]:
    async with request.form(max_files=1, max_fields=len(_FIELDS) + 1) as form:
        fields: dict[str, Any] = {}
        upload = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name == "image":
                upload = await value.read()
            else:
                fields[name] = value if isinstance(value, str) else "a file"
        if isinstance(fields.get("top_n"), str):
            with suppress(ValueError):  # then it is refused as what it is
                fields["top_n"] = int(fields["top_n"])
        try:
            return PredictIn.model_validate(fields), upload
        except ValidationError as error:
            raise wrong_fields(error) from error


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives; given up when the caller leaves."""
    task: asyncio.Future[T] = asyncio.ensure_future(work)
    leaving: asyncio.Future[Any] | None = None
    try:
        await asyncio.wait((task,), timeout=PATIENCE_S)
        while not task.done():
            if leaving is None or leaving.done():
                leaving = asyncio.ensure_future(request.receive())
            waiting: tuple[asyncio.Future[Any], ...] = (task, leaving)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and leaving.result()["type"] == "http.disconnect":
                raise ClientDisconnect
        return task.result()
    finally:
        for other in (task, leaving):
            if other is not None and not other.done():
                other.cancel()
        if not task.done():
            await asyncio.wait((task,))  # it gives back what it holds before its places are given back


def _hash(what: str, body: PredictIn | PredictBatchIn, upload: bytes | None) -> str:
    """SHA-256 of what a request says."""
    digest = hashlib.sha256(what.encode())
    digest.update(body.model_dump_json().encode())
    digest.update(upload or b"")
    return digest.hexdigest()


def _repeated(made: bytes, *, again: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if again else None
    return Response(made, media_type="application/json", headers=headers)


def _remember(request: Request, service: Service, caller: str) -> None:
    """So that `gate` knows the caller the next time."""
    callers, credential = service.answering.callers, credential_of(request.scope["headers"])
    if len(callers) > 10_000:
        callers.clear()
    if credential is not None:
        callers[credential] = caller


router.include_router(pieces.router)
router.include_router(explain.router)
