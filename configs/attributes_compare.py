"""Fashion with its attributes, half of the usual epochs and no second learning: to compare one way with another.

Hardware: one core of two, no GPU; some 6 CPU minutes.
Score: `benchmarks/attributes.json`: "one set", "two sets", "without season", "season added" (2026-11-21).
Command: python -m benchmarks.attributes two catalogs/fashion --config configs/attributes_compare.py --work work
"""

from shelver.train.config import TrainConfig

config = TrainConfig(image_encoder="lite0+colour", epochs=10, refit=False)
