"""The stages one by one: /v1/embed/text, /v1/embed/image, /v1/probabilities, /v1/decide.

Put together they give what /v1/predict gives. Nothing of them stands in the log.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from shelver.calibrate import MODALITIES
from shelver.decide import Policy, Probabilities, policy_named
from shelver.pipeline import Embedding, Image2Emb, Prepared
from shelver.pipeline.classifier import Classifier
from shelver.product import Product, text_of
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.answers.answering import decision_of, versions_of
from shelver.service.answers.decoding import decoded, encoded
from shelver.service.answers.json_bodies import body_of, told
from shelver.service.answers.payloads import (
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
    TextIn,
    ValuesOut,
)
from shelver.service.answers.sources import place, prepared
from shelver.service.limits import address_of
from shelver.service.problems import ServiceError, responses
from shelver.service.state import Service, ServiceDep, service_of

router = APIRouter(tags=["stages"])
Caller = Annotated[
    Identity,
    allowed("seller", "reviewer", "admin", "service", opened_by=lambda settings: settings.public_per_minute > 0),
]
_MAX_NUMBERS: Final = 500_000
_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="shelver-stages")
_ADDRESS: Final = re.compile(r"(?i)\s*https?:")
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


@router.post(
    "/v1/embed/text",
    response_model=EmbedOut,
    responses=responses("invalid_input", "too_large", "busy", "not_signed_in"),
    openapi_extra=told(EmbedTextIn),
)
async def embed_text(
    request: Request, identity: Caller, body: Annotated[EmbedTextIn, body_of(EmbedTextIn)], service: ServiceDep
) -> Response:
    """Embed the texts of products, as the model sees them."""
    n = len(body.products)
    return await _worked(service, caller_of(request, identity, n), n, lambda: _embedded_texts(service, body))


@router.post(
    "/v1/embed/image",
    response_model=EmbedOut,
    responses=responses(
        "invalid_input", "picture_unusable", "picture_not_fetched", "too_large", "busy", "not_signed_in"
    ),
    openapi_extra=told(EmbedImageIn),
)
async def embed_image(
    request: Request, identity: Caller, body: Annotated[EmbedImageIn, body_of(EmbedImageIn)], service: ServiceDep
) -> Response:
    """Embed pictures."""
    n = len(body.images)
    caller = caller_of(request, identity, n)
    classifier = service.answering.current().classifier
    image2emb = classifier.image2emb
    if image2emb is None:
        raise _not_used("pictures")
    images = [(None, image) if image and _ADDRESS.match(image) else (image, None) for image in body.images]
    pictures = await prepared(service, image2emb, images, caller)

    def work() -> EmbedOut:
        return _embed_out(classifier, _image(image2emb, pictures), _errors(pictures), body.encoding)

    return await _worked(service, caller, n, work)


@router.post(
    "/v1/probabilities",
    response_model=ProbabilitiesOut,
    responses=responses(
        *("invalid_input", "picture_unusable", "picture_not_fetched", "too_large", "conflict", "busy"),
        "not_signed_in",
    ),
    openapi_extra=told(ProbabilitiesIn),
)
async def probabilities(
    request: Request,
    identity: Caller,
    body: Annotated[ProbabilitiesIn, body_of(ProbabilitiesIn)],
    service: ServiceDep,
) -> Response:
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
    classifier = service.answering.current().classifier
    _same_model(classifier, body.model_version)
    if body.encoding == "list" and body.top_n is None and n * classifier.taxonomy.n_nodes > _MAX_NUMBERS:
        raise ServiceError(
            "too_large",
            f"{n} rows over {classifier.taxonomy.n_nodes} nodes as lists",
            allowed=f"at most {_MAX_NUMBERS} numbers as lists",
            remedy="Ask for fewer products, for `top_n`, or for base64.",
        )
    pictures: list[Prepared | str | None] = [None] * n
    if body.products is not None and classifier.image2emb is not None:
        images = [(product.image_base64, product.image_url) for product in body.products]
        pictures = await prepared(service, classifier.image2emb, images, caller)
    return await _worked(service, caller, n, lambda: _probabilities(classifier, body, pictures))


@router.post(
    "/v1/decide",
    response_model=DecideOut,
    responses=responses("invalid_input", "too_large", "conflict", "busy", "not_signed_in"),
    openapi_extra=told(DecideIn),
)
async def decide(
    request: Request, identity: Caller, body: Annotated[DecideIn, body_of(DecideIn)], service: ServiceDep
) -> Response:
    """Decide by a policy, from probabilities over the whole tree."""
    n = len(body.probabilities)
    return await _worked(service, caller_of(request, identity, n), n, lambda: _decided(service, body))


async def _worked(service: Service, caller: str, n: int, work: Callable[[], BaseModel]) -> Response:
    """What comes of work on n products, made in threads of which there are few: the stages share places with whole
    answers, and must not slow them."""
    batcher = service.answering.batcher
    with await place(service, caller, min(n, batcher.max_batch, batcher.n_places)):
        loop = asyncio.get_running_loop()
        made = await loop.run_in_executor(_THREADS, lambda: work().model_dump_json())
    return Response(made, media_type="application/json")


def _embedded_texts(service: Service, body: EmbedTextIn) -> EmbedOut:
    classifier = service.answering.current().classifier
    embedding = _text(classifier, body.products)
    return _embed_out(classifier, embedding, ["empty_product"] * len(body.products), body.encoding)


def _decided(service: Service, body: DecideIn) -> DecideOut:
    loaded = service.answering.current()
    classifier = loaded.classifier
    _same_model(classifier, body.model_version)
    policy: Policy = policy_named(body.policy, loaded.policies)
    asked = policy if body.top_n is None else policy.model_copy(update={"n_top": body.top_n})
    decided = classifier.prob2pred(_distributions(classifier, body.probabilities, body.encoding), asked)
    versions = versions_of(classifier, policy)
    return DecideOut(decisions=[decision_of(said, body.policy, versions) for said in decided])


def _probabilities(
    classifier: Classifier, body: ProbabilitiesIn, pictures: Sequence[Prepared | str | None]
) -> ProbabilitiesOut:
    text = image = None
    if body.products is not None:
        if classifier.text2emb is not None:
            text = _text(classifier, body.products)
        if classifier.image2emb is not None:
            image = _image(classifier.image2emb, pictures)
    else:
        text_width, image_width = classifier.emb2prob.text_width, classifier.emb2prob.image_width
        if body.text is not None:
            text = decoded(body.text, body.encoding, _width(text_width, "texts"), "text")
        if body.image is not None:
            image = decoded(body.image, body.encoding, _width(image_width, "pictures"), "image")
    probs = classifier.emb2prob(text, image)
    rows = [_row(classifier, probs, i, body.encoding, body.top_n) for i in range(len(pictures))]
    return ProbabilitiesOut(
        probabilities=rows,
        picture_errors=_errors(pictures),
        node_ids=list(classifier.taxonomy.ids) if body.with_node_ids else None,
        encoding=body.encoding,
        model_version=classifier.model_version,
        taxonomy_version=classifier.taxonomy.version,
    )


def _text(classifier: Classifier, products: Sequence[TextIn]) -> Embedding:
    if classifier.text2emb is None or classifier.manifest.text is None:
        raise _not_used("texts")
    spec = classifier.manifest.text.spec
    asked = [Product("", title=p.title, description=p.description, brand=p.brand) for p in products]
    return classifier.text2emb([text_of(product, spec) for product in asked])


def _image(image2emb: Image2Emb, pictures: Sequence[Prepared | str | None]) -> Embedding:
    return image2emb.embed_prepared([[p] if isinstance(p, Prepared) else [] for p in pictures])


def _errors(pictures: Sequence[Prepared | str | None]) -> list[str | None]:
    return [picture if isinstance(picture, str) else None for picture in pictures]


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


def _distributions(classifier: Classifier, rows: Sequence[ProbabilitiesRow], encoding: Encoding) -> Probabilities:
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
