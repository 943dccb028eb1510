"""What a confidence is called, in one place for all pages.

The confidence is calibrated: of a hundred answers that say .9, about ninety are right.
"""

from __future__ import annotations

from typing import Final

from shelver.service.pages.locales import mark

STEPS: Final = (
    (0.95, mark("almost certain")),
    (0.8, mark("very likely")),
    (0.6, mark("likely")),
    (0.3, mark("possible")),
    (0.0, mark("a guess")),
)
"""From so much on it is called this; the first that fits."""


def in_words(share: float) -> str:
    """The English words for a confidence from 0 to 1."""
    return next(words for least, words in STEPS if share >= least or least == 0)
