"""Bodies of the prediction routes, which may be large: read once it is known who asks, and counted before they are
parsed.

FastAPI would parse a body before it asks who sent it, and a few megabytes of brackets hold up the event loop for
seconds.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from shelver.service.answers.payloads import schema_of
from shelver.service.problems import ServiceError

MAX_PARTS: Final = 500_000
"""Numbers, names and values in a body; parsing them takes some 50 ms."""
MAX_ERRORS: Final = 100
_MARKS: Final = (b",", b":", b"[", b"{")

Body = TypeVar("Body", bound=BaseModel)


def body_of(model: type[BaseModel], most_parts: int = MAX_PARTS) -> Any:
    """A route's body: `body: Annotated[PredictBatchIn, body_of(PredictBatchIn)]`, behind its identity."""

    async def read(request: Request) -> BaseModel:
        kind = content_type(request)
        if kind != "application/json":
            raise wrong_type(kind, "application/json")
        return parsed(model, await request.body(), most_parts)

    return Depends(read)


def told(model: type[BaseModel]) -> dict[str, Any]:
    """What a route's `openapi_extra=` says of such a body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(model)}}}}


def content_type(request: Request) -> str:
    """Of the body; JSON where nothing is said."""
    return request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def wrong_type(kind: str, allowed: str) -> ServiceError:
    """A body that is something else."""
    return ServiceError(
        "bad_request",
        f"a body of the type {kind[:60]!r}",
        allowed=allowed,
        remedy="Set the header Content-Type, and send one of these.",
    )


def parsed(model: type[Body], data: bytes, most_parts: int = MAX_PARTS) -> Body:
    """A body as JSON.

    Raises:
        RequestValidationError: a field is wrong.
        ServiceError: it has too many parts.
    """
    n_parts = sum(data.count(mark) for mark in _MARKS) if len(data) > most_parts else 0
    if n_parts > most_parts:
        raise ServiceError(
            "too_large",
            f"a body of some {n_parts} parts",
            allowed=f"at most {most_parts} numbers, names and values",
            remedy="Send less at once; rows of numbers as base64.",
        )
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise wrong_fields(error) from error


def wrong_fields(error: ValidationError) -> RequestValidationError:
    """What is wrong with a body; only their number where there are many."""
    n = error.error_count()
    if n > MAX_ERRORS:
        return RequestValidationError([{"type": "many", "loc": ("body",), "msg": f"{n} parts cannot be used"}])
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found])
