"""CPU seconds, repeats, and the score of a trained system: the same for ours and for rivals."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver import metrics
from shelver.product import Product

MIN_PREDICT_CPU_S: Final = 2.0
"""Predicting is repeated over the whole test part until it took so much."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained system.

    Attributes:
        inputs: products → what it is asked with: the text of each, or the product; not part of any time.
        predict: N of these → nodes of the catalog's tree, shape (N,), -1 where there is no answer.
        train_cpu_s, train_wall_s: of learning what predicts.
        settings: in a few words.
    """

    inputs: Callable[[Sequence[Product]], list[Any]]
    predict: Callable[[list[Any]], NDArray[np.int32]]
    train_cpu_s: float
    train_wall_s: float
    settings: str


@dataclass(frozen=True, slots=True)
class Score:
    """How good and how fast a system is on a test part; the figures of a row of `results.json`."""

    accuracy: float
    macro_f1: float
    train_cpu_s: float
    predict_cpu_us: float
    train_wall_s: float
    predict_wall_us: float
    n_test: int
    settings: str


class Stopwatch:
    """CPU seconds of this process, its threads and its ended children, and seconds by the clock."""

    def __init__(self) -> None:
        self._cpu_s = _cpu_s()
        self._wall_s = time.perf_counter()

    def cpu_s(self) -> float:
        return _cpu_s() - self._cpu_s

    def wall_s(self) -> float:
        return time.perf_counter() - self._wall_s


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def score(
    learned: Learned,
    products: Sequence[Product],
    truth: NDArray[np.int32],
    *,
    min_cpu_s: float = MIN_PREDICT_CPU_S,
) -> Score:
    """Ask a trained system for all products, score the answers, and time them.

    The first pass warms up and gives the answers; the passes after it are timed. Where the first pass alone takes
    a minute, one more is enough.
    """
    inputs = learned.inputs(products)
    predicted = learned.predict(inputs)
    passes = 0
    watch = Stopwatch()
    while not passes or watch.cpu_s() < min_cpu_s:
        learned.predict(inputs)
        passes += 1
    n = passes * len(products)
    return Score(
        accuracy=round(metrics.accuracy(truth, predicted), 6),
        macro_f1=round(metrics.macro_f1(truth, predicted), 6),
        train_cpu_s=round(learned.train_cpu_s, 3),
        predict_cpu_us=round(watch.cpu_s() / n * 1e6, 3),
        train_wall_s=round(learned.train_wall_s, 3),
        predict_wall_us=round(watch.wall_s() / n * 1e6, 3),
        n_test=len(products),
        settings=learned.settings,
    )
