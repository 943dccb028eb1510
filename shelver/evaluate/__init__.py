"""How good a model folder is: its answers for a split of a catalog, scored.

Only ever the exported folder, through the same `Classifier` that answers users.

parts.py     the parts of a report
schema.py    `Report`: what stands in `report.json`, key by key
figures.py   the figures of some products; reliability, accuracy against coverage
honesty.py   confidences before and after calibration; the policies' points
mistakes.py  who is taken for whom, siblings, and the branches that lose the most
examples.py  the answers worth a look, and their pictures
promises.py  thresholds fitted and policies held against a split, for `shelver policy`
score.py     `evaluate`: asks the model about a split and counts
"""

from shelver.evaluate.examples import thumbnails
from shelver.evaluate.figures import level_row, row, select
from shelver.evaluate.parts import (
    BeforeAfter,
    Bins,
    Branch,
    Calibrated,
    Confusions,
    Curve,
    Example,
    Examples,
    Figures,
    Honesty,
    Mistake,
    PolicyPoint,
    SiblingMistake,
    Views,
)
from shelver.evaluate.schema import FORMAT_VERSION, REPORT, Report, read_report, write_report
from shelver.evaluate.score import evaluate

__all__ = [
    "FORMAT_VERSION",
    "REPORT",
    "BeforeAfter",
    "Bins",
    "Branch",
    "Calibrated",
    "Confusions",
    "Curve",
    "Example",
    "Examples",
    "Figures",
    "Honesty",
    "Mistake",
    "PolicyPoint",
    "Report",
    "SiblingMistake",
    "Views",
    "evaluate",
    "level_row",
    "read_report",
    "row",
    "select",
    "thumbnails",
    "write_report",
]
