"""What a score means: flat, hierarchical, selective, value-weighted and probabilistic metrics over plain arrays.

Everywhere, N products have a true node `truth` (N,) and a predicted node `predicted` (N,), both indices
into one taxonomy. A product without an answer has a negative index in `predicted`, or False in `answered`
where that is given; it counts as wrong, and as a miss of its true label, but is a false alarm for none.
The root is no node. Empty input is a ShapeError, since a score of nothing was not measured.

Where a product has several right nodes, `also` (N, A) holds the others, padded with -1. Without it a score is
strict, against `truth` alone; with it lenient: each product is scored against the right node that its answer comes
nearest to (`nearest`).

flat.py          exactly right or not: accuracy, F1, top k, coverage; frequent and rare labels
labels.py        values of an attribute, one or several a product: F1, exactly right, answered instead
hierarchical.py  part of the credit for part of the path; how bad a mistake is
calibration.py   whether a confidence means what it says: ECE, Brier, reliability
selective.py     what if only the most confident answers were given: risk against coverage
value.py         a right answer counts what its product is worth
"""

from shelver.metrics.calibration import N_BINS, Reliability, brier, ece, level_brier, reliability
from shelver.metrics.flat import (
    FREQUENCIES,
    Flags,
    Floats,
    Frequency,
    Nodes,
    accuracy,
    correct,
    coverage,
    head_torso_tail,
    macro_f1,
    top_k_accuracy,
    weighted_f1,
)
from shelver.metrics.hierarchical import (
    Hierarchical,
    at_level,
    heights,
    hierarchical,
    hierarchical_coverage,
    mistake_severity,
    nearest,
    relative_lca,
    right_as_promised,
)
from shelver.metrics.labels import (
    COMMON,
    Pairs,
    ValueScores,
    answered_or_missed,
    exactly_right,
    instead,
    right_pairs,
    value_scores,
)
from shelver.metrics.selective import RiskCoverage, aurc, coverage_at_precision, e_aurc, risk_coverage
from shelver.metrics.value import value_score

__all__ = [
    "COMMON",
    "FREQUENCIES",
    "N_BINS",
    "Flags",
    "Floats",
    "Frequency",
    "Hierarchical",
    "Nodes",
    "Pairs",
    "Reliability",
    "RiskCoverage",
    "ValueScores",
    "accuracy",
    "answered_or_missed",
    "at_level",
    "aurc",
    "brier",
    "correct",
    "coverage",
    "coverage_at_precision",
    "e_aurc",
    "ece",
    "exactly_right",
    "head_torso_tail",
    "heights",
    "hierarchical",
    "hierarchical_coverage",
    "instead",
    "level_brier",
    "macro_f1",
    "mistake_severity",
    "nearest",
    "relative_lca",
    "reliability",
    "right_as_promised",
    "right_pairs",
    "risk_coverage",
    "top_k_accuracy",
    "value_score",
    "value_scores",
    "weighted_f1",
]
