"""The OpenAPI document: FastAPI's, with what it leaves out.

Our problem documents stand in place of its errors, each operation says who may call it (`x-roles`) and has an
example of what it takes and gives, made from the examples of the fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from shelver.service.accounts.identity import Rule, allowed, rules_of
from shelver.service.examples import example_of
from shelver.service.problems import CODES, Problem, example_problem, responses

OPENAPI: Final = "/openapi.json"
CACHED: Final = {"Cache-Control": "public, max-age=60"}
_THEIRS: Final = ("HTTPValidationError", "ValidationError")
_REFERENCE: Final = "#/components/schemas/{model}"
_SENTENCE_ENDS: Final = re.compile(r"[.:;](?:\s|$)|\n\n")
_IN_STORAGE: Final = {"products", "pictures", "models"}
"""Tags of what may lie in object storage."""
_BODY: Final = ("bad_request", "too_large")
router = APIRouter()


@router.get(OPENAPI, include_in_schema=False, dependencies=[allowed("public")])
def openapi_document(request: Request) -> Response:
    """This document; it tells nothing that the sources do not."""
    app: FastAPI = request.app
    if not hasattr(app.state, "openapi_json"):
        app.state.openapi_json = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
    return Response(app.state.openapi_json, media_type="application/json", headers=CACHED)


def operation_id(route: APIRoute) -> str:
    """The name of an operation, for whoever makes a client from the document: that of its function."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let an application give this document as its own."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change it


def declared(app: FastAPI) -> Iterator[tuple[str, str, list[Rule]]]:
    """Method, path and the rules that are declared, of every route of an application."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        for method in sorted(context.methods or ()):
            rules = rules_of(route.dependant) if isinstance(route, APIRoute) else []
            yield method, context.path_format or "", rules


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation of a document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, summary=app.summary
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _THEIRS:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REFERENCE)
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    components["examples"] = {code: {"value": example_problem(code)} for code in CODES}
    rules = {(method, path): rule for method, path, (rule, *_) in declared(app)}
    for method, path, operation in operations_of(document):
        rule = rules[method, path]
        operation["x-roles"] = list(rule.roles)
        operation["x-may-be-public"] = rule.opened_by is not None
        if operation["summary"] == operation["operationId"].replace("_", " ").title():  # FastAPI's own
            operation["summary"] = " ".join(_SENTENCE_ENDS.split(operation["description"])[0].split())
        operation["tags"] = operation["tags"][-1:]  # of the innermost router
        _name_problems(operation)
        _give_examples(operation, schemas)
    return document


def _name_problems(operation: dict[str, Any]) -> None:
    found: dict[str, Any] = operation.setdefault("responses", {})
    if _THEIRS[0] in str(found.get("422")):
        del found["422"]
    codes = [code for answer in found.values() for code in answer.get("x-codes", ())]
    codes += ["internal", "database_unavailable"]
    parameters = operation.get("parameters", ())
    if parameters or "requestBody" in operation:
        codes += ["invalid_input"]
    if any(one["in"] == "path" for one in parameters):
        codes += ["not_found"]
    if "requestBody" in operation:
        codes += _BODY
    if set(operation["tags"]) & _IN_STORAGE:
        codes += ["storage_unavailable"]
    if operation.get("security"):
        codes += ["not_signed_in", "not_allowed"]
    for status, answer in responses(*dict.fromkeys(codes)).items():
        found[str(status)] = answer
    operation["responses"] = dict(sorted(found.items()))


def _give_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        example = example_of(parameter["schema"], schemas, asked=True, name=parameter["name"])
        if parameter["required"] or (parameter["schema"].get("examples") and example is not None):
            parameter.setdefault("example", example)
    for of in operation.get("requestBody", {}).get("content", {}).values():
        _give_example(of, schemas, asked=True)
    for answer in operation["responses"].values():
        for kind, of in answer.get("content", {}).items():
            if kind == "text/event-stream":  # OpenAPI 3.1 has no words for what its events are
                of.pop("schema", None)
            _give_example(of, schemas, asked=False)


def _give_example(of: dict[str, Any], schemas: dict[str, Any], *, asked: bool) -> None:
    if of.get("schema") and not of.keys() & {"example", "examples"}:
        of["example"] = example_of(of["schema"], schemas, asked=asked)
