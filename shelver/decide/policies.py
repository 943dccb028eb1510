"""A file of policies: JSON, one policy a consumer, beside a model's core or anywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from shelver.decide.policy import DEEPEST, Policy
from shelver.errors import ConfigError

POLICIES: Final = "policies.json"
DEFAULT: Final = "default"
"""Name of the policy that decides where none is named."""


def read_policies(path: Path) -> dict[str, Policy]:
    """Read a file of policies: a JSON object, name to policy, in its order.

    Raises:
        ConfigError: there is no such file, it is no such object, or a policy is wrong; names the policy, its field
            and what is allowed there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except FileNotFoundError as error:
        raise ConfigError(
            f"no file of policies {path}", allowed="an existing JSON file", remedy="Check the path."
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: {error}", allowed="a JSON object: name of a policy to policy", remedy="Mend the file."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds a JSON {type(content).__name__}",
            allowed="an object: name of a policy to policy",
            remedy='Write {"default": {"decoder": "best_leaf"}}, for example.',
        )
    return {name: _policy(path, name, policy) for name, policy in content.items()}


def write_policies(path: Path, policies: Mapping[str, Policy]) -> None:
    """Write a file of policies; it appears under its name when it is whole. What a policy leaves at its default is
    left out."""
    content = {name: policy.model_dump(mode="json", exclude_defaults=True) for name, policy in policies.items()}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def policies_of(model: Path) -> dict[str, Policy]:
    """The policies of a model folder: those of its `policies.json`, and `default` where the file has none.

    Raises:
        ConfigError: as `read_policies`.
    """
    path = model / POLICIES
    return {DEFAULT: DEEPEST, **(read_policies(path) if path.exists() else {})}


def policy_named(name: str, policies: Mapping[str, Policy]) -> Policy:
    """One of some policies.

    Raises:
        ConfigError: none has this name; lists the names.
    """
    found = policies.get(name)
    if found is None:
        raise ConfigError(
            f"policy {name!r}",
            allowed=", ".join(policies) or "no policy: the file is empty",
            remedy="Name one of these, or add a policy of this name.",
        )
    return found


def _policy(path: Path, name: str, content: object) -> Policy:
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            *above, _ = map(str, first["loc"])
            allowed = f"a field of {'.'.join(above) or 'a policy'}: " + ", ".join(_fields_at(above))
        else:
            allowed = first["msg"].removeprefix("Value error, ")
        shown = json.dumps(first["input"], ensure_ascii=False, default=str)[:80]
        raise ConfigError(
            f"{path}, policy {name!r}" + (f", {field}: {shown}" if field else f": {shown}"),
            allowed=allowed,
            remedy="Mend the file.",
        ) from error


def _fields_at(place: Sequence[str]) -> tuple[str, ...]:
    """The fields of the object that stands at a place within a policy."""
    model: type[BaseModel] = Policy
    for name in place:
        # A name below a mapping is one of its keys, whose values are all of one kind.
        if name in model.model_fields:
            kind = model.model_fields[name].annotation
            kinds = (kind, *get_args(kind))
            model = next(one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel))
    return tuple(model.model_fields)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return found
