"""Sign-ins: each gives an access token for minutes and a refresh token that is changed for the next pair."""

from __future__ import annotations

from datetime import timedelta

from fastapi import Request
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import identity_of
from shelver.service.accounts.payloads import TokenPair
from shelver.service.accounts.tokens import PAGES, REFRESH_PREFIX, Access, hash_of, random_token
from shelver.service.audit import audit
from shelver.service.db import after_commit
from shelver.service.state import Service
from shelver.service.tables.accounts import AGENT_CHARS, RefreshToken, SignIn, User
from shelver.service.tables.declarative import now


def begin(service: Service, session: Session, user: User, request: Request | None = None) -> TokenPair:
    """Sign a user in; his sign-ins that have expired are cleared away. The request tells where it begins."""
    return _pair(service, session, user, _begun(service, session, user, request))


def begin_pages(service: Service, session: Session, user: User, request: Request | None = None) -> str:
    """Sign a user in on the pages: what his browser keeps in a cookie, as long as the sign-in lasts."""
    sign_in = _begun(service, session, user, request)
    access = Access(user.id, sign_in.id, user.version)
    return service.tokens.sign(access, audience=PAGES, lifetime_s=service.settings.refresh_s)


def sign_in_of(session: Session, token: str) -> str | None:
    """The sign-in that a refresh token belongs to, whatever became of it."""
    return session.scalar(select(RefreshToken.sign_in_id).where(RefreshToken.hash == hash_of(token)))


def go_on(service: Service, session: Session, token: str) -> TokenPair | None:
    """Change a refresh token for the next pair; None where it cannot be.

    One that was used before has been copied by somebody: the whole sign-in ends, for the thief and for the owner.
    The caller must let the transaction be committed for that, so it is no error.
    """
    found = session.execute(
        select(RefreshToken.id, SignIn, User)
        .join(SignIn, RefreshToken.sign_in_id == SignIn.id)
        .join(User, SignIn.user_id == User.id)
        .where(RefreshToken.hash == hash_of(token))
    ).one_or_none()
    if found is None:
        return None
    token_id, sign_in, user = found
    if sign_in.revoked_at is not None or sign_in.expires_at <= now() or user.disabled_at or user.deleted_at:
        return None
    mine = update(RefreshToken).where(RefreshToken.id == token_id, RefreshToken.used_at.is_(None))
    if session.execute(mine.values(used_at=now())).rowcount == 0:  # type: ignore[attr-defined]
        sign_in.revoked_at = now()
        audit(session, identity_of(user, "password"), "sign_in.copied", sign_in.id)
        after_commit(session, lambda: service.identities.forget(user.id))
        return None
    session.execute(
        delete(RefreshToken).where(
            RefreshToken.sign_in_id == sign_in.id,
            RefreshToken.used_at < now() - timedelta(seconds=service.settings.refresh_s),
        )
    )
    return _pair(service, session, user, sign_in)


def end(
    service: Service, session: Session, user_id: str, sign_in_id: str | None = None, *, but: str | None = None
) -> None:
    """End one sign-in of a user, or all of them, `but` one; their access tokens end with them."""
    ended = update(SignIn).where(SignIn.user_id == user_id, SignIn.revoked_at.is_(None))
    if sign_in_id is not None:
        ended = ended.where(SignIn.id == sign_in_id)
    if but is not None:
        ended = ended.where(SignIn.id != but)
    session.execute(ended.values(revoked_at=now()))
    after_commit(session, lambda: service.identities.forget(user_id))


def _begun(service: Service, session: Session, user: User, request: Request | None) -> SignIn:
    session.execute(delete(SignIn).where(SignIn.user_id == user.id, SignIn.expires_at < now()))
    sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(seconds=service.settings.refresh_s))
    if request is not None:
        sign_in.address = request.client.host[:64] if request.client else None
        sign_in.agent = (
            "".join(filter(str.isprintable, request.headers.get("user-agent", "")))[:AGENT_CHARS] or None
        )
    session.add(sign_in)
    session.flush()
    return sign_in


def _pair(service: Service, session: Session, user: User, sign_in: SignIn) -> TokenPair:
    refresh = random_token(REFRESH_PREFIX)
    sign_in.expires_at = now() + timedelta(seconds=service.settings.refresh_s)
    session.add(RefreshToken(sign_in_id=sign_in.id, hash=hash_of(refresh)))
    return TokenPair(
        access_token=service.tokens.sign(Access(user.id, sign_in.id, user.version)),
        expires_in=service.settings.access_s,
        refresh_token=refresh,
    )
