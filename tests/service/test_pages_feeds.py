"""Pages of feeds: a file is looked at before it is imported, watched meanwhile, and its refused rows are told."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jobs_rig import taken, workplace_of

from shelver.catalog.rows import Code
from shelver.errors import ShelverError
from shelver.service.jobs.leases import finish, refuse
from shelver.service.pages.feed_words import REASONS
from shelver.service.state import Service
from shelver.worker.attempt import Attempt
from shelver.worker.importing import import_products

Browsing = Callable[..., TestClient]
SCRIPT = "<script>alert(1)</script>"
FEED = f"""sku;name;where;color;=formula
a;bar stool;Home > Chairs > Bar;red;x
b;reading lamp {SCRIPT};No > Such;;y
a;again;;;z
c;;;;
""".encode()


@pytest.fixture
def seller(browsing: Browsing) -> TestClient:
    return browsing("seller", "Ann")


def text_of(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def sent(client: TestClient, feed: bytes = FEED, name: str = "spring.csv") -> str:
    """Where the columns of a feed are shown that was uploaded by the form."""
    answer = client.post("/feeds", files={"file": (name, feed, "text/csv")})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["Location"])


def started(client: TestClient, columns: str, **said: str) -> Any:
    (key,) = re.findall(r'name="key" value="(\w+)"', text_of(client, columns))
    return client.post(columns, data={"key": key, **said})


def worked(service: Service) -> None:
    """The next job, done by a worker of this process."""
    attempt = Attempt(workplace_of(service), taken(service))
    try:
        finish(service.database, attempt.lease, import_products(attempt))
    except ShelverError as error:
        refuse(service.database, attempt.lease, code="invalid_input", detail=str(error))


def test_nobody_who_may_not_list_uploads_a_feed(browsing: Browsing, seller: TestClient) -> None:
    assert "No feed was imported yet" in text_of(seller, "/feeds")
    assert browsing("reviewer").get("/feeds").status_code == 403
    form = {"file": ("a.csv", FEED, "text/csv")}
    assert browsing("reviewer").post("/feeds", files=form).status_code == 403
    other_site = {"Origin": "https://elsewhere.example"}
    assert seller.post("/feeds", files=form, headers=other_site).status_code == 403
    large = {"file": ("a.csv", b"x" * 100_000, "text/csv")}
    assert browsing(None).post("/feeds", files=large).status_code in (401, 413)


def test_a_feed_is_shown_as_it_is_understood_before_anything_is_listed(seller: TestClient) -> None:
    columns = sent(seller)
    page = text_of(seller, columns)
    assert SCRIPT not in page
    assert ("recognised: sku" in page, "recognised: name" in page) == (True, True)
    assert "not in the tree" not in page  # nobody has said yet that `where` is the category
    page = text_of(seller, f"{columns}?category=where&attribute=%3Dformula")
    assert ("not in the tree" in page, "=formula: x" in page) == (True, True)
    assert "neither a text nor a picture" in page
    assert seller.get("/v1/products").json()["items"] == []
    assert "spring.csv" in text_of(seller, "/feeds")


def test_what_an_import_would_refuse_or_leave_out_is_told_before_it(seller: TestClient, service: Service) -> None:
    feed = b"""Art;title;Foto URL
a;lamp;https://shop.example/1.jpg
a;lamp again;
b;;https://shop.example/2.jpg
c;;
"""
    columns = sent(seller, feed)
    page = unescape(text_of(seller, f"{columns}?product_id=Art&image=Foto+URL"))
    assert "Pictures at addresses are not fetched." in page
    assert page.count("1 not fetched") == 1
    refused = ("an id that an earlier row has", "neither a text nor a picture")
    assert [page.count(f"Will be refused</span> {words}") for words in refused] == [1, 2]
    assert "not fetched" not in text_of(seller, f"{columns}?product_id=Art")
    answer = started(seller, f"{columns}?product_id=Art", product_id="Art", image="Foto URL")
    path = answer.headers["Location"] if answer.status_code == 303 else ""
    assert path, answer.text
    worked(service)
    page = text_of(seller, path)
    counts = dict(re.findall(r'data-job-count="(\w+)">([\d,]+)<', page))
    assert (counts["added"], counts["rejected"]) == ("1", "3")  # as it was told
    # Each reason once, in the words of the seller's own columns.
    assert ("<code>Art</code>" in page, "an earlier row has the product_id" in page) == (True, False)


def test_a_feed_is_imported_and_tells_of_each_row_what_became_of_it(seller: TestClient, service: Service) -> None:
    columns = sent(seller)
    answer = started(seller, columns, category="where", existing="skip", unknown_category="leave_out")
    assert answer.status_code == 303, answer.text
    watched = answer.headers["Location"]
    waiting = text_of(seller, watched)
    assert ("data-job=" in waiting, "<noscript><meta http-equiv" in waiting) == (True, True)
    worked(service)
    page = text_of(seller, watched)
    counts = dict(re.findall(r'data-job-count="(\w+)">([\d,]+)<', page))
    assert counts == {"rows": "4", "added": "2", "replaced": "0", "skipped": "0", "rejected": "2"}
    assert ("an id that an earlier row has" in page, "neither a text nor a picture" in page) == (True, True)
    assert ("listed without one" in page, "http-equiv" in page) == (True, False)
    titles = {item["seller_product_id"]: item for item in seller.get("/v1/products").json()["items"]}
    assert titles["a"]["path"] == "Home > Chairs > Bar"
    # The same feed again: nothing is added; with changes it replaces.
    again = started(seller, sent(seller), category="where", existing="replace")
    worked(service)
    counts = dict(re.findall(r'data-job-count="(\w+)">([\d,]+)<', text_of(seller, again.headers["Location"])))
    assert (counts["added"], counts["skipped"]) == ("0", "2")
    assert len(re.findall(r"/feeds/jobs/", text_of(seller, "/feeds"))) == 2


def test_rows_without_ids_are_all_new(seller: TestClient, service: Service) -> None:
    columns = sent(seller, b"name\nlamp\nchair\n")
    refused = seller.get(columns)
    assert (refused.status_code, "Which column is your id?" in refused.text) == (422, True)
    assert ("<td>lamp</td>" in refused.text, "id_from" in refused.text) == (True, False)
    assert " disabled>Import</button>" in refused.text
    lines = unescape(re.findall(r'<option value="([^"]*)"[^>]*>none: every row', refused.text)[0])
    page = seller.get(columns, params={"product_id": lines})
    assert (page.status_code, "lamp" in page.text) == (200, True)
    assert started_with(seller, columns, refused.text, product_id=lines).status_code == 303
    worked(service)
    items = seller.get("/v1/products").json()["items"]
    assert [item["seller_product_id"] for item in items] == [None, None]


def started_with(client: TestClient, columns: str, page: str, **said: str) -> Any:
    (key,) = re.findall(r'name="key" value="(\w+)"', page)
    return client.post(columns, data={"key": key, **said})


def test_who_presses_twice_starts_one_import(seller: TestClient) -> None:
    columns = sent(seller)
    page = text_of(seller, columns)
    places = {started_with(seller, columns, page).headers["Location"] for _ in range(2)}
    assert len(places) == 1


def test_refused_rows_are_a_file_that_no_spreadsheet_takes_for_formulas(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    answer = started(seller, sent(seller, b"id,title\n=1+1,\n@x,\nok,lamp\n"))
    worked(service)
    path = answer.headers["Location"]
    file = seller.get(f"{path}/rejected.csv")
    assert file.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert [(row["line"], row["product_id"], row["code"]) for row in rows] == [
        ("2", "'=1+1", "empty_product"),
        ("3", "'@x", "empty_product"),
    ]
    assert browsing("seller").get(f"{path}/rejected.csv").status_code == 404
    assert browsing("reviewer").get(path).status_code == 200


def test_a_feed_that_is_none_says_so_at_once(seller: TestClient, service: Service) -> None:
    nothing = seller.post("/feeds", files={"file": ("", b"", "application/octet-stream")})
    assert (nothing.status_code, "The file was not taken." in nothing.text) == (422, True)
    for name, feed in {"a.xlsx": b"PK\x03\x04 a spreadsheet", "b.csv.gz": gzip.compress(FEED)[:40]}.items():
        page = seller.get(sent(seller, feed, name))
        assert page.status_code == 422, name
        assert "So the feed cannot be read." in page.text
        assert str(service.settings.data) not in page.text


def test_an_import_is_stopped_and_a_file_forgotten(seller: TestClient, browsing: Browsing) -> None:
    columns = sent(seller)
    path = started(seller, columns).headers["Location"]
    assert browsing("seller").post(f"{path}/cancel").status_code == 404
    assert seller.post(f"{path}/cancel").status_code == 303
    assert "The import was stopped." in text_of(seller, path)
    assert seller.post(f"{columns}/delete").headers["Location"] == "/feeds?done=feed-deleted"
    assert "a file that was deleted" in text_of(seller, "/feeds")
    assert seller.get(columns).status_code == 404


def test_every_reason_has_words() -> None:
    assert REASONS.keys() == {code.value for code in Code}
