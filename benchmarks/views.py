"""What each view of a picture is worth, for which attribute, and how well the view "box" finds the product.

    python -m benchmarks.views --json                      both, into benchmarks/views.json
    python -m benchmarks.views --drawn 200 --no-fashion    the detector alone

The ablation takes fashion's own split. Each combination of parts is asked the same: a small network (one hidden
layer of 256, all attributes and the path together) learns from the training pictures alone, and answers for the
validation and the test pictures. Every choice behind these parts was made on validation. "fit", "crop" and "box"
are the frozen lite0 with that view, "colour" is the part without a network. As fashion's pictures have the shape
of their target, a crop to that shape would be the whole picture: "crop" is their central square here. `--every N`
lets the network learn from each Nth training picture, as a view of all of them takes minutes to embed.

The detector is asked for the box around products that are drawn here, of a known place, before four kinds of
backgrounds: one colour, a gradient, a texture, and clutter. A row gives the mean of intersection over union (IoU),
the share of at least .5, the mean IoU of the whole picture instead of a box, and how many boxes, with the margin
that the view gives them, hold at least nine tenths of the product's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.drawn import KINDS, Place, draw
from benchmarks.machine import facts
from benchmarks.run import DATA, HERE
from shelver.catalog.rows import BadRow
from shelver.datasets.recipes import RECIPES
from shelver.errors import ShelverError
from shelver.foreground import product_box
from shelver.images import BOX_MARGIN, ImageSpec, View
from shelver.pipeline import Image2Emb
from shelver.registry import ImageStage
from shelver.train.embed import ImageEmbedder
from shelver.train.image_encoders import export_image_part

RESULTS: Final = HERE / "views.json"
TASKS: Final = ("path", "baseColour", "season", "gender", "usage")
SPLITS: Final = ("train", "validation", "test")

_TALL: Final = ImageSpec(height_px=128, width_px=96)
_SQUARE: Final = ImageSpec(height_px=96, width_px=96)
PARTS: Final[dict[str, tuple[str, View, ImageSpec]]] = {
    "fit": ("lite0", "fit", _TALL),
    "crop": ("lite0", "crop", _SQUARE),
    "box": ("lite0", "box", _TALL),
    "colour": ("colour", "fit", _TALL),
}
"""Encoder, view and size of each part."""
COMBINATIONS: Final = (
    *("fit", "crop", "box", "colour", "fit+crop", "fit+box", "fit+colour"),
    *("fit+box+colour", "fit+crop+box+colour"),
)

_HIDDEN, _EPOCHS, _BATCH, _RATE, _DECAY = 256, 15, 256, 1e-3, 0.01
_DROP_IN, _DROP_HIDDEN, _CLIP = 0.3, 0.3, 5.0
_EMBEDDED: Final = 512

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled pictures.

    Attributes:
        pictures: encoded, N.
        split: of each, shape (N,).
        labels: by task the value's number, -1 where there is none that the training part has; each (N,).
    """

    pictures: list[bytes]
    split: NDArray[np.str_]
    labels: dict[str, NDArray[np.int64]]


def fashion(source: Path, every: int) -> Rows:
    """Fashion's pictures and labels; of the training part each `every`th."""
    pictures, split, values = [], [], []
    n_train = 0
    for row in RECIPES["fashion"].rows(source):
        if isinstance(row, BadRow) or not row.product.images or row.product.split is None:
            continue
        if row.product.split == "train":
            n_train += 1
            if (n_train - 1) % every:
                continue
        pictures.append(row.product.images[0])
        split.append(row.product.split)
        path = row.category if isinstance(row.category, str) else " > ".join(row.category or ())
        values.append({"path": path, **{name: "".join(v[:1]) for name, v in row.product.attributes.items()}})
    of = np.array(split)
    labels = {}
    for task in TASKS:
        said = np.array([one.get(task, "") for one in values])
        known = np.unique(said[(of == "train") & (said != "")])
        at = np.searchsorted(known, said).clip(max=len(known) - 1)
        labels[task] = np.where(known[at] == said, at, -1)
    return Rows(pictures, of, labels)


def embedded(name: str, pictures: Sequence[bytes], cache: Path) -> NDArray[np.float32]:
    """Vectors of the pictures by one of `PARTS`, shape (N, D)."""
    encoder, view, spec = PARTS[name]
    with tempfile.TemporaryDirectory() as scratch:
        part = export_image_part(encoder, spec, Path(scratch), 0, view=view)
        embedder = ImageEmbedder(Image2Emb.open(Path(scratch), ImageStage(parts=(part,)), threads=1), cache)
        try:
            starts = range(0, len(pictures), _EMBEDDED)
            found = [embedder([[one] for one in pictures[s : s + _EMBEDDED]]).values for s in starts]
        finally:
            embedder.close()
    return np.concatenate(found).astype(np.float32)


def probe(
    features: NDArray[np.float32], split: NDArray[np.str_], labels: Mapping[str, NDArray[np.int64]], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Accuracy by part and task of a small network that learned from the training part.

    Args:
        features: shape (N, D).
        split: of each row, one of `SPLITS`.
        labels: by task, each shape (N,); -1 is neither learned nor asked.
        seed: of the weights and of the order.
    """
    torch.manual_seed(seed)
    train = np.flatnonzero(split == "train")
    mean, scale = features[train].mean(axis=0), features[train].std(axis=0) + 1e-3
    inputs = torch.from_numpy(((features - mean) / scale).clip(-_CLIP, _CLIP))
    body = nn.Sequential(
        nn.Dropout(_DROP_IN), nn.Linear(inputs.shape[1], _HIDDEN), nn.GELU(), nn.Dropout(_DROP_HIDDEN)
    )
    heads = nn.ModuleDict({task: nn.Linear(_HIDDEN, int(of.max()) + 1) for task, of in labels.items()})
    truth = {task: torch.from_numpy(of) for task, of in labels.items()}
    weights = [*body.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=_RATE, weight_decay=_DECAY)
    n_steps = _EPOCHS * math.ceil(len(train) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=n_steps, pct_start=0.1)
    for _ in range(_EPOCHS):
        for rows in torch.split(torch.from_numpy(train)[torch.randperm(len(train))], _BATCH):
            hidden = body(inputs[rows])
            losses = [
                nn.functional.cross_entropy(heads[task](hidden), of[rows], ignore_index=-1, reduction="sum")
                / len(rows)
                for task, of in truth.items()
            ]
            optimiser.zero_grad()
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    body.eval()
    found: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for part in SPLITS[1:]:
            rows = torch.from_numpy(np.flatnonzero(split == part))
            hidden = body(inputs[rows])
            found[part] = {
                task: round(float((heads[task](hidden).argmax(dim=1) == of[rows]).double().mean()), 4)
                for task, of in truth.items()
            }
    return found


def ablation(rows: Rows, combinations: Sequence[str], cache: Path, every: int) -> list[Row]:
    """A row for each combination of parts."""
    names = list(dict.fromkeys(name for combination in combinations for name in combination.split("+")))
    vectors = {name: embedded(name, rows.pictures, cache) for name in names}
    result = []
    for combination in combinations:
        features = np.concatenate([vectors[name] for name in combination.split("+")], axis=1)
        started = time.perf_counter()
        row = {"parts": combination, "width": features.shape[1], "every": every}
        row |= probe(features, rows.split, rows.labels)
        row["n_train"] = int(np.count_nonzero(rows.split == "train"))
        row["probe_wall_s"] = round(time.perf_counter() - started, 1)
        result.append(row)
        print(row, flush=True)
    return result


def detector(n: int, first: int = 10_000) -> list[Row]:
    """How well products are found: a row for each kind of background, from `n` drawn pictures each."""
    rows = []
    for kind in KINDS:
        drawn = [draw(first + number, kind) for number in range(n)]
        started = time.process_time()
        found = [product_box(image) for image, _ in drawn]
        cpu_ms = 1_000 * (time.process_time() - started) / n
        places: list[Place] = [place for _, place in drawn]
        whole: list[Place] = [(0, 0, *image.size) for image, _ in drawn]
        wider = [
            product_box(image, margin=BOX_MARGIN) or all_of
            for (image, _), all_of in zip(drawn, whole, strict=True)
        ]
        overlaps = np.array([overlap(b or w, p) for b, w, p in zip(found, whole, places, strict=True)])
        row = {
            "background": kind,
            "n": n,
            "mean_iou": round(float(overlaps.mean()), 4),
            "iou_50": round(float((overlaps >= 0.5).mean()), 4),
            "holds_product": round(float(np.mean([_holds(b, p) for b, p in zip(wider, places, strict=True)])), 4),
            "whole_mean_iou": round(
                float(np.mean([overlap(w, p) for w, p in zip(whole, places, strict=True)])), 4
            ),
            "unsure": round(sum(box is None for box in found) / n, 4),
            "cpu_ms": round(cpu_ms, 2),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def overlap(one: Place, other: Place) -> float:
    """Intersection over union of two boxes."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (both - width * height)


def _holds(box: Place, place: Place) -> bool:
    """Whether a box has at least nine tenths of the product's."""
    width = max(0.0, min(box[2], place[2]) - max(box[0], place[0]))
    height = max(0.0, min(box[3], place[3]) - max(box[1], place[1]))
    return width * height >= 0.9 * (place[2] - place[0]) * (place[3] - place[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, nargs="?", const=RESULTS, help="write the figures into this file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--cache", type=Path, default=HERE / "work" / "cache", help="where embeddings are kept")
    parser.add_argument("--every", type=int, default=4, help="learn from each Nth training picture")
    parser.add_argument("--combinations", nargs="*", default=COMBINATIONS, metavar="PART+PART")
    parser.add_argument("--drawn", type=int, default=200, help="drawn pictures of each kind; 0 leaves them out")
    parser.add_argument("--no-fashion", action="store_true", help="leave the ablation out")
    call = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = facts(1)
    found: dict[str, list[Row]] = {}
    if call.drawn:
        found["detector"] = detector(call.drawn)
    if not call.no_fashion:
        rows = fashion(call.data / "fashion", call.every)
        found["ablation"] = ablation(rows, call.combinations, call.cache, call.every)
    if call.json:
        keep(call.json, {table: [{**row, **known} for row in rows] for table, rows in found.items()})
    return 0


def keep(path: Path, found: Mapping[str, list[Row]]) -> None:
    """Put rows into a file of results; they replace those of the same background, or parts and `every`."""
    kept: dict[str, list[Row]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for table, rows in found.items():
        placed = {(row.get("background") or row["parts"], row.get("every")): row for row in kept.get(table, ())}
        placed |= {(row.get("background") or row["parts"], row.get("every")): row for row in rows}
        kept[table] = list(placed.values())
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
