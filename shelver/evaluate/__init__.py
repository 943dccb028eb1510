"""How good a model folder is: its answers for a split of a catalog, scored.

Only ever the exported folder, through the same `Classifier` that answers users.

parts.py            the parts of a report
attribute_parts.py  those on attributes
schema.py           `Report`: what stands in `report.json`, key by key
figures.py          the figures of some products; reliability, accuracy against coverage
attributes.py       how well attributes are answered
several.py          other right paths of the products that have some
honesty.py          confidences before and after calibration; the policies' points
mistakes.py         who is taken for whom, siblings, and the branches that lose the most
examples.py         the answers worth a look, and their pictures
promises.py         thresholds fitted and policies held against a split, for `shelver policy`
ask.py              asks the model about a split, batch by batch
score.py            `evaluate`: counts what it said
"""

from shelver.evaluate.attribute_parts import (
    AttributeFigures,
    AttributeReport,
    SourceFigures,
    ValueMistake,
)
from shelver.evaluate.examples import thumbnails
from shelver.evaluate.figures import level_row, row, select
from shelver.evaluate.parts import (
    AttributePoint,
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
    Lenient,
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
    "AttributeFigures",
    "AttributePoint",
    "AttributeReport",
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
    "Lenient",
    "Mistake",
    "PolicyPoint",
    "Report",
    "SiblingMistake",
    "SourceFigures",
    "ValueMistake",
    "Views",
    "evaluate",
    "level_row",
    "read_report",
    "row",
    "select",
    "thumbnails",
    "write_report",
]
