"""Pages of listings: what a seller sees of his own, changes and deletes; what others may look at."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from shelver.service.state import Service
from shelver.service.tables.records import ProductRow

Browsing = Callable[..., TestClient]
Draw = Callable[[tuple[int, int, int], int], bytes]
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def seller(browsing: Browsing) -> TestClient:
    return browsing("seller", "Ann")


def add(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/products", json={"title": "deck chair"} | said)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


def read(client: TestClient, product_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/products/{product_id}").json()
    return found


def text_of(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def form_of(page: str) -> dict[str, list[str]]:
    """The fields of the form of a listing, as a browser without scripts would send them."""
    form = page[page.index('id="listing"') :]
    form = form[: form.index("</form>")]
    fields: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, kind = _attribute(tag, "name"), _attribute(tag, "type")
        if name is None or kind == "file" or (kind in ("radio", "checkbox") and " checked" not in tag):
            continue
        fields.setdefault(name, []).append(_attribute(tag, "value") or "")
    for name, value in re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>([^<]*)</textarea>', form):
        fields[name] = [unescape(value)]
    return fields


def _attribute(tag: str, name: str) -> str | None:
    found = re.search(rf' {name}="([^"]*)"', tag)
    return None if found is None else unescape(found[1])


def send(client: TestClient, product_id: str, fields: dict[str, list[str]], files: Any = None) -> Any:
    # As a form with files, which a browser sends as multipart.
    sent = files or [("files", ("", b"", "application/octet-stream"))]
    return client.post(f"/listings/{product_id}", data=fields, files=sent)


def test_nothing_listed_leads_to_sell_and_to_feeds(seller: TestClient, browsing: Browsing) -> None:
    empty = text_of(seller, "/listings")
    assert 'href="/sell"' in empty
    assert 'href="/feeds"' in empty
    assert "Nothing is listed yet" in empty
    assert 'href="/feeds"' not in text_of(browsing("reviewer"), "/listings")


def test_a_seller_finds_his_own_listings_and_no_others(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    tree = service.models.current().taxonomy
    leaf = int(tree.leaves[0])
    add(seller, title=f"chair {SCRIPT}", seller_product_id="DC-1", node_id=tree.ids[leaf])
    add(seller, title="lamp")
    page = text_of(seller, "/listings")
    assert SCRIPT not in page
    assert unescape(page).count(SCRIPT) == 1
    assert all(name in page for name in tree.path_names(leaf))
    assert ("No category yet" in page, "DC-1" in page) == (True, True)
    assert "lamp" not in text_of(seller, "/listings?q=chair")
    assert "lamp" not in text_of(seller, "/listings?q=DC-1")
    assert "chair" not in text_of(seller, "/listings?standing=without_category")
    assert "Nothing fits" in text_of(seller, "/listings?q=boat")
    assert "chair" in text_of(seller, f"/listings?node_id={tree.ids[leaf]}")
    assert "Nothing is listed yet" in text_of(browsing("seller"), "/listings")
    seen = text_of(browsing("reviewer"), "/listings")
    assert ("lamp" in seen, "Ann" in seen) == (True, True)
    assert browsing("service").get("/listings").status_code == 403
    assert browsing(None).get("/listings").headers["Location"].startswith("/sign-in")


def test_a_long_list_is_turned_page_by_page(seller: TestClient) -> None:
    for i in range(27):
        add(seller, title=f"chair no. {i};")
    first = text_of(seller, "/listings?q=chair")
    (after,) = re.findall(r'rel="next" href="([^"]*)"', first)
    second = text_of(seller, f"/listings{unescape(after)}")
    shown = [set(re.findall(r"no\. (\d+);", page)) for page in (first, second)]
    assert (len(shown[0]), len(shown[1]), shown[0] & shown[1]) == (24, 3, set())
    assert 'rel="next"' not in second


def test_a_form_that_is_sent_as_it_is_changes_nothing_but_the_version(
    seller: TestClient, service: Service, draw: Draw
) -> None:
    tree = service.models.current().taxonomy
    pictures = [{"base64": base64.b64encode(draw((200, 20, 20), seed)).decode()} for seed in (1, 2)]
    added = add(
        seller,
        title='deck "chair" & more',
        description="It folds.\nAnd stands.\n\n<b>",
        brand="Lido",
        seller_product_id="DC-104",
        attributes={"material": ["beech", "canvas, striped"], "colour": ["red"]},
        node_id=tree.ids[int(tree.leaves[0])],
        pictures=pictures,
    )
    answer = send(seller, added["id"], form_of(text_of(seller, f"/listings/{added['id']}")))
    assert (answer.status_code, answer.headers["Location"]) == (
        303,
        f"/listings/{added['id']}?done=listing-saved",
    )
    kept = ("version", "updated_at")
    same = read(seller, added["id"])
    assert {name: value for name, value in same.items() if name not in kept} == {
        name: value for name, value in added.items() if name not in kept
    }
    assert same["version"] == 2


def test_fields_pictures_and_attributes_are_changed_in_one_go(
    seller: TestClient, service: Service, draw: Draw
) -> None:
    pictures = [{"base64": base64.b64encode(draw((200, 20, 20), seed)).decode()} for seed in (1, 2, 3)]
    added = add(seller, attributes={"material": ["beech"]}, pictures=pictures)
    tree = service.models.current().taxonomy
    fields = form_of(text_of(seller, f"/listings/{added['id']}"))
    one, two, three = added["pictures"]
    assert fields["picture"] == [one, two, three]
    fields |= {"title": ["  Deck chair, red "], "brand": ["Lido"], "node_id": [tree.ids[int(tree.leaves[-1])]]}
    fields |= {"place": ["3", "1", "1.5"], "remove": [one]}
    fields |= {"attribute_name": ["material", "material", "colour"], "attribute_value": ["", "canvas", "red"]}
    new = draw((1, 2, 250), 9)
    answer = send(seller, added["id"], fields, [("files", ("new.png", new, "image/png"))])
    assert answer.status_code == 303, answer.text
    found = read(seller, added["id"])
    assert (found["title"], found["brand"]) == ("Deck chair, red", "Lido")
    assert found["attributes"] == {"material": ["canvas"], "colour": ["red"]}
    assert found["pictures"][:2] == [two, three]
    assert seller.get(f"/v1/pictures/{found['pictures'][2]}").content == new
    assert "The listing is saved." in text_of(seller, answer.headers["Location"])


def test_what_cannot_be_saved_comes_back_with_what_was_typed(seller: TestClient) -> None:
    add(seller, seller_product_id="taken")
    added = add(seller, title="mine")
    fields = form_of(text_of(seller, f"/listings/{added['id']}")) | {"title": ["typed"]}
    taken = send(seller, added["id"], fields | {"seller_product_id": ["taken"]})
    assert (taken.status_code, "Another of your listings has this id" in taken.text) == (422, True)
    broken = send(seller, added["id"], fields, [("files", ("a.png", b"no picture", "image/png"))])
    long = send(seller, added["id"], fields | {"brand": ["x" * 256]})
    gone = send(seller, added["id"], fields | {"node_id": ["no such"]})
    empty = send(seller, added["id"], fields | {"title": [" "]})
    assert (empty.status_code, "There is nothing to list yet" in empty.text) == (422, True)
    for answer in (taken, broken, long, gone):
        assert answer.status_code == 422
        assert form_of(answer.text)["title"] == ["typed"]
        assert 'aria-invalid="true"' in answer.text or 'class="error"' in answer.text
    assert read(seller, added["id"])["title"] == "mine"


def test_who_was_overtaken_sees_both_and_loses_nothing(seller: TestClient, draw: Draw) -> None:
    added = add(seller, title="first", attributes={"material": ["beech"]})
    fields = form_of(text_of(seller, f"/listings/{added['id']}")) | {"title": ["mine"]}
    theirs = {"title": "theirs", "brand": "Other", "attributes": {"material": ["steel"]}}
    assert seller.put(f"/v1/products/{added['id']}", json=theirs).status_code == 200
    new = draw((1, 2, 250), 9)
    answer = send(seller, added["id"], fields, [("files", ("new.png", new, "image/png"))])
    assert answer.status_code == 412
    assert "Somebody changed this listing" in answer.text
    assert "theirs" in answer.text
    assert "material: steel" in answer.text
    again = form_of(answer.text)
    assert again["title"] == ["mine"]
    assert read(seller, added["id"])["title"] == "theirs"
    assert len(read(seller, added["id"])["pictures"]) == 1
    assert send(seller, added["id"], again).status_code == 303
    found = read(seller, added["id"])
    assert (found["title"], found["brand"]) == ("mine", None)
    assert seller.get(f"/v1/pictures/{found['pictures'][0]}").content == new


def test_a_listing_is_deleted_after_a_question_and_only_as_it_was_seen(seller: TestClient) -> None:
    added = add(seller)
    asked = text_of(seller, f"/listings/{added['id']}/delete")
    assert 'name="version" value="1"' in asked
    seller.put(f"/v1/products/{added['id']}", json={"title": "changed"})
    late = seller.post(f"/listings/{added['id']}/delete", data={"version": "1"})
    assert late.status_code == 412
    gone = seller.post(f"/listings/{added['id']}/delete", data={"version": "2"})
    assert gone.headers["Location"] == "/listings?done=listing-deleted"
    assert seller.get(f"/listings/{added['id']}").status_code == 404


def test_others_look_at_a_listing_and_change_nothing(seller: TestClient, browsing: Browsing) -> None:
    added = add(seller, title=f"deck {SCRIPT}", description=SCRIPT, attributes={SCRIPT: [SCRIPT]})
    for role in ("reviewer", "admin"):
        other = browsing(role)
        page = text_of(other, f"/listings/{added['id']}")
        assert SCRIPT not in page
        assert "Ann" in page
        assert 'id="listing"' not in page
    assert send(browsing("reviewer"), added["id"], {"version": ["1"]}).status_code == 403
    assert 'id="listing"' not in text_of(browsing("reviewer"), f"/listings/{added['id']}?edit=true")
    stranger = browsing("seller")
    assert stranger.get(f"/listings/{added['id']}").status_code == 404
    assert send(stranger, added["id"], {"version": ["1"]}).status_code == 404
    assert stranger.post(f"/listings/{added['id']}/delete", data={"version": "1"}).status_code == 404
    assert read(seller, added["id"])["version"] == 1
    # An administrator mends it where he says that he wants to.
    admin = browsing("admin")
    fields = form_of(text_of(admin, f"/listings/{added['id']}?edit=true")) | {"title": ["mended"]}
    assert send(admin, added["id"], fields).status_code == 303
    found = read(seller, added["id"])
    assert (found["title"], found["owner_id"]) == ("mended", added["owner_id"])


def test_a_proposal_is_asked_for_taken_and_counts_as_accepted(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    added = add(seller, title="reading lamp with shade")
    asked = seller.post(f"/listings/{added['id']}/propose")
    assert asked.status_code == 303
    (entry,) = seller.get("/v1/predictions", params={"product_id": added["id"]}).json()["items"]
    assert "Proposed:" in text_of(seller, "/listings?standing=proposed")
    tree = service.models.current().taxonomy
    taken = seller.post(f"/listings/{added['id']}/category", data={"node_id": entry["node_id"], "version": "1"})
    assert taken.status_code == 303
    found = read(seller, added["id"])
    assert (found["node_id"], found["prediction_id"]) == (entry["node_id"], entry["id"])
    said = seller.get(f"/v1/predictions/{entry['id']}/feedback").json()
    assert [one["action"] for one in said] == ["accept"]
    assert "Nothing fits" in text_of(seller, "/listings?standing=proposed")
    # A reviewer sees it otherwise; the seller is told, and takes it.
    other = next(tree.ids[int(leaf)] for leaf in tree.leaves if tree.ids[int(leaf)] != entry["node_id"])
    judged = browsing("reviewer").post(
        f"/v1/predictions/{entry['id']}/feedback", json={"action": "correct", "node_id": other}
    )
    assert judged.status_code == 201
    page = text_of(seller, "/listings?standing=reviewed")
    assert "A reviewer disagrees" in page
    assert seller.post(f"/listings/{added['id']}/category", data={"node_id": other, "version": "2"}).is_redirect
    assert "Confirmed by a reviewer" in text_of(seller, f"/listings/{added['id']}")
    said = seller.get(f"/v1/predictions/{entry['id']}/feedback").json()
    assert [one["action"] for one in said] == ["accept", "correct"]


def test_answers_that_somebody_else_asked_for_under_its_id_are_no_proposals(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    added = add(seller)
    asked = browsing("seller").post("/v1/predict", json={"title": "lamp", "product_id": added["id"]}).json()
    service.log.settle(asked["prediction_id"])
    assert "Proposed:" not in text_of(seller, "/listings")
    assert "Nothing fits" in text_of(seller, "/listings?standing=proposed")


def test_without_scripts_the_tree_is_searched_in_the_form_and_nothing_is_saved(seller: TestClient) -> None:
    added = add(seller)
    fields = form_of(text_of(seller, f"/listings/{added['id']}")) | {"title": ["typed"]}
    answer = send(seller, added["id"], fields | {"node_id_q": ["lamp"], "node_id_find": ["1"]})
    assert answer.status_code == 200
    assert form_of(answer.text)["title"] == ["typed"]
    assert "Lamps" in answer.text
    assert read(seller, added["id"])["version"] == 1


def test_a_category_that_the_tree_has_lost_stays_until_another_is_chosen(
    seller: TestClient, service: Service
) -> None:
    added = add(seller)
    with service.database.writing() as session:
        session.get_one(ProductRow, added["id"]).node_id = "lost"
    page = text_of(seller, f"/listings/{added['id']}")
    assert "Category no longer exists" in page
    assert send(seller, added["id"], form_of(page) | {"title": ["other"]}).status_code == 303
    found = read(seller, added["id"])
    assert (found["title"], found["node_id"], found["path"]) == ("other", "lost", None)
    tree = service.models.current().taxonomy
    fields = form_of(text_of(seller, f"/listings/{added['id']}")) | {"node_id": [tree.ids[int(tree.leaves[0])]]}
    assert send(seller, added["id"], fields).status_code == 303
    assert read(seller, added["id"])["path"] == tree.paths[int(tree.leaves[0])]


def test_new_pictures_that_a_form_comes_back_without_are_asked_for_again(seller: TestClient, draw: Draw) -> None:
    added = add(seller)
    fields = form_of(text_of(seller, f"/listings/{added['id']}"))
    picture = [("files", ("a.png", draw((9, 99, 9), 40), "image/png"))]
    path, again = f"/listings/{added['id']}", "Choose the new pictures again."
    for said in ({"node_id_q": "lamp", "node_id_find": "1"}, {"title": "t" * 1001}):
        back = seller.post(path, data=fields | said, files=picture)
        assert (back.status_code in (200, 422), again in back.text) == (True, True), said
        assert again not in seller.post(path, data=fields | said).text
    assert read(seller, added["id"])["pictures"] == []
    # Where somebody else was quicker they are added at once, and nothing is to be chosen again.
    seller.put(f"/v1/products/{added['id']}", json={"title": "changed"})
    back = seller.post(path, data=fields, files=picture)
    assert (back.status_code, again in back.text) == (412, False)
    assert len(read(seller, added["id"])["pictures"]) == 1


def test_a_listing_that_is_no_more_is_told_in_words_of_sellers(seller: TestClient) -> None:
    page = text_of(seller, "/listings/00000000000000000000000000000000", 404)
    assert ("There is no such listing" in page, 'href="/listings">To the listings' in page) == (True, True)
    assert "<p>no product" not in page
    assert "There is no such listing" not in text_of(seller, "/log/00000000000000000000000000000000", 404)
