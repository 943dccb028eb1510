"""From probabilities on the tree to decisions: what a consumer is told.

`decide` knows no model. It sees P(node | product) and a policy, so thresholds and policies change without
retraining and without embedding anything again.

policy.py       Policy, what one consumer wants
predictions.py  Probabilities and Predictions, the columns
decoders.py     decide(): one by the other
"""

from shelver.decide.decoders import MAX_ARGMAX, decide, greatest
from shelver.decide.policy import DEEPEST, Costs, Policy, Promise
from shelver.decide.predictions import Alternative, Prediction, Predictions, Probabilities, concatenate

__all__ = [
    "DEEPEST",
    "MAX_ARGMAX",
    "Alternative",
    "Costs",
    "Policy",
    "Prediction",
    "Predictions",
    "Probabilities",
    "Promise",
    "concatenate",
    "decide",
    "greatest",
]
