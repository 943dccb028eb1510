"""The OpenAPI document: FastAPI's, with our problem documents in place of its own errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shelver.service.problems import Problem, responses

_THEIRS: Final = ("HTTPValidationError", "ValidationError")
_REFERENCE: Final = "#/components/schemas/{model}"


def describe_problems(app: FastAPI) -> None:
    """Let the OpenAPI document of an application name the problems that it really answers."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, summary=app.summary
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _THEIRS:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REFERENCE)
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for methods in document["paths"].values():
        for operation in methods.values():
            _name_problems(operation)
    return document


def _name_problems(operation: dict[str, Any]) -> None:
    found: dict[str, Any] = operation.setdefault("responses", {})
    if _THEIRS[0] in str(found.get("422")):
        del found["422"]
    common = ["internal", "database_unavailable"]
    if "parameters" in operation or "requestBody" in operation:
        common += ["invalid_input"]
    if "requestBody" in operation:
        common += ["bad_request", "too_large"]
    if operation.get("security"):
        common += ["not_signed_in", "not_allowed"]
    for status, answer in responses(*common).items():
        found.setdefault(str(status), answer)
