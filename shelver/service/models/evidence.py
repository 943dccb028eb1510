"""What the precision of a policy is reckoned from: people's labels, and where these are few the model's report.

Labels: current judgements of predictions of the model that answers, whose stored answers say how sure it was.
They are no random sample, nor are they the truth: people judge what they see, accept what they did not look at,
and what the model is unsure of comes to review. So labels show what a threshold would do, and never carry a
promise. A policy that kept nothing of what it was unsure of would leave only its surer answers: labels under such
a policy are left out.

The report: what the model's own evaluation on held-out products says of its most probable places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from shelver.calibrate.binomial import interval
from shelver.calibrate.turns import Turns
from shelver.decide import Policy
from shelver.errors import InputError
from shelver.evaluate.parts import Curve
from shelver.evaluate.schema import Report, read_report
from shelver.service.models.loaded import Loaded
from shelver.service.models.preview_payloads import CurvePoint
from shelver.service.models.replay import Stored, stored_of, turns_of, whole_of
from shelver.service.records.quality import labels_of
from shelver.service.tables.records import FeedbackRow, PredictionRow

MAX_LABELS: Final = 20_000
ENOUGH: Final = 200
"""From so many labels on they stand before the report."""
N_POINTS: Final = 32
N_DEEPER: Final = 8
REPORT: Final = "report/report.json"


@dataclass(frozen=True, eq=False, slots=True)
class Labels:
    """Labelled answers of the model that answers.

    Attributes:
        stored: those of which something is known.
        truth: labelled nodes, -1 where somebody only said that the answer was wrong, shape (N,).
    """

    stored: Stored
    truth: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.stored)


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """What one threshold would do to labelled products.

    Attributes:
        source: where they come from.
        turns: from which threshold on each is decided, and decided wrongly.
        can_promise: whether these are held-out products, and the very decisions of the policy are known for them.
        catalog_version, split: what a promise rests on; empty of labels.
    """

    source: Literal["labels", "report"]
    turns: Turns
    can_promise: bool
    catalog_version: str
    split: str

    def curve(self) -> list[CurvePoint]:
        """Precision against coverage, at thresholds at which about equally many more are decided each time; below
        them at lower ones, since decisions still go deeper."""
        decided = np.sort(self.turns.decided_at[np.isfinite(self.turns.decided_at)])[::-1]
        if not len(decided):
            return []
        ranks = np.unique(np.linspace(len(decided) / N_POINTS, len(decided), N_POINTS).round().astype(int))
        deeper = np.unique(self.turns.wrong_at[np.isfinite(self.turns.wrong_at)])
        deeper = deeper[deeper < decided[-1]]
        if len(deeper):
            deeper = deeper[np.unique(np.linspace(0, len(deeper) - 1, N_DEEPER).round().astype(int))]
        thresholds = np.unique([*decided[np.maximum(ranks, 1) - 1], *deeper])[::-1]
        n, wrong = self.turns.counts(thresholds)
        low, high = interval(n - wrong, n)
        return [
            CurvePoint(
                threshold=round(float(t), 6),
                coverage=round(k / len(self.turns), 6),
                precision=round(1 - bad / k, 6),
                low=round(float(a), 6),
                high=round(float(b), 6),
            )
            for t, k, bad, a, b in zip(thresholds, n.tolist(), wrong.tolist(), low, high, strict=True)
        ]

    def loosest(self, precision: float) -> float | None:
        """The loosest threshold at which these very products reach a precision; it flatters. None: none does."""
        turns = np.concatenate([self.turns.decided_at, self.turns.wrong_at])
        thresholds = np.unique(turns[np.isfinite(turns)])
        n, wrong = self.turns.counts(thresholds)
        held = np.flatnonzero((n > 0) & (n - wrong >= precision * n * (1 - 1e-12)))
        return float(thresholds[held[0]]) if len(held) else None


def labels_in(session: Session, loaded: Loaded) -> Labels:
    """The latest labels of predictions that the model made which answers now."""
    wanted = (
        select(FeedbackRow, PredictionRow.answer)
        .join(PredictionRow, PredictionRow.id == FeedbackRow.prediction_id)
        .where(FeedbackRow.current_of.is_not(None), FeedbackRow.model_version == loaded.model_version)
        .order_by(FeedbackRow.predicted_at.desc(), FeedbackRow.id.desc())
        .limit(MAX_LABELS)
    )
    answers: dict[str, str] = {}
    judged = []
    for row, answer in session.execute(wanted):
        judged.append(row)
        answers[row.prediction_id] = answer
    tree = loaded.taxonomy
    labels = [row for row in labels_of(judged) if row.node_after is None or tree.find(row.node_after) is not None]
    stored = stored_of([answers[row.prediction_id] for row in labels], tree)
    silent = {row.policy for row, unknown in zip(labels, stored.unknown.tolist(), strict=True) if unknown}
    kept = np.array([row.policy not in silent for row in labels], np.bool_)
    nodes = [None if row.node_after is None else tree.find(row.node_after) for row in labels]
    truth = np.array([-1 if node is None else node for node in nodes], np.int32)
    return Labels(stored.of(kept), truth[kept])


def evidence_of(
    labels: Labels, policy: Policy, loaded: Loaded, source: Literal["labels", "report"] | None
) -> Evidence | None:
    """What a preview reckons from; None where there is nothing.

    Args:
        labels: people's.
        policy: its decoder and levels count.
        loaded: the model.
        source: which one is asked for; None: the labels if there are `ENOUGH`, else the report if there is one.
    """
    groups = loaded.classifier.prob2pred.groups
    if source != "report" and len(labels) >= (1 if source == "labels" else ENOUGH):
        return _of_labels(labels, policy, loaded)
    report = report_of(loaded.folder) if source != "labels" else None
    if report is not None and report.model_version == loaded.model_version:
        deepest = policy.max_level is None or policy.max_level >= loaded.taxonomy.n_levels
        curve = report.selective.all if deepest else report.selective_by_level.get(str(policy.max_level))
        n = report.n if deepest else report.by_level[str(policy.max_level)].n
        if curve is not None and curve.threshold:
            exact = (
                *(whole_of(policy), deepest, policy.min_level == 1, policy.outside is None, not policy.strict),
                not (groups.here_slot >= 0).any(),
            )
            return Evidence("report", _turns_of_curve(curve, n), all(exact), report.catalog_version, report.split)
    return _of_labels(labels, policy, loaded) if len(labels) and source != "report" else None


def report_of(folder: Path) -> Report | None:
    """The report that lies beside a model; None where there is none that can be read."""
    path = folder / REPORT
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, InputError):
        return None


@lru_cache(maxsize=4)
def _read(path: Path, _changed_ns: int) -> Report:
    return read_report(path)


def _of_labels(labels: Labels, policy: Policy, loaded: Loaded) -> Evidence:
    turns = turns_of(labels.stored, labels.truth, policy, loaded.classifier.prob2pred.groups)
    return Evidence("labels", turns, False, catalog_version="", split="")


def _turns_of_curve(curve: Curve, n: int) -> Turns:
    """As if all products between two points of a curve were decided at the looser one, where it is exact."""
    n_decided = np.rint(np.array(curve.coverage) * n).astype(np.int64)
    n_right = np.rint(np.array(curve.accuracy) * n_decided).astype(np.int64)
    n_wrong = np.maximum.accumulate(n_decided - n_right)
    more, worse = np.diff(n_decided, prepend=0), np.diff(n_wrong, prepend=0)
    thresholds: Sequence[float] = curve.threshold
    decided_at = np.full(n, -np.inf, np.float32)
    wrong_at = np.full(n, -np.inf, np.float32)
    at = np.repeat(np.array(thresholds, np.float32), more)
    decided_at[: len(at)] = at
    begin = np.cumsum(more) - more
    for first, bad, threshold in zip(begin.tolist(), worse.tolist(), thresholds, strict=True):
        wrong_at[first : first + bad] = threshold
    return Turns(decided_at, wrong_at)
