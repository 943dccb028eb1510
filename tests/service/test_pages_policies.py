"""The pages of policies and of the tree, as a browser without scripts sees them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from markupsafe import escape
from sqlalchemy import insert
from test_service_node_figures import shop
from test_service_preview import labelled, prediction

from shelver.service.state import Service
from shelver.service.tables.records import FeedbackRow, PredictionRow

Browsing = Callable[..., TestClient]
REVIEW = {"decoder": "best_leaf", "unsure": "review"}


@pytest.fixture
def filled(service: Service, browsing: Browsing) -> list[Any]:
    """600 predictions with labels: of those surer than .6 all are right, of the others every second."""
    sure = [0.3 + 0.69 * i / 599 for i in range(600)]
    rows = [prediction(service, p) for p in sure]
    right = [p > 0.6 or i % 2 == 0 for i, p in enumerate(sure)]
    wrong = next(i for i in service.models.current().taxonomy.ids if i != rows[0]["node_id"])
    user = browsing("reviewer").headers["X-User"]
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), rows)
        session.execute(insert(FeedbackRow), labelled(rows, user, right, wrong))
    return rows


def hidden(page: str, name: str, form: str) -> str:
    """A hidden field of a form."""
    _, _, rest = page.partition(f'action="{form}"')
    found = re.search(rf'name="{name}" value="([^"]*)"', rest)
    assert found is not None
    return html.unescape(found[1])


def saved(admin: TestClient, page: str, name: str, **changes: Any) -> Any:
    """The answer to the form that saves a policy."""
    form = f"/policies/{name}/save"
    data = {one: hidden(page, one, form) for one in ("policy", "before", "like")}
    return admin.post(form, data={**data, "sure": "true", **changes})


def test_a_target_is_looked_at_saved_and_taken_back(
    browsing: Browsing, service: Service, filled: list[Any]
) -> None:
    admin = browsing("admin")
    admin.put("/v1/policies/default", json=REVIEW)
    page = admin.get("/policies/default?target=90")
    assert page.status_code == 200
    policy = json.loads(hidden(page.text, "policy", "/policies/default/save"))
    assert "promise" not in policy
    assert "No promise: people also accept what they did not look at" in page.text
    assert "carries a promise" not in page.text.partition('id="target-form"')[2]
    assert "more labels" not in page.text
    n_left = sum(row["confidence"] < policy["thresholds"][0] for row in filled)
    assert re.search(rf">{n_left}</strong> no longer decided", page.text)
    assert page.text.count("no title stored</span>") == 10
    assert "skip=10" in page.text  # the next ones
    later = admin.get("/policies/default?target=90&skip=10").text
    assert "skip=20" in later
    # Nothing is saved yet, nor without the tick.
    assert service.models.policy().thresholds == (0.0,)
    refused = saved(admin, page.text, "default", sure="")
    assert refused.status_code == 422
    assert "Tick the box" in refused.text
    assert service.models.policy().thresholds == (0.0,)
    answer = saved(admin, page.text, "default")
    assert (answer.status_code, answer.headers["location"]) == (303, "/policies/default?done=policy-saved")
    assert list(service.models.policy().thresholds) == policy["thresholds"]
    shown = admin.get("/policies/default?done=policy-saved").text
    assert shown.count("Look at it again</button>") == 2  # the history
    assert "a admin" in shown
    answer = admin.post("/policies/default/reset")
    assert answer.headers["location"] == "/policies/default?done=policy-reset"
    assert service.models.policy().unsure == "stop"


def test_who_was_overtaken_is_told_and_overwrites_nothing(
    browsing: Browsing, service: Service, filled: list[Any]
) -> None:
    admin = browsing("admin")
    page = admin.get("/policies/default?target=90").text
    admin.put("/v1/policies/default", json={"decoder": "greedy"})
    answer = saved(admin, page, "default")
    assert answer.status_code == 409
    assert "Somebody else has changed this policy" in answer.text
    assert service.models.policy().decoder == "greedy"


def test_a_new_policy_is_written_as_text_and_deleted(browsing: Browsing, service: Service) -> None:
    admin = browsing("admin")
    answer = admin.get("/policies?name=tax&like=default")
    assert answer.headers["location"] == "/policies/tax?like=default"
    assert "not saved yet" in admin.get("/policies/tax?like=default").text
    text = json.dumps({"decoder": "climb", "thresholds": [0.8, 0.9], "unsure": "review"})
    looked = admin.post("/policies/tax/try", data={"policy": text, "like": "default"})
    assert looked.status_code == 200
    assert "0.8 · 0.9" in looked.text
    assert saved(admin, looked.text, "tax").status_code == 303
    assert service.models.policy("tax").thresholds == (0.8, 0.9)
    listed = admin.get("/policies").text
    assert 'href="/policies/tax"' in listed
    assert admin.post("/policies/tax/reset").headers["location"] == "/policies?done=policy-deleted"
    assert admin.get("/policies/tax").status_code == 404
    wrong = admin.get("/policies?name=a b")
    assert wrong.status_code == 422
    assert "Letters, digits" in wrong.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "EOF"),
        ('{"decoder": "best"}', "decoder: "),
        ('{"treshold": [0.5]}', "the fields are decoder, thresholds"),
        ('{"strict": {"<script>": 0.5}}', "&lt;script&gt;"),
    ],
)
def test_a_text_that_is_no_policy_comes_back_with_what_is_wrong(text: str, says: str, browsing: Browsing) -> None:
    answer = browsing("admin").post("/policies/default/try", data={"policy": text})
    assert answer.status_code == 422
    assert says in answer.text
    assert str(escape(text)) in answer.text  # what was typed is still there


def test_a_policy_without_thresholds_is_shown_without_a_preview(browsing: Browsing) -> None:
    admin = browsing("admin")
    admin.put("/v1/policies/money", json={"decoder": "cost"})
    page = admin.get("/policies/money")
    assert page.status_code == 200
    assert "no threshold to move" in page.text


def test_policies_are_for_administrators_and_speak_french(browsing: Browsing) -> None:
    assert browsing("reviewer").get("/policies").status_code == 403
    admin = browsing("admin")
    page = admin.get("/policies/default", headers={"Accept-Language": "fr"}).text
    assert "Quelle part doit être juste ?" in page
    assert "Nobody" not in page


def test_the_tree_is_explored_down_to_its_products(browsing: Browsing, service: Service) -> None:
    tree = service.models.current().taxonomy
    reviewer = browsing("reviewer")
    with service.database.writing() as session:
        shop(session, tree, reviewer.headers["X-User"], 300, 5)
    root = reviewer.get("/taxonomy")
    assert root.status_code == 200
    (home,) = tree.find_paths(["Home"]).tolist()
    assert f"node={tree.ids[home]}" in root.text
    page = reviewer.get("/taxonomy", params={"node": tree.ids[home], "sort": "worst", "days": 90}).text
    assert "All categories" in page
    assert "Decided here, but truly elsewhere" in page
    assert "&lt;i&gt;thing" in page
    assert "<i>thing" not in page
    following = re.search(r'rel="next" href="(\?[^"]+)"', page)
    assert following is not None
    second = reviewer.get("/taxonomy" + html.unescape(following[1])).text
    first_ids, second_ids = (set(re.findall(r"/listings/([0-9a-f]{32})", one)) for one in (page, second))
    assert len(first_ids) == 24
    assert second_ids
    assert not first_ids & second_ids
    own = reviewer.get("/taxonomy", params={"node": tree.ids[home], "below": "false"}).text
    assert set(re.findall(r"/listings/([0-9a-f]{32})", own)) != first_ids
    assert reviewer.get("/taxonomy?node=nowhere").status_code == 404


def test_the_tree_is_searched_without_a_script(browsing: Browsing) -> None:
    reviewer = browsing("reviewer")
    page = reviewer.get("/taxonomy", params={"q": "chiars"}).text
    assert "Home › Chairs" in page
    assert "Found: " in page
    nothing = reviewer.get("/taxonomy", params={"q": "<script>alert(1)</script> qqqq"}).text
    assert "No category has these words" in nothing
    assert "<script>alert" not in nothing
    french = reviewer.get("/taxonomy", headers={"Accept-Language": "fr"}).text
    assert "Chercher une catégorie" in french
    assert browsing("seller").get("/taxonomy").status_code == 403


def test_a_policy_of_a_large_tree_is_saved_by_the_page(browsing: Browsing, service: Service) -> None:
    admin = browsing("admin")
    node_id = service.models.current().taxonomy.ids[0]
    text = json.dumps({"strict": {node_id: 0.9}}) + " " * 150_000
    looked = admin.post("/policies/tax/try", data={"policy": text, "like": "default"})
    assert looked.status_code == 200, looked.text[:500]
    assert saved(admin, looked.text, "tax", policy=text).status_code == 303
    assert service.models.policy("tax").strict == {node_id: 0.9}


def test_a_promise_that_somebody_typed_is_not_kept(browsing: Browsing, service: Service) -> None:
    admin = browsing("admin")
    promise = {"precision": 0.99, "model_version": service.models.current().model_version, "catalog_version": "x"}
    promise |= {"split": "test", "n_products": 1000, "n_decided": 900, "n_right": 899, "coverage": 0.9}
    text = json.dumps({"thresholds": [0.0], "promise": promise})
    page = admin.get("/policies/default").text
    assert saved(admin, page, "default", policy=text).status_code == 303
    assert service.models.policy("default").thresholds == (0.0,)
    assert service.models.policy("default").promise is None
