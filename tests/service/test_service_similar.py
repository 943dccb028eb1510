"""Products that look alike: every one is compared, what is gone is gone, and no seller reads another's."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind, signed_in
from sqlalchemy import delete, select

from shelver.pipeline import Embedded, Embedding
from shelver.product import Product
from shelver.service.lookalikes.nearest import Nearest, Placed
from shelver.service.lookalikes.vectors import WIDTH, Look, directions, encoders_of, looks_of, packed, unpacked
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import ProductRow
from shelver.service.tables.vectors import ProductVector

AsRole = Callable[..., TestClient]
Draw = Callable[[tuple[int, int, int], int], bytes]
TITLES = (
    "folding deck chair",
    "deck chair, beech",
    "bar stool for the counter",
    "high bar stool",
    "reading lamp with shade",
    "lamp for the desk",
    "racing car, small",
    "red racing car",
    "mixed toys",
    "box of mixed toys",
)


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def add(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/products", json=said)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


def settle(service: Service) -> None:
    assert service.lookalikes.settled()


def similar(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/similar", json=said)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def cosines(query: Embedding, products: Embedding) -> np.ndarray[Any, Any]:
    unit = products.values / np.linalg.norm(products.values, axis=1, keepdims=True)
    found: np.ndarray[Any, Any] = unit @ (query.values[0] / np.linalg.norm(query.values[0]))
    return found


def test_the_answer_is_that_of_an_exhaustive_search(seller: TestClient, service: Service) -> None:
    ids = [add(seller, title=title)["id"] for title in TITLES]
    settle(service)
    classifier = service.models.current().classifier

    def embedded(titles: tuple[str, ...]) -> Embedding:
        text = classifier.embed([Product("", title=title) for title in titles]).text
        assert text is not None
        return text

    for asked in ("a chair for the garden", "racing car", "lamp"):
        wanted = cosines(embedded((asked,)), embedded(TITLES))
        found = similar(seller, title=asked, limit=5)
        assert found["complete"]
        order = np.argsort(-wanted)[:5]
        assert [one["product_id"] for one in found["items"]] == [ids[i] for i in order]
        assert [one["similarity"] for one in found["items"]] == pytest.approx(wanted[order], abs=2e-3)
    of_one = seller.get(f"/v1/products/{ids[0]}/similar", params={"limit": 3}).json()
    wanted = cosines(embedded(TITLES[:1]), embedded(TITLES))
    assert [one["product_id"] for one in of_one["items"]] == [ids[i] for i in np.argsort(-wanted)[1:4]]


def test_texts_and_pictures_count_where_both_have_them(
    make_app: Callable[..., TestClient], both_model: Path, draw: Draw
) -> None:
    client = make_app(model=both_model)
    seller = signed_in(client, "seller")
    red, blue = draw((200, 20, 20), 1), draw((20, 20, 200), 2)
    products = {
        "text": Product("", title="bar stool"),
        "red": Product("", images=(red,)),
        "both": Product("", title="bar stool", images=(blue,)),
    }
    ids = {
        name: add(
            seller,
            title=product.title,
            pictures=[{"base64": in_base64(data)} for data in product.images],
        )["id"]
        for name, product in products.items()
    }
    settle(service_behind(client))
    classifier = service_behind(client).models.current().classifier
    text, image = (np.zeros(3), np.zeros(3))
    asked = classifier.embed([Product("", title="a stool", images=(red,)), *products.values()])
    for values, embedding in ((text, asked.text), (image, asked.image)):
        assert embedding is not None
        unit = embedding.values / np.maximum(np.linalg.norm(embedding.values, axis=1, keepdims=True), 1e-9)
        values[:] = unit[1:] @ unit[0]
    wanted = dict(zip(ids.values(), (text[0], image[1], (text[2] + image[2]) / 2), strict=True))
    found = similar(seller, title="a stool", image_base64=in_base64(red))
    got = {one["product_id"]: one["similarity"] for one in found["items"]}
    assert got.keys() == wanted.keys()
    # A picture of 1,133 numbers is projected to 256, so its cosine is not exact.
    for name, tolerance in (("text", 2e-3), ("red", 0.02), ("both", 0.1)):
        assert got[ids[name]] == pytest.approx(wanted[ids[name]], abs=tolerance)
    by_picture = similar(seller, image_base64=in_base64(red))
    assert {one["product_id"] for one in by_picture["items"]} == {ids["red"], ids["both"]}
    damaged = similar(seller, title="a stool", image_base64=in_base64(red[:60]))
    assert damaged["picture_error"] is not None
    assert damaged["items"]
    assert code_of(seller.post("/v1/similar", json={"image_base64": in_base64(b"no picture")})) == (
        422,
        "picture_unusable",
    )


def test_nothing_to_compare_with_is_refused(seller: TestClient) -> None:
    for body in ({}, {"image_base64": "R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="}):
        assert code_of(seller.post("/v1/similar", json=body)) == (422, "invalid_input")
    assert similar(seller, title="chair")["items"] == []
    empty = add(seller)
    assert seller.get(f"/v1/products/{empty['id']}/similar").json()["items"] == []


def test_a_deleted_product_leaves_the_answers_at_once(seller: TestClient, service: Service) -> None:
    ids = {add(seller, title=title)["id"] for title in TITLES}
    settle(service)
    assert {one["product_id"] for one in similar(seller, title="chair", limit=20)["items"]} == ids
    gone = ids.pop()
    assert seller.delete(f"/v1/products/{gone}").status_code == 204
    assert {one["product_id"] for one in similar(seller, title="chair", limit=20)["items"]} == ids
    # Another server deletes: this one's memory has it still.
    gone = ids.pop()
    with service.database.writing() as session:
        session.execute(delete(ProductRow).where(ProductRow.id == gone))
        assert session.scalar(select(ProductVector.version).where(ProductVector.product_id == gone)) is None
    nearest, _ = service.lookalikes.of(service.models.current())
    assert nearest.version(gone) == 1
    found = similar(seller, title="chair", limit=len(ids))
    assert {one["product_id"] for one in found["items"]} == ids
    assert nearest.version(gone) is None


def test_many_deleted_ones_do_not_hide_the_others(seller: TestClient, service: Service) -> None:
    for _ in range(30):
        add(seller, title="racing car")
    kept = add(seller, title="reading lamp with shade")["id"]
    settle(service)
    with service.database.writing() as session:
        session.execute(delete(ProductRow).where(ProductRow.id != kept))
    assert [one["product_id"] for one in similar(seller, title="racing car", limit=1)["items"]] == [kept]


def test_a_changed_product_is_compared_as_it_is_now(seller: TestClient, service: Service) -> None:
    product = add(seller, title="racing car")
    other = add(seller, title="reading lamp")
    settle(service)
    assert similar(seller, title="racing car")["items"][0]["product_id"] == product["id"]
    seller.put(f"/v1/products/{product['id']}", json={"title": "box of mixed toys"})
    seller.put(f"/v1/products/{other['id']}", json={"title": "racing car"})
    settle(service)
    found = similar(seller, title="racing car")["items"]
    assert [one["product_id"] for one in found] == [other["id"], product["id"]]
    assert found[0]["similarity"] == pytest.approx(1, abs=2e-3)


def test_of_others_a_seller_sees_title_and_category_of_what_they_sell_and_no_more(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(similar_across_sellers=True)
    service = service_behind(client)

    def as_role(role: Any) -> TestClient:
        return signed_in(client, role)

    seller = as_role("seller")
    tree = service.models.current().taxonomy
    node = tree.ids[int(tree.leaves[0])]
    other = as_role("seller")
    sold = add(
        other,
        title="deck chair of Eve",
        description="a secret",
        brand="Hidden",
        node_id=node,
        attributes={"a": ["b"]},
    )
    draft = add(other, title="deck chair, a draft of Eve")
    mine = add(seller, title="deck chair of mine", description="known to me")
    settle(service)
    for person in (seller, as_role("service")):
        answer = person.post("/v1/similar", json={"title": "deck chair"})
        for private in ("secret", "Hidden", sold["id"], draft["id"], other.headers["X-User"], "draft"):
            assert private not in answer.text
        theirs = [one for one in answer.json()["items"] if not one["mine"]]
        assert {one["title"] for one in theirs} <= {"deck chair of Eve", "deck chair of mine"}
        (shown,) = [one for one in theirs if one["title"] == "deck chair of Eve"]
        shown.pop("similarity")
        assert shown == {
            "node_id": node,
            "path": tree.paths[tree.index(node)],
            "title": "deck chair of Eve",
            "mine": False,
            "product_id": None,
            "owner_id": None,
            "pictures": [],
        }
    (own,) = [one for one in similar(seller, title="deck chair")["items"] if one["mine"]]
    assert (own["product_id"], own["owner_id"]) == (mine["id"], seller.headers["X-User"])
    # What is no longer on sale is not shown, though the memory does not know of it yet.
    with service.database.writing() as session:
        session.get_one(ProductRow, sold["id"]).node_id = None
    assert [one["title"] for one in similar(seller, title="deck chair")["items"]] == ["deck chair of mine"]
    everything = {one["product_id"] for one in similar(as_role("reviewer"), title="deck chair")["items"]}
    assert everything == {sold["id"], draft["id"], mine["id"]}
    for url in (f"/v1/products/{sold['id']}/similar", f"/v1/products/{new_id()}/similar"):
        assert code_of(seller.get(url)) == (404, "not_found")


def test_sellers_see_only_their_own_unless_the_shop_says_otherwise(make_app: Callable[..., TestClient]) -> None:
    client = make_app()
    node = service_behind(client).models.current().taxonomy.ids[-1]
    one, other = signed_in(client, "seller"), signed_in(client, "seller")
    mine = add(one, title="deck chair", node_id=node)
    add(other, title="deck chair", node_id=node)
    settle(service_behind(client))
    assert [found["product_id"] for found in similar(one, title="deck chair")["items"]] == [mine["id"]]
    assert len(similar(signed_in(client, "admin"), title="deck chair")["items"]) == 2


def test_a_category_may_be_asked_for(seller: TestClient, service: Service) -> None:
    tree = service.models.current().taxonomy
    one, other = (add(seller, title="deck chair", node_id=node)["id"] for node in tree.ids[:2])
    settle(service)
    assert [found["product_id"] for found in similar(seller, title="chair", node_id=tree.ids[1])["items"]] == [
        other
    ]
    by_product = seller.get(f"/v1/products/{other}/similar", params={"node_id": tree.ids[0]}).json()
    assert [found["product_id"] for found in by_product["items"]] == [one]
    assert similar(seller, title="chair", node_id="nowhere")["items"] == []


@pytest.mark.usefixtures("only_sqlite")
def test_a_server_that_starts_again_finds_what_was_embedded_and_embeds_what_was_not(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app()
    seller = signed_in(client, "seller")
    first = add(seller, title="deck chair")
    settle(service_behind(client))
    with service_behind(client).database.writing() as session:  # as a worker's import does
        forgotten = ProductRow(
            owner_id=seller.headers["X-User"], title="deck chair, beech", attributes={}, search_key=""
        )
        session.add(forgotten)
    again = make_app()
    settle(service_behind(again))
    reviewer = signed_in(again, "reviewer")
    found = {one["product_id"] for one in similar(reviewer, title="deck chair")["items"]}
    assert found == {first["id"], forgotten.id}


@pytest.mark.usefixtures("only_sqlite")
def test_servers_see_what_the_other_one_has_embedded(make_app: Callable[..., TestClient]) -> None:
    one, other = make_app(), make_app()
    settle(service_behind(other))
    added = add(signed_in(one, "seller"), title="deck chair")
    settle(service_behind(one))
    reviewer = signed_in(other, "reviewer")
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = similar(reviewer, title="deck chair")["items"]
        if found:
            break
        time.sleep(0.1)
    assert [product["product_id"] for product in found] == [added["id"]]


def test_a_model_with_other_encoders_embeds_all_products_again(
    make_app: Callable[..., TestClient], both_model: Path
) -> None:
    client = make_app()
    service = service_behind(client)
    seller = signed_in(client, "seller")
    ids = {add(seller, title=title)["id"] for title in TITLES}
    settle(service)
    first = service.models.current()
    other = service.models.prepare(
        service.models.store.register(both_model, by="a test", trial=False).model_version
    )
    service.models.promote(other, by="a test")
    assert encoders_of(first.manifest) != encoders_of(other.manifest)
    settle(service)
    found = similar(seller, title="chair", limit=20)
    assert (found["model_version"], found["complete"]) == (other.model_version, True)
    assert {one["product_id"] for one in found["items"]} == ids
    with service.database.reading() as session:
        encoders = session.scalars(select(ProductVector.encoders).distinct()).all()
    assert set(encoders) == {encoders_of(first.manifest), encoders_of(other.manifest)}


def test_an_installation_may_do_without(make_app: Callable[..., TestClient]) -> None:
    client = make_app(similar_products=0)
    seller = signed_in(client, "seller")
    add(seller, title="deck chair")
    assert similar(seller, title="deck chair") | {"model_version": ""} == {
        "items": [],
        "complete": False,
        "picture_error": None,
        "model_version": "",
    }


def looks(n: int, seed: int) -> list[Look]:
    rng = np.random.default_rng(seed)
    text = rng.standard_normal((n, 24)).astype(np.float32)
    image = rng.standard_normal((n, 40)).astype(np.float32)
    has = rng.integers(0, 4, n)  # nothing, a text, a picture, both
    return looks_of(Embedded(Embedding(text, has % 2 == 1), Embedding(image, has >= 2), ()), n)


def test_nearest_agrees_with_an_exhaustive_search_whatever_was_put_replaced_and_dropped() -> None:
    rng = np.random.default_rng(7)
    held: dict[str, Placed] = {}
    nearest = Nearest(10_000)
    for step in range(20):
        names = [f"p{i}" for i in rng.integers(0, 400, 60)]
        put = {
            name: Placed(name, f"o{rng.integers(3)}", (None, "n0", "n1")[rng.integers(3)], step, look)
            for name, look in zip(names, looks(60, step), strict=True)
        }
        nearest.put(put.values())
        held |= put
        gone = list(held)[::7]
        nearest.drop([*gone, "never there"])
        held = {name: one for name, one in held.items() if name not in gone}
        assert len(nearest) == len(held)
        for query in looks(3, 1000 + step):
            for node, owner, sold in (
                (None, None, False),
                ("n1", None, False),
                (None, "o1", False),
                ("n0", "o2", True),
            ):
                wanted = {}
                for name, one in held.items():
                    cosines = [
                        float(a @ b)
                        for a, b in ((query.text, one.look.text), (query.image, one.look.image))
                        if a is not None and b is not None
                    ]
                    mine = owner is None or one.owner_id == owner or (sold and one.node_id is not None)
                    if cosines and mine and node in (None, one.node_id):
                        wanted[name] = sum(cosines) / len(cosines)
                found = nearest.to(query, 12, node_id=node, owner_id=owner, sold=sold)
                best = sorted(wanted, key=lambda name: -wanted[name])[:12]
                assert [one.product_id for one in found] == best
                assert [one.similarity for one in found] == pytest.approx(
                    [wanted[name] for name in best], abs=1e-5
                )


def test_what_does_not_fit_into_memory_is_left_out_and_said() -> None:
    nearest = Nearest(3)
    nearest.put(Placed(f"p{i}", "o", None, 1, look) for i, look in enumerate(looks(5, 0)))
    assert (len(nearest), nearest.full) == (3, True)


def test_a_wide_vector_is_projected_and_keeps_its_cosines() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(2000)
    rows = np.array([base + noise * rng.standard_normal(2000) for noise in (0, 0.1, 0.3, 0.7, 1.5)], np.float32)
    whole = looks_of(Embedded(Embedding(rows, np.ones(5, bool)), None, ()), 5)
    found = [
        float(whole[0].text @ one.text) for one in whole if whole[0].text is not None and one.text is not None
    ]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for got, exact in zip(found, unit @ unit[0], strict=True):
        assert abs(got - exact) < 4 * (1 - exact**2) / 16 + 1e-3
    assert directions(2000).shape == (2000, WIDTH)
    assert np.array_equal(directions(2000), directions(2000))
    assert whole[1].text is not None
    back = unpacked(packed(whole[1].text))
    assert back is not None
    assert np.allclose(back, whole[1].text, atol=1e-3)
