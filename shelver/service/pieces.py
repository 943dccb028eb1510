"""The stages one by one: /v1/embed/text, /v1/embed/image, /v1/probabilities, /v1/decide.

Put together they give what /v1/predict gives. Nothing of them stands in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Request

from shelver.calibrate import MODALITIES
from shelver.decide import Policy, Probabilities, policy_named
from shelver.pipeline import Embedding
from shelver.pipeline.classifier import Classifier
from shelver.product import Product, text_of
from shelver.service.answering import decision_of, versions_of
from shelver.service.decoding import decoded, encoded, picture_bytes
from shelver.service.identity import Identity, allowed
from shelver.service.limits import address_of
from shelver.service.payloads import (
    DecideIn,
    DecideOut,
    EmbedImageIn,
    EmbedOut,
    EmbedTextIn,
    Encoding,
    NodeOut,
    ProbabilitiesIn,
    ProbabilitiesOut,
    ProbabilitiesRow,
    ProductIn,
    TextIn,
    ValuesOut,
)
from shelver.service.problems import ServiceError, responses
from shelver.service.state import ServiceDep, service_of

router = APIRouter(tags=["stages"])
Caller = Annotated[
    Identity,
    allowed("seller", "reviewer", "admin", "service", opened_by=lambda settings: settings.public_per_minute > 0),
]
_SUM_TOLERANCE: Final = 0.02
"""Rows that came as float16 add up to 1 no better."""


def caller_of(request: Request, identity: Identity, n: int = 1) -> str:
    """In whose name a request waits; counts the n products of who has not signed in.

    Raises:
        ServiceError: the public has asked too often.
    """
    if identity.user_id is not None:
        return identity.user_id
    caller = f"public:{address_of(request)}"
    service = service_of(request)
    service.limits.take(caller, service.settings.public_per_minute, n=n)
    return caller


def refuse_address(product: ProductIn) -> None:
    """Refuse a picture that would have to be fetched.

    Raises:
        ServiceError: there is an address.
    """
    if product.image_url is not None:
        raise ServiceError(
            "picture_not_fetched",
            "an image_url",
            allowed="the picture itself: this server does not fetch pictures yet",
            remedy="Send it as image_base64, or as the file `image` of a form.",
        )


@router.post("/v1/embed/text", responses=responses("invalid_input", "busy", "not_signed_in"))
def embed_text(request: Request, body: EmbedTextIn, identity: Caller, service: ServiceDep) -> EmbedOut:
    """Embed the texts of products, as the model sees them."""
    caller = caller_of(request, identity, len(body.products))
    with service.answering.batcher.reserve(caller):
        classifier = service.answering.current().classifier
        embedding = _text(classifier, body.products)
    return _embed_out(classifier, embedding, ["empty_product"] * len(body.products), body.encoding)


@router.post(
    "/v1/embed/image",
    responses=responses("invalid_input", "picture_unusable", "too_large", "busy", "not_signed_in"),
)
def embed_image(request: Request, body: EmbedImageIn, identity: Caller, service: ServiceDep) -> EmbedOut:
    """Embed pictures."""
    caller = caller_of(request, identity, len(body.images))
    with service.answering.batcher.reserve(caller):
        classifier = service.answering.current().classifier
        embedding, errors = _image(classifier, body.images)
    return _embed_out(classifier, embedding, errors, body.encoding)


@router.post(
    "/v1/probabilities",
    responses=responses("invalid_input", "picture_unusable", "too_large", "conflict", "busy", "not_signed_in"),
)
def probabilities(
    request: Request, body: ProbabilitiesIn, identity: Caller, service: ServiceDep
) -> ProbabilitiesOut:
    """P(node) of products, or of embeddings: the most probable nodes, or all of them.

    The probability of a node is the sum of those of its children and of its own; level 1 adds up to 1.
    """
    given = [rows for rows in (body.products, body.text, body.image) if rows is not None]
    n = len(given[0]) if given else 0
    if not n or (body.products is not None and len(given) > 1) or any(len(rows) != n for rows in given):
        raise ServiceError(
            "invalid_input",
            "products and embeddings, neither, or rows of different numbers",
            allowed="`products`, or `text` and `image` with a row for each product",
            remedy="Send one of them.",
        )
    caller = caller_of(request, identity, n)
    errors: list[str | None] = [None] * n
    with service.answering.batcher.reserve(caller):
        classifier = service.answering.current().classifier
        _same_model(classifier, body.model_version)
        text = image = None
        if body.products is not None:
            for product in body.products:
                refuse_address(product)
            if classifier.text2emb is not None:
                text = _text(classifier, body.products)
            if classifier.image2emb is not None:
                image, errors = _image(classifier, [product.image_base64 for product in body.products])
        else:
            text_width, image_width = classifier.emb2prob.text_width, classifier.emb2prob.image_width
            if body.text is not None:
                text = decoded(body.text, body.encoding, _width(text_width, "texts"), "text")
            if body.image is not None:
                image = decoded(body.image, body.encoding, _width(image_width, "pictures"), "image")
        probs = classifier.emb2prob(text, image)
        rows = [_row(classifier, probs, i, body.encoding, body.top_n) for i in range(n)]
    return ProbabilitiesOut(
        probabilities=rows,
        picture_errors=errors,
        node_ids=list(classifier.taxonomy.ids) if body.with_node_ids else None,
        encoding=body.encoding,
        model_version=classifier.model_version,
        taxonomy_version=classifier.taxonomy.version,
    )


@router.post("/v1/decide", responses=responses("invalid_input", "conflict", "busy", "not_signed_in"))
def decide(request: Request, body: DecideIn, identity: Caller, service: ServiceDep) -> DecideOut:
    """Decide by a policy, from probabilities over the whole tree."""
    caller = caller_of(request, identity, len(body.probabilities))
    with service.answering.batcher.reserve(caller):
        loaded = service.answering.current()
        classifier = loaded.classifier
        _same_model(classifier, body.model_version)
        policy: Policy = policy_named(body.policy, loaded.policies)
        asked = policy if body.top_n is None else policy.model_copy(update={"n_top": body.top_n})
        decided = classifier.prob2pred(_probabilities(classifier, body.probabilities, body.encoding), asked)
        versions = versions_of(classifier, policy)
    return DecideOut(decisions=[decision_of(said, body.policy, versions) for said in decided])


def _text(classifier: Classifier, products: Sequence[TextIn]) -> Embedding:
    if classifier.text2emb is None or classifier.manifest.text is None:
        raise _not_used("texts")
    spec = classifier.manifest.text.spec
    asked = [Product("", title=p.title, description=p.description, brand=p.brand) for p in products]
    return classifier.text2emb([text_of(product, spec) for product in asked])


def _image(classifier: Classifier, sources: Sequence[str | None]) -> tuple[Embedding, list[str | None]]:
    if classifier.image2emb is None:
        raise _not_used("pictures")
    prepared, errors = classifier.decode(
        [[picture_bytes(source)] if source is not None else [] for source in sources]
    )
    return classifier.image2emb.embed_prepared(prepared), list(errors)


def _embed_out(
    classifier: Classifier, embedding: Embedding, errors: Sequence[str | None], encoding: Encoding
) -> EmbedOut:
    present = embedding.present.tolist()
    return EmbedOut(
        embeddings=[
            encoded(row, encoding) if there else None for row, there in zip(embedding.values, present, strict=True)
        ],
        errors=[None if there else error for error, there in zip(errors, present, strict=True)],
        width=embedding.values.shape[1],
        encoding=encoding,
        model_version=classifier.model_version,
    )


def _row(
    classifier: Classifier, probs: Probabilities, i: int, encoding: Encoding, top_n: int | None
) -> ProbabilitiesRow:
    tree, nodes = classifier.taxonomy, probs.nodes[i]
    top = None
    if top_n is not None:
        best = np.argsort(-nodes, kind="stable")[:top_n].tolist()
        top = [
            NodeOut(node_id=tree.ids[k], path=tree.paths[k], probability=min(float(nodes[k]), 1.0)) for k in best
        ]
    return ProbabilitiesRow(
        modality=MODALITIES[probs.modality[i] - 1] if probs.modality[i] else None,
        nodes=encoded(nodes, encoding) if top is None else None,
        top=top,
        outside=None if probs.outside is None else float(probs.outside[i]),
        attributes={
            name: ValuesOut(
                probabilities=of[i].tolist(),
                source=MODALITIES[probs.sources[name][i] - 1]
                if name in probs.sources and probs.sources[name][i]
                else None,
            )
            for name, of in probs.attributes.items()
        },
    )


def _probabilities(classifier: Classifier, rows: Sequence[ProbabilitiesRow], encoding: Encoding) -> Probabilities:
    """What was sent, looked at closely: it decides as if it came from the model.

    Raises:
        ServiceError: it cannot have come from it.
    """
    tree = classifier.taxonomy
    nodes = decoded([row.nodes for row in rows], encoding, tree.n_nodes, "nodes")
    modality = np.array([MODALITIES.index(row.modality) + 1 if row.modality else 0 for row in rows], np.int8)
    there = modality > 0
    total = nodes.values[:, tree.level == 1].sum(axis=1)
    if (
        (there & ~nodes.present).any()
        or nodes.values.min(initial=0) < -1e-3
        or nodes.values.max(initial=0) > 1 + 1e-3
        or (np.abs(total - 1)[there] > _SUM_TOLERANCE).any()
    ):
        raise _no_distribution("`nodes` that are no distribution", "numbers from 0 to 1, level 1 adding up to 1")
    nodes.values[~there] = 0
    known = classifier.prob2pred.attributes
    widths = dict(zip(known.names, map(len, known.values), strict=True)) if known is not None else {}
    # Of an attribute all rows tell, or none: columns have no holes.
    names = [name for name in widths if any(name in row.attributes for row in rows)]
    attributes, sources = {}, {}
    for name in names:
        asked = [row.attributes.get(name) for row in rows]
        told = decoded(
            [of.probabilities if of else None for of in asked], "list", widths[name], f"{name!r} of row"
        )
        if told.values.min(initial=0) < -1e-3 or told.values.max(initial=0) > 1 + 1e-3:
            raise _no_distribution(f"values of {name!r} that are no probabilities", "numbers from 0 to 1")
        attributes[name] = told.values
        sources[name] = np.array(
            [MODALITIES.index(of.source) + 1 if of and of.source else 0 for of in asked], np.int8
        )
    outside = None
    if any(row.outside is not None for row in rows):
        outside = np.clip([1.0 if row.outside is None else row.outside for row in rows], 0, 1).astype(np.float32)
    return Probabilities(nodes.values, modality, outside, attributes, sources)


def _same_model(classifier: Classifier, version: str | None) -> None:
    if version is not None and version != classifier.model_version:
        raise ServiceError(
            "conflict",
            f"rows of model {version[:40]!r}",
            allowed=f"rows of model {classifier.model_version}, which answers now",
            remedy="Ask for the embeddings again.",
        )


def _width(width: int | None, what: str) -> int:
    if width is None:
        raise _not_used(what)
    return width


def _not_used(what: str) -> ServiceError:
    return ServiceError(
        "invalid_input", what, allowed="what the model uses: it was trained without", remedy="Leave them out."
    )


def _no_distribution(received: str, allowed: str) -> ServiceError:
    return ServiceError(
        "invalid_input", received, allowed=allowed, remedy="Send what /v1/probabilities gives without `top_n`."
    )
