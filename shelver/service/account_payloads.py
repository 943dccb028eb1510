"""What requests about accounts hold, and their answers."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shelver.service.identity import Role

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


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not name or not name.isprintable():
        raise ValueError("a name of printable characters")
    return name


Email = Annotated[str, Field(max_length=254, examples=["ann@example.org"]), AfterValidator(checked_email)]
Name = Annotated[str, Field(max_length=100, examples=["Ann Example"]), AfterValidator(_checked_name)]
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
    """One's own password, to be sure."""

    password: Password


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
    tables: dict[str, list[dict[str, Any]]] = Field(examples=[{"sign_ins": [{"id": "1f…"}], "products": []}])
