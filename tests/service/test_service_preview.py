"""A policy before it is saved: the log decides again as the model would, and promises rest on exact tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from shelver.decide import Policy, Predictions, Probabilities, decide
from shelver.errors import ConfigError
from shelver.service.models.evidence import Evidence, Labels, evidence_of
from shelver.service.models.kept import Kept
from shelver.service.models.preview import previewed
from shelver.service.models.preview_payloads import PreviewIn
from shelver.service.models.replay import decided_again, right_of, stored_of, turns_of
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.taxonomy import SiblingGroups, Taxonomy

As = Callable[..., TestClient]
LEAVES = 30


@pytest.fixture(scope="module")
def groups() -> SiblingGroups:
    paths = [("abc"[i % 3], f"{i % 3}-{i % 6}", f"leaf {i}") for i in range(LEAVES)]
    return SiblingGroups.of(Taxonomy.from_paths(paths))


def distributions(groups: SiblingGroups, n: int, seed: int = 1) -> Probabilities:
    scores = np.random.default_rng(seed).normal(0, 2.5, (n, groups.n_slots)).astype(np.float32)
    return Probabilities(groups.distribution(scores), np.full(n, 1, np.int8))


def answers(said: Predictions) -> list[str]:
    """What the log would have of them."""
    return [
        json.dumps(
            {
                "outcome": one.outcome,
                "node_id": one.node_id,
                "level_confidence": one.level_confidence,
                "alternatives": [{"node_id": a.node_id, "confidence": a.confidence} for a in one.alternatives],
            }
        )
        for one in said
    ]


POLICIES = [
    Policy(decoder="best_leaf", unsure="review", thresholds=(0.4,)),
    Policy(decoder="best_leaf", unsure="suggest", thresholds=(0.7,), max_level=2),
    Policy(decoder="best_leaf", thresholds=(0.5,)),
    Policy(decoder="climb", thresholds=(0.7, 0.5, 0.4), unsure="review"),
    Policy(decoder="climb", thresholds=(0.3,), min_level=2, max_level=2, unsure="review"),
]


@pytest.mark.parametrize("new", POLICIES)
@pytest.mark.parametrize("unsure", ["review", "suggest"])
def test_the_log_decides_again_as_the_model_would(new: Policy, unsure: Any, groups: SiblingGroups) -> None:
    tree, probs = groups.taxonomy, distributions(groups, 400)
    before = Policy(decoder="best_leaf", thresholds=(0.6,), unsure=unsure, n_top=LEAVES)
    stored = stored_of(answers(decide(probs, tree, groups, before)), tree)
    expected = decide(probs, tree, groups, new)
    found = decided_again(stored, new, groups)
    wanted = np.where(expected.answered, expected.node, -1)
    assert len(np.unique(wanted < 0)) == 2
    assert (found == wanted).mean() > 0.995  # the last digit of a sum
    few = stored_of(answers(decide(probs, tree, groups, before.model_copy(update={"n_top": 3}))), tree)
    again = decided_again(few, new, groups)
    # Of less that was listed, less is sure: never another branch, never deeper.
    assert np.all((again < 0) | tree.is_ancestor_or_self(again, np.where(wanted < 0, again, wanted)))


def test_strict_nodes_hold_their_branch_back(groups: SiblingGroups) -> None:
    tree, probs = groups.taxonomy, distributions(groups, 300)
    open_policy = Policy(decoder="best_leaf", n_top=LEAVES)
    stored = stored_of(answers(decide(probs, tree, groups, open_policy)), tree)
    careful = Policy(decoder="climb", thresholds=(0.2,), strict={tree.ids[0]: 0.9}, unsure="review")
    expected = decide(probs, tree, groups, careful)
    wanted = np.where(expected.answered, expected.node, -1)
    assert (decided_again(stored, careful, groups) == wanted).mean() > 0.995


def test_what_was_abstained_from_is_unknown_and_what_is_strange_stays_away(groups: SiblingGroups) -> None:
    tree, probs = groups.taxonomy, distributions(groups, 60)
    silent = stored_of(answers(decide(probs, tree, groups, Policy(thresholds=(0.99,), unsure="abstain"))), tree)
    assert silent.unknown.any()
    strange = replace(probs, outside=np.ones(60, np.float32))
    away = stored_of(answers(decide(strange, tree, groups, Policy(outside=0.9))), tree)
    assert not away.unknown.any()
    assert (decided_again(away, Policy(), groups) == -1).all()
    assert stored_of(["{}", "no JSON", "[]"], tree).unknown.all()


@pytest.mark.parametrize("decoder", ["cost", "top_n"])
def test_a_decoder_without_thresholds_has_no_preview(decoder: Any, groups: SiblingGroups) -> None:
    with pytest.raises(ConfigError, match="best_leaf, greedy, climb"):
        decided_again(stored_of([], groups.taxonomy), Policy(decoder=decoder), groups)


@pytest.mark.parametrize("policy", POLICIES[:3] + POLICIES[4:])
def test_turns_count_what_deciding_again_at_a_threshold_decides(policy: Policy, groups: SiblingGroups) -> None:
    tree, probs = groups.taxonomy, distributions(groups, 300)
    stored = stored_of(answers(decide(probs, tree, groups, Policy(n_top=LEAVES))), tree)
    truth = np.random.default_rng(3).choice(tree.leaves, 300).astype(np.int32)
    truth[::3] = stored.node[::3]
    turns = turns_of(stored, truth, policy, groups)
    for threshold in (0.9, 0.6, 0.35, 0.1):
        decided = decided_again(stored, policy.model_copy(update={"thresholds": (threshold,)}), groups)
        n, wrong = turns.counts(threshold)
        assert int(n[0]) == (decided >= 0).sum()
        assert int(n[0] - wrong[0]) == right_of(decided, truth, tree).sum()


def prediction(
    service: Service, sure: float, *, policy: str = "default", node: str = "Toys", **changes: Any
) -> Any:
    """A row of the log: this place or else a lamp."""
    tree = service.models.current().taxonomy
    (k,) = tree.find_paths(node.split(" > ")).tolist()
    (lamp,) = tree.find_paths(["Home", "Lamps"]).tolist()
    levels = [*([1.0] * (int(tree.level[k]) - 1)), sure]
    places = [(tree.ids[k], sure), (tree.ids[lamp], 1 - sure)]
    answer = {
        "outcome": "decided",
        "node_id": tree.ids[k],
        "level_confidence": levels,
        "alternatives": [{"node_id": i, "confidence": p} for i, p in places],
    }
    row = {
        "id": new_id(),
        "at": now() - timedelta(hours=1),
        "user_id": None,
        "input_hash": "0" * 64,
        "product_id": None,
        "answer": json.dumps(answer),
        "node_id": tree.ids[k],
        "confidence": sure,
        "outcome": "decided",
        "policy": policy,
        "model_version": service.models.current().model_version,
        "taxonomy_version": tree.version,
        "modality": "text",
        "latency_ms": 1.0,
    }
    return {**row, **changes}


def labelled(rows: list[Any], user_id: str, right: list[bool], wrong_node: str) -> list[Any]:
    """A reviewer's judgement of each."""
    return [
        {
            "id": new_id(),
            "prediction_id": row["id"],
            "user_id": user_id,
            "role": "reviewer",
            "at": now(),
            "action": "accept" if is_right else "correct",
            "current_of": f"{row['id']}/{user_id}",
            "audit": False,
            "predicted_at": row["at"],
            "node_before": row["node_id"],
            "node_after": row["node_id"] if is_right else wrong_node,
            "confidence": row["confidence"],
            "outcome": row["outcome"],
            "policy": row["policy"],
            "model_version": row["model_version"],
            "taxonomy_version": row["taxonomy_version"],
        }
        for row, is_right in zip(rows, right, strict=True)
    ]


@pytest.fixture
def filled(service: Service, as_role: As) -> list[Any]:
    """600 labelled predictions: of those surer than .6 one in a hundred is wrong, of the others every second."""
    sure = [0.3 + 0.69 * i / 599 for i in range(600)]
    rows = [prediction(service, p) for p in sure]
    right = [i % 100 != 0 if p > 0.6 else i % 2 == 0 for i, p in enumerate(sure)]
    wrong = next(i for i in service.models.current().taxonomy.ids if i != rows[0]["node_id"])
    user = as_role("reviewer").headers["X-User"]
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), rows)
        session.execute(insert(FeedbackRow), labelled(rows, user, right, wrong))
    return rows


def preview(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/policies/preview", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


REVIEW = {"decoder": "best_leaf", "unsure": "review"}


def test_labels_show_what_a_target_would_change(as_role: As, filled: list[Any]) -> None:
    admin = as_role("admin")
    seen = preview(admin, policy=REVIEW, precision=0.9, limit=5)
    assert (seen["source"], seen["n_labelled"], seen["reached"]) == ("labels", 600, True)
    (threshold,) = seen["policy"]["thresholds"]
    assert 0.6 < threshold < 0.945
    sure = np.array([row["confidence"] for row in filled], np.float32)
    assert seen["then"]["coverage"] == pytest.approx((sure >= np.float32(threshold)).mean())
    figure = seen["then"]["precision"]
    assert figure["low"] < figure["value"] <= figure["high"]
    assert figure["value"] >= 0.9
    assert seen["now"]["coverage"] == 1.0
    coverage = [point["coverage"] for point in seen["curve"]]
    assert coverage == sorted(coverage)
    assert 10 < len(coverage) <= 40
    recent = seen["recent"]
    assert (recent["n"], recent["n_unknown"], recent["complete"]) == (600, 0, True)
    assert recent["n_no_longer_decided"] == (sure < np.float32(threshold)).sum()
    assert recent["n_newly_decided"] == recent["n_deeper"] == recent["n_higher"] == 0
    assert len(recent["changed"]) == 5
    assert {one["change"] for one in recent["changed"]} == {"no_longer_decided"}
    # What it says can be saved as it is; then nothing would change any more.
    assert admin.put("/v1/policies/default", json=seen["policy"]).status_code == 200
    after = preview(admin)
    assert after["recent"]["n_no_longer_decided"] == 0
    assert after["now"]["coverage"] == after["then"]["coverage"] == seen["then"]["coverage"]
    back = preview(admin, policy=REVIEW)["recent"]
    assert back["n_newly_decided"] == recent["n_no_longer_decided"]


def test_accepts_of_sellers_promise_nothing_however_many_they_are(as_role: As, service: Service) -> None:
    # 80 of 100 are right in truth; sellers accept 19 of 20 of the others, and what is audited tells.
    draw = np.random.default_rng(4)
    rows = [prediction(service, 0.3 + 0.69 * i / 2999) for i in range(3000)]
    right = draw.random(3000) < 0.8
    accepted = right | (draw.random(3000) < 0.95)
    wrong = next(i for i in service.models.current().taxonomy.ids if i != rows[0]["node_id"])
    seller, reviewer = (as_role(role).headers["X-User"] for role in ("seller", "reviewer"))
    audited = [i for i in range(3000) if accepted[i] and i % 20 == 0]
    sellers = [{**one, "role": "seller"} for one in labelled(rows, seller, accepted.tolist(), wrong)]
    for i in audited:
        sellers[i]["audit"] = True
    again = labelled([rows[i] for i in audited], reviewer, [bool(right[i]) for i in audited], wrong)
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), rows)
        session.execute(insert(FeedbackRow), sellers + again)
    admin = as_role("admin")
    assert admin.get("/v1/metrics").json()["overall"]["audited_accuracy"]["high"] < 0.9
    for target in (0.9, 0.95):
        seen = preview(admin, policy=REVIEW, precision=target)
        assert (seen["source"], seen["reached"], seen["promised"]) == ("labels", True, False)
        assert seen["then"]["precision"]["low"] > 0.95, "the labels alone would carry it"
        assert seen["policy"].get("promise") is None
        assert "accept what they did not look at" in seen["reason"]
        assert "more labelled products" not in seen["reason"], "of such labels more are no help"


def test_a_target_that_labels_just_reach_is_the_loosest_threshold(as_role: As, filled: list[Any]) -> None:
    seen = preview(as_role("admin"), policy=REVIEW, precision=0.995)
    assert not seen["promised"]
    assert seen["policy"].get("promise") is None
    assert seen["reason"]
    assert seen["then"]["precision"]["value"] >= 0.995  # what just reaches it on these products


def test_a_target_that_no_threshold_reaches_leaves_the_policy_alone(
    as_role: As, filled: list[Any], service: Service
) -> None:
    wrong = next(i for i in service.models.current().taxonomy.ids if i != filled[0]["node_id"])
    with service.database.writing() as session:
        session.execute(update(FeedbackRow).values(node_after=wrong, action="correct"))
    seen = preview(as_role("admin"), policy={**REVIEW, "thresholds": [0.4]}, precision=0.9)
    assert (seen["reached"], seen["promised"]) == (False, False)
    assert seen["policy"]["thresholds"] == [0.4]
    assert "No threshold reaches 0.9" in seen["reason"]


def test_titles_of_stored_products_stand_beside_what_changes(
    as_role: As, filled: list[Any], service: Service
) -> None:
    admin = as_role("admin")
    latest = min(filled, key=lambda row: row["confidence"])
    with service.database.writing() as session:
        session.add(
            ProductRow(
                owner_id=admin.headers["X-User"],
                title="<b>Deck chair</b>",
                attributes={},
                search_key="deck chair",
                prediction_id=latest["id"],
            )
        )
    seen = preview(admin, policy={**REVIEW, "thresholds": [0.301]}, limit=200)["recent"]
    (changed,) = [one for one in seen["changed"] if one["prediction_id"] == latest["id"]]
    assert changed["title"] == "<b>Deck chair</b>"
    assert (changed["path_before"], changed["path_after"]) == ("Toys", None)
    pages = [
        preview(admin, policy={**REVIEW, "thresholds": [0.9]}, limit=50, skip=50 * i)["recent"]["changed"]
        for i in range(3)
    ]
    ids = [one["prediction_id"] for page in pages for one in page]
    assert len(ids) == len(set(ids)) == 150


def test_without_labels_and_report_nothing_is_reckoned(as_role: As) -> None:
    seen = preview(as_role("reviewer"), policy=REVIEW, precision=0.9)
    assert (seen["source"], seen["promised"], seen["curve"], seen["now"], seen["then"]) == (
        None,
        False,
        [],
        None,
        None,
    )
    assert "labelled" in seen["reason"]
    assert seen["recent"]["coverage_then"] is None


def test_labels_of_a_policy_that_keeps_nothing_are_left_out(
    as_role: As, filled: list[Any], service: Service
) -> None:
    silent: dict[str, Any] = {"outcome": "abstained", "node_id": None, "level_confidence": [], "alternatives": []}
    rows = [
        prediction(service, 0.9, policy="wary"),
        prediction(service, 0.2, policy="wary", answer=json.dumps(silent), outcome="abstained"),
    ]
    user = as_role("reviewer").headers["X-User"]
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), rows)
        session.execute(insert(FeedbackRow), labelled(rows, user, [True, True], rows[0]["node_id"]))
    assert preview(as_role("admin"), policy=REVIEW)["n_labelled"] == 600


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"policy": {"decoder": "cost"}}, "best_leaf, greedy, climb"),
        ({"policy": {"strict": {"nowhere": 0.5}}}, "nowhere"),
        ({"precision": 1.0}, "body.precision"),
        ({"target": 0.9}, "Allowed: name, policy, precision"),
    ],
)
def test_a_preview_that_cannot_be_is_refused_with_what_helps(body: Any, says: str, as_role: As) -> None:
    answer = as_role("admin").post("/v1/policies/preview", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert says in answer.text
    assert as_role("admin").post("/v1/policies/preview", json={"name": "no"}).status_code == 404


def test_a_slider_reads_the_log_once(service: Service, filled: list[Any]) -> None:
    kept, loaded, reads = Kept(), service.models.current(), 0
    read = kept.get

    def counted(key: Any, load: Any) -> Any:
        def once() -> Any:
            nonlocal reads
            reads += 1
            return load()

        return read(key, once)

    kept.get = counted  # type: ignore[method-assign, assignment]
    with service.database.reading() as session:
        for target in (0.8, 0.9, 0.95):
            asked = PreviewIn(policy=Policy.model_validate(REVIEW), precision=target)
            assert previewed(session, loaded, kept, asked).recent.n == 600
    assert reads == 2


def test_twenty_thousand_predictions_are_previewed_within_a_second(service: Service) -> None:
    rows = [prediction(service, 0.3 + 0.69 * (i % 997) / 997) for i in range(20_000)]
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), rows)
    asked = PreviewIn(policy=Policy.model_validate(REVIEW), precision=0.9)
    seconds = []
    for _ in range(2):
        begin = time.thread_time()  # whatever else this machine does
        with service.database.reading() as session:
            assert previewed(session, service.models.current(), Kept(), asked).recent.n == 20_000
        seconds.append(time.thread_time() - begin)
    assert min(seconds) < 1.0


def test_few_labels_leave_the_report_to_speak(service: Service, tmp_path: Any) -> None:
    loaded = service.models.current()
    tree = loaded.taxonomy
    some = stored_of([prediction(service, 0.8)["answer"]] * 20, tree)
    labels = Labels(some, some.node.copy())
    few = evidence_of(labels, Policy.model_validate(REVIEW), loaded, None)
    assert isinstance(few, Evidence)  # no report lies beside this model: the few labels are all there is
    assert (few.source, len(few.turns)) == ("labels", 20)
    assert evidence_of(labels, Policy.model_validate(REVIEW), loaded, "report") is None
