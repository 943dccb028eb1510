"""Tokens that somebody forged: each is wrong in one way, and none lets anybody in."""

from __future__ import annotations

import base64
import json
import string
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi.testclient import TestClient
from service_rig import make_user, service_behind, token_of

from shelver.service.app import create_app
from shelver.service.state import Service
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

pytestmark = pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")


class Real(NamedTuple):
    """A token that is good, what it was made with, and what another's says."""

    token: str
    secret: str
    claims: dict[str, Any]
    other: dict[str, Any]

    @property
    def parts(self) -> tuple[str, str, str]:
        head, body, signature = self.token.split(".")
        return head, body, signature

    def signed(self, claims: object, head: dict[str, Any] | None = None, secret: str | None = None) -> str:
        """Signed with the true secret, unless another is given: worse than what an attacker can do."""
        first = f"{coded({'alg': 'HS256', 'typ': 'JWT'} | (head or {}))}.{coded(claims)}"
        key = jwt.get_algorithm_by_name("HS256")
        return f"{first}.{text(key.sign(first.encode(), (self.secret if secret is None else secret).encode()))}"

    def with_claim(self, name: str, value: object) -> str:
        return self.signed({**self.claims, name: value})

    def with_head(self, secret: str | None = "guessed", **head: object) -> str:
        return self.signed({**self.claims, "sub": self.other["sub"], "sid": self.other["sid"]}, head, secret)

    def with_body(self, **claims: object) -> str:
        """Changed, with the signature as it was."""
        head, _, signature = self.parts
        return f"{head}.{coded({**self.claims, **claims})}.{signature}"

    def unsigned(self, algorithm: object, signature: str = "") -> str:
        return f"{coded({'alg': algorithm, 'typ': 'JWT'})}.{self.parts[1]}.{signature}"

    def renamed(self, algorithm: object) -> str:
        return self.unsigned(algorithm, self.parts[2])

    def without(self, name: str) -> str:
        return self.signed({claim: value for claim, value in self.claims.items() if claim != name})


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def coded(value: object) -> str:
    return text(json.dumps(value).encode())


LETTERS: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE: Final = ec.generate_private_key(ec.SECP256R1())
EDWARDS: Final = ed25519.Ed25519PrivateKey.generate()
PUBLIC: Final = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
JWK: Final = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))

Forger = Callable[[Real], str]
CLAIMS: Final = ("iss", "aud", "sub", "sid", "ver", "jti", "iat", "exp")
OTHER_ALGORITHMS: Final[tuple[object, ...]] = ("none", "RS256", "HS1", None, ["HS256"], 5)


def each(name: str, *values: object) -> dict[str, Forger]:
    return {f"{name} {value!r}": partial(Real.with_claim, name=name, value=value) for value in values}


FORGED: Final[dict[str, Forger]] = {
    # no signature, or one of another kind
    **{
        f"alg {one!r}, unsigned": partial(Real.unsigned, algorithm=one)
        for one in ("none", "None", "NONE", "nOnE", "")
    },
    **{f"alg {one!r}": partial(Real.renamed, algorithm=one) for one in OTHER_ALGORITHMS},
    "no alg": lambda r: f"{coded({'typ': 'JWT'})}.{r.parts[1]}.{r.parts[2]}",
    "HS384, the true secret": lambda r: jwt.encode(r.claims, r.secret, "HS384"),
    "HS512, the true secret": lambda r: jwt.encode(r.claims, r.secret, "HS512"),
    "RS256, a key of one's own": lambda r: jwt.encode(r.claims, RSA, "RS256"),
    "PS256, a key of one's own": lambda r: jwt.encode(r.claims, RSA, "PS256"),
    "ES256, a key of one's own": lambda r: jwt.encode(r.claims, CURVE, "ES256"),
    "EdDSA, a key of one's own": lambda r: jwt.encode(r.claims, EDWARDS, "EdDSA"),
    "HS256 with a public key as its secret": lambda r: r.with_head(PUBLIC.decode()),
    "alg HS256 over a signature of RS256": lambda r: (
        f"{r.parts[0]}.{r.parts[1]}." + jwt.encode(r.claims, RSA, "RS256").split(".")[2]
    ),
    # a key that the token names itself
    "kid: a path": lambda r: r.with_head("", kid="../../../../dev/null"),
    "kid: SQL": lambda r: r.with_head("secret", kid="x' UNION SELECT 'secret' --"),
    "kid: a command": lambda r: r.with_head("secret", kid="|cat /etc/hostname"),
    "kid: nothing": lambda r: r.with_head("\x00", kid=None),
    "kid: a number": lambda r: r.with_head("0", kid=0),
    "jku": lambda r: r.with_head(jku="http://127.0.0.1:9/jwks.json"),
    "x5u": lambda r: r.with_head(x5u="http://127.0.0.1:9/key.pem"),
    "x5c": lambda r: r.with_head(x5c=[base64.b64encode(PUBLIC).decode()]),
    "jwk, symmetric": lambda r: r.with_head("guessed", jwk={"kty": "oct", "k": text(b"guessed")}),
    "jwk, RSA": lambda r: jwt.encode(r.claims, RSA, "RS256", headers={"jwk": JWK}),
    # a head that changes what the rest means
    "crit": lambda r: r.signed(r.claims, {"crit": ["exp"], "exp": 1}),
    "crit, unknown": lambda r: r.signed(r.claims, {"crit": ["urn:x"], "urn:x": True}),
    "b64 false": lambda r: r.signed(r.claims, {"crit": ["b64"], "b64": False}),
    "zip": lambda r: r.parts[0] + "." + text(zlib.compress(json.dumps(r.claims).encode())) + "." + r.parts[2],
    "head is a list": lambda r: f"{coded(['HS256'])}.{r.parts[1]}.{r.parts[2]}",
    "head is empty": lambda r: f".{r.parts[1]}.{r.parts[2]}",
    # for somebody else, by somebody else, at another time; signed with the true secret
    **each("aud", "", "shelver", ["another"], None, {"shelver-api": 1}),
    **each("iss", "", "shelver ", "https://shelver", ["shelver"], None),
    **each("exp", 0, -1, "soon", None),
    "expired a second ago": lambda r: r.with_claim("exp", int((now() - timedelta(seconds=1)).timestamp())),
    "nbf to come": lambda r: r.with_claim("nbf", 2**33),
    "iat to come": lambda r: r.with_claim("iat", 2**33),
    "iat is a word": lambda r: r.with_claim("iat", "now"),
    **{f"without {one}": partial(Real.without, name=one) for one in CLAIMS},
    **each("ver", 0, 2, -1, "1", 1.0, True, None, [1]),
    **each("sub", "", "admin", "0" * 32, 1, None),
    **each("sid", "", "0" * 32, "' OR 1=1 --", "\x00", "é", ["x"]),
    "another's sign-in": lambda r: r.with_claim("sid", r.other["sid"]),
    "another's account": lambda r: r.with_claim("sub", r.other["sub"]),
    # changed after it was signed
    "another's account, not signed again": lambda r: r.with_body(sub=r.other["sub"], sid=r.other["sid"]),
    "longer life, not signed again": lambda r: r.with_body(exp=2**33),
    "a role added": lambda r: r.with_body(role="admin"),
    "body of another token": lambda r: f"{r.parts[0]}.{coded(r.other)}.{r.parts[2]}",
    "body is a list": lambda r: r.signed([r.claims]),
    "body is a text": lambda r: r.signed("admin"),
    "body is a token": lambda r: r.signed(r.token),
    "body deeply nested": lambda r: f"{r.parts[0]}." + text(b"[" * 3000 + b"]" * 3000) + f".{r.parts[2]}",
    "body is no JSON": lambda r: f"{r.parts[0]}.{text(b'{')}.{r.parts[2]}",
    "body is no UTF-8": lambda r: f"{r.parts[0]}.{text(bytes([255, 254]))}.{r.parts[2]}",
    # cut, padded, spelled otherwise
    "signature stripped": lambda r: f"{r.parts[0]}.{r.parts[1]}.",
    "two parts": lambda r: f"{r.parts[0]}.{r.parts[1]}",
    "one part": lambda r: r.parts[0],
    "four parts": lambda r: f"{r.token}.{r.parts[2]}",
    "five parts, as encrypted ones have": lambda r: f"{r.token}.{r.parts[2]}.{r.parts[2]}",
    "no parts": lambda r: "..",
    "last letter cut": lambda r: r.token[:-1],
    "first letter cut": lambda r: r.token[1:],
    "signature reversed": lambda r: f"{r.parts[0]}.{r.parts[1]}.{r.parts[2][::-1]}",
    "signature in lower case": lambda r: f"{r.parts[0]}.{r.parts[1]}.{r.parts[2].lower()}",
    "signature of zeros": lambda r: f"{r.parts[0]}.{r.parts[1]}.{text(bytes(32))}",
    "signature, other bits that do not count": lambda r: r.token[:-1] + LETTERS[LETTERS.index(r.token[-1]) ^ 1],
    "signature padded": lambda r: r.token + "=",
    "signature longer": lambda r: r.token + "AAAA",
    "body padded": lambda r: f"{r.parts[0]}.{r.parts[1]}==.{r.parts[2]}",
    "a space within": lambda r: r.token[:50] + " " + r.token[50:],
    "a comma behind": lambda r: r.token + ",",
    "twice": lambda r: f"{r.token} {r.token}",
    "percent-encoded": lambda r: r.token.replace(".", "%2E"),
    "full-width dots": lambda r: r.token.replace(".", "．"),
    "a NUL behind": lambda r: r.token + "\x00",
    "in quotes": lambda r: f'"{r.token}"',
    "long": lambda r: "x" * 20_000,
    "long parts": lambda r: f"{r.parts[0]}.{'A' * 30_000}.{r.parts[2]}",
    "not ASCII": lambda r: "é" * 40,
    # secrets that somebody may try
    "secret NUL": lambda r: r.signed(r.claims, secret="\x00"),
    "secret secret": lambda r: r.signed(r.claims, secret="secret"),
    "secret cut": lambda r: r.signed(r.claims, secret=r.secret[:-1]),
    "secret longer": lambda r: r.signed(r.claims, secret=r.secret + " "),
    "secret in other case": lambda r: r.signed(r.claims, secret=r.secret.swapcase()),
    # keys
    "a key that nobody has": lambda r: "shk_" + "A" * 43,
    "a key that is only its prefix": lambda r: "shk_",
    "a key of NUL": lambda r: "shk_\x00",
    "a token called a key": lambda r: "shk_" + r.token,
    "a refresh token": lambda r: "shr_" + "A" * 43,
}


@pytest.fixture(scope="module")
def anonymous(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for all of them."""
    data = tmp_path_factory.mktemp("forged")
    settings = ServiceSettings(model=text_model, data=data, threads=1, password_kib=8, password_passes=1)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def real(anonymous: TestClient) -> Real:
    service: Service = service_behind(anonymous)
    token = token_of(service, make_user(service, "seller"))
    other = token_of(service, make_user(service, "admin"))
    claims, others = (jwt.decode(one, options={"verify_signature": False}) for one in (token, other))
    return Real(token, service.tokens.secret, claims, others)


def test_there_are_sixty_and_more() -> None:
    assert len(FORGED) >= 60


def test_what_the_forgers_start_from_is_good(anonymous: TestClient, real: Real) -> None:
    for token in (real.token, real.signed(real.claims)):
        answer = anonymous.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["id"] == real.claims["sub"]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(anonymous: TestClient, real: Real, name: str) -> None:
    forged = FORGED[name](real)
    assert forged != real.token
    assert service_behind(anonymous).tokens.read(forged) is None or name.startswith(
        ("ver", "sub", "sid", "another")
    )
    if "\x00" in forged:
        return  # no header may hold it
    for header in (b"Bearer " + forged.encode(), forged.encode()):
        name_of = b"Authorization" if header.startswith(b"Bearer") else b"X-API-Key"
        answer = anonymous.get("/v1/me", headers=[(name_of, header)])
        assert (answer.status_code, answer.json().get("code")) == (401, "not_signed_in"), answer.text
        assert "eyJ" not in answer.text
