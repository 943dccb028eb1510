"""Fine-tuning a text encoder on a catalog's own texts, for any encoder that `use.py` or `hf_text.py` loads.

A linear head is fitted on the untouched features first; then head and encoder learn together, under one rise and
fall of the learning rate. The head is thrown away: what stays is the encoder, exported as a part of its own.

Source:
    Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution" (the head
    first); Smith and Topin 2018, "Super-convergence" (one cycle).

spec.py     TextTuning, the recipe
tokens.py   LabelledTokens, texts as token numbers in batches
loop.py     tune_text, the steps
encoder.py  tuned_text, from a catalog to weights; export_tuned
"""

from shelver.train.tune_text.encoder import TunedText, export_tuned, tuned_text
from shelver.train.tune_text.loop import tune_text
from shelver.train.tune_text.spec import TextTuning
from shelver.train.tune_text.tokens import LabelledTokens

__all__ = ["LabelledTokens", "TextTuning", "TunedText", "export_tuned", "tune_text", "tuned_text"]
