"""Pictures of every page of the web application for docs/screens: light and dark, wide and phone.

    make screens        # or: python tests/e2e/screens.py --demo demo [--only dashboard,review]

A copy of the demo's shop is served (`shelver demo --serve` makes it, if need be), and Chromium looks at it, signed
in as its people. docs/screens/README.md shows all that there are.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screens"
MAX_BYTES: Final = 60_000
SIZES: Final = {"wide": (1280, 900, 1800), "phone": (390, 844, 2000)}
"""Width and height of the window, and how much of a long page is shown, in px."""
THEMES: Final = ("light", "dark")
START_S: Final = 900


@dataclass(frozen=True)
class Screen:
    """A page as it is shown.

    Attributes:
        name: of its files.
        about: a line for the index.
        role: who looks; None: nobody has signed in.
        path: its address, or what finds it.
        then: what is done on the page first.
        french: whether it is shown in French, too.
    """

    name: str
    about: str
    role: str | None
    path: str | Callable[[BrowserContext], str]
    then: Callable[[Page], None] | None = None
    french: bool = False


def first(listing: str, path: str, key: str = "id", **wanted: Any) -> Callable[[BrowserContext], str]:
    """The address of the first item of a list of the API for which all of `wanted` holds."""

    def found(context: BrowserContext) -> str:
        answer = context.request.get(listing).json()
        items = answer if isinstance(answer, list) else answer.get("items", answer.get("models"))
        chosen = next(item for item in items if all(fits(item[name], value) for name, value in wanted.items()))
        return path.format(chosen[key])

    return found


def fits(found: Any, value: Any) -> bool:
    """Whether a field is what is wanted; True wants anything."""
    return bool(found) if value is True else bool(found == value)


@cache
def a_product(url: str, cookies: str) -> dict[str, Any]:
    """An English example that the model is sure of, always the same one of a run."""
    for _ in range(60):
        drawn = asked(f"{url}/v1/examples/random", cookies)
        if not drawn["title"] or not drawn["image_base64"] or not drawn["title"].isascii():
            continue
        said = {"title": drawn["title"], "image_base64": drawn["image_base64"]}
        answer = asked(f"{url}/v1/predict", cookies, said)
        first_two = (answer["confidence"], answer["alternatives"][1]["confidence"])
        if first_two[0] > 0.7 and first_two[1] > 0.01 and not any(c.isdigit() for c in drawn["title"]):
            break
    found: dict[str, Any] = drawn
    return found


def asked(url: str, cookies: str, said: Any = None) -> Any:
    """What the service answers to a person's browser."""
    headers = {"Cookie": cookies, "Content-Type": "application/json", "Origin": url.split("/v1")[0]}
    body = None if said is None else json.dumps(said).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return json.load(answer)


def type_a_product(page: Page) -> None:
    """What a seller sees who has typed a title and chosen a picture."""
    url = page.url.split("/sell")[0]
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    drawn = a_product(url, cookies)
    picture = base64.b64decode(drawn["image_base64"])
    page.locator("#f-pictures").set_input_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": picture})
    page.locator("#f-title").press_sequentially(drawn["title"], delay=5)
    page.locator("#sell input[type=radio][name=node_id]").first.wait_for()
    page.wait_for_timeout(2500)


def begin_review(page: Page) -> None:
    """Claim the next products, where none are claimed yet."""
    begin = page.locator("[data-does=confirm]").first
    if page.locator("[data-card]").count() == 0:
        begin.click()
        page.locator("[data-card]").first.wait_for()
    page.wait_for_timeout(400)


def begin_table(page: Page) -> None:
    begin_review(page)
    page.get_by_role("link", name="Table").or_(page.get_by_role("button", name="Table")).first.click()
    page.wait_for_timeout(600)


def compared(context: BrowserContext) -> str:
    models = [one["model_version"] for one in context.request.get("/v1/models").json()["models"]]
    return "/models/compare?" + "&".join(f"version={version}" for version in models[:2])


def node(context: BrowserContext) -> str:
    found = context.request.get("/v1/taxonomy/search?q=Dresses").json()
    return f"/taxonomy?node={found['nodes'][0]['node_id']}"


SCREENS: Final = (
    Screen("sign-in", "Sign in", None, "/sign-in", french=True),
    Screen("register", "Register", None, "/register"),
    Screen("sell", "New listing: nothing yet", "seller", "/sell"),
    Screen(
        "sell-suggestions", "New listing: suggestions, and why", "seller", "/sell", type_a_product, french=True
    ),
    Screen("listings", "Listings", "seller", "/listings", french=True),
    Screen(
        "listing",
        "One listing",
        "seller",
        first("/v1/products?limit=200", "/listings/{}", pictures=True, prediction_id=True),
    ),
    Screen("feeds", "Feeds: upload one and watch it", "seller", "/feeds"),
    Screen("feed", "An import that has ended", "seller", first("/v1/jobs", "/feeds/jobs/{}", state="done")),
    Screen("log", "What the model said, and what was made of it", "seller", "/log"),
    Screen("log-entry", "One answer", "seller", first("/v1/predictions", "/log/{}")),
    Screen("account", "One's own account and data", "seller", "/account"),
    Screen("review-queue", "Review: what waits", "reviewer", "/review"),
    Screen("review", "Review: one product, decided by keyboard", "reviewer", "/review", begin_review, french=True),
    Screen("review-table", "Review: as a table", "reviewer", "/review", begin_table),
    Screen("dashboard", "Dashboard", "admin", "/dashboard", french=True),
    Screen("labelled", "Predicted against labelled categories", "admin", "/dashboard/labelled"),
    Screen("taxonomy", "Categories", "admin", "/taxonomy"),
    Screen("taxonomy-node", "One category, and what it is confused with", "admin", node),
    Screen("models", "Models", "admin", "/models"),
    Screen(
        "model", "One model", "admin", first("/v1/models", "/models/{}", "model_version", aliases=["champion"])
    ),
    Screen("models-compared", "Two models side by side", "admin", compared),
    Screen("train", "Start a training", "admin", "/models/train"),
    Screen("policies", "Policies", "admin", "/policies"),
    Screen("policy", "One policy: what a target would cover", "admin", "/policies/warehouse"),
    Screen("jobs", "Jobs", "admin", "/jobs"),
    Screen("job", "One job", "admin", first("/v1/jobs", "/jobs/{}", kind="evaluate")),
    Screen("users", "Users", "admin", "/users"),
    Screen("user", "One user", "admin", first("/v1/users", "/users/{}", role="reviewer")),
    Screen("keys", "Keys of machines", "admin", "/keys"),
    Screen("audit", "Audit", "admin", "/audit"),
    Screen("problem", "A page that is not there", "admin", "/listings/00000000000000000000000000000000"),
)


@contextmanager
def served(demo: Path) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """The address of a served copy of the demo, and its people by role."""
    folder = Path(tempfile.gettempdir()) / "shelver-screens"  # pages show it: always the same
    out = folder / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        if (demo / "service" / "demonstration").is_file():
            out.mkdir()
            shutil.copy(demo / ".shelver-demo", out)
            shutil.copytree(demo / "service", out / "service")
        elif (demo / "model").is_dir():
            shutil.copytree(demo, out)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "shelver", "demo", "--serve", "--new-passwords", "--json"]
        command += ["--out", str(out), "--port", str(port)]
        said = folder / "said.json"
        with said.open("wb") as stream, subprocess.Popen(command, stdout=stream) as process:
            try:
                wait_for(url, process)
                told = json.JSONDecoder().raw_decode(
                    said.read_text("utf-8"), said.read_text("utf-8").rindex('{\n  "url"')
                )
                yield url, {one["role"]: one for one in told[0]["people"]}
            finally:
                process.terminate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit("the demo does not start; see above")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the demo does not answer")


def settled(context: BrowserContext) -> None:
    """Wait until the demo's jobs have ended and its look-alikes are known."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        jobs = context.request.get("/v1/jobs").json()["items"]
        if all(job["state"] not in ("queued", "running") for job in jobs):
            return
        time.sleep(0.5)


def signed_in(browser: Browser, url: str, people: dict[str, dict[str, str]]) -> dict[str | None, Any]:
    """What a browser remembers of each person's sign-in."""
    states: dict[str | None, Any] = {None: None}
    for role, person in people.items():
        context = browser.new_context(base_url=url)
        page = context.new_page()
        page.goto("/sign-in")
        page.locator("input[name=email]").fill(person["email"])
        page.locator("input[name=password]").fill(person["password"])
        page.locator("main form button.primary, main form button[type=submit], main form button").first.click()
        page.wait_for_url(lambda address: "/sign-in" not in address)
        if role == "admin":
            settled(context)
        states[role] = context.storage_state()
        context.close()
    return states


def take(browser: Browser, url: str, state: Any, screen: Screen, size: str, theme: str, locale: str) -> Path:
    """One picture of one page."""
    width, height, most = SIZES[size]
    context = browser.new_context(
        base_url=url,
        storage_state=state,
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        locale=locale,
        timezone_id="Europe/Berlin",
        reduced_motion="reduce",
    )
    page = context.new_page()
    path = screen.path if isinstance(screen.path, str) else screen.path(context)
    page.goto(path)
    if screen.then is not None:
        screen.then(page)
    page.wait_for_timeout(500)
    shot = page.screenshot(full_page=True)
    context.close()
    name = f"{screen.name}-{size}-{theme}" + ("-fr" if locale.startswith("fr") else "")
    return write_small(shot, FOLDER / f"{name}.webp", most)


def write_small(shot: bytes, path: Path, most_px: int) -> Path:
    """Keep the upper part of a picture in at most MAX_BYTES: smaller, and then less of it, where it must be."""
    with Image.open(io.BytesIO(shot)) as image:
        shown = image.convert("RGB").crop((0, 0, image.width, min(image.height, most_px)))
    small = shown.resize((int(shown.width * 0.8), int(shown.height * 0.8)), Image.Resampling.LANCZOS)
    less = (small.crop((0, 0, small.width, small.height * part // 8)) for part in (7, 6, 5, 4))
    for one in (shown, small, *less):
        for quality in (82, 74, 64, 54):
            out = io.BytesIO()
            one.save(out, "WEBP", quality=quality, method=6)
            if out.tell() <= MAX_BYTES:
                path.write_bytes(out.getvalue())
                return path
    raise SystemExit(f"{path.name}: half of it does not fit into {MAX_BYTES:,} bytes")


def write_index() -> None:
    """README.md: every picture that there is."""
    lines = ["# What the pages look like", ""]
    lines += ["The demo's shop, six weeks old. Made by `make screens`; none of it is retouched.", ""]
    for screen in SCREENS:
        if not (FOLDER / f"{screen.name}-wide-light.webp").is_file():
            continue
        lines += [f"## {screen.about}", ""]
        for theme in THEMES:
            wide, phone = (f"{screen.name}-{size}-{theme}.webp" for size in ("wide", "phone"))
            lines.append(f'<img src="{wide}" width="70%" alt="{screen.about}, {theme}, wide">')
            lines.append(f'<img src="{phone}" width="22%" alt="{screen.about}, {theme}, on a phone">')
        if (FOLDER / f"{screen.name}-wide-light-fr.webp").is_file():
            lines.append(
                f'<img src="{screen.name}-wide-light-fr.webp" width="70%" alt="{screen.about}, in French">'
            )
        lines.append("")
    (FOLDER / "README.md").write_text("\n".join(lines), encoding="utf-8")


def main() -> int:
    """Take the pictures; the exit status."""
    asked = argparse.ArgumentParser(description="Pictures of every page.")
    asked.add_argument(
        "--demo", type=Path, default=Path("demo"), help="folder of a demo; it is copied, not changed"
    )
    asked.add_argument("--only", default="", help="names of screens, with commas between")
    asked.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    given = asked.parse_args()
    wanted = [screen for screen in SCREENS if not given.only or screen.name in given.only.split(",")]
    failed = []
    with served(given.demo) as (url, people), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        states = signed_in(browser, url, people)
        for screen in wanted:
            shots = [(size, theme, "en-GB") for size in SIZES for theme in THEMES]
            shots += [("wide", "light", "fr-FR")] if screen.french else []
            for size, theme, locale in shots:
                try:
                    path = take(browser, url, states[screen.role], screen, size, theme, locale)
                    print(f"{path.stat().st_size:7,} {path.name}", flush=True)
                except Exception as error:  # the others are wanted all the same
                    failed.append(f"{screen.name} {size} {theme}: {str(error).splitlines()[0]}")
                    print(failed[-1], flush=True)
        browser.close()
    write_index()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
