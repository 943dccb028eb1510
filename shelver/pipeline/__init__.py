"""The four stages of an answer, each with its own files, and the Classifier that calls them.

::

    texts  ─► Text2Emb ──┐
                         ├─► Emb2Prob ─► Prob2Pred ─► Predictions
    images ─► Image2Emb ─┘

The only home of ONNX Runtime. Nothing here touches the network; everything is safe to call from several threads.

session.py     ONNX Runtime, opened the same way everywhere
embedding.py   Embedding, what travels between the stages
text.py        Text2Emb
image.py       Image2Emb
colour.py      the picture part that needs no network
values.py      the values of attributes
answers.py     Emb2Prob, Prob2Pred, and the compositions of stages
classifier.py  Classifier
"""

from shelver.pipeline.answers import (
    Emb2Pred,
    Emb2Prob,
    ImageText2Pred,
    ImageText2Prob,
    Prob2Pred,
    sibling_groups,
)
from shelver.pipeline.classifier import BATCH_PRODUCTS, Classifier, Embedded
from shelver.pipeline.colour import COLOUR_ID, COLOUR_WIDTH, colours
from shelver.pipeline.embedding import Embedding
from shelver.pipeline.image import Image2Emb, Picture, Prepared, pooled
from shelver.pipeline.session import available_cores, open_session, run_file
from shelver.pipeline.text import Text2Emb, padded
from shelver.pipeline.values import value_groups, yes_or_no

__all__ = [
    "BATCH_PRODUCTS",
    "COLOUR_ID",
    "COLOUR_WIDTH",
    "Classifier",
    "Emb2Pred",
    "Emb2Prob",
    "Embedded",
    "Embedding",
    "Image2Emb",
    "ImageText2Pred",
    "ImageText2Prob",
    "Picture",
    "Prepared",
    "Prob2Pred",
    "Text2Emb",
    "available_cores",
    "colours",
    "open_session",
    "padded",
    "pooled",
    "run_file",
    "sibling_groups",
    "value_groups",
    "yes_or_no",
]
