"""The benchmark: ours beside rivals, on the same rows, scored by the same functions, in one run.

    python -m benchmarks.run                                   everything; hours
    python -m benchmarks.run --sets instacart,flipkart --systems ours,svm
    python -m benchmarks.run --config trial=configs/trial.py --systems trial --sets fashion
    python -m benchmarks.run --table                           writes the tables of docs/benchmarks.md

Each system learns a catalog in a process of its own. Its rows replace those of the same set and system in
`results.json`, as soon as they are there; so a run that was cut off is gone on with by naming what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import table
from benchmarks.data import SETS, Set, catalogs_of, sets_named
from benchmarks.machine import facts
from benchmarks.systems import SYSTEMS, System, systems_named
from shelver.errors import ShelverError

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.json"
PAGE: Final = HERE.parent / "docs" / "benchmarks.md"
DATA: Final = Path(os.environ.get("SHELVER_DATA") or HERE.parent.parent / "shared" / "data")
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SHELVER_THREADS")
_AVERAGED: Final = (*("accuracy", "macro_f1", "train_cpu_s", "predict_cpu_us", "train_wall_s", "predict_wall_us"),)

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    call = _parser().parse_args(arguments)
    if call.table:
        table.render(PAGE, read_rows(call.results), read_rows(call.results.with_name("pictures.json")))
        print(PAGE)
        return 0
    sets, systems = sets_named(_names(call.sets)), systems_named(_names(call.systems), call.config)
    failed: list[str] = []
    for catalog in dict.fromkeys(one.catalog for one in sets):
        group = [one for one in sets if one.catalog == catalog]
        folders = catalogs_of(group[0], call.data, call.work)
        for system in systems:
            if not (asked := [one for one in group if system.answers(one)]):
                continue
            rows = run_system(system, asked, folders, work=call.work, threads=call.threads, configs=call.config)
            if rows is None:
                failed.append(f"{system.name} on {catalog}")
            else:
                keep(call.results, rows)
                print(table.lines(rows), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; see {call.work / 'logs'}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", help="with commas between; a beginning such as flipkart means all of them")
    parser.add_argument("--systems", help="with commas between")
    parser.add_argument(
        "--config", action="append", default=[], metavar="NAME=FILE", help="ours, by a config file"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="for catalogs, models and logs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1, help="of each system")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the tables of the page")
    return parser


def _names(text: str | None) -> list[str]:
    return [name for name in (text or "").split(",") if name]


def run_system(
    system: System, sets: list[Set], folders: list[Path], *, work: Path, threads: int, configs: Sequence[str] = ()
) -> list[Row] | None:
    """The rows of a system on the sets of one catalog, over all folds; None where it failed."""
    scores: dict[str, list[Row]] = {one.name: [] for one in sets}
    known = facts(threads)
    for folder in folders:
        log = work / "logs" / f"{folder.name}-{system.name}.log"
        found = _in_own_process(system, sets, folder, log, threads, configs)
        if found is None:
            return None
        for name, one in found.items():
            scores[name].append(one)
    return [{"set": name, "system": system.name, **over_folds(of_set), **known} for name, of_set in scores.items()]


def _in_own_process(
    system: System, sets: list[Set], folder: Path, log: Path, threads: int, configs: Sequence[str]
) -> dict[str, Row] | None:
    log.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}-{system.name}-", dir=log.parent.parent))
    out = scratch / "scores.json"
    command = [
        *(sys.executable, "-m", "benchmarks.one", system.name, ",".join(one.name for one in sets), str(folder)),
        *("--scratch", str(scratch), "--out", str(out), "--threads", str(threads)),
        *(word for config in configs for word in ("--config", config)),
    ]
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    paths = [str(HERE.parent), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    try:
        if done.returncode or not out.is_file():
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            print(f"{system.name} on {folder.name} failed: " + " / ".join(last), file=sys.stderr, flush=True)
            return None
        found: dict[str, Row] = json.loads(out.read_text(encoding="utf-8"))
        return found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def over_folds(scores: list[Row]) -> Row:
    """One fold's figures as they are; of several the means, standard errors, and the folds' own scores."""
    if len(scores) == 1:
        return scores[0]
    row: Row = {name: round(statistics.fmean(s[name] for s in scores), 6) for name in _AVERAGED}
    row["n_test"] = sum(s["n_test"] for s in scores)
    row["settings"] = "; ".join(dict.fromkeys(s["settings"] for s in scores))
    row["n_folds"] = len(scores)
    for name in ("accuracy", "macro_f1"):
        row[f"{name}_se"] = round(statistics.stdev(s[name] for s in scores) / len(scores) ** 0.5, 6)
        row[f"fold_{name}"] = [s[name] for s in scores]
    return row


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of results; none where it is not there."""
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return rows


def keep(path: Path, rows: list[Row]) -> None:
    """Put rows in their place in a file of results; they replace those of the same set and system."""
    kept = {(row["set"], row["system"]): row for row in [*read_rows(path), *rows]}
    sets, systems = [s.name for s in SETS], [s.name for s in SYSTEMS]

    def place(row: Row) -> tuple[int, int, str, str]:
        at_set = sets.index(row["set"]) if row["set"] in sets else len(sets)
        at_system = systems.index(row["system"]) if row["system"] in systems else len(systems)
        return at_set, at_system, row["set"], row["system"]

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(sorted(kept.values(), key=place), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShelverError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
