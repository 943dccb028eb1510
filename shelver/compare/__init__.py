"""Which model is better, by how much, how surely: several models asked about the same products.

golden.py  the labelled products that all models are asked about, what they are worth, and how they are sliced
ask.py     asks one model: what it said of each product, how long it took, how much room it needs
paired.py  paired statistics: McNemar's exact test, the bootstrap, Holm's correction, products needed
schema.py  `Comparison`: what stands in `compare.json`, key by key
judge.py   a challenger against the baseline: figures, slices, and the sentences that people read
page.py    `compare.json`, and `compare.html`, one offline page
run.py     `compare`: the recipe
"""

from shelver.compare.page import write_comparison
from shelver.compare.run import compare
from shelver.compare.schema import Comparison, Gap, ModelRow, Pair, SliceGap, read_comparison

__all__ = [
    "Comparison",
    "Gap",
    "ModelRow",
    "Pair",
    "SliceGap",
    "compare",
    "read_comparison",
    "write_comparison",
]
