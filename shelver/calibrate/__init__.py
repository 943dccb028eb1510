"""Honest confidence: how far each expert is believed.

experts.py  the weights of the experts' scores, fitted on products that none of them learned from
"""

from shelver.calibrate.experts import (
    MIN_ROWS,
    MODALITIES,
    PRIOR_ROWS,
    Calibration,
    Modality,
    WeightFit,
    can_answer,
    pooled_scores,
)

__all__ = [
    "MIN_ROWS",
    "MODALITIES",
    "PRIOR_ROWS",
    "Calibration",
    "Modality",
    "WeightFit",
    "can_answer",
    "pooled_scores",
]
