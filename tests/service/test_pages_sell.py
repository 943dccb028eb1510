"""/sell: a title or a picture becomes a listing, with the category suggested; here without a script."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SMALL
from fastapi.testclient import TestClient
from service_rig import browser
from sqlalchemy import func, select

from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import Catalog
from shelver.service.products import drafts
from shelver.service.state import Service
from shelver.service.tables.records import FeedbackRow, PredictionRow

Draw = Callable[[tuple[int, int, int], int], bytes]
Browsing = Callable[..., TestClient]


@pytest.fixture
def seller(browsing: Browsing) -> TestClient:
    return browsing("seller", "Sue")


def fields_of(html: str) -> dict[str, list[str]]:
    """What a browser would send of the form, but for its buttons."""
    found: dict[str, list[str]] = {}
    form = html[html.index('id="sell"') :]
    for tag in re.findall(r"<input[^>]*>", form):
        said = {name: unescape(value) for name, value in re.findall(r'([a-z]+)="([^"]*)"', tag)}
        if said.get("type") in ("radio", "checkbox") and " checked" not in tag:
            continue
        if "name" in said and said.get("type") != "file":
            found.setdefault(said["name"], []).append(said.get("value", ""))
    for name, inside in re.findall(r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.findall(r'value="([^"]*)" selected', inside) or [""]
        found.setdefault(unescape(name), []).append(unescape(chosen[0]))
    for name, text in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found.setdefault(name, []).append(unescape(text))
    return found


def send(person: TestClient, fields: dict[str, Any], files: Any = None, path: str = "/sell") -> Any:
    return person.post(path, data=fields, files=files or {"pictures": ("", b"", "application/octet-stream")})


def suggested(person: TestClient, title: str = "deck chair", files: Any = None) -> dict[str, list[str]]:
    """The form after Suggest."""
    fields = fields_of(person.get("/sell").text) | {"title": [title], "do": ["suggest"]}
    answer = send(person, fields, files)
    assert answer.status_code == 200, answer.text
    return fields_of(answer.text)


def listings(person: TestClient) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = person.get("/v1/products").json()["items"]
    return items


def test_a_title_becomes_a_listing_with_the_category_that_was_suggested(
    seller: TestClient, service: Service
) -> None:
    fields = suggested(seller)
    assert fields["title"] == ["deck chair"]
    (node_id,) = fields["node_id"]
    assert fields["preselected"] == [node_id]
    saved = send(seller, fields | {"do": "save"})
    assert saved.status_code == 303
    (listing,) = listings(seller)
    assert saved.headers["Location"] == f"/sell?listed={listing['id']}"
    assert (listing["title"], listing["node_id"], listing["prediction_id"]) == (
        "deck chair",
        node_id,
        fields["prediction_id"][0],
    )
    said = seller.get(f"/v1/predictions/{fields['prediction_id'][0]}/feedback").json()
    assert [(one["action"], one["node_after"]) for one in said] == [("accept", node_id)]
    notice = seller.get(saved.headers["Location"]).text
    assert f'href="/listings/{listing["id"]}">deck chair</a>' in notice


def test_another_category_is_a_correction(seller: TestClient, service: Service) -> None:
    fields = suggested(seller)
    tree = service.models.current().taxonomy
    other = next(tree.ids[k] for k in tree.leaves.tolist() if tree.ids[k] != fields["node_id"][0])
    send(seller, fields | {"node_id": other, "do": "save"})
    assert listings(seller)[0]["node_id"] == other
    (said,) = seller.get(f"/v1/predictions/{fields['prediction_id'][0]}/feedback").json()
    assert (said["action"], said["node_after"]) == ("correct", other)


def test_a_form_that_is_sent_twice_lists_once(seller: TestClient, service: Service) -> None:
    fields = suggested(seller) | {"do": ["save"]}
    first, second = send(seller, fields), send(seller, fields)
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["Location"] == second.headers["Location"]
    assert len(listings(seller)) == 1
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(FeedbackRow)) == 1
    changed = send(seller, fields | {"title": "another chair"})
    assert changed.status_code == 409
    assert "listed a product already" in changed.text
    assert len(listings(seller)) == 1
    again = fields_of(changed.text) | {"do": ["save"]}
    assert again["key"] != fields["key"]
    assert send(seller, again).status_code == 303
    assert len(listings(seller)) == 2


def test_the_category_is_searched_and_looked_for_level_by_level(seller: TestClient, service: Service) -> None:
    tree = service.models.current().taxonomy
    leaf = int(tree.leaves[-1])
    fields = suggested(seller)
    found = send(seller, fields | {"node_id_q": tree.names[leaf], "node_id_find": "1"})
    assert f'name="node_id" value="{tree.ids[leaf]}"' in found.text
    assert not listings(seller)
    top = send(seller, fields | {"node_id_top": "1"}).text
    above = tree.ids[int(tree.ancestors(leaf)[0])]
    assert f'name="node_id_in" value="{above}"' in top
    inside = send(seller, fields | {"node_id_in": above})
    assert inside.status_code == 200
    assert "deck chair" in inside.text
    assert send(seller, fields | {"node_id": tree.ids[leaf], "do": "save"}).status_code == 303
    assert listings(seller)[0]["node_id"] == tree.ids[leaf]


def test_what_the_seller_chose_stays_when_he_types_on(seller: TestClient, service: Service) -> None:
    tree = service.models.current().taxonomy
    fields = suggested(seller)
    other = next(tree.ids[k] for k in tree.leaves.tolist() if tree.ids[k] != fields["node_id"][0])
    typed = fields | {"node_id": [other], "title": ["deck chair, beech"]}
    part = send(seller, typed, path="/sell/suggest")
    assert part.status_code == 200
    assert re.search(rf'name="node_id" value="{other}" checked', part.text)
    # What we had chosen for him follows the answer.
    part = send(seller, fields | {"title": ["deck chair, beech"]}, path="/sell/suggest")
    (prediction_id,) = re.findall(r'name="prediction_id" value="(\w+)"', part.text)
    assert prediction_id != fields["prediction_id"][0]


def test_a_picture_is_sent_once_and_still_there_when_the_form_is_saved(
    seller: TestClient, browsing: Browsing, draw: Draw, service: Service
) -> None:
    data = draw((200, 30, 30), 64)
    fields = suggested(seller, "chair", {"pictures": ("chair.png", data, "image/png")})
    (name,) = fields["draft"]
    shown = seller.get("/sell/draft", params={"name": name})
    assert (shown.status_code, shown.content) == (200, data)
    assert "sandbox" in shown.headers["Content-Security-Policy"]
    for person, wrong in ((browsing("seller"), name), (browsing("admin"), name), (seller, f"{name[:-1]}x")):
        assert person.get("/sell/draft", params={"name": wrong}).status_code == 404
    other = browsing("seller")
    theirs = send(other, suggested(other) | {"draft": [name], "do": ["save"]})
    assert theirs.status_code == 422
    assert "A picture is no longer here" in theirs.text
    assert listings(other) == []
    assert send(seller, fields | {"do": ["save"]}).status_code == 303
    assert listings(seller)[0]["pictures"] == [name[:64]]
    assert seller.get(f"/v1/pictures/{name[:64]}").content == data


def test_a_draft_is_good_for_hours_and_not_for_days(
    seller: TestClient, draw: Draw, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = drafts.keep_draft(service, seller.headers["X-User"], draw((1, 2, 3), 64))
    assert drafts.draft_of(service, seller.headers["X-User"], draft.name) == draft
    at = time.time() + drafts.KEPT_S + 1
    monkeypatch.setattr(time, "time", lambda: at)
    assert drafts.draft_of(service, seller.headers["X-User"], draft.name) is None


def test_a_picture_that_cannot_be_used_is_told_and_what_was_typed_stays(seller: TestClient, draw: Draw) -> None:
    files = [
        ("pictures", ("good.png", draw((9, 9, 9), 64), "image/png")),
        ("pictures", ("<b>bad</b>.png", b"no picture", "image/png")),
    ]
    fields = fields_of(seller.get("/sell").text) | {"title": ["chair"], "do": ["suggest"]}
    answer = send(seller, fields, files)
    assert answer.status_code == 422
    assert "&lt;b&gt;bad&lt;/b&gt;.png: This is not a picture" in answer.text
    kept = fields_of(answer.text)
    assert (kept["title"], len(kept["draft"])) == (["chair"], 1)
    removed = fields_of(send(seller, kept | {"remove": kept["draft"]}).text)
    assert "draft" not in removed


def test_nothing_is_listed_without_a_title_or_without_a_category(seller: TestClient) -> None:
    empty = fields_of(seller.get("/sell").text) | {"do": ["save"]}
    for fields, words in ((empty, "nothing to list"), (empty | {"title": ["chair"]}, "Choose a category")):
        answer = send(seller, fields)
        assert answer.status_code == 422
        assert words in answer.text
    assert fields_of(answer.text)["node_id"]  # it has been suggested meanwhile
    unknown = send(seller, empty | {"title": ["chair"], "node_id": ["nowhere"]})
    assert unknown.status_code == 422
    assert "categories have changed" in unknown.text
    assert listings(seller) == []


def test_titles_stay_text(seller: TestClient) -> None:
    title = '"><script>alert(1)</script>'
    answer = send(seller, fields_of(seller.get("/sell").text) | {"title": [title], "do": ["suggest"]})
    assert "<script>alert" not in answer.text
    assert fields_of(answer.text)["title"] == [title]


def test_a_prediction_that_is_not_his_is_not_named(seller: TestClient, browsing: Browsing) -> None:
    theirs = suggested(browsing("seller"))["prediction_id"]
    fields = suggested(seller)
    assert send(seller, fields | {"prediction_id": theirs, "do": ["save"]}).status_code == 303
    assert listings(seller)[0]["prediction_id"] is None


def test_answers_to_what_is_typed_on_are_not_logged(seller: TestClient, service: Service) -> None:
    fields = fields_of(seller.get("/sell").text)
    ids = []
    for title in ("deck", "deck ch", "deck chair"):
        part = send(seller, fields | {"title": [title]}, path="/sell/suggest")
        ids += re.findall(r'name="prediction_id" value="(\w+)"', part.text)
    assert len(set(ids)) == 3
    part_fields = fields | {"title": ["deck chair"], "prediction_id": [ids[-1]]}
    node_id = re.findall(r'name="node_id" value="([^"]+)" checked', part.text)
    assert send(seller, part_fields | {"node_id": node_id, "do": ["save"]}).status_code == 303
    assert listings(seller)[0]["prediction_id"] == ids[-1]
    with service.database.reading() as session:
        logged = session.scalars(select(PredictionRow.id)).all()
    assert logged == [ids[-1]]


def test_who_saves_while_another_answer_is_on_its_way_saves_with_the_one_that_he_saw(
    seller: TestClient, service: Service
) -> None:
    fields = fields_of(seller.get("/sell").text) | {"title": ["deck chair"]}
    seen = send(seller, fields, path="/sell/suggest").text
    send(seller, fields | {"title": ["deck chair, folding"]}, path="/sell/suggest")  # its answer is given up
    (shown,) = re.findall(r'name="prediction_id" value="(\w+)"', seen)
    node_id = re.findall(r'name="node_id" value="([^"]+)" checked', seen)
    assert send(seller, fields | {"prediction_id": [shown], "node_id": node_id, "do": ["save"]}).status_code == 303
    assert listings(seller)[0]["prediction_id"] == shown
    with service.database.reading() as session:
        assert session.scalars(select(PredictionRow.id)).all() == [shown]
        assert session.scalars(select(FeedbackRow.prediction_id)).all() == [shown]


def test_an_id_that_no_category_can_have_is_told(seller: TestClient) -> None:
    fields = suggested(seller) | {"node_id": ["x" * 5000]}
    for path, do in (("/sell", "suggest"), ("/sell", "save"), ("/sell/why", "suggest"), ("/sell/attributes", "")):
        assert send(seller, fields | {"do": [do]}, path=path).status_code < 500, path


def test_an_answer_that_nothing_follows_is_logged_in_the_end(seller: TestClient, service: Service) -> None:
    service.held._quiet_s = 0.05
    part = send(seller, fields_of(seller.get("/sell").text) | {"title": ["lamp"]}, path="/sell/suggest")
    (prediction_id,) = re.findall(r'name="prediction_id" value="(\w+)"', part.text)
    until = time.monotonic() + 10
    while seller.get(f"/v1/predictions/{prediction_id}").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def colour_model(embeddings_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shades of everything, uses of lamps: a model of texts with attributes."""
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    kinds = {"Home > Lamps": ("reading lamp", ("desk", "floor")), "Toys > Cars": ("racing car", ())}
    rows = []
    for i in range(200):
        category, (words, uses) = list(kinds.items())[i % 2]
        shade, use = ("red", "blue", "green")[i // 2 % 3], uses[i // 6 % 2] if uses else ""
        part = ("train", "train", "train", "validation", "test")[i // 12 % 5]
        title = f"{shade} {words} {use} no. {i * 7919 % 1000}"
        said = {"shade": shade, "use": use or None, "category": category, "split": part}
        rows.append({"product_id": f"p{i}", "title": title, **said})
    folder = tmp_path_factory.mktemp("shades")
    pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    ingest(
        folder / "feed.parquet", folder / "catalog", mapping=Mapping(attributes={"shade": "shade", "use": "use"})
    )
    config = TrainConfig.model_validate({"text_encoder": "ngram", "image_encoder": "none", **SMALL})
    train(
        Catalog.open(folder / "catalog"), folder / "model", config, cache=embeddings_cache, say=lambda line: None
    )
    return folder / "model"


def test_attributes_are_filled_in_and_what_the_seller_changed_stays(
    make_app: Callable[..., TestClient], colour_model: Path
) -> None:
    seller = browser(make_app(model=colour_model), "seller")
    fields = suggested(seller, "red reading lamp desk")
    assert (fields["was:shade"], fields["is:shade"]) == (["", "red"], ["red"])
    assert fields["is:use"] == ["desk"]
    # He says green; then he types on, and the model thinks of blue and of a floor lamp.
    typed = fields | {"is:shade": ["green"], "title": ["blue reading lamp floor"]}
    part = send(seller, typed, path="/sell/suggest").text
    later = fields_of(part.replace("<body>", '<body id="sell">'))
    assert (later["was:shade"], later["is:shade"]) == (["", "blue"], ["green"])
    assert later["is:use"] == ["floor"]
    # What does not belong to the category that he saves is left out.
    car = seller.get("/v1/taxonomy/search", params={"q": "cars"}).json()["nodes"][0]["node_id"]
    applies = seller.get(f"/v1/taxonomy/nodes/{car}").json()["attributes"]
    part = send(seller, fields | {"node_id": [car]}, path="/sell/attributes").text
    assert set(re.findall(r'name="is:([^"]*)"', part)) == {one["name"] for one in applies}
    said = {"node_id": [car], "is:shade": ["green"], "is:use": [""], "is:size": ["large"], "do": ["save"]}
    assert send(seller, fields | said).status_code == 303
    assert listings(seller)[0]["attributes"] == {"shade": ["green"]}


def test_the_reasons_are_marked_in_the_title(seller: TestClient, service: Service) -> None:
    fields = suggested(seller, "<i>folding</i> deck chair")
    part = send(seller, fields, path="/sell/why")
    assert part.status_code == 200
    assert re.search(r"<mark>(folding|deck|chair)</mark>", part.text)
    assert "<i>" not in part.text
    marked = re.search(r"<p>(.*?)</p>", part.text)
    assert marked is not None
    assert unescape(re.sub("</?mark>", "", marked[1])) == "<i>folding</i> deck chair"


def test_look_alikes_are_shown_with_their_category(make_app: Callable[..., TestClient]) -> None:
    client = make_app(similar_across_sellers=True)
    first, second = browser(client, "seller"), browser(client, "seller")
    assert send(first, suggested(first, "folding deck chair") | {"do": ["save"]}).status_code == 303
    until = time.monotonic() + 20
    while True:
        part = send(second, suggested(second, "folding deck chair"), path="/sell/why").text
        if "Similar products that stand there" in part or time.monotonic() > until:
            break
        time.sleep(0.05)
    shown = part[part.index("Similar products that stand there") :]
    assert "folding deck chair" in shown
    assert "<span>Chairs</span>" in shown
    assert "/listings/" not in shown  # another's listing is no page of his


def test_where_nothing_can_be_suggested_what_was_typed_stays(seller: TestClient, service: Service) -> None:
    fields = suggested(seller)
    service.answering.close()
    part = send(seller, fields | {"title": ["a chair"]}, path="/sell/suggest")
    assert part.status_code == 503
    assert '<div id="wrong" data-refused>' in part.text
    assert "try again in a minute" in part.text
    whole = send(seller, fields | {"title": ["a chair"], "do": ["suggest"]})
    assert whole.status_code == 503
    assert fields_of(whole.text)["title"] == ["a chair"]


def test_who_may_not_sell_is_told_so(browsing: Browsing) -> None:
    assert browsing("reviewer").get("/sell").status_code == 403
    assert browsing("admin").get("/sell").status_code == 200
