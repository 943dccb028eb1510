"""One request of the client, whoever sends it, and how its answer is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Generic, TypeVar, cast, get_args
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from shelver.errors import InputError

T = TypeVar("T")
Stated = Mapping[str, Any]
"""What a caller may give in place of a model: its fields by name."""
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
MAX_TOLD: Final = 3
"""Fields that an error names; who has more mistakes sees the others then."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, whoever sends it.

    Attributes:
        read: makes the answer from a response that is no refusal.
        body: `json`, `data` (a form) or `file` (the path of a file whose bytes are the body).
        repeatable: whether making it twice does no more than making it once.
        signed: whether it says who calls.
    """

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = False
    signed: bool = True


def get(path: str, answer: type[T], **params: Any) -> Call[T]:
    """Read something."""
    return Call("GET", path, reads(answer), params=given(**params), repeatable=True)


def post(path: str, answer: type[T], body: Mapping[str, Any], *, key: str | None = None) -> Call[T]:
    """Make or do something; with a key it is done once, however often it is sent."""
    headers = {} if key is None else {IDEMPOTENCY_KEY: key}
    return Call("POST", path, reads(answer), body={"json": body}, headers=headers, repeatable=key is not None)


def ask(path: str, answer: type[T], body: Mapping[str, Any]) -> Call[T]:
    """A POST that changes nothing."""
    return Call("POST", path, reads(answer), body={"json": body}, repeatable=True)


def reads(answer: type[T]) -> Callable[[httpx2.Response], T]:
    """Reads an answer as what it is."""

    def read(response: httpx2.Response) -> T:
        found: T = _adapter(cast(Any, answer)).validate_json(response.content)
        return found

    return read


@cache
def _adapter(answer: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer)


def nothing(_: httpx2.Response) -> None:
    """Of an answer without a body."""
    return


def said(body: BaseModel) -> dict[str, Any]:
    """What was said, without what was left out."""
    return body.model_dump(mode="json", exclude_unset=True)


def checked(body: T | Stated, kind: Any, name: str) -> T:
    """A model as it is, or the one that a mapping states.

    Args:
        kind: the model, or a union of models.
        name: of the argument, for the error.

    Raises:
        InputError: it is neither the model nor states one.
    """
    try:
        found: T = _adapter(kind).validate_python(dict(body) if isinstance(body, Mapping) else body)
    except ValidationError as error:
        # Not as its cause: that one shows the values, which may be long or secret.
        raise _unfit(error, kind, name) from None
    return found


def _unfit(error: ValidationError, kind: Any, name: str) -> InputError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join((name, *map(str, one['loc'])))}: {one['msg']}" for one in problems[:MAX_TOLD]]
    more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
    if get_args(kind):
        models, fields = [one.__name__ for one in get_args(get_args(kind)[0])], ""
    else:
        models, fields = [kind.__name__], f": {', '.join(kind.model_fields)}"
    return InputError(
        "; ".join(told) + more,
        allowed=f"{' or '.join(models)}, or a mapping with its fields{fields}",
        remedy="Mend these; nothing was sent.",
    )


def given(**values: Any) -> dict[str, Any]:
    """Those values that there are."""
    return {name: value for name, value in values.items() if value is not None}


def if_match(version: int | None) -> dict[str, str]:
    """Only if this version is the latest."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def part(value: str) -> str:
    """A part of a path."""
    return quote(value, safe="")


def new_key() -> str:
    """An Idempotency-Key of this call's own."""
    return uuid.uuid4().hex
