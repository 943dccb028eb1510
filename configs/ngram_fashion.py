"""Fashion by title alone: the n-gram encoder as it comes, at the settings of the default config.

Source: fastText-like bags of hashed words and subwords (Joulin et al. 2017), with TF-IDF weights.
Command: shelver train catalogs/fashion --config configs/ngram_fashion.py --out models/fashion-text
"""

from shelver.train.config import TrainConfig

config = TrainConfig(text_encoder="ngram", image_encoder="none")
