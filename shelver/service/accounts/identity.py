"""Who is calling, and who may: every route declares it with `allowed(...)`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from shelver.service.accounts.payloads import Role as Role
from shelver.service.accounts.tokens import AUDIENCE, KEY_PREFIX, PAGES, hash_of
from shelver.service.db import Database
from shelver.service.drivers import DOWN
from shelver.service.problems import ServiceError
from shelver.service.tables.accounts import ApiKey, SignIn, User
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

if TYPE_CHECKING:
    from shelver.service.state import Service

_FRESH_S: Final = 5.0
_PATIENCE_S: Final = 1.0
_KEPT: Final = 20_000
COOKIE: Final = "shelver_session"
"""Signs a browser in; nothing that a page's scripts could read. Over https it has a prefix, so that no other host
of the same domain can plant one."""
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request.

    Attributes:
        user_id: row of `users`; None of somebody who has not signed in.
        role: of the account, as it is now, whatever the token was made with.
        name: of the account.
        via: how he showed who he is.
        sign_in_id: the sign-in that his access token comes from.
    """

    user_id: str | None
    role: Role
    name: str
    via: Literal["password", "key", "anonymous"]
    sign_in_id: str | None = None


ANONYMOUS: Final = Identity(None, "public", "", "anonymous")


def identity_of(
    user: User, via: Literal["password", "key", "anonymous"], sign_in_id: str | None = None
) -> Identity:
    """A user as the one who acts."""
    return Identity(user.id, cast(Role, user.role), user.name, via, sign_in_id)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said of a token or key, and when it was asked."""

    identity: Identity
    version: int
    ends: float | None
    asked: float


class Identities:
    """Looks up who a token or key belongs to.

    Answers are kept for a few seconds, so that a request costs no query, and forgotten at once where this server
    changes an account; another server that shares the database follows within `_FRESH_S`. While the database does
    not answer, what it said last stands for `stale_s`.
    """

    def __init__(self, database: Database, *, stale_s: float) -> None:
        self._database = database
        self._stale_s = stale_s
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._changes = 0
        self._asking: dict[tuple[str, int], asyncio.Task[_Known | None]] = {}
        self._hangs_until = 0.0

    def recent(self, token: str) -> _Known | None:
        """What is known of a key's hash or a sign-in's id, if it was asked a moment ago."""
        known = self._known.get(token)
        return known if known is not None and time.monotonic() - known.asked < _FRESH_S else None

    async def asked(self, token: str, via: Literal["password", "key"]) -> _Known | None:
        """`ask`, once for all who want to know the same now. A database that hangs keeps nobody waiting who was
        known before."""
        name = token, self._changes  # after a change nobody gets what was asked before it
        task = self._asking.get(name)
        if task is None:
            task = asyncio.create_task(run_in_threadpool(self.ask, token, via))
            task.add_done_callback(lambda done: self._answered(name, done))
            self._asking[name] = task
        known = self._known.get(token)
        if known is None or time.monotonic() - known.asked > self._stale_s:
            return await asyncio.shield(task)
        hangs = time.monotonic() < self._hangs_until
        try:
            return await asyncio.wait_for(asyncio.shield(task), 0 if hangs else _PATIENCE_S)
        except TimeoutError:
            if not hangs:
                self._hangs_until = time.monotonic() + _FRESH_S
            return known

    def _answered(self, name: tuple[str, int], task: asyncio.Task[_Known | None]) -> None:
        del self._asking[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it, and often nobody did

    def ask(self, token: str, via: Literal["password", "key"]) -> _Known | None:
        """Ask the database; None where the token is unknown or revoked, or its user disabled."""
        changes = self._changes
        try:
            known = self._read(token, via)
        except DOWN:
            known = self._known.get(token)
            if known is None or time.monotonic() - known.asked > self._stale_s:
                raise
            return known
        with self._lock:
            self._known.pop(token, None)
            if known is not None and changes == self._changes:
                self._known[token] = known
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known

    def forget(self, user_id: str) -> None:
        """Ask again about everything of a user; call it after the commit."""
        with self._lock:
            self._changes += 1
            for token in [token for token, known in self._known.items() if known.identity.user_id == user_id]:
                del self._known[token]

    def _read(self, token: str, via: Literal["password", "key"]) -> _Known | None:
        asked = time.monotonic()
        if via == "key":
            found = select(User, ApiKey.expires_at).join(ApiKey, ApiKey.user_id == User.id)
            found = found.where(ApiKey.hash == token, ApiKey.revoked_at.is_(None))
        else:
            found = select(User, SignIn.expires_at).join(SignIn, SignIn.user_id == User.id)
            found = found.where(SignIn.id == token, SignIn.revoked_at.is_(None))
        with self._database.reading() as session:
            row = session.execute(found).one_or_none()
        if row is None or row[0].disabled_at is not None or row[0].deleted_at is not None:
            return None
        user, expires_at = row
        ends = None if expires_at is None else expires_at.timestamp()
        sign_in_id = token if via == "password" else None
        return _Known(identity_of(user, via, sign_in_id), user.version, ends, asked)


_BEARER: Final = OAuth2PasswordBearer("/v1/login", auto_error=False, description="An access token, or an API key.")
_KEY: Final = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key, as machines have it.")


@dataclass(frozen=True)
class Rule:
    """Who may call a route.

    Attributes:
        roles: those that may; `public` means everybody.
        opened_by: whether the settings open the route to everybody.
    """

    roles: tuple[Role, ...]
    opened_by: Callable[[ServiceSettings], bool] | None = None


def allowed(*roles: Role, opened_by: Callable[[ServiceSettings], bool] | None = None) -> Any:
    """Declare who may call a route: `identity: Annotated[Identity, allowed("seller", "admin")]`.

    Args:
        roles: those that may; `allowed("public")` lets everybody in, and ignores a token that is not valid.
        opened_by: a setting that opens the route to everybody; a token that is not valid is refused all the same.
    """
    rule = Rule(roles, opened_by)

    async def anybody(request: Request) -> Identity:
        try:
            return await _identify(request, _credential(request.headers.get("Authorization"), None))
        except ServiceError:
            return ANONYMOUS

    async def somebody(
        request: Request,
        authorization: Annotated[str | None, Security(_BEARER)],
        key: Annotated[str | None, Security(_KEY)],
    ) -> Identity:
        identity = await _identify(request, authorization or key)
        if identity.role in rule.roles:
            return identity
        settings: ServiceSettings = request.app.state.service.settings
        if identity.user_id is None:
            if rule.opened_by is not None and rule.opened_by(settings):
                return identity
            raise _not_signed_in("neither a token nor a key")
        raise ServiceError(
            "not_allowed",
            f"an account with the role {identity.role}",
            allowed=" or ".join(rule.roles),
            remedy="Ask an administrator for the role.",
        )

    check = anybody if "public" in roles else somebody
    setattr(check, _RULE, rule)
    return Depends(check)


_RULE: Final = "shelver_rule"
_IDENTITY: Final = "shelver_identity"


def rule_of(dependency: Any) -> Rule | None:
    """The rule that a route's dependency declares, if it does."""
    rule = getattr(dependency, _RULE, None)
    return rule if isinstance(rule, Rule) else None


def rules_of(dependant: Dependant) -> list[Rule]:
    """All rules that a route's dependencies declare; there must be one."""
    found = []
    for one in dependant.dependencies:
        rule = rule_of(one.call)
        found += ([] if rule is None else [rule]) + rules_of(one)
    return found


def _credential(authorization: str | None, key: str | None) -> str | None:
    scheme, _, value = (authorization or "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else key


async def identify(request: Request) -> Identity:
    """Who makes a request, before any route is looked for.

    Raises:
        ServiceError: a token that is not valid.
    """
    headers = request.headers
    return await _identify(request, _credential(headers.get("Authorization"), headers.get("X-API-Key")))


def cookie_of(request: Request) -> str:
    """The name of the cookie that signs a browser in over this connection."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def check_origin(request: Request) -> None:
    """Refuse what another site lets a browser send: a change must come from one of our own pages.

    Raises:
        ServiceError: it does not.
    """
    if request.method in _SAFE:
        return
    # Browsers send the first to hosts that they trust, over https and locally, and the second with every change.
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise ServiceError(
            "cross_site",
            f"a {request.method[:10]} that a browser sends for {'another site' if origin or site else 'nobody'}",
            allowed="changes from the pages of this service; programs sign in with a token or a key",
            remedy="Open the page of this service, and try again there.",
        )


async def _identify(request: Request, credential: str | None) -> Identity:
    audience = AUDIENCE
    if not credential:
        credential, audience = request.cookies.get(cookie_of(request)), PAGES
        if not credential:
            return ANONYMOUS
        check_origin(request)
    service: Service = request.app.state.service
    is_key = audience == AUDIENCE and credential.startswith(KEY_PREFIX)
    via: Literal["password", "key"] = "key" if is_key else "password"
    access = None
    if via == "key":
        token = hash_of(credential)
    else:
        access = service.tokens.read(credential, audience=audience)
        if access is None:
            raise _not_signed_in("a token that is not valid or has expired")
        token = access.sign_in_id
    known = service.identities.recent(token)
    if known is None:
        known = await service.identities.asked(token, via)
    if (
        known is None
        or (known.ends is not None and known.ends <= now().timestamp())
        or (access is not None and (access.user_id, access.version) != (known.identity.user_id, known.version))
    ):
        raise _not_signed_in("a token that was revoked or has expired")
    request.scope["user_id"] = known.identity.user_id  # for the log
    request.scope[_IDENTITY] = known.identity  # for pages, which show who has signed in
    return known.identity


def known_identity(request: Request) -> Identity:
    """Who makes a request, for what a page shows: as it was asked for the request, or for one a moment ago."""
    if _IDENTITY in request.scope:
        identity: Identity = request.scope[_IDENTITY]
        return identity
    service: Service = request.app.state.service
    access = service.tokens.read(request.cookies.get(cookie_of(request), ""), audience=PAGES)
    known = None if access is None else service.identities.recent(access.sign_in_id)
    return ANONYMOUS if known is None else known.identity


def _not_signed_in(received: str) -> ServiceError:
    return ServiceError(
        "not_signed_in", received, allowed="a valid access token or API key", remedy="Sign in again at /v1/login."
    )
