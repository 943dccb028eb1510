"""The OpenAPI document, held against what an API promises to who writes a client: names, examples, problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI

from shelver.service.app import create_app
from shelver.service.examples import UNKNOWN
from shelver.service.openapi import declared, operations_of
from shelver.service.problems import CODES, MEDIA_TYPE
from shelver.settings import ServiceSettings

Media = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application, not started: its document needs no model."""
    folder: Path = tmp_path_factory.mktemp("contract")
    return create_app(ServiceSettings(model=folder, data=folder))


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return found


def media_of(operation: dict[str, Any]) -> Iterator[Media]:
    """What an operation takes and gives: in which part, of which media type, and how it is described."""
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        yield "request", kind, media
    for status, answer in operation["responses"].items():
        for kind, media in answer.get("content", {}).items():
            yield status, kind, media


def is_binary(kind: str, media: dict[str, Any]) -> bool:
    return kind == "application/octet-stream" or "contentMediaType" in media.get("schema", {})


def test_it_is_openapi_3_1_and_its_references_lead_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for part in ("schemas", "examples", "securitySchemes"):
        names = set(re.findall(rf"#/components/{part}/([\w.-]+)", json.dumps(document)))
        assert names <= document["components"][part].keys()


def test_operations_have_short_stable_names_and_say_what_they_do(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert len(names) == len(set(names)), "two routes have functions of the same name"
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z0-9]+){0,4}", name)] == []
    for method, path, operation in operations_of(document):
        assert 3 <= len(operation["summary"]) <= 100, f"{method} {path}: {operation['summary']!r}"
        assert operation["description"], f"{method} {path} says nothing of itself"
        assert len(operation["tags"]) == 1, f"{method} {path} belongs under one heading"


def test_every_operation_says_who_may_call_it(app: FastAPI, document: dict[str, Any]) -> None:
    rules = {(method, path): rules for method, path, rules in declared(app)}
    for method, path, operation in operations_of(document):
        (rule,) = rules[method, path]
        assert operation["x-roles"] == list(rule.roles)
        assert bool(operation.get("security")) == ("public" not in rule.roles)


def test_every_operation_has_examples_that_fit_their_schemas(document: dict[str, Any]) -> None:
    wrong = []
    for method, path, operation in operations_of(document):
        if "requestBody" in operation:
            assert operation["requestBody"]["content"], f"{method} {path}"
        good = [status for status in operation["responses"] if status < "300"]
        assert good, f"{method} {path} names no answer"
        for part, kind, media in media_of(operation):
            if part != "request" and is_binary(kind, media):
                continue  # bytes have no example in JSON
            given = [media["example"]] if "example" in media else []
            given += [resolved(document, one)["value"] for one in media.get("examples", {}).values()]
            if not given:
                wrong.append(f"{method} {path}: {part} {kind} has no example")
            for example in given:
                if UNKNOWN in json.dumps(example, ensure_ascii=False):
                    wrong.append(f"{method} {path}: {part} has a text without an example: {example}")
                for error in errors_of(document, media.get("schema", {}), example):
                    wrong.append(f"{method} {path}: {part} {kind}: {error}")
    assert not wrong, "\n".join(wrong)


def test_what_must_be_given_has_an_example_that_fits(document: dict[str, Any]) -> None:
    wrong = []
    for method, path, operation in operations_of(document):
        for parameter in operation.get("parameters", ()):
            if parameter["required"] and parameter.get("example", UNKNOWN) == UNKNOWN:
                wrong.append(f"{method} {path}: {parameter['name']} has no example")
            elif "example" in parameter:
                found = errors_of(document, parameter["schema"], parameter["example"])
                wrong += [f"{method} {path}: {parameter['name']}: {error}" for error in found]
    assert not wrong, "\n".join(wrong)


def test_every_refusal_is_a_problem_with_codes_of_its_status(document: dict[str, Any]) -> None:
    for method, path, operation in operations_of(document):
        for status, answer in operation["responses"].items():
            if status >= "400":
                where = f"{method} {path} {status}"
                assert answer["content"].keys() == {MEDIA_TYPE}, where
                assert answer["x-codes"], where
                assert {CODES[code].status for code in answer["x-codes"]} == {int(status)}, where


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    found = part
    while "$ref" in found:
        _, _, name = found["$ref"].rpartition("/")
        found = document["components"]["examples"][name]
    return found


def errors_of(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return [error.message for error in validator.iter_errors(value)]


def test_every_code_is_answered_somewhere_and_tried_by_a_test(document: dict[str, Any]) -> None:
    """Tried: its name stands in a test of the service, other than those that go through all codes."""
    described = {
        code
        for _, _, operation in operations_of(document)
        for answer in operation["responses"].values()
        for code in answer.get("x-codes", ())
    }
    # Of what is no route, of any route of a service that lacks an extra, of jobs that have failed.
    elsewhere = {"cross_site", "method_not_allowed", "not_installed", "taxonomy_refused"}
    assert CODES.keys() - described <= elsewhere, "no operation says that it answers these"
    tests = Path(__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in tests.glob("test_*.py") if path != Path(__file__))
    assert not [code for code in CODES if f'"{code}"' not in text], "no test expects these"
