"""A policy before it is saved: which thresholds a target precision asks for, what they cover, whom they touch.

`POST /v1/policies/preview`. The precision is reckoned from labelled products (`evidence`), by the exact tests of
`shelver policy fit`, for one threshold at every level. Only held-out products carry a promise. The products that
change are recent predictions, decided again from what the log keeps of them (`replay`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shelver.calibrate import fit_threshold
from shelver.calibrate.binomial import interval
from shelver.decide import Policy, Promise
from shelver.errors import ConfigError, InputError
from shelver.service.models.evidence import Evidence, Labels, evidence_of, labels_in
from shelver.service.models.kept import Kept
from shelver.service.models.loaded import Loaded
from shelver.service.models.preview_payloads import (
    Change,
    ChangedPrediction,
    Outlook,
    PreviewIn,
    PreviewOut,
    Recent,
)
from shelver.service.models.replay import Stored, check_decoder, decided_again, right_of, stored_of
from shelver.service.problems import ServiceError
from shelver.service.records.payloads import Figure
from shelver.service.tables.records import PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

MAX_RECENT: Final = 20_000
_NO_PROMISE: Final = {
    "labels": "People judge what they see, and accept what they did not look at: their labels show what a "
    "threshold would do to these products, and promise nothing, however many they are. A promise needs held-out "
    'products: the model\'s report (`source` "report"), or `shelver policy fit`.',
    "report": "The model's report knows its most probable places only, and this policy decides others too. The "
    "threshold is a good guess; a promise needs `shelver policy fit` on held-out products.",
}
_CHANGES: Final[tuple[Change, ...]] = ("newly_decided", "no_longer_decided", "deeper", "higher")


@dataclass(frozen=True, eq=False, slots=True)
class Asked:
    """Recent predictions of one policy, newest first.

    Attributes:
        ids, at: of each.
        stored: what the log knows of each.
        complete: whether there were no more.
    """

    ids: list[str]
    at: list[datetime]
    stored: Stored
    complete: bool


def previewed(session: Session, loaded: Loaded, kept: Kept, asked: PreviewIn) -> PreviewOut:
    """What a policy, or a target precision in place of its thresholds, would give.

    Raises:
        ServiceError: no policy has the name, and none is given.
        ConfigError: the policy does not fit the model, or its decoder knows no thresholds.
    """
    before = loaded.policies.get(asked.name)
    policy = asked.policy or before
    if policy is None:
        raise ServiceError(
            "not_found",
            f"no policy {asked.name!r}",
            allowed="one that /v1/policies lists, or `policy` with a new one",
            remedy="Check the name.",
        )
    loaded.check(policy)
    check_decoder(policy)
    labels = kept.get(
        ("labels", loaded.model_version),
        lambda: labels_in(session, loaded),
    )
    evidence = evidence_of(labels, policy, loaded, asked.source)
    reason, reached = None, True
    if asked.precision is None:
        promised = policy.promise is not None and policy.promise.model_version == loaded.model_version
    else:
        aimed, promised, reason = _aimed(policy, evidence, loaded, asked.precision, asked.delta)
        reached = aimed is not None
        policy = aimed or policy
    now, then = _outlooks(before, policy, evidence, labels, loaded)
    return PreviewOut(
        name=asked.name,
        policy=policy,
        model_version=loaded.model_version,
        source=evidence.source if evidence is not None else None,
        n_labelled=len(evidence.turns) if evidence is not None else 0,
        target=asked.precision,
        reached=reached,
        promised=promised,
        reason=reason,
        now=now,
        then=then,
        curve=evidence.curve() if evidence is not None else [],
        recent=_recent(session, loaded, kept, asked, before, policy),
    )


def _aimed(
    policy: Policy, evidence: Evidence | None, loaded: Loaded, precision: float, delta: float
) -> tuple[Policy | None, bool, str | None]:
    """The policy with the threshold for a target, None where none reaches it; whether it may be promised, and why
    not."""
    reason: str | None = "Nothing is labelled yet, and the model has no report: no precision can be reckoned."
    if evidence is None:
        return None, False, reason
    reason = None
    try:
        threshold: float | None = fit_threshold(evidence.turns, precision, delta=delta)
    except InputError as error:
        threshold, reason = evidence.loosest(precision), str(error)
    if not evidence.can_promise:  # then more products, as the test may ask for, are no help
        reason = _NO_PROMISE[evidence.source]
        if threshold is None:
            reason = f"No threshold reaches {precision:g} on these products: aim lower, or train a better model."
    if threshold is None:
        return None, False, reason
    threshold = math.floor(threshold * 1e6) / 1e6
    promise = None
    if reason is None:
        n_decided, n_wrong = (int(counts[0]) for counts in evidence.turns.counts(threshold))
        promise = Promise(
            precision=precision,
            delta=delta,
            model_version=loaded.model_version,
            catalog_version=evidence.catalog_version,
            split=evidence.split,
            n_products=len(evidence.turns),
            n_decided=n_decided,
            n_right=n_decided - n_wrong,
            coverage=round(n_decided / max(len(evidence.turns), 1), 6),
        )
    return policy.model_copy(update={"thresholds": (threshold,), "promise": promise}), promise is not None, reason


def _outlooks(
    before: Policy | None, after: Policy, evidence: Evidence | None, labels: Labels, loaded: Loaded
) -> tuple[Outlook | None, Outlook | None]:
    if evidence is None:
        return None, None
    found: list[Outlook | None] = []
    for policy in (before, after):
        counts = None if policy is None else _counted(policy, evidence, labels, loaded)
        if policy is None or counts is None:
            found.append(None)
            continue
        n, right = counts
        figure = None
        if n:
            low, high = interval(right, n)
            figure = Figure(value=right / n, low=float(low), high=float(high), n=n)
        thresholds = [float(t) for t in policy.thresholds]
        found.append(Outlook(thresholds=thresholds, coverage=n / max(len(evidence.turns), 1), precision=figure))
    return found[0], found[1]


def _counted(policy: Policy, evidence: Evidence, labels: Labels, loaded: Loaded) -> tuple[int, int] | None:
    """How many labelled products a policy decides, and how many of them rightly; None where that is not known."""
    try:
        check_decoder(policy)
    except ConfigError:
        return None
    if evidence.source == "labels":
        decided = decided_again(labels.stored, policy, loaded.classifier.prob2pred.groups)
        right = right_of(decided, labels.truth, loaded.taxonomy)
        return int((decided >= 0).sum()), int(right.sum())
    if len(policy.thresholds) > 1:
        return None  # a curve knows one threshold
    n, wrong = (int(counts[0]) for counts in evidence.turns.counts(policy.thresholds[0]))
    return n, n - wrong


def _recent(
    session: Session, loaded: Loaded, kept: Kept, asked: PreviewIn, before: Policy | None, after: Policy
) -> Recent:
    end = datetime.now(UTC)
    start = end - timedelta(days=asked.days)
    found = kept.get(
        ("recent", loaded.model_version, asked.name, asked.days),
        lambda: _asked(session, loaded, asked.name, start),
    )
    groups, tree = loaded.classifier.prob2pred.groups, loaded.taxonomy
    known = ~found.stored.unknown
    then = decided_again(found.stored, after, groups)
    now = then
    if before is not None and before.decoder == "top_n":
        now = np.full_like(then, -1)
    elif before is not None and before.decoder != "cost":
        now = decided_again(found.stored, before, groups)
    change = np.where(known, _change(now, then, tree), -1)
    rows = np.flatnonzero(change >= 0)
    counts = np.bincount(change[rows], minlength=len(_CHANGES)).tolist()
    page = rows[asked.skip : asked.skip + asked.limit].tolist()
    n_known = int(known.sum())

    def coverage(nodes: NDArray[np.int32]) -> float | None:
        return float((nodes[known] >= 0).sum() / n_known) if n_known else None

    return Recent(
        start=start,
        end=end,
        n=len(found.ids),
        complete=found.complete,
        n_unknown=len(found.ids) - n_known,
        coverage_now=coverage(now) if before is not None and before.decoder != "cost" else None,
        coverage_then=coverage(then),
        n_newly_decided=counts[0],
        n_no_longer_decided=counts[1],
        n_deeper=counts[2],
        n_higher=counts[3],
        changed=_changed(session, found, page, now, then, change, tree),
    )


def _asked(session: Session, loaded: Loaded, name: str, start: datetime) -> Asked:
    wanted = (
        select(PredictionRow.id, PredictionRow.at, PredictionRow.answer)
        .where(PredictionRow.at >= start, PredictionRow.policy == name)
        .where(PredictionRow.model_version == loaded.model_version)
        .order_by(PredictionRow.at.desc(), PredictionRow.id.desc())
        .limit(MAX_RECENT + 1)
    )
    rows = session.execute(wanted).all()
    complete, rows = len(rows) <= MAX_RECENT, rows[:MAX_RECENT]
    stored = stored_of((row.answer for row in rows), loaded.taxonomy)
    return Asked([row.id for row in rows], [row.at for row in rows], stored, complete)


def _change(now: NDArray[np.int32], then: NDArray[np.int32], tree: Taxonomy) -> NDArray[np.int64]:
    """Which of `_CHANGES` happens to each, -1 where nothing does."""
    deeper = tree.level[np.maximum(then, 0)] > tree.level[np.maximum(now, 0)]
    found: NDArray[np.int64] = np.select(
        [now == then, now < 0, then < 0, deeper], [-1, 0, 1, 2], default=3
    ).astype(np.int64)
    return found


def _changed(
    session: Session,
    found: Asked,
    rows: list[int],
    now: NDArray[np.int32],
    then: NDArray[np.int32],
    change: NDArray[np.int64],
    tree: Taxonomy,
) -> list[ChangedPrediction]:
    ids = [found.ids[i] for i in rows]
    products: dict[str, tuple[str, str | None]] = {}
    if ids:
        named = select(PredictionRow.product_id, PredictionRow.id).where(
            PredictionRow.id.in_(ids), PredictionRow.product_id.is_not(None)
        )
        own = {row.product_id: row.id for row in session.execute(named)}
        wanted = select(ProductRow.id, ProductRow.prediction_id, ProductRow.title)
        which = or_(ProductRow.prediction_id.in_(ids), ProductRow.id.in_([*own]))
        for row in session.execute(wanted.where(which)):
            products[row.prediction_id if row.prediction_id in ids else own[row.id]] = row.id, row.title
    listed = []
    for i in rows:
        product_id, title = products.get(found.ids[i], (None, None))
        a, b = int(now[i]), int(then[i])
        deepest = max((k for k in (a, b) if k >= 0), key=lambda k: int(tree.level[k]))
        listed.append(
            ChangedPrediction(
                prediction_id=found.ids[i],
                at=found.at[i],
                product_id=product_id,
                title=title,
                change=_CHANGES[int(change[i])],
                path_before=tree.paths[a] if a >= 0 else None,
                path_after=tree.paths[b] if b >= 0 else None,
                confidence=round(float(found.stored.level_confidence[i, tree.level[deepest] - 1]), 6),
            )
        )
    return listed
