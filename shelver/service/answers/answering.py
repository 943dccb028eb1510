"""From asked products to answers: pictures are decoded, batches answered by the current model, all is measured."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shelver.decide import Policy, Prediction, Predictions, Probabilities, policy_named
from shelver.pipeline import Embedded, Prepared, available_cores
from shelver.pipeline.classifier import Classifier
from shelver.product import Product, text_of
from shelver.service.answers.batcher import N_PLACES, N_SPARE, Batcher, BatchSeen, Places
from shelver.service.answers.decoding import Decoders, Picture, Source
from shelver.service.answers.payloads import MAX_TOP, AlternativeOut, AttributeOut, DecisionOut, Versions
from shelver.service.answers.repeats import Repeats

if TYPE_CHECKING:
    from shelver.service.models.routes import Loaded

_TELL_S: Final = 1.0
log = structlog.get_logger("shelver.service")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One product to be answered.

    Attributes:
        product: as it was sent.
        picture: its picture, decoded, if there is one.
        policy: name of the policy that is to decide.
        top_n: so many alternatives; None as the policy says.
    """

    product: Product
    picture: Picture | None
    policy: str
    top_n: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The answer to one product, and what it was made with."""

    said: Prediction
    picture_error: str | None
    policy: str
    versions: Versions


class Figures:
    """What /metrics tells of predictions."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._stages = Histogram(
            "shelver_stage_seconds",
            "Time of a stage: of a product, or of the batch that it was in.",
            ("stage",),
            registry=metrics,
            buckets=_SECONDS,
        )
        self._sizes = Histogram(
            "shelver_batch_products", "Products a batch.", registry=metrics, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        self._answers = Counter(
            "shelver_answers", "Answers by policy and outcome.", ("policy", "outcome"), registry=metrics
        )
        self._confidence = Histogram(
            "shelver_confidence",
            "Confidence of what was decided.",
            registry=metrics,
            buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0),
        )
        self._refused = Counter(
            "shelver_refused", "Requests that were not read: all places were taken.", ("route",), registry=metrics
        )
        self._n_refused, self._told_s = 0, -_TELL_S
        self._waiting = Gauge("shelver_queue_products", "Products that wait for a batch.", registry=metrics)
        self._held = Gauge("shelver_places_taken", "Products at work.", registry=metrics)

    def watch(self, batcher: Batcher[Asked, Answered]) -> None:
        """Show how many wait whenever somebody looks."""
        self._waiting.set_function(lambda: batcher.n_waiting)
        self._held.set_function(lambda: batcher.n_held)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(name).observe(time.perf_counter() - began)

    def batch(self, seen: BatchSeen) -> None:
        """Count a batch."""
        self._sizes.observe(seen.n_items)
        waited, batch = self._stages.labels("wait"), self._stages.labels("batch")
        for seconds in seen.waited_s:
            waited.observe(seconds)
        batch.observe(seen.took_s)

    def refused(self, route: str) -> None:
        """Count a request that was not even read; a line a second says how many there were."""
        self._refused.labels(route).inc()
        self._n_refused += 1
        now_s = time.monotonic()
        if now_s - self._told_s > _TELL_S:
            log.warning("refused, all places are taken", n=self._n_refused)
            self._n_refused, self._told_s = 0, now_s

    def answer(self, answered: Answered) -> None:
        """Count an answer."""
        self._answers.labels(answered.policy, answered.said.outcome).inc()
        if answered.said.confidence is not None:
            self._confidence.observe(answered.said.confidence)


class Answering:
    """Answers products; open as long as the service is.

    Attributes:
        current: the model that answers now.
        batcher: collects products of many callers.
        decoders: decode pictures before.
        figures: what /metrics tells.
        repeats: answers to requests that may be sent again.
        callers: who signs in with what, as numbers; see `gate`.
        n_inside: requests for predictions that have come whole and are not answered; see `gate`.
    """

    def __init__(
        self,
        current: Callable[[], Loaded],
        metrics: CollectorRegistry,
        *,
        repeats: Repeats | None = None,
        n_places: int = N_PLACES,
    ) -> None:
        self.current = current
        self.figures = Figures(metrics)
        self.decoders = Decoders(available_cores())
        self.repeats = repeats or Repeats()
        self.callers: dict[int | None, str] = {}
        self.n_inside = 0
        self._closed = False
        self.batcher: Batcher[Asked, Answered] = Batcher(
            self.answer_all, n_places=n_places, n_spare=N_SPARE, seen=self.figures.batch
        )
        self.figures.watch(self.batcher)

    def close(self) -> None:
        """Answer what is at work, and end; once."""
        if self._closed:
            return
        self._closed = True
        self.batcher.close()
        self.decoders.close()
        self.repeats.close()

    async def answer(
        self,
        product: Product,
        source: Source | None,
        *,
        policy: str,
        top_n: int | None,
        places: Places[Asked, Answered],
    ) -> tuple[Answered, str | None]:
        """The answer to a product, and the SHA-256 of its picture.

        Args:
            product: its texts.
            source: its picture, encoded or as base64, or why there is none.
            policy: name of the policy that decides.
            top_n: so many alternatives.
            places: of the caller.

        Raises:
            ServiceError: the picture is too large or no base64, or the caller's place was needed.
            ConfigError: there is no such policy.
        """
        picture = None
        if source is not None:
            with self.figures.stage("decode"):
                image2emb = self.current().classifier.image2emb
                picture = await self.decoders.decode(source, image2emb, caller=places.caller)
            product = replace(product, images=(picture.data,))
        answered = await places.submit(Asked(product, picture, policy, top_n))
        self.figures.answer(answered)
        return answered, picture.sha256 if picture is not None else None

    def answer_all(self, items: Sequence[Asked]) -> list[Answered | Exception]:
        """Answer several products with the model that is current now; in the worker's thread."""
        loaded = self.current()
        classifier = loaded.classifier
        products = [item.product for item in items]
        embedded = self._embedded(classifier, items)
        with self.figures.stage("probabilities"):
            probs = classifier.emb2prob(embedded.text, embedded.image)
        answers: list[Answered | Exception] = [AssertionError("not answered")] * len(items)
        with self.figures.stage("decide"):
            for (name, n_top), rows in _by_policy(items, loaded.policies).items():
                try:
                    policy = policy_named(name, loaded.policies)
                    decided = classifier.decide(
                        [products[i] for i in rows],
                        _rows_of(embedded, rows),
                        rows_of(probs, rows),
                        policy=policy if n_top is None else policy.model_copy(update={"n_top": n_top}),
                    )
                    versions = versions_of(classifier, policy)
                    for i, answer in zip(rows, _answers(decided, name, versions), strict=True):
                        answers[i] = _cut(answer, items[i].top_n)
                except Exception as error:  # of this policy: it must not fail the others
                    for i in rows:
                        answers[i] = error
        return answers

    def _embedded(self, classifier: Classifier, items: Sequence[Asked]) -> Embedded:
        text = image = None
        errors: list[str | None] = [None] * len(items)
        if classifier.text2emb is not None and classifier.manifest.text is not None:
            spec = classifier.manifest.text.spec
            with self.figures.stage("embed_text"):
                text = classifier.text2emb([text_of(item.product, spec) for item in items])
        if classifier.image2emb is not None:
            prepared: list[list[Prepared]] = [[] for _ in items]
            with self.figures.stage("embed_image"):
                for i, item in enumerate(items):
                    if item.picture is not None:
                        seen = item.picture.seen_by(classifier.image2emb)
                        if isinstance(seen, str):
                            errors[i] = seen
                        else:
                            prepared[i].append(seen)
                image = classifier.image2emb.embed_prepared(prepared)
        return Embedded(text, image, tuple(errors))


def versions_of(classifier: Classifier, policy: Policy) -> Versions:
    """What an answer by this policy is made with."""
    return Versions(
        model=classifier.model_version, taxonomy=classifier.taxonomy.version, policy=policy_version(policy)
    )


def policy_version(policy: Policy) -> str:
    """Twelve hex digits over what a policy says."""
    content = json.dumps(policy.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def input_hash(product: Product, picture_sha256: str | None) -> str:
    """SHA-256 of what an answer is made from: the texts and the picture, whatever the product is called."""
    parts = [product.title, product.description, product.brand, picture_sha256]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def rows_of(probs: Probabilities, rows: Sequence[int]) -> Probabilities:
    """The distributions of some products."""
    if len(rows) == len(probs.nodes):
        return probs
    at: NDArray[np.intp] = np.asarray(rows, np.intp)
    return Probabilities(
        probs.nodes[at],
        probs.modality[at],
        None if probs.outside is None else probs.outside[at],
        {name: of[at] for name, of in probs.attributes.items()},
        {name: of[at] for name, of in probs.sources.items()},
    )


def _rows_of(embedded: Embedded, rows: Sequence[int]) -> Embedded:
    # To decide takes nothing else of it.
    return replace(embedded, picture_errors=tuple(embedded.picture_errors[i] for i in rows))


def _by_policy(items: Sequence[Asked], policies: Mapping[str, Policy]) -> dict[tuple[str, int | None], list[int]]:
    """Which products are decided together. Who wants more alternatives than his policy lists gets all there may
    be, and `_cut` leaves him what he wants: so that a tree's plans are not made anew for every number."""
    groups: dict[tuple[str, int | None], list[int]] = {}
    for i, item in enumerate(items):
        policy = policies.get(item.policy)
        more = policy is not None and item.top_n is not None and item.top_n > policy.n_top
        groups.setdefault((item.policy, MAX_TOP if more else None), []).append(i)
    return groups


def _answers(decided: Predictions, policy: str, versions: Versions) -> list[Answered]:
    return [
        Answered(said, picture_error, policy, versions)
        for said, picture_error in zip(decided, decided.picture_errors, strict=True)
    ]


def _cut(answer: Answered, top_n: int | None) -> Answered:
    if top_n is None or len(answer.said.alternatives) <= top_n:
        return answer
    return replace(answer, said=replace(answer.said, alternatives=answer.said.alternatives[:top_n]))


def decision_of(said: Prediction, policy: str, versions: Versions) -> DecisionOut:
    """A prediction as it leaves; six digits, as finer ones mean nothing."""
    return DecisionOut(
        outcome=said.outcome,
        node_id=said.node_id,
        path=said.path,
        confidence=None if said.confidence is None else _six(said.confidence),
        level_confidence=[_six(p) for p in said.level_confidence],
        alternatives=[
            AlternativeOut(node_id=a.node_id, path=a.path, confidence=_six(a.confidence))
            for a in said.alternatives
        ],
        attributes={name: AttributeOut.model_validate(a.as_json()) for name, a in said.attributes.items()},
        modality=said.modality,
        error=said.error,
        policy=policy,
        versions=versions,
    )


def _six(probability: float) -> float:
    return min(max(round(probability, 6), 0.0), 1.0)
