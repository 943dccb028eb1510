"""What goes in and out of the preview of a policy, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shelver.decide import Policy
from shelver.service.records.payloads import Figure

MAX_DAYS: Final = 90
MAX_LISTED: Final = 200
PolicySource = Literal["labels", "report"]
Change = Literal["newly_decided", "no_longer_decided", "deeper", "higher"]


class PreviewIn(BaseModel):
    """A policy to look at before it is saved."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field(
        default="default", max_length=64, description="Of the policy that it would replace.", examples=["default"]
    )
    policy: Policy | None = Field(
        default=None, description="The new one; the one of that name where it is missing.", examples=[None]
    )
    precision: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The target: its thresholds are found in place of those of the policy.",
        examples=[0.95],
    )
    delta: float = Field(
        default=0.05, gt=0, lt=1, description="The chance that a promise may be broken by bad luck."
    )
    source: PolicySource | None = Field(
        default=None,
        description="What precision is reckoned from: people's labels, or the report of the model. Where it is "
        "missing, the labels if there are enough.",
    )
    days: int = Field(default=30, ge=1, le=MAX_DAYS, description="Recent predictions: of so many days.")
    limit: int = Field(default=20, ge=0, le=MAX_LISTED, description="Predictions a page that change.")
    skip: int = Field(default=0, ge=0, le=100_000, description="So many of them come before the page.")


class CurvePoint(BaseModel):
    """What one threshold, the same at every level, would give."""

    threshold: float = Field(examples=[0.8])
    coverage: float = Field(examples=[0.74])
    precision: float = Field(examples=[0.962])
    low: float = Field(description="Its exact 95 % interval.", examples=[0.94])
    high: float = Field(examples=[0.978])


class Outlook(BaseModel):
    """What a policy makes of the labelled products."""

    thresholds: list[float] = Field(description="By level; the last one goes on.", examples=[[0.8]])
    coverage: float = Field(examples=[0.74])
    precision: Figure | None = Field(description="None where nothing is decided.")


class ChangedPrediction(BaseModel):
    """A recent prediction that would be decided otherwise."""

    prediction_id: str
    at: datetime
    product_id: str | None = Field(description="Of the stored product, where there is one.")
    title: str | None
    change: Change
    path_before: str | None = Field(examples=[None])
    path_after: str | None = Field(examples=["Furniture > Chairs"])
    confidence: float | None = Field(description="P(node) of the deeper of both.", examples=[0.84])


class Recent(BaseModel):
    """What would become of recent predictions by this policy."""

    start: datetime
    end: datetime
    n: int = Field(description="Predictions that were looked at, the latest ones.", examples=[1200])
    complete: bool = Field(description="False where there were more.")
    n_unknown: int = Field(
        description="Of which the log does not know enough; they count nowhere else.", examples=[0]
    )
    coverage_now: float | None = Field(examples=[0.81])
    coverage_then: float | None = Field(examples=[0.74])
    n_no_longer_decided: int = Field(examples=[93])
    n_newly_decided: int = Field(examples=[0])
    n_deeper: int = Field(examples=[0])
    n_higher: int = Field(examples=[12])
    changed: list[ChangedPrediction] = Field(description="A page of those that change, newest first.")


class PreviewOut(BaseModel):
    """What would follow."""

    name: str = Field(examples=["default"])
    policy: Policy = Field(
        description="To be saved with `PUT /v1/policies/{name}`.",
        examples=[{"decoder": "climb", "thresholds": [0.8]}],
    )
    model_version: str
    source: PolicySource | None = Field(
        description="What precision was reckoned from; none where there is nothing."
    )
    n_labelled: int = Field(description="Labelled products that were looked at.", examples=[640])
    target: float | None = Field(examples=[0.95])
    reached: bool = Field(
        description="Whether a threshold reaches the target on these products; else the policy is as it was.",
        examples=[True],
    )
    promised: bool = Field(
        description="Whether held-out products carry a promise of the target; people's labels never do.",
        examples=[True],
    )
    reason: str | None = Field(description="Why not; or why there is no threshold.", examples=[None])
    now: Outlook | None = Field(description="Of the policy that has the name now.")
    then: Outlook | None = Field(description="Of the new one; none where nothing is labelled.")
    curve: list[CurvePoint] = Field(
        description="Precision against coverage, from strict to loose; at most 40 points."
    )
    recent: Recent
