"""What labelled products say of the answers about attributes: how often they are right, and what may be promised.

Each answered value is a decision, right where it is among the product's labelled values. Products of which an
attribute is not known say nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import fit_threshold
from shelver.calibrate.binomial import interval
from shelver.calibrate.turns import NEVER, Turns
from shelver.decide.attributes import least_of
from shelver.decide.policy import AttributeRule, Policy, Promise
from shelver.decide.predictions import Predictions, Probabilities
from shelver.product import Product

Batch = tuple[Sequence[Product], Probabilities]
Decide = Callable[[Probabilities, Policy], Predictions]
Word = Literal["kept", "in doubt", "broken"]


@dataclass(frozen=True, eq=False, slots=True)
class Evidence:
    """R answers about one attribute, given for N products of which it is known.

    Attributes:
        multi: a product may have several answers.
        n_products: N.
        product: which product each answer is about, shape (R,), ascending.
        confidence: P(the answer is right), shape (R,), float32.
        right: whether it is, shape (R,).
    """

    multi: bool
    n_products: int
    product: NDArray[np.intp]
    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]

    @property
    def n_answered(self) -> int:
        """Products with an answer."""
        return len(np.unique(self.product))

    def at(self, threshold: float) -> Evidence:
        """The answers that are so sure."""
        sure = self.confidence >= np.float32(threshold)
        return Evidence(self.multi, self.n_products, self.product[sure], self.confidence[sure], self.right[sure])


def evidence_of(products: Sequence[Product], said: Predictions) -> dict[str, Evidence]:
    """What N products say of the answers that they were given, by attribute."""
    found = {}
    for name, column in said.attributes.items():
        labels = [frozenset(product.attributes.get(name, ())) for product in products]
        known = np.array([bool(label) for label in labels], np.bool_)
        number = np.cumsum(known) - 1
        kept = known[column.row]
        row, value = column.row[kept], column.value[kept]
        right = [column.values[v] in labels[i] for i, v in zip(row.tolist(), value.tolist(), strict=True)]
        found[name] = Evidence(
            multi=column.multi,
            n_products=int(known.sum()),
            product=number[row],
            confidence=column.confidence[kept],
            right=np.array(right, np.bool_),
        )
    return found


def joined(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of several batches as one."""
    before = np.concatenate([[0], np.cumsum([part.n_products for part in parts])]).astype(np.intp)
    return Evidence(
        multi=parts[0].multi,
        n_products=int(before[-1]),
        product=np.concatenate([part.product + n for part, n in zip(parts, before[:-1], strict=True)]),
        confidence=np.concatenate([part.confidence for part in parts]),
        right=np.concatenate([part.right for part in parts]),
    )


def fit_rule(name: str, evidence: Evidence, precision: float, *, delta: float = 0.05) -> tuple[float, Evidence]:
    """The loosest threshold for which a precision may be promised, and what is answered at it.

    Args:
        name: of the attribute.
        evidence: of a policy without a threshold for it.
        precision: the share of the answers that shall be right, in (0, 1).
        delta: the chance that the promise is broken by a bad draw of the products.

    Raises:
        InputError: the products cannot carry the promise; says how many more would.
        ConfigError: precision or delta out of range.
    """
    # A product without an answer is one that is never decided.
    drawn_at = np.full(evidence.n_products, NEVER, np.float32)
    np.maximum.at(drawn_at, evidence.product, evidence.confidence)
    where = f" for attribute {name!r}"
    if evidence.multi:
        turns = Turns(evidence.confidence, np.where(evidence.right, NEVER, evidence.confidence))
        threshold = fit_threshold(turns, precision, delta=delta, drawn_at=drawn_at, where=where)
        threshold = max(threshold, least_of(AttributeRule(), multi=True))
    else:
        wrong_at = np.full(evidence.n_products, NEVER, np.float32)
        wrong_at[evidence.product] = np.where(evidence.right, NEVER, evidence.confidence)
        threshold = fit_threshold(Turns(drawn_at, wrong_at), precision, delta=delta, where=where)
    return threshold, evidence.at(threshold)


def fit_attributes(
    batches: Iterable[Batch],
    decide: Decide,
    policy: Policy,
    wanted: Mapping[str, float],
    *,
    delta: float,
    model_version: str,
    catalog_version: str,
    split: str,
) -> Policy:
    """A policy whose answers about some attributes keep promises.

    Each attribute has a delta of its own: with ten promises at .05, one that is broken is no surprise.

    Args:
        batches: labelled products that the model did not learn from, and their probabilities.
        decide: the model's last stage.
        policy: how nodes are decided; its rules for the wanted attributes are replaced.
        wanted: name of an attribute → the precision to promise.
        delta: the chance that one of the promises is broken by a bad draw of the products.
        model_version, catalog_version, split: where the probabilities and the products came from.

    Raises:
        InputError: the products cannot carry a promise; says how many more would.
        ConfigError: an attribute that the model has not learned, or a number out of range.
    """
    everything = policy.model_copy(
        update={"attributes": {**policy.attributes, **{name: AttributeRule() for name in wanted}}}
    )
    rules = dict(policy.attributes)
    for name, evidence in _collected(batches, decide, {"": everything}, wanted)[""].items():
        threshold, kept = fit_rule(name, evidence, wanted[name], delta=delta)
        promise = Promise(
            precision=wanted[name],
            delta=delta,
            model_version=model_version,
            catalog_version=catalog_version,
            split=split,
            n_products=kept.n_products,
            n_decided=len(kept.right),
            n_right=int(kept.right.sum()),
            coverage=round(kept.n_answered / max(kept.n_products, 1), 6),
        )
        rules[name] = AttributeRule(threshold=threshold, promise=promise)
    return policy.model_copy(update={"attributes": rules})


@dataclass(frozen=True, slots=True)
class JudgedAttribute:
    """What a policy makes of an attribute of labelled products.

    Attributes:
        policy, attribute: their names.
        n_products: products of which the attribute is known.
        coverage: the share of them with an answer.
        n_answers, n_right: answered values, and those of them that are right.
        precision: n_right over n_answers; None where nothing was answered.
        precision_low, precision_high: its 95 % interval (Clopper-Pearson), exact where a product has one answer.
        promised: the precision that the policy promises; None where it promises nothing.
        promise: "kept" where the precision reaches it, "broken" where even the upper end of the interval does not,
            "in doubt" between; None where nothing was promised or answered.
    """

    policy: str
    attribute: str
    n_products: int
    coverage: float
    n_answers: int
    n_right: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    promised: float | None
    promise: Word | None


def judge_attributes(
    batches: Iterable[Batch], decide: Decide, policies: Mapping[str, Policy]
) -> list[JudgedAttribute]:
    """How often the answers of several policies are right, by policy and attribute; only attributes of which
    something is known.

    Raises:
        ConfigError: a policy that does not fit the model.
    """
    judged = []
    for policy, by_name in _collected(batches, decide, policies).items():
        for name, evidence in by_name.items():
            n, n_right = len(evidence.right), int(evidence.right.sum())
            rule = policies[policy].attributes.get(name)
            promised = rule.promise.precision if rule is not None and rule.promise is not None else None
            precision = low = high = None
            word: Word | None = None
            if n:
                precision = n_right / n
                low, high = (round(float(end), 6) for end in interval(n_right, n))
                if promised is not None:
                    word = "kept" if n_right >= promised * n else "in doubt" if high >= promised else "broken"
            if evidence.n_products:
                coverage = evidence.n_answered / evidence.n_products
                judged.append(
                    JudgedAttribute(
                        *(policy, name, evidence.n_products, coverage, n, n_right),
                        *(precision, low, high, promised, word),
                    )
                )
    return judged


_NO_EVIDENCE: Final = Evidence(False, 0, np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.bool_))


def _collected(
    batches: Iterable[Batch], decide: Decide, policies: Mapping[str, Policy], wanted: Collection[str] | None = None
) -> dict[str, dict[str, Evidence]]:
    """Evidence by policy and attribute; that of a wanted attribute stands there even where there is none."""
    parts: dict[str, dict[str, list[Evidence]]] = {name: {} for name in policies}
    for products, probs in batches:
        for name, policy in policies.items():
            for attribute, evidence in evidence_of(products, decide(probs, policy)).items():
                if wanted is None or attribute in wanted:
                    parts[name].setdefault(attribute, []).append(evidence)
    return {
        name: {
            **dict.fromkeys(wanted or (), _NO_EVIDENCE),
            **{attribute: joined(of_one) for attribute, of_one in by_name.items()},
        }
        for name, by_name in parts.items()
    }
