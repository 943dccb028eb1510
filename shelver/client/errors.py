"""What the client raises.

::

    ShelverError
    ├── ApiError               the service refused; `code` says why
    │   ├── NotSignedInError   401: no token, or none that is good
    │   ├── NotAllowedError    403
    │   ├── NotFoundError      404: it is not there, or not the caller's
    │   ├── ChangedError       409, 412: it clashes with what somebody else did
    │   ├── InvalidError       400, 413, 422: the request must be changed
    │   └── UnavailableError   408, 429, 5xx: later it may work
    └── NoAnswerError          the service was not reached, or did not answer in time
"""

from __future__ import annotations

import math
from typing import Any, Final

import httpx2

from shelver.client.call import MAX_TOLD
from shelver.errors import ShelverError

_MAX_CHARS: Final = 200
"""Of what is said of a field: some messages list all that is allowed."""


class ApiError(ShelverError):
    """A refusal of the service.

    Attributes:
        status: of HTTP.
        code: stable; see "Problems" in docs/api.md. `unknown` where something else answered, such as a proxy.
        detail: what came, what may come, and what to do.
        fields: the parts of the request that cannot be used, and why.
        request_id: names the request in the service's log.
        reason: a finer code, of pictures.
        retry_after_s: after so many seconds another attempt may succeed.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        fields: dict[str, str] | None = None,
        request_id: str | None = None,
        reason: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail, allowed="see the documentation of the service", remedy="")
        named = f" (request {request_id})" if request_id else ""
        self.args = (f"{status} {code}: {detail}{_told(fields or {})}{named}",)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields or {}
        self.request_id = request_id
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotSignedInError(ApiError):
    """Neither token nor key, or none that is good; or the password is wrong."""


class NotAllowedError(ApiError):
    """The account may not do this."""


class NotFoundError(ApiError):
    """There is no such thing, or it is not the caller's."""


class ChangedError(ApiError):
    """It was changed meanwhile, or clashes with what is there."""


class InvalidError(ApiError):
    """The request cannot be used as it is."""


class UnavailableError(ApiError):
    """The service cannot answer now; the attempts are used up."""


class NoAnswerError(ShelverError):
    """The service was not reached, or its answer did not come in time."""


_OF_STATUS: Final = {
    401: NotSignedInError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ChangedError,
    412: ChangedError,
}


def error_of(response: httpx2.Response) -> ApiError:
    """What a refusal says, whoever it comes from."""
    status = response.status_code
    kind = _OF_STATUS.get(status, UnavailableError if status in (408, 429) or status >= 500 else InvalidError)
    problem = _problem_of(response)
    return kind(
        status,
        str(problem.get("code", "unknown")),
        str(problem.get("detail") or f"{response.reason_phrase or 'no reason given'}; no problem document."),
        fields=_fields_of(problem),
        request_id=problem.get("request_id") or response.headers.get("X-Request-ID"),
        reason=problem.get("reason"),
        retry_after_s=retry_after_of(response),
    )


def retry_after_of(response: httpx2.Response) -> float | None:
    """Seconds that the service asks to wait; a date, which only proxies send, is taken as nothing said."""
    try:
        found = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return max(found, 0.0) if math.isfinite(found) else None


def _told(fields: dict[str, str]) -> str:
    """The first few, for who sees no more than the text of the error."""
    told = [f"{field}: {_cut(message)}" for field, message in list(fields.items())[:MAX_TOLD]]
    if len(fields) > MAX_TOLD:
        told.append(f"and {len(fields) - MAX_TOLD} more")
    return f" [{'; '.join(told)}]" if told else ""


def _cut(message: str) -> str:
    return message if len(message) <= _MAX_CHARS else f"{message[: _MAX_CHARS - 1]}…"


def _fields_of(problem: dict[str, Any]) -> dict[str, str]:
    found = problem.get("fields")
    if not isinstance(found, list):
        return {}
    return {str(one.get("field")): str(one.get("message")) for one in found if isinstance(one, dict)}


def _problem_of(response: httpx2.Response) -> dict[str, Any]:
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
