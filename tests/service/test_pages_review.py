"""The review in a browser without scripts: ten products by plain forms, a group, undo, and what others take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind
from sqlalchemy import select

from shelver.product import Product
from shelver.service.pages.review import HAND
from shelver.service.records.entries import Entry
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import FeedbackRow
from shelver.service.tables.reviews import ReviewItem
from shelver.taxonomy import Taxonomy

AsRole = Callable[..., TestClient]
FORM = re.compile(r"<form.*?</form>", re.DOTALL)
FIELD = re.compile(r"<(?:input|button)[^>]*>")


@pytest.fixture
def tree(service: Service) -> Taxonomy:
    return service.models.current().taxonomy


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


@pytest.fixture
def remy(browsing: AsRole) -> TestClient:
    return browsing("reviewer", "Rémy")


def doubtful(seller: TestClient, title: str = "vase", *, confidence: float | None = 0.3, **changes: Any) -> str:
    """A prediction that waits; its first suggestion is the tree's last node, its second the first one."""
    service = service_behind(seller)
    tree = service.models.current().taxonomy
    others = [{"node_id": tree.ids[0], "path": tree.paths[0], "confidence": 0.1}]
    said: dict[str, Any] = {
        "id": new_id(),
        "at": datetime.now(UTC),
        "user_id": seller.headers["X-User"],
        "input_hash": new_id(),
        "product_id": "sku-1",
        "answer": json.dumps({"path": tree.paths[-1], "alternatives": others}),
        "node_id": tree.ids[-1],
        "confidence": confidence,
        "outcome": "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 2.0,
    }
    entry = Entry(**{**said, **changes})
    product = Product("sku-1", title=title, description=None, brand=None)
    assert service.log.safe(service.log.write(service.waiting.with_texts(entry, product, None)))
    return entry.id


def look(browser: TestClient, address: str = "/review") -> str:
    answer = browser.get(address)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def press(browser: TestClient, form: str, button: str, **fields: Any) -> str:
    """Send a form by one of its buttons, as it stands but for `fields`; the page that it goes on to."""
    action = re.search(r'action="([^"]*)"', form)
    pressed = next(one for one in FIELD.findall(form) if one.startswith("<button") and button in one)
    action = re.search(r'formaction="([^"]*)"', pressed) or action
    assert action is not None
    data: dict[str, Any] = {}
    for one in [*(field for field in FIELD.findall(form) if field.startswith("<input")), pressed]:
        name, value = (re.search(rf' {part}="([^"]*)"', one) for part in ("name", "value"))
        if name is None or (('type="radio"' in one or 'type="checkbox"' in one) and " checked" not in one):
            continue
        data.setdefault(name[1], []).append(unescape(value[1] if value else ""))
    answer = browser.post(unescape(action[1]), data=data | fields)
    if answer.status_code == 200:
        return str(answer.text)
    assert answer.status_code == 303, answer.text
    return look(browser, answer.headers["Location"])


def form_with(page: str, text: str) -> str:
    return next(str(form) for form in FORM.findall(page) if text in form)


def card(page: str) -> str:
    """The form of the large card."""
    return form_with(page[page.index('<article class="card review-card"') :], 'value="confirm"')


def id_in(form: str) -> str:
    found = re.search(r'name="prediction_id" value="([0-9a-f]{32})"', form)
    assert found is not None
    return found[1]


def said_in(page: str) -> str:
    """What is read aloud, without its tags."""
    words = page[page.index('id="review-said"') :].split(">", 1)[1].split("</div>", 1)[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", words)).split())


def labels(service: Service) -> dict[str, tuple[str, str | None]]:
    with service.database.reading() as session:
        rows = session.scalars(select(FeedbackRow).where(FeedbackRow.current_of.is_not(None)))
        return {row.prediction_id: (row.action, row.node_after) for row in rows}


def test_ten_products_are_decided_by_plain_forms(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    ids = {doubtful(seller, f"vase {i}") for i in range(10)}
    page = look(remy)
    assert "10 products wait" in page
    assert "<article" not in page, "to look at it claims nothing"
    page = press(remy, form_with(page, "Begin"), "confirm")
    expected: dict[str, tuple[str, str | None]] = {}
    for i in range(10):
        form = card(page)
        one = id_in(form)
        assert page.count("<article") == min(HAND["cards"], 10 - i)
        if i == 0:
            page = press(remy, form, 'value="reject"')
            expected[one] = "reject", None
        elif i == 1:
            page = press(remy, form, 'value="confirm"', **{f"node_{one}": tree.ids[0]})
            expected[one] = "correct", tree.ids[0]
            assert f"The model had said: {' › '.join(tree.path_names(len(tree.ids) - 1))}." in said_in(page)
        else:
            page = press(remy, form, 'value="confirm"')
            expected[one] = "accept", tree.ids[-1]
    assert labels(service) == expected
    assert expected.keys() == ids
    assert "10 decided today" in page
    assert "Nothing waits" in page


def test_what_is_skipped_makes_room_for_others_and_comes_again_last(
    seller: TestClient, remy: TestClient, service: Service
) -> None:
    for i in range(7):
        doubtful(seller, f"vase {i}")
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    skipped = id_in(card(page))
    page = press(remy, card(page), 'value="skip"')
    assert "1 product skipped" in said_in(page)
    assert skipped not in page
    for _ in range(6):
        page = press(remy, card(page), 'value="confirm"')
    assert id_in(card(page)) == skipped
    assert "You skipped it before" in page
    assert len(labels(service)) == 6


def test_a_group_is_decided_in_one_go_without_those_that_are_taken_out(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    """Also where more of them wait than a hand has."""
    same = [doubtful(seller, f"vase {i}", input_hash="aa" * 32, confidence=0.1) for i in range(8)]
    other = doubtful(seller, "lamp", confidence=0.4)
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    form = card(page)
    assert "Decide it with 7 look-alikes" in form
    lead = id_in(form)
    page = press(remy, form, "/review/group")
    form = card(page)
    assert "8 products that look alike" in form
    ticked = re.findall(r'name="prediction_id" value="([0-9a-f]{32})" checked', form)
    assert (ticked[0], set(ticked)) == (lead, set(same))
    page = press(remy, form, 'value="confirm"', prediction_id=ticked[:-1])
    assert labels(service) == dict.fromkeys(ticked[:-1], ("accept", tree.ids[-1]))
    assert said_in(page).startswith("7 products: ")
    left = {one for one in (ticked[-1], other) if one in page}
    assert left == {ticked[-1], other}, "what was taken out stays in hand"
    page = press(remy, form_with(page, "decision_id"), 'data-does="undo"')
    assert said_in(page).startswith("Undone: 7 products: ")
    assert labels(service) == {}


def test_an_undone_decision_is_said_and_the_product_is_there_again(
    seller: TestClient, remy: TestClient, service: Service
) -> None:
    for i in range(3):
        doubtful(seller, f"<b>vase {i}</b>")
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    one = id_in(card(page))
    page = press(remy, card(page), 'value="reject"')
    undo = form_with(page, "decision_id")
    page = press(remy, undo, 'data-does="undo"')
    assert re.fullmatch(
        r"Undone: “<b>vase \d</b>”: no category is right. It is in front of you again.", said_in(page)
    )
    assert "<b>vase" not in page
    assert id_in(card(page)) == one
    assert labels(service) == {}
    page = press(remy, undo, 'data-does="undo"')
    assert said_in(page).startswith("This cannot be undone")


def test_an_undone_decision_on_what_somebody_else_has_judged_since_promises_nothing(
    seller: TestClient, remy: TestClient, as_role: AsRole
) -> None:
    doubtful(seller)
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    one = id_in(card(page))
    page = press(remy, card(page), 'value="confirm"')
    said = {"action": "reject"}
    assert as_role("reviewer", "Zoé").post(f"/v1/predictions/{one}/feedback", json=said).status_code == 201
    page = press(remy, form_with(page, "decision_id"), 'data-does="undo"')
    assert "Somebody else has judged it since" in said_in(page)
    assert "in front of you" not in said_in(page)
    assert "<article" not in page


def test_what_another_reviewer_took_in_the_meantime_is_said_and_nothing_is_lost(
    seller: TestClient, remy: TestClient, as_role: AsRole, service: Service
) -> None:
    ids = {doubtful(seller, f"vase {i}") for i in range(2)}
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    late = card(page)
    # His claims run out, and somebody else takes them.
    with service.database.writing() as session:
        for item in session.scalars(select(ReviewItem)):
            item.claimed_until = datetime(2026, 1, 1, tzinfo=UTC)
    other = as_role("admin", "Zoé")
    assert {one["prediction_id"] for one in other.post("/v1/review/claim", json={}).json()["items"]} == ids
    page = press(remy, late, 'value="reject"')
    assert said_in(page).startswith("1 product was taken by somebody else")
    assert labels(service) == {}
    assert "<article" not in page
    verdict = {"prediction_ids": [id_in(late)], "action": "accept"}
    assert other.post("/v1/review/decide", json={"verdicts": [verdict]}).json()["n_problems"] == 0
    assert labels(service).keys() == {id_in(late)}


def test_a_claim_that_nobody_else_took_is_still_in_hand(
    seller: TestClient, remy: TestClient, service: Service
) -> None:
    one = doubtful(seller)
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    with service.database.writing() as session:
        session.get_one(ReviewItem, one).claimed_until = datetime(2026, 1, 1, tzinfo=UTC)
    assert id_in(card(look(remy))) == one
    press(remy, card(page), 'value="confirm"')
    assert labels(service).keys() == {one}


def test_who_said_what_is_shown_where_they_do_not_agree(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    body = {"title": "bar stool"}
    quiet = doubtful(seller, product_id=None)
    assert seller.post("/v1/products", json=body | {"prediction_id": quiet}).is_success
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    assert "They do not agree" not in page
    press(remy, card(page), 'value="confirm"')
    loud = doubtful(seller, product_id=None)
    saved = {"prediction_id": loud, "node_id": tree.ids[1]}
    assert seller.post("/v1/products", json=body | saved).is_success
    assert seller.post(f"/v1/predictions/{loud}/feedback", json={"action": "reject"}).is_success
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    told = page[page.index("They do not agree") :].split("</dl>", 1)[0]
    names = [unescape(one) for one in re.findall(r"<dt>(.*?)</dt>", told)]
    assert names == ["Model", "Seller", "Seller’s shelf"]
    assert "the answer is wrong" in told
    assert tree.names[1] in told


def test_what_was_drawn_tells_nothing_of_what_others_said(
    make_app: Callable[..., TestClient],
) -> None:
    from service_rig import browser, signed_in

    client = make_app(audit_share=1.0)
    seller, remy = signed_in(client, "seller"), browser(client, "reviewer")
    tree = service_behind(client).models.current().taxonomy
    drawn = doubtful(seller, confidence=0.9)
    assert seller.post(f"/v1/predictions/{drawn}/feedback", json={"action": "accept"}).is_success
    correct = {"action": "correct", "node_id": tree.ids[0]}
    assert seller.post(f"/v1/predictions/{drawn}/feedback", json=correct).is_success
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    assert id_in(card(page)) == drawn
    assert "They do not agree" not in page
    page = press(remy, card(page), 'value="confirm"')
    assert f"The seller had said: {tree.names[0]}." in said_in(page), "it comes with the decision"
    drawn = doubtful(seller, confidence=0.9)
    assert seller.post(f"/v1/predictions/{drawn}/feedback", json={"action": "accept"}).is_success
    answer = remy.post("/review/claim", data={"filters": "1", "sure": "high"})
    assert "<article" not in look(remy, answer.headers["Location"]), "a filter would tell it apart"


def test_filters_choose_what_comes_next(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    sure, unsure = doubtful(seller, confidence=0.45), doubtful(seller, confidence=0.2)
    elsewhere = doubtful(seller, confidence=0.2, node_id=tree.ids[0])
    nothing = doubtful(seller, outcome="abstained", node_id=None, confidence=None, answer="{}")
    top = next(k for k in range(len(tree.ids)) if tree.level[k] == 1 and tree.lineage[-1, 0] == k)
    for filters, expected in (
        ({"sure": "low"}, {unsure, elsewhere, nothing}),
        ({"sure": "middle"}, {sure}),
        ({"reason": "abstained"}, {nothing}),
        ({"branch": tree.ids[top]}, {sure, unsure} | ({elsewhere} if tree.lineage[0, 0] == top else set())),
        ({"reason": "nonsense"}, {sure, unsure, elsewhere, nothing}),
    ):
        answer = remy.post("/review/claim", data={"filters": "1", **filters})
        page = look(remy, answer.headers["Location"])
        assert set(re.findall(r'data-card="([0-9a-f]{32})"', page)) == expected, filters
    page = press(remy, form_with(page, "/review/release"), "button")
    assert "4 products went back" in said_in(page)


def test_who_looks_at_his_hand_as_a_table_can_take_more(seller: TestClient, remy: TestClient) -> None:
    for i in range(HAND["cards"] + 2):
        doubtful(seller, f"vase {i}")
    press(remy, form_with(look(remy), "Begin"), "confirm")
    page = look(remy, "/review?view=table")
    assert page.count("<tr data-card") == HAND["cards"]
    page = press(remy, form_with(page, "Take up to"), "button small")
    assert page.count("<tr data-card") == HAND["cards"] + 2
    assert "Take up to" not in page, "nothing waits any more"


def test_rows_of_the_table_are_decided_each_with_its_own_category(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    ids = [doubtful(seller, f"vase {i}") for i in range(4)]
    page = press(remy, form_with(look(remy, "/review?view=table"), "Begin"), "confirm")
    table = form_with(page, "data-table")
    assert press(remy, table, 'value="confirm"').count("Nothing was decided: tick") == 1
    chosen = {f"node_{ids[0]}": tree.ids[0], f"node_{ids[1]}": "", f"node_{ids[2]}": tree.ids[-1]}
    page = press(remy, table, 'value="confirm"', prediction_id=ids[:3], **chosen)
    expected = {
        ids[0]: ("correct", tree.ids[0]),
        ids[1]: ("reject", None),
        ids[2]: ("accept", tree.ids[-1]),
    }
    assert labels(service) == expected
    assert "data-table" in look(remy), "the choice is kept"


def test_the_whole_tree_is_searched_without_a_script_and_enter_decides_nothing(
    seller: TestClient, remy: TestClient, service: Service, tree: Taxonomy
) -> None:
    one = doubtful(seller)
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    typed = {f"node_{one}_q": tree.names[1]}
    page = press(remy, card(page), 'value="confirm"', **typed)
    assert labels(service) == {}
    assert f'name="node_{one}" value="{tree.ids[1]}"' in card(page)
    assert card(page).count(f'name="node_{one}" value="{tree.ids[-1]}"') == 1, "what is chosen stands there once"
    cleared = {f"node_{one}_q": "", f"node_{one}": tree.ids[1]}
    press(remy, card(page), 'value="confirm"', **cleared)
    assert labels(service) == {one: ("correct", tree.ids[1])}


def test_a_category_that_the_tree_no_longer_has_decides_nothing(
    seller: TestClient, remy: TestClient, service: Service
) -> None:
    one = doubtful(seller)
    page = press(remy, form_with(look(remy), "Begin"), "confirm")
    page = press(remy, card(page), 'value="confirm"', **{f"node_{one}": "gone"})
    assert "the tree no longer has that category" in said_in(page)
    assert id_in(card(page)) == one
    assert labels(service) == {}


def test_a_number_in_the_address_may_be_any(remy: TestClient) -> None:
    for number in ("9" * 4400, "-1", "x", "٣", "²"):
        assert "went back" not in look(remy, f"/review?lost={number}&back=")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"prediction_id": ["x", "y"], "verdict": "confirm"},
        {"prediction_id": new_id(), "verdict": "confirm", "lead": "../../etc"},
        {"prediction_id": [new_id()] * 300, "verdict": "reject"},
        {"verdict": "skip", "prediction_id": new_id()},
        {"lead": "a" * 9000},
    ],
)
def test_odd_forms_do_no_harm(remy: TestClient, data: dict[str, Any]) -> None:
    for path in ("decide", "group", "claim", "release"):
        answer = remy.post(f"/review/{path}", data=data)
        assert answer.status_code == 303, (path, answer.text)
        assert look(remy, answer.headers["Location"])
    assert remy.post("/review/undo", data=data).status_code == 404
