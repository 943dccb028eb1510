"""Reader of the two public sets of titles with marked values, OA-Mine and AE-110k, as Brinkmann et al. cut them.

A file holds one JSON object a line: `input` is the title, `category` its category, and `target_scores` maps each
attribute to an object whose keys are the right values; the key "n/a" says that the title states none.

Source:
    Zhang et al. 2022, "OA-Mine"; Xu et al. 2019, "Scaling up open tagging from tens to thousands"; Brinkmann,
    Shraga and Bizer, "ExtractGPT", arXiv 2310.12537.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from shelver.errors import FeedError
from shelver.extract import Example

NONE: Final = "n/a"


def read_examples(path: Path) -> list[Example]:
    """Read one file.

    Raises:
        FeedError: it cannot be read, is empty, or a line is not as above; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"{path}: {type(error).__name__}") from error
    examples = [_example(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise _refused(f"{path} holds no line")
    return examples


def _example(line: str, where: str) -> Example:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise _refused(f"{where}: no JSON") from error
    if not isinstance(row, dict):
        raise _refused(f"{where}: {type(row).__name__}, not an object")
    title, category, targets = row.get("input"), row.get("category"), row.get("target_scores")
    if not isinstance(title, str) or not isinstance(category, str):
        raise _refused(f"{where}: `input` or `category` is no text")
    if not isinstance(targets, dict) or not all(isinstance(values, dict) for values in targets.values()):
        raise _refused(f"{where}: `target_scores` is no object of objects")
    return Example(
        title,
        category,
        # As in the published protocol: the first key decides whether there is a value at all.
        {
            attribute: () if next(iter(values), NONE) == NONE else tuple(value.strip() for value in values)
            for attribute, values in targets.items()
        },
    )


def _refused(received: str) -> FeedError:
    return FeedError(
        received,
        allowed='one JSON object a line: {"input": title, "category": name, "target_scores": {name: {value: 1}}}',
        remedy="Mend the line, or name another file.",
    )
