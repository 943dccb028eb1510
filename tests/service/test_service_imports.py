"""What a seller calls his products: one product of each name, however often and by whatever way it comes."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from jobs_rig import code_of, start, taken, upload, workplace_of
from sqlalchemy import event
from sqlalchemy.orm import Session

from shelver.catalog.reader import MAX_ID_CHARS
from shelver.service.jobs.keeping import FILES, job_folder
from shelver.service.jobs.leases import Lease, finish
from shelver.service.products.payloads import MAX_SELLER_ID_CHARS
from shelver.service.state import Service
from shelver.worker.attempt import Attempt
from shelver.worker.importing import import_products

AsRole = Callable[..., TestClient]
Draw = Callable[[tuple[int, int, int], int], bytes]


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def products(client: TestClient, **filters: Any) -> dict[str, dict[str, Any]]:
    """One's own products by the ids of one's own."""
    found: dict[str, dict[str, Any]] = {}
    after = None
    while True:
        page = client.get("/v1/products", params={"limit": 200, **filters, **({"after": after} if after else {})})
        assert page.status_code == 200, page.text
        for item in page.json()["items"]:
            assert item["seller_product_id"] not in found
            found[item["seller_product_id"]] = item
        after = page.json()["next"]
        if after is None:
            return found


def csv_of(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def attempt_at(service: Service) -> Attempt:
    """The next job, taken by a worker of this process."""
    return Attempt(workplace_of(service), taken(service))


def import_feed(
    client: TestClient, service: Service, feed: bytes, name: str = "feed.csv", **said: Any
) -> Counter[str]:
    """What came of an import, as counts."""
    start(client, kind="import_products", upload_id=upload(client, feed, name), **said)
    attempt = attempt_at(service)
    result = import_products(attempt)
    finish(service.database, attempt.lease, result)
    return counts_of(result)


def counts_of(result: dict[str, Any]) -> Counter[str]:
    return Counter({name: result[f"n_{name}"] for name in ("rows", "added", "replaced", "skipped", "rejected")})


def lines_of(service: Service, job_id: str, name: str) -> list[dict[str, Any]]:
    path = job_folder(service.settings.data, job_id) / FILES / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_product_keeps_what_its_seller_calls_it_and_is_found_by_it(seller: TestClient, as_role: AsRole) -> None:
    added = seller.post("/v1/products", json={"title": "deck chair", "seller_product_id": " DC-104 "})
    assert (added.status_code, added.json()["seller_product_id"]) == (201, "DC-104")
    seller.post("/v1/products", json={"title": "DC-104 spare part"})
    url = f"/v1/products/{added.json()['id']}"
    found = seller.get("/v1/products", params={"seller_product_id": "DC-104"}).json()["items"]
    assert [one["id"] for one in found] == [added.json()["id"]]
    assert len(seller.get("/v1/products", params={"q": "DC-104"}).json()["items"]) == 2
    assert len(seller.get("/v1/products", params={"q": "DC-1"}).json()["items"]) == 1
    # A change that does not name it leaves it; null takes it away.
    assert seller.put(url, json={"title": "chair"}).json()["seller_product_id"] == "DC-104"
    assert seller.get("/v1/me/export").json()["tables"]["products"][0]["seller_product_id"] in ("DC-104", None)
    assert seller.put(url, json={"title": "chair", "seller_product_id": None}).json()["seller_product_id"] is None
    assert as_role("seller").get("/v1/products", params={"seller_product_id": "DC-104"}).json()["items"] == []
    for unfit in ("", "   ", "a\x00b", "a\nb", "x" * (MAX_SELLER_ID_CHARS + 1)):
        answer = seller.post("/v1/products", json={"title": "chair", "seller_product_id": unfit})
        assert code_of(answer) == (422, "invalid_input"), unfit
    assert MAX_SELLER_ID_CHARS == MAX_ID_CHARS
    longest = "ü" * MAX_SELLER_ID_CHARS
    assert seller.post("/v1/products", json={"title": "chair", "seller_product_id": longest}).status_code == 201


def test_no_two_products_of_a_seller_are_called_the_same_to_the_letter(
    seller: TestClient, as_role: AsRole
) -> None:
    first = seller.post("/v1/products", json={"title": "one", "seller_product_id": "a"}).json()
    for other in ("A", "á", "ä", "a.", "\U0001f4a1", "\U0001f4a9"):
        added = seller.post("/v1/products", json={"title": "other", "seller_product_id": other})
        assert added.status_code == 201, added.text
    again = seller.post("/v1/products", json={"title": "again", "seller_product_id": "a "})
    assert code_of(again) == (409, "id_taken")
    assert first["id"] in again.json()["detail"]
    other_id = added.json()["id"]
    changed = seller.put(f"/v1/products/{other_id}", json={"title": "again", "seller_product_id": "a"})
    assert code_of(changed) == (409, "id_taken")
    kept = seller.put(f"/v1/products/{first['id']}", json={"title": "still", "seller_product_id": "a"})
    assert (kept.status_code, kept.json()["title"]) == (200, "still")
    # What another seller calls his is his own affair; an administrator meets the seller's ids, not his own.
    assert as_role("seller").post("/v1/products", json={"seller_product_id": "a"}).status_code == 201
    admin = as_role("admin")
    assert admin.post("/v1/products", json={"seller_product_id": "A"}).status_code == 201
    body = {"title": "again", "seller_product_id": "a"}
    assert code_of(admin.put(f"/v1/products/{other_id}", json=body)) == (409, "id_taken")


def test_one_name_that_comes_at_once_from_many_sides_becomes_one_product(seller: TestClient) -> None:
    def add(number: int) -> int:
        answer = seller.post("/v1/products", json={"title": f"no. {number}", "seller_product_id": "same"})
        assert answer.status_code == 201 or answer.json()["code"] in ("id_taken", "conflict")
        return answer.status_code

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(add, range(8)))
    assert told.count(201) == 1
    assert len(products(seller)) == 1


FEED = [
    {"id": "a", "title": "bar stool", "brand": "Sit", "category": "Home > Chairs > Bar", "color": "red"},
    {"id": "b", "title": "reading lamp", "brand": "", "category": "Home > Lamps", "color": ""},
    {"id": "c", "title": "boat", "brand": "", "category": "Sea > Boats", "color": "white"},
]


def test_the_same_feed_a_second_time_adds_nothing(seller: TestClient, service: Service) -> None:
    assert import_feed(seller, service, csv_of(FEED)) == Counter(rows=3, added=3)
    before = products(seller)
    assert before.keys() == {"a", "b", "c"}
    more = [*FEED, {"id": "d", "title": "", "brand": "Lum", "category": "Home > Lamps", "color": ""}]
    assert import_feed(seller, service, csv_of(more)) == Counter(rows=4, added=1, skipped=3)
    after = products(seller)
    assert {name: after[name] for name in before} == before
    # Nothing new is in it: nothing is written, and the versions stay.
    assert import_feed(seller, service, csv_of(more), existing="replace") == Counter(rows=4, skipped=4)
    assert products(seller) == after


def test_a_feed_that_replaces_keeps_what_it_does_not_say(seller: TestClient, service: Service, draw: Draw) -> None:
    import_feed(seller, service, csv_of(FEED))
    stool, lamp = (products(seller)[name] for name in "ab")
    picture = {"files": draw((200, 20, 20), 1)}
    seller.post(f"/v1/products/{stool['id']}/pictures", files=picture)
    body = {"title": "my lamp", "description": "warm", "node_id": lamp["node_id"], "attributes": {"bulb": ["E27"]}}
    seller.put(f"/v1/products/{lamp['id']}", json=body)
    changed = pa.Table.from_pylist(
        [
            {
                "id": "a",
                "title": None,
                "brand": "Sit & Co",
                "category": "No > Such",
                "color": "blue",
                "image": None,
            },
            {
                "id": "b",
                "title": "lamp",
                "brand": None,
                "category": None,
                "color": "brass",
                "image": draw((9, 9, 9), 2),
            },
            {"id": "new", "title": "car", "brand": None, "category": "Toys > Cars", "color": None, "image": None},
        ]
    )
    file = io.BytesIO()
    pq.write_table(changed, file)
    counts = import_feed(seller, service, file.getvalue(), "feed.parquet", existing="replace")
    assert counts == Counter(rows=3, added=1, replaced=2)
    found = products(seller)
    assert found["a"] == found["a"] | {
        "id": stool["id"],
        "title": "bar stool",
        "brand": "Sit & Co",
        "path": "Home > Chairs > Bar",
        "attributes": {"color": ["blue"]},
        "version": 3,
    }
    assert len(found["a"]["pictures"]) == 1
    assert found["b"] == found["b"] | {
        "id": lamp["id"],
        "title": "lamp",
        "description": "warm",
        "path": "Home > Lamps",
        "attributes": {"bulb": ["E27"], "color": ["brass"]},
    }
    assert seller.get(f"/v1/pictures/{found['b']['pictures'][0]}").content == draw((9, 9, 9), 2)
    assert [one["id"] for one in seller.get("/v1/products", params={"q": "lamp"}).json()["items"]] == [lamp["id"]]


def test_more_attributes_than_a_product_can_have_stay_out_and_are_told(
    seller: TestClient, service: Service
) -> None:
    many = {f"name {i}": ["x"] for i in range(200)}
    seller.post("/v1/products", json={"title": "stool", "seller_product_id": "a", "attributes": many})
    assert import_feed(seller, service, csv_of(FEED[:1]), existing="replace") == Counter(rows=1, replaced=1)
    assert products(seller)["a"]["attributes"] == many
    assert products(seller)["a"]["title"] == "bar stool"
    job = seller.get("/v1/jobs").json()["items"][0]
    (line,) = lines_of(service, job["id"], "imported")
    assert (line["outcome"], line["warnings"]) == ("replaced", ["too_many_attributes"])


def test_numbers_of_lines_are_nobodys_ids(seller: TestClient, service: Service) -> None:
    feed = b"title\nlamp\nchair\n"
    for _ in range(2):
        assert import_feed(seller, service, feed, mapping={"id_from": "line"}) == Counter(rows=2, added=2)
    items = seller.get("/v1/products").json()["items"]
    assert [item["seller_product_id"] for item in items] == [None] * 4


def test_of_two_rows_that_would_be_stored_alike_the_second_is_refused(
    seller: TestClient, service: Service
) -> None:
    rows = [{"id": "a", "title": "one"}, {"id": "\ud800", "title": "two"}, {"id": "\udfff", "title": "three"}]
    feed = "".join(json.dumps(row) + "\n" for row in rows).encode()
    counts = import_feed(seller, service, feed, "feed.jsonl")
    assert counts["added"] + counts["rejected"] == counts["rows"] == 3
    assert len(products(seller)) == counts["added"]


class Killed(BaseException):
    """In place of SIGKILL."""


@contextmanager
def killed_at(n: int, when: Literal["before_commit", "after_commit"]) -> Iterator[None]:
    """Ends whoever writes at his n-th commit: right before it, or right after."""
    left = n

    def end(_: Session) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    event.listen(Session, when, end)
    try:
        yield
    finally:
        event.remove(Session, when, end)


def large_feed(n: int, word: str) -> bytes:
    return csv_of([{"id": f"p{i}", "title": f"{word} {i}", "color": "red"} for i in range(n)])


def test_an_import_killed_at_any_moment_neither_doubles_nor_loses(seller: TestClient, service: Service) -> None:
    import_feed(seller, service, large_feed(150, "old"))
    feed = large_feed(350, "new") + b",no id,red\n"
    start(seller, kind="import_products", upload_id=upload(seller, feed), existing="replace")
    lease = taken(service)
    # Four parts. Each is written and then lost once, and then kept by an attempt that ends right after.
    for _ in range(4):
        for when in ("before_commit", "after_commit"):
            with killed_at(1, when), pytest.raises(Killed):
                import_products(Attempt(workplace_of(service), lease))
    result = import_products(Attempt(workplace_of(service), lease))
    assert counts_of(result) == Counter(rows=351, added=200, replaced=150, rejected=1)
    found = products(seller)
    assert found.keys() == {f"p{i}" for i in range(350)}
    assert {one["title"].split()[0] for one in found.values()} == {"new"}
    assert Counter(one["version"] for one in found.values()) == Counter({1: 200, 2: 150})
    assert_each_once(service, lease, 350)


def assert_each_once(service: Service, lease: Lease, n: int) -> None:
    lines = lines_of(service, lease.job_id, "imported")
    assert [line["product_id"] for line in lines] == [f"p{i}" for i in range(n)]
    assert len({line["id"] for line in lines}) == n


def test_two_imports_of_one_feed_at_once_make_each_product_once(seller: TestClient, service: Service) -> None:
    for _ in range(2):
        start(seller, kind="import_products", upload_id=upload(seller, large_feed(400, "new")), existing="replace")
    attempts = [attempt_at(service) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        results = [counts_of(result) for result in pool.map(import_products, attempts)]
    assert sum(result["added"] for result in results) == 400
    assert sum(result["skipped"] for result in results) == 400
    assert len(products(seller)) == 400
    for attempt in attempts:
        assert_each_once(service, attempt.lease, 400)


def test_an_import_that_older_software_began_is_gone_on_with(seller: TestClient, service: Service) -> None:
    job = start(seller, kind="import_products", upload_id=upload(seller, csv_of(FEED)))
    lease = taken(service)
    old = Lease(**{name: getattr(lease, name) for name in lease.__slots__} | {"params": dict(lease.params)})
    del old.params["existing"]
    assert counts_of(import_products(Attempt(workplace_of(service), old))) == Counter(rows=3, added=3)
    parts = job_folder(service.settings.data, job["id"]) / "work" / "parts"
    (part,) = parts.iterdir()
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    for line in lines:
        del line["outcome"]
    part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert counts_of(import_products(Attempt(workplace_of(service), old))) == Counter(rows=3, added=3)
