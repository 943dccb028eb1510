"""Shopify's vocabulary: its YAML files, or the JSON that it publishes in every language.

A category's list of attributes is complete: in 956 of the 2025-08 edition's edges it leaves out one of its
parent's. So nothing is inherited, and every attribute read with categories is `exact`.

Every attribute may have several values: a product's category metafield is a list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from shelver.attributes.lines import Record, read_records, read_text
from shelver.attributes.vocabulary import Attribute, Value, Vocabulary
from shelver.errors import InputError

GID = "gid://shopify/Taxonomy"


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    handle: str


@dataclass(frozen=True, slots=True)
class _ListedValue:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class _Listed:
    id: str
    name: str
    handle: str
    extended_attributes: tuple[_Named, ...]
    values: tuple[_ListedValue, ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    attributes: tuple[_Listed, ...]


_LISTING = TypeAdapter(_Listing)
Names = dict[str, tuple[str, ...]]


def read_shopify_vocabulary(folder: Path) -> Vocabulary:
    """Reads `attributes.yml`, `values.yml` and `categories/*.yml`, or where there is no YAML `*.attributes.json`.

    Names are English; those of every other `LANGUAGE.attributes.json` in the folder are synonyms, matched by id
    (extended attributes have none: by handle). `Attribute.nodes` are the ids of `read_shopify`'s tree. JSON tells
    no categories (a handle does not tell which of two friendly ids a category means), and neither does YAML
    without `categories`: then every attribute applies everywhere.

    Raises:
        InputError: a file is missing or not understood (names the line), a value or attribute is not there.
    """
    listings = sorted(
        folder.glob("*.attributes.json"), key=lambda file: (not file.name.startswith("en."), file.name)
    )
    if (folder / "attributes.yml").is_file():
        nodes = _nodes(folder) if (folder / "categories").is_dir() else None
        others = [file for file in listings if not file.name.startswith("en.")]
        return _from_yaml(folder, nodes, _other_names(others))
    if not listings:
        raise InputError(
            f"{folder} holds neither attributes.yml nor an attributes.json",
            allowed="a folder as Shopify publishes its taxonomy",
            remedy="Check the path.",
        )
    return _from_listing(listings[0], _other_names(listings[1:]))


def read_shopify_listing(path: Path) -> Vocabulary:
    """Reads one `LANGUAGE.attributes.json`; it names no categories, so every attribute applies everywhere."""
    return _from_listing(path, {})


def _from_yaml(folder: Path, nodes: dict[str, list[str]] | None, others: Names) -> Vocabulary:
    path = folder / "attributes.yml"
    sections = read_records(path)
    values: dict[str, Value] = {}
    for record in read_records(folder / "values.yml").get("", ()):
        name, gid = _text(record, "name"), f"{GID}Value/{_text(record, 'id')}"
        values[_text(record, "friendly_id")] = Value(name=name, id=gid, synonyms=_but(name, others.get(gid, ())))
    base: dict[str, tuple[Value, ...]] = {}
    attributes = []
    for section in ("base_attributes", "extended_attributes"):
        for record in sections.get(section, ()):
            name, key = _text(record, "name"), _text(record, "friendly_id")
            if section == "base_attributes":
                own_id = f"{GID}Attribute/{_text(record, 'id')}"
                listed = record.get("values")
                if not isinstance(listed, list):
                    _lacks(path, name, "values")
                missing = [item for item in listed if item not in values]
                if missing:
                    _lacks(path, name, f"the value {missing[0]} in values.yml")
                base[key] = tuple(values[item] for item in listed)
            else:
                own_id = _text(record, "handle")
                source = _text(record, "values_from")
                if source not in base:
                    _lacks(path, name, f"the attribute {source} whose values it takes")
                base[key] = base[source]
            attributes.append(
                _attribute(name, own_id, base[key], None if nodes is None else nodes.get(key, []), others)
            )
    if nodes is not None and (unknown := sorted(nodes.keys() - base.keys())):
        _lacks(folder / "categories", nodes[unknown[0]][0], f"the attribute {unknown[0]} in attributes.yml")
    return _vocabulary(attributes)


def _from_listing(path: Path, others: Names) -> Vocabulary:
    attributes = []
    for listed in _listing(path):
        values = tuple(
            Value(name=value.name, id=value.id, synonyms=_but(value.name, others.get(value.id, ())))
            for value in listed.values
        )
        attributes.append(_attribute(listed.name, listed.id, values, None, others))
        for extended in listed.extended_attributes:
            attributes.append(_attribute(extended.name, extended.handle, values, None, others))
    return _vocabulary(attributes)


def _attribute(
    name: str, own_id: str, values: tuple[Value, ...], nodes: list[str] | None, others: Names
) -> Attribute:
    return Attribute(
        name=name,
        kind="closed",
        multi=True,
        values=values,
        nodes=tuple(nodes or ()),
        synonyms=_but(name, others.get(own_id, ())),
        id=own_id,
        exact=nodes is not None,
    )


def _vocabulary(attributes: list[Attribute]) -> Vocabulary:
    """In other languages two attributes may have one name; the later ones then bear their id with it."""
    names = Counter(attribute.name for attribute in attributes)
    seen: set[str] = set()
    for i, attribute in enumerate(attributes):
        if names[attribute.name] > 1 and attribute.name in seen:
            alone = f"{attribute.name} ({str(attribute.id).rpartition('/')[2]})"
            attributes[i] = attribute.model_copy(
                update={"name": alone, "synonyms": (attribute.name, *attribute.synonyms)}
            )
        seen.add(attribute.name)
    return Vocabulary(attributes=tuple(attributes))


def _nodes(folder: Path) -> dict[str, list[str]]:
    """Ids of the categories that list an attribute, by its friendly id."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((folder / "categories").glob("*.yml")):
        for record in read_records(path).get("", ()):
            node_id = f"{GID}Category/{_text(record, 'id')}"
            listed = record.get("attributes")
            if not isinstance(listed, list):
                _lacks(path, node_id, "attributes")
            for key in listed:
                found[key].append(node_id)
    return found


def _other_names(paths: Iterable[Path]) -> Names:
    """What attributes and values are called in other languages, by id, or handle where there is no id."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        for listed in _listing(path):
            found[listed.id].append(listed.name)
            for extended in listed.extended_attributes:
                found[extended.handle].append(extended.name)
            for value in listed.values:
                found[value.id].append(value.name)
    return {key: tuple(dict.fromkeys(names)) for key, names in found.items()}


def _listing(path: Path) -> tuple[_Listed, ...]:
    try:
        return _LISTING.validate_json(read_text(path)).attributes
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path.name} is no list of attributes ({'.'.join(map(str, first['loc']))}: {first['msg']})",
            allowed="an attributes.json as Shopify publishes it",
            remedy="Take the file as Shopify publishes it, or write the vocabulary as CSV (docs/attributes.md).",
        ) from error


def _but(name: str, others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(other for other in others if other != name)


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        _lacks(None, str(record.get("name", record.get("id", "a record"))), key)
    return value


def _lacks(path: Path | None, name: str, what: str) -> NoReturn:
    raise InputError(
        f"{f'{path.name}: ' if path else ''}{name} lacks {what}",
        allowed="the files of one edition of Shopify's taxonomy",
        remedy="Copy the whole folder again from its source.",
    )
