"""The rivals: TF-IDF + LinearSVC, fastText, and frozen EfficientNet-Lite0 + logistic regression.

Each is given every advantage that costs its user nothing: the same texts as ours, all rows of train and
validation to learn from, and where it has settings, the best of a few on validation. Choosing and the import of
libraries are not counted as its time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Set, labelled
from benchmarks.measure import Learned, Stopwatch
from shelver import metrics
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.errors import ImageError, MissingExtraError
from shelver.images import ImageSpec, decode, pixels
from shelver.product import Product, TextSpec, text_of

Nodes = NDArray[np.int32]
LEARNED_FROM: Final[tuple[Part, ...]] = ("train", "validation")


def texts_of(products: Sequence[Product]) -> list[str]:
    """The text that our models read, "" where there is none."""
    return [text_of(product, TextSpec()) or "" for product in products]


def _goodness(setting: str, truth: Nodes, predicted: Nodes) -> float:
    """By what a rival's setting is chosen: accuracy and macro-F1 on validation, both figures of the table."""
    accuracy, macro_f1 = metrics.accuracy(truth, predicted), metrics.macro_f1(truth, predicted)
    print(f"{setting}: {accuracy:.4f} / {macro_f1:.4f} on validation", flush=True)
    return accuracy + macro_f1


# --- TF-IDF + LinearSVC ---------------------------------------------------------------------------------------


def learn_svm(catalog: Catalog, one: Set, scratch: Path, threads: int) -> Learned:  # noqa: ARG001
    """TF-IDF of words, word pairs and the n-grams within words, then one linear SVM for each label."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    products, nodes = labelled(catalog, LEARNED_FROM, "text")
    texts = texts_of(products)
    watch = Stopwatch()
    model = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
        ),
        LinearSVC(C=0.5, random_state=0),
    )
    model.fit(texts, nodes)

    def predict(inputs: list[Any]) -> Nodes:
        found: Nodes = model.predict(inputs).astype(np.int32)
        return found

    settings = "words 1-2, char_wb 2-5, min_df 2, sublinear, C 0.5"
    return Learned(texts_of, predict, watch.cpu_s(), watch.wall_s(), settings)


# --- fastText -------------------------------------------------------------------------------------------------


class FastTextSetting(NamedTuple):
    """What is tried; word pairs and the softmax loss are always on."""

    lr: float
    epochs: int
    chars: tuple[int, int]

    def __str__(self) -> str:
        subwords = f"characters {self.chars[0]}-{self.chars[1]}" if self.chars[1] else "no characters"
        return f"lr {self.lr}, {self.epochs} epochs, word pairs, {subwords}"


FASTTEXT_SETTINGS: Final = (
    FastTextSetting(0.5, 25, (0, 0)),
    FastTextSetting(0.5, 25, (2, 5)),
    FastTextSetting(1.0, 10, (0, 0)),
    FastTextSetting(1.0, 25, (2, 5)),
    FastTextSetting(0.25, 50, (0, 0)),
    FastTextSetting(0.5, 10, (3, 6)),
)
MANY_ROWS: Final = 100_000
FASTTEXT_SETTINGS_MANY: Final = (FastTextSetting(0.5, 15, (0, 0)), FastTextSetting(0.5, 15, (3, 5)))
"""With more than `MANY_ROWS` and thousands of labels, hours a setting; these two are tried on `ROWS_TO_CHOOSE`."""
ROWS_TO_CHOOSE: Final = 40_000
_NOT_WORD = re.compile(r"[^\w]+")
_LABEL: Final = "__label__"


def learn_fasttext(catalog: Catalog, one: Set, scratch: Path, threads: int) -> Learned:  # noqa: ARG001
    """fastText with the best of a few settings on validation."""
    products, nodes = labelled(catalog, ("train",), "text")
    held, held_nodes = labelled(catalog, ("validation",), "text")
    texts, held_texts = texts_of(products), texts_of(held)
    many = len(texts) > MANY_ROWS
    settings = FASTTEXT_SETTINGS_MANY if many else FASTTEXT_SETTINGS
    file = scratch / "fasttext.txt"
    tried: list[float] = []
    few = np.random.default_rng(0).permutation(len(texts))[: ROWS_TO_CHOOSE if many else None]
    for setting in settings:
        predict = _fasttext([texts[i] for i in few], nodes[few], setting, file, threads)
        tried.append(_goodness(str(setting), held_nodes, predict(held_texts)))
    best = settings[int(np.argmax(tried))]
    watch = Stopwatch()
    predict = _fasttext(texts + held_texts, np.concatenate([nodes, held_nodes]), best, file, threads)
    return Learned(texts_of, predict, watch.cpu_s(), watch.wall_s(), str(best))


def _fasttext(
    texts: list[str], nodes: Nodes, setting: FastTextSetting, file: Path, threads: int
) -> Callable[[list[Any]], Nodes]:
    """Train fastText; gives what predicts."""
    try:
        fasttext: Any = import_module("fasttext")  # it has no types
    except ImportError as error:
        raise MissingExtraError(
            "the rival fastText is not installed", allowed="an environment with the `bench` extra",
            remedy="Run `pip install '.[bench]'`, or leave it out with --systems.",
        ) from error  # fmt: skip
    lines = [f"{_LABEL}{node} {_words(text)}\n" for text, node in zip(texts, nodes.tolist(), strict=True)]
    # fastText reads the file in its order, and a catalog is often sorted by category: five points lost.
    Random(0).shuffle(lines)
    file.write_text("".join(lines), encoding="utf-8")
    model = fasttext.train_supervised(
        input=str(file), lr=setting.lr, epoch=setting.epochs, wordNgrams=2, minn=setting.chars[0],
        maxn=setting.chars[1], loss="softmax", thread=threads, seed=0, verbose=0,
    )  # fmt: skip

    def predict(inputs: list[Any]) -> Nodes:
        # Below the Python wrapper, whose way for one text fails with NumPy 2; the same call as its way for many.
        labels, _ = model.f.multilinePredict([_words(text) + "\n" for text in inputs], 1, 0.0, "strict")
        found = [int(of_one[0].removeprefix(_LABEL)) if of_one else -1 for of_one in labels]
        return np.array(found, np.int32)

    return predict


def _words(text: str) -> str:
    """fastText parts words at white space only, and minds the case."""
    return _NOT_WORD.sub(" ", text.lower()).strip()


# --- frozen EfficientNet-Lite0 + logistic regression -----------------------------------------------------------

BATCH_PICTURES: Final = 16
STRENGTHS: Final = (0.01, 0.1, 1.0)
_MAX_ITERATIONS: Final = 100


def learn_lite0(catalog: Catalog, one: Set, scratch: Path, threads: int) -> Learned:
    """Logistic regression on what EfficientNet-Lite0 sees, its weights as published; the best of three strengths.

    Embedding the pictures it learns from is part of its training time, as it is of ours.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embed = _lite0(scratch / "lite0.onnx", one.lite0_px, threads)
    train, nodes = labelled(catalog, ("train",), "picture")
    held, held_nodes = labelled(catalog, ("validation",), "picture")
    watch = Stopwatch()
    values, held_values = embed(pictures_of(train)), embed(pictures_of(held))
    embed_cpu_s, embed_wall_s = watch.cpu_s(), watch.wall_s()

    def fitted(values: NDArray[np.float32], nodes: Nodes, strength: float) -> Any:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS))
        return model.fit(values, nodes)

    tried = [
        _goodness(f"C {c}", held_nodes, fitted(values, nodes, c).predict(held_values).astype(np.int32))
        for c in STRENGTHS
    ]
    best = STRENGTHS[int(np.argmax(tried))]
    watch = Stopwatch()
    model = fitted(np.concatenate([values, held_values]), np.concatenate([nodes, held_nodes]), best)

    def predict(inputs: list[Any]) -> Nodes:
        found: Nodes = model.predict(embed(inputs)).astype(np.int32)
        return found

    width, height = one.lite0_px
    return Learned(
        pictures_of,
        predict,
        embed_cpu_s + watch.cpu_s(),
        embed_wall_s + watch.wall_s(),
        f"{width}x{height} px, standardised, C {best}",
    )


def pictures_of(products: Sequence[Product]) -> list[bytes]:
    """The first picture of each product, encoded; b"" where there is none."""
    return [product.images[0] if product.images else b"" for product in products]


def _lite0(file: Path, size_px: tuple[int, int], threads: int) -> Callable[[list[bytes]], NDArray[np.float32]]:
    """What embeds encoded pictures, shape (N, 1280); zeros where a picture cannot be used."""
    from shelver.pipeline import open_session
    from shelver.train.lite0 import export_lite0

    spec = ImageSpec(width_px=size_px[0], height_px=size_px[1])
    export_lite0(file, spec.height_px, spec.width_px)
    session = open_session(file, threads)

    def embed(pictures: list[bytes]) -> NDArray[np.float32]:
        values = np.zeros((len(pictures), 1280), np.float32)
        for start in range(0, len(pictures), BATCH_PICTURES):
            rows, images = [], []
            for row, data in enumerate(pictures[start : start + BATCH_PICTURES], start):
                with suppress(ImageError):  # it stays zero
                    images.append(decode(data, target_px=size_px))
                    rows.append(row)
            if rows:
                (values[rows],) = session.run(None, {"pixels": pixels(images, spec)})
        return values

    return embed
