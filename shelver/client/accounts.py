"""Operations on accounts: one's own; for administrators users, the keys of machines, and the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from shelver.client.call import Call, get, given, nothing, part, post, reads
from shelver.service.accounts.payloads import (
    Account,
    AccountState,
    AuditPage,
    Key,
    MadeKey,
    PasswordToken,
    PersonRole,
    SignInOptions,
    SignIns,
    UserPage,
)


def first_admin(*, token: str, email: str, name: str, password: str) -> Call[Account]:
    """The first administrator's account, with the token of `shelver account first-admin`."""
    body = {"token": token, "email": email, "name": name, "password": password}
    return Call("POST", "/v1/first-admin", reads(Account), body={"json": body}, signed=False)


def read_sign_in_options() -> Call[SignInOptions]:
    """How people may sign in beside their password."""
    return get("/v1/openid", SignInOptions)


def rename_me(name: str) -> Call[Account]:
    """Change one's own name."""
    return Call("PATCH", "/v1/me", reads(Account), body={"json": {"name": name}}, repeatable=True)


def change_password(old_password: str, new_password: str) -> Call[None]:
    """Change one's own password. All sign-ins end, this one too: call `sign_in` afterwards."""
    body = {"old_password": old_password, "new_password": new_password}
    return Call("POST", "/v1/password", nothing, body={"json": body})


def forgot_password(email: str) -> Call[None]:
    """Let a mail be sent with a token for `reset_password`, if there is such an account."""
    return Call("POST", "/v1/forgot", nothing, body={"json": {"email": email}}, signed=False)


def reset_password(token: str, new_password: str) -> Call[None]:
    """Set a password with a token that came by mail or from an administrator; all sign-ins end."""
    body = {"token": token, "new_password": new_password}
    return Call("POST", "/v1/reset", nothing, body={"json": body}, signed=False)


def delete_me(password: str | None = None) -> Call[None]:
    """Delete one's own account with all that it has made; who has no password has signed in a moment ago."""
    return Call("POST", "/v1/me/delete", nothing, body={"json": given(password=password)})


def list_sign_ins() -> Call[SignIns]:
    """One's own sign-ins that go on."""
    return get("/v1/me/sign-ins", SignIns)


def end_other_sign_ins() -> Call[None]:
    """End all of one's own sign-ins but this one."""
    return Call("POST", "/v1/me/end-other-sign-ins", nothing, repeatable=True)


def list_users(
    *,
    role: Literal["seller", "reviewer", "admin", "service"] | None = None,
    state: AccountState | None = None,
    email: str | None = None,
    q: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> Call[UserPage]:
    """Accounts, the newest first; `q` is a part of the name or the e-mail address."""
    return get("/v1/users", UserPage, role=role, state=state, email=email, q=q, limit=limit, after=after)


def create_user(email: str, name: str, *, role: PersonRole = "seller") -> Call[PasswordToken]:
    """Make an account; its owner sets the password with the token that this gives."""
    return post("/v1/users", PasswordToken, {"email": email, "name": name, "role": role})


def read_user(user_id: str) -> Call[Account]:
    """One account."""
    return get(f"/v1/users/{part(user_id)}", Account)


def change_user(user_id: str, *, role: PersonRole | None = None, disabled: bool | None = None) -> Call[Account]:
    """Change a role, disable an account or enable it again."""
    body = {"json": given(role=role, disabled=disabled)}
    return Call("PATCH", f"/v1/users/{part(user_id)}", reads(Account), body=body, repeatable=True)


def create_password_token(user_id: str) -> Call[PasswordToken]:
    """A token with which a user sets his password; those made before end."""
    return Call("POST", f"/v1/users/{part(user_id)}/password-token", reads(PasswordToken))


def end_sign_ins(user_id: str) -> Call[None]:
    """End all sign-ins of a user."""
    return Call("POST", f"/v1/users/{part(user_id)}/end-sign-ins", nothing, repeatable=True)


def list_keys() -> Call[list[Key]]:
    """All keys of machines, the newest first."""
    return get("/v1/keys", list[Key])


def create_key(name: str, *, days: int | None = None) -> Call[MadeKey]:
    """Make a key for a machine; it is shown this once."""
    return post("/v1/keys", MadeKey, {"name": name} | given(days=days))


def revoke_key(key_id: str) -> Call[None]:
    """End a key."""
    return Call("DELETE", f"/v1/keys/{part(key_id)}", nothing, repeatable=True)


def list_audit(
    *,
    action: str | None = None,
    subject: str | None = None,
    user_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 100,
    after: str | None = None,
) -> Call[AuditPage]:
    """Changes that were made, the newest first; `user_id` is who made them."""
    params = {"from": start and start.isoformat(), "to": end and end.isoformat(), "limit": limit, "after": after}
    return get("/v1/audit", AuditPage, action=action, subject=subject, user_id=user_id, **params)
