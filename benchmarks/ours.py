"""Ours: shelver as its users run it, each system a change of the default config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Set
from benchmarks.measure import Learned, Stopwatch
from shelver.catalog.store import Catalog
from shelver.pipeline import Classifier
from shelver.product import Product


def learn_ours(
    catalog: Catalog, scratch: Path, threads: int, *, overrides: dict[str, Any], config_file: Path | None
) -> Learned:
    """Train a model folder and open it.

    What validation chooses, a refit then learns from train and validation together. The caches of embeddings begin
    empty, so embedding is part of the training time.

    Args:
        catalog: the catalog.
        scratch: an empty folder.
        threads: threads for everything.
        overrides: fields of the config that differ from its defaults.
        config_file: an experiment's file to take instead of the defaults.
    """
    import onnxscript  # noqa: F401 - loaded before the clock starts, as every library is
    import torch

    from shelver.train.config import TrainConfig, load_config
    from shelver.train.run import train

    torch.set_num_threads(threads)
    start = load_config(config_file) if config_file is not None else TrainConfig()
    config = TrainConfig.model_validate({**start.model_dump(), **overrides, "refit": True})
    watch = Stopwatch()
    trained = train(catalog, scratch / "model", config, cache=scratch / "cache", threads=threads, say=_say)
    cpu_s, wall_s = watch.cpu_s(), watch.wall_s()
    changed = {**({"config": config_file.name} if config_file is not None else {}), **overrides}
    settings = ", ".join(f"{name}={value}" for name, value in changed.items()) or "default config"
    predict = predictor(Classifier.open(trained.folder, threads=threads))
    return Learned(list, predict, cpu_s, wall_s, settings)


def learner(
    overrides: dict[str, Any], config_file: Path | None = None
) -> Callable[[Catalog, Set, Path, int], Learned]:
    """`learn_ours` with a config, called as the rivals are."""

    def learn(catalog: Catalog, one: Set, scratch: Path, threads: int) -> Learned:  # noqa: ARG001
        return learn_ours(catalog, scratch, threads, overrides=overrides, config_file=config_file)

    return learn


def predictor(classifier: Classifier) -> Callable[[list[Any]], NDArray[np.int32]]:
    """Products to nodes, -1 where the model has no answer; from raw fields and encoded pictures."""

    def predict(products: Sequence[Product]) -> NDArray[np.int32]:
        said = classifier(products)
        return np.where(said.answered, said.node, -1).astype(np.int32)

    return predict


def _say(line: str) -> None:
    print(line, flush=True)
