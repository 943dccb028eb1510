"""Grocery photos with a picture encoder tuned on them.

Source: fine-tuning after Kumar et al. 2022, Touvron et al. 2019 and Yun et al. 2019, see shelver/train/tune/. The best
published accuracy on the 81 fine classes is .8604 (Klasson et al. 2019, "A hierarchical grocery store image dataset").
Hardware: two CPU cores, no GPU; some 15 to 20 minutes.
Command: shelver train catalogs/grocery --config configs/tuned_grocery.py --out models/grocery-tuned
"""

from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
from shelver.train.tune import TuneSpec

config = TrainConfig(
    image_encoder="lite0@tuned",
    image=ImageSpec(height_px=192, width_px=192),
    tune=TuneSpec(epochs=9, full_epochs=3, cutmix=0.5),
    hidden=256,
)
