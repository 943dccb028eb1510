"""Thousands of calls that schemathesis makes up from the OpenAPI document: none ends in a 5xx, and every answer is
one that the document describes."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import pytest
import requests
import schemathesis
from belongings import OWN, named_in, shared_things, thing
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from service_rig import signed_in

N_CALLS: Final = 2_000
N_CALLS_OF_THE_DRILL: Final = 20_000
CHECKED: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
MAX_URL: Final = 60_000
"""The test's own client carries none that is longer."""
HOST: Final = "http://127.0.0.1"
# Never a good answer, whatever was asked.
LEAKS: Final = ("Traceback (most recent call last)", "sqlalchemy.", "site-packages", 'File "/')


load_all_checks()
CHECKS_MADE: Final[list[Any]] = [CHECKS.get_one(name) for name in CHECKED]


def as_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else value


class Caller:
    """Somebody who makes calls, and signs in again when he has signed himself out."""

    def __init__(self, anonymous: TestClient, role: Any, things: dict[str, str]) -> None:
        self._anonymous, self._role, self._things = anonymous, role, things
        self._client = signed_in(anonymous, role)
        self.n_calls = 0
        self.statuses: dict[int, int] = {}

    def call(self, case: Case[Any], *, real: bool) -> None:
        """Make a call, and check its answer; `real` puts ids of things that exist into its path."""
        if real:
            for key in named_in(case.path):
                case.path_parameters[key.partition("{")[2][:-1]] = self._things[key]
        prepared = requests.Request(**case.as_transport_kwargs(base_url=HOST)).prepare()
        if len(prepared.url or "") > MAX_URL:
            return
        body: Any = prepared.body
        content: bytes | None = body.encode() if isinstance(body, str) else body
        headers = [(as_bytes(name), as_bytes(value)) for name, value in prepared.headers.items()]
        headers = [one for one in headers if one[0].lower() != b"authorization"]
        answer = self._client.request(prepared.method or "", prepared.url or "", headers=headers, content=content)
        self.n_calls += 1
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        assert not [leak for leak in LEAKS if leak in answer.text]
        assert answer.status_code != 503, answer.text
        case.validate_response(Response.from_any(answer), checks=CHECKS_MADE)
        if case.operation.definition.raw["operationId"] == "logout":
            self._client = signed_in(self._anonymous, self._role)


def make_calls(anonymous: TestClient, n_calls: int) -> dict[str, Caller]:
    """Make up so many calls, a quarter of them as a seller, all others as an administrator."""
    config = SchemathesisConfig()
    config.projects.default.generation.with_security_parameters = False
    document = anonymous.app.openapi()  # type: ignore[attr-defined]
    schema = schemathesis.openapi.from_dict(document, config=config)
    admin = signed_in(anonymous, "admin")
    signed_in(anonymous, "reviewer")
    things = shared_things(admin)
    owner = signed_in(anonymous, "seller")
    for key in OWN:
        thing(key, owner, things)
    callers = {role: Caller(anonymous, role, things) for role in ("seller", "admin")}
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == len(list(schema.get_all_operations())), "the document has an operation that is none"
    failures: dict[str, str] = {}
    for turn in itertools.count():
        # What takes no input has few calls that differ: the others have more turns.
        n_left = n_calls - sum(caller.n_calls for caller in callers.values())
        if n_left <= 0:
            break
        each = n_left / len(operations)
        for operation in operations:
            for role, mode, share in (
                ("admin", GenerationMode.POSITIVE, 0.45),
                ("admin", GenerationMode.NEGATIVE, 0.3),
                ("seller", GenerationMode.POSITIVE, 0.25),
            ):
                if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
                    continue
                run(callers[role], operation, mode, n=math.ceil(each * share), start=turn, failures=failures)
    assert not failures, f"{len(failures)} failures:\n\n" + "\n\n".join(failures.values())
    return callers


def can_be_wrong(operation: Any) -> bool:
    """Whether there is enough to get wrong; hypothesis looks long for what is not there."""
    raw = operation.definition.raw
    return "requestBody" in raw or any(one["in"] == "query" for one in raw.get("parameters", ()))


def run(
    caller: Caller, operation: Any, mode: GenerationMode, *, n: int, start: int, failures: dict[str, str]
) -> None:
    turns = itertools.count()

    @seed(start)
    @settings(
        max_examples=n,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def calling(case: Case[Any]) -> None:
        try:
            caller.call(case, real=next(turns) % 2 == 0)
        except (FailureGroup, AssertionError) as error:
            causes = error.exceptions if isinstance(error, FailureGroup) else [error]
            for cause in causes:
                key = f"{operation.label} {type(cause).__name__} {str(cause)[:80]}"
                failures.setdefault(
                    key, f"{operation.label}: {str(cause)[:1500]}\n  {case.as_curl_command()[:600]}"
                )

    try:
        calling()
    except Unsatisfiable:  # where nothing is asked, nothing wrong can be made up
        assert mode is GenerationMode.NEGATIVE


@pytest.mark.timeout(900)
def test_two_thousand_made_up_calls_are_answered_as_the_document_says(client: TestClient) -> None:
    callers = make_calls(client, N_CALLS)
    assert sum(caller.n_calls for caller in callers.values()) >= N_CALLS
    assert callers["admin"].statuses.get(200, 0) > 100
    assert callers["seller"].statuses.get(403, 0) > 20


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_twenty_thousand_made_up_calls_are_answered_as_the_document_says(client: TestClient) -> None:
    callers = make_calls(client, N_CALLS_OF_THE_DRILL)
    assert sum(caller.n_calls for caller in callers.values()) >= N_CALLS_OF_THE_DRILL
