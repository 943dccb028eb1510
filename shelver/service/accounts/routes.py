"""Accounts: people register, sign in and out, and set their password. `personal` has their own data."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.service.accounts import one_time, sign_ins
from shelver.service.accounts.identity import Identity, Role, allowed, identity_of
from shelver.service.accounts.passwords import PASSWORD_TURN
from shelver.service.accounts.payloads import (
    Account,
    FirstAdmin,
    NewPassword,
    Refresh,
    Registration,
    Rename,
    Reset,
    TokenPair,
    checked_email,
)
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.limits import address_of
from shelver.service.problems import ServiceError, not_found, problem_response, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import SignIn, User
from shelver.service.tables.declarative import now

router = APIRouter(tags=["accounts"])
_ANYWHERE: Final = 10
"""So many addresses that were locked lock an account for everybody, but for where it has signed in before."""
_REFRESHES: Final = 10
"""A minute, of one sign-in."""
_MOMENT: Final = timedelta(minutes=10)

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
        one_time.find_token(looking, body.token, "first_admin")
    hashed = service.passwords.hash(body.password)
    one_time.use_token(session, one_time.find_token(session, body.token, "first_admin"))
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
    user = user_with_password(request, service, session, form.username, form.password)
    return sign_ins.begin(service, session, user, request)


@router.post(
    "/v1/refresh",
    dependencies=[Anybody],
    response_model=TokenPair,
    responses=responses("token_unusable", "too_many_requests"),
)
def refresh(request: Request, body: Refresh, service: ServiceDep, session: SessionDep) -> TokenPair | Response:
    """Change a refresh token for a new pair. A token that comes twice ends the whole sign-in."""
    with service.database.reading() as looking:
        sign_in_id = sign_ins.sign_in_of(looking, body.refresh_token)
    if sign_in_id is None:  # before it costs a writer's turn
        service.limits.take(f"refresh:{address_of(request)}", service.settings.sign_ins_per_minute)
        raise one_time.unusable()
    service.limits.take(f"refresh:{sign_in_id}", _REFRESHES)
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
def read_me(identity: Anyone, session: SessionDep) -> Account:
    """One's own account."""
    return Account.model_validate(user_of(session, identity))


@router.patch("/v1/me")
def rename_me(body: Rename, identity: Person, service: ServiceDep, session: SessionDep) -> Account:
    """Change one's own name."""
    user = user_of(session, identity)
    user.name = body.name
    after_commit(session, lambda: service.identities.forget(user.id))
    return Account.model_validate(user)


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
    confirm(service, request, identity, body.old_password)
    hashed = service.passwords.hash(body.new_password)
    user = user_of(session, identity, lock=True)
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
    """Set a password with a token that an administrator gave or that came by mail; all sign-ins end."""
    with service.database.reading() as looking:
        one_time.find_token(looking, body.token, "password", "mailed")
    hashed = service.passwords.hash(body.new_password)
    row = one_time.find_token(session, body.token, "password", "mailed")
    # The user first, as everywhere: who locks in another order waits for ever.
    user = locked_user(session, row.user_id) if row.user_id else None
    one_time.use_token(session, row)
    if user is None or user.disabled_at or user.deleted_at:
        raise one_time.unusable()
    _set_password(service, session, user, hashed)
    audit(session, identity_of(user, "anonymous"), "user.password_reset", user.id)
    return Response(status_code=204)


def user_with_password(request: Request, service: Service, session: Session, email: str, password: str) -> User:
    """The user who signs in, locked; the caller has a `PASSWORD_TURN`.

    Raises:
        ServiceError: e-mail address and password do not belong together, or too many tried.
    """
    with service.database.reading() as looking:
        try:
            email = checked_email(email)
        except ValueError:
            email, found = email[:254], None
        else:
            found = looking.scalar(select(User).where(User.email == email))
    if found is not None and (found.disabled_at or found.deleted_at):
        found = None
    renewed = check_password(service, request, email, password, found)
    # Locked: a password that is changed meanwhile ends this sign-in too, or this one does not begin.
    user = locked_user(session, found.id) if found is not None else None
    if user is None or user.disabled_at or user.password_hash != (found and found.password_hash):
        raise _failed()
    if renewed is not None:
        user.password_hash = renewed
    return user


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


def user_of(session: Session, identity: Identity, *, lock: bool = False) -> User:
    """The row of whoever calls; locked where it is going to be changed."""
    user = None
    if identity.user_id is not None:
        user = locked_user(session, identity.user_id) if lock else session.get(User, identity.user_id)
    if user is None:
        raise not_found("account")
    return user


def locked_user(session: Session, user_id: str) -> User | None:
    """A user's row as it is now; nobody else changes it until this transaction ends."""
    return session.get(User, user_id, with_for_update=True, populate_existing=True)


def keep_an_admin(session: Session, user: User) -> None:
    """Refuse to take away the last administrator.

    Raises:
        ServiceError: the user is.
    """
    if is_last_admin(session, user):
        raise ServiceError(
            "last_admin",
            "a change that leaves no administrator",
            allowed="changes that leave one",
            remedy="Make somebody else an administrator first.",
        )


def is_last_admin(session: Session, user: User) -> bool:
    """Whether nobody else can administrate. The user must not be locked yet: the administrators are, in one order,
    so that two of them cannot take each other's role away at once."""
    return list(session.scalars(one_time.active_admins().with_for_update())) == [user.id]


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
    if not limits.remembers(here):
        limits.refuse_locked(anywhere, _ANYWHERE)
    right, renewed = service.passwords.check(password, user.password_hash if user else None)
    if not right:
        if limits.failed(here, settings.lockout_s) == settings.sign_in_failures:
            limits.failed(anywhere, settings.lockout_s)
        raise _failed()
    limits.succeeded(here)
    limits.succeeded(anywhere)
    limits.remember(here)
    return renewed


def confirm(service: Service, request: Request, identity: Identity, password: str | None) -> None:
    """See to it that it is he: by his password; who has none, by a sign-in at the issuer a moment ago."""
    with service.database.reading() as looking:
        user = user_of(looking, identity)
        sign_in = looking.get(SignIn, identity.sign_in_id) if password is None else None
    if user.password_hash is None and sign_in is not None and now() - sign_in.created_at < _MOMENT:
        return
    check_password(service, request, user.email or user.id, password or "", user)


def _set_password(service: Service, session: Session, user: User, hashed: str) -> None:
    user.password_hash = hashed
    user.version += 1
    one_time.end_tokens(session, user.id)
    sign_ins.end(service, session, user.id)


def _failed() -> ServiceError:
    return ServiceError(
        "sign_in_failed",
        "an e-mail address and a password that do not belong together",
        allowed="those of an account that is not disabled",
        remedy="Check both, or ask an administrator to reset the password.",
    )
