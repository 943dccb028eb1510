"""The four stages of an answer, each with its own files, and the Classifier that calls them.

::

    texts  ─► Text2Emb ──┐
                         ├─► Emb2Prob ─► Prob2Pred ─► Predictions
    images ─► Image2Emb ─┘

The only home of ONNX Runtime. Nothing here touches the network; everything is safe to call from several threads.

session.py     ONNX Runtime, opened the same way everywhere
embeddings.py  Text2Emb, Image2Emb
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
from shelver.pipeline.embeddings import Embedding, Image2Emb, Text2Emb, padded, picture, pooled
from shelver.pipeline.session import available_cores, open_session, run_file

__all__ = [
    "BATCH_PRODUCTS",
    "Classifier",
    "Emb2Pred",
    "Emb2Prob",
    "Embedded",
    "Embedding",
    "Image2Emb",
    "ImageText2Pred",
    "ImageText2Prob",
    "Prob2Pred",
    "Text2Emb",
    "available_cores",
    "open_session",
    "padded",
    "picture",
    "pooled",
    "run_file",
    "sibling_groups",
]
