"""Grocery photos with a picture encoder tuned on random crops of them.

Source: fine-tuning after Kumar et al. 2022 and Touvron et al. 2019, see shelver/train/tune/. The best published
accuracy on the 81 fine classes is .8604 (Klasson et al. 2019, "A hierarchical grocery store image dataset").
Hardware: one core of two, no GPU: 16 CPU minutes, nearly all of them tuning.
Score: validation accuracy .841, test accuracy .8547, macro-F1 .866 (2026-11-21).
Command: shelver train catalogs/grocery --config configs/tuned_grocery.py --out models/grocery-tuned
"""

from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
from shelver.train.tune import TuneSpec

config = TrainConfig(
    image_encoder="lite0@tuned@crop",
    image=ImageSpec(height_px=160, width_px=160),
    tune=TuneSpec(epochs=16, full_epochs=0, train_scale=0.9, lr=5e-4, lr_of_size=False, lr_decay=1.0, crops=0.35),
    hidden=256,
)
