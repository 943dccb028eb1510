"""Fine-tuning EfficientNet-Lite0 on a catalog's own pictures, made for a processor without a graphics card.

The stem and the first blocks stay as they are, and what they make of each picture is kept on disk, so that no step
computes them again. A linear head is fitted on the untouched features first; then head and body learn together,
under one rise and fall of the learning rate. Training looks at smaller pictures than the encoder is used on.

Source:
    Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution" (the head
    first); Smith and Topin 2018, "Super-convergence" (one cycle); Touvron et al. 2019, "Fixing the train-test
    resolution discrepancy" (smaller pictures in training); Yun et al. 2019, "CutMix".

spec.py      TuneSpec, the recipe
pictures.py  training pictures as the frozen blocks pass them on, in one file on disk
network.py   the encoder taken apart: what stays, what learns, the head
loop.py      the steps
encoder.py   tune_lite0, from a catalog to weights
"""

from shelver.train.tune.encoder import Tuned, open_tuned, tune_lite0
from shelver.train.tune.spec import TuneSpec

__all__ = ["TuneSpec", "Tuned", "open_tuned", "tune_lite0"]
