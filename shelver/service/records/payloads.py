"""What goes in and out of the routes of predictions, feedback and quality, as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

MAX_PAGE: Final = 200
Action = Literal["accept", "correct", "reject"]
By = Literal["model_version", "policy", "outcome", "modality", "category", "day", "week"]
# PostgreSQL takes no text with a zero in it.
Name = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]


def in_utc(moment: datetime) -> datetime:
    """Raises ValueError where a database could not hold it in UTC."""
    if not 1970 <= moment.year <= 9000:
        raise ValueError("a moment from 1970 to 9000")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
"""A moment with its zone, as a filter takes it."""


class Paged(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="Rows a page.")
    after: str | None = Field(default=None, max_length=200, description="`next` of the page before.")


class LoggedPrediction(BaseModel):
    """A line of the log; see `shelver.service.records.entries.Entry`."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    id: str = Field(examples=["5c1f0e6f5a0b4e27a9d0b8c7f2b3d4e5"])
    at: datetime
    user_id: str | None
    input_hash: str
    product_id: str | None
    node_id: str | None
    confidence: float | None
    outcome: str
    policy: str
    model_version: str
    taxonomy_version: str
    modality: str | None
    latency_ms: float


class WholePrediction(LoggedPrediction):
    """A line of the log with the answer as it was given."""

    answer: Any = Field(
        examples=[{"outcome": "decided", "node_id": "436", "path": "Furniture > Chairs > Deck chairs"}]
    )


class PredictionPage(BaseModel):
    """Some lines of the log, newest first."""

    items: list[LoggedPrediction]
    next: str | None = Field(description="`after` of the next page; none where this is the last.")


class FeedbackIn(BaseModel):
    """A judgement: accept the decided node, correct it to another one, or reject it without knowing better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action = Field(examples=["reject"])
    node_id: Name | None = Field(default=None, description="The right node; only with `correct`.", examples=[None])
    note: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")] | None = None


class FeedbackRead(BaseModel):
    """A judgement as it is stored.

    `node_before` is what the model had decided, `node_after` the label: the same where it was accepted, none where
    it was rejected. `current` says whether it is the person's latest one.
    """

    id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    prediction_id: str
    user_id: str
    at: datetime
    action: Action
    note: str | None
    current: bool
    product_id: str | None
    node_before: str | None
    node_after: str | None
    confidence: float | None
    outcome: str
    policy: str
    model_version: str
    taxonomy_version: str = Field(description="The tree that the label was checked against.")
    audit: bool | None = Field(description="Whether it was drawn for review; only reviewers are told.")


class FeedbackPage(BaseModel):
    """Some judgements, newest first."""

    items: list[FeedbackRead]
    next: str | None = Field(description="`after` of the next page; none where this is the last.")


class Figure(BaseModel):
    """A figure of n cases, with its interval at 95 %; without one where n is too small for it."""

    value: float = Field(examples=[0.91])
    low: float | None = Field(examples=[0.88])
    high: float | None = Field(examples=[0.94])
    n: int = Field(examples=[412])


class QualityFigures(BaseModel):
    """The figures of some predictions; each is none where there is no case."""

    accuracy: Figure | None
    weighted_f1: Figure | None
    hierarchical_f1: Figure | None
    acceptance: Figure | None
    audited_accuracy: Figure | None
    adoption: Figure | None
    n_accepted: int = Field(description="Labels, by what they say.")
    n_corrected: int
    n_rejected: int


class QualityOut(BaseModel):
    """The figures of a range of time, of all and by slice."""

    start: datetime
    end: datetime
    taxonomy_version: str = Field(description="The current tree.")
    overall: QualityFigures
    by: By | None
    slices: dict[str, QualityFigures] = Field(description="At most 100, those with the most labels first.")
    n_outside_tree: int = Field(description="Labels whose node the current tree has lost; no F1 counts them.")
    complete: bool = Field(description="False where there are more judgements than are looked at.")
