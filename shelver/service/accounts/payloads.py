"""What requests about accounts hold, and their answers."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shelver.service.records.payloads import MAX_PAGE, Moment, Paged

Role = Literal["seller", "reviewer", "admin", "service", "public"]
"""`public` is anybody; no account has it."""
PersonRole = Literal["seller", "reviewer", "admin"]
AccountState = Literal["active", "disabled", "new"]
"""`new` is who may sign in, but has no password yet, nor an account at the issuer."""
_MAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")


def checked_email(email: str) -> str:
    """An address as it is compared.

    Raises:
        ValueError: it is none.
    """
    folded = unicodedata.normalize("NFKC", email.strip()).lower()
    if len(folded) > 254 or not folded.isprintable() or not _MAIL.fullmatch(folded):
        raise ValueError("an e-mail address such as ann@example.org")
    return folded


def checked_name(name: str) -> str:
    """A name without spaces around it.

    Raises:
        ValueError: it is none.
    """
    name = " ".join(name.split())
    if not name or not name.isprintable():
        raise ValueError("a name of printable characters")
    return name


Email = Annotated[str, Field(max_length=254, examples=["ann@example.org"]), AfterValidator(checked_email)]
Name = Annotated[str, Field(max_length=100, examples=["Ann Example"]), AfterValidator(checked_name)]
Password = Annotated[str, Field(max_length=1000, examples=["four words are enough"], repr=False)]
OneTime = Annotated[str, Field(max_length=100, examples=["sho_nFc8lY0yZkq"], repr=False)]


class Registration(BaseModel):
    """A new account."""

    email: Email
    name: Name
    password: Password


class FirstAdmin(Registration):
    """The first administrator's account, with the token that `shelver account first-admin` printed."""

    token: OneTime


class Refresh(BaseModel):
    """A refresh token."""

    refresh_token: str = Field(max_length=100, examples=["shr_nFc8lY0yZkq"], repr=False)


class NewPassword(BaseModel):
    """The password as it was, and as it shall be."""

    old_password: Password
    new_password: Password


class Reset(BaseModel):
    """A new password, with the token that an administrator gave."""

    token: OneTime
    new_password: Password


class Confirmation(BaseModel):
    """One's own password, to be sure; who has none must have signed in a moment ago."""

    password: str | None = Field(None, max_length=1000, examples=["four words are enough"], repr=False)


class Rename(BaseModel):
    """What one may change of one's own account."""

    name: Name


class Account(BaseModel):
    """An account, as its owner and administrators see it."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    email: str | None = Field(examples=["ann@example.org"])
    name: str = Field(examples=["Ann Example"])
    role: Role
    created_at: datetime
    disabled_at: datetime | None = None


class SignInRead(BaseModel):
    """A sign-in, as its owner sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["5c1f0e6f5a0b4e27a9d0b8c7f2b3d4e5"])
    created_at: datetime
    expires_at: datetime = Field(description="When it ends, unless it is refreshed.")
    address: str | None = Field(description="Where it began, as far as is known.", examples=["203.0.113.7"])
    agent: str | None = Field(description="The program, as it named itself.", examples=["Mozilla/5.0 (X11)"])
    this: bool = Field(False, description="Whether it is the one that asks.")


class SignIns(BaseModel):
    """Sign-ins that go on."""

    items: list[SignInRead]


class Export(BaseModel):
    """Everything that is stored about an account, by table."""

    account: Account
    tables: dict[str, list[dict[str, Any]]] = Field(
        examples=[{"sign_ins": [{"id": "0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"}], "products": []}]
    )


class TokenPair(BaseModel):
    """What a sign-in gives, as OAuth 2 has it."""

    access_token: str = Field(examples=["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIwZjJj.c2ln"])
    token_type: str = "bearer"  # noqa: S105 - no secret
    expires_in: int = Field(description="Seconds for which the access token is good.", examples=[900])
    refresh_token: str = Field(
        description="Good for one use at /v1/refresh, which gives the next.", examples=["shr_nFc8lY0yZkq"]
    )


class SignInOptions(BaseModel):
    """How people may sign in beside /v1/login."""

    openid: bool = Field(description="Whether an issuer of OpenID Connect signs people in.", examples=[True])
    start: str | None = Field(description="Where a browser begins.", examples=["/v1/openid/start"])


class Beginning(BaseModel):
    """A sign-in at the issuer that has begun."""

    address: str = Field(
        description="Where the browser goes next.",
        examples=["https://accounts.example.org/authorize?response_type=code&client_id=shelver"],
    )


class Forgotten(BaseModel):
    """Whose password is forgotten."""

    email: Email


class UserFilters(Paged):
    """Which accounts are meant; all that are given must hold."""

    limit: int = Field(default=100, ge=1, le=MAX_PAGE, description="Accounts a page.")
    role: Literal["seller", "reviewer", "admin", "service"] | None = None
    state: AccountState | None = Field(default=None, examples=["active"])
    email: str | None = Field(
        default=None, max_length=254, description="Exactly so.", examples=["ann@example.org"]
    )
    q: str | None = Field(
        default=None, max_length=100, description="A part of the name or the e-mail address.", examples=["ann"]
    )


class UserPage(BaseModel):
    """Users, the newest first."""

    items: list[Account]
    next: str | None = Field(description="Give it as `after` for the next page; null where there is none.")


class NewUser(BaseModel):
    """An account that an administrator makes for somebody, who sets the password himself."""

    email: Email
    name: Name
    role: PersonRole = "seller"


class UserChange(BaseModel):
    """What an administrator may change; what is left out stays."""

    role: PersonRole | None = Field(None, examples=["reviewer"])
    disabled: bool | None = None


class PasswordToken(BaseModel):
    """A token that sets a password at /v1/reset; it is shown once."""

    user_id: str
    token: str = Field(examples=["sho_nFc8lY0yZkq"])
    expires_at: datetime


class NewKey(BaseModel):
    """A key to make."""

    name: Name = Field(examples=["nightly sync"])
    days: int | None = Field(None, ge=1, le=3650, description="Its lifetime; without it, it lives until revoked.")


class Key(BaseModel):
    """A key, as it is listed: without itself."""

    id: str
    user_id: str = Field(description="The machine's account, which stands in the log and the audit.")
    name: str = Field(examples=["nightly sync"])
    hint: str = Field(description="Its beginning.", examples=["shk_nFc8"])
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None = Field(description="When it last got a prediction; nothing else is counted.")


class MadeKey(Key):
    """A key that was just made."""

    key: str = Field(description="Shown this once.", examples=["shk_nFc8lY0yZkq"])


class AuditFilters(Paged):
    """Which changes are meant; all that are given must hold.

    Attributes:
        start, end: from this moment on, and before that one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: int = Field(default=100, ge=1, le=MAX_PAGE, description="Changes a page.")
    action: str | None = Field(default=None, max_length=64, examples=["user.role"])
    subject: str | None = Field(default=None, max_length=255, examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    user_id: str | None = Field(default=None, max_length=32, description="Who made it.")
    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])


class AuditLine(BaseModel):
    """One change."""

    id: str
    at: datetime
    user_id: str | None = Field(description="Who made it; null where it was the command line.")
    user_name: str | None = Field(description="As he is called now.", examples=["Ann Example"])
    action: str = Field(examples=["user.role"])
    subject: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    detail: dict[str, Any] = Field(examples=[{"from": "seller", "to": "reviewer"}])
    request_id: str | None


class AuditPage(BaseModel):
    """Changes, the newest first."""

    items: list[AuditLine]
    next: str | None = Field(description="Give it as `after` for the next page; null where there is none.")
