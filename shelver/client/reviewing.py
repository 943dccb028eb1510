"""Operations of the review, for reviewers and administrators: claim what waits, decide it, take that back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from shelver.client.call import Call, Stated, checked, get, given, post, said
from shelver.service.reviews.payloads import (
    DecidedItems,
    Released,
    ReviewCounts,
    ReviewItems,
    Undone,
    Verdict,
)


def list_review_items(*, mine: bool = False, node_id: str | None = None, limit: int = 50) -> Call[ReviewItems]:
    """What waits, or what one has claimed; nothing is claimed by this."""
    return get("/v1/review", ReviewItems, mine=mine, node_id=node_id, limit=limit)


def count_review_items() -> Call[ReviewCounts]:
    """How much there is to do."""
    return get("/v1/review/counts", ReviewCounts)


def claim_review_items(
    *, n: int = 10, group: Literal["none", "alike"] = "none", node_id: str | None = None
) -> Call[ReviewItems]:
    """Take the next items. After a `NoAnswerError`, `list_review_items(mine=True)` says what was claimed."""
    return post("/v1/review/claim", ReviewItems, {"n": n, "group": group} | given(node_id=node_id))


def release_review_items(prediction_ids: Sequence[str] | None = None, *, skip: bool = False) -> Call[Released]:
    """Give claimed items back; all of them without ids. What is skipped comes to the caller again last."""
    ids = None if prediction_ids is None else list(prediction_ids)
    return post("/v1/review/release", Released, {"skip": skip} | given(prediction_ids=ids))


def decide_review_items(verdicts: Sequence[Verdict | Stated]) -> Call[DecidedItems]:
    """Decide claimed items; those that cannot be decided have a `problem` in the answer."""
    found: list[Verdict] = [checked(one, Verdict, f"verdicts[{i}]") for i, one in enumerate(verdicts)]
    return post("/v1/review/decide", DecidedItems, {"verdicts": [said(one) for one in found]})


def undo_review_decision(decision_id: str | None = None) -> Call[Undone]:
    """Take a decision back; one's latest without an id."""
    return post("/v1/review/undo", Undone, given(decision_id=decision_id))
