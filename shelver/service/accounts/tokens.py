"""Tokens: signed ones that live for minutes, and random ones of which only the hash is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import jwt

from shelver.service.tables.declarative import new_id, now

ALGORITHM: Final = "HS256"
ISSUER: Final = "shelver"
AUDIENCE: Final = "shelver-api"
PAGES: Final = "shelver-pages"
"""Audience of what a browser's cookie holds; it is no access token, and lives as long as the sign-in."""
KEY_PREFIX: Final = "shk_"
REFRESH_PREFIX: Final = "shr_"
ONE_TIME_PREFIX: Final = "sho_"
# Three parts, the last one of 32 bytes. Decoders also take padding and idle bits: other spellings of a good token.
_FORM: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_CLAIMS: Final = ["exp", "iat", "iss", "aud", "sub", "jti", "sid", "ver"]


@dataclass(frozen=True)
class Access:
    """What an access token says: whose it is, of which sign-in, and of which version of the user."""

    user_id: str
    sign_in_id: str
    version: int


@dataclass(frozen=True)
class Tokens:
    """Makes and reads access tokens.

    Attributes:
        secret: signs them; a new one ends all of them.
        access_s: their lifetime.
    """

    secret: str = field(repr=False)
    access_s: int

    def derived(self, purpose: str) -> bytes:
        """A key for another purpose, which says nothing about the secret."""
        return hmac.digest(self.secret.encode(), purpose.encode(), "sha256")

    def sign(self, access: Access, *, audience: str = AUDIENCE, lifetime_s: int | None = None) -> str:
        """An access token, or for the audience PAGES what a browser keeps."""
        at = now()
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": access.user_id,
            "sid": access.sign_in_id,
            "ver": access.version,
            "jti": new_id(),
            "iat": at,
            "exp": at + timedelta(seconds=lifetime_s or self.access_s),
        }
        return jwt.encode(claims, self.secret, ALGORITHM)

    def read(self, token: str, *, audience: str = AUDIENCE) -> Access | None:
        """What a token says; None where it is not ours, not whole, expired or for somebody else."""
        if not _FORM.fullmatch(token):
            return None
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=[ALGORITHM],  # whatever the token's head asks for
                audience=audience,
                issuer=ISSUER,
                options={"require": _CLAIMS},
            )
        except (jwt.InvalidTokenError, ValueError):
            return None
        user_id, sign_in_id, version = claims["sub"], claims["sid"], claims["ver"]
        if not (isinstance(user_id, str) and isinstance(sign_in_id, str) and type(version) is int):
            return None
        return Access(user_id, sign_in_id, version)


def random_token(prefix: str) -> str:
    """A token of 256 random bits; its prefix says what it is, so that leaks can be found by it."""
    return prefix + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What is stored of a random token. Nobody can try 2²⁵⁶ of them, so a fast hash will do."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
