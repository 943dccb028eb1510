"""Models are swapped under load: nothing fails, every answer is that of the version it names, and it is quick."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from server_rig import Asker, Serving, key_for, serving
from service_rig import service_behind

from shelver.library import ModelStore
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import read_manifest
from shelver.service.models.champion import Models
from shelver.service.storage import open_store
from shelver.settings import ServiceSettings

LIVE_S: Final = 2.0
"""From the moment a promotion is asked for until the new model answers, on every server of the store."""
TITLES: Final = ("bar stool for the counter", "reading lamp with shade", "racing car, small", "folding deck chair")
PAUSE_S: Final = 0.01
GROWTH_BYTES: Final = 64 * 2**20
Right = Mapping[tuple[str, str], tuple[str | None, float | None]]


@dataclass
class Seen:
    """What callers saw."""

    statuses: dict[int, int] = field(default_factory=dict)
    wrong: list[Any] = field(default_factory=list)
    first: dict[tuple[int, str], float] = field(default_factory=dict)

    def forget(self) -> None:
        self.first.clear()


@pytest.fixture
def versions(trained: Callable[[str, str], Path]) -> dict[str, Path]:
    """Three models, by version."""
    folders = [trained(*encoders) for encoders in (("ngram", "none"), ("ngram", "lite0"), ("none", "colour"))]
    return {read_manifest(folder).model_version: folder for folder in folders}


def said_by(versions: Mapping[str, Path]) -> dict[tuple[str, str], tuple[str | None, float | None]]:
    """What each model answers, by version and title."""
    found = {}
    for version, folder in versions.items():
        classifier = Classifier.open(folder, threads=1)
        for title in TITLES:
            said = classifier([Product("", title=title)])[0]
            found[version, title] = said.node_id, said.confidence
    return found


def call(number: int, port: int, key: str, right: Right, seen: Seen, over: threading.Event) -> None:
    """Ask until it is over."""
    asker = Asker(port, key)
    try:
        i = 0
        while not over.is_set():
            title = TITLES[i % len(TITLES)]
            i += 1
            status, answer = asker.ask("POST", "/v1/predict", {"title": title})
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            if status != 200:
                continue
            version = answer["versions"]["model"]
            seen.first.setdefault((number, version), time.monotonic())
            node_id, confidence = right[version, title]
            close = confidence is None or abs(answer["confidence"] - confidence) < 1e-4
            if answer["node_id"] != node_id or not close:
                seen.wrong.append((version, title, answer))
            time.sleep(PAUSE_S)
    except Exception as error:
        seen.wrong.append(error)
    finally:
        asker.close()


def swap(
    servers: Sequence[Serving], store: ModelStore, admin: Asker, seen: Seen, names: Sequence[str], n: int
) -> list[float]:
    """Swap models n times; how long each took until both servers answered with the new one."""
    took, sizes = [], []
    for turn in range(n):
        aliases = store.aliases()
        if turn % 4 == 3:
            path = "/v1/models/rollback"
        else:
            # In turn one that was made the challenger before, and one that nobody has opened.
            others = [name for name in names if name != aliases.champion]
            version = next((name for name in others if name != aliases.previous), others[0])
            if turn % 2:
                store.challenge(version, by="the drill")
                time.sleep(0.2)
            path = f"/v1/models/{version}/promote"
        seen.forget()
        began = time.monotonic()
        status, answer = admin.ask("POST", path)
        assert status == 200, answer
        champion = answer["champion"]
        assert champion != aliases.champion
        while not all((number, champion) in seen.first for number in range(len(servers))):
            assert not seen.wrong, seen.wrong[:3]
            assert time.monotonic() - began < 10 * LIVE_S, "it never answers"
            time.sleep(0.005)
        took.append(max(seen.first[number, champion] for number in range(len(servers))) - began)
        sizes.append([server.rss_bytes() for server in servers])
    # What is open differs from swap to swap, and the first ones fill caches: the most of some is compared.
    for number in range(len(servers)):
        early, late = (max(size[number] for size in part) for part in (sizes[n // 5 : n // 2], sizes[n // 2 :]))
        assert late - early < GROWTH_BYTES, f"server {number} grew from {early >> 20} to {late >> 20} MB"
    return took


def swaps(settings: ServiceSettings, versions: Mapping[str, Path], n: int) -> list[float]:
    """Two servers on one store under load, while models are swapped on the first."""
    store = open_store(settings)
    for folder in versions.values():
        store.register(folder, by="the drill", trial=False)
    key, admin_key = key_for(settings, "service"), key_for(settings, "admin")
    seen, over, right = Seen(), threading.Event(), said_by(versions)
    with serving(settings) as first, serving(settings) as second:
        servers = [first, second]
        admin = Asker(first.port, admin_key)
        callers = [
            threading.Thread(target=call, args=(number, server.port, key, right, seen, over), daemon=True)
            for number, server in enumerate(servers)
            for _ in range(2)
        ]
        for caller in callers:
            caller.start()
        try:
            took = swap(servers, store, admin, seen, list(versions), n)
        finally:
            over.set()
            for caller in callers:
                caller.join(30)
            admin.close()
        assert not seen.wrong, seen.wrong[:3]
        assert set(seen.statuses) == {200}
    took.sort()
    print(f"\n{n} swaps, {seen.statuses[200]} answers: half live in {took[n // 2]:.2f} s, all in {took[-1]:.2f} s")
    return took


def test_twenty_swaps_under_load_fail_nobody_and_are_live_within_two_seconds(
    service_settings: Callable[..., ServiceSettings], versions: dict[str, Path]
) -> None:
    took = swaps(service_settings(), versions, 20)
    assert took[len(took) // 2] < LIVE_S


@pytest.mark.drill
def test_two_hundred_swaps_under_load_fail_nobody_and_are_live_within_two_seconds(
    service_settings: Callable[..., ServiceSettings], versions: dict[str, Path]
) -> None:
    took = swaps(service_settings(), versions, 200)
    # Two cores that others use too may miss it once or twice.
    assert took[-3] < LIVE_S
    assert took[-1] < 2 * LIVE_S


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_challenger_and_previous_model_are_open_before_anybody_promotes_them(
    client: TestClient, as_role: Callable[..., TestClient], versions: dict[str, Path]
) -> None:
    models, admin = service_behind(client).models, as_role("admin")
    champion, second, third = versions
    for folder in versions.values():
        models.store.register(folder, by="a test", trial=False)
    assert models.n_ready == 0
    models.store.challenge(second, by="a test")
    eventually(lambda: models.n_ready == 1)
    opened = models.prepare(second)
    assert models.prepare(second) is opened, "it is not opened again"
    assert admin.post(f"/v1/models/{second}/promote").status_code == 200
    assert models.current().classifier is opened.classifier
    eventually(lambda: models.n_ready == 1)
    before = models.prepare(champion)
    assert models.prepare(champion) is before, "the previous one stays open"
    assert admin.post(f"/v1/models/{third}/promote").status_code == 200
    assert models.prepare(second).classifier is opened.classifier
    eventually(lambda: models.n_ready == 1)
    assert models.prepare(champion) is not before, "one that is neither is let go"


def test_no_more_is_opened_ahead_than_fits(
    make_app: Callable[..., TestClient], versions: dict[str, Path], trained: Callable[[str, str], Path]
) -> None:
    client = make_app(preload_max_bytes=0)
    models: Models = service_behind(client).models
    _, second, _ = versions
    models.store.register(versions[second], by="a test", trial=False)
    models.store.challenge(second, by="a test")
    time.sleep(1.2)
    assert models.n_ready == 0
    models.promote(models.prepare(second), by="a test")
    assert models.current().model_version == second


def test_an_open_model_that_was_damaged_on_the_disk_meanwhile_is_not_promoted(
    client: TestClient, as_role: Callable[..., TestClient], versions: dict[str, Path]
) -> None:
    models = service_behind(client).models
    champion, second, _ = versions
    models.store.register(versions[second], by="a test", trial=False)
    models.store.challenge(second, by="a test")
    eventually(lambda: models.n_ready == 1)
    (models.store.folder_of(second) / "labels.json").write_text("{}")
    answer = as_role("admin").post(f"/v1/models/{second}/promote")
    assert answer.status_code == 422, "what is damaged by now would not open after a restart"
    assert models.current().model_version == champion
    assert models.fresh()
