"""Fashion's category and all its attributes in one model, with a picture encoder tuned for all of them.

Source: fine-tuning as in configs/tuned_fashion.py, its labels the category, gender, baseColour, season and usage.
Hardware: one core of two, no GPU. Tuning takes 17 CPU minutes (four epochs of 30,906 pictures), the rest some 15.
Score: `benchmarks/attributes.json`, system "all, attributes_fashion" (2026-11-21).
Command: shelver train catalogs/fashion --config configs/attributes_fashion.py --out models/fashion
"""

from shelver.images import ImageSpec
from shelver.train.config import TrainConfig
from shelver.train.tune import TuneSpec

config = TrainConfig(
    image_encoder="lite0@tuned+colour",
    image=ImageSpec(height_px=128, width_px=96),
    tune=TuneSpec(epochs=4, attributes=("gender", "baseColour", "season", "usage")),
)
