"""How well are values read out of titles? OA-Mine and AE-110k, beside what is published of a large language model.

    python -m benchmarks.extraction                 both sets, into benchmarks/extraction.json
    python -m benchmarks.extraction --validate      the same on a quarter of the train file: for choices
    python -m benchmarks.extraction --sets oa-mine --json trial.json

A row is a fit on one file and its answers on another. The counts are those of the published protocol: the pairs of
a title and an attribute that the test file lists, a value is right if it equals one of the listed values letter
for letter, an attribute that the file does not list for the title is not counted. OA-Mine lists only what a title
states, so a value that is answered without need costs nothing there; AE-110k lists a part of the attributes, 16 %
of them as "n/a". Beside it stand: `strict_f1`, where each answer to an attribute that the title does not list
counts as wrong, which is fair on OA-Mine, whose labels are complete, and only a lower bound on AE-110k, where most
attributes were never labelled; `eager_f1`, the published protocol where a value is answered from a probability of
`EAGER` on, even where "none" is more probable; and `ceiling`, the recall of an answer that is always right but
must be one of the spans that are looked at. All choices were made on the train files.

`cpu_s` is processor time of the fit, `titles_per_s` titles a second of processor time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import facts
from benchmarks.run import DATA
from shelver.datasets.extraction import read_examples
from shelver.extract import Example, Extractor, ExtractSpec, tally
from shelver.extract.words import hash_of, read_words

RESULTS: Final = Path(__file__).with_name("extraction.json")
SETS: Final = ("oa-mine", "ae-110k")
FILES: Final = ("train", "train_0.2")
EAGER: Final = 0.2
"""Chosen on the train files."""
PUBLISHED: Final = {
    "gpt4_f1_of_both_sets": [0.85, 0.86],
    "source": "Brinkmann, Shraga and Bizer, ExtractGPT, arXiv 2310.12537: the mean of both sets; the best prompt "
    "with demonstrations from the train files in the latest version (85 %) and in earlier ones (86 %)",
}

Row = dict[str, Any]


def measure(train: Sequence[Example], test: Sequence[Example], spec: ExtractSpec) -> Row:
    """Learn from one, answer the other: through the folder, as a user would."""
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = Extractor.fit(train, spec)
    took = {"cpu_s": round(time.process_time() - cpu, 1), "wall_s": round(time.perf_counter() - wall, 1)}
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "model")
        n_bytes = sum(file.stat().st_size for file in (Path(folder) / "model").iterdir())
        extractor = Extractor.open(Path(folder) / "model")
    titles, categories = [example.title for example in test], [example.category for example in test]
    cpu = time.process_time()
    answers = extractor.answers(titles, categories)
    answering_s = time.process_time() - cpu
    found = tally(test, answers)
    strict = tally(test, answers, unlisted_is_none=True)
    eager = tally(test, extractor.answers(titles, categories, threshold=EAGER))
    return {
        "n_train": len(train),
        "n_test": len(test),
        "precision": round(found.precision, 4),
        "recall": round(found.recall, 4),
        "f1": round(found.f1, 4),
        "counts": {name: getattr(found, name) for name in ("nn", "nv", "vn", "vc", "vw")},
        "strict_f1": round(strict.f1, 4),
        "eager_f1": round(eager.f1, 4),
        "ceiling": round(ceiling(test, spec), 4),
        **took,
        "titles_per_s": round(len(test) / max(answering_s, 1e-9)),
        "model_bytes": n_bytes,
    }


def ceiling(examples: Sequence[Example], spec: ExtractSpec) -> float:
    """The share of the labelled values that are one of the spans that are looked at."""
    words = read_words([example.title for example in examples], spec.max_words)
    found = [
        any(words.spans_of(title, value) for value in values)
        for title, example in enumerate(examples)
        for values in example.values.values()
        if values
    ]
    return sum(found) / max(len(found), 1)


def halves(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Three quarters to learn from and one to choose by, dealt by a hash of the title."""
    held = [hash_of(f"fold{example.title}") % 4 == 0 for example in examples]
    return (
        [example for example, out in zip(examples, held, strict=True) if not out],
        [example for example, out in zip(examples, held, strict=True) if out],
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| set | learned from | precision | recall | F1 | GPT-4, both sets | strict F1 | CPU s | titles/s |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    lines += [
        f"| {row['set']} | {row['n_train']:,} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | "
        f".85-.86 | {row['strict_f1']:.3f} | {row['cpu_s']} | {row['titles_per_s']:,} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="F1 of values read out of titles.")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES, help="what to learn from")
    parser.add_argument("--validate", action="store_true", help="answer a quarter of the train file instead")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with attribute-values")
    parser.add_argument("--json", type=Path, default=RESULTS)
    call = parser.parse_args(arguments)
    said, spec = facts(1), ExtractSpec()
    rows: list[Row] = []
    for name in call.sets:
        folder = call.data / "attribute-values" / name
        for file in call.files:
            train = read_examples(folder / f"{file}.jsonl")
            train, test = halves(train) if call.validate else (train, read_examples(folder / "test.jsonl"))
            rows.append({"set": name, "file": file, **measure(train, test, spec)})
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    record = {**said, "validate": call.validate, "spec": spec.model_dump(), "published": PUBLISHED, "eager": EAGER}
    call.json.write_text(json.dumps({**record, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
