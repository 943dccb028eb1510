"""Errors as RFC 9457 problem documents, each with a stable code.

Every refusal of the service is an `application/problem+json` with type, title, status, detail, instance, code and
request_id. The text of an error that nobody expected is logged and never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from shelver import errors
from shelver.errors import ShelverError
from shelver.service.drivers import is_conflict
from shelver.service.fields import form_wanted, message_of

MAX_FIELDS: Final = 20
"""That a problem names."""
MEDIA_TYPE: Final = "application/problem+json"


class Code(NamedTuple):
    """What a code stands for: its HTTP status, and a title that is the same for each of its problems."""

    status: int
    title: str


CODES: Final[dict[str, Code]] = {
    "account_exists": Code(409, "There is an account with this e-mail address"),
    "bad_request": Code(400, "The request cannot be read"),
    "busy": Code(503, "The service is busy"),
    "changed_meanwhile": Code(412, "It was changed since the caller read it"),
    "conflict": Code(409, "Something else was changed at the same time"),
    "cross_site": Code(403, "The change comes from another site"),
    "database_unavailable": Code(503, "The database does not answer"),
    "id_taken": Code(409, "Another product of the seller has this id"),
    "internal": Code(500, "The service made a mistake"),
    "invalid_input": Code(422, "The input cannot be used"),
    "issuer_unavailable": Code(503, "The issuer of OpenID Connect does not answer"),
    "key_reused": Code(409, "The Idempotency-Key belongs to another request"),
    "last_admin": Code(409, "There must be an administrator"),
    "method_not_allowed": Code(405, "The resource does not take this method"),
    "model_refused": Code(422, "The model folder cannot be used"),
    "no_previous_model": Code(409, "No model answered before the champion"),
    "not_allowed": Code(403, "The account may not do this"),
    "not_found": Code(404, "There is no such resource"),
    "not_installed": Code(501, "A part of the service is not installed"),
    "not_ready": Code(503, "The service cannot answer yet"),
    "not_signed_in": Code(401, "A valid token or key is needed"),
    "openid_failed": Code(401, "The sign-in at the issuer cannot be used"),
    "password_unfit": Code(422, "The password cannot be used"),
    "picture_not_fetched": Code(422, "Pictures are not fetched from addresses"),
    "picture_unusable": Code(422, "The picture cannot be used"),
    "policies_unfit": Code(409, "A policy of the service does not fit the model"),
    "registration_closed": Code(403, "People cannot register themselves here"),
    "sign_in_failed": Code(401, "The e-mail address or the password is wrong"),
    "storage_unavailable": Code(503, "The object storage does not answer"),
    "taxonomy_refused": Code(422, "The category tree cannot be used"),
    "token_unusable": Code(401, "The token has been used, has expired or was revoked"),
    "too_large": Code(413, "The request is too large"),
    "too_many_requests": Code(429, "Too many requests"),
    "unknown_category": Code(422, "The tree has no such category"),
}
"""Every code that the service can answer; docs/api.md lists them, and a test holds that."""

_CODES_OF_ERRORS: Final[tuple[tuple[type[ShelverError], str], ...]] = (
    (errors.ImageError, "picture_unusable"),
    (errors.TaxonomyError, "taxonomy_refused"),
    (errors.ModelError, "model_refused"),
    (errors.InputError, "invalid_input"),
    (errors.MissingExtraError, "not_installed"),
    (errors.StorageError, "storage_unavailable"),
)
_CODES_OF_STATUS: Final = {
    400: "bad_request",
    401: "not_signed_in",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    422: "invalid_input",
    429: "too_many_requests",
    503: "busy",
}
log = structlog.get_logger("shelver.service")


class ServiceError(ShelverError):
    """A refusal of the service.

    Args:
        code: a key of `CODES`; it decides the HTTP status.
        received, allowed, remedy: as of every error; all three are sent to the caller.
        retry_after_s: seconds after which another attempt may succeed.
    """

    def __init__(
        self, code: str, received: str, *, allowed: str, remedy: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(received, allowed=allowed, remedy=remedy)
        self.code = code
        self.retry_after_s = retry_after_s
        self.http_status = CODES[code].status


class WrongField(BaseModel):
    """A part of the request that cannot be used: where it stands, and why."""

    field: str = Field(examples=["body.title"])
    message: str = Field(examples=["Input should be a valid string"])


class Problem(BaseModel):
    """A problem document."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["urn:shelver:problem:not_found"])
    title: str = Field(examples=["There is no such resource"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no product 9f3b. Allowed: one of yours. Check the id."])
    instance: str = Field(examples=["/v1/products/9f3b"])
    code: str = Field(examples=["not_found"])
    request_id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    fields: list[WrongField] | None = Field(default=None, description="The first of them.")
    reason: str | None = Field(default=None, description="A finer code, for example of a picture.")


def table_of_codes() -> str:
    """The codes as a table for the documentation."""
    lines = ["| code | status | title |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {code.status} | {code.title} |" for name, code in CODES.items()])


def not_found(
    what: str, *, allowed: str = "one that exists and is yours", remedy: str = "Check the id."
) -> ServiceError:
    """There is no such thing, or the caller may not know of it."""
    return ServiceError("not_found", f"no {what}", allowed=allowed, remedy=remedy)


def request_id_of(request: Request) -> str:
    """The id that this request has in the log."""
    return str(request.scope.get("request_id", ""))


def problem_response(
    request: Request,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    fields: Sequence[WrongField] | None = None,
    reason: str | None = None,
) -> Response:
    """A problem document as the answer to a request; a page of the same, where a browser asks for a page."""
    known = CODES[code]
    problem = Problem(
        type=f"urn:shelver:problem:{code}",
        title=known.title,
        status=status or known.status,
        detail=detail,
        instance=request.url.path,
        code=code,
        request_id=request_id_of(request),
        fields=list(fields) if fields is not None else None,
        reason=reason,
    )
    shown = dict(headers or {})
    if problem.status == 401:
        shown.setdefault("WWW-Authenticate", "Bearer")
    request.scope["problem_code"] = code  # for the log
    if wants_page(request):
        page: Callable[[Request, Problem], Response] = request.app.state.problem_page
        try:
            answer = page(request, problem)
            answer.headers.update(shown)
            return answer
        except Exception as error:  # a page that fails must not hide what it was to tell
            log.error("no page of a problem", error=type(error).__name__, exc_info=error)
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, shown, media_type=MEDIA_TYPE)


def wants_page(request: Request) -> bool:
    """Whether it is a browser that shows the answer to a person."""
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


def code_of(error: ShelverError) -> str | None:
    """The code of one of our errors; None where it is our own mistake, and what it says may tell too much."""
    if isinstance(error, ServiceError):
        return error.code
    return next((code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind)), None)


def response_of(request: Request, error: ShelverError) -> Response:
    """The answer to a request that ended in one of our errors."""
    if isinstance(error, ServiceError):
        headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
        return problem_response(request, error.code, str(error), headers=headers)
    code = next((code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind)), None)
    if isinstance(error, errors.StorageError):
        log.error("storage unavailable", error=error.detail or str(error))
    if code is None:  # our own mistake: what it says may tell too much
        return internal(request, error)
    return problem_response(
        request, code, str(error), reason=error.code if isinstance(error, errors.ImageError) else None
    )


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses=` says of the problems that it may answer, for the OpenAPI document."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code].status, []).append(code)
    return {
        status: {
            "description": " or ".join(f"`{code}`: {CODES[code].title.lower()}" for code in of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in of_status},
                }
            },
            "x-codes": of_status,
        }
        for status, of_status in by_status.items()
    }


def example_problem(code: str) -> dict[str, Any]:
    """What a problem with this code looks like, for the OpenAPI document."""
    of = CODES[code]
    shown = Problem.model_json_schema()["properties"]
    return {name: field["examples"][0] for name, field in shown.items() if "examples" in field} | {
        "type": f"urn:shelver:problem:{code}",
        "title": of.title,
        "status": of.status,
        "detail": f"{of.title}. What came, what may come, and what to do.",
        "instance": "/v1/predict",
        "code": code,
    }


def internal(request: Request, error: Exception) -> Response:
    """The answer to a request that ended in an error that nobody expected; the error itself goes to the log."""
    log.error("unexpected error", error=type(error).__name__, exc_info=error)
    return problem_response(
        request, "internal", "An unexpected error; the log has more under this request_id. Report it."
    )


def handle_problems(app: FastAPI) -> None:
    """Let the errors of an application become problem documents; `operations` catches those of no known kind."""

    @app.exception_handler(ShelverError)
    def of_ours(request: Request, error: ShelverError) -> Response:
        return response_of(request, error)

    @app.exception_handler(RequestValidationError)
    def of_validation(request: Request, error: RequestValidationError) -> Response:
        # Without the input, which may be a password; and only some: a body may have a million unknown keys.
        found = error.errors()
        form = form_wanted(request)
        if form is not None and any(one["loc"][:1] == ("body",) for one in found):
            detail = f"The body is JSON. Allowed: a form is needed ({form}). Send the fields as a form."
            return problem_response(request, "bad_request", detail)
        fields = [
            WrongField(
                field=".".join(str(part)[:60] for part in one["loc"][:12]), message=message_of(request, one)[:300]
            )
            for one in found[:MAX_FIELDS]
        ]
        named = ", ".join(one.field for one in fields[:5])
        more = f", {len(found)} in all," if len(found) > 5 else ""
        return problem_response(
            request,
            "invalid_input",
            f"{named}{more} cannot be used. See `fields`, and /openapi.json.",
            fields=fields,
        )

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        code = _CODES_OF_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
        detail = f"{CODES[code].title}."
        if code == "not_found":
            detail = "No route has this path. Allowed: those that /docs and /openapi.json list. Check the path."
        elif code == "method_not_allowed":
            allowed = (error.headers or {}).get("Allow", "the methods that /docs lists")
            detail = f"The method {request.method[:20]}. Allowed: {allowed}. Use one of these."
        return problem_response(request, code, detail, status=error.status_code, headers=error.headers)

    @app.exception_handler(IntegrityError)
    def of_conflict(request: Request, error: IntegrityError) -> Response:
        log.warning("conflict", error=type(error.orig).__name__)
        detail = "Something else was changed at the same time. Try again."
        return problem_response(request, "conflict", detail, headers={"Retry-After": "1"})

    @app.exception_handler(DataError)
    def of_data(request: Request, error: DataError) -> Response:
        log.warning("data refused", error=type(error.orig).__name__)
        return problem_response(
            request, "invalid_input", "A value that the database cannot hold: too long, too large, or a NUL."
        )

    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(InternalError)
    @app.exception_handler(PoolTimeoutError)
    def of_database(request: Request, error: Exception) -> Response:
        if is_conflict(error):  # a deadlock
            log.warning("conflict", error=type(error).__name__)
            detail = "Something else was changed at the same time. Try again."
            return problem_response(request, "conflict", detail, headers={"Retry-After": "1"})
        log.error("database unavailable", error=str(error.__cause__ or ""))
        detail = "The database does not answer. Try again later."
        return problem_response(request, "database_unavailable", detail, headers={"Retry-After": "5"})
