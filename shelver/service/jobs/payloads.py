"""What goes in and out of the routes of jobs and uploads, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from shelver.service.records.payloads import Name, Paged

Kind = Literal["train", "evaluate", "predict", "import_products", "reset_demo"]
State = Literal["queued", "running", "done", "failed", "cancelled"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FINAL: Final[tuple[State, ...]] = ("done", "failed", "cancelled")
FOR_ADMINISTRATORS: Final[tuple[Kind, ...]] = ("train", "evaluate", "reset_demo")

_ID: Final = r"^[0-9a-f]{32}$"
_JOB: Final = "7c9e6b1f4d2a4e0f8b3c5d6a7e8f9a0b"
_UPLOAD: Final = "3f2a9c4b8d1e4f6a9b7c2d5e8f1a0b3c"
_TEXT_PART: Final = r"(ngram|use(@tuned)?)"
_IMAGE_PART: Final = r"(lite0|colour)(@tuned)?(@(crop|box))?"
_TEXT: Final = rf"^(auto|none|{_TEXT_PART}(\+{_TEXT_PART})*)$"
_IMAGE: Final = rf"^(auto|none|{_IMAGE_PART}(\+{_IMAGE_PART})*)$"
CatalogName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$",
        description="A catalog, as `shelver ingest` writes it, in the folder `catalogs` of the data folder.",
        examples=["demo"],
    ),
]
_Columns = Name | Annotated[list[Name], Field(max_length=20)]
UploadId = Annotated[
    str, Field(pattern=_ID, description="A feed that was uploaded before, see /v1/uploads.", examples=[_UPLOAD])
]
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$", examples=["4f9b093fc85d"])]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class MappingIn(_Closed):
    """Which column of a feed is what; well-known names are found without it. As of `shelver.catalog.mapping`."""

    columns: dict[Name, _Columns] = Field(
        default_factory=dict,
        max_length=50,
        description="product_id, title, description, brand, image or category → column, or several.",
        examples=[{"title": "product_name"}],
    )
    attributes: dict[Name, _Columns] = Field(default_factory=dict, max_length=200, examples=[{"colour": "color"}])
    attribute_separator: Name | None = Field(default=None, min_length=1, examples=[None])
    id_from: Literal["column", "line"] = Field(default="column", examples=["column"])
    category_format: Literal["path", "id"] = Field(default="path", examples=["path"])
    category_separator: Name = Field(default=" > ", min_length=1, examples=[" > "])
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, examples=[None])
    encoding: Name | None = Field(default=None, examples=[None])


class TrainParams(_Closed):
    """Learn a model from the stored products that have a category; where a catalog is named, from both."""

    kind: Literal["train"] = Field(examples=["train"])
    catalog: CatalogName | None = Field(default=None, examples=[None])
    text_encoder: str = Field(default="auto", max_length=100, pattern=_TEXT, examples=["auto"])
    image_encoder: str = Field(default="auto", max_length=100, pattern=_IMAGE, examples=["auto"])
    attributes: list[Name] | None = Field(
        default=None, max_length=200, description="To learn with the category; all without it.", examples=[None]
    )
    epochs: int | None = Field(default=None, ge=1, le=1000, examples=[None])
    folds: int | None = Field(default=None, ge=0, le=20, examples=[None])
    refit: bool | None = Field(default=None, examples=[None])
    precision: Literal["fp32", "int8"] = Field(default="fp32", examples=["fp32"])
    time_limit_s: float | None = Field(default=None, ge=1, le=30 * 24 * 3600, examples=[None])
    seed: int = Field(default=0, ge=0, lt=2**31, examples=[0])


class EvaluateParams(_Closed):
    """Score a registered model on a catalog or a golden set."""

    kind: Literal["evaluate"] = Field(examples=["evaluate"])
    catalog: CatalogName
    model_version: Version | None = Field(default=None, description="The champion without it.")
    split: Literal["train", "validation", "test"] = Field(default="test", examples=["test"])


class PredictParams(_Closed):
    """Answer every product of a feed, or all products of one's own."""

    kind: Literal["predict"] = Field(examples=["predict"])
    upload_id: UploadId | None = Field(
        default=None, description="The feed; without it, the products that the caller has stored."
    )
    mapping: MappingIn = MappingIn()
    policy: Name | None = Field(default=None, description="Without it, the one called default.", examples=[None])
    model_version: Version | None = Field(
        default=None, description="The champion without it; another one is for administrators.", examples=[None]
    )
    format: Literal["csv", "jsonl", "parquet"] = Field(default="csv", examples=["csv"])


class ImportParams(_Closed):
    """Add every product of a feed to those of one's own; each keeps the feed's own id."""

    kind: Literal["import_products"] = Field(examples=["import_products"])
    upload_id: UploadId
    mapping: MappingIn = MappingIn()
    unknown_category: Literal["leave_out", "refuse"] = Field(
        default="leave_out",
        description="What becomes of a product whose category the current tree does not have: it is added without "
        "one, or refused.",
        examples=["leave_out"],
    )
    existing: Literal["skip", "replace"] = Field(
        default="skip",
        description="What becomes of a product that one has already, by the feed's own id: it stays as it is, or "
        "what the feed says of it replaces what is stored; what the feed does not say stays.",
        examples=["skip"],
    )


class ResetDemoParams(_Closed):
    """Bring the demo's products, and the catalog `demo`, back to where they started."""

    kind: Literal["reset_demo"] = Field(examples=["reset_demo"])
    n_products: int = Field(default=500, ge=1, le=20_000, examples=[500])
    seed: int = Field(default=0, ge=0, lt=2**31, examples=[0])


JobIn = Annotated[
    TrainParams | EvaluateParams | PredictParams | ImportParams | ResetDemoParams,
    Field(discriminator="kind", examples=[{"kind": "import_products", "upload_id": _UPLOAD}]),
]


class JobProblem(BaseModel):
    """Why a job failed."""

    code: str = Field(description="As of problem documents.", examples=["invalid_input"])
    detail: str = Field(examples=["feed.csv is empty. Allowed: CSV. Check how the feed was written."])


class JobProgress(BaseModel):
    """How far a job came."""

    fraction: float | None = Field(description="0 to 1; null where nobody knows.", examples=[0.42])
    phase: str | None = Field(examples=["importing"])
    words: str | None = Field(description="For people.", examples=["1,200 rows, 3 refused"])


class JobRead(BaseModel):
    """A job."""

    id: str = Field(examples=[_JOB])
    kind: Kind = Field(examples=["import_products"])
    state: State = Field(examples=["done"])
    owner_id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    params: dict[str, Any] = Field(examples=[{"kind": "import_products", "upload_id": _UPLOAD}])
    created_at: datetime
    started_at: datetime | None = Field(description="Of the first attempt.")
    ended_at: datetime | None
    cancel_requested: bool = Field(description="It will be stopped soon.", examples=[False])
    attempts: int = Field(examples=[1])
    max_attempts: int = Field(examples=[3])
    progress: JobProgress
    result: dict[str, Any] | None = Field(
        description="What came of it, by kind; null until it is done.", examples=[{"n_rows": 3, "n_added": 3}]
    )
    files: list[str] = Field(description="Names for /v1/jobs/{id}/files/{name}.", examples=[["rejected.jsonl"]])
    problem: JobProblem | None = Field(description="Why it failed.")
    n_events: int = Field(description="Events so far, see /v1/jobs/{id}/events.", examples=[7])


class JobPage(BaseModel):
    """Some jobs, newest first."""

    items: list[JobRead]
    next: str | None = Field(description="`after` of the next page; none where this is the last.", examples=[None])


class JobFilters(Paged):
    """Which jobs are meant; all that are given must hold."""

    kind: Kind | None = None
    state: State | None = None
    owner_id: Name | None = Field(default=None, description="Only for who sees those of others.", examples=[None])


class UploadRead(BaseModel):
    """A file that was uploaded."""

    id: str = Field(examples=[_UPLOAD])
    owner_id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    name: str = Field(examples=["feed.csv"])
    sha256: str = Field(examples=["5c" * 32])
    n_bytes: int = Field(examples=[48210])
    created_at: datetime


class UploadPage(BaseModel):
    """Some uploads, newest first."""

    items: list[UploadRead]
    next: str | None = Field(description="`after` of the next page; none where this is the last.", examples=[None])
