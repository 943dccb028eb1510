"""Examples for the OpenAPI document, made from those of the fields: one for each operation, fitting its schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]
UNKNOWN: Final = "…"
"""In place of a text that nobody gave an example of; a test looks for it."""
_ID: Final = "0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"
_PREDICTION: Final = "5c1f0e6f5a0b4e27a9d0b8c7f2b3d4e5"
_NAMED: Final[Mapping[str, Any]] = {
    # What is called the same everywhere looks the same everywhere.
    "id": _ID,
    "user_id": _ID,
    "owner_id": _ID,
    "key_id": _ID,
    "request_id": _ID,
    "decision_id": _ID,
    "prediction_id": _PREDICTION,
    "product_id": "9f3b0e6f5a0b4e27a9d0b8c7f2b3d4e5",
    "node_id": "436",
    "node_before": "436",
    "node_after": "436",
    "path": "Furniture > Chairs > Deck chairs",
    "policy": "default",
    "version": "4f9b093fc85d",
    "model_version": "4f9b093fc85d",
    "taxonomy_version": "8f8c3ceda1ab8ca8",
    "input_hash": "7b" * 32,
    "modality": "text",
    "outcome": "decided",
    "username": "ann@example.org",
    "password": "four words are enough",
    "title": "Folding deck chair, beech",
    "description": "Folds flat, weighs 4 kg.",
    "brand": "Sonne",
    "note": "It is for children.",
    "next": "WyIyMDI2LTExLTAxVDA5OjMwOjAwIiwgIjBmMmMiXQ",
    "pictures": "9f" * 32,
    "latency_ms": 21.4,
    "confidence": 0.93,
    "probability": 0.93,
    # Most have none.
    "disabled_at": None,
    "revoked_at": None,
    "promise": None,
    "error": None,
}
_BYTES: Final = "the bytes of a file"
_OF_FORMAT: Final = {"date-time": "2026-11-01T09:30:00Z", "date": "2026-11-01"}


def example_of(schema: Schema, definitions: Mapping[str, Schema], *, asked: bool, name: str = "") -> Any:
    """A value that fits a schema.

    Args:
        schema: of the value.
        definitions: what its references name.
        asked: whether it is a part of a request: then what may be left out and has no example is left out.
        name: of the field that holds it.
    """
    if schema.get("examples"):
        return schema["examples"][0]
    if "example" in schema:
        return schema["example"]
    if "$ref" in schema:
        return example_of(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions, asked=asked, name=name)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if {"type": "null"} in schema.get("anyOf", ()) and name in _NAMED and _NAMED[name] is None:
        return None
    if "enum" in schema:
        return _NAMED[name] if _NAMED.get(name) in schema["enum"] else schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return example_of(schema[choice][0], definitions, asked=asked, name=name)
    match schema.get("type"):
        case "object":
            fields: Mapping[str, Schema] = schema.get("properties", {})
            needed = schema.get("required", ())
            return {
                field: example_of(of, definitions, asked=asked, name=field)
                for field, of in fields.items()
                if not asked or field in needed or of.get("examples", (None,))[0] is not None
            }
        case "array":
            return [example_of(schema["items"], definitions, asked=asked, name=name)] if "items" in schema else []
        case "string" if "format" in schema and schema["format"] in _OF_FORMAT:
            return _OF_FORMAT[schema["format"]]
        case "string" if "contentMediaType" in schema:
            return _BYTES
        case "string":
            return _NAMED.get(name, UNKNOWN)
        case "number":
            return _NAMED.get(name, schema.get("maximum", 0.5))
        case "integer":
            return max(schema.get("minimum", 1), 1)
        case "boolean":
            return False
    return None
