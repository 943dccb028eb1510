"""From probabilities on the tree to decisions: what a consumer is told.

`decide` knows no model. It sees P(node | product) and a policy, so thresholds and policies change without
retraining and without embedding anything again.

policy.py       Policy, what one consumer wants
attributes.py   which attributes apply, and what is said of them
predictions.py  Probabilities and Predictions, the columns
policies.py     a file of policies, one a consumer
plan.py         a policy on a tree: its words as arrays over the nodes
places.py       the most probable places
costs.py        the node of the least expected cost, reckoned along the tree
savings.py      the search for it, branch by branch
exact.py        the search where the value of a category is earned whole or not at all
dearest.py      the dearest place of each branch
windows.py      sums over parts of a row, in blocks that stay in the caches
decoders.py     decide(): one by the other
labelled.py     what labelled products say of the answers about attributes; their promises
"""

from shelver.decide.attributes import Applying, AttributeAnswer, AttributeColumn
from shelver.decide.costs import cheapest
from shelver.decide.decoders import decide
from shelver.decide.places import MAX_ARGMAX, best_places, greatest
from shelver.decide.policies import POLICIES, policies_of, policy_named, read_policies, write_policies
from shelver.decide.policy import DEEPEST, AttributeRule, Costs, Policy, Promise
from shelver.decide.predictions import (
    ERROR,
    OUTCOMES,
    Alternative,
    Outcome,
    Prediction,
    Predictions,
    Probabilities,
    concatenate,
)

__all__ = [
    "DEEPEST",
    "ERROR",
    "MAX_ARGMAX",
    "OUTCOMES",
    "POLICIES",
    "Alternative",
    "Applying",
    "AttributeAnswer",
    "AttributeColumn",
    "AttributeRule",
    "Costs",
    "Outcome",
    "Policy",
    "Prediction",
    "Predictions",
    "Probabilities",
    "Promise",
    "best_places",
    "cheapest",
    "concatenate",
    "decide",
    "greatest",
    "policies_of",
    "policy_named",
    "read_policies",
    "write_policies",
]
