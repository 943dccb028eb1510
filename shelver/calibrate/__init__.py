"""Honest confidence: how far each expert is believed.

modality.py what a product has to be answered from
experts.py  the weights of the experts' scores, fitted on products that none of them learned from
blend.py    a blend of such distributions, where one sum of scores is not honest enough
outside.py  how strange a product is to the model
promise.py  thresholds that keep a promised precision
turns.py    from which threshold on products are decided, and decided wrongly
binomial.py the exact test that promises rest on
"""

from shelver.calibrate.blend import BlendFit
from shelver.calibrate.experts import (
    MIN_ROWS,
    PRIOR_ROWS,
    Believed,
    Calibration,
    Part,
    WeightFit,
    Weights,
    on_slots,
    pooled_scores,
)
from shelver.calibrate.modality import MODALITIES, Modality, can_answer
from shelver.calibrate.outside import MIN_KNOWN, Known, Outside, strangeness, witness_of
from shelver.calibrate.promise import GRID, Found, fit_promise, fit_threshold, least_decided, start_of
from shelver.calibrate.turns import Paths, Turns

__all__ = [
    "GRID",
    "MIN_KNOWN",
    "MIN_ROWS",
    "MODALITIES",
    "PRIOR_ROWS",
    "Believed",
    "BlendFit",
    "Calibration",
    "Found",
    "Known",
    "Modality",
    "Outside",
    "Part",
    "Paths",
    "Turns",
    "WeightFit",
    "Weights",
    "can_answer",
    "fit_promise",
    "fit_threshold",
    "least_decided",
    "on_slots",
    "pooled_scores",
    "start_of",
    "strangeness",
    "witness_of",
]
