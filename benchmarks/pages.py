"""How soon suggestions follow the last keystroke on /sell, and how soon a node is found, in a real browser.

    python -m benchmarks.pages MODEL CATALOG [--products 60] [--json FILE]

A service of its own answers from MODEL. Titles and pictures of CATALOG's test part are typed into /sell, key by
key with 40, 80 or 150 ms between, and dropped; measured in the page, from the last event of the field to the first
frame after the new suggestions stand there. `with a picture` types beside one that is there already. The search
asks /v1/taxonomy/search from the page for the first letters of names of the tree.

It needs Chromium and the package playwright, as tests/e2e does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.machine import facts
from shelver.catalog.store import Catalog
from shelver.errors import InputError, ShelverError
from shelver.product import Product

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"
PAUSES_MS: Final = (40, 80, 150)
SETTLED_MS: Final = 1_500
WATCH: Final = """() => {
  window.typed = 0;
  window.seen = [];
  const began = () => { window.typed = performance.now(); };
  document.getElementById("f-title").addEventListener("input", began);
  document.getElementById("f-pictures").addEventListener("change", began, true);
  let last = document.getElementById("suggestions").dataset.prediction;
  new MutationObserver(() => {
    const now = document.getElementById("suggestions")?.dataset.prediction;
    if (!now || now === last) return;
    last = now;
    requestAnimationFrame(() => window.seen.push(performance.now() - window.typed));
  }).observe(document.getElementById("sell"), { subtree: true, childList: true });
}"""
SEARCH: Final = """async (asked) => {
  const began = performance.now();
  const answer = await fetch(`/v1/taxonomy/search?${new URLSearchParams({ q: asked, n: 20 })}`);
  await answer.json();
  return performance.now() - began;
}"""

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--products", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="the rows")
    call = parser.parse_args(arguments)
    known = facts(1)
    products = drawn(Catalog.open(call.catalog), call.products, call.seed)
    with opened(call.model) as page:
        rows = list(measured(page, products, call.seed))
    for row in rows:
        print(json.dumps(row))
    if call.json is not None:
        call.json.write_text(json.dumps([{**row, **known} for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def measured(page: Page, products: Sequence[Product], seed: int) -> Iterator[Row]:
    """A row for each way of asking."""
    rng = np.random.default_rng(seed)
    pauses = rng.choice(PAUSES_MS, len(products)).tolist()
    yield row_of("text", [typed(page, p, pause) for p, pause in zip(products, pauses, strict=True)])
    yield row_of("picture", [dropped(page, p) for p in products])
    yield row_of(
        "with a picture",
        [typed(page, p, pause, beside=True) for p, pause in zip(products[:20], pauses, strict=False)],
    )
    names = page.evaluate("async () => (await (await fetch('/v1/taxonomy')).json()).roots.map((one) => one.name)")
    words = sorted({word for p in products for word in (p.title or "").split()} | {*names})
    asked = [word[: 2 + n % 5] for n, word in enumerate(words)][:200]
    yield row_of("search of the tree", [page.evaluate(SEARCH, one) for one in asked])


def typed(page: Page, product: Product, pause_ms: int, *, beside: bool = False) -> float:
    """Milliseconds from the last key to the suggestions for the whole title."""
    page.goto("/sell")
    if beside:
        put(page, product)
        page.wait_for_selector("#suggestions input[name=node_id]", state="attached")
    page.evaluate(WATCH)
    page.locator("#f-title").press_sequentially(product.title or "", delay=pause_ms)
    return last_seen(page)


def dropped(page: Page, product: Product) -> float:
    """Milliseconds from a picture's choice to its suggestions."""
    page.goto("/sell")
    page.evaluate(WATCH)
    put(page, product)
    return last_seen(page)


def put(page: Page, product: Product) -> None:
    """Choose a product's picture."""
    page.set_input_files("#f-pictures", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": product.images[0]})


def last_seen(page: Page) -> float:
    """Of the answers, the one that came last."""
    page.wait_for_timeout(SETTLED_MS)
    seen: list[float] = page.evaluate("window.seen")
    return seen[-1] if seen else float("inf")


def row_of(what: str, found_ms: Sequence[float]) -> Row:
    """How long it took."""
    p50, p95, most = np.percentile(found_ms, [50, 95, 100], method="higher").tolist()
    return {
        "what": what,
        "n": len(found_ms),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "max_ms": round(most, 1),
    }


def drawn(catalog: Catalog, n: int, seed: int) -> list[Product]:
    """Products of the test part with a title and a picture."""
    found: list[Product] = []
    for products in catalog.products("test", images=True, batch_rows=256):
        found += [product for product in products if product.title and product.images]
    rng = np.random.default_rng(seed)
    return [found[i] for i in rng.permutation(len(found))[:n]]


@contextmanager
def opened(model: Path) -> Iterator[Page]:
    """A page of somebody who has signed in at a service of this model."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with serving(model) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(base_url=url)
        page.goto("/register")
        page.fill("[name=name]", "Sue Seller")
        page.fill("[name=email]", "seller@example.org")
        page.fill("[name=password]", "a long enough password")
        page.press("[name=password]", "Enter")
        page.wait_for_url(lambda url: "/register" not in url)
        yield page
        browser.close()


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """The address of a new service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "shelver", "serve", "--model", str(model), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SHELVER_SERVICE_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*call, "--data", folder], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            await_ready(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers."""
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with suppress(OSError):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        connection.close()
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise InputError(
        "a service that did not start",
        allowed="a model folder that `shelver serve` can open",
        remedy="Run `shelver serve --model MODEL` by hand, and see what it says.",
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
