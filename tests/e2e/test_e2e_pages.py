"""Every page in a real browser: axe finds nothing, in both themes and languages, and nothing is reported.

What people write is shown as they wrote it: 120 payloads stand in titles, descriptions, file names and notes of
this shop, and on no page does one become more than text.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
from browser_rig import PEOPLE, Shop, Visits, axe_script, in_base64, violations
from conftest import drawn
from fastapi.routing import APIRoute, iter_route_contexts
from hostile_texts import PAYLOADS

from shelver.service.accounts.identity import Role
from shelver.service.app import create_app
from shelver.settings import ServiceSettings

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[..., "Page"]
RED: Final = (200, 20, 20)
NO_PAGES: Final = {
    "/",  # leads on
    "/docs",  # holds itself to more in tests/service/test_service_documentation.py
    "/docs/style.css",
    "/openapi.json",
    "/static/{name}",
    "/sign-in/openid",  # lead to an issuer, which this shop has not
    "/sign-in/openid/start",
    "/account/data",  # downloads
    "/feeds/jobs/{job_id}/rejected.csv",
    "/sell/draft",  # a picture
}


@dataclass(frozen=True)
class Furnished:
    """A shop in which something has happened, and where to find it.

    Attributes:
        shop: itself.
        ids: by the name of a path's parameter.
    """

    shop: Shop
    ids: dict[str, str]


def upload(shop: Shop, name: str, feed: bytes) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=60)
    headers = {"Authorization": f"Bearer {shop.keys['seller']}", "Content-Type": "application/octet-stream"}
    connection.request("POST", f"/v1/uploads?name={quote(name, safe='')}", feed, headers)
    answer = connection.getresponse()
    said = answer.read().decode()
    connection.close()
    assert answer.status == 201, said
    return str(json.loads(said)["id"])


@pytest.fixture(scope="module")
def furnished(shop: Shop) -> Furnished:
    """Payloads as titles, descriptions, brands, own ids, file names and notes; some of it waits for reviewers."""
    payloads = iter(PAYLOADS)
    product: dict[str, Any] = {}
    picture = in_base64(drawn(RED, 1))
    for number in range(0, len(PAYLOADS), 4):
        body = {"title": next(payloads), "description": next(payloads), "brand": next(payloads)[:255]}
        body |= {"seller_product_id": next(payloads)[:60]} if number % 8 else {}
        product = shop.ask("seller", "POST", "/v1/products", body)
    shop.ask("seller", "POST", "/v1/products", {"title": "bar stool", "pictures": [{"base64": picture}]})
    prediction = ""
    for payload in PAYLOADS[:12]:
        asked = {"title": f"bar stool {payload}", "category_hint": payload, "product_id": payload[:200]}
        prediction = shop.ask("seller", "POST", "/v1/predict", asked)["prediction_id"]
        shop.ask("seller", "POST", f"/v1/predictions/{prediction}/feedback", {"action": "reject", "note": payload})
    feed = "id;title;category\n" + "".join(f'{n};"{payload}";Toys\n' for n, payload in enumerate(PAYLOADS[:20]))
    uploaded = [upload(shop, payload.replace("/", " ")[:200], feed.encode()) for payload in PAYLOADS[40:43]]
    job = shop.ask("seller", "POST", "/v1/jobs", {"kind": "import_products", "upload_id": uploaded[0]})
    users = shop.ask("admin", "GET", "/v1/users")["items"]
    model = shop.ask("admin", "GET", "/v1/models")["models"][0]["model_version"]
    ids = {"product_id": product["id"], "prediction_id": prediction, "upload_id": uploaded[1], "job_id": job["id"]}
    return Furnished(shop, ids | {"user_id": users[0]["id"], "version": model, "name": "default"})


PAGES: Final[dict[Role | None, tuple[str, ...]]] = {
    None: ("/sign-in", "/register", "/forgot", "/reset", "/first-admin", "/nowhere"),
    "seller": (
        *("/sell", "/listings", "/listings?q=hit", "/listings/{product_id}", "/listings/{product_id}/delete"),
        *("/feeds", "/feeds/uploads/{upload_id}", "/feeds/jobs/{job_id}", "/log", "/log/{prediction_id}"),
        *("/account", "/account/delete", "/listings/nowhere"),
    ),
    "reviewer": (
        "/review",
        "/dashboard",
        "/dashboard/labelled",
        "/taxonomy",
        "/listings",
        "/listings/{product_id}",
    ),
    "admin": (
        *(
            "/dashboard",
            "/models",
            "/models/train",
            "/models/compare?version={version}&base={version}",
            "/models/rollback",
            "/models/{version}",
        ),
        *(
            "/models/{version}/promote",
            "/policies",
            "/policies?name=search&like=default",
            "/policies/{name}?target=90",
            "/jobs",
            "/jobs/{job_id}",
        ),
        *("/users", "/users/new", "/users/{user_id}", "/keys", "/audit"),
    ),
}
INTACT: Final = r"""() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const names = (one) => Element.prototype.getAttributeNames.call(one);
  const at = (one, name) => Element.prototype.getAttribute.call(one, name) ?? "";
  const leads = ["href", "xlink:href", "src", "action", "formaction"];
  return [
    ...(window.struck ? ["a script ran"] : []),
    ...all("#pwn, iframe, object, embed, base, style, [style], [srcdoc]"),
    ...all("script").filter((one) => !at(one, "src").startsWith("/static/")),
    ...all("a, area, form, button, use, img").filter((one) =>
      leads.some((name) => /^\s*(javascript|vbscript|data:text)/i.test(at(one, name)))),
    ...all("*").filter((one) => names(one).some((name) => name.startsWith("on"))),
  ].map((one) => one.outerHTML?.slice(0, 200) ?? one);
}"""


def test_every_page_is_looked_at(shop: Shop) -> None:
    app = create_app(ServiceSettings(model=shop.settings.model, data=shop.settings.data))
    there = {
        str(context.path_format)
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
        and not context.original_route.include_in_schema
        and "GET" in (context.methods or ())
    }
    assert there - NO_PAGES == {
        path.partition("?")[0] for paths in PAGES.values() for path in paths if "nowhere" not in path
    }


def looked_at(page: Page, script: str) -> list[str]:
    """What is wrong with the page that is open."""
    return violations(page, script) + [f"not only text: {found}" for found in page.evaluate(INTACT)]


@pytest.mark.parametrize("role", [None, *PEOPLE])
@pytest.mark.parametrize(("theme", "language"), [("light", "en-GB"), ("dark", "fr-FR")])
def test_axe_finds_nothing_and_what_people_wrote_is_only_text(
    visits: Visits, furnished: Furnished, role: Role | None, theme: str, language: str
) -> None:
    script = axe_script()
    wrong: list[str] = []
    context = visits.context(role, color_scheme=theme, locale=language)
    context.add_init_script("window.hit = () => { window.struck = true; };")
    page = context.new_page()
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    for path in PAGES[role]:
        page.goto(path.format_map(furnished.ids))
        assert page.locator("html").get_attribute("lang") == language[:2]
        wrong += [f"{path}: {found}" for found in looked_at(page, script)]
    if role == "reviewer":
        page.goto("/review")
        if not page.locator("[data-card]").count():
            page.locator("[data-part=hand] [data-does=confirm]").click()
            page.wait_for_selector("[data-card]", state="attached")
        for view in ("cards", "table"):
            page.goto(f"/review?view={view}")
            page.wait_for_selector("[data-card]", state="attached")
            wrong += [f"/review as {view}: {found}" for found in looked_at(page, script)]
    assert not wrong, "\n".join(wrong)
