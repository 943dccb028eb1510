"""How well strangers are told from a shop's own products: AUROC of `Probabilities.outside`, and false alarms.

    python -m benchmarks.outside MODEL KNOWN STRANGE... [--split test] [--json FILE]

KNOWN is the catalog that MODEL learned from; its split is what the shop will get. STRANGE are catalogs of other
businesses; beside them stand texts that somebody typed to see whether it works. Each catalog is asked by text and
by picture, as far as model and catalog have them. Beside `outside`, the doubts that it was compared with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.pipeline import Classifier, Embedding
from shelver.product import Product

MAX_PRODUCTS: Final = 1_500
ALARMS: Final = (0.9, 0.95, 0.99)
PLACEHOLDERS: Final = (
    "test", "n/a", "asdf", "xxx", "lorem ipsum dolor sit amet", "TBD", "none", "null", "-", "...", "???",
    "product", "item", "product name", "sample", "new product", "to be deleted", "do not use",
    "test product", "test test", "123", "12345", "0", "qwerty", "asdfghjkl", "dummy", "placeholder",
    "untitled", "no name", "unknown", "undefined", "NaN", "copy of product", "foo bar", "aaa", "abc",
    "title", "description", "enter title here", "xxxxx", "00000000", "http://example.com/1.jpg", "#N/A",
    "[object Object]", "blah blah", "temp", "tmp 1", "hjkhjkhjk", "zzzz", "kjsdhfkjsh",
    "consectetur adipiscing elit sed do eiusmod tempor",
)  # fmt: skip

Columns = dict[str, NDArray[np.float32]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; with --json also write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("known", type=Path)
    parser.add_argument("strange", type=Path, nargs="*")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    classifier = Classifier.open(args.model, threads=1)
    rows = measure(classifier, args.known, args.strange, args.split)
    for row in rows:
        print(json.dumps(row))
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(classifier: Classifier, known: Path, strange: Sequence[Path], split: Part) -> list[dict[str, Any]]:
    """One row for each modality and kind of stranger."""
    own = asked(classifier, products(known, split))
    others = {folder.name: asked(classifier, products(folder, split)) for folder in strange}
    typed = [Product(product_id=str(i), title=text) for i, text in enumerate(PLACEHOLDERS)]
    others["placeholders"] = asked(classifier, typed)
    rows: list[dict[str, Any]] = []
    for modality, columns in own.items():
        alarms = {f"false_alarms_at_{q}": round(float((columns["outside"] >= q).mean()), 4) for q in ALARMS}
        for name, found in others.items():
            if modality not in found:
                continue
            of = found[modality]
            told = {f"told_at_{q}": round(float((of["outside"] >= q).mean()), 4) for q in ALARMS}
            auroc = {f"auroc_{score}": round(area(columns[score], of[score]), 4) for score in columns}
            rows.append(
                {"known": known.name, "modality": modality, "strange": name, "n_known": len(columns["outside"])}
                | {"n_strange": len(of["outside"])}
                | auroc
                | alarms
                | told
            )
    return rows


def products(folder: Path, split: Part) -> list[Product]:
    """Labelled products of a split, evenly spread."""
    found: list[Product] = []
    catalog = Catalog.open(folder)
    every = max(1, catalog.info.by_split.get(split, 0) // MAX_PRODUCTS)
    n_seen = 0
    for batch in catalog.products(split):
        found += [
            p for number, p in enumerate(batch, start=n_seen) if number % every == 0 and p.node_id is not None
        ]
        n_seen += len(batch)
    return found[:MAX_PRODUCTS]


def asked(classifier: Classifier, of: Sequence[Product]) -> dict[str, Columns]:
    """What the model finds strange, by modality, of the products that have it."""
    parts: dict[str, list[Columns]] = {}
    for start in range(0, len(of), 256):
        embedded = classifier.embed(of[start : start + 256])
        text, image = embedded.text, embedded.image
        given: dict[str, tuple[Embedding | None, Embedding | None]] = {
            "text": (text, None),
            "image": (None, image),
            "both": (text, image),
        }
        for code, modality in enumerate(MODALITIES, start=1):
            if (text is None and code & 1) or (image is None and code & 2):
                continue
            probs = classifier.emb2prob(*given[modality])
            rows = np.flatnonzero(probs.modality == code)
            if not len(rows):
                continue
            if probs.outside is None:
                raise SystemExit("this model cannot tell strangers: it was trained by an older shelver")
            nodes, tree = probs.nodes[rows], classifier.taxonomy
            parts.setdefault(modality, []).append(
                {
                    "outside": probs.outside[rows],
                    "doubt_of_level_1": 1 - nodes[:, tree.level == 1].max(axis=1),
                    "doubt_of_leaf": 1 - nodes[:, tree.is_leaf].max(axis=1),
                }
            )
    return {m: {name: np.concatenate([p[name] for p in found]) for name in found[0]} for m, found in parts.items()}


def area(known: NDArray[np.float32], strange: NDArray[np.float32]) -> float:
    """P(a stranger scores higher than a known product), ties counted half."""
    ordered = np.sort(known)
    below = np.searchsorted(ordered, strange, side="left") + np.searchsorted(ordered, strange, side="right")
    return float(below.mean() / 2 / len(known))


if __name__ == "__main__":
    main()
