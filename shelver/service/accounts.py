"""Accounts: people register, sign in and out, set their password, and see, export and delete their own data."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.service import one_time, sign_ins
from shelver.service.account_payloads import (
    Account,
    Confirmation,
    Export,
    FirstAdmin,
    NewPassword,
    Refresh,
    Registration,
    Rename,
    Reset,
    checked_email,
)
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.feedback import erase_records_of
from shelver.service.identity import Identity, Role, allowed, identity_of
from shelver.service.limits import address_of
from shelver.service.passwords import PASSWORD_TURN
from shelver.service.personal import rows_of
from shelver.service.problems import ServiceError, not_found, problem_response, responses
from shelver.service.sign_ins import TokenPair
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import ApiKey, OneTimeToken, SignIn, User
from shelver.service.tables.declarative import now

router = APIRouter(tags=["accounts"])
_ANYWHERE: Final = 10
"""How many times as many failures lock an account for everybody: one address alone must not lock its owner out."""


Person = Annotated[Identity, allowed("seller", "reviewer", "admin")]
Anyone = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]
Anybody = allowed("public")


@router.post(
    "/v1/register",
    status_code=201,
    dependencies=[Anybody, PASSWORD_TURN],
    responses=responses("account_exists", "password_unfit", "registration_closed", "too_many_requests"),
)
def register(body: Registration, service: ServiceDep, session: SessionDep) -> Account:
    """Make an account for oneself; it has the role seller."""
    if service.settings.registration == "closed":
        raise ServiceError(
            "registration_closed",
            "a registration",
            allowed="accounts that an administrator makes",
            remedy="Ask an administrator of this service for an account.",
        )
    user = add_user(
        session, body.email, body.name, "seller", password_hash=service.passwords.hash(body.password), by=None
    )
    return Account.model_validate(user)


@router.post(
    "/v1/first-admin",
    status_code=201,
    dependencies=[Anybody, PASSWORD_TURN],
    responses=responses("account_exists", "password_unfit", "token_unusable", "too_many_requests"),
)
def first_admin(body: FirstAdmin, service: ServiceDep, session: SessionDep) -> Account:
    """Make the first administrator's account, with a token from the command line."""
    with service.database.reading() as looking:
        one_time.find_token(looking, "first_admin", body.token)
    hashed = service.passwords.hash(body.password)
    one_time.use_token(session, one_time.find_token(session, "first_admin", body.token))
    if one_time.has_admin(session):
        raise one_time.unusable()
    return Account.model_validate(add_user(session, body.email, body.name, "admin", password_hash=hashed, by=None))


@router.post(
    "/v1/login",
    dependencies=[Anybody, PASSWORD_TURN],
    responses=responses("sign_in_failed", "too_many_requests"),
)
def login(
    request: Request,
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    service: ServiceDep,
    session: SessionDep,
) -> TokenPair:
    """Sign in with e-mail address (as `username`) and password.

    Whether there is such an account cannot be told from the answer, its time, or when it is locked.
    """
    with service.database.reading() as looking:
        try:
            email = checked_email(form.username)
        except ValueError:
            email, found = form.username[:254], None
        else:
            found = looking.scalar(select(User).where(User.email == email))
    if found is not None and (found.disabled_at or found.deleted_at):
        found = None
    renewed = check_password(service, request, email, form.password, found)
    user = session.get(User, found.id) if found is not None else None
    if user is None or user.disabled_at or user.password_hash != (found and found.password_hash):
        raise _failed()
    if renewed is not None:
        user.password_hash = renewed
    return sign_ins.begin(service, session, user)


@router.post(
    "/v1/refresh", dependencies=[Anybody], response_model=TokenPair, responses=responses("token_unusable")
)
def refresh(request: Request, body: Refresh, service: ServiceDep, session: SessionDep) -> TokenPair | JSONResponse:
    """Change a refresh token for a new pair. A token that comes twice ends the whole sign-in."""
    pair = sign_ins.go_on(service, session, body.refresh_token)
    if pair is None:  # answered, not raised: that a token came twice must be committed
        return problem_response(request, "token_unusable", str(one_time.unusable()))
    return pair


@router.post("/v1/logout", status_code=204)
def logout(
    identity: Person, service: ServiceDep, session: SessionDep, everywhere: Annotated[bool, Query()] = False
) -> Response:
    """End this sign-in, or all of one's own; its tokens end with it."""
    assert identity.user_id is not None
    sign_ins.end(service, session, identity.user_id, None if everywhere else identity.sign_in_id)
    return Response(status_code=204)


@router.get("/v1/me")
def read_me(
    identity: Annotated[Identity, allowed("seller", "reviewer", "admin", "service")], session: SessionDep
) -> Account:
    """One's own account."""
    return Account.model_validate(user_of(session, identity))


@router.patch("/v1/me")
def rename_me(body: Rename, identity: Person, service: ServiceDep, session: SessionDep) -> Account:
    """Change one's own name."""
    user = user_of(session, identity)
    user.name = body.name
    after_commit(session, lambda: service.identities.forget(user.id))
    return Account.model_validate(user)


@router.get("/v1/me/export")
def export_me(identity: Person, session: SessionDep) -> Export:
    """Everything that is stored about oneself, but for hashes of passwords and tokens."""
    user = user_of(session, identity)
    return Export(account=Account.model_validate(user), tables=rows_of(session, user.id))


@router.post(
    "/v1/me/delete",
    status_code=204,
    dependencies=[PASSWORD_TURN],
    responses=responses("last_admin", "sign_in_failed", "too_many_requests"),
)
def delete_me(
    request: Request, body: Confirmation, identity: Person, service: ServiceDep, session: SessionDep
) -> Response:
    """Delete one's own account: what tells who one was is removed, and nobody can sign in with it again."""
    _confirm(service, request, identity, body.password)
    user = user_of(session, identity)
    keep_an_admin(session, user)
    audit(session, identity, "user.deleted", user.id)
    anonymise(service, session, user)
    return Response(status_code=204)


@router.post(
    "/v1/password",
    status_code=204,
    dependencies=[PASSWORD_TURN],
    responses=responses("password_unfit", "sign_in_failed", "too_many_requests"),
)
def change_password(
    request: Request, body: NewPassword, identity: Person, service: ServiceDep, session: SessionDep
) -> Response:
    """Change one's own password; all sign-ins end, this one too."""
    _confirm(service, request, identity, body.old_password)
    hashed = service.passwords.hash(body.new_password)
    user = user_of(session, identity)
    _set_password(service, session, user, hashed)
    audit(session, identity, "user.password", user.id)
    return Response(status_code=204)


@router.post(
    "/v1/reset",
    status_code=204,
    dependencies=[Anybody, PASSWORD_TURN],
    responses=responses("password_unfit", "token_unusable", "too_many_requests"),
)
def reset_password(body: Reset, service: ServiceDep, session: SessionDep) -> Response:
    """Set a password with a token that an administrator gave; all sign-ins end."""
    with service.database.reading() as looking:
        one_time.find_token(looking, "password", body.token)
    hashed = service.passwords.hash(body.new_password)
    row = one_time.find_token(session, "password", body.token)
    one_time.use_token(session, row)
    user = session.get(User, row.user_id)
    if user is None or user.disabled_at or user.deleted_at:
        raise one_time.unusable()
    _set_password(service, session, user, hashed)
    audit(session, identity_of(user, "anonymous"), "user.password_reset", user.id)
    return Response(status_code=204)


def add_user(
    session: Session, email: str | None, name: str, role: Role, *, password_hash: str | None, by: Identity | None
) -> User:
    """A new account.

    Raises:
        ServiceError: the e-mail address has one.
    """
    user = User(email=email, name=name, role=role, password_hash=password_hash)
    session.add(user)
    try:
        session.flush()
    except IntegrityError as error:
        raise ServiceError(
            "account_exists",
            "an e-mail address that has an account",
            allowed="one that has none",
            remedy="Sign in with it, or ask an administrator to reset the password.",
        ) from error
    audit(session, by or Identity(user.id, role, name, "anonymous"), "user.created", user.id, {"role": role})
    return user


def user_of(session: Session, identity: Identity) -> User:
    """The row of whoever calls."""
    user = session.get(User, identity.user_id) if identity.user_id else None
    if user is None:
        raise not_found("account")
    return user


def keep_an_admin(session: Session, user: User) -> None:
    """Refuse to take away the last administrator.

    Raises:
        ServiceError: the user is.
    """
    # Locked, so that two administrators cannot take each other's role away at once.
    admins = list(session.scalars(one_time.active_admins().with_for_update()))
    if admins == [user.id]:
        raise ServiceError(
            "last_admin",
            "a change that leaves no administrator",
            allowed="changes that leave one",
            remedy="Make somebody else an administrator first.",
        )


def anonymise(service: Service, session: Session, user: User) -> None:
    """Take everything that tells who a user is out of his row, end all his tokens and keys, and delete his
    products, pictures and predictions; his judgements stay, without a name."""
    erase_records_of(session, service, user.id)
    user.email, user.name, user.password_hash = None, "deleted", None
    user.deleted_at = user.disabled_at = now()
    user.version += 1
    session.execute(delete(OneTimeToken).where(OneTimeToken.user_id == user.id))
    session.execute(delete(SignIn).where(SignIn.user_id == user.id))
    session.execute(update(ApiKey).where(ApiKey.user_id == user.id).values(revoked_at=now()))
    after_commit(session, lambda: service.identities.forget(user.id))


def check_password(service: Service, request: Request, email: str, password: str, user: User | None) -> str | None:
    """Check a password, and count failures alike for accounts that exist and those that do not.

    Returns:
        A new hash to store, where the old one was made with other parameters.

    Raises:
        ServiceError: it is wrong, or the account is locked for this address.
    """
    settings, limits = service.settings, service.limits
    here, anywhere = f"account:{email}:{address_of(request)}", f"account:{email}"
    limits.refuse_locked(here, settings.sign_in_failures)
    limits.refuse_locked(anywhere, settings.sign_in_failures * _ANYWHERE)
    right, renewed = service.passwords.check(password, user.password_hash if user else None)
    if not right:
        limits.failed(here, settings.lockout_s)
        limits.failed(anywhere, settings.lockout_s)
        raise _failed()
    limits.succeeded(here)
    return renewed


def _confirm(service: Service, request: Request, identity: Identity, password: str) -> None:
    with service.database.reading() as looking:
        user = user_of(looking, identity)
    check_password(service, request, user.email or user.id, password, user)


def _set_password(service: Service, session: Session, user: User, hashed: str) -> None:
    user.password_hash = hashed
    user.version += 1
    sign_ins.end(service, session, user.id)


def _failed() -> ServiceError:
    return ServiceError(
        "sign_in_failed",
        "an e-mail address and a password that do not belong together",
        allowed="those of an account that is not disabled",
        remedy="Check both, or ask an administrator to reset the password.",
    )
