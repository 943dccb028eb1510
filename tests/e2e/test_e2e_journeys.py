"""What people come for, from the first click to what the service has stored afterwards, in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from browser_rig import CATALOG, WAIT_MS, Shop
from conftest import drawn

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page, Route

Visit = Callable[..., "Page"]
RED: Final = (200, 20, 20)
BAR: Final = "Home > Chairs > Bar"
SCRIPTS: Final = pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])


@pytest.fixture
def red_picture(tmp_path: Path) -> Path:
    path = tmp_path / "stool.png"
    path.write_bytes(drawn(RED, 3))
    return path


def listed(shop: Shop, page: Page) -> dict[str, Any]:
    """The product that was saved a moment ago."""
    page.wait_for_url("**/sell?listed=*")
    link = page.locator(".notice.good a[href^='/listings/']")
    product: dict[str, Any] = shop.ask(
        "seller", "GET", f"/v1/products/{(link.get_attribute('href') or '').rsplit('/', 1)[-1]}"
    )
    return product


def suggestions(page: Page) -> list[str]:
    """The paths that are offered, when the answer is there."""
    page.wait_for_selector("#suggestions input[name=node_id]", state="attached")
    choices = page.locator("#suggestions .sell-choice")
    return [" > ".join(choices.nth(i).locator(".crumbs span").all_inner_texts()) for i in range(choices.count())]


@SCRIPTS
def test_a_seller_lists_a_product_from_its_text_alone(shop: Shop, visit: Visit, scripts: bool) -> None:
    page = visit("seller", "/sell", java_script_enabled=scripts)
    title = f"striped bar stool for the counter, {scripts}"
    if scripts:
        page.locator("#f-title").press_sequentially(title, delay=5)
    else:
        page.fill("#f-title", title)
        page.get_by_role("button", name="Suggest").click()
    assert suggestions(page)[0] == BAR
    mark = page.locator("#why mark").first
    mark.wait_for()
    assert mark.inner_text() in title, "it says why"
    page.locator("[data-save]").click()  # the first interaction after typing, and the last
    product = listed(shop, page)
    assert (product["title"], product["path"]) == (title, BAR)
    assert product["attributes"] == {"pattern": ["striped"]}


@SCRIPTS
def test_a_seller_lists_a_product_from_its_picture_alone(
    shop: Shop, visit: Visit, scripts: bool, red_picture: Path
) -> None:
    page = visit("seller", "/sell", java_script_enabled=scripts)
    page.set_input_files("#f-pictures", red_picture)
    if not scripts:
        page.get_by_role("button", name="Suggest").click()
    assert suggestions(page)[0] == BAR
    shown = page.locator(".sell-picture img").first
    shown.wait_for()
    assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") == 30, (
        "the preview" if scripts else None
    )
    page.locator("[data-save]").click()
    product = listed(shop, page)
    assert (product["title"], product["path"], len(product["pictures"])) == (None, BAR, 1)


@SCRIPTS
def test_a_seller_corrects_a_suggestion_through_the_search(shop: Shop, visit: Visit, scripts: bool) -> None:
    page = visit("seller", "/sell", java_script_enabled=scripts)
    page.fill("#f-title", f"dotted bar stool, {scripts}")
    if not scripts:
        page.get_by_role("button", name="Suggest").click()
    assert suggestions(page)[0] == BAR
    page.locator("#other summary").click()
    page.locator("#node_id-q").press_sequentially("cars", delay=5)
    if scripts:
        page.get_by_role("option", name="Cars").first.wait_for()
        page.keyboard.press("Enter")
    else:
        page.locator("[data-picker-plain]").click()
        page.locator(".picker-found input").first.check()
    page.locator("[data-save]").click()
    product = listed(shop, page)
    assert product["path"] == "Toys > Cars"
    latest = shop.ask("admin", "GET", "/v1/feedback?limit=1")["items"][0]
    assert (latest["action"], latest["node_after"]) == ("correct", product["node_id"])


def test_what_is_typed_is_not_lost_without_a_word(shop: Shop, visit: Visit) -> None:
    page = visit("seller", "/sell")
    page.locator("#f-title").fill("t" * 999)
    page.keyboard.type("tt")
    page.get_by_text("At most 1,000 characters: what is more is left out.").wait_for()
    page.fill("#f-title", "a bar stool that stays")
    assert page.locator("[data-told-full]").count() == 0
    assert suggestions(page)[0] == BAR
    cookies = page.context.cookies()
    page.context.clear_cookies()
    page.locator("[data-save]").click()
    page.get_by_text("You are no longer signed in.").first.wait_for()
    assert page.input_value("#f-title") == "a bar stool that stays"
    page.context.add_cookies(cookies)  # type: ignore[arg-type] # as another tab does it
    page.locator("[data-save]").click()
    assert listed(shop, page)["title"] == "a bar stool that stays"


def test_a_reviewer_decides_ten_products_by_keyboard_alone(shop: Shop, visit: Visit) -> None:
    for number in range(11):
        said = {"title": f"dotted racing car, small no. {number}", "product_id": f"car-{number}"}
        shop.ask("seller", "POST", "/v1/predict", said)
    page = visit("reviewer", "/review")
    keys = page.keyboard
    page.locator("#review[data-keys=on]").wait_for()
    keys.press("Enter")  # begin
    seen: list[str] = []
    for number in range(10):
        card = page.locator("article[data-card]:not([hidden])")
        card.wait_for()
        seen.append(str(card.get_attribute("data-card")))
        if number == 3:
            keys.press("x")  # no category is right
        elif number == 5:
            keys.press("c")
            keys.type("cars", delay=5)
            card.locator("[role=option]").first.wait_for()
            keys.press("Enter")
            keys.press("Enter")
        elif number == 7:
            keys.press("2")
            keys.press("2")
        else:
            keys.press("Enter")
        page.locator(f"article[data-card='{seen[-1]}']:not([hidden])").wait_for(state="detached")
    page.locator("[data-part=counts]", has_text="10 decided today").wait_for()
    assert len(set(seen)) == 10
    judged = {one: shop.ask("reviewer", "GET", f"/v1/predictions/{one}/feedback") for one in seen}
    actions = [of[-1]["action"] if of else None for of in judged.values()]
    assert None not in actions
    assert actions.count("reject") == 1
    assert actions.index("reject") == 3
    assert actions[5] == "accept", "the search found the same place"
    assert actions[7] == "correct"
    keys.press("u")
    page.locator("#review-said .notice").first.wait_for()


def test_a_reviewer_who_leaves_before_all_is_sent_is_asked_first(shop: Shop, visit: Visit) -> None:
    for number in range(2):
        shop.ask(
            "seller", "POST", "/v1/predict", {"title": f"red vase no. {number}", "product_id": f"late-{number}"}
        )
    page = visit("reviewer", "/review")
    if page.locator("article[data-card]").count() == 0:
        page.locator("[data-does=confirm]").click()
    page.locator("article[data-card]:not([hidden])").wait_for()
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    waiting: list[Route] = []
    page.route("**/review/decide*", lambda route: waiting.append(route))
    page.locator("#review[data-keys=on]").wait_for()
    page.keyboard.press("s")
    while not waiting:
        page.wait_for_timeout(20)
    page.close(run_before_unload=True)
    while not asked:
        page.wait_for_timeout(20)
    assert asked == ["beforeunload"]
    waiting[0].continue_()
    page.locator("#review-said .notice").first.wait_for()
    page.close(run_before_unload=True)
    if not page.is_closed():
        page.wait_for_event("close")
    assert asked == ["beforeunload"], "nothing is left to be sent"


@contextmanager
def working(shop: Shop) -> Iterator[None]:
    """A worker of the shop, as `shelver worker` starts it."""
    call = [sys.executable, "-m", "shelver", "worker", "--data", str(shop.settings.data)]
    small = {"OMP_NUM_THREADS": "1", "SHELVER_SERVICE_THREADS": "1"}
    with subprocess.Popen(call, env={**os.environ, **small}, start_new_session=True) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def test_an_administrator_trains_promotes_and_rolls_back(shop: Shop, visit: Visit) -> None:
    def champion() -> str:
        answered: str = shop.ask("seller", "POST", "/v1/predict", {"title": "bar stool"})["versions"]["model"]
        return answered

    first = champion()
    page = visit("admin", "/models")
    page.get_by_role("link", name="Start a training").first.click()
    page.select_option("#f-catalog", CATALOG)
    page.select_option("#f-text_encoder", "ngram")
    page.select_option("#f-image_encoder", "none")
    page.fill("[name=epochs]", "2")
    page.get_by_role("button", name="Start the training").click()
    page.wait_for_url("**/jobs/*")
    state = page.locator("[data-job-state]").first
    assert state.inner_text() == "Waiting"
    page.evaluate("document.body.dataset.kept = 'this very page'")
    with working(shop):
        page.locator("[data-job-state]", has_text="At work").first.wait_for(timeout=60_000)
        assert page.evaluate("document.body.dataset.kept") == "this very page", "it is followed live"
        page.get_by_role("link", name="To the model").wait_for(timeout=120_000)
    page.get_by_role("link", name="To the model").click()
    page.wait_for_url("**/models/*")
    second = page.url.rsplit("/", 1)[-1]
    page.locator("a[href$='/promote']").first.click()
    page.get_by_role("button", name="Let it answer").click()
    page.wait_for_url(lambda url: not url.endswith("/promote"))
    assert champion() == second != first
    page.goto("/models")
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_url(lambda url: "rollback" not in url)
    assert champion() == first


@SCRIPTS
def test_an_administrator_changes_a_policy(shop: Shop, visit: Visit, scripts: bool) -> None:
    for number in range(40):
        wrong = number % 4 == 0
        said = {"title": "something else" if wrong else f"striped bar stool no. {number}"}
        answer = shop.ask("seller", "POST", "/v1/predict", said)
        action = "reject" if wrong else "accept"
        shop.ask("seller", "POST", f"/v1/predictions/{answer['prediction_id']}/feedback", {"action": action})
    page = visit("admin", "/policies/default", java_script_enabled=scripts)
    before = shop.ask("admin", "GET", "/v1/policies/default")["policy"]["thresholds"]
    target = page.locator("#target")
    shown = page.locator("#summary").inner_text()
    for _ in range(2):
        target.press("ArrowRight")
    if scripts:
        until = WAIT_MS // 50
        while page.locator("#summary").inner_text() == shown and until:
            page.wait_for_timeout(50)
            until -= 1
    else:
        page.get_by_role("button", name="Show what follows").click()
    assert page.locator("#summary").inner_text() != shown
    page.locator("#save-form [name=sure]").check()
    page.get_by_role("button", name="Save the policy").click()
    page.locator(".notice.good, .notice[role=status]").first.wait_for()
    assert shop.ask("admin", "GET", "/v1/policies/default")["policy"]["thresholds"] != before
    page.get_by_role("button", name="Back to the model’s own").click()
    page.wait_for_load_state()
    assert shop.ask("admin", "GET", "/v1/policies/default")["policy"]["thresholds"] == before
