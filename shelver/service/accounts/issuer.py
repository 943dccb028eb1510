"""The issuer of OpenID Connect: where it sends people, and what it says of those who come back.

What it publishes about itself and its keys is kept for an hour. An ID token is believed only if one of these keys
signed it, by an algorithm of ours, for us, now, and for the sign-in that this browser began.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import quote_plus, urlencode

import jwt
import structlog

from shelver.errors import ConfigError
from shelver.service.accounts.outward import NoAnswerError, Reply, call, checked_address
from shelver.service.problems import ServiceError
from shelver.settings import ServiceSettings

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of ID tokens: signatures with a key pair. With a shared secret, whoever knows it could be anybody."""
SKEW_S: Final = 30
"""How far the issuer's clock may be from ours."""
_KEPT_S: Final = 3600.0
_REFETCH_S: Final = 30.0
"""An unknown key is looked for at most this often: anybody may send us one."""
_AT_ONCE: Final = 4
_WAIT_S: Final = 2.0
_SUBJECT: Final = re.compile(r"[!-~]{1,255}")
_ERROR: Final = re.compile(r"[a-z_]{1,40}")
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
log = structlog.get_logger("shelver.service")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the issuer publishes, and when it was asked."""

    endpoints: Mapping[str, str]
    basic: bool
    keys: tuple[Mapping[str, Any], ...]
    asked: float


@dataclass(eq=False)
class Issuer:
    """Signs people in for us. Any number of threads may use it.

    Attributes:
        address: its name, under which it publishes what it is.
        client_id, client_secret: ours, at the issuer.
        redirect: the address that it sends browsers back to.
    """

    address: str
    client_id: str
    client_secret: str | None = field(repr=False)
    redirect: str
    _kept: _Kept | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _turns: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE), repr=False)

    def begin(self, state: str, nonce: str, verifier: str) -> str:
        """The address where a browser signs in.

        Raises:
            ServiceError: the issuer does not answer.
        """
        with self._turn():
            where = self._published().endpoints["authorization_endpoint"]
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": _base64(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    def finish(self, code: str, nonce: str, verifier: str) -> dict[str, Any]:
        """What the issuer says of whoever brings this code: the claims of an ID token, checked.

        Raises:
            ServiceError: it does not answer, or what it says is not to be believed.
        """
        with self._turn():
            published = self._published()
            form = {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.redirect,
                "code_verifier": verifier,
            }
            headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
            if self.client_secret is not None and published.basic:
                pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_id"] = self.client_id
                if self.client_secret is not None:
                    form["client_secret"] = self.client_secret
            reply = self._call(published.endpoints["token_endpoint"], urlencode(form).encode(), headers)
            said = _object(reply)
            if reply.status != 200:
                refuse(f"the issuer refused the code: {error_named(said.get('error'))}")
            token, access = said.get("id_token"), said.get("access_token")
            if not isinstance(token, str):
                refuse("the issuer gave no ID token")
            return self.claims_of(token, nonce=nonce, access_token=access if isinstance(access, str) else None)

    def claims_of(self, token: str, *, nonce: str, access_token: str | None = None) -> dict[str, Any]:
        """The claims of an ID token.

        Args:
            token: as the issuer gave it.
            nonce: of the sign-in that it must belong to.
            access_token: that came with it.

        Raises:
            ServiceError: it is not to be believed.
        """
        try:
            head = jwt.get_unverified_header(token)
            algorithm, name = head.get("alg"), head.get("kid")
            if algorithm not in ALGORITHMS:
                refuse(f"an ID token signed by {algorithm!r:.20}")
            key = self._key(name, algorithm)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.client_id,
                issuer=self.address,
                leeway=SKEW_S,
                options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            refuse(f"an ID token that is not valid ({type(error).__name__})")
        subject, audience, party = claims["sub"], claims["aud"], claims.get("azp")
        if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
            refuse("an ID token without a usable subject")
        if party != self.client_id and (party is not None or (isinstance(audience, list) and len(audience) > 1)):
            refuse("an ID token that was made for somebody else")
        if not isinstance(claims["nonce"], str) or not hmac.compare_digest(
            claims["nonce"].encode("utf-8", "replace"), nonce.encode()
        ):
            refuse("an ID token of another sign-in")
        if "at_hash" in claims and access_token is not None:
            digest = hashlib.new(f"sha{algorithm[-3:]}", access_token.encode()).digest()
            if claims["at_hash"] != _base64(digest[: len(digest) // 2]):
                refuse("an ID token and an access token that do not belong together")
        return claims

    def _key(self, name: object, algorithm: str) -> jwt.PyJWK:
        """The key of this name, for this algorithm and no other."""
        found = self._named(self._published(), name, algorithm)
        if found is None:
            found = self._named(self._published(older_s=_REFETCH_S), name, algorithm)
        if found is None:
            refuse("an ID token signed by a key that the issuer does not publish")
        return jwt.PyJWK(dict(found), algorithm)

    def _named(self, published: _Kept, name: object, algorithm: str) -> Mapping[str, Any] | None:
        fit = [key for key in published.keys if _fits(key, algorithm)]
        if name is None:
            return fit[0] if len(fit) == 1 else None
        return next((key for key in fit if key.get("kid") == name), None)

    def _published(self, *, older_s: float = _KEPT_S) -> _Kept:
        """What the issuer publishes; asked anew where it was asked longer ago than this."""
        with self._lock:
            kept = self._kept
            if kept is not None and time.monotonic() - kept.asked < older_s:
                return kept
            try:
                kept = self._kept = self._ask()
            except ServiceError:
                if kept is None:
                    raise
                log.warning("the issuer does not say what it publishes; what it said last stands")
                self._kept = _Kept(kept.endpoints, kept.basic, kept.keys, time.monotonic() - _KEPT_S + _REFETCH_S)
            return kept

    def _ask(self) -> _Kept:
        said = _object(self._call(f"{self.address.rstrip('/')}/.well-known/openid-configuration"))
        if said.get("issuer") != self.address:
            log.error("the issuer calls itself by another name", setting=self.address)
            raise _unavailable()
        try:
            endpoints = {
                name: checked_address(name, str(said[name]))
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
            }
        except (KeyError, ConfigError) as error:
            log.error("the issuer has no usable endpoints", error=str(error))
            raise _unavailable() from error
        methods = said.get("token_endpoint_auth_methods_supported")
        basic = not isinstance(methods, list) or "client_secret_basic" in methods
        keys = _object(self._call(endpoints["jwks_uri"])).get("keys")
        usable = tuple(key for key in keys if isinstance(key, dict)) if isinstance(keys, list) else ()
        return _Kept(endpoints, basic, usable, time.monotonic())

    def _call(self, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        try:
            return call(url, body=body, headers=headers)
        except NoAnswerError as error:
            log.warning("the issuer does not answer", error=str(error))
            raise _unavailable() from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A slow issuer must not hold all threads of the service."""
        if not self._turns.acquire(timeout=_WAIT_S):
            raise _unavailable()
        try:
            yield
        finally:
            self._turns.release()


def issuer_of(settings: ServiceSettings) -> Issuer | None:
    """The issuer of an installation; None where it has none.

    Raises:
        ConfigError: something that belongs to it is missing, or cannot be used.
    """
    given = {
        "openid_issuer": settings.openid_issuer,
        "openid_client_id": settings.openid_client_id,
        "openid_redirect": settings.openid_redirect,
    }
    if not any(given.values()):
        return None
    missing = [name for name, value in given.items() if not value]
    if settings.openid_roles and not settings.openid_role_claim:
        missing.append("openid_role_claim")
    if missing:
        raise ConfigError(
            f"OpenID Connect without {', '.join(missing)}",
            allowed="openid_issuer, openid_client_id and openid_redirect together; openid_roles with its claim",
            remedy="Set what is missing, or none of them.",
        )
    issuer, client_id, redirect = given.values()
    assert issuer is not None
    assert client_id is not None
    assert redirect is not None
    secret = settings.openid_client_secret
    return Issuer(
        checked_address("openid_issuer", issuer),
        client_id,
        secret.get_secret_value() if secret is not None else None,
        checked_address("openid_redirect", redirect),
    )


def error_named(error: object) -> str:
    """An issuer's error code, as it may be shown."""
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else "an error"


def refuse(received: str) -> NoReturn:
    """Refuse a sign-in."""
    raise ServiceError(
        "openid_failed",
        received,
        allowed="a sign-in that this browser began, and that the issuer finished within ten minutes",
        remedy="Begin again at /v1/openid/start.",
    )


def _unavailable() -> ServiceError:
    return ServiceError(
        "issuer_unavailable",
        "an issuer that does not answer as it should",
        allowed="an issuer that answers",
        remedy="Try again later; the operator finds the reason in the log.",
        retry_after_s=10,
    )


def _object(reply: Reply) -> dict[str, Any]:
    try:
        said = json.loads(reply.body)
    except ValueError:
        said = None
    if not isinstance(said, dict) or reply.status >= 500:
        log.warning("the issuer's answer is no JSON object", status=reply.status)
        raise _unavailable()
    return said


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key is for signatures by this algorithm."""
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return False
    if algorithm.startswith("ES"):
        return key.get("kty") == "EC" and _CURVES.get(str(key.get("crv"))) == algorithm
    return key.get("kty") == "RSA"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
