"""The application as a whole: its problems, its OpenAPI document, what it stands on."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from httpx2 import Response
from prometheus_client import CollectorRegistry

from shelver.errors import (
    ConfigError,
    ImageError,
    MissingExtraError,
    ParityError,
    ShelverError,
    StorageError,
    TaxonomyError,
)
from shelver.service.operations import Requests
from shelver.service.problems import CODES, MAX_FIELDS, ServiceError, handle_problems, table_of_codes

DOCS = Path(__file__).parent.parent.parent / "docs" / "api.md"
KEYS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def raised(error: Exception) -> Response:
    """The answer to a request whose handler ends in this error."""
    app = FastAPI()
    handle_problems(app)
    app.add_middleware(Requests, metrics=CollectorRegistry())

    @app.get("/test/raise")
    def refuse() -> None:
        raise error

    return TestClient(app).get("/test/raise")


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_answered_as_a_problem_document(code: str) -> None:
    answer = raised(ServiceError(code, "what came", allowed="what may", remedy="Do this.", retry_after_s=3))
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem.keys() == KEYS
    assert (problem["code"], problem["type"]) == (code, f"urn:shelver:problem:{code}")
    assert (problem["status"], problem["title"]) == (answer.status_code, CODES[code].title)
    assert answer.status_code == CODES[code].status
    assert problem["detail"] == "what came. Allowed: what may. Do this."
    assert (problem["instance"], problem["request_id"]) == ("/test/raise", answer.headers["X-Request-ID"])
    assert answer.headers["Retry-After"] == "3"
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if answer.status_code == 401 else None)


def test_the_codes_stand_in_the_docs() -> None:
    assert table_of_codes() in DOCS.read_text(encoding="utf-8")


SAID = {"allowed": "what may", "remedy": "Do this."}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("x", **SAID), 422, "invalid_input"),
        (TaxonomyError("x", **SAID), 422, "taxonomy_refused"),
        (ImageError("image_too_large", "x", **SAID), 422, "picture_unusable"),
        (MissingExtraError("x", **SAID), 501, "not_installed"),
        (StorageError("x", **SAID), 503, "storage_unavailable"),
    ],
)
def test_errors_from_below_have_a_code(error: ShelverError, status: int, code: str) -> None:
    answer = raised(error)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"] == str(error)
    assert answer.json().get("reason") == getattr(error, "code", None)


@pytest.mark.parametrize(
    "error", [ParityError("inner things", **SAID), ValueError("inner things"), KeyError("inner")]
)
def test_our_own_mistakes_say_nothing_of_themselves(error: Exception, logs: io.StringIO) -> None:
    answer = raised(error)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "inner" not in answer.text


def test_what_the_framework_refuses_is_a_problem_too(make_app: Callable[..., TestClient]) -> None:
    client = make_app(body_max_bytes=2000)
    json = {"Content-Type": "application/json"}
    for answer, code in (
        (client.get("/no/such/path"), "not_found"),
        (client.delete("/healthz"), "method_not_allowed"),
        (client.post("/v1/refresh", content=b"{", headers=json), "invalid_input"),
        (client.post("/v1/refresh", content=b"\xff", headers=json), "bad_request"),
        (client.post("/v1/refresh", json={"refresh_token": "x" * 3000}), "too_large"),
    ):
        assert answer.json()["code"] == code, answer.text
        assert answer.status_code == CODES[code].status
        assert answer.json().keys() - {"fields"} == KEYS


def test_a_wrong_input_names_its_fields_without_repeating_them(client: TestClient) -> None:
    answer = client.post("/v1/register", json={"email": "s3cret", "name": 3})
    assert {field["field"] for field in answer.json()["fields"]} == {"body.email", "body.name", "body.password"}
    assert "s3cret" not in answer.text


def test_a_problem_names_only_some_of_very_many_fields(client: TestClient) -> None:
    registration = client.post("/v1/register", json={"email": 1, "name": 2, "password": 3})
    assert len(registration.json()["fields"]) == 3
    error = RequestValidationError([{"loc": ("body", "x" * 5000), "msg": "y" * 5000}] * 5000)
    problem = raised(error)
    assert len(problem.json()["fields"]) == MAX_FIELDS
    assert "5000 in all" in problem.json()["detail"]
    assert len(problem.content) < 20_000


def test_the_openapi_document_describes_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 20
    for path, method, operation in operations:
        assert operation.get("description"), f"{method} {path} says nothing of itself"
        for status, answer in operation["responses"].items():
            assert status < "400" or "application/problem+json" in answer["content"], f"{method} {path} {status}"
    names = set(re.findall(r"#/components/schemas/([\w-]+)", str(document)))
    assert names <= document["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "says"),
    [
        ("POST", "/v1/jobs", {"kind": "evaluate", "catalogue": "x"}, "body.evaluate.catalogue", "kind, catalog, "),
        (
            "POST",
            "/v1/jobs",
            {"kind": "predict", "mapping": {"colums": {}}},
            "body.predict.mapping.colums",
            "columns, attributes, attribute_separator, ",
        ),
        ("PUT", "/v1/policies/a", {"costs": {"wrongly": 1}}, "body.costs.wrongly", "wrong, missed, values, "),
        ("PUT", "/v1/policies/a", {"attributes": {"colour": {"x": 1}}}, "body.attributes.colour.x", "threshold, "),
        ("POST", "/v1/predict", {"titel": "chair"}, "body.titel", "title, "),
        ("POST", "/v1/predict/batch", {"products": [{"titel": "a"}]}, "body.products.0.titel", "title, "),
        ("GET", "/v1/jobs?limt=1", None, "query.limt", "limit, after, kind, state, owner_id"),
        ("GET", "/v1/predictions?since=1", None, "query.since", "from, to, "),
        ("GET", "/v1/taxonomy/search?q=x&limit=1", None, "query.limit", "q, n"),
    ],
)
def test_an_unknown_field_is_named_beside_those_that_are_known(
    as_role: Callable[..., TestClient], method: str, path: str, body: Any, field: str, says: str
) -> None:
    answer = as_role("admin").request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    told = {one["field"]: one["message"] for one in answer.json()["fields"]}
    assert "An unknown field. Allowed: " in told[field]
    assert says in told[field]


def test_messages_of_fields_do_without_what_only_programs_say(client: TestClient) -> None:
    answer = client.post("/v1/register", json={"email": "nobody", "name": "Ann", "password": "short"})
    told = {one["field"]: one["message"] for one in answer.json()["fields"]}
    assert "body.email" in told
    assert "Value error" not in answer.text


def test_json_in_place_of_a_form_is_told_that_a_form_is_needed(
    client: TestClient, as_role: Callable[..., TestClient]
) -> None:
    answer = client.post("/v1/login", json={"username": "ann@example.org", "password": "s3cret"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "a form is needed (application/x-www-form-urlencoded)" in answer.json()["detail"]
    assert "s3cret" not in answer.text
    seller = as_role("seller")
    product = seller.post("/v1/products", json={"title": "chair"}).json()["id"]
    answer = seller.post(f"/v1/products/{product}/pictures", json={"files": []})
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.json()["detail"]
    fields = client.post("/v1/login", data={"username": "ann@example.org"}).json()["fields"]
    assert [one["field"] for one in fields] == ["body.password"]


def test_a_model_that_is_given_beside_a_champion_is_said_to_be_ignored(
    make_app: Callable[..., TestClient], image_model: Path, logs: io.StringIO
) -> None:
    make_app()
    make_app()
    assert "ignored" not in logs.getvalue()
    make_app(model=image_model)
    (line,) = [json.loads(one) for one in logs.getvalue().splitlines() if "ignored" in one]
    assert "--model is ignored" in line["event"]
    assert line["given"] == image_model.name
    assert "register it with POST /v1/models" in line["remedy"]
    assert "promote" in line["remedy"]
    make_app(model=image_model.parent / "nowhere")
    assert logs.getvalue().count("--model is ignored") == 2
