"""Accounts in a real browser: an administrator lets somebody in, who sets a password, and leaves for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from browser_rig import Shop, Visits, axe_script, violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_person_is_let_in_sets_a_password_and_leaves_for_good(shop: Shop, visit: Visit, scripts: bool) -> None:
    email, password = f"zoe-{scripts}@example.org".lower(), "a brand new password"
    admin = visit("admin", "/users", java_script_enabled=scripts)
    admin.get_by_role("link", name="New account").click()
    admin.get_by_label("Name").fill("Zoë <b>Day</b>")
    admin.get_by_label("E-mail address").fill(email)
    admin.get_by_label("Role").select_option("reviewer")
    admin.get_by_role("button", name="Make the account").click()
    link = admin.get_by_label("Link to set the password").input_value()
    token = link.partition("token=")[2]

    zoe = visit(None, java_script_enabled=scripts)
    leaks: list[str] = []
    zoe.on("request", lambda one: leaks.append(one.url) if token in one.headers.get("referer", "") else None)
    zoe.goto(link)
    assert zoe.url == f"{shop.url}/reset"
    assert zoe.get_by_label("E-mail address").input_value() == email
    zoe.get_by_label("New password").fill(password)
    zoe.get_by_role("button", name="Set the password").click()
    zoe.wait_for_url("**/sign-in?done=password-set")
    zoe.get_by_label("E-mail address").fill(email)
    zoe.get_by_label("Password", exact=True).fill(password)
    zoe.get_by_label("Password", exact=True).press("Enter")
    zoe.wait_for_url("**/review")
    assert not leaks

    zoe.get_by_role("link", name="Zoë <b>Day</b>").click()
    zoe.get_by_role("link", name="Delete my account…").click()
    zoe.get_by_label("Your password, to be sure that it is you").fill(password)
    zoe.get_by_role("button", name="Delete my account for good").click()
    zoe.wait_for_url("**/?done=account-deleted")
    assert zoe.get_by_text("Your account is deleted.").is_visible()
    assert shop.ask("admin", "GET", f"/v1/users?email={email}")["items"] == []


def test_what_forms_answer_is_in_order_too(visits: Visits) -> None:
    script, wrong = axe_script(), list[str]()
    admin = visits.page("admin", color_scheme="dark", locale="fr-FR")
    nobody = visits.page(None, color_scheme="dark", locale="fr-FR")

    def sent(page: Page, path: str, action: str, **values: str) -> None:
        page.goto(path)
        form = page.locator(f"form[action='{action}']")
        for name, value in values.items():
            form.locator(f"[name={name}]").fill(value)
        form.evaluate("(form) => { form.noValidate = true; }")
        with page.expect_navigation():
            form.get_by_role("button").click()
        wrong.extend(f"{path}: {one}" for one in violations(page, script))

    sent(nobody, "/sign-in?next=/sell", "/sign-in", email="a@example.org", password="wrong")
    sent(nobody, "/register", "/register", email="a", name=" ", password="short")
    sent(nobody, "/reset", "/reset", token="sho_guessed", password="a long enough password")
    sent(admin, "/account", "/account/password", old_password="wrong", password="another good password")
    sent(admin, "/account", "/account/name", name=" ")
    sent(admin, "/account/delete", "/account/delete", password="wrong")
    sent(admin, "/users/new", "/users/new", email="a", name=" ")
    sent(admin, "/keys", "/keys", name=" ")
    sent(admin, "/users/new", "/users/new", email="rob@example.org", name="Rob")
    sent(admin, "/keys", "/keys", name="the sync")
    assert not wrong, "\n".join(wrong)


def test_a_key_is_copied_with_one_click(visits: Visits) -> None:
    context = visits.context("admin")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto("/keys")
    page.get_by_label("Name of the machine").fill("nightly sync")
    page.get_by_label("Name of the machine").press("Enter")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.get_by_label("Key", exact=True).input_value()
