"""How good the answers were, as people judged them; /v1/metrics.

What is counted: predictions that were made in a range of time. Of several current judgements of one prediction the
*label* is the latest of a reviewer or administrator, and where none of them judged it the latest of all.

- accuracy: predictions whose label is the decided node, over predictions with a label. A rejected answer is wrong;
  so is one without a decided node that was corrected.
- weighted F1, hierarchical F1: as in `shelver.metrics`, over predictions whose label names a node of the current
  tree (a rejection names none).
- acceptance: current judgements that accept, over current judgements of predictions that decided a node. It is not
  accuracy: people also accept what they did not look at.
- audited accuracy: the accuracy of accepted answers that were drawn for review and that a reviewer labelled since;
  also of those that whoever had accepted them judges otherwise by now.
- adoption: predictions whose node went into use, accepted by somebody or saved as the category of a product, over
  all predictions that decided a node; those that nobody said anything about count as not adopted.

Intervals are at 95 %: of shares exact (Clopper and Pearson), of both F1 from 200 resamples of the predictions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import case, exists, func, or_, select
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.paging import Moment
from shelver.service.problems import ServiceError, responses
from shelver.service.products.pictures import SEES_ALL
from shelver.service.records.intervals import f1_figures, shares
from shelver.service.records.payloads import By, QualityFigures, QualityOut
from shelver.service.state import ServiceDep
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

MAX_LABELS: Final = 20_000
"""Judgements that are looked at, the latest predictions first."""
MAX_SLICES: Final = 100
MAX_RANGE: Final = timedelta(days=366)
_RECENT: Final = timedelta(days=30)
router = APIRouter(tags=["feedback"])


class QualityFilters(BaseModel):
    """Which predictions are meant: those of the last 30 days where nothing is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])
    by: By | None = None


@router.get(
    "/v1/metrics",
    summary="Quality by people's judgements",
    dependencies=[allowed("reviewer", "admin")],
    responses=responses("invalid_input"),
)
def read_quality(
    filters: Annotated[QualityFilters, Query()], session: SessionDep, service: ServiceDep
) -> QualityOut:
    """Accuracy, weighted and hierarchical F1, acceptance and adoption of recent predictions, with intervals."""
    tree = service.models.current().taxonomy
    end = filters.end or datetime.now(UTC)
    start = filters.start or end - _RECENT
    if end - start > MAX_RANGE:
        raise ServiceError(
            "invalid_input",
            f"{(end - start).days} days",
            allowed=f"at most {MAX_RANGE.days}",
            remedy="Ask for one year after the other.",
        )
    wanted = (
        select(FeedbackRow)
        .where(FeedbackRow.current_of.is_not(None), FeedbackRow.predicted_at >= start)
        .where(FeedbackRow.predicted_at < end)
        .order_by(FeedbackRow.predicted_at.desc(), FeedbackRow.id.desc())
    )
    judged = session.scalars(wanted.limit(MAX_LABELS + 1)).all()
    complete, judged = len(judged) <= MAX_LABELS, judged[:MAX_LABELS]
    drawn = _drawn(session, start, end)
    adopted = _adopted(session, start, end, filters.by, tree)
    names = [_slice(filters.by, tree)(_of_feedback(filters.by, row)) for row in judged]
    of: dict[str, list[FeedbackRow]] = {}
    if filters.by is not None:
        for name, row in zip(names, judged, strict=True):
            of.setdefault(name, []).append(row)
        for name in adopted:
            of.setdefault(name, [])
    largest = sorted(of, key=lambda name: (-len(of[name]), -adopted.get(name, (0, 0))[1], name))[:MAX_SLICES]
    n_adopted, n_decided = (sum(counts) for counts in zip((0, 0), *adopted.values(), strict=True))
    counted = [_counted(judged, (n_adopted, n_decided), tree, drawn)]
    counted += [_counted(of[name], adopted.get(name, (0, 0)), tree, drawn) for name in largest]
    overall, *figures = _figures(counted, tree)
    return QualityOut(
        start=start,
        end=end,
        taxonomy_version=tree.version,
        overall=overall,
        by=filters.by,
        slices=dict(zip(largest, figures, strict=True)),
        n_outside_tree=sum(_is_lost(row, tree) for row in labels_of(judged)),
        complete=complete,
    )


def labels_of(judged: Iterable[FeedbackRow]) -> list[FeedbackRow]:
    """One of the current judgements for each prediction: the label."""
    best: dict[str, FeedbackRow] = {}
    for row in judged:
        other = best.get(row.prediction_id)
        if other is None or _weight(row) > _weight(other):
            best[row.prediction_id] = row
    return list(best.values())


def _weight(row: FeedbackRow) -> tuple[bool, datetime, str]:
    return row.role in SEES_ALL, row.at, row.id


def _is_lost(row: FeedbackRow, tree: Taxonomy) -> bool:
    return row.node_after is not None and tree.find(row.node_after) is None


def _drawn(session: Session, start: datetime, end: datetime) -> frozenset[str]:
    """Predictions that were drawn when a seller accepted them, whatever he says of them now."""
    marked = select(FeedbackRow.prediction_id).where(
        FeedbackRow.predicted_at >= start,
        FeedbackRow.predicted_at < end,
        FeedbackRow.audit,
        FeedbackRow.role.not_in(SEES_ALL),
    )
    return frozenset(session.scalars(marked))


@dataclass(frozen=True)
class _Counted:
    """What the figures of some judgements are made of.

    Attributes:
        shares: by name, how many of how many.
        truth, predicted: nodes of the labels that name one of the current tree, shape (N,); -1 is no node.
        by_action: labels, by what they say.
    """

    shares: dict[str, tuple[int, int]]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    by_action: Counter[str]


def _counted(
    judged: Sequence[FeedbackRow], adopted: tuple[int, int], tree: Taxonomy, drawn: frozenset[str]
) -> _Counted:
    labels = labels_of(judged)
    decided = [row for row in judged if row.node_before is not None]
    audited = [row for row in labels if row.prediction_id in drawn and row.role in SEES_ALL]
    by_action = Counter(row.action for row in labels)
    pairs = [
        (tree.index(row.node_after), -1 if before is None else before)
        for row in labels
        if row.node_after is not None and not _is_lost(row, tree)
        for before in [None if row.node_before is None else tree.find(row.node_before)]
    ]
    truth, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    shares = {
        "accuracy": (by_action["accept"], len(labels)),
        "acceptance": (sum(row.action == "accept" for row in decided), len(decided)),
        "audited_accuracy": (sum(row.action == "accept" for row in audited), len(audited)),
        "adoption": adopted,
    }
    return _Counted(shares, truth, predicted, by_action)


def _figures(counted: Sequence[_Counted], tree: Taxonomy) -> list[QualityFigures]:
    known = shares(one for part in counted for one in part.shares.values())
    found = []
    for part in counted:
        weighted, by_path = f1_figures(tree, part.truth, part.predicted)
        found.append(
            QualityFigures(
                **{name: known[one] for name, one in part.shares.items()},
                weighted_f1=weighted,
                hierarchical_f1=by_path,
                n_accepted=part.by_action["accept"],
                n_corrected=part.by_action["correct"],
                n_rejected=part.by_action["reject"],
            )
        )
    return found


def _adopted(
    session: Session, start: datetime, end: datetime, by: By | None, tree: Taxonomy
) -> dict[str, tuple[int, int]]:
    """By slice: predictions whose node went into use, and all that decided one."""
    accepted = exists().where(
        FeedbackRow.prediction_id == PredictionRow.id,
        FeedbackRow.action == "accept",
        FeedbackRow.current_of.is_not(None),
    )
    saved = exists().where(
        ProductRow.prediction_id == PredictionRow.id, ProductRow.node_id == PredictionRow.node_id
    )
    columns: dict[By | None, Any] = {
        "model_version": PredictionRow.model_version,
        "policy": PredictionRow.policy,
        "outcome": PredictionRow.outcome,
        "modality": PredictionRow.modality,
        "category": PredictionRow.node_id,
        "day": func.date(PredictionRow.at),
        "week": func.date(PredictionRow.at),
        None: PredictionRow.outcome,
    }
    column = columns[by].label("slice")
    counted = (
        select(column, func.sum(case((or_(accepted, saved), 1), else_=0)), func.count())
        .where(PredictionRow.at >= start, PredictionRow.at < end, PredictionRow.node_id.is_not(None))
        .group_by(column)
    )
    found: dict[str, tuple[int, int]] = {}
    for value, n_adopted, n in session.execute(counted):
        name = _slice(by, tree)(value)
        before = found.get(name, (0, 0))
        found[name] = (before[0] + int(n_adopted), before[1] + n)
    return found


def _of_feedback(by: By | None, row: FeedbackRow) -> Hashable:
    if by in ("day", "week"):
        return row.predicted_at.date()
    return row.node_before if by == "category" else getattr(row, by or "outcome")


def _slice(by: By | None, tree: Taxonomy) -> Callable[[Any], str]:
    """The name of the slice that a value of the column belongs to."""

    def of_category(node_id: str | None) -> str:
        node = None if node_id is None else tree.find(node_id)
        return "none" if node is None else tree.path_names(node)[0]

    def of_week(day: date | str) -> str:
        year, week, _ = (date.fromisoformat(day) if isinstance(day, str) else day).isocalendar()
        return f"{year}-W{week:02}"

    if by == "category":
        return of_category
    if by == "week":
        return of_week
    return lambda value: "none" if value is None else str(value)
