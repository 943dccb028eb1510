"""What is wrong with the fields of a request, in words that help: with the names that are known there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from fastapi import Request
from fastapi.params import File, Form
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

MAX_NAMES: Final = 20
"""That a message lists; of more it lists none."""
_DEFINITIONS: Final = "#/$defs/"


def message_of(request: Request, error: Mapping[str, Any]) -> str:
    """What a problem says of a field; nothing of its value."""
    if error.get("type") != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    names = _names_at(request.scope.get("route"), error["loc"][:-1])
    return "An unknown field" + (f". Allowed: {', '.join(names)}" if 0 < len(names) <= MAX_NAMES else "")


def form_wanted(request: Request) -> str | None:
    """The media type of the form that a request should have been, where JSON was sent in its place."""
    route = request.scope.get("route")
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not isinstance(route, APIRoute) or route.body_field is None or sent != "application/json":
        return None
    field = route.body_field.field_info
    if isinstance(field, File):  # which is a Form, too
        return "multipart/form-data"
    return "application/x-www-form-urlencoded" if isinstance(field, Form) else None


def _names_at(route: object, place: Sequence[Any]) -> list[str]:
    """The fields that are known at a place of a request; empty where that is not clear."""
    if not isinstance(route, APIRoute) or not place:
        return []
    whole: Mapping[str, Any]
    kind: Any
    if place[0] == "query":
        if len(route.dependant.query_params) != 1:
            return []
        kind = route.dependant.query_params[0].field_info.annotation
        whole = _schema_of(kind)
    elif route.body_field is not None:
        kind = route.body_field.field_info.annotation
        whole = _schema_of(kind)
    else:  # it reads the body itself
        content = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
        whole = content.get("application/json", {}).get("schema", {})
    found = list(_members(whole, whole))
    for part in place[1:]:
        found = [below for one in found for next_ in _below(one, part) for below in _members(next_, whole)]
    known = [one["properties"] for one in found if "properties" in one]
    return list(known[0]) if len(known) == 1 else []


@lru_cache(maxsize=128)
def _schema_of(kind: Any) -> Mapping[str, Any]:
    return TypeAdapter(kind).json_schema()


def _members(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a schema may be, without references and unions."""
    if "$ref" in schema:
        yield from _members(whole["$defs"][schema["$ref"].removeprefix(_DEFINITIONS)], whole)
        return
    union = schema.get("anyOf") or schema.get("oneOf")
    if not union:
        yield schema
    for one in union or ():
        yield from _members(one, whole)


def _below(schema: Mapping[str, Any], part: Any) -> Iterator[Mapping[str, Any]]:
    """What stands at a part of a place, below a schema."""
    fields = schema.get("properties", {})
    if isinstance(part, int):
        one = schema.get("items")
    elif part in fields:
        one = fields[part]
    elif part == schema.get("title") or any(part == field.get("const") for field in fields.values()):
        one = schema  # pydantic names the member of a union, by its class or by its discriminator
    else:
        one = schema.get("additionalProperties")
    if isinstance(one, dict):
        yield one
