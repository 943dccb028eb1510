"""People sign in through an issuer of OpenID Connect: a provider of somebody else, and one of ours that lies."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import oidc_provider_mock  # type: ignore[import-untyped]
import pytest
import werkzeug.serving
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from service_rig import another, make_user, service_behind, token_of
from sqlalchemy import select, update

from shelver.errors import ConfigError
from shelver.service.accounts.issuer import issuer_of
from shelver.service.accounts.openid import role_of
from shelver.service.tables.accounts import SignIn, User
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink
from shelver.settings import ServiceSettings

CLIENT = "shelver-at-the-shop"
SECRET = "what only the two of us know"
REDIRECT = "http://127.0.0.1/v1/openid/callback"


def settings_for(issuer: str, **more: Any) -> dict[str, Any]:
    given = {"openid_client_id": CLIENT, "openid_client_secret": SECRET, "openid_redirect": REDIRECT}
    return {"openid_issuer": issuer, **given, **more}


def number(value: int) -> str:
    return coded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Liar:
    """An issuer of ours: `say` changes what it says in its ID tokens, and `sign` how they are signed."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.curve = ec.generate_private_key(ec.SECP256R1())
        self.kid = "first"
        self.claims: dict[str, Any] = {"name": "Ann", "email": "ann@shop.example", "email_verified": True}
        self.sign: Callable[[dict[str, Any]], str] = self.rightly
        self.published = self.keys()
        self.asked: list[str] = []
        self.down = False
        self.issuer = ""
        self.begun: dict[str, dict[str, str]] = {}

    def keys(self) -> list[dict[str, Any]]:
        numbers, point = self.key.public_key().public_numbers(), self.curve.public_key().public_numbers()
        return [
            {"kty": "RSA", "kid": self.kid, "use": "sig", "n": number(numbers.n), "e": number(numbers.e)},
            {"kty": "EC", "kid": "curve", "crv": "P-256", "x": number(point.x), "y": number(point.y)},
            {"kty": "RSA", "kid": "sealing", "use": "enc", "n": number(numbers.n), "e": number(numbers.e)},
            {"kty": "oct", "kid": "shared", "k": coded(b"a secret that everybody may read here")},
        ]

    def rightly(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, "RS256", headers={"kid": self.kid})

    def authorize(self, address: str) -> str:
        """What the browser does at the issuer; gives the way back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert asked["code_challenge_method"] == "S256"
        assert (asked["client_id"], asked["response_type"]) == (CLIENT, "code")
        code = f"code-{len(self.begun)}"
        self.begun[code] = asked
        return f"{urlsplit(asked['redirect_uri']).path}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        pair = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        begun = self.begun.pop(form["code"], None)
        challenge = coded(hashlib.sha256(form["code_verifier"].encode()).digest())
        if authorization != f"Basic {pair}" or begun is None or begun["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        at = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "person-1", "iat": at, "exp": at + 60}
        claims |= {"nonce": begun["nonce"], **self.claims}
        return 200, {"id_token": self.sign(claims), "access_token": "access", "token_type": "Bearer"}

    @contextmanager
    def running(self) -> Iterator[Liar]:
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                liar.asked.append(self.path)
                if self.path == "/jwks":
                    self.answer(200, {"keys": liar.published})
                    return
                base = liar.issuer
                found = {"issuer": base, "jwks_uri": f"{base}/jwks", "token_endpoint": f"{base}/token"}
                self.answer(200, found | {"authorization_endpoint": f"{base}/authorize?tenant=shop"})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self.answer(*liar.token(form, self.headers.get("Authorization", "")))

            def answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(503 if liar.down else status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar().running() as running:
        yield running


@pytest.fixture
def shop(make_app: Callable[..., TestClient], liar: Liar) -> TestClient:
    return make_app(**settings_for(liar.issuer))


def sign_in(browser: TestClient, liar: Liar) -> Any:
    begun = browser.get("/v1/openid/start", follow_redirects=False)
    assert begun.status_code == 303, begun.text
    return browser.get(liar.authorize(begun.headers["Location"]))


def me(client: TestClient, pair: dict[str, Any]) -> Any:
    return client.get("/v1/me", headers={"Authorization": f"Bearer {pair['access_token']}"})


def test_a_person_signs_in_through_a_provider_that_is_not_ours(make_app: Callable[..., TestClient]) -> None:
    ann = oidc_provider_mock.User(
        sub="Ann-1", claims={"name": "Ann", "email": "Ann@Shop.example", "email_verified": True}
    )
    app = oidc_provider_mock.app(require_nonce=True, user_claims=[ann])
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        import httpx2

        client = make_app(**settings_for(f"http://127.0.0.1:{server.server_port}"))
        assert client.get("/v1/openid").json() == {"openid": True, "start": "/v1/openid/start"}
        for _ in range(2):
            address = client.get("/v1/openid/start", params={"redirect": "false"}).json()["address"]
            with httpx2.Client(trust_env=False) as browser:
                assert browser.get(address).status_code == 200
                back = browser.post(address, data={"sub": ann.sub}).headers["Location"]
            pair = client.get(back)
            assert pair.status_code == 200, pair.text
            account = me(client, pair.json()).json()
            assert (account["name"], account["email"], account["role"]) == ("Ann", "ann@shop.example", "seller")
        refreshed = client.post("/v1/refresh", json={"refresh_token": pair.json()["refresh_token"]})
        assert me(client, refreshed.json()).status_code == 200
        with service_behind(client).database.reading() as session:
            (link,) = session.scalars(select(OpenIdLink))
            assert (link.subject, link.user_id) == (ann.sub, account["id"])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_without_an_issuer_there_is_nothing_to_begin(client: TestClient) -> None:
    assert client.get("/v1/openid").json() == {"openid": False, "start": None}
    for path in ("/v1/openid/start", "/v1/openid/callback?code=a&state=b"):
        assert client.get(path).json()["code"] == "not_found"


def test_a_sign_in_can_only_be_finished_by_the_browser_that_began_it(shop: TestClient, liar: Liar) -> None:
    begun = shop.get("/v1/openid/start", follow_redirects=False)
    cookie = begun.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    back = liar.authorize(begun.headers["Location"])
    stranger = another(shop, {})
    for browser in (stranger, shop):
        expected = (200, None) if browser is shop else (401, "openid_failed")
        answer = browser.get(back)
        assert (answer.status_code, answer.json().get("code")) == expected
    assert shop.get(back).json()["code"] == "openid_failed", "the cookie is gone"
    # The stranger has begun one of his own: its cookie does not fit the other's state.
    other = liar.authorize(stranger.get("/v1/openid/start", follow_redirects=False).headers["Location"])
    shop.get("/v1/openid/start", follow_redirects=False)
    assert shop.get(other).json()["code"] == "openid_failed"


@pytest.mark.parametrize(
    "query",
    ["", "?code=x", "?state=x", "?code=x&state=x", "?error=access_denied&state=STATE", "?code=x&state=STATE"],
)
def test_a_way_back_that_makes_no_sense_is_refused(shop: TestClient, liar: Liar, query: str) -> None:
    begun = shop.get("/v1/openid/start", follow_redirects=False)
    state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
    answer = shop.get(f"/v1/openid/callback{query.replace('STATE', state)}")
    assert (answer.status_code, answer.json()["code"]) == (401, "openid_failed")
    if "access_denied" in query:
        assert "access_denied" in answer.json()["detail"]


def test_an_answer_of_another_issuer_is_refused(shop: TestClient, liar: Liar) -> None:
    back = liar.authorize(shop.get("/v1/openid/start", follow_redirects=False).headers["Location"])
    assert shop.get(f"{back}&iss=http://127.0.0.1:1").json()["code"] == "openid_failed"


def forgeries(liar: Liar) -> Iterator[tuple[str, Callable[[dict[str, Any]], str]]]:
    """ID tokens that are wrong in one way each."""

    def with_claims(**changes: Any) -> Callable[[dict[str, Any]], str]:
        return lambda claims: liar.rightly({k: v for k, v in {**claims, **changes}.items() if v is not None})

    def signed(key: Any, algorithm: str, **head: Any) -> Callable[[dict[str, Any]], str]:
        return lambda claims: jwt.encode(claims, key, algorithm, headers={"kid": "first", **head})

    def mac(key: bytes, algorithm: str = "HS256", kid: str = "first") -> Callable[[dict[str, Any]], str]:
        def sign(claims: dict[str, Any]) -> str:  # by hand: PyJWT refuses a public key as a secret
            head = coded(json.dumps({"alg": algorithm, "typ": "JWT", "kid": kid}).encode())
            body = f"{head}.{coded(json.dumps(claims).encode())}"
            return f"{body}.{coded(jwt.get_algorithm_by_name('HS256').sign(body.encode(), key))}"

        return sign

    at = int(time.time())
    wrong: dict[str, dict[str, Any]] = {
        "another nonce": {"nonce": "x"},
        "no nonce": {"nonce": None},
        "a nonce that is no text": {"nonce": 7},
        "for somebody else": {"aud": "another"},
        "for nobody": {"aud": None},
        "for several, without azp": {"aud": [CLIENT, "another"]},
        "azp of somebody else": {"azp": "another"},
        "for several, azp of another": {"aud": [CLIENT, "another"], "azp": "another"},
        "of another issuer": {"iss": "https://accounts.example.org"},
        "of the issuer with a slash": {"iss": f"{liar.issuer}/"},
        "of no issuer": {"iss": None},
        "expired": {"exp": at - 60},
        "without an end": {"exp": None},
        "of the future": {"iat": at + 600},
        "not yet valid": {"nbf": at + 600},
        "without iat": {"iat": None},
        "without a subject": {"sub": None},
        "a subject of nothing": {"sub": ""},
        "a subject with a space": {"sub": "person-1 "},
        "a long subject": {"sub": "x" * 256},
        "a subject that is no text": {"sub": 1},
        "of another access token": {"at_hash": "AAAA"},
    }
    for name, changes in wrong.items():
        yield name, with_claims(**changes)
    pem = liar.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "the public key as a secret", mac(pem)
    yield "the shared key of the set", mac(b"a secret that everybody may read here", kid="shared")
    yield "the client's secret", mac(SECRET.encode())
    yield "none", lambda claims: jwt.encode(claims, "", "none", headers={"kid": "first"})
    yield "None", mac(b"", "None")
    yield "a key of one's own", signed(rsa.generate_private_key(65537, 2048), "RS256")
    yield (
        "a key of one's own, brought along",
        signed(
            (own := rsa.generate_private_key(65537, 2048)),
            "RS256",
            jwk=json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(own.public_key())),
        ),
    )
    yield "a key that is not published", signed(liar.key, "RS256", kid="second")
    yield "the key for sealing", signed(liar.key, "RS256", kid="sealing")
    yield "an elliptic key under the other's name", signed(ec.generate_private_key(ec.SECP256R1()), "ES256")
    yield "not its own signature", lambda claims: liar.rightly(claims)[:-8] + "AAAAAAAA"
    yield "no signature", lambda claims: liar.rightly(claims).rpartition(".")[0] + "."
    yield "no token", lambda claims: "a.b.c"
    yield "no text", lambda claims: "\ud800"


def test_forged_id_tokens_are_refused_and_make_no_account(shop: TestClient, liar: Liar) -> None:
    n_forged, accepted = 0, []
    for name, sign in forgeries(liar):
        n_forged += 1
        liar.sign = sign
        answer = sign_in(shop, liar)
        if (answer.status_code, answer.json().get("code")) != (401, "openid_failed"):
            accepted.append(f"{name}: {answer.status_code} {answer.text}")
    assert not accepted
    assert n_forged >= 35
    with service_behind(shop).database.reading() as session:
        assert session.scalars(select(User.id)).all() == []
    digest = coded(hashlib.sha256(b"access").digest()[:16])
    liar.sign = lambda claims: jwt.encode(
        {**claims, "at_hash": digest}, liar.curve, "ES256", headers={"kid": "curve"}
    )
    assert sign_in(shop, liar).status_code == 200
    liar.sign = lambda claims: liar.rightly({**claims, "aud": [CLIENT, "another"], "azp": CLIENT})
    assert sign_in(shop, liar).status_code == 200


def test_keys_are_kept_and_a_new_one_is_looked_for_once(shop: TestClient, liar: Liar) -> None:
    issuer = service_behind(shop).issuer
    assert issuer is not None
    for _ in range(3):
        assert sign_in(shop, liar).status_code == 200
    assert liar.asked.count("/jwks") == 1
    liar.key, liar.kid = rsa.generate_private_key(65537, 2048), "second"
    for _ in range(3):
        assert sign_in(shop, liar).status_code == 401
    assert liar.asked.count("/jwks") == 1, "asked a moment ago"
    liar.published = liar.keys()
    kept = issuer._kept
    assert kept is not None
    issuer._kept = type(kept)(kept.endpoints, kept.basic, kept.keys, kept.asked - 60)
    assert sign_in(shop, liar).status_code == 200
    assert liar.asked.count("/jwks") == 2


def test_an_issuer_that_does_not_answer_is_a_503_and_one_that_answered_once_is_remembered(
    shop: TestClient, liar: Liar
) -> None:
    liar.down = True
    answer = shop.get("/v1/openid/start", follow_redirects=False)
    assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    liar.down = False
    back = liar.authorize(shop.get("/v1/openid/start", follow_redirects=False).headers["Location"])
    liar.down = True
    assert shop.get("/v1/openid/start", follow_redirects=False).status_code == 303
    assert shop.get(back).json()["code"] in ("issuer_unavailable", "openid_failed")


def test_an_account_is_never_found_by_its_address(shop: TestClient, liar: Liar) -> None:
    registered = {"email": "ann@shop.example", "name": "Eve", "password": "four words are enough"}
    eve = shop.post("/v1/register", json=registered).json()
    pair = sign_in(shop, liar).json()
    account = me(shop, pair).json()
    assert (account["id"] != eve["id"], account["email"], account["name"]) == (True, None, "Ann")
    assert sign_in(shop, liar).status_code == 200


def test_an_unverified_address_is_not_kept(shop: TestClient, liar: Liar) -> None:
    liar.claims["email_verified"] = False
    assert me(shop, sign_in(shop, liar).json()).json()["email"] is None


def test_a_disabled_account_stays_disabled_and_a_deleted_one_leaves_no_link(shop: TestClient, liar: Liar) -> None:
    service = service_behind(shop)
    account = me(shop, sign_in(shop, liar).json()).json()
    with service.database.writing() as session:
        session.execute(update(User).values(disabled_at=now()))
    assert sign_in(shop, liar).json()["code"] == "openid_failed"
    with service.database.writing() as session:
        session.execute(update(User).values(disabled_at=None))
    headers = {"Authorization": f"Bearer {sign_in(shop, liar).json()['access_token']}"}
    with service.database.writing() as session:
        session.execute(update(SignIn).values(created_at=now().replace(year=2020)))
    assert shop.post("/v1/me/delete", json={}, headers=headers).json()["code"] == "sign_in_failed"
    headers = {"Authorization": f"Bearer {sign_in(shop, liar).json()['access_token']}"}
    exported = shop.get("/v1/me/export", headers=headers).json()
    assert [row["subject"] for row in exported["tables"]["openid_links"]] == ["person-1"]
    changed = shop.post("/v1/password", json={"old_password": "", "new_password": "x" * 12}, headers=headers)
    assert changed.json()["code"] == "sign_in_failed", "nobody sets a password past the issuer"
    assert shop.post("/v1/me/delete", json={}, headers=headers).status_code == 204
    with service.database.reading() as session:
        assert session.scalars(select(OpenIdLink)).all() == []
    assert me(shop, sign_in(shop, liar).json()).json()["id"] != account["id"]


def test_roles_follow_the_issuer_where_it_has_a_say(make_app: Callable[..., TestClient], liar: Liar) -> None:
    roles = {"staff": "reviewer", "owners": "admin"}
    shop = make_app(**settings_for(liar.issuer, openid_role_claim="realm.groups", openid_roles=roles))
    make_user(service_behind(shop), "admin")
    for groups, role in (
        (["staff", "else"], "reviewer"),
        (["owners", "staff"], "admin"),
        ("owners", "admin"),
        (["admin"], "seller"),
        ({"owners": True}, "seller"),
        (None, "seller"),
    ):
        liar.claims["realm"] = {"groups": groups}
        pair = sign_in(shop, liar).json()
        assert me(shop, pair).json()["role"] == role
    actions = [row["action"] for row in audit_of(shop)]
    assert actions.count("user.role") == 2
    assert {"user.created", "user.openid"} <= set(actions)


def test_the_last_administrator_keeps_the_role_that_the_issuer_takes(
    make_app: Callable[..., TestClient], liar: Liar
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_role_claim="groups", openid_roles={"owners": "admin"}))
    service = service_behind(shop)
    liar.claims["groups"] = ["owners"]
    assert me(shop, sign_in(shop, liar).json()).json()["role"] == "admin"
    liar.claims["groups"] = []
    for disabled in (False, True):
        pair = sign_in(shop, liar).json()
        assert me(shop, pair).json()["role"] == "admin", "nobody else could administrate"
        other = make_user(service, "admin")
        with service.database.writing() as session:
            if not disabled:
                session.execute(update(User).where(User.id == other.id).values(disabled_at=now()))
    assert me(shop, sign_in(shop, liar).json()).json()["role"] == "seller", "there is another one now"


def test_a_sign_in_tells_its_owner_where_it_began(shop: TestClient, liar: Liar) -> None:
    begun = shop.get("/v1/openid/start", follow_redirects=False, headers={"User-Agent": "Some\x7f Browser/1.0"})
    pair = shop.get(liar.authorize(begun.headers["Location"]), headers={"User-Agent": "Some Browser/1.0"}).json()
    (only,) = shop.get("/v1/me/sign-ins", headers={"Authorization": f"Bearer {pair['access_token']}"}).json()[
        "items"
    ]
    assert (only["agent"], only["address"], only["this"]) == ("Some Browser/1.0", "testclient", True)


PAGE_REDIRECT = "http://127.0.0.1/sign-in/openid"
BROWSER = {"Accept": "text/html"}


@pytest.mark.parametrize("redirect", [PAGE_REDIRECT, REDIRECT])
def test_a_page_signs_in_through_the_issuer_wherever_it_sends_browsers(
    make_app: Callable[..., TestClient], liar: Liar, redirect: str
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_redirect=redirect))
    browser = another(shop, BROWSER, follow=False)
    form = browser.get("/sign-in?next=/account")
    assert 'href="/sign-in/openid/start?next=%2Faccount"' in form.text
    begun = browser.get("/sign-in/openid/start?next=/account")
    assert (begun.status_code, begun.headers["Referrer-Policy"]) == (303, "no-referrer")
    back = browser.get(liar.authorize(begun.headers["Location"]))
    if redirect == REDIRECT:
        assert back.headers["Location"].startswith("/sign-in/openid?code=")
        back = browser.get(back.headers["Location"])
    assert (back.status_code, back.headers["Location"]) == (303, "/account"), back.text
    assert "shelver_session" in browser.cookies
    assert "shelver-openid" not in browser.cookies
    page = browser.get("/account")
    assert "ann@shop.example" in page.text
    assert "Your organisation signs you in" in page.text


def test_a_program_that_began_gets_its_tokens_though_the_issuer_sends_browsers_to_the_page(
    make_app: Callable[..., TestClient], liar: Liar
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_redirect=PAGE_REDIRECT))
    answer = sign_in(shop, liar)
    assert me(shop, answer.json()).json()["name"] == "Ann"
    assert "shelver_session" not in shop.cookies


def test_a_page_refuses_a_sign_in_that_another_browser_began_and_says_what_to_do(
    make_app: Callable[..., TestClient], liar: Liar
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_redirect=PAGE_REDIRECT))
    attacker, victim = another(shop, BROWSER, follow=False), another(shop, BROWSER, follow=False)
    back = liar.authorize(attacker.get("/sign-in/openid/start").headers["Location"])
    victim.get("/sign-in/openid/start")
    for browser in (victim, another(shop, BROWSER, follow=False)):
        refused = browser.get(back)
        assert (refused.status_code, "The sign-in was not finished." in refused.text) == (401, True)
        assert "shelver_session" not in browser.cookies
    assert attacker.get(back).status_code == 303
    for query in ("", "?code=x", "?error=access_denied&state=x"):
        assert victim.get(f"/sign-in/openid{query}").status_code == 401


def test_a_page_that_comes_back_goes_on_to_paths_of_ours_alone(
    make_app: Callable[..., TestClient], liar: Liar
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_redirect=PAGE_REDIRECT))
    for following in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", ""):
        browser = another(shop, BROWSER, follow=False)
        begun = browser.get("/sign-in/openid/start", params={"next": following})
        assert browser.get(liar.authorize(begun.headers["Location"])).headers["Location"] == "/sell"


def test_an_issuer_that_is_down_leaves_the_password_form(make_app: Callable[..., TestClient], liar: Liar) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_redirect=PAGE_REDIRECT))
    liar.down = True
    shown = another(shop, BROWSER, follow=False).get("/sign-in/openid/start?next=/account")
    assert (shown.status_code, "sign-in does not answer" in shown.text) == (503, True)
    assert 'name="next" value="/account"' in shown.text


def test_without_an_issuer_the_page_has_no_button(client: TestClient) -> None:
    assert "/sign-in/openid" not in client.get("/sign-in", headers=BROWSER).text
    assert client.get("/sign-in/openid?code=x&state=y", headers=BROWSER).status_code == 404


def audit_of(shop: TestClient) -> list[dict[str, Any]]:
    service = service_behind(shop)
    admin = token_of(service, make_user(service, "admin"))
    items: list[dict[str, Any]] = shop.get("/v1/audit", headers={"Authorization": f"Bearer {admin}"}).json()[
        "items"
    ]
    return items


def test_a_claim_whose_name_has_dots_is_found(service_settings: Callable[..., ServiceSettings]) -> None:
    settings = service_settings(openid_role_claim="https://shop.example/roles", openid_roles={"x": "reviewer"})
    assert role_of(settings, {"https://shop.example/roles": ["x"]}) == "reviewer"
    assert role_of(service_settings(), {"roles": ["x"]}) is None


def test_only_verified_addresses_of_the_allowed_domains_come_in(
    make_app: Callable[..., TestClient], liar: Liar
) -> None:
    shop = make_app(**settings_for(liar.issuer, openid_domains=("Shop.example",)))
    for email, verified, status in (
        ("ann@shop.example", True, 200),
        ("ann@shop.example", False, 401),
        ("ann@evil.example", True, 401),
        ("ann@shop.example@evil.example", True, 401),
        ("ann@sub.shop.example", True, 401),
        (None, True, 401),
    ):
        liar.claims |= {"email": email, "email_verified": verified}
        assert sign_in(shop, liar).status_code == status, email


def test_begun_sign_ins_are_limited_by_address(make_app: Callable[..., TestClient], liar: Liar) -> None:
    shop = make_app(**settings_for(liar.issuer, sign_ins_per_minute=2))
    codes = [shop.get("/v1/openid/start", follow_redirects=False).status_code for _ in range(3)]
    assert codes == [303, 303, 429]


@pytest.mark.parametrize(
    "changes",
    [
        {"openid_issuer": "http://accounts.example.org"},
        {"openid_issuer": "https://user:word@accounts.example.org"},
        {"openid_issuer": "file:///etc/passwd"},
        {"openid_redirect": "http://shop.example/back"},
        {"openid_redirect": None},
        {"openid_client_id": None},
        {"openid_roles": {"x": "admin"}},
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    service_settings: Callable[..., ServiceSettings], changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as refused:
        issuer_of(service_settings(**{**settings_for("https://accounts.example.org"), **changes}))
    assert "word" not in str(refused.value)


def test_no_secret_code_or_token_stands_in_the_log(shop: TestClient, liar: Liar, logs: Any) -> None:
    begun = shop.get("/v1/openid/start", follow_redirects=False)
    back = liar.authorize(begun.headers["Location"])
    pair = shop.get(back).json()
    said = logs.getvalue()
    assert "/v1/openid/callback" in said
    for secret in (SECRET, parse_qs(urlsplit(back).query)["state"][0], "code-0", pair["access_token"]):
        assert secret not in said
