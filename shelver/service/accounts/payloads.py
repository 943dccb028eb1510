"""What requests about accounts hold, and their answers."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Role = Literal["seller", "reviewer", "admin", "service", "public"]
"""`public` is anybody; no account has it."""
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
