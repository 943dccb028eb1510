"""A vocabulary as a table: CSV with a row for each value.

`attribute` names the attribute and is all that must be there. `value` and `synonyms` tell one value of it;
synonyms in a row without a value are the attribute's own. `kind`, `unit`, `nodes` and `multi` tell of the
attribute itself: one row suffices, and rows must not contradict each other. Several synonyms or nodes are parted
by `|`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, cast, get_args

from shelver.attributes.lines import read_text
from shelver.attributes.units import known_unit
from shelver.attributes.vocabulary import Attribute, Kind, Value, Vocabulary
from shelver.errors import InputError

COLUMNS: Final = ("attribute", "value", "synonyms", "kind", "unit", "nodes", "multi")
_YES_NO: Final = {"": None, "yes": "yes", "true": "yes", "1": "yes", "no": "no", "false": "no", "0": "no"}
_PARTS: Final = "|"


@dataclass(slots=True)
class _Draft:
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    synonyms: tuple[str, ...] = ()
    said: dict[str, str] = field(default_factory=dict)


def read_table(path: Path) -> Vocabulary:
    """Reads a CSV with the columns of `COLUMNS`, in any order, parted by commas, semicolons or tabs.

    A kind that is not stated is "number" where there is a unit, "closed" where there are values, else "open".

    Raises:
        InputError: the header is another, or a row is wrong; names the line.
    """
    text = read_text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    drafts: dict[str, _Draft] = {}
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if "attribute" not in columns or len(set(columns)) < len(columns) or not set(columns) <= set(COLUMNS):
            _refuse(path, 1, f"the columns {', '.join(columns)[:120]}")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(columns):
                    _refuse(path, reader.line_num, f"{len(cells)} cells under {len(columns)} columns")
                row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
                _read_row(path, reader.line_num, row, drafts)
    except csv.Error as error:
        _refuse(path, reader.line_num, str(error))
    return Vocabulary(attributes=tuple(_attribute(name, draft) for name, draft in drafts.items()))


def _read_row(path: Path, line: int, row: dict[str, str], drafts: dict[str, _Draft]) -> None:
    name = row["attribute"]
    if not name:
        _refuse(path, line, "no attribute")
    draft = drafts.setdefault(name, _Draft())
    synonyms = _parts(row.get("synonyms", ""))
    if value := row.get("value", ""):
        if value in draft.values:
            _refuse(path, line, f"{name}: the value {value!r:.60} stands there twice")
        draft.values[value] = synonyms
    else:
        draft.synonyms = tuple(dict.fromkeys(draft.synonyms + synonyms))
    for key in ("kind", "unit", "nodes", "multi"):
        said = row.get(key, "")
        if key == "kind" and said:
            said = said.lower()
            if said not in get_args(Kind):
                _refuse(path, line, f"the kind {said!r:.60}")
        if key == "multi":
            if said.lower() not in _YES_NO:
                _refuse(path, line, f"multi {said!r:.60}, which is neither yes nor no")
            said = _YES_NO[said.lower()] or ""
        if key == "unit" and said and not known_unit(said):
            _refuse(path, line, f"the unit {said!r:.60}, which shelver cannot convert")
        if said and draft.said.setdefault(key, said) != said:
            _refuse(path, line, f"{name}: {key} {said!r:.60} after {draft.said[key]!r:.60}")
    kind = draft.said.get("kind")
    if kind in ("number", "boolean") and draft.values:
        _refuse(path, line, f"{name}: a {kind} with listed values")
    if "unit" in draft.said and (draft.values or kind not in (None, "number")):
        _refuse(path, line, f"{name}: a unit, but no number")


def _attribute(name: str, draft: _Draft) -> Attribute:
    unit = draft.said.get("unit")
    kind = draft.said.get("kind") or ("number" if unit else "closed" if draft.values else "open")
    return Attribute(
        name=name,
        kind=cast(Kind, kind),
        multi=draft.said.get("multi") == "yes",
        unit=unit,
        values=tuple(Value(name=value, synonyms=synonyms) for value, synonyms in draft.values.items()),
        nodes=_parts(draft.said.get("nodes", "")),
        synonyms=draft.synonyms,
    )


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in cell.split(_PARTS) if part.strip()))


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise InputError(
        f"{path.name}, line {line}: {what}",
        allowed=f"a CSV with the columns {', '.join(COLUMNS)}, of which only the first must be there; kinds are "
        f"{', '.join(get_args(Kind))}",
        remedy="Mend the line; docs/attributes.md shows an example.",
    )
