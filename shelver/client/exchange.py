"""One call from its first attempt to its answer, as steps: this decides, a client sends and waits.

So the client that waits and the one that does not decide alike, and neither decision needs a network to be tested.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx2
from pydantic import ValidationError

from shelver.client.call import Call, nothing, reads
from shelver.client.errors import ApiError, NoAnswerError, NotSignedInError, error_of
from shelver.errors import InputError
from shelver.service.accounts.payloads import TokenPair

T = TypeVar("T")
Outcome = httpx2.Response | httpx2.TransportError
# Refused before anything was done, or undone as a whole: whatever it was, it may be asked again.
_NOTHING_DONE: Final = frozenset({"busy", "too_many_requests", "not_ready", "conflict"})
_LATER: Final = frozenset({408, 502, 503, 504})
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_EARLY_S: Final = 10.0
"""So long before its end a token is renewed."""
_FIRST_WAIT_S: Final = 0.25


@dataclass(frozen=True)
class Send:
    """Send this request; the reply is a response, or why none came."""

    method: str
    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Pause:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True)
class Renew:
    """Run `renewal` while nobody else does: a refresh token that is used twice ends the sign-in."""

    stale: str | None


Step = Send | Pause | Renew
Steps = Generator[Step, Any, T]


@dataclass
class Session:
    """Who calls, and how patiently.

    Attributes:
        api_key: of a machine.
        email, password: of a person; kept, to sign in again when the sign-in has ended.
        attempts: of each call.
        longest_wait_s: a service that asks for more is not waited for.

    Raises:
        InputError: half of a sign-in.
    """

    api_key: str | None = field(default=None, repr=False)
    email: str | None = None
    password: str | None = field(default=None, repr=False)
    attempts: int = 4
    longest_wait_s: float = 30.0
    tokens: TokenPair | None = field(default=None, repr=False)
    good_until: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.email) != bool(self.password):
            has, lacks = ("email", "password") if self.email else ("password", "email")
            raise InputError(
                f"`{has}` without `{lacks}`",
                allowed="both `email` and `password`, or `api_key`, or none of them",
                remedy=f"Give `{lacks}` as well; if it comes from the environment, see whether it is set.",
            )

    def credential(self) -> str | None:
        """What a request says who calls, as far as it is known."""
        return self.api_key or (self.tokens.access_token if self.tokens is not None else None)

    def must_renew(self) -> bool:
        """Whether there should be a token, and none is good for long enough."""
        if self.api_key is not None or (self.tokens is None and self.password is None):
            return False
        return self.tokens is None or time.monotonic() > self.good_until - _EARLY_S

    def keep(self, tokens: TokenPair) -> None:
        """Use these tokens from now on."""
        self.tokens = tokens
        self.good_until = time.monotonic() + tokens.expires_in

    def headers(self) -> dict[str, str]:
        """Of a request that says who calls."""
        credential = self.credential()
        return {} if credential is None else {"Authorization": f"Bearer {credential}"}


def address_of(url: str) -> str:
    """The address of a service, if it can be one.

    Raises:
        InputError: it says no way to get there, or no place.
    """
    try:
        found = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise _no_address(url, f" ({error})") from error
    if found.scheme not in ("http", "https"):
        raise _no_address(url, ", which does not begin with http:// or https://")
    if not found.host:
        raise _no_address(url, ", which names no host")
    return url


def _no_address(url: str, why: str) -> InputError:
    return InputError(
        f"the address {url!r}{why}",
        allowed="one that begins with http:// or https://, such as http://127.0.0.1:8000",
        remedy="Give the whole address of the service.",
    )


def exchange(session: Session, call: Call[T]) -> Steps[T]:
    """Make a call, again where that helps and is safe.

    Raises:
        ApiError: the service refused.
        NoAnswerError: it was not reached, or did not answer in time.
    """
    attempt, renewed = 1, False
    while True:
        if call.signed and session.must_renew():
            yield Renew(session.credential())
        used = session.credential()
        signed = session.headers() if call.signed else {}
        outcome: Outcome = yield Send(call.method, call.path, call.params, {**call.headers, **signed}, call.body)
        if isinstance(outcome, httpx2.Response) and outcome.is_success:
            return read(call, outcome)
        if call.signed and not renewed and is_stale(session, outcome):
            renewed = True
            yield Renew(used)
            continue
        wait_s = pause_before_next(session, outcome, attempt, repeatable=call.repeatable)
        if wait_s is None:
            raise failure(outcome)
        yield Pause(wait_s)
        attempt += 1


def read(call: Call[T], response: httpx2.Response) -> T:
    """The answer; what cannot be read as one is said to be none."""
    try:
        return call.read(response)
    except ValidationError as error:
        raise ApiError(
            response.status_code,
            "unknown",
            f"an answer that this client does not understand: {error.errors()[0]['msg']}",
            request_id=response.headers.get("X-Request-ID"),
        ) from error


def renewal(session: Session, stale: str | None) -> Steps[None]:
    """Get new tokens in place of one that is no longer good, unless somebody else just did.

    Raises:
        NotSignedInError: the sign-in has ended, and there is no password to sign in again.
    """
    if session.credential() != stale:
        return
    if session.tokens is not None:
        refresh = _call("/v1/refresh", {"json": {"refresh_token": session.tokens.refresh_token}})
        try:
            session.keep((yield from exchange(session, refresh)))
        except NotSignedInError:
            session.tokens = None
            if session.password is None:
                raise
        except NoAnswerError as error:
            if isinstance(error.__cause__, _NEVER_SENT):
                raise
            session.tokens = None  # it may have been used: a second use would end the sign-in
            if session.password is None:
                raise
        else:
            return
    if session.password is not None:
        yield from sign_in(session, session.email or "", session.password)


def sign_in(session: Session, email: str, password: str) -> Steps[None]:
    """Sign in with a password.

    Raises:
        NotSignedInError: it is wrong.
    """
    form = {"data": {"username": email, "password": password}}
    session.keep((yield from exchange(session, _call("/v1/login", form))))


def sign_out(session: Session) -> Steps[None]:
    """End the sign-in, and forget the password."""
    session.password = None
    if session.tokens is not None:
        yield from exchange(session, Call("POST", "/v1/logout", nothing, repeatable=True))
        session.tokens = None


def is_stale(session: Session, outcome: Outcome) -> bool:
    """Whether a request was refused for a token that can be renewed."""
    return (
        isinstance(outcome, httpx2.Response)
        and outcome.status_code == 401
        and session.api_key is None
        and (session.tokens is not None or session.password is not None)
    )


def pause_before_next(session: Session, outcome: Outcome, attempt: int, *, repeatable: bool) -> float | None:
    """Seconds until the next attempt, None where there shall be none."""
    if attempt >= session.attempts:
        return None
    grown = _FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    if not isinstance(outcome, httpx2.Response):
        return grown if repeatable or isinstance(outcome, _NEVER_SENT) else None
    error = error_of(outcome)
    asked = error.retry_after_s
    if error.code in _NOTHING_DONE and asked is not None:
        safe = True
    else:
        safe = repeatable and outcome.status_code in _LATER
    if not safe or (asked is not None and asked > session.longest_wait_s):
        return None
    return grown if asked is None else asked + random.uniform(0, 0.1)


def failure(outcome: Outcome) -> Exception:
    """What a call that has failed raises."""
    if isinstance(outcome, httpx2.Response):
        return error_of(outcome)
    what = f"no answer: {type(outcome).__name__} {outcome}".strip()
    error = NoAnswerError(
        what, allowed="a service that is reached within the timeout", remedy="Check the address, and try again."
    )
    error.__cause__ = outcome
    return error


def _call(path: str, body: Mapping[str, Any]) -> Call[TokenPair]:
    return Call("POST", path, reads(TokenPair), body=body, signed=False)
