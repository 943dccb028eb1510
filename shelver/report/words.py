"""What the figures are called and mean, and a manifest in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from shelver.calibrate import Modality
from shelver.catalog.split import Part
from shelver.evaluate import Views
from shelver.registry import Manifest

T = TypeVar("T")


class Meaning(NamedTuple):
    """A figure for people.

    Attributes:
        name: what it is called.
        key: its field in `Figures`.
        meaning: a sentence.
        percent: it is a share.
    """

    name: str
    key: str
    meaning: str
    percent: bool = True


MEANINGS: Final = (
    Meaning("accuracy", "accuracy", "The decided category is exactly the true one."),
    Meaning(
        "macro-F1",
        "macro_f1",
        "Precision and recall in one figure, for each category by itself, then averaged: a rare category weighs "
        "as much as a common one.",
    ),
    Meaning("weighted F1", "weighted_f1", "The same, a category weighing as much as it has products."),
    Meaning("top 3", "top3_accuracy", "The true category is among the first three suggestions."),
    Meaning(
        "hierarchical F1",
        "hierarchical_f1",
        "Part of the credit for part of the path: right department, wrong shelf.",
    ),
    Meaning("shared path", "relative_lca", "How far down the decided and the true path are the same, on average."),
    Meaning(
        "coverage", "coverage", "Products that were answered at all; the others lacked all that the model reads."
    ),
    Meaning(
        "calibration error",
        "ece",
        "How far confidence and accuracy are apart; at 0, of the answers that are 80 % sure, 80 % are right.",
        percent=False,
    ),
    Meaning(
        "Brier score",
        "brier",
        "Mean square of what the confidence is off: it sees honesty and sharpness together; 0 is best.",
        percent=False,
    ),
    Meaning(
        "AURC",
        "aurc",
        "Area under risk against coverage: the mean share of wrong answers among the surest, over all numbers of "
        "them; 0 is best.",
        percent=False,
    ),
    Meaning(
        "excess AURC",
        "e_aurc",
        "The same less what the best order of these very answers would have: how badly the confidence sorts right "
        "from wrong.",
        percent=False,
    ),
    *(
        Meaning(
            f"coverage at {percent}\u00a0%",
            f"coverage_at_{percent}",
            f"The most products that can be answered while {percent} % of the answers are right.",
        )
        for percent in (90, 95, 99)
    ),
    Meaning(
        "severity",
        "severity",
        "How many levels the tree has below the last category that truth and answer share, mean over the "
        "mistakes: 1 is the shelf beside.",
        percent=False,
    ),
    Meaning(
        "levels named",
        "hierarchical_coverage",
        "Hierarchical coverage: of the levels of the true paths, those for which the answers name a category.",
    ),
    Meaning("value", "value_score", "The accuracy, each product weighing what it is worth."),
    Meaning("value, partial", "value_score_partial", "The same with part of the credit for part of the path."),
)
BRIEF: Final = tuple(
    m for m in MEANINGS if m.key in ("accuracy", "macro_f1", "top3_accuracy", "hierarchical_f1", "coverage", "ece")
)
"""The columns of most tables."""
ATTRIBUTES: Final = (
    Meaning(
        "accuracy",
        "accuracy",
        "The answered value is exactly the labelled one; of an attribute with several values, all of them are.",
    ),
    Meaning("answered", "coverage", "Products for which the attribute was answered."),
    Meaning("precision", "precision", "Of the answered values, those that are labelled."),
    Meaning("macro-F1", "macro_f1", "F1 of each value, averaged: a rare value weighs as much as a common one."),
    Meaning("macro-F1, common", "macro_f1_common", "The same over the values with 20 labelled products or more."),
    Meaning("weighted F1", "weighted_f1", "The same, a value weighing as much as it has products."),
    Meaning("micro-F1", "micro_f1", "Precision and recall of all values together, in one figure."),
    Meaning(
        "calibration error",
        "ece",
        "How far confidence and accuracy are apart; 0 is honest.",
        percent=False,
    ),
)
"""Of attributes, in the order of their table."""
MODALITIES: Final[dict[Modality, str]] = {"text": "text", "image": "picture", "both": "text and picture"}
FREQUENCIES: Final = {"head": "frequent labels", "torso": "middling labels", "tail": "rare labels"}
VALUES: Final = {
    "file": "Values of the categories were read from a file.",
    "catalog": "A category's value is the mean of its products' values in the catalog.",
}
SPLITS: Final[dict[Part, str]] = {
    "train": "If it was trained on this catalog, it has seen these very products, and the figures flatter it.",
    "validation": "If it was trained on this catalog, choices were made on these products, and the figures may "
    "flatter it a little.",
    "test": "",
}
"""What to think of figures of a split."""
SMALL: Final = 0.01
"""Smaller figures are shown with one more digit."""
_Z: Final = 1.959964


def shown(value: float | None, *, percent: bool = True) -> str:
    """A figure as people read it; an absent one as a dash."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.{4 if 0 < value < SMALL else 3}f}"


def interval(share: float, n: int) -> tuple[float, float]:
    """Where a share of n products probably lies for all products like these: the 95 % interval.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def by_modality(rows: Mapping[Modality, T]) -> dict[str, T]:
    """The same under names for people."""
    return {MODALITIES[modality]: row for modality, row in rows.items()}


def compared(views: Views[T]) -> dict[str, T]:
    """What can be compared: the same products asked three ways, else the products as they came."""
    if views.asked:
        return by_modality(views.asked)
    return by_modality(views.by_modality) if len(views.by_modality) > 1 else {"all": views.all}


def encoders(manifest: Manifest) -> dict[str, str]:
    """How the model reads texts, sees pictures and scores the tree, in words."""
    said: dict[str, Any] = manifest.model_dump(mode="json")
    result = {}
    for name, kind in (("texts", "text"), ("pictures", "image")):
        stage = said.get(kind)
        result[name] = _stage(stage) if stage else "not used"
    head = said.get("head") or {}
    stops = len(head.get("stops") or ())
    result["head"] = str(head.get("kind", "")) + (
        f"; products may stop at {stops:,} inner {'category' if stops == 1 else 'categories'}"
        if stops
        else "; products stand at leaves"
    )
    return result


def _stage(stage: Mapping[str, Any]) -> str:
    parts = stage.get("parts") or [stage]
    words = " + ".join(_part(part) for part in parts)
    fields = (stage.get("spec") or {}).get("fields")
    return words + (f"; reads {', '.join(fields)}" if fields else "")


def _part(part: Mapping[str, Any]) -> str:
    details = []
    spec = part.get("spec") or {}
    if "width_px" in spec:
        details.append(f"{spec['width_px']} x {spec['height_px']} px")
    if part.get("view") == "crop":
        details.append("centre crop")
    if part.get("view") == "box":
        details.append("around the product")
    if part.get("precision") not in (None, "fp32"):
        details.append(str(part["precision"]))
    details.append(f"{part.get('width')} wide")
    return f"{part.get('encoder')} ({', '.join(details)})"


def weights(manifest: Manifest) -> list[tuple[str, str, str]]:
    """The calibration: asked with what, which expert, its weights level by level; without experts of no weight.

    Where the answer is a blend of several distributions, each has lines of its own, with its share.
    """
    found = manifest.calibration
    rows = []
    for modality in MODALITIES:
        if not _used(manifest, modality):
            continue
        parts = [(part.share, part.weights) for part in found.blends.get(modality, ())]
        for share, by_expert in parts or [(1.0, found.weights[modality])]:
            asked = MODALITIES[modality] + (f", {100 * share:.0f} % of the blend" if parts else "")
            rows += [
                (asked, expert, ", ".join(f"{weight:.2f}" for weight in by_level))
                for expert, by_level in zip(found.experts, by_expert, strict=True)
                if any(by_level)
            ]
    return rows


def _used(manifest: Manifest, modality: Modality) -> bool:
    has = {"text": manifest.text is not None, "image": manifest.image is not None}
    return all(has.values()) if modality == "both" else has[modality]


def settings(manifest: Manifest) -> dict[str, str]:
    """The training config, a line each."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        for name, value in sorted(manifest.config.items())
        if value is not None
    }
