"""The frame of all pages: who has signed in, where a form may come from, languages, themes, refusals as pages."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from service_rig import BROWSER, PASSWORD, another, browser, make_user, token_of

from shelver.service.accounts.identity import COOKIE
from shelver.service.pages.session import own_path
from shelver.service.state import Service


def test_nobody_is_sent_to_sign_in_and_comes_back(client: TestClient, service: Service) -> None:
    nobody = browser(client, None)
    answer = nobody.get("/users?q=a b&role=seller")
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        "/sign-in?next=%2Fusers%3Fq%3Da%2520b%26role%3Dseller",
    )
    user = make_user(service, "admin")
    shown = nobody.get(answer.headers["Location"])
    assert 'name="next" value="/users?q=a%20b&amp;role=seller"' in shown.text
    form = {"email": user.email, "password": PASSWORD, "next": "/users?q=a%20b&role=seller"}
    signed_in = nobody.post("/sign-in", data=form)
    assert (signed_in.status_code, signed_in.headers["Location"]) == (303, "/users?q=a%20b&role=seller")
    cookie = signed_in.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert nobody.get("/").headers["Location"] == "/dashboard"


def test_a_cookie_is_secure_where_the_page_is(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    person = TestClient(
        client.app, base_url="https://127.0.0.1", headers=BROWSER | {"Origin": "https://127.0.0.1"}
    )
    person.portal = client.portal
    answer = person.post("/sign-in", data={"email": user.email, "password": PASSWORD}, follow_redirects=False)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"__Host-{COOKIE}=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    planted = another(client, BROWSER)
    planted.base_url = "https://127.0.0.1"
    planted.cookies.set(COOKIE, person.cookies[f"__Host-{COOKIE}"])
    assert planted.get("/v1/me").status_code == 401, "another host of the domain could have planted it"


def test_a_wrong_password_keeps_the_address_and_says_nothing_else(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    answer = browser(client, None).post("/sign-in", data={"email": user.email, "password": "wrong <b>"})
    assert answer.status_code == 401
    assert "do not belong together" in answer.text
    assert f'value="{user.email}"' in answer.text
    assert "wrong &lt;b&gt;" not in answer.text
    assert "Set-Cookie" not in answer.headers


def test_who_signs_out_has_no_sign_in_left(client: TestClient, browsing: Callable[..., TestClient]) -> None:
    person = browsing("seller")
    kept = person.cookies[COOKIE]
    assert person.get("/v1/me").status_code == 200
    assert person.post("/sign-out").headers["Location"] == "/?done=signed-out"
    copied = another(client, BROWSER)
    copied.cookies.set(COOKIE, kept)
    assert copied.get("/v1/me").status_code == 401


def test_a_change_with_a_cookie_must_come_from_our_own_pages(browsing: Callable[..., TestClient]) -> None:
    person = browsing("seller")
    body = {"title": "Folding deck chair"}
    for headers, status in (
        ({"Origin": "http://127.0.0.1"}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:81"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 201),  # behind a proxy
    ):
        answer = person.post("/v1/products", json=body, headers=headers)
        assert answer.status_code == status, headers
        assert status == 201 or answer.json()["code"] == "cross_site"
    del person.headers["Origin"]
    assert person.post("/v1/products", json=body).status_code == 403


def test_a_session_is_no_access_token_and_an_access_token_is_no_session(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    session = browsing("seller").cookies[COOKIE]
    assert another(client, {"Authorization": f"Bearer {session}"}).get("/v1/me").status_code == 401
    token = token_of(service, make_user(service, "seller"))
    other = another(client, BROWSER)
    other.cookies.set(COOKIE, token)
    assert other.get("/v1/me").status_code == 401


def test_strangers_cannot_sign_somebody_in(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    form = {"email": user.email, "password": PASSWORD}
    for path in ("/sign-in", "/register", "/preferences"):
        answer = browser(client, None).post(path, data=form, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 403, path


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.example", "/\\evil.example", "https://evil.example", "/a\nb", "evil", "", "/a b", "\\\\evil"),
        *("/\t/evil.example", "/%0d%0aSet-Cookie:x\r\n", "javascript:alert(1)", "/" + "a" * 2000, "/é"),
        "///evil.example",
    ],
)
def test_nobody_is_sent_elsewhere(path: str) -> None:
    assert own_path(path, "/sell") == "/sell"


@pytest.mark.parametrize("path", ["/", "/listings?q=a%20b&after=xyz", "/taxonomy/aa-1/2", "/a//b"])
def test_our_own_paths_are_kept(path: str) -> None:
    assert own_path(path, "/sell") == path


def test_pages_allow_nothing_from_elsewhere(client: TestClient, browsing: Callable[..., TestClient]) -> None:
    answer = browser(client, None).get("/sign-in")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son\w+=|https?://", answer.text)


def test_a_refusal_is_a_page_for_browsers_and_a_document_for_programs(
    client: TestClient, browsing: Callable[..., TestClient]
) -> None:
    page = browser(client, None).get("/nowhere/<b>")
    assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such resource" in page.text
    assert page.headers["X-Request-ID"] in page.text
    assert "<b>" not in page.text
    document = client.get("/nowhere")
    assert (document.status_code, document.json()["code"]) == (404, "not_found")
    assert browser(client, None).get("/v1/me").json()["code"] == "not_signed_in"
    seller = browsing("seller")
    refused = seller.get("/users")
    assert refused.status_code == 403
    assert "The account may not do this" in refused.text
    assert 'action="/sign-out"' in seller.get("/nowhere").text, "who has signed in stays so where there is no page"


def test_language_and_theme_are_chosen_and_kept(client: TestClient) -> None:
    person = browser(client, None)
    assert '<html lang="fr"' in person.get("/", headers={"Accept-Language": "de, fr;q=0.9, en;q=0.8"}).text
    assert '<html lang="en"' in person.get("/", headers={"Accept-Language": "de;q=x, *"}).text
    answer = person.post("/preferences", data={"language": "fr", "theme": "dark", "back": "/register"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/register")
    shown = person.get("/register").text
    assert '<html lang="fr" data-theme="dark">' in shown
    assert "S’inscrire comme vendeur" in shown
    answer = person.post("/preferences", data={"language": "<b>", "theme": "x", "back": "//evil.example"})
    assert answer.headers["Location"] == "/"
    assert "Set-Cookie" not in answer.headers


def test_somebody_registers_and_is_signed_in(client: TestClient) -> None:
    person = browser(client, None)
    form = {"name": "Ann", "email": "ann@example.org", "password": "short"}
    refused = person.post("/register", data=form)
    assert refused.status_code == 422
    assert 'value="ann@example.org"' in refused.text
    wrong = person.post("/register", data={**form, "email": "nobody"})
    assert wrong.status_code == 422
    assert 'aria-invalid="true"' in wrong.text
    answer = person.post("/register", data={**form, "password": PASSWORD})
    assert answer.headers["Location"] == "/sell?done=registered"
    assert person.get("/v1/me").json()["role"] == "seller"


def test_static_files_are_kept_by_browsers(client: TestClient) -> None:
    first = client.get("/static/shelver.css")
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    again = client.get("/static/shelver.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.css", "..%2fapp.py", "app.py", "%2e%2e"):
        assert client.get(f"/static/{name}").status_code in (404, 422), name


def test_a_page_of_a_problem_that_cannot_be_made_leaves_the_problem(client: TestClient) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no page")

    client.app.state.problem_page = broken  # type: ignore[attr-defined]
    answer = browser(client, None).get("/nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
