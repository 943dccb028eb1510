"""A grid of trainings, one after the other, resumable, and then compared on validation.

A sweep is a Python file that ends with `sweep = Sweep(base=TrainConfig(...), grid={...})`. Its points are trained
into a folder each and judged on the validation split, never on test: who chooses among twenty models by the test
split has learned from it. So no point may learn from validation either: where the base leaves `refit` and `folds`
open, a sweep settles them as False and 0. The winner is then trained by itself, with `refit` if you like, and
evaluated on test, once. All points use validation alike to stop and to calibrate, so their differences are fair,
but each figure by itself is a little too good.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shelver.catalog.store import Catalog
from shelver.compare import Comparison, compare, write_comparison
from shelver.errors import CatalogError, ConfigError, ShelverError
from shelver.folders import refuse_file, writing_alone

if TYPE_CHECKING:
    from shelver.train.config import TrainConfig

SWEEP: Final = "sweep.json"
MAX_NAME_CHARS: Final = 100
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._+=,@-]+")

Say = Callable[[str], None]
Status = Literal["trained", "was there", "failed"]


class Sweep(BaseModel):
    """Trainings that differ in some of their settings.

    Attributes:
        base: a TrainConfig, whose settings hold wherever a point says nothing else.
        grid: setting → the values to try; every combination is a point, named after its values.
        points: name → settings, where the combinations are chosen by hand; instead of `grid`.
        max_points: more are refused, since a grid grows faster than one thinks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseModel
    grid: dict[str, tuple[Any, ...]] = {}
    points: dict[str, dict[str, Any]] = {}
    max_points: int = Field(default=24, ge=1)

    @model_validator(mode="after")
    def _is_a_sweep(self) -> Sweep:
        if bool(self.grid) == bool(self.points):
            raise ValueError("either a grid or points, and one of them not empty")
        if empty := [name for name, values in self.grid.items() if not values]:
            raise ValueError(f"values for {', '.join(empty)}")
        n = len(self.points)
        if self.grid:
            n = 1
            for values in self.grid.values():
                n *= len(values)
        if n > self.max_points:
            raise ValueError(f"at most max_points = {self.max_points} points, these are {n}")
        if unsafe := [name for name in self.points if _UNSAFE.search(name) or name.startswith(".")]:
            raise ValueError(f"names that can be folders, unlike {unsafe[0]!r}")
        return self

    def configs(self) -> dict[str, TrainConfig]:
        """The points' names and whole configs, in order.

        Raises:
            ConfigError: `base` is no TrainConfig, or a point's setting is none or has an impossible value.
        """
        from shelver.train.config import TrainConfig

        if not isinstance(self.base, TrainConfig):
            raise ConfigError(
                f"base = {self.base!r:.80}",
                allowed="base=TrainConfig(...)",
                remedy="See configs/sweep_text.py for an example.",
            )
        base = self.base.model_dump()
        # What a point is judged by, it must not learn from; who says otherwise in the base or in a point may.
        base["refit"] = bool(base["refit"])
        base["folds"] = base["folds"] or 0
        made: dict[str, TrainConfig] = {}
        for name, settings in self._settings():
            try:
                config = TrainConfig.model_validate({**base, **settings})
            except ValidationError as error:
                first = error.errors()[0]
                raise ConfigError(
                    f"point {name}: {'.'.join(map(str, first['loc']))} = {first['input']!r}",
                    allowed=first["msg"].removeprefix("Value error, "),
                    remedy="The settings are those of TrainConfig; see shelver/train/config.py.",
                ) from error
            if config in made.values():
                continue  # a value named twice
            made[name] = config
        return made

    def _settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if self.points:
            yield from self.points.items()
            return
        for values in itertools.product(*self.grid.values()):
            settings = dict(zip(self.grid, values, strict=True))
            yield _name(settings), settings


def _name(settings: dict[str, Any]) -> str:
    """A folder's name for a point of a grid; the same settings have the same name in a grid of any size."""
    whole = ",".join(f"{name}={_short(value)}" for name, value in settings.items())
    safe = _UNSAFE.sub("_", whole)
    if safe == whole and len(safe) <= MAX_NAME_CHARS:
        return safe
    told_apart = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]
    return f"{safe[: MAX_NAME_CHARS - 9]}-{told_apart}"


def _short(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "-".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Point:
    """What became of one point.

    Attributes:
        name: also its folder's.
        status: "was there": an earlier call had finished it.
        model_version: empty where it failed.
        seconds: of this call.
        error: what went wrong; None unless it failed.
        learned_from_validation: its figures on validation are those of a model that knows the answers.
    """

    name: str
    status: Status
    model_version: str
    seconds: float
    error: str | None
    learned_from_validation: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What came of a sweep.

    Attributes:
        points: all of them, in order.
        comparison: of those that were trained, the first one as the baseline; None where all failed.
        written: the files beside the model folders.
    """

    points: tuple[Point, ...]
    comparison: Comparison | None
    written: tuple[Path, ...]

    @property
    def failed(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.status == "failed")


def run_sweep(
    sweep: Sweep,
    catalog: Catalog,
    out: Path,
    *,
    cache: Path,
    threads: int | None = None,
    say: Say = print,
) -> Swept:
    """Train each point into a folder of its own, and compare them on validation.

    A call that was cut off is made again: points that are finished stay as they are, one that was cut off goes on
    from its last checkpoint. A point that fails is named and does not stop the others; the next call
    tries it again.

    Args:
        sweep: the points.
        catalog: with labelled products in train and validation.
        out: folder for the points' folders, `sweep.json`, `compare.json` and `compare.html`.
        cache: folder for embeddings, shared by all points.
        threads: as of `train`.
        say: told about the progress.

    Raises:
        ConfigError: a point's settings are impossible, or differ from those its folder was begun with.
        CatalogError: no validation split.
        InputError: another process is writing `out`.
    """
    configs = sweep.configs()
    if not catalog.info.by_split.get("validation"):
        raise CatalogError(
            f"{catalog.folder} has no product in its validation split",
            allowed="a catalog with a validation split, by which the points are compared",
            remedy="Ingest it with another --split, such as 80/10/10.",
        )
    refuse_file(out)
    _refuse_changed(configs, out)
    out.mkdir(parents=True, exist_ok=True)
    with writing_alone(out):
        points = _train_all(configs, catalog, out, cache=cache, threads=threads, say=say)
        written = [_write_record(points, configs, catalog, out)]
        whole = [out / point.name for point in points if point.status != "failed"]
        if not whole:
            return Swept(points, None, tuple(written))
        comparison = compare(whole, catalog, split="validation", notes=_notes(points), threads=threads, say=say)
        written += write_comparison(comparison, out, say=say)
    return Swept(points, comparison, tuple(written))


def _train_all(
    configs: dict[str, TrainConfig], catalog: Catalog, out: Path, *, cache: Path, threads: int | None, say: Say
) -> tuple[Point, ...]:
    points: list[Point] = []
    for number, (name, config) in enumerate(configs.items(), start=1):
        say(f"point {number} of {len(configs)}: {name}{_time_left(points, len(configs))}")
        point = _train_one(name, config, catalog, out, cache=cache, threads=threads, say=say)
        if point.error is not None:
            say(f"point {name} failed: {point.error}")
        points.append(point)
    return tuple(points)


def _train_one(
    name: str, config: TrainConfig, catalog: Catalog, out: Path, *, cache: Path, threads: int | None, say: Say
) -> Point:
    from shelver.train.folder import recorded_config
    from shelver.train.run import train

    folder, started = out / name, time.monotonic()
    knows = bool(config.refit or config.folds)
    try:
        begun = recorded_config(folder) is not None
        trained = train(catalog, folder, config, cache=cache, threads=threads, resume=begun, say=say)
    except Exception as error:  # whatever it is, the other points are worth having
        said = str(error) if isinstance(error, ShelverError) else f"{type(error).__name__}: {error}"
        return Point(name, "failed", "", time.monotonic() - started, said, knows)
    status: Status = "was there" if trained.was_done else "trained"
    return Point(name, status, trained.model_version, time.monotonic() - started, None, knows)


def _time_left(points: list[Point], n_points: int) -> str:
    took = [point.seconds for point in points if point.status == "trained"]
    if not took:
        return ""
    minutes = (n_points - len(points)) * sum(took) / len(took) / 60
    return f", some {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"


def _refuse_changed(configs: dict[str, TrainConfig], out: Path) -> None:
    """A changed sweep must not be told after hours, nor mix its points with those of another."""
    from shelver.train.folder import recorded_config

    for name, config in configs.items():
        begun = recorded_config(out / name)
        if begun is not None and begun != config:
            now, then = config.model_dump(mode="json"), begun.model_dump(mode="json")
            differing = "; ".join(f"{key} = {now[key]}, was {then[key]}" for key in now if now[key] != then[key])
            raise ConfigError(
                f"{out / name} was begun with other settings ({differing})",
                allowed="the settings that it was begun with",
                remedy="Name another --out, or remove that folder.",
            )


def _notes(points: tuple[Point, ...]) -> list[str]:
    notes = [
        "Judged on validation: the best of several looks better there than it is. Train it by itself and evaluate "
        "it on test, once."
    ]
    if knowing := [point.name for point in points if point.status != "failed" and point.learned_from_validation]:
        notes.append(
            f"Not to be judged here, since validation was learned from (refit or folds): {', '.join(knowing)}."
        )
    return notes


def _write_record(points: tuple[Point, ...], configs: dict[str, TrainConfig], catalog: Catalog, out: Path) -> Path:
    record = {
        "catalog": catalog.info.fingerprint,
        "points": [
            {
                "name": point.name,
                "status": point.status,
                "model_version": point.model_version,
                "seconds": round(point.seconds, 1),
                "error": point.error,
                "learned_from_validation": point.learned_from_validation,
                "config": configs[point.name].model_dump(mode="json"),
            }
            for point in points
        ],
    }
    path = out / SWEEP
    partial = path.with_name(SWEEP + ".partial")
    partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def load_sweep(path: Path) -> Sweep:
    """Run a sweep's file and take its `sweep`; see `shelver.train.config.defined_in`."""
    from shelver.train.config import defined_in

    return defined_in(path, "sweep", Sweep, remedy="See configs/sweep_text.py for an example.")
