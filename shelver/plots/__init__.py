"""Every picture, as SVG (matplotlib); report, web pages and trackers share them.

The pictures stand on light and on dark paper alike. Nothing is painted behind them, the palette can be told apart
by colour-blind people and stands out from white and from near-black, and text and axes are drawn in
`currentColor`: in a page they take its text colour (give the element `color: inherit`), alone a middle grey.
They carry neither style sheets nor scripts nor a date, so they are equal for equal numbers, and a strict
content-security policy lets them through. Text stays text, and a title and a description are read aloud.

The only home of matplotlib, which is asked for when the first picture is drawn.

pictures.py  bars, reliability, risk and precision against coverage, confusions, learning curves
svg.py       one matplotlib figure as an `<svg>` element for any page
"""

from shelver.plots.pictures import (
    PALETTE,
    Points,
    bars,
    confusion_matrix,
    learning,
    reliability,
    risk_coverage,
    selective,
    short,
)
from shelver.plots.svg import printable

__all__ = [
    "PALETTE",
    "Points",
    "bars",
    "confusion_matrix",
    "learning",
    "printable",
    "reliability",
    "risk_coverage",
    "selective",
    "short",
]
