"""What goes in and out of the prediction routes, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from shelver.calibrate import Modality
from shelver.decide import Outcome

MAX_PRODUCTS: Final = 256
"""Products a request."""
MAX_PICTURES: Final = 64
"""Pictures a request, of those that only embed."""
MAX_TOP: Final = 100

Encoding = Literal["float32", "float16", "list"]
Row = Annotated[
    str | list[FiniteFloat],
    Field(
        description="Numbers: a list, or base64 of little-endian float32 or float16, as `encoding` says.",
        examples=["AACAPwAAAEA="],
    ),
]
Text = Annotated[str, Field(max_length=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Share = Annotated[float, Field(ge=0, le=1)]

_PIXEL: Final = "R0lGODlhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextIn(_Body):
    """The text of a product; any part may be missing."""

    title: Text | None = Field(default=None, examples=["Folding deck chair, beech"])
    description: Text | None = None
    brand: Text | None = None


class ProductIn(TextIn):
    """A product to be put on its shelf; title, description, brand or picture: any may be missing."""

    image_base64: str | None = Field(
        default=None,
        description="A picture: JPEG, PNG, WebP, GIF, BMP or AVIF of at most 8 MB, as base64.",
        examples=[_PIXEL],
    )
    image_url: str | None = Field(
        default=None,
        max_length=4096,
        description="Where the picture is fetched from, if it does not come itself: http or https, a public host, "
        "at most 8 MB within 4 seconds. `picture_error` says why it was not.",
        examples=[None],
    )
    product_id: str | None = Field(
        default=None, max_length=255, description="The caller's own id; comes back.", examples=["sku-4711"]
    )
    category_hint: str | None = Field(
        default=None,
        max_length=1000,
        description="The partner's own category: it comes back and stands in the log, and changes no answer.",
        examples=["Garden / Seating"],
    )


class PredictIn(ProductIn):
    """One product, and how it is to be decided."""

    policy: Name = Field(default="default", description="Name of the policy that decides.", examples=["default"])
    top_n: int | None = Field(
        default=None, ge=1, le=MAX_TOP, description="So many alternatives; as the policy says where it is missing."
    )


class PredictBatchIn(_Body):
    """Several products, decided by one policy."""

    products: list[ProductIn] = Field(min_length=1, max_length=MAX_PRODUCTS)
    policy: Name = Field(default="default", examples=["default"])
    top_n: int | None = Field(default=None, ge=1, le=MAX_TOP)


class AlternativeOut(BaseModel):
    """One of the most probable places."""

    node_id: str = Field(examples=["436"])
    path: str = Field(examples=["Furniture > Chairs > Deck chairs"])
    confidence: Share


class AttributeOut(BaseModel):
    """What is said of one attribute; a list of values where it takes several."""

    value: str | list[str] = Field(examples=["Beech"])
    confidence: Share
    source: Modality


class Versions(BaseModel):
    """What an answer was made with."""

    model: str = Field(examples=["3f0a9c1b2d4e"])
    taxonomy: str = Field(examples=["9d2c41aa07b1"])
    policy: str = Field(examples=["5c8e11f09a3d"])


class DecisionOut(BaseModel):
    """What a policy makes of a product."""

    outcome: Outcome
    node_id: str | None = Field(examples=["436"])
    path: str | None = Field(examples=["Furniture > Chairs > Deck chairs"])
    confidence: Share | None
    level_confidence: list[Share]
    alternatives: list[AlternativeOut]
    attributes: dict[str, AttributeOut]
    modality: Modality | None
    error: str | None = Field(description="Why there is no answer.", examples=[None])
    policy: str = Field(examples=["default"])
    versions: Versions


class PredictOut(DecisionOut):
    """The answer for one product.

    `prediction_id` names it in the log and in feedback; `picture_error` says why the picture was left out.
    """

    prediction_id: str = Field(examples=["5f0c1e6f4d3b4a0f8f0f6a3f3a0d9b1c"])
    product_id: str | None = Field(examples=["sku-4711"])
    picture_error: str | None = Field(examples=[None])
    category_hint: str | None = Field(examples=["Garden / Seating"])
    request_id: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])


class ItemProblem(BaseModel):
    """Why one of several products has no answer."""

    code: str = Field(examples=["picture_unusable"])
    detail: str


class PredictBatchItem(BaseModel):
    """Either an answer or a problem."""

    answer: PredictOut | None
    problem: ItemProblem | None = Field(examples=[None])


class PredictBatchOut(BaseModel):
    """Answers in the order of the products."""

    answers: list[PredictBatchItem]
    n_problems: int = Field(examples=[0])


class EmbedTextIn(_Body):
    """Texts of products."""

    products: list[TextIn] = Field(min_length=1, max_length=MAX_PRODUCTS)
    encoding: Encoding = "float32"


class EmbedImageIn(_Body):
    """Pictures of products: base64, or addresses that begin with http; null where there is none."""

    images: list[str | None] = Field(min_length=1, max_length=MAX_PICTURES, examples=[[_PIXEL, None]])
    encoding: Encoding = "float32"


class EmbedOut(BaseModel):
    """A row for each product, null where it has no text or no usable picture; `errors` says why."""

    embeddings: list[Row | None]
    errors: list[str | None] = Field(examples=[[None]])
    width: int = Field(examples=[1280])
    encoding: Encoding
    model_version: str = Field(examples=["3f0a9c1b2d4e"])


class ProbabilitiesIn(_Body):
    """Products, or embeddings of them as /v1/embed gives them; not both.

    With `model_version` the request is refused where another model answers by now.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"products": [{"title": "Folding deck chair, beech"}], "top_n": 3}]}
    )

    products: list[ProductIn] | None = Field(default=None, min_length=1, max_length=MAX_PICTURES)
    text: list[Row | None] | None = Field(default=None, min_length=1, max_length=MAX_PRODUCTS, examples=[None])
    image: list[Row | None] | None = Field(default=None, min_length=1, max_length=MAX_PRODUCTS, examples=[None])
    encoding: Encoding = "float32"
    top_n: int | None = Field(
        default=None, ge=1, le=10_000, description="So many nodes by their ids; all as a row where it is missing."
    )
    with_node_ids: bool = Field(default=False, description="Also list the nodes in the order of the rows.")
    model_version: str | None = Field(default=None, examples=[None])


class NodeOut(BaseModel):
    """A node and P(node)."""

    node_id: str = Field(examples=["436"])
    path: str = Field(examples=["Furniture > Chairs > Deck chairs"])
    probability: Share


class ValuesOut(_Body):
    """P(value) of one attribute, in the model's order of its values, and what carries the most probable one."""

    probabilities: list[FiniteFloat] = Field(max_length=100_000)
    source: Modality | None = None


class ProbabilitiesRow(_Body):
    """The distribution of one product: `nodes` over the whole tree, in its order, or the `top` ones."""

    modality: Modality | None
    nodes: Row | None = None
    top: list[NodeOut] | None = None
    outside: FiniteFloat | None = Field(default=None, description="How strange it is to the model, 0 to 1.")
    attributes: dict[str, ValuesOut] = {}


class ProbabilitiesOut(BaseModel):
    """A row for each product."""

    probabilities: list[ProbabilitiesRow]
    picture_errors: list[str | None] = Field(examples=[[None]])
    node_ids: list[str] | None = Field(examples=[None])
    encoding: Encoding
    model_version: str = Field(examples=["3f0a9c1b2d4e"])
    taxonomy_version: str = Field(examples=["9d2c41aa07b1"])


class DecideIn(_Body):
    """Distributions over the whole tree, as /v1/probabilities gives them, and how to decide."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"probabilities": [{"modality": "text", "nodes": "AACAPwAAAAA="}], "policy": "default"}]
        }
    )

    probabilities: list[ProbabilitiesRow] = Field(min_length=1, max_length=MAX_PRODUCTS)
    encoding: Encoding = "float32"
    policy: Name = Field(default="default", examples=["default"])
    top_n: int | None = Field(default=None, ge=1, le=MAX_TOP)
    model_version: str | None = Field(default=None, examples=[None])


class DecideOut(BaseModel):
    """A decision for each distribution."""

    decisions: list[DecisionOut]


class ExplainIn(ProductIn):
    """One product, and which node is to be explained."""

    node_id: str | None = Field(
        default=None,
        max_length=255,
        description="The node that is explained; the decided one where it is missing, and where none is decided "
        "the most probable one.",
        examples=[None],
    )
    policy: Name = Field(default="default", description="Name of the policy that decides.", examples=["default"])


class WordOut(BaseModel):
    """A word that carries an answer, at one of its places.

    `start` and `end` count characters (code points) of the field as it was sent; `word` is what is read there.
    A word that stands at several places is told once for each, with the weight of all together.
    """

    field: Literal["title", "brand", "description"] = Field(examples=["title"])
    start: int = Field(ge=0, examples=[13])
    end: int = Field(ge=0, examples=[18])
    word: str = Field(examples=["chair"])
    weight: Share = Field(examples=[0.62])


class RegionOut(BaseModel):
    """The part of the picture that carries an answer.

    `box` is its left, top, right and bottom, in shares of the picture's width and height.
    """

    box: list[Share] = Field(min_length=4, max_length=4, examples=[[0.2, 0.4, 0.6, 0.8]])
    weight: Share = Field(examples=[0.2])


class ExplainOut(BaseModel):
    """What carries an answer: without it P(node) would be `falls_to`.

    Each weight is that part's share of the fall, and those of all words and of the region add up to it. Where
    nothing alone carries the answer there is neither a word nor a region, and `falls_to` is `probability`.
    """

    node_id: str = Field(examples=["436"])
    path: str = Field(examples=["Furniture > Chairs > Deck chairs"])
    probability: Share = Field(description="P(node) of the product as it was sent.")
    falls_to: Share = Field(description="P(node) without the words and the region.", examples=[0.11])
    words: list[WordOut]
    picture: RegionOut | None
    picture_error: str | None = Field(description="Why the picture was left out.", examples=[None])
    n_words_tried: int = Field(description="Different words that were tried: the first ones.", examples=[4])
    more_words: bool = Field(description="Whether there are more, which were not tried.")
    model_version: str = Field(examples=["3f0a9c1b2d4e"])
    taxonomy_version: str = Field(examples=["9d2c41aa07b1"])


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a body, whole in itself."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return whole(definitions[part["$ref"].rsplit("/", 1)[-1]])
            return {name: whole(value) for name, value in part.items()}
        return [whole(value) for value in part] if isinstance(part, list) else part

    found: dict[str, Any] = whole(schema)
    return found
