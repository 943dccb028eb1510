"""In a browser, without scripts: my account; and for administrators users, keys and the audit."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import PASSWORD, another, make_user, service_behind
from sqlalchemy import insert, select, update

import shelver.service
from shelver.service.accounts.identity import COOKIE
from shelver.service.accounts.routes import add_user
from shelver.service.audit import audit
from shelver.service.pages.audit import ACTIONS, values_of
from shelver.service.records.payloads import MAX_PAGE
from shelver.service.state import Service
from shelver.service.tables.accounts import AuditEntry, SignIn, User
from shelver.service.tables.declarative import now

BROWSER = {
    "Accept": "text/html",
    "Origin": "http://127.0.0.1",
    "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140",
}


def signed_in(client: TestClient, user: User, password: str = PASSWORD, **headers: str) -> TestClient:
    """A browser in which this person has signed in by the form."""
    browser = another(client, {**BROWSER, **headers}, follow=False)
    done = browser.post("/sign-in", data={"email": str(user.email), "password": password})
    assert done.status_code == 303, done.text
    return browser


def texts(answer: Any) -> str:
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_my_account_shows_who_i_am_and_changes_my_name(client: TestClient, service: Service) -> None:
    user = make_user(service, "reviewer", name="Ann")
    browser = signed_in(client, user)
    shown = texts(browser.get("/account"))
    assert str(user.email) in shown
    assert "Reviewer" in shown
    assert browser.post("/account/name", data={"name": " Ann  <b>Lee</b> "}).headers["Location"] == (
        "/account?done=renamed"
    )
    page = browser.get("/account?done=renamed")
    assert "Your name is changed." in texts(page)
    assert "Ann &lt;b&gt;Lee&lt;/b&gt;" in page.text
    refused = browser.post("/account/name", data={"name": "  "})
    assert (refused.status_code, "Type a name of at most 100 characters." in texts(refused)) == (422, True)


def test_a_new_password_ends_all_other_sign_ins_and_this_browser_gets_a_new_one(
    client: TestClient, service: Service
) -> None:
    user = make_user(service, "seller")
    browser, other = signed_in(client, user), signed_in(client, user)
    before = browser.cookies[COOKIE]
    wrong = browser.post("/account/password", data={"old_password": "no", "password": "another good one"})
    assert (wrong.status_code, "The password is wrong." in texts(wrong)) == (401, True)
    short = browser.post("/account/password", data={"old_password": PASSWORD, "password": "short"})
    assert (short.status_code, "10 to 200 characters" in texts(short)) == (422, True)
    assert other.get("/account").status_code == 200
    done = browser.post("/account/password", data={"old_password": PASSWORD, "password": "another good one"})
    assert (done.status_code, done.headers["Location"]) == (303, "/account?done=password-changed")
    assert browser.cookies[COOKIE] != before
    assert browser.get("/account").status_code == 200
    assert other.get("/account").status_code == 303
    signed_in(client, user, "another good one")


def test_my_sign_ins_say_where_and_when_and_all_others_can_be_ended(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    browser = signed_in(client, user)
    phone = signed_in(client, user, **{"User-Agent": "Mozilla/5.0 (iPhone; like Mac OS X) Safari/604.1 <script>"})
    page = browser.get("/account")
    assert "Firefox on Linux this one" in texts(page)
    assert "Safari on iPhone" in texts(page)
    assert "&lt;script&gt;" in page.text
    assert "testclient" in texts(page), "the address"
    stranger = signed_in(client, make_user(service, "seller"))
    assert browser.post("/account/end-other-sign-ins").headers["Location"] == "/account?done=sign-ins-ended"
    assert (browser.get("/account").status_code, phone.get("/account").status_code) == (200, 303)
    assert stranger.get("/account").status_code == 200
    assert "Nowhere else." in texts(browser.get("/account"))


def test_my_data_come_as_a_file(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    answer = signed_in(client, user).get("/account/data")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="my-data.json"'
    found = answer.json()
    assert found["account"]["id"] == user.id
    assert found["tables"]["sign_ins"][0]["agent"] == BROWSER["User-Agent"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_account_is_deleted_with_the_password_and_not_without(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    browser = signed_in(client, user)
    asks = browser.get("/account/delete")
    assert "It cannot be taken back." in texts(asks)
    assert 'autocomplete="current-password"' in asks.text
    for password in ("", "wrong wrong wrong"):
        refused = browser.post("/account/delete", data={"password": password})
        assert (refused.status_code, "The password is wrong." in texts(refused)) == (401, True)
    done = browser.post("/account/delete", data={"password": PASSWORD})
    assert (done.status_code, done.headers["Location"]) == (303, "/?done=account-deleted")
    assert COOKIE not in browser.cookies
    with service.database.reading() as session:
        assert session.get_one(User, user.id).email is None


def test_the_last_administrator_cannot_leave_and_nothing_of_his_attempt_is_kept(
    client: TestClient, service: Service
) -> None:
    admin = make_user(service, "admin")
    browser = signed_in(client, admin)
    for path, data in (
        ("/account/delete", {"password": PASSWORD}),
        (f"/users/{admin.id}/role", {"role": "seller"}),
        (f"/users/{admin.id}/disable", {}),
    ):
        refused = browser.post(path, data=data)
        assert (refused.status_code, "Make somebody else an administrator first" in texts(refused)) == (409, True)
    with service.database.reading() as session:
        assert session.scalars(select(AuditEntry.id)).all() == []
        assert session.get_one(User, admin.id).role == "admin"
    make_user(service, "admin")
    assert browser.post(f"/users/{admin.id}/role", data={"role": "seller"}).status_code == 303


def test_who_has_no_password_is_told_to_sign_in_once_more(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    browser = signed_in(client, user)
    with service.database.writing() as session:
        session.execute(update(User).where(User.id == user.id).values(password_hash=None))
        session.execute(update(SignIn).values(created_at=now() - timedelta(hours=1)))
    assert 'name="password"' not in browser.get("/account/delete").text
    assert 'name="old_password"' not in browser.get("/account").text
    refused = browser.post("/account/delete")
    assert (refused.status_code, "Sign in once more." in texts(refused)) == (401, True)
    with service.database.writing() as session:
        session.execute(update(SignIn).values(created_at=now()))
    assert browser.post("/account/delete").status_code == 303


def test_administrators_find_people_by_name_role_and_state_page_by_page(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    browser = browsing("admin", "Root")
    for i in range(52):
        make_user(service, "seller", name=f"Seller {i:02}")
    make_user(service, "reviewer", name="Rob 100%")
    make_user(service, "service", name="nightly sync")
    off = make_user(service, "seller", name="Off")
    with service.database.writing() as session:
        session.get_one(User, off.id).disabled_at = now()
        add_user(session, "new@example.org", "Newcomer", "seller", password_hash=None, by=None)

    def found(**query: str) -> list[str]:
        page = browser.get("/users", params=query)
        assert page.status_code == 200, page.text
        return re.findall(r'<a href="/users/[0-9a-f]{32}"><strong>([^<]*)', page.text)

    first = browser.get("/users")
    assert len(found()) == 50
    following = html.unescape(re.findall(r'rel="next" href="([^"]+)"', first.text)[0])
    rest = browser.get(f"/users{following}")
    names = re.findall(r"<strong>(Seller \d\d)</strong>", first.text + rest.text)
    assert sorted(names) == [f"Seller {i:02}" for i in range(52)]
    assert "nightly sync" not in first.text
    assert found(role="service") == ["nightly sync"]
    assert found(q="rob 1") == found(role="reviewer") == found(q="00%") == ["Rob 100%"]
    assert found(q="NEW@exam") == found(state="new") == ["Newcomer"]
    assert found(state="disabled") == ["Off"]
    assert found(q="seller 0", state="active")[0] == "Seller 09"
    assert "Nobody like that" in texts(browser.get("/users", params={"q": "%_'\"<"}))
    assert len(found(role="emperor", state="x")) == 50, "what there is not is no condition"


def test_a_new_account_gets_a_token_that_is_shown_once(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    browser = browsing("admin")
    form = {"email": "rob@example.org", "name": "Rob", "role": "reviewer"}
    for change, told in (
        ({"email": "rob"}, "such as ann@example.org"),
        ({"role": "emperor"}, "This cannot be used."),
    ):
        refused = browser.post("/users/new", data={**form, **change})
        assert (refused.status_code, told in texts(refused)) == (422, True)
    made = browser.post("/users/new", data=form)
    assert (made.status_code, made.headers["Cache-Control"]) == (200, "no-store")
    (token,) = set(re.findall(r"sho_[\w-]{43}", made.text))
    assert f'value="http://127.0.0.1/reset?token={token}"' in made.text
    (user_id,) = re.findall(r'href="/users/([0-9a-f]{32})"', made.text)
    assert "no password yet" in texts(browser.get(f"/users/{user_id}"))
    assert token not in browser.get(f"/users/{user_id}").text
    again = browser.post("/users/new", data=form)
    assert (again.status_code, "has an account already" in texts(again)) == (409, True)
    second = browser.post(f"/users/{user_id}/password-token")
    (newer,) = set(re.findall(r"sho_[\w-]{43}", second.text))
    person = another(client, BROWSER, follow=False)
    assert person.post("/reset", data={"token": token, "password": PASSWORD}).status_code == 401, (
        "a newer one ended it"
    )
    assert person.post("/reset", data={"token": newer, "password": PASSWORD}).status_code == 303
    assert "may sign in" in texts(browser.get(f"/users/{user_id}"))


def test_roles_states_and_sign_ins_of_others_change_at_once(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    admin, user = browsing("admin"), make_user(service, "seller", name="Eve")
    eve = signed_in(client, user)
    assert eve.get("/users").status_code == 403
    page = texts(admin.get(f"/users/{user.id}"))
    assert "in 1 place" in page
    assert admin.post(f"/users/{user.id}/end-sign-ins").headers["Location"].endswith("done=user-signed-out")
    assert eve.get("/account").status_code == 303
    assert (
        admin.post(f"/users/{user.id}/role", data={"role": "admin"}).headers["Location"].endswith("role-changed")
    )
    eve = signed_in(client, user)
    assert eve.get("/users").status_code == 200
    assert admin.post(f"/users/{user.id}/disable").headers["Location"].endswith("user-disabled")
    assert eve.get("/users").status_code == 303
    assert admin.post(f"/users/{user.id}/enable").headers["Location"].endswith("user-enabled")
    signed_in(client, user)
    assert admin.post(f"/users/{user.id}/role", data={"role": "service"}).status_code == 422
    assert admin.get("/users/" + "0" * 32).status_code == 404
    with service.database.reading() as session:
        done = session.scalars(select(AuditEntry.action).where(AuditEntry.subject == user.id)).all()
    assert sorted(done) == ["user.disabled", "user.enabled", "user.role", "user.sign_ins_ended"]


def test_a_key_is_made_shown_once_and_ended(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    browser = browsing("admin")
    assert "No key yet" in texts(browser.get("/keys"))
    assert browser.post("/keys", data={"name": " "}).status_code == 422
    made = browser.post("/keys", data={"name": "nightly <sync>", "days": "30"})
    (key,) = set(re.findall(r"shk_[\w-]{43}", made.text))
    assert "nightly &lt;sync&gt;" in made.text
    machine = another(client, {"X-API-Key": key})
    assert "no prediction yet" in texts(browser.get("/keys"))
    answer = machine.post("/v1/predict", json={"title": "Folding deck chair"})
    assert answer.status_code == 200, answer.text
    service.log.settle(answer.json()["prediction_id"])
    page = browser.get("/keys")
    assert key not in page.text
    assert key[:8] in page.text
    assert "last prediction" in texts(page)
    (path,) = re.findall(r'action="(/keys/[0-9a-f]{32}/revoke)"', page.text)
    assert browser.post(path).headers["Location"] == "/keys?done=key-revoked"
    assert machine.get("/v1/me").status_code == 401
    assert "1 key that has ended" in texts(browser.get("/keys"))


def test_the_page_of_a_new_key_loaded_again_makes_no_second_key(client: TestClient, service: Service) -> None:
    browser = signed_in(client, make_user(service, "admin"))
    for _ in range(2):  # the first key of all, and one after it
        (newest,) = re.findall(r'name="newest" value="([^"]*)"', browser.get("/keys").text)
        form = {"name": "till 2", "days": "30", "newest": newest}
        assert "The key of till 2" in texts(browser.post("/keys", data=form))
        again = browser.post("/keys", data=form)
        assert (again.status_code, again.headers["Location"]) == (303, "/keys?done=key-made-before")
        assert "made already" in texts(browser.get(again.headers["Location"]))
    assert browser.get("/keys").text.count("<strong>till 2</strong>") == 2, "who wants another of that name has it"


def test_a_form_after_the_sign_in_has_ended_says_how_to_go_on(client: TestClient, service: Service) -> None:
    browser = signed_in(client, make_user(service, "admin"))
    browser.post("/sign-out")
    answer = browser.post("/keys", data={"name": "till 2", "newest": ""})
    assert answer.status_code == 401
    assert 'href="/sign-in" target="_blank"' in answer.text
    assert "load this page again" in texts(answer)


def test_every_action_of_the_audit_has_its_words() -> None:
    found: set[str] = set()
    for path in Path(shelver.service.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"""(?:audit|_note)\([^"]*?"([a-z_]+\.[a-z_]+)\"""", source))
    assert len(found) >= 15
    assert not found - ACTIONS.keys() - {"user.name"}, "add them to ACTIONS of pages/audit.py"


def test_the_audit_says_who_did_what_to_what_with_what_it_was_before(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    admin, user = browsing("admin", "Root"), make_user(service, "seller", name="Eve")
    admin.post(f"/users/{user.id}/role", data={"role": "reviewer"})
    with service.database.writing() as session:
        body = {"decoder": "climb", "thresholds": [0.9]}
        audit(session, None, "policy.write", "careful", {"before": body, "after": {**body, "thresholds": [0.8]}})
        audit(session, None, "model.promote", "fashion-2", {"before": "fashion-1"})
        audit(session, None, "job.start", "<script>alert(1)</script>", {"kind": "<img src=x onerror=alert(1)>"})
        old = session.scalars(select(AuditEntry).where(AuditEntry.action == "model.promote")).one()
        old.at = now() - timedelta(days=3)
    page = admin.get("/audit")
    said = texts(page)
    assert f"Root changed a role · {user.email} Seller → became Reviewer" in said
    assert "The command line changed a policy · careful thresholds [0.9] → became [0.8]" in said
    assert "decoder" not in said, "what is as it was is no news"
    assert "<script>alert(1)" not in page.text
    assert "<img" not in page.text.replace('<img src="/static', "")

    def n_found(**query: str) -> int:
        found = admin.get("/audit", params=query)
        assert found.status_code == 200, found.text
        return found.text.count('<p class="muted small">')

    today, before = now().date(), now().date() - timedelta(days=2)
    assert n_found() == 4
    assert n_found(who="root") == n_found(who=user.id, subject="x") + 1 == n_found(subject=user.id) == 1
    assert n_found(action="policy.write") == 1
    assert n_found(action="no.such") == 4
    assert n_found(**{"from": str(today - timedelta(days=1))}) == 3
    assert n_found(to=str(before)) == 1
    assert n_found(to="9999-12-31", **{"from": "yesterday"}) == 4


def test_changes_of_everybody_of_a_name_are_found(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    admin, oldest = browsing("admin", "Root"), make_user(service, "admin", name="Kim")
    many = [{"email": f"kim{i}@example.org", "name": "Kim", "role": "seller"} for i in range(MAX_PAGE)]
    with service.database.writing() as session:
        session.execute(insert(User), many)
        session.add(AuditEntry(user_id=oldest.id, action="model.promote", subject="fashion-2", detail="{}"))
    assert "Kim promoted a model · fashion-2" in texts(admin.get("/audit", params={"who": "kim"}))
    assert "fashion-2" not in texts(admin.get("/audit", params={"who": "root"}))


def test_values_of_a_change_are_told_apart() -> None:
    assert values_of({"from": "seller", "to": "admin"}) == [("", "seller", "admin")]
    assert values_of({"before": None, "after": {"a": 1}}) == [("a", None, "1")]
    assert values_of({"before": {"a": 1}, "after": None, "why": "x"}) == [("a", "1", None), ("why", None, "x")]
    assert values_of({"before": {"a": 1}, "after": "b"}) == [("", '{"a": 1}', "b")]
    assert values_of({"before": "v1"}) == [("Before", None, "v1")]
    assert values_of({}) == []
    assert values_of({"days": 90, "odd": True}) == [("Days", None, "90"), ("odd", None, "true")]


@pytest.mark.parametrize("role", ["seller", "reviewer"])
def test_only_administrators_see_people_keys_and_the_audit(
    client: TestClient, browsing: Callable[..., TestClient], role: str
) -> None:
    browser = browsing(role)
    assert [browser.get(path).status_code for path in ("/users", "/users/new", "/keys", "/audit")] == [403] * 4
    assert browser.post("/keys", data={"name": "x"}).status_code == 403
    assert browser.post("/users/new", data={"name": "x", "email": "x@example.org"}).status_code == 403
    assert service_behind(client).database.answers()


def test_a_form_of_another_site_changes_nothing(
    client: TestClient, service: Service, browsing: Callable[..., TestClient]
) -> None:
    admin, user = browsing("admin"), make_user(service, "seller")
    admin.headers["Origin"] = "https://evil.example"
    for path, data in (
        ("/account/name", {"name": "Eve"}),
        ("/account/delete", {"password": PASSWORD}),
        ("/account/end-other-sign-ins", {}),
        ("/users/new", {"name": "x", "email": "x@example.org"}),
        (f"/users/{user.id}/role", {"role": "admin"}),
        (f"/users/{user.id}/password-token", {}),
        ("/keys", {"name": "x"}),
        ("/sign-out", {}),
    ):
        assert admin.post(path, data=data).status_code in (401, 403), path
    with service.database.reading() as session:
        assert session.scalars(select(AuditEntry.id)).all() == []
    assert admin.get("/users").status_code == 200, "he has not been signed out"
