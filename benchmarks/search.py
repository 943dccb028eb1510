"""How fast nodes of a large tree are found as somebody types: bare, and over HTTP with a key.

Takes about a minute: it trains a tiny model on Shopify's tree of 10,595 nodes, starts the service with it and with
French names beside the English ones, and asks for the beginnings of names, letter by letter, in both languages;
every tenth one has a letter wrong. `python -m benchmarks.search --taxonomies FOLDER`, where FOLDER has Shopify's
`en.categories.txt` and `fr.categories.txt`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np

from benchmarks.machine import facts
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.service.models.search import NAMES, Search
from shelver.taxonomy import Taxonomy
from shelver.taxonomy.shopify import read_shopify

N_QUERIES: Final = 2000
N_PRODUCTS: Final = 400
_SERVER: Final = """
import sys
from pathlib import Path
from benchmarks.load_servers import ours
run, key = ours(Path(sys.argv[1]), Path(sys.argv[2]), 1)
print(key, flush=True)
run(int(sys.argv[3]))
"""


def tiny_model(tree: Taxonomy, folder: Path) -> Path:
    """A model on a tree that has learned next to nothing; the search needs no more."""
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    rng = random.Random(1)
    leaves = rng.sample(tree.leaves.tolist(), N_PRODUCTS)
    rows = [
        {"product_id": str(i), "title": tree.names[k], "category": tree.ids[k]} for i, k in enumerate(leaves * 2)
    ]
    feed = folder / "feed.jsonl"
    feed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ingest(feed, folder / "catalog", taxonomy=tree)
    config = TrainConfig.model_validate(
        {"text_encoder": "ngram", "image_encoder": "none", "text_width": 16, "hidden": 16, "epochs": 1, "folds": 0}
    )
    catalog = Catalog.open(folder / "catalog")
    train(catalog, folder / "model", config, cache=folder / "cache", say=lambda _line: None)
    return folder / "model"


def queries(trees: list[Taxonomy], n: int) -> list[str]:
    """What somebody types who looks for a node: its name up to some letter; every tenth has one letter wrong."""
    rng = random.Random(7)
    found = []
    for i in range(n):
        tree = rng.choice(trees)
        name = rng.choice(tree.names)
        typed = name[: rng.randint(2, max(3, len(name)))]
        if i % 10 == 0 and len(typed) > 4:
            at = rng.randrange(1, len(typed))
            typed = typed[:at] + rng.choice("aeinrst") + typed[at + 1 :]
        found.append(typed)
    return found


def timed(ask: Callable[[str], Any], asked: list[str]) -> dict[str, float]:
    """Milliseconds of a query."""
    for query in asked[:50]:
        ask(query)
    ms = []
    for query in asked:
        begin = time.perf_counter()
        ask(query)
        ms.append(1000 * (time.perf_counter() - begin))
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    return {
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "most_ms": round(max(ms), 2),
    }


def over_http(model: Path, data: Path, asked: list[str]) -> dict[str, float]:
    """The same with a server of its own between."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", _SERVER, str(model), str(data), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            headers = {"X-API-Key": server.stdout.readline().strip()}
            _await(port)
            connection = http.client.HTTPConnection("127.0.0.1", port)

            def ask(query: str) -> None:
                connection.request("GET", f"/v1/taxonomy/search?{urlencode({'q': query})}", headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, body

            return timed(ask, asked)
        finally:
            server.terminate()


def _await(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--taxonomies", type=Path, required=True, help="folder of en.categories.txt and its French"
    )
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    english, french = (read_shopify(given.taxonomies / f"{name}.categories.txt") for name in ("en", "fr"))
    asked = queries([english, french], N_QUERIES)
    begin = time.perf_counter()
    search = Search(english, [french])
    search("warm up qzqzq", 20)
    made_s = time.perf_counter() - begin
    rows = {"bare": timed(lambda query: search(query, 20), asked)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / NAMES).mkdir(parents=True)
        shutil.copy(given.taxonomies / "fr.categories.txt", folder / "data" / NAMES / "fr.txt")
        model = tiny_model(english, folder)
        rows["over HTTP"] = over_http(model, folder / "data", asked)
    found = sum(bool(search(query, 20)) for query in asked) / len(asked)
    facts_ = {
        "n_nodes": english.n_nodes,
        "n_queries": len(asked),
        "found": round(found, 3),
        "made_s": round(made_s, 2),
    }
    print(json.dumps({**rows, **facts_, **facts(1)}, indent=2))


if __name__ == "__main__":
    main()
