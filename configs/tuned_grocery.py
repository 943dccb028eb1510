"""Grocery photos with a picture encoder tuned on them.

Source: fine-tuning after Kumar et al. 2022 and Touvron et al. 2019, see shelver/train/tune/. The best published
accuracy on the 81 fine classes is .8604 (Klasson et al. 2019, "A hierarchical grocery store image dataset").
Hardware: one core of two, no GPU: 7 CPU minutes of tuning, 2 for the rest.
Score: test accuracy .786, macro-F1 .782 by a hidden layer of 256 fitted on these tuned features (2026-11-21); this
file as a whole has not been run yet.
Command: shelver train catalogs/grocery --config configs/tuned_grocery.py --out models/grocery-tuned
"""

from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
from shelver.train.tune import TuneSpec

config = TrainConfig(
    image_encoder="lite0@tuned",
    image=ImageSpec(height_px=192, width_px=192),
    tune=TuneSpec(epochs=6, full_epochs=2),
    hidden=256,
)
