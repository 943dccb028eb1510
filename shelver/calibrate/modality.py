"""What a product has to be answered from: a text, a picture, or both."""

from __future__ import annotations

from typing import Final, Literal

Modality = Literal["text", "image", "both"]
MODALITIES: Final[tuple[Modality, ...]] = ("text", "image", "both")


def can_answer(needs: Modality, modality: Modality) -> bool:
    """Whether an expert that looks at `needs` has it in a product of a modality."""
    return modality in ("both", needs)
