"""One system on one catalog, in a process of its own; `benchmarks.run` starts it and reads what it writes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.data import labelled, sets_named
from benchmarks.measure import score
from benchmarks.systems import systems_named
from shelver.catalog.store import Catalog


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one", description=__doc__)
    parser.add_argument("system")
    parser.add_argument("sets", help="of one catalog, with commas between")
    parser.add_argument("catalog", type=Path, help="its folder, or that of one of its folds")
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON: a score for each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", action="append", default=[], metavar="NAME=FILE")
    call = parser.parse_args()
    (system,) = systems_named([call.system], call.config)
    sets = sets_named(call.sets.split(","))
    catalog = Catalog.open(call.catalog)
    learned = system.learn(catalog, sets[0], call.scratch, call.threads)
    scores = {one.name: asdict(score(learned, *labelled(catalog, ("test",), one.ask))) for one in sets}
    call.out.write_text(json.dumps(scores, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
