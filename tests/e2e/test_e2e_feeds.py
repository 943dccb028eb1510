"""Feeds and listings in a real browser: looked at, imported, watched, and changed by two people at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from browser_rig import Shop

from shelver.service.jobs.leases import claim, finish
from shelver.service.jobs.workplace import open_workplace
from shelver.worker.attempt import Attempt
from shelver.worker.importing import import_products

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]
FEED = b"sku,name,where\nF1,Chair of the feed,\n<img src=x onerror=alert(1)>,<script>alert(1)</script>,\nF3,,\n"


def work(shop: Shop) -> None:
    """The job that waits, done by a worker of this process."""
    with open_workplace(migrated=True, data=shop.settings.data) as place:
        lease = claim(place.database, worker="test", lease_s=60)
        assert lease is not None
        finish(place.database, lease, import_products(Attempt(place, lease)))


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_feed_is_looked_at_imported_and_watched(shop: Shop, visit: Visit, scripts: bool) -> None:
    page = visit("seller", "/feeds", java_script_enabled=scripts)
    name = f"spring-{scripts}.csv".lower()
    feed = FEED.replace(b"F1", b"F1-" + name.encode())
    page.get_by_label("File").set_input_files({"name": name, "mimeType": "text/csv", "buffer": feed})
    page.get_by_role("button", name="Upload and look at it").click()
    page.wait_for_url("**/feeds/uploads/*")
    assert page.get_by_text("<script>alert(1)</script>").is_visible()
    page.get_by_label("Replace what the feed says; what it does not say stays").check()
    page.get_by_role("button", name="Import").click()
    page.wait_for_url("**/feeds/jobs/*")
    assert page.locator("[data-job-state]").inner_text() == "Waiting"
    work(shop)
    if not scripts:
        page.reload()
    # With scripts the page tells by itself that all is done.
    page.get_by_role("link", name="See your listings").wait_for()
    assert page.locator("[data-job-count=rows]").inner_text() == "3"
    assert page.locator("[data-job-count=rejected]").inner_text() == "1"
    assert page.get_by_role("cell", name="neither a text nor a picture").count() == 1
    page.get_by_role("link", name="See your listings").click()
    assert page.get_by_role("link", name="Chair of the feed").first.is_visible()


def test_who_is_overtaken_sees_both_and_saves_again(shop: Shop, visit: Visit) -> None:
    made = shop.ask("seller", "POST", "/v1/products", {"title": "first", "brand": "Lido"})
    page = visit("seller", f"/listings/{made['id']}")
    page.get_by_label("Title").fill("mine")
    shop.ask("seller", "PUT", f"/v1/products/{made['id']}", {"title": "theirs"})
    page.get_by_role("button", name="Save").click()
    assert page.get_by_text("Somebody changed this listing while you did.").is_visible()
    assert page.get_by_label("Title").input_value() == "mine"
    assert page.locator("dd", has_text="theirs").is_visible()
    page.get_by_label("Title").press("Enter")
    page.wait_for_url("**done=listing-saved")
    assert shop.ask("seller", "GET", f"/v1/products/{made['id']}")["title"] == "mine"
