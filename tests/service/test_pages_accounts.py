"""In a browser, without scripts: sign in and out, register, set a password, the first administrator."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from service_rig import PASSWORD, another, make_user, service_behind
from sqlalchemy import select
from typer.testing import CliRunner

from shelver.cli.serve import app as account_commands
from shelver.service.accounts.identity import COOKIE
from shelver.service.accounts.one_time import make_token
from shelver.service.pages.session import own_path
from shelver.service.pages.tokens import COOKIE as TOKEN_COOKIE
from shelver.service.state import Service
from shelver.service.tables.accounts import SignIn, User

BROWSER = {
    "Accept": "text/html",
    "Origin": "http://127.0.0.1",
    "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140",
}


def browser_of(client: TestClient, **headers: str) -> TestClient:
    """A browser in which nobody has signed in."""
    return another(client, {**BROWSER, **headers}, follow=False)


def sign_in(browser: TestClient, email: str, password: str = PASSWORD, following: str = "") -> Any:
    return browser.post("/sign-in", data={"email": email, "password": password, "next": following})


def texts(answer: Any) -> str:
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def sign_ins_of(service: Service, user_id: str) -> list[bool]:
    """Whether each sign-in of a user goes on, the oldest first."""
    with service.database.reading() as session:
        rows = session.scalars(select(SignIn).where(SignIn.user_id == user_id).order_by(SignIn.created_at))
        return [row.revoked_at is None for row in rows]


def test_a_person_signs_in_goes_where_he_wanted_and_signs_out_for_good(
    client: TestClient, service: Service
) -> None:
    user, browser = make_user(service, "admin", name="Ann"), browser_of(client)
    asked = browser.get("/users?role=seller")
    assert (asked.status_code, asked.headers["Location"]) == (303, "/sign-in?next=%2Fusers%3Frole%3Dseller")
    form = browser.get(asked.headers["Location"])
    assert 'name="next" value="/users?role=seller"' in form.text
    assert 'autocomplete="username"' in form.text
    assert 'autocomplete="current-password"' in form.text
    done = sign_in(browser, str(user.email), following="/users?role=seller")
    assert (done.status_code, done.headers["Location"]) == (303, "/users?role=seller")
    cookie = done.headers["Set-Cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/"} <= set(re.split(r"; ?", cookie))
    assert "secure" not in cookie, "not over http"
    page = browser.get("/users")
    assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
    stolen = browser.cookies[COOKIE]
    assert browser.post("/sign-out").status_code == 303
    assert COOKIE not in browser.cookies
    thief = browser_of(client)
    thief.cookies.set(COOKIE, stolen)
    assert thief.get("/users").status_code == 303, "the sign-in has ended in the database"


def test_over_https_the_cookie_is_for_https_alone(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    browser = browser_of(client, Origin="https://127.0.0.1")
    browser.base_url = "https://127.0.0.1"
    assert "secure" in sign_in(browser, str(user.email)).headers["Set-Cookie"].lower()
    token = browser.get("/reset?token=sho_abc").headers["Set-Cookie"].lower()
    assert {"secure", "httponly", "samesite=lax", "path=/reset"} <= set(re.split(r"; ?", token))


def test_each_sign_in_has_a_cookie_of_its_own_and_ends_that_of_before(
    client: TestClient, service: Service
) -> None:
    user, browser = make_user(service, "seller"), browser_of(client)
    browser.cookies.set(COOKIE, "planted", domain="127.0.0.1", path="/")
    sign_in(browser, str(user.email))
    first = [value for name, value in browser.cookies.items() if name == COOKIE and value != "planted"]
    assert first, "a planted cookie is not gone on with"
    again = browser_of(client)
    sign_in(again, str(user.email))
    second = sign_in(again, str(user.email))
    assert second.status_code == 303
    assert sign_ins_of(service, user.id) == [True, False, True]


FORMS_OF_NEXT = (
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "https://evil.example",
    "http://evil.example/",
    "HTTPS://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "ftp://evil",
    "evil.example",
    "evil.example/x",
    "",
    " ",
    " /users",
    "/ /users",
    "\t//evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\x00/users",
    "/x\r\nSet-Cookie: a=b",
    "/\u2028/evil.example",
    "@evil.example",
    "?next=//evil.example",
    "#//evil.example",
    "./users",
    "../users",
    "/users\\..\\x",
    "/é",
    "/" + "x" * 2001,
    "blob:x",
)


@pytest.mark.parametrize("form", FORMS_OF_NEXT)
def test_nobody_is_sent_to_another_site(form: str) -> None:
    assert own_path(form, "/sell") == "/sell"


@pytest.mark.parametrize(
    "path", ["/", "/users", "/users?role=seller&q=a%20b", "/listings/5c1f#top", "/x//y", "/a:b"]
)
def test_a_path_of_ours_is_gone_on_to(path: str) -> None:
    assert own_path(path, "/sell") == path


def test_a_sign_in_with_a_bad_next_goes_to_the_first_page(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    for form in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"):
        browser = browser_of(client)
        shown = browser.get("/sign-in", params={"next": form})
        assert "evil.example" not in re.sub(r'name="back" value="[^"]*"', "", shown.text)
        assert sign_in(browser, str(user.email), following=form).headers["Location"] == "/sell"
        assert browser.get("/sign-in", params={"next": form}).headers["Location"] == "/sell", "he has signed in"


def test_a_wrong_password_an_unknown_and_a_disabled_account_say_the_same(
    client: TestClient, service: Service
) -> None:
    good, off = make_user(service, "seller"), make_user(service, "seller")
    with service.database.writing() as session:
        session.get_one(User, off.id).disabled_at = off.created_at
    said = set()
    for email, password in ((good.email, "wrong"), ("nobody@example.org", PASSWORD), (off.email, PASSWORD)):
        answer = sign_in(browser_of(client), str(email), password)
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (401, None)
        assert html.escape(str(email)) in answer.text, "what was typed is still there"
        assert password not in answer.text
        said.add(texts(answer))
    assert len(said) == 1
    assert "the account may be disabled" in said.pop()


def test_who_failed_too_often_is_told_when_to_come_back(make_app: Callable[..., TestClient]) -> None:
    client = make_app(sign_in_failures=2, lockout_s=600)
    user, browser = make_user(service_behind(client), "seller"), browser_of(client)
    for _ in range(2):
        assert sign_in(browser, str(user.email), "wrong").status_code == 401
    locked = sign_in(browser, str(user.email))
    assert locked.status_code == 429
    assert 0 < int(locked.headers["Retry-After"]) <= 600
    assert "Try again in 10 minutes." in texts(locked)
    browser.headers["Accept-Language"] = "fr"
    assert "Réessayez dans 10 minutes." in texts(sign_in(browser, str(user.email)))


def test_a_form_that_was_sent_too_often_comes_back_with_what_was_typed(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(sign_ins_per_minute=2)
    browser = browser_of(client)
    token = "sho_" + "x" * 43
    codes = [sign_in(browser, "ann@example.org").status_code for _ in range(2)]
    assert codes == [401, 401]
    for path, data in (
        ("/sign-in", {"email": "ann@example.org", "password": PASSWORD}),
        ("/register", {"email": "ann@example.org", "name": "Ann", "password": PASSWORD}),
        ("/reset", {"token": token, "password": PASSWORD}),
        ("/first-admin", {"token": token, "email": "ann@example.org", "name": "Ann", "password": PASSWORD}),
    ):
        refused = browser.post(path, data=data)
        assert (refused.status_code, "Too many attempts." in texts(refused)) == (429, True), path
        assert 0 < int(refused.headers["Retry-After"]) <= 60, path
        assert data.get("email", data.get("token", "")) in refused.text, path
        assert PASSWORD not in refused.text


def test_forms_of_other_sites_are_refused_before_anybody_has_signed_in(
    client: TestClient, service: Service
) -> None:
    user = make_user(service, "seller")
    forms = {
        "/sign-in": {"email": str(user.email), "password": PASSWORD},
        "/register": {"email": "new@example.org", "name": "New", "password": PASSWORD},
        "/forgot": {"email": str(user.email)},
        "/reset": {"token": "sho_x", "password": PASSWORD},
        "/first-admin": {"token": "sho_x", "email": "a@example.org", "name": "A", "password": PASSWORD},
    }
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:81"},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-site"},
    ):
        for path, data in forms.items():
            answer = browser_of(client, **headers).post(path, data=data)
            assert (answer.status_code, answer.headers.get("Set-Cookie")) == (403, None), (path, headers)
    none = browser_of(client)
    del none.headers["Origin"]
    none.headers["Accept"] = "application/json"
    refused = none.post("/sign-in", data=forms["/sign-in"])
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")


def test_every_page_of_accounts_forbids_frames_scripts_of_others_and_keeping(
    client: TestClient, browsing: Callable[..., TestClient]
) -> None:
    admin, nobody = browsing("admin"), browser_of(client)
    signed_in = ("/account", "/account/delete", "/users", "/users/new", "/keys", "/audit")
    for browser, paths in (
        (nobody, ("/sign-in", "/register", "/forgot", "/reset", "/first-admin")),
        (admin, signed_in),
    ):
        for path in paths:
            answer = browser.get(path)
            assert answer.status_code == 200, (path, answer.text)
            headers = answer.headers
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
            assert "script-src 'self';" in headers["Content-Security-Policy"], path
            assert (headers["X-Frame-Options"], headers["Cache-Control"]) == ("DENY", "no-store"), path
            assert headers["Referrer-Policy"] in ("same-origin", "no-referrer"), path
            assert len(re.findall(r"<h1[ >]", answer.text)) == 1, path
            assert " style=" not in answer.text, path
            assert not re.search(r"<script(?![^>]* src=)", answer.text), path
            ids = re.findall(r' id="([^"]+)"', answer.text)
            assert len(ids) == len(set(ids)), path
            assert set(re.findall(r'<label for="([^"]+)"', answer.text)) <= set(ids), path


def test_a_person_registers_and_has_signed_in(client: TestClient) -> None:
    browser = browser_of(client)
    form = {"name": "Ann's shop", "email": "Ann@Example.org", "password": "short"}
    refused = browser.post("/register", data=form)
    assert (refused.status_code, "A password has 10 to 200 characters." in texts(refused)) == (422, True)
    assert 'value="Ann@Example.org"' in refused.text
    assert "short" not in refused.text
    form["password"] = PASSWORD
    no_address = browser.post("/register", data={**form, "email": "ann"})
    assert (no_address.status_code, "such as ann@example.org" in texts(no_address)) == (422, True)
    done = browser.post("/register", data=form)
    assert (done.status_code, done.headers["Location"]) == (303, "/sell?done=registered")
    assert "ann@example.org" in browser.get("/account").text
    again = browser_of(client).post("/register", data=form)
    assert (again.status_code, "This address has an account already." in texts(again)) == (409, True)
    assert "Set-Cookie" not in again.headers


def test_where_registration_is_closed_the_pages_say_so(make_app: Callable[..., TestClient]) -> None:
    browser = browser_of(make_app(registration="closed"))
    assert "/register" not in browser.get("/sign-in").text.replace('value="/register', "")
    shown = browser.get("/register")
    assert "Ask an administrator of this shop for an account." in texts(shown)
    assert 'name="password"' not in shown.text
    sent = browser.post("/register", data={"name": "A", "email": "a@example.org", "password": PASSWORD})
    assert (sent.status_code, "Ask an administrator" in texts(sent)) == (403, True)


def test_a_link_with_a_token_loses_it_at_once_and_sets_a_password_once(
    client: TestClient, service: Service, logs: io.StringIO
) -> None:
    user, browser = make_user(service, "seller"), browser_of(client)
    old = browser_of(client)
    sign_in(old, str(user.email))
    with service.database.writing() as session:
        token = make_token(session, "password", user_id=user.id, lives_s=60)
    moved = browser.get(f"/reset?token={token}")
    assert (moved.status_code, moved.headers["Location"]) == (303, "/reset")
    assert moved.headers["Referrer-Policy"] == "no-referrer"
    form = browser.get("/reset")
    assert f'type="hidden" name="token" value="{token}"' in form.text
    assert str(user.email) in form.text, "a password manager knows whose it is"
    assert 'autocomplete="new-password"' in form.text
    short = browser.post("/reset", data={"token": token, "email": str(user.email), "password": "short"})
    assert (short.status_code, f'value="{token}"' in short.text) == (422, True)
    done = browser.post("/reset", data={"token": token, "password": "quite another password"})
    assert (done.status_code, done.headers["Location"]) == (303, "/sign-in?done=password-set")
    assert TOKEN_COOKIE not in browser.cookies
    assert old.get("/account").status_code == 303, "all sign-ins have ended"
    again = browser.post("/reset", data={"token": token, "password": "and another password"})
    assert (again.status_code, "This token cannot be used." in texts(again)) == (401, True)
    assert token not in again.text
    assert sign_in(browser, str(user.email), "quite another password").status_code == 303
    assert token not in logs.getvalue()


def test_a_token_that_is_none_is_told_before_a_password_is_typed(client: TestClient, service: Service) -> None:
    browser = browser_of(client)
    browser.get("/reset?token=sho_guessed")
    told = browser.get("/reset")
    assert (told.status_code, "This token cannot be used." in texts(told)) == (401, True)
    assert 'type="text"' in told.text, "another one can be pasted"
    for odd in ('"><script>', "a b", "x" * 150, "é", "a;b"):
        answer = browser_of(client).get("/reset", params={"token": odd})
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (200, False)
        assert "<script>" not in answer.text


def test_the_first_administrator_is_made_on_a_page_once(client: TestClient, service: Service) -> None:
    browser = browser_of(client)
    with service.database.writing() as session:
        token = make_token(session, "first_admin", user_id=None, lives_s=60)
    assert browser.get(f"/first-admin?token={token}").headers["Location"] == "/first-admin"
    assert f'name="token" value="{token}"' in browser.get("/first-admin").text
    form = {"token": token, "email": "ann@example.org", "name": "Ann", "password": "short"}
    assert browser.post("/first-admin", data=form).status_code == 422
    wrong = browser.post("/first-admin", data={**form, "token": "sho_guessed", "password": PASSWORD})
    assert (wrong.status_code, "This token cannot be used." in texts(wrong)) == (401, True)
    with service.database.reading() as session:
        assert session.scalars(select(User.id)).all() == [], "nothing is left of an attempt that failed"
    done = browser.post("/first-admin", data={**form, "password": PASSWORD})
    assert (done.status_code, done.headers["Location"]) == (303, "/dashboard?done=registered")
    assert browser.get("/users").status_code == 200
    assert "There is an administrator already" in texts(browser_of(client).get("/first-admin"))


def test_the_command_line_prints_the_address_of_the_first_administrator_s_page(
    empty_settings: Path, make_app: Callable[..., TestClient], database_url: str | None
) -> None:
    database = [] if database_url is None else ["--database", database_url]
    data = ["--data", str(empty_settings / "data")]
    done = CliRunner().invoke(account_commands, [*data, "--json", *database])
    address = urlsplit(json.loads(done.stdout)["address"])
    assert (address.scheme, address.netloc) == ("http", "127.0.0.1:8000")
    assert address.geturl() in done.stderr
    browser = browser_of(make_app())
    assert browser.get(f"{address.path}?{address.query}").headers["Location"] == "/first-admin"
    assert 'type="hidden" name="token" value="sho_' in browser.get("/first-admin").text


def test_without_a_mail_hook_the_page_says_whom_to_ask(client: TestClient) -> None:
    browser = browser_of(client)
    assert "Ask an administrator of this shop" in texts(browser.get("/forgot"))
    assert browser.post("/forgot", data={"email": "a@example.org"}).status_code == 404


def test_who_asks_for_a_mail_learns_nothing_of_accounts(make_app: Callable[..., TestClient]) -> None:
    client = make_app(mail_hook="http://127.0.0.1:9/", mail_secret="s" * 32)
    user = make_user(service_behind(client), "seller")
    browser = browser_of(client)
    said = [browser.post("/forgot", data={"email": email}) for email in (user.email, "nobody@example.org")]
    assert [answer.status_code for answer in said] == [200, 200]
    assert texts(said[0]) == texts(said[1])
    assert "Look into your mail." in texts(said[0])
    assert browser.post("/forgot", data={"email": "no address"}).status_code == 422


def test_pages_of_accounts_speak_french(client: TestClient) -> None:
    browser = browser_of(client, **{"Accept-Language": "fr-CH, en;q=0.5"})
    for path, words in (
        ("/sign-in", "Mot de passe oublié ?"),
        ("/forgot", "Demandez à un administrateur"),
        ("/reset", "Choisir un nouveau mot de passe"),
        ("/first-admin", "Le premier administrateur"),
    ):
        shown = browser.get(path)
        assert words in texts(shown), path
        assert '<html lang="fr"' in shown.text


def test_a_person_comes_back_from_signing_in_only_where_the_host_is_ours(
    client: TestClient, service: Service
) -> None:
    user, browser = make_user(service, "seller"), browser_of(client)
    done = sign_in(browser, str(user.email), following="/account")
    where = urlsplit(done.headers["Location"])
    assert (where.scheme, where.netloc, where.path) == ("", "", "/account")
