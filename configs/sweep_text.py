"""A sweep over texts: which encoder, which head, and how much the upper levels of the tree weigh in the loss.

Eight points, compared on validation; the first is the baseline.
Command: shelver sweep configs/sweep_text.py catalogs/instacart --out sweeps/instacart
"""

from shelver.sweep import Sweep
from shelver.train.config import TrainConfig

sweep = Sweep(
    base=TrainConfig(image_encoder="none"),
    grid={
        "text_encoder": ("ngram", "ngram+use"),
        "head": ("tree", "levels"),
        "level_weights": (None, (2.0, 1.0)),
    },
)
