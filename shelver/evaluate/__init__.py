"""How good a model folder is: its answers for a split of a catalog, scored.

Only ever the exported folder, through the same `Classifier` that answers users.

schema.py    `Report`: what stands in `report.json`, key by key
figures.py   the figures of some products; reliability, accuracy against coverage, confusions
examples.py  the answers worth a look, and their pictures
score.py     `evaluate`: asks the model about a split and counts
"""

from shelver.evaluate.examples import thumbnails
from shelver.evaluate.figures import level_row, row, select
from shelver.evaluate.schema import (
    FORMAT_VERSION,
    REPORT,
    Bins,
    Confusions,
    Curve,
    Example,
    Examples,
    Figures,
    Mistake,
    Report,
    Views,
    read_report,
    write_report,
)
from shelver.evaluate.score import evaluate

__all__ = [
    "FORMAT_VERSION",
    "REPORT",
    "Bins",
    "Confusions",
    "Curve",
    "Example",
    "Examples",
    "Figures",
    "Mistake",
    "Report",
    "Views",
    "evaluate",
    "level_row",
    "read_report",
    "row",
    "select",
    "thumbnails",
    "write_report",
]
