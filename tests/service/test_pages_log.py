"""The page of one's own log: what was answered, what one said of it, and what one says now."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from shelver.service.state import Service
from shelver.service.tables.declarative import now
from shelver.service.tables.reviews import ReviewItem, ReviewText

Browsing = Callable[..., TestClient]
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def seller(browsing: Browsing) -> TestClient:
    return browsing("seller", "Ann")


def text_of(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def ask(client: TestClient, service: Service, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/predict", json={"title": "reading lamp with shade"} | said)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    service.log.settle(found["prediction_id"])
    return found


def said_of(client: TestClient, prediction_id: str) -> list[tuple[str, str | None]]:
    return [
        (one["action"], one["node_after"])
        for one in client.get(f"/v1/predictions/{prediction_id}/feedback").json()
    ]


def test_the_log_shows_ones_own_answers_with_their_confidence(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    assert "Nothing was asked yet" in text_of(seller, "/log")
    answer = ask(seller, service, product_id=f"x {SCRIPT}")
    page = text_of(seller, "/log")
    assert SCRIPT not in page
    assert "Lamps" in page
    assert f"{answer['confidence']:.0%}" in page
    for role in ("seller", "reviewer", "admin"):
        assert answer["prediction_id"] not in text_of(browsing(role), "/log")
    assert answer["prediction_id"] in text_of(browsing("admin"), "/log?whose=all")
    assert answer["prediction_id"] not in text_of(browsing("reviewer"), "/log?whose=all")


def test_the_log_is_filtered_by_days_and_outcome_and_exported_so(seller: TestClient, service: Service) -> None:
    ask(seller, service, product_id="=1+1")
    today, tomorrow = (f"{now() + timedelta(days=days):%Y-%m-%d}" for days in (0, 1))
    inside = text_of(seller, f"/log?from={today}&to={today}&outcome=decided")
    assert "Lamps" in inside
    for query in (f"from={tomorrow}", "outcome=outside", "to=2020-01-01"):
        assert "Nothing fits" in text_of(seller, f"/log?{query}")
    assert "Lamps" in text_of(seller, "/log?from=never&outcome=unheard-of")
    (link,) = re.findall(r'href="(/v1/predictions/export[^"]*)"', inside)
    lines = seller.get(unescape(link)).text.splitlines()
    assert len(lines) == 2
    assert "'=1+1" in lines[1]


def test_an_answer_is_found_right_or_wrong_with_one_press(seller: TestClient, service: Service) -> None:
    first, second = (ask(seller, service) for _ in range(2))
    for answer, action in ((first, "accept"), (second, "reject")):
        sent = seller.post(
            f"/log/{answer['prediction_id']}",
            data={"action": action, "back": "/log?outcome=decided&from=2026-01-01"},
        )
        assert sent.status_code == 303
        assert sent.headers["Location"] == "/log?outcome=decided&from=2026-01-01&done=judged"
    page = text_of(seller, "/log")
    assert ("Found right" in page, "Found wrong" in page) == (True, True)
    assert said_of(seller, first["prediction_id"]) == [("accept", first["node_id"])]
    away = seller.post(f"/log/{first['prediction_id']}", data={"action": "accept", "back": "//elsewhere.example"})
    assert away.headers["Location"].startswith(f"/log/{first['prediction_id']}")


def test_an_answer_is_corrected_and_the_judgement_is_changed(seller: TestClient, service: Service) -> None:
    answer = ask(seller, service)
    tree = service.models.current().taxonomy
    other = next(tree.ids[int(k)] for k in tree.leaves if tree.ids[int(k)] != answer["node_id"])
    path = f"/log/{answer['prediction_id']}"
    assert "Is it right?" in text_of(seller, path)
    for nothing in ({"action": "correct"}, {}, {"action": "praise"}, {"action": "correct", "node_id": "no such"}):
        assert seller.post(path, data=nothing).status_code == 422
    searched = seller.post(
        path, data={"action": "correct", "node_id_q": "lamp", "node_id_find": "1", "note": "why"}
    )
    assert (searched.status_code, ">why</textarea>" in searched.text) == (200, True)
    assert said_of(seller, answer["prediction_id"]) == []
    note = f"It is {SCRIPT}\r\nfor children"
    kept = seller.post(path, data={"action": "correct", "node_id": other, "note": note})
    assert kept.headers["Location"] == f"{path}?done=judged"
    page = text_of(seller, kept.headers["Location"])
    assert SCRIPT not in page
    assert f"It is {SCRIPT}\nfor children" in unescape(page)
    assert "Change what you said" in page
    seller.post(path, data={"action": "accept"})
    assert said_of(seller, answer["prediction_id"]) == [("correct", other), ("accept", answer["node_id"])]


def test_the_answers_of_others_are_read_and_judged_by_reviewers_alone(
    seller: TestClient, browsing: Browsing, service: Service
) -> None:
    answer = ask(seller, service)
    path = f"/log/{answer['prediction_id']}"
    assert browsing("seller").get(path).status_code == 404
    assert browsing("seller").post(path, data={"action": "accept"}).status_code == 404
    reviewer = browsing("reviewer", "Rob")
    assert reviewer.post(path, data={"action": "reject"}).status_code == 303
    assert "Rob" in text_of(reviewer, path)
    assert "Rob" not in text_of(seller, path)


def test_who_is_asked_to_judge_an_answer_sees_what_was_asked(seller: TestClient, service: Service) -> None:
    """Else he is told why not: the log itself keeps only a hash of it."""
    blind = ask(seller, service)
    named = ask(seller, service, product_id="my-1")
    kept = ask(seller, service)
    with service.database.writing() as session:
        item = {"prediction_id": kept["prediction_id"], "input_hash": "0", "reason": "review", "audit": False}
        session.execute(insert(ReviewItem), [{**item, "priority": 0.5}])
        text = {"prediction_id": kept["prediction_id"], "title": f"lamp {SCRIPT}"}
        session.execute(insert(ReviewText), [text])
    gone = seller.post("/v1/products", json={"title": "lamp", "prediction_id": named["prediction_id"]}).json()
    about = ask(seller, service, product_id=gone["id"])
    rows = rows_of(text_of(seller, "/log"))
    assert [name for name, row in rows.items() if "It is wrong" not in row] == [blind["prediction_id"]]
    assert "What was asked is kept only with listings." in rows[blind["prediction_id"]]
    assert f"Asked: “lamp {SCRIPT}”" in unescape(rows[kept["prediction_id"]])
    assert SCRIPT not in rows[kept["prediction_id"]]
    assert seller.delete(f"/v1/products/{gone['id']}").status_code == 204
    row = rows_of(text_of(seller, "/log"))[about["prediction_id"]]
    assert ("no listing has this id, or no longer" in row, "It is wrong" in row) == (True, False)
    page = text_of(seller, f"/log/{blind['prediction_id']}")
    assert ("nobody can see here whether it is right" in page, "Judge it from memory" in page) == (True, True)
    page = text_of(seller, f"/log/{kept['prediction_id']}")
    assert (f"lamp {SCRIPT}" in unescape(page), SCRIPT in page, "from memory" in page) == (True, False, False)


def rows_of(page: str) -> dict[str, str]:
    """The entries of the log, by the prediction's id."""
    parts = page.split('<h2><a href="/log/')[1:]
    return {part[:32]: part for part in parts}


def test_an_answer_leads_to_its_listing(seller: TestClient, service: Service) -> None:
    answer = ask(seller, service)
    body = {"title": "my lamp", "node_id": answer["node_id"], "prediction_id": answer["prediction_id"]}
    listing = seller.post("/v1/products", json=body).json()
    asked = ask(seller, service, product_id=listing["id"])
    for path in ("/log", f"/log/{answer['prediction_id']}", f"/log/{asked['prediction_id']}"):
        assert f'href="/listings/{listing["id"]}"' in text_of(seller, path)
