"""Products: each seller has his own, with pictures and a category of the tree; nobody overwrites the unseen."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shelver.service.products.pictures import sweep
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import PictureRow, ProductRow

Draw = Callable[[tuple[int, int, int], int], bytes]
AsRole = Callable[..., TestClient]


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def add(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/products", json={"title": "deck chair"} | said)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


def in_base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def age_files(service: Service) -> None:
    """Let the pictures' time of grace be over."""
    for path in (service.settings.data / "pictures").rglob("??/*"):
        os.utime(path, (time.time() - 1000, time.time() - 1000))


def test_a_product_is_added_read_changed_and_deleted(seller: TestClient, service: Service) -> None:
    tree = service.models.current().taxonomy
    node = int(tree.leaves[0])
    added = add(
        seller,
        title="Folding deck chair",
        brand="Lido",
        description="It folds.\nAnd stands.",
        attributes={"material": ["beech", "canvas"]},
        node_id=tree.ids[node],
    )
    url = f"/v1/products/{added['id']}"
    read = seller.get(url)
    assert read.json() == added
    assert read.headers["ETag"] == '"1"'
    assert added["path"] == tree.paths[node]
    assert added["taxonomy_version"] == tree.version
    assert added["owner_id"] == seller.headers["X-User"]
    assert added["attributes"] == {"material": ["beech", "canvas"]}
    changed = seller.put(url, json={"title": "Deck chair"}, headers={"If-Match": '"1"'})
    assert changed.status_code == 200
    assert changed.headers["ETag"] == '"2"'
    assert (changed.json()["title"], changed.json()["brand"], changed.json()["node_id"]) == (
        "Deck chair",
        None,
        None,
    )
    assert changed.json()["updated_at"] > changed.json()["created_at"]
    assert seller.delete(url, headers={"If-Match": '"2"'}).status_code == 204
    assert code_of(seller.get(url)) == (404, "not_found")
    assert code_of(seller.delete(url)) == (404, "not_found")


def test_others_products_are_not_there_for_a_seller(seller: TestClient, as_role: AsRole) -> None:
    added = add(seller)
    url = f"/v1/products/{added['id']}"
    for role in ("seller", "service"):
        other = as_role(role)
        assert other.get("/v1/products").json()["items"] == []
        for answer in (
            other.get(url),
            other.put(url, json={"title": "mine"}),
            other.delete(url),
            other.post(f"{url}/pictures", files={"files": b"x"}),
        ):
            assert answer.status_code in (404, 422)
            assert answer.json()["code"] in ("not_found", "picture_unusable")
        assert other.get(url).status_code == 404
    assert seller.get(url).json() == added
    for role in ("reviewer", "admin"):
        assert as_role(role).get(url).json() == added
    assert code_of(as_role("reviewer").delete(url)) == (403, "not_allowed")
    assert as_role("admin").delete(url).status_code == 204


def test_who_has_not_signed_in_sees_nothing(client: TestClient) -> None:
    for url in ("/v1/products", f"/v1/products/{new_id()}", f"/v1/pictures/{'0' * 64}"):
        assert code_of(client.get(url)) == (401, "not_signed_in")


def test_a_change_made_from_an_old_version_is_refused(seller: TestClient) -> None:
    url = f"/v1/products/{add(seller)['id']}"
    assert seller.put(url, json={"title": "first"}, headers={"If-Match": '"1"'}).status_code == 200
    for refused in (
        seller.put(url, json={"title": "second"}, headers={"If-Match": '"1"'}),
        seller.delete(url, headers={"If-Match": '"1"'}),
    ):
        assert code_of(refused) == (412, "changed_meanwhile")
    assert seller.get(url).json()["title"] == "first"
    assert seller.put(url, json={"title": "third"}, headers={"If-Match": "*"}).json()["version"] == 3
    for named, status in (("three", 412), ('W/"3"', 412), ('"1", "2"', 412), ('"2", "3"', 200)):
        assert seller.put(url, json={"title": "x"}, headers={"If-Match": named}).status_code == status


def test_a_version_without_its_quotes_is_told_so(seller: TestClient) -> None:
    url = f"/v1/products/{add(seller)['id']}"
    refused = seller.put(url, json={"title": "x"}, headers={"If-Match": "1"})
    assert code_of(refused) == (412, "changed_meanwhile")
    assert "without quotes" in refused.json()["detail"]
    assert 'If-Match: "1"' in refused.json()["detail"]
    for old in ('"7"', 'W/"1"'):
        assert "without quotes" not in seller.delete(url, headers={"If-Match": old}).json()["detail"]


def test_of_changes_at_the_same_moment_exactly_one_wins(seller: TestClient) -> None:
    url = f"/v1/products/{add(seller)['id']}"
    answers: list[int] = []

    def change(i: int) -> None:
        answers.append(seller.put(url, json={"title": f"no. {i}"}, headers={"If-Match": '"1"'}).status_code)

    threads = [threading.Thread(target=change, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 412, 412, 412, 412, 412]
    assert seller.get(url).json()["version"] == 2


def test_changes_that_name_no_version_are_made_one_after_the_other(seller: TestClient) -> None:
    url = f"/v1/products/{add(seller)['id']}"
    answers: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: answers.append(seller.put(url, json={"title": f"no. {i}"}).status_code)
        )
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 5
    assert seller.get(url).json()["version"] == 6


def test_a_category_must_stand_in_the_tree(seller: TestClient) -> None:
    refused = seller.post("/v1/products", json={"title": "chair", "node_id": "nowhere"})
    assert code_of(refused) == (422, "unknown_category")
    url = f"/v1/products/{add(seller)['id']}"
    assert code_of(seller.put(url, json={"node_id": "nowhere"})) == (422, "unknown_category")


def test_a_category_that_the_tree_has_lost_may_stay(seller: TestClient, service: Service) -> None:
    added = add(seller)
    with service.database.writing() as session:
        row = session.get_one(ProductRow, added["id"])
        row.node_id, row.taxonomy_version = "gone", "old"
    url = f"/v1/products/{added['id']}"
    assert seller.get(url).json()["path"] is None
    kept = seller.put(url, json={"title": "new", "node_id": "gone"}).json()
    assert (kept["node_id"], kept["taxonomy_version"]) == ("gone", "old")


def test_only_a_prediction_of_ones_own_can_be_named(seller: TestClient) -> None:
    refused = seller.post("/v1/products", json={"title": "chair", "prediction_id": new_id()})
    assert code_of(refused) == (404, "not_found")


def test_what_cannot_be_used_is_refused(seller: TestClient) -> None:
    wrong: list[dict[str, Any]] = [
        {"title": "x" * 1001},
        {"title": "a\x00b"},
        {"colour": "red"},
        {"attributes": {"material": "beech"}},
        {"attributes": {"m" * 256: ["beech"]}},
        {"pictures": [{}]},
        {"pictures": [{"base64": "!"}]},
        {"pictures": [{"hash": "0" * 64}]},
        {"pictures": [{"hash": "0" * 64, "base64": "AA=="}]},
        {"pictures": [{"base64": "AA=="}] * 13},
        {"prediction_id": "x"},
        {"attributes": {f"a{i}": ["x" * 250] * 10 for i in range(7)}},
    ]
    for said in wrong:
        assert seller.post("/v1/products", json=said).status_code == 422, said
    assert seller.get("/v1/products").json()["items"] == []


def test_lists_go_page_by_page_newest_first_while_others_add(seller: TestClient) -> None:
    ids = [add(seller, title=f"chair {i}")["id"] for i in range(7)]
    seen: list[str] = []
    after = None
    while True:
        page = seller.get("/v1/products", params={"limit": 3} | ({"after": after} if after else {})).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
        add(seller, title="one more")
    assert seen == ids[::-1]
    for wrong in ("x", "bnVsbA", "WzEsMl0", "WyIyMDI2LTAxLTAxIiwgIngiXQ", "😀"):
        answer = seller.get("/v1/products", params={"after": wrong})
        assert answer.status_code in (200, 422)
        assert answer.status_code == 422 or wrong == "WyIyMDI2LTAxLTAxIiwgIngiXQ"


def test_a_page_of_large_products_is_shorter(seller: TestClient) -> None:
    ids = [add(seller, description="x" * 50_000)["id"] for _ in range(23)]
    first = seller.get("/v1/products", params={"limit": 200}).json()
    assert [item["id"] for item in first["items"]] == ids[:2:-1]
    second = seller.get("/v1/products", params={"limit": 200, "after": first["next"]}).json()
    assert ([item["id"] for item in second["items"]], second["next"]) == (ids[2::-1], None)


def test_a_product_is_added_once_for_each_key(seller: TestClient, as_role: AsRole) -> None:
    key = {"Idempotency-Key": "k1"}
    first = seller.post("/v1/products", json={"title": "chair"}, headers=key)
    again = seller.post("/v1/products", json={"title": "chair"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    for name in ("Location", "ETag"):
        assert again.headers[name] == first.headers[name]
    assert first.headers["Location"] == f"/v1/products/{first.json()['id']}"
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    other = seller.post("/v1/products", json={"title": "lamp"}, headers=key)
    assert code_of(other) == (409, "key_reused")
    refused = seller.post("/v1/products", json={"node_id": "nowhere"}, headers={"Idempotency-Key": "k2"})
    assert code_of(refused) == (422, "unknown_category")
    assert seller.post("/v1/products", json={"title": "lamp"}, headers={"Idempotency-Key": "k2"}).is_success
    assert len(seller.get("/v1/products").json()["items"]) == 2
    assert (
        as_role("seller").post("/v1/products", json={"title": "lamp"}, headers=key).is_success
    )  # keys are one's own


def test_a_proposal_is_made_once_for_each_key(seller: TestClient) -> None:
    ids = {
        seller.post("/v1/products/propose", json={"title": "chair"}, headers={"Idempotency-Key": "p"}).json()[
            "prediction_id"
        ]
        for _ in range(2)
    }
    assert len(ids) == 1


def test_who_asks_in_vain_leaves_no_picture(seller: TestClient, service: Service, draw: Draw) -> None:
    red = draw((200, 20, 20), 1)
    url = f"/v1/products/{add(seller)['id']}"
    old = {"If-Match": '"7"'}
    for refused in (
        seller.post(f"/v1/products/{new_id()}/pictures", files={"files": red}),
        seller.put(f"/v1/products/{new_id()}", json={"pictures": [in_base64(red)]}),
        seller.put(url, json={"pictures": [in_base64(red)]}, headers=old),
        seller.put(url, json={"pictures": [in_base64(red)], "node_id": "nowhere"}),
        seller.post(f"{url}/pictures", files={"files": red}, headers=old),
        seller.post("/v1/products", json={"pictures": [in_base64(red)], "prediction_id": new_id()}),
    ):
        assert refused.status_code in (404, 412, 422)
    assert list(service.pictures.hashes()) == []


def test_pages_part_products_of_the_same_moment(seller: TestClient, service: Service) -> None:
    same = now() - timedelta(days=1)
    with service.database.writing() as session:
        for _ in range(5):
            session.add(
                ProductRow(owner_id=seller.headers["X-User"], attributes={}, search_key="", created_at=same)
            )
    first = seller.get("/v1/products", params={"limit": 2}).json()
    second = seller.get("/v1/products", params={"limit": 2, "after": first["next"]}).json()
    third = seller.get("/v1/products", params={"limit": 2, "after": second["next"]}).json()
    assert third["next"] is None
    assert len({item["id"] for page in (first, second, third) for item in page["items"]}) == 5


def test_the_search_finds_words_of_the_title_and_takes_no_wildcards(seller: TestClient) -> None:
    add(seller, title="Folding DECK chair", brand="Lido")
    add(seller, title="Bar stool 100% steel_frame")
    add(seller, title="Äpfel & Birnen")

    def found(q: str) -> list[str]:
        return [item["title"] for item in seller.get("/v1/products", params={"q": q}).json()["items"]]

    assert found("chair deck") == ["Folding DECK chair"]
    assert found("LIDO") == ["Folding DECK chair"]
    assert found("äpfel") == ["Äpfel & Birnen"]
    assert found("steel_frame") == ["Bar stool 100% steel_frame"]
    assert found("chair stool") == []
    assert found("d_ck") == []
    assert found("%") == []
    assert found("_") == ["Bar stool 100% steel_frame"]


def test_pictures_come_as_base64_or_as_files_and_only_owners_see_them(
    seller: TestClient, as_role: AsRole, draw: Draw
) -> None:
    red, blue = draw((200, 20, 20), 1), draw((20, 20, 200), 2)
    added = add(seller, pictures=[in_base64(red), in_base64(red)])
    assert len(added["pictures"]) == 1
    url = f"/v1/products/{added['id']}"
    uploaded = seller.post(f"{url}/pictures", files=[("files", ("blue.png", blue, "text/html"))])
    assert uploaded.status_code == 200, uploaded.text
    assert uploaded.json()["version"] == 2
    shown = uploaded.json()["pictures"]
    assert shown[0] == added["pictures"][0]
    answer = seller.get(f"/v1/pictures/{shown[1]}")
    assert answer.content == blue
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    again = seller.get(f"/v1/pictures/{shown[1]}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert as_role("reviewer").get(f"/v1/pictures/{shown[1]}").content == blue
    for role in ("seller", "service"):
        other = as_role(role)
        assert code_of(other.get(f"/v1/pictures/{shown[1]}")) == (404, "not_found")
        # Nor can a hash alone, which is no secret, make it one's own.
        stolen = other.post("/v1/products", json={"pictures": [{"hash": shown[1]}]})
        assert code_of(stolen) == (422, "invalid_input")
    assert code_of(seller.get("/v1/pictures/..%2F..%2Fsecret")) in ((404, "not_found"), (422, "invalid_input"))
    broken = seller.post(f"{url}/pictures", files=[("files", ("x.png", b"<svg/>", "image/png"))])
    assert code_of(broken) == (422, "picture_unusable")


def test_pictures_are_ordered_anew_by_their_hashes(seller: TestClient, draw: Draw) -> None:
    added = add(seller, pictures=[in_base64(draw((9, 9, 9), seed)) for seed in range(3)])
    first, second, third = added["pictures"]
    url = f"/v1/products/{added['id']}"
    kept = seller.put(url, json={"title": "as they were"}).json()
    assert kept["pictures"] == added["pictures"]
    changed = seller.put(url, json={"pictures": [{"hash": third}, {"hash": first}]}).json()
    assert changed["pictures"] == [third, first]
    assert seller.get(f"/v1/pictures/{second}").status_code == 404


def test_a_picture_is_removed_with_the_last_product_that_shows_it(
    seller: TestClient, as_role: AsRole, service: Service, draw: Draw
) -> None:
    shared, alone = draw((200, 20, 20), 1), draw((20, 20, 200), 2)
    mine = add(seller, pictures=[in_base64(shared), in_base64(alone)])
    other = as_role("seller")
    theirs = add(other, pictures=[in_base64(shared)])
    age_files(service)
    assert seller.delete(f"/v1/products/{mine['id']}").status_code == 204
    assert service.pictures.get(mine["pictures"][1]) is None
    assert other.get(f"/v1/pictures/{theirs['pictures'][0]}").content == shared
    assert other.delete(f"/v1/products/{theirs['id']}").status_code == 204
    assert list(service.pictures.hashes()) == []
    with service.database.reading() as session:
        assert session.query(PictureRow).count() == 0


def test_a_sweep_removes_files_that_no_product_ever_showed(
    seller: TestClient, service: Service, draw: Draw
) -> None:
    kept = add(seller, pictures=[in_base64(draw((200, 20, 20), 1))])["pictures"]
    service.pictures.put(draw((20, 20, 200), 2))
    assert sweep(service.pictures, service.database) == 0, "it was put a moment ago"
    age_files(service)
    assert sweep(service.pictures, service.database) == 1
    assert list(service.pictures.hashes()) == kept


def test_a_proposal_is_saved_with_the_category_that_the_seller_chose(
    seller: TestClient, as_role: AsRole, client: TestClient
) -> None:
    proposed = seller.post("/v1/products/propose", json={"title": "folding deck chair no. 7"})
    assert proposed.status_code == 200, proposed.text
    answer = proposed.json()
    assert answer["outcome"] == "decided"
    added = add(
        seller, title="folding deck chair", node_id=answer["node_id"], prediction_id=answer["prediction_id"]
    )
    assert added["path"] == answer["path"]
    logged = seller.get(f"/v1/predictions/{answer['prediction_id']}").json()
    assert logged["answer"] == answer
    figures = as_role("admin").get("/v1/metrics").json()["overall"]
    assert figures["adoption"]["value"] == 1
    assert code_of(client.post("/v1/products/propose", json={"title": "chair"})) == (401, "not_signed_in")
    assert code_of(seller.post("/v1/products/propose", json={"colour": 1})) == (422, "invalid_input")
