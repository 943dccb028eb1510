"""What is wrong with the fields of a form, so that the form can come back and say it beside each."""

from __future__ import annotations

from pydantic import ValidationError


def wrong_fields(error: ValidationError) -> dict[str, str]:
    """What is wrong, by the name of the field."""
    found: dict[str, str] = {}
    for one in error.errors():
        name = str(one["loc"][0]) if one["loc"] else ""
        found.setdefault(name, str(one["msg"]).removeprefix("Value error, "))
    return found
