"""Are explanations true? What is shown as the reason is taken away, and as much at random; which one hurts more?

    python -m benchmarks.explanations MODEL CATALOG [--products 500] [--json FILE]

CATALOG is one that MODEL learned from; products of its test part with a title and a picture are drawn with a fixed
seed. Each is explained three times: with text and picture, by its text alone and by its picture alone. Then the
product is changed and classified as a whole, picture file and all:

    words    those that are shown; at random: as many of the same text, any of them
    region   that is shown; at random: any of the same size
    all      the words and the region; at random: as many words, and a region

The search itself deletes words and gives regions the picture's mean colour. It must not be its own judge, so each
is also taken away as the search never does: words are replaced by words of other products (the same ones in place
of those at random), regions are blurred, or filled with noise.

A row says: `shown`, the share of products for which there is such a reason; `n`, how many these are; `fall` and
`fall_random`, by how much P(node) falls on average; `difference`, with the 95 % interval of 2,000 bootstrap
samples of the products; `more`, the share of products in which the reason's fall is the larger one.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.machine import facts
from shelver.catalog.store import Catalog
from shelver.errors import ShelverError
from shelver.explain import Explanation, Word, explain, without, words_of
from shelver.explain.regions import REGIONS
from shelver.images import decode
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.windows import Window

N_PRODUCTS: Final = 500
N_SAMPLES: Final = 2_000
ASKED: Final = ("text and picture", "text", "picture")
TAKEN: Final = ("words", "region", "all")
WORDS: Final = ("deleted", "replaced")
FILLS: Final = ("mean", "blur", "noise")
BLUR_SHARE: Final = 0.15
"""Of the picture's longer side, the radius of the blur."""
_LOST: Final = 30_000
"""Products that are looked through for those that are drawn."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of taking something away from one product."""

    asked: str
    taken: str
    fill: str
    fall: float
    fall_random: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explanations", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--products", type=int, default=N_PRODUCTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="the rows")
    call = parser.parse_args(arguments)
    classifier = Classifier.open(call.model, threads=1)
    rows = measure(classifier, Catalog.open(call.catalog), call.products, call.seed)
    for row in rows:
        print(json.dumps(row))
    if call.json is not None:
        known = {"model": classifier.model_version, "seed": call.seed, **facts(1)}
        call.json.write_text(json.dumps([{**row, **known} for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def measure(classifier: Classifier, catalog: Catalog, n_products: int, seed: int = 0) -> list[Row]:
    """A row for each way of asking, thing that is taken and way to take it."""
    rng = np.random.default_rng(seed)
    products = drawn(catalog, n_products, rng)
    others = [word.text for product in products for word in words_of(product, ("title",), 8)[0]]
    judged: list[Judged] = []
    shown: dict[tuple[str, str], int] = {}
    explained_s: dict[str, list[float]] = {asked: [] for asked in ASKED}
    for product in products:
        for asked in ASKED:
            one = _asked(product, asked)
            began = time.perf_counter()
            found = explain(classifier, one)
            explained_s[asked].append(time.perf_counter() - began)
            for taken in _shown(found):
                shown[asked, taken] = shown.get((asked, taken), 0) + 1
            judged += [replace(result, asked=asked) for result in judge(classifier, one, found, others, rng)]
    rows = []
    for asked in ASKED:
        for taken in TAKEN:
            for fill in sorted({one.fill for one in judged if (one.asked, one.taken) == (asked, taken)}):
                of = [one for one in judged if (one.asked, one.taken, one.fill) == (asked, taken, fill)]
                row: Row = {"asked": asked, "taken": taken, "by": fill}
                row["shown"] = round(shown[asked, taken] / len(products), 4)
                row |= figures([one.fall for one in of], [one.fall_random for one in of], rng)
                row["explain_ms_p50"] = round(1_000 * float(np.median(explained_s[asked])), 1)
                rows.append(row)
    return rows


def drawn(catalog: Catalog, n: int, rng: np.random.Generator) -> list[Product]:
    """Products of the test part with a title and a picture, drawn without replacement."""
    found: list[Product] = []
    for products in catalog.products("test", images=True, batch_rows=256):
        found += [product for product in products if product.title and product.images]
        if len(found) > _LOST:
            break
    return [found[i] for i in rng.permutation(len(found))[:n]]


def judge(
    classifier: Classifier, product: Product, found: Explanation, others: Sequence[str], rng: np.random.Generator
) -> Iterator[Judged]:
    """Take away what is shown, and as much at random, in every way.

    Args:
        classifier: that gave the explanation.
        product: that was explained.
        found: the explanation.
        others: words of other products.
        rng: for what is random.
    """
    words = [one.word for one in found.words]
    all_words = words_of(product, ("title", "brand", "description"), 60)[0]
    region = found.region.box if found.region is not None else None
    some = [all_words[i] for i in rng.permutation(len(all_words))[: len(words)]]
    elsewhere = REGIONS[rng.integers(len(REGIONS))]
    put = dict(enumerate(rng.choice(others, len(words)).tolist())) if words else {}
    for taken in _shown(found):
        takes_words, takes_region = taken in ("words", "all"), taken in ("region", "all")
        ways = [(w, f) for w in (WORDS if takes_words else ("",)) for f in (FILLS if takes_region else ("",))]
        changed = []
        for way, fill in ways:
            for these, box in ((words, region), (some, elsewhere)):
                one = product
                if takes_words:
                    one = without(one, these, _instead(these, put) if way == "replaced" else lambda _: "")
                if takes_region and box is not None:
                    one = replace(one, images=(filled(product.images[0], box, fill, rng),))
                changed.append(one)
        now = _probability(classifier, changed, found.node)
        for (way, fill), ours, random in zip(ways, now[::2], now[1::2], strict=True):
            name = " and ".join(part for part in (way, fill) if part)
            yield Judged("", taken, name, found.probability - ours, found.probability - random)


def filled(data: bytes, box: Window, fill: str, rng: np.random.Generator) -> bytes:
    """A picture file with a region that shows nothing any more."""
    image = decode(data)
    whole = np.asarray(image)
    height, width = whole.shape[:2]
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    changed = whole.copy()
    if fill == "mean":
        changed[top:bottom, left:right] = whole.reshape(-1, 3).mean(axis=0).round()
    elif fill == "noise":
        changed[top:bottom, left:right] = rng.integers(0, 256, (bottom - top, right - left, 3))
    else:
        blurred = image.filter(ImageFilter.GaussianBlur(BLUR_SHARE * max(width, height)))
        changed[top:bottom, left:right] = np.asarray(blurred)[top:bottom, left:right]
    file = io.BytesIO()
    Image.fromarray(changed).save(file, "PNG")
    return file.getvalue()


def figures(fall: Sequence[float], fall_random: Sequence[float], rng: np.random.Generator) -> Row:
    """How the falls compare; see the module."""
    ours, random = np.array(fall), np.array(fall_random)
    difference = ours - random
    samples = difference[rng.integers(len(ours), size=(N_SAMPLES, len(ours)))].mean(axis=1)
    low, high = np.quantile(samples, (0.025, 0.975)).tolist()
    return {
        "n": len(ours),
        "fall": round(float(ours.mean()), 4),
        "fall_random": round(float(random.mean()), 4),
        "difference": round(float(difference.mean()), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "more": round(float((difference > 0).mean()), 4),
    }


def _asked(product: Product, asked: str) -> Product:
    if asked == "text":
        return replace(product, images=())
    if asked == "picture":
        return replace(product, title=None, description=None, brand=None)
    return product


def _shown(found: Explanation) -> list[str]:
    """What an explanation has to show, of `TAKEN`."""
    return [
        taken
        for taken, there in zip(
            TAKEN,
            (bool(found.words), found.region is not None, bool(found.words) and found.region is not None),
            strict=True,
        )
        if there
    ]


def _instead(words: Sequence[Word], put: dict[int, str]) -> Callable[[Word], str]:
    """The same words in place of either's."""
    by_places = {word.places: put[i] for i, word in enumerate(words)}
    return lambda word: by_places[word.places]


def _probability(classifier: Classifier, products: Sequence[Product], node: int) -> NDArray[np.float32]:
    embedded = classifier.embed(products)
    return classifier.emb2prob(embedded.text, embedded.image).nodes[:, node]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
