"""What the figures are called and mean, and a manifest in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shelver.calibrate import Modality
from shelver.catalog.split import Part
from shelver.registry import Manifest


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
)
BRIEF: Final = tuple(m for m in MEANINGS if m.key not in ("weighted_f1", "relative_lca"))
"""The columns of most tables."""
MODALITIES: Final[dict[Modality, str]] = {"text": "text", "image": "picture", "both": "text and picture"}
FREQUENCIES: Final = {"head": "frequent labels", "torso": "middling labels", "tail": "rare labels"}
SPLITS: Final[dict[Part, str]] = {
    "train": "If it was trained on this catalog, it has seen these very products, and the figures flatter it.",
    "validation": "If it was trained on this catalog, choices were made on these products, and the figures may "
    "flatter it a little.",
    "test": "",
}
"""What to think of figures of a split."""
_Z: Final = 1.959964


def shown(value: float | None, *, percent: bool = True) -> str:
    """A figure as people read it; an absent one as a dash."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def interval(share: float, n: int) -> tuple[float, float]:
    """Where a share of n products probably lies for all products like these: the 95 % interval.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


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
    if part.get("precision") not in (None, "fp32"):
        details.append(str(part["precision"]))
    details.append(f"{part.get('width')} wide")
    return f"{part.get('encoder')} ({', '.join(details)})"


def weights(manifest: Manifest) -> list[tuple[str, str, str]]:
    """The calibration: asked with what, which expert, its weights level by level; without experts of no weight."""
    said: dict[str, Any] = manifest.calibration.model_dump(mode="json")
    return [
        (MODALITIES[modality], expert, ", ".join(f"{weight:.2f}" for weight in by_level))
        for modality in MODALITIES
        for expert, by_level in zip(
            said.get("experts", ()), said.get("weights", {}).get(modality, ()), strict=False
        )
        if any(by_level) and _used(manifest, modality)
    ]


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
