"""Operations that answer products: what each sends, and what its answer is.

Functions have the names of the operations in /openapi.json.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelver.client.call import Call, Stated, ask, checked, get, given, new_key, part, post, said
from shelver.client.pictures import Picture, as_base64, fields_of
from shelver.service.answers.payloads import (
    DecideOut,
    EmbedOut,
    ExplainOut,
    PredictBatchOut,
    PredictOut,
    ProbabilitiesOut,
    ProbabilitiesRow,
    ProductIn,
)
from shelver.service.lookalikes.payloads import SimilarOut


def product(
    *,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    picture: Picture | None = None,
    product_id: str | None = None,
    category_hint: str | None = None,
) -> ProductIn:
    """A product for `predict_batch` and `probabilities`; any part may be missing."""
    said = {"title": title, "description": description, "brand": brand, "product_id": product_id}
    found: ProductIn = checked(said | {"category_hint": category_hint} | fields_of(picture), ProductIn, "product")
    return found


def vectors(rows: EmbedOut) -> NDArray[np.float32]:
    """Embeddings as numbers, shape (N, width); zeros where a product has none."""
    found = np.zeros((len(rows.embeddings), rows.width), np.float32)
    for i, row in enumerate(rows.embeddings):
        if isinstance(row, str):
            found[i] = np.frombuffer(base64.b64decode(row), "<f2" if rows.encoding == "float16" else "<f4")
        elif row is not None:
            found[i] = row
    return found


def predict(
    *,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    picture: Picture | None = None,
    product_id: str | None = None,
    category_hint: str | None = None,
    policy: str = "default",
    top_n: int | None = None,
    idempotency_key: str | None = None,
) -> Call[PredictOut]:
    """Put one product on its shelf; any part may be missing."""
    asked = product(
        title=title,
        description=description,
        brand=brand,
        picture=picture,
        product_id=product_id,
        category_hint=category_hint,
    )
    body = said(asked) | {"policy": policy} | given(top_n=top_n)
    return post("/v1/predict", PredictOut, body, key=idempotency_key or new_key())


def predict_batch(
    products: Sequence[ProductIn | Stated],
    *,
    policy: str = "default",
    top_n: int | None = None,
    idempotency_key: str | None = None,
) -> Call[PredictBatchOut]:
    """Put up to 256 products on their shelves."""
    body = {"products": _products(products), "policy": policy} | given(top_n=top_n)
    return post("/v1/predict/batch", PredictBatchOut, body, key=idempotency_key or new_key())


def propose_category(
    *,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    picture: Picture | None = None,
    policy: str = "default",
    idempotency_key: str | None = None,
) -> Call[PredictOut]:
    """Answer a product that is not saved yet."""
    asked = said(product(title=title, description=description, brand=brand, picture=picture))
    key = idempotency_key or new_key()
    return post("/v1/products/propose", PredictOut, asked | {"policy": policy}, key=key)


def embed_text(titles: Sequence[str]) -> Call[EmbedOut]:
    """Embed texts; `vectors` makes numbers of the answer."""
    return ask("/v1/embed/text", EmbedOut, {"products": [{"title": title} for title in titles]})


def embed_image(pictures: Sequence[Path | bytes]) -> Call[EmbedOut]:
    """Embed pictures; `vectors` makes numbers of the answer."""
    return ask("/v1/embed/image", EmbedOut, {"images": [as_base64(picture) for picture in pictures]})


def probabilities(
    products: Sequence[ProductIn | Stated] | None = None,
    *,
    text: EmbedOut | None = None,
    image: EmbedOut | None = None,
    top_n: int | None = None,
    with_node_ids: bool = False,
) -> Call[ProbabilitiesOut]:
    """P(node) of products, or of embeddings: the `top_n` most probable nodes, or all of them."""
    body: dict[str, Any] = given(top_n=top_n) | {"with_node_ids": with_node_ids}
    if products is not None:
        body["products"] = _products(products)
    for name, rows in (("text", text), ("image", image)):
        if rows is not None:
            body |= {name: rows.embeddings, "encoding": rows.encoding, "model_version": rows.model_version}
    return ask("/v1/probabilities", ProbabilitiesOut, body)


def decide(
    rows: Sequence[ProbabilitiesRow | Stated], *, policy: str = "default", top_n: int | None = None
) -> Call[DecideOut]:
    """Decide by a policy, from what `probabilities` gave without `top_n`."""
    found: list[ProbabilitiesRow] = [checked(row, ProbabilitiesRow, f"rows[{i}]") for i, row in enumerate(rows)]
    body = {"probabilities": [said(row) for row in found], "policy": policy} | given(top_n=top_n)
    return ask("/v1/decide", DecideOut, body)


def explain(
    *,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    picture: Picture | None = None,
    node_id: str | None = None,
    policy: str = "default",
) -> Call[ExplainOut]:
    """Which words and which region of the picture carry an answer: the decided one, or P(`node_id`)."""
    asked = said(product(title=title, description=description, brand=brand, picture=picture))
    return ask("/v1/explain", ExplainOut, asked | {"policy": policy} | given(node_id=node_id))


def find_similar(
    *,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    picture: Path | bytes | None = None,
    node_id: str | None = None,
    limit: int = 10,
) -> Call[SimilarOut]:
    """Products that look like this one."""
    body = given(title=title, description=description, brand=brand, node_id=node_id) | fields_of(picture)
    return ask("/v1/similar", SimilarOut, body | {"limit": limit})


def find_similar_to_product(product_id: str, *, node_id: str | None = None, limit: int = 10) -> Call[SimilarOut]:
    """Products that look like a stored one."""
    return get(f"/v1/products/{part(product_id)}/similar", SimilarOut, node_id=node_id, limit=limit)


def _products(products: Sequence[ProductIn | Stated]) -> list[dict[str, Any]]:
    found: list[ProductIn] = [checked(one, ProductIn, f"products[{i}]") for i, one in enumerate(products)]
    return [said(one) for one in found]
