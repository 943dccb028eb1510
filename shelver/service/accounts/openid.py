"""OpenID Connect: a shop's own user database signs people in.

A browser begins at /v1/openid/start, signs in at the issuer, and comes back to /v1/openid/callback with a code,
which is changed for the same pair of tokens as /v1/login gives. What belongs to a sign-in that has begun stands in
a cookie of the browser that began it, signed, for ten minutes; nobody can finish it in another browser.

An account belongs to a person by issuer and subject. It is never found by an e-mail address: an address in an
account of ours was not verified, so whoever registers with a stranger's address would wait there for the stranger.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from datetime import timedelta
from typing import Annotated, Any, Final, cast

import jwt
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.service.accounts import sign_ins
from shelver.service.accounts.identity import allowed, identity_of
from shelver.service.accounts.issuer import Issuer, error_named, refuse
from shelver.service.accounts.payloads import (
    Beginning,
    Role,
    SignInOptions,
    TokenPair,
    checked_email,
    checked_name,
)
from shelver.service.accounts.routes import add_user, locked_user
from shelver.service.accounts.tokens import ALGORITHM
from shelver.service.audit import audit
from shelver.service.db import after_commit
from shelver.service.limits import address_of
from shelver.service.problems import ServiceError, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink
from shelver.settings import ServiceSettings

START: Final = "/v1/openid/start"
_BEGUN_S: Final = 600
_AUDIENCE: Final = "shelver-openid"
_RANKS: Final = ("seller", "reviewer", "admin")
_Given = Annotated[str | None, Query(max_length=4000)]
router = APIRouter(tags=["accounts"])


@router.get("/v1/openid", dependencies=[allowed("public")], summary="How to sign in")
def read_sign_in_options(service: ServiceDep) -> SignInOptions:
    """Whether an issuer of OpenID Connect signs people in, and where a browser begins."""
    return SignInOptions(openid=service.issuer is not None, start=START if service.issuer is not None else None)


@router.get(
    START,
    dependencies=[allowed("public")],
    summary="Sign in at the issuer",
    response_model=Beginning,
    responses={
        303: {"description": "To the issuer"},
        **responses("issuer_unavailable", "not_found", "too_many_requests"),
    },
)
def begin_openid(
    request: Request,
    service: ServiceDep,
    redirect: Annotated[bool, Query(description="Go there; else the answer has the address.")] = True,
) -> Response:
    """Send a browser to the issuer. The cookie that it gets is needed to come back."""
    issuer = _issuer(service, request)
    state = secrets.token_urlsafe(32)
    address = issuer.begin(state, *_derived(service, state))
    shown = Beginning(address=address).model_dump()
    answer = RedirectResponse(address, 303) if redirect else JSONResponse(shown)
    claims = {"aud": _AUDIENCE, "state": state, "exp": now() + timedelta(seconds=_BEGUN_S)}
    answer.set_cookie(
        _cookie_of(issuer),
        jwt.encode(claims, service.tokens.derived(_AUDIENCE), ALGORITHM),
        max_age=_BEGUN_S,
        secure=issuer.redirect.startswith("https:"),
        httponly=True,
        samesite="lax",  # the way back is a link from another site
    )
    return answer


@router.get(
    "/v1/openid/callback",
    dependencies=[allowed("public")],
    summary="Come back from the issuer",
    response_model=TokenPair,
    responses=responses("issuer_unavailable", "not_found", "openid_failed", "too_many_requests"),
)
def finish_openid(
    request: Request,
    service: ServiceDep,
    code: _Given = None,
    state: _Given = None,
    iss: _Given = None,
    error: _Given = None,
) -> JSONResponse:
    """Change what the issuer gave the browser for a pair of tokens; the first time, this makes an account."""
    issuer = _issuer(service, request)
    if state is None or not _began(service, issuer, request, state):
        refuse("a sign-in that this browser did not begin")
    if iss is not None and iss != issuer.address:
        refuse("an answer of another issuer")
    if code is None or error is not None:
        refuse(f"the issuer did not sign in: {error_named(error)}")
    claims = issuer.finish(code, *_derived(service, state))
    answer = JSONResponse(_sign_in(service, issuer, claims).model_dump())
    answer.delete_cookie(_cookie_of(issuer), secure=issuer.redirect.startswith("https:"), httponly=True)
    return answer


def _issuer(service: Service, request: Request) -> Issuer:
    if service.issuer is None:
        raise ServiceError(
            "not_found",
            "no issuer of OpenID Connect",
            allowed="a service that was set up with one",
            remedy="Sign in at /v1/login.",
        )
    service.limits.take(f"sign-in:{address_of(request)}", service.settings.sign_ins_per_minute)
    return service.issuer


def _cookie_of(issuer: Issuer) -> str:
    """With the prefix no other host of the same domain can set it."""
    return "__Host-shelver-openid" if issuer.redirect.startswith("https:") else "shelver-openid"


def _derived(service: Service, state: str) -> tuple[str, str]:
    """The nonce and the verifier of a sign-in: nobody but us can tell them from its state."""

    def derived(purpose: str) -> str:
        digest = hmac.digest(service.tokens.derived(purpose), state.encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return derived("openid nonce"), derived("openid verifier")


def _began(service: Service, issuer: Issuer, request: Request, state: str) -> bool:
    try:
        claims = jwt.decode(
            request.cookies.get(_cookie_of(issuer), ""),
            service.tokens.derived(_AUDIENCE),
            algorithms=[ALGORITHM],
            audience=_AUDIENCE,
            options={"require": ["exp", "aud", "state"]},
        )
    except (jwt.InvalidTokenError, ValueError):
        return False
    return hmac.compare_digest(str(claims["state"]).encode(), state.encode("utf-8", "replace"))


def _sign_in(service: Service, issuer: Issuer, claims: dict[str, Any]) -> TokenPair:
    """A pair of tokens for whom the issuer has signed in."""
    email = _verified_email(claims)
    domains = {domain.lower().removeprefix("@") for domain in service.settings.openid_domains}
    if domains and (email is None or email.rpartition("@")[2] not in domains):
        refuse("a person without a verified e-mail address of an allowed domain")
    for last in (False, True):
        try:
            with service.database.writing() as session:
                user = _user_of(service, session, issuer.address, claims, email)
                return sign_ins.begin(service, session, user)
        except (IntegrityError, ServiceError) as error:
            # The same person came twice at once, or somebody registered with this address meanwhile.
            if last or (isinstance(error, ServiceError) and error.code != "account_exists"):
                raise
    raise AssertionError


def _user_of(service: Service, session: Session, issuer: str, claims: dict[str, Any], email: str | None) -> User:
    role = role_of(service.settings, claims)
    of_person = OpenIdLink.issuer == issuer, OpenIdLink.subject == claims["sub"]
    user_id = session.scalar(select(OpenIdLink.user_id).where(*of_person))
    user = locked_user(session, user_id) if user_id is not None else None
    if user is None:
        if email is not None and session.scalar(select(User.id).where(User.email == email)) is not None:
            email = None
        user = add_user(session, email, _name_of(claims), role or "seller", password_hash=None, by=None)
        session.add(OpenIdLink(issuer=issuer, subject=claims["sub"], user_id=user.id))
        audit(session, identity_of(user, "anonymous"), "user.openid", user.id, {"issuer": issuer})
        return user
    if user.disabled_at is not None or user.deleted_at is not None:
        refuse("an account that is disabled")
    if role is not None and role != user.role:
        audit(session, identity_of(user, "anonymous"), "user.role", user.id, {"from": user.role, "to": role})
        user.role = role
        user.version += 1
        changed = user.id
        after_commit(session, lambda: service.identities.forget(changed))
    return user


def role_of(settings: ServiceSettings, claims: dict[str, Any]) -> Role | None:
    """The highest role that the settings give for what a claim names; None where the issuer has no say in it."""
    claim = settings.openid_role_claim
    if claim is None:
        return None
    found: Any = claims
    if claim in claims:
        found = claims[claim]
    else:  # such as realm_access.roles
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    roles = {
        settings.openid_roles[name] for name in named if isinstance(name, str) and name in settings.openid_roles
    }
    return cast(Role, max(roles or {"seller"}, key=_RANKS.index))


def _verified_email(claims: dict[str, Any]) -> str | None:
    if claims.get("email_verified") not in (True, "true") or not isinstance(claims.get("email"), str):
        return None
    try:
        return checked_email(claims["email"])
    except ValueError:
        return None


def _name_of(claims: dict[str, Any]) -> str:
    for claim in ("name", "preferred_username", "nickname"):
        said = claims.get(claim)
        if isinstance(said, str):
            try:
                return checked_name(said[:100])
            except ValueError:
                continue
    return "a person without a name"
