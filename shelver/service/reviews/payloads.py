"""What goes in and out of the routes of the review, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shelver.service.answers.payloads import ItemProblem
from shelver.service.records.payloads import Action, FeedbackRead, Name

MAX_ITEMS: Final = 200
"""Items that a reviewer holds at a time, and decides at a time."""
_PREDICTION: Final = "5c1f0e6f5a0b4e27a9d0b8c7f2b3d4e5"
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MAX_ITEMS, examples=[[_PREDICTION]])]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReviewFilters(_Body):
    """Which items are meant."""

    mine: bool = Field(default=False, description="Those that the caller has claimed, not those that are free.")
    node_id: Name | None = Field(default=None, description="Only those whose first suggestion is this node.")
    limit: int = Field(default=50, ge=1, le=MAX_ITEMS)


class ReviewedProduct(BaseModel):
    """The product of a prediction, without what its seller thinks of the answer."""

    id: str
    title: str | None
    description: str | None
    brand: str | None
    attributes: dict[str, list[str]] = Field(examples=[{"material": ["beech"]}])
    pictures: list[str] = Field(description="Hashes; /v1/pictures/{hash} has the bytes.")


class AskedText(BaseModel):
    """The texts that a prediction was asked for; long ones are cut. No picture is kept with them."""

    model_config = ConfigDict(from_attributes=True)

    title: str | None = Field(examples=["Folding deck chair, beech"])
    description: str | None = Field(examples=["Seat and back of canvas."])
    brand: str | None = Field(examples=["Ash & Co"])
    category_hint: str | None = Field(description="The caller's own category.", examples=["garden"])


class SuggestionOut(BaseModel):
    """A node that the model found likely."""

    node_id: str
    path: str | None


class ReviewItemOut(BaseModel):
    """A prediction that waits. Nothing here tells why it does, how sure the model was, or what others said: that
    would lead the reviewer."""

    prediction_id: str
    at: datetime
    product: ReviewedProduct | None = Field(description="None where the service does not keep the product.")
    asked: AskedText | None = Field(
        description="What was asked, where the product is not kept; only of what was doubtful at once."
    )
    product_id: str | None = Field(description="The caller's own id of the product.", examples=["sku-4711"])
    suggestions: list[SuggestionOut] = Field(description="The most likely first.")
    claimed_until: datetime | None = Field(description="When it goes back to the queue.")


class ReviewItems(BaseModel):
    """Some items."""

    items: list[ReviewItemOut]


class ReviewCounts(BaseModel):
    """How much there is to do."""

    waiting: int = Field(description="Free for anybody.", examples=[214])
    mine: int = Field(description="Claimed by the caller.", examples=[10])
    others: int = Field(description="Claimed by others.", examples=[20])
    decided_today: int = Field(description="By the caller, since midnight in UTC.", examples=[57])


class ClaimIn(_Body):
    """What a reviewer wants to decide next."""

    n: int = Field(default=10, ge=1, le=50, description="So many items, or a group of at most so many.")
    group: Literal["none", "alike"] = Field(
        default="none", description="`alike`: one item, and those that wait and look like it."
    )
    node_id: Name | None = Field(
        default=None, description="Only items whose first suggestion is this node.", examples=[None]
    )


class ReleaseIn(_Body):
    """What a reviewer gives back."""

    prediction_ids: Ids | None = Field(default=None, description="All that he has claimed where it is missing.")
    skip: bool = Field(default=False, description="They come to the caller again when nothing else waits.")


class Released(BaseModel):
    """How many items went back."""

    n_released: int = Field(examples=[3])


class Verdict(_Body):
    """One decision for one prediction, or for a group of them."""

    prediction_ids: Ids
    action: Action = Field(
        description="`accept`: the first suggestion is right; `correct`: `node_id` is; `reject`: none is known.",
        examples=["accept"],
    )
    node_id: Name | None = Field(default=None, description="Only with `correct`.", examples=[None])
    note: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00]*$")] | None = None


class DecideItemsIn(_Body):
    """Decisions of a reviewer; at most 200 predictions together, each once."""

    verdicts: list[Verdict] = Field(min_length=1, max_length=MAX_ITEMS)


class OtherJudgement(BaseModel):
    """What somebody else said of the same prediction."""

    role: str = Field(examples=["seller"])
    action: Action = Field(examples=["accept"])
    node_id: str | None


class DecidedItem(BaseModel):
    """What became of one prediction: a label, or a problem and nothing was changed."""

    prediction_id: str
    label: FeedbackRead | None
    reason: str | None = Field(description="Why it had waited.", examples=["unsure"])
    others: list[OtherJudgement] = Field(description="What others said, now that it is decided.")
    disagreement: bool = Field(
        description="Whether the label is another one than the model's or another person's.", examples=[False]
    )
    problem: ItemProblem | None = Field(examples=[None])


class DecidedItems(BaseModel):
    """A decision, in the order of what was asked; what could be decided is."""

    decision_id: str | None = Field(
        description="For undo; none where nothing was decided.", examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"]
    )
    items: list[DecidedItem]
    n_problems: int = Field(examples=[0])


class UndoIn(_Body):
    """Which decision is to be undone."""

    decision_id: Id | None = Field(
        default=None, description="The caller's latest one where it is missing.", examples=[None]
    )


class Undone(BaseModel):
    """A decision that no longer counts; its items are claimed by the caller again."""

    decision_id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    prediction_ids: list[str] = Field(examples=[[_PREDICTION]])
