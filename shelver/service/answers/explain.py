"""/v1/explain: which words and which region of the picture carried an answer. Nothing of it stands in the log.

An explanation asks the model some dozens of times. One is made at a time, in a thread of its own, and in small
pieces: before each piece it waits as long as predictions do, and no longer than `_PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response

from shelver.decide import policy_named
from shelver.explain import CarryingWord, Explanation, Seen
from shelver.explain import explain as why
from shelver.product import Product
from shelver.service.accounts.identity import Identity
from shelver.service.answers.json_bodies import body_of, told
from shelver.service.answers.payloads import ExplainIn, ExplainOut, RegionOut, WordOut
from shelver.service.answers.pieces import Caller, caller_of
from shelver.service.answers.sources import place, source_of
from shelver.service.models.champion import Loaded
from shelver.service.problems import ServiceError, responses
from shelver.service.state import Service, service_of

MAX_PARTS: Final = 1000
"""Names and values of a body."""
MAX_PLACES: Final = 20
"""Of a word, that are told."""
_PATIENCE_S: Final = 0.05
_LOOK_S: Final = 0.002
_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="shelver-explain")
router = APIRouter(tags=["stages"])


@router.post(
    "/v1/explain",
    response_model=ExplainOut,
    responses=responses(
        *("invalid_input", "unknown_category", "picture_unusable", "picture_not_fetched", "too_large", "busy"),
        *("too_many_requests", "not_signed_in"),
    ),
    openapi_extra=told(ExplainIn),
)
async def explain(
    request: Request,
    identity: Caller,
    body: Annotated[ExplainIn, body_of(ExplainIn, MAX_PARTS)],
) -> Response:
    """Say which words and which region of the picture carry an answer.

    Each was taken away, and the model asked again: without those that are named P(node) falls to `falls_to`.
    """
    out = await explain_one(request, identity, body)
    return Response(out.model_dump_json(), media_type="application/json")


async def explain_one(
    request: Request, identity: Identity, body: ExplainIn, picture: bytes | None = None
) -> ExplainOut:
    """The same for a page.

    Args:
        request: whoever sent it.
        identity: of him.
        body: the product, and the node.
        picture: its bytes, in place of what the body says of one.

    Raises:
        ServiceError: the caller has too many at work, or the product or the node cannot be used.
        InputError: the product has nothing that the model can use.
    """
    service = service_of(request)
    caller = caller_of(request, identity)
    with service.explaining.one(caller):
        loaded = service.answering.current()
        node = _node(loaded, body.node_id)
        policy = policy_named(body.policy, loaded.policies)
        seen = await _seen(service, caller, loaded, body, picture)
        error = seen if isinstance(seen, str) else None
        product = Product("", title=body.title, description=body.description, brand=body.brand)
        if error is not None and not (product.title or product.description or product.brand):
            raise ServiceError(
                "picture_unusable",
                f"a picture that cannot be used ({error}), and no text",
                allowed="a title, a description, a brand or a picture",
                remedy="Send another picture, or a title.",
            )

        def work() -> ExplainOut:
            found = why(
                loaded.classifier,
                product,
                node=node,
                seen=seen if isinstance(seen, Seen) else None,
                policy=policy,
                pause=lambda: _let_others_go_first(service),
            )
            return _out(loaded, found, error)

        with await place(service, caller):
            return await asyncio.get_running_loop().run_in_executor(_THREAD, work)


def _node(loaded: Loaded, node_id: str | None) -> int | None:
    if node_id is None:
        return None
    node = loaded.taxonomy.find(node_id)
    if node is None:
        raise ServiceError(
            "unknown_category",
            f"the category {node_id[:60]!r}",
            allowed=f"an id of tree {loaded.taxonomy.version}, which the model answers with",
            remedy="Take one from /v1/predict or /v1/taxonomy.",
        )
    return node


async def _seen(
    service: Service, caller: str, loaded: Loaded, body: ExplainIn, picture: bytes | None
) -> Seen | str | None:
    """The picture as the model sees it, or why it does not; None where there is none, or the model uses none."""
    image2emb = loaded.classifier.image2emb
    if image2emb is None:
        return None
    source = picture or await source_of(service, body.image_base64, body.image_url, caller)
    if source is None:
        return None
    with await place(service, caller):
        return await service.answering.decoders.see(source, image2emb, caller=caller)


def _let_others_go_first(service: Service) -> None:
    """Wait while predictions wait, for a moment at most."""
    until_s = time.monotonic() + _PATIENCE_S
    while service.answering.batcher.n_waiting and time.monotonic() < until_s:
        time.sleep(_LOOK_S)


def _out(loaded: Loaded, found: Explanation, error: str | None) -> ExplainOut:
    tree, region = loaded.taxonomy, found.region
    return ExplainOut(
        node_id=tree.ids[found.node],
        path=tree.paths[found.node],
        probability=_six(found.probability),
        falls_to=_six(found.falls_to),
        words=[one for carrying in found.words for one in _places(carrying)],
        picture=None if region is None else RegionOut(box=list(region.box), weight=_six(region.weight)),
        picture_error=error,
        n_words_tried=found.n_tried,
        more_words=found.more_words,
        model_version=loaded.model_version,
        taxonomy_version=tree.version,
    )


def _places(carrying: CarryingWord) -> Iterator[WordOut]:
    for place_of in carrying.word.places[:MAX_PLACES]:
        yield WordOut(
            field=place_of.field,
            start=place_of.start,
            end=place_of.end,
            word=carrying.word.text,
            weight=_six(carrying.weight),
        )


def _six(probability: float) -> float:
    return min(max(round(probability, 6), 0.0), 1.0)
