"""What is counted at each node of the tree, beside a slow count in plain Python."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from shelver.service.models.kept import FRESH_S, Kept
from shelver.service.models.node_figures import TreeFigures, products_at, quality_of, tree_figures
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

As = Callable[..., TestClient]


def shop(session: Session, tree: Taxonomy, user_id: str, n: int, seed: int) -> list[tuple[str | None, str | None]]:
    """Products, predictions and labels at random; gives the decided and the true node of each label."""
    rng = random.Random(seed)
    predictions: list[dict[str, Any]] = []
    judged: list[dict[str, Any]] = []
    products: list[dict[str, Any]] = []
    labels: list[tuple[str | None, str | None]] = []
    for i in range(n):
        decided = rng.choice([*tree.ids, None])
        action = (
            rng.choice(["accept", "correct", "reject", "none"]) if decided else rng.choice(["correct", "none"])
        )
        truth = {"accept": decided, "correct": rng.choice([one for one in tree.ids if one != decided])}.get(action)
        at = now() - timedelta(days=rng.uniform(0.1, 20))
        row = {
            "id": new_id(),
            "at": at,
            "input_hash": "0" * 64,
            "answer": "{}",
            "node_id": decided,
            "outcome": "decided" if decided else "abstained",
            "policy": "default",
            "model_version": "m",
            "taxonomy_version": tree.version,
            "latency_ms": 1.0,
        }
        predictions.append(row)
        products.append(
            {
                "id": new_id(),
                "owner_id": user_id,
                "title": f"<i>thing {i}</i>",
                "attributes": {},
                "search_key": "thing",
                "node_id": rng.choice([*tree.ids, None, "a node of another tree"]),
                "version": 1,
                "created_at": at,
                "updated_at": at,
            }
        )
        if action != "none":
            labels.append((decided, truth))
            judged.append(
                {
                    "id": new_id(),
                    "prediction_id": row["id"],
                    "user_id": user_id,
                    "role": "reviewer",
                    "at": at,
                    "action": action,
                    "current_of": f"{row['id']}/{user_id}",
                    "audit": False,
                    "predicted_at": at,
                    "node_before": decided,
                    "node_after": truth,
                    "outcome": row["outcome"],
                    "policy": "default",
                    "model_version": "m",
                    "taxonomy_version": tree.version,
                }
            )
    session.execute(insert(PredictionRow), predictions)
    session.execute(insert(FeedbackRow), judged)
    session.execute(insert(ProductRow), products)
    return labels


Shop = tuple[Taxonomy, TreeFigures, list[tuple[str | None, str | None]]]


@pytest.fixture
def filled(service: Service, as_role: As) -> Shop:
    tree = service.models.current().taxonomy
    user = as_role("reviewer").headers["X-User"]
    with service.database.writing() as session:
        labels = shop(session, tree, user, 400, 3)
    with service.database.reading() as session:
        return tree, tree_figures(session, tree, Kept(), 30), labels


def branch(tree: Taxonomy, k: int) -> set[str]:
    return {tree.ids[k], *(tree.ids[below] for below in tree.descendants(k).tolist())}


def test_counts_at_every_node_are_those_of_a_slow_count(filled: Shop, service: Service) -> None:
    tree, figures, labels = filled
    with service.database.reading() as session:
        products = Counter(session.scalars(ProductRow.__table__.select().with_only_columns(ProductRow.node_id)))
    for k in range(tree.n_nodes):
        below = branch(tree, k)
        counts = quality_of(tree, figures, k).counts
        decided = [(d, t) for d, t in labels if d in below]
        true = [(d, t) for d, t in labels if t in below]
        assert counts.n_products_own == products[tree.ids[k]]
        assert counts.n_products == sum(products[one] for one in below)
        assert counts.n_labels == len(decided)
        assert counts.accuracy is not None
        assert counts.accuracy.value == pytest.approx(sum(d == t for d, t in decided) / len(decided))
        assert counts.accuracy.n == len(decided)
        assert counts.found is not None
        assert counts.found.value == pytest.approx(sum(d == t for d, t in true) / len(true))
    whole = quality_of(tree, figures, -1)
    assert whole.node is None
    assert whole.counts.n_labels == sum(d is not None for d, _ in labels)
    assert [child.node_id for child in whole.children] == [tree.ids[k] for k in tree.children(-1).tolist()]


def test_confusions_go_out_come_in_and_stay_within(filled: Shop) -> None:
    tree, figures, labels = filled
    wrong = Counter((d, t) for d, t in labels if d is not None and t is not None and d != t)
    for k in range(tree.n_nodes):
        below = branch(tree, k)
        found = quality_of(tree, figures, k)
        for listed, wanted in (
            (found.mistaken_here, {p: n for p, n in wrong.items() if p[0] in below and p[1] not in below}),
            (found.missed, {p: n for p, n in wrong.items() if p[1] in below and p[0] not in below}),
            (found.within, {p: n for p, n in wrong.items() if p[0] in below and p[1] in below}),
        ):
            assert [one.n for one in listed] == sorted(wanted.values(), reverse=True)[:12]
            assert all(wanted[one.decided.node_id, one.true.node_id] == one.n for one in listed)
    assert sum(one.n for one in quality_of(tree, figures, -1).within) <= wrong.total()


def test_products_of_a_branch_are_found_and_only_they(filled: Shop, service: Service) -> None:
    tree, figures, _ = filled
    with service.database.reading() as session:
        for k in range(tree.n_nodes):
            found = session.scalars(products_at(tree, figures, k, below=True)).all()
            assert len(found) == quality_of(tree, figures, k).counts.n_products
            assert {row.node_id for row in found} <= branch(tree, k)
            own = session.scalars(products_at(tree, figures, k, below=False)).all()
            assert len(own) == quality_of(tree, figures, k).counts.n_products_own


def test_the_route_tells_of_a_node_and_of_the_tree(as_role: As, service: Service, filled: Shop) -> None:
    tree, _, _ = filled
    reviewer = as_role("reviewer")
    whole = reviewer.get("/v1/taxonomy/quality").json()
    assert (whole["node"], whole["parents"], whole["complete"]) == (None, [], True)
    node = reviewer.get("/v1/taxonomy/quality", params={"node_id": tree.ids[0], "days": 90}).json()
    assert node["node"]["node_id"] == tree.ids[0]
    assert {child["level"] for child in node["children"]} == {2}
    before = reviewer.get("/v1/taxonomy/quality", params={"days": 1}).json()
    assert before["counts"]["n_predictions"] < whole["counts"]["n_predictions"]
    assert before["counts"]["n_products"] == whole["counts"]["n_products"]
    assert reviewer.get("/v1/taxonomy/quality?node_id=nowhere").json()["code"] == "not_found"
    assert reviewer.get("/v1/taxonomy/quality?days=0").status_code == 422
    assert as_role("seller").get("/v1/taxonomy/quality").status_code == 403


def test_what_was_read_is_kept_for_a_moment_only(
    service: Service, filled: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, before, _ = filled
    kept, clock = Kept(), [100.0]
    monkeypatch.setattr("shelver.service.models.kept.time.monotonic", lambda: clock[0])

    def read() -> int:
        with service.database.reading() as session:
            return int(tree_figures(session, tree, kept, 30).products.max())

    first = read()
    assert first == before.products.max()
    with service.database.writing() as session:
        session.execute(delete(ProductRow))  # which leaves nothing newer behind
    assert read() == first
    clock[0] += FRESH_S
    assert read() == 0
