"""A shop that really serves, and a real browser that looks at it and tells of everything that is not in order.

Chromium comes from the system (Debian's package), Playwright and axe from their packages. Where one is missing the
tests skip, with `CI=true` they fail. Each module has a browser of its own: an open one keeps an event loop in the
main thread, which others must not find there.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import KINDS, PARTS, SMALL, drawn
from server_rig import Asker, serving

from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import Catalog
from shelver.images import ImageSpec
from shelver.service.accounts.identity import Role
from shelver.service.accounts.passwords import Passwords
from shelver.service.accounts.secret import database_url
from shelver.service.accounts.tokens import KEY_PREFIX, hash_of, random_token
from shelver.service.db import migrate, open_database
from shelver.service.tables.accounts import ApiKey, User
from shelver.settings import ServiceSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, Response

CHROMIUM: Final = os.environ.get("SHELVER_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
WAIT_MS: Final = 15_000
"""For what a page does by itself, on a busy machine."""
PASSWORD: Final = "a long enough password"
PEOPLE: Final[dict[Role, str]] = {"seller": "Sue Seller", "reviewer": "Rita Reviewer", "admin": "Ada Admin"}
CATALOG: Final = "tiny"
_TELL_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("security policy:", event.violatedDirective, event.blockedURI, event.sourceFile));
"""
# Words that the browser finds for an answer of 400 and more: a test that provokes one reads the answer itself.
_REFUSED: Final = "Failed to load resource: the server responded with a status of 4"


@dataclass(eq=False)
class Shop:
    """A service that runs, with a person and a key for each role.

    Attributes:
        port: on this machine.
        settings: its own.
        keys: API keys by role.
    """

    port: int
    settings: ServiceSettings
    keys: dict[Role, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def email(self, role: Role) -> str:
        return f"{role}@example.org"

    def ask(self, role: Role, method: str, path: str, body: Any = None) -> Any:
        """What the API answers somebody; a refusal fails the test."""
        asker = Asker(self.port, self.keys[role])
        try:
            status, answer = asker.ask(method, path, body)
        finally:
            asker.close()
        assert status < 400, answer
        return answer


@pytest.fixture(scope="session")
def shop_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 products with titles, pictures for two thirds of them, and a shade for each that its title tells."""
    rows = []
    for i in range(150):
        category, (words, colour) = list(KINDS.items())[i % 5]
        shade = ("plain", "striped", "dotted")[i // 5 % 3]
        rows.append(
            {
                "product_id": f"p{i}",
                "title": f"{shade} {words} no. {i * 7919 % 1000}",
                "image": drawn(colour, i) if i % 3 else None,
                "category": category,
                "pattern": shade,
                "split": PARTS[i // 15 % 5],
            }
        )
    folder = tmp_path_factory.mktemp("shop")
    pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    ingest(folder / "feed.parquet", folder / CATALOG, mapping=Mapping(attributes={"pattern": "pattern"}))
    return folder / CATALOG


@pytest.fixture(scope="session")
def shop_model(shop_catalog: Path, embeddings_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts, pictures and an attribute."""
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    seen = {"text_encoder": "ngram", "image_encoder": "colour", "image": ImageSpec(height_px=32, width_px=32)}
    folder = tmp_path_factory.mktemp("shop-model") / "model"
    config = TrainConfig.model_validate({**seen, **SMALL})
    train(Catalog.open(shop_catalog), folder, config, cache=embeddings_cache, say=lambda line: None)
    return folder


@contextmanager
def open_shop(data: Path, model: Path, catalog: Path, **changes: Any) -> Iterator[Shop]:
    """A shop in a process of its own; keywords change its settings."""
    small: dict[str, Any] = {
        "threads": 1,
        "password_kib": 8,
        "password_passes": 1,
        "sign_ins_per_minute": 1000,
        "examples": CATALOG,
        "review_below": 1.0,  # whatever is asked comes to the reviewers
    }
    settings = ServiceSettings(model=model, data=data, **{**small, **changes})
    shutil.copytree(catalog, data / "catalogs" / CATALOG)
    keys: dict[Role, str] = {}
    passwords = Passwords(characters=10, kib=8, passes=1)
    with open_database(database_url(settings)) as database:
        migrate(database.engine)
        with database.writing() as session:
            for role, name in PEOPLE.items():
                keys[role] = random_token(KEY_PREFIX)
                user = User(
                    name=name, role=role, email=f"{role}@example.org", password_hash=passwords.hash(PASSWORD)
                )
                session.add(user)
                session.flush()
                session.add(ApiKey(user_id=user.id, hash=hash_of(keys[role]), hint=keys[role][:8]))
    passwords.close()
    with serving(settings) as server:
        yield Shop(server.port, settings, keys)
        failed = [line for line in server.lines() if line.get("event") == "unexpected error"]
        assert not failed, "\n".join(
            f"{line.get('error')}: {str(line.get('exception'))[-1000:]}" for line in failed
        )


@pytest.fixture(scope="module")
def shop(shop_model: Path, shop_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop of a module."""
    with open_shop(tmp_path_factory.mktemp("serving") / "data", shop_model, shop_catalog) as opened:
        yield opened


def missing(what: str) -> NoReturn:
    """Skip, or fail where everything ought to be there."""
    reason = f"{what} is missing: apt-get install chromium, pip install -e .[dev]"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    if find_spec("playwright") is None:
        missing("Playwright")
    if not Path(CHROMIUM).is_file():
        missing("Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield launched(playwright)


def launched(playwright: Playwright) -> Browser:
    """A browser; its sandbox needs a user that is not root."""
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)


@dataclass(eq=False)
class Visits:
    """Browsers of people, each with cookies of its own, and what was not in order in any of them.

    Attributes:
        shop: that is visited.
        browser: opens them.
        troubles: errors on the console, of scripts and of the security policy, and requests to other hosts.
        signed_in: what a browser keeps of each role's sign-in.
    """

    shop: Shop
    browser: Browser
    signed_in: dict[Role, Any]
    troubles: list[str] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def context(self, role: Role | None, **options: Any) -> BrowserContext:
        """A browser where somebody has signed in, or nobody; keywords as Playwright's `new_context`."""
        if role is not None and role not in self.signed_in:
            self.signed_in[role] = self._sign_in(role)
        state = self.signed_in[role] if role is not None else None
        context = self.browser.new_context(base_url=self.shop.url, storage_state=state, **options)
        self._open.callback(context.close)
        context.set_default_timeout(WAIT_MS)
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.troubles.append(f"script: {error.error}"))
        context.on("request", self._request)
        context.on("response", self._response)
        return context

    def page(self, role: Role | None, path: str = "", **options: Any) -> Page:
        """A page of such a browser."""
        page = self.context(role, **options).new_page()
        if path:
            page.goto(path)
        return page

    def close(self) -> None:
        """Close all."""
        self._open.close()

    def _sign_in(self, role: Role) -> Any:
        page = self.page(None, "/sign-in")
        page.fill("[name=email]", self.shop.email(role))
        page.fill("[name=password]", PASSWORD)
        page.press("[name=password]", "Enter")
        page.wait_for_url(lambda url: "sign-in" not in url)
        return page.context.storage_state()

    def _console(self, said: ConsoleMessage) -> None:
        if said.type == "error" and not said.text.startswith(_REFUSED):
            self.troubles.append(f"console: {said.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.shop.url}/", "data:", "blob:")):
            self.troubles.append(f"request: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.troubles.append(f"response: {response.status} {response.url}")


@pytest.fixture(scope="module")
def signed_in_states() -> dict[Role, Any]:
    """What browsers keep of sign-ins, so that each role signs in once a module."""
    return {}


@pytest.fixture
def visits(shop: Shop, chromium: Browser, signed_in_states: dict[Role, Any]) -> Iterator[Visits]:
    """Browsers of a test. Whatever was not in order in one of them fails it."""
    made = Visits(shop, chromium, signed_in_states)
    yield made
    made.close()
    assert not made.troubles, "\n".join(dict.fromkeys(made.troubles))


@pytest.fixture
def visit(visits: Visits) -> Callable[..., Page]:
    """Opens a page: `visit("seller", "/sell", java_script_enabled=False)`."""
    return visits.page


def axe_script() -> str:
    """The source of axe, as its package brings it."""
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        missing("axe-playwright-python")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, script: str) -> list[str]:
    """What axe finds wrong with a page: rule, place and what to do."""
    page.evaluate(f"() => {{ if (!window.axe) {{ {script} }} }}")
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}".replace("\n", " ")
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def in_base64(data: bytes) -> str:
    """As the API takes a picture."""
    return base64.b64encode(data).decode()
