"""Choosing a category: searched as one types, or looked for level by level; without a script by buttons of a form.

`templates/picker.html` shows it, `static/picker.js` brings it to life. The choice is a radio button of the form
around it, so that it excludes other radio buttons of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from shelver.service.models.search import NAMES, search_of
from shelver.service.state import Service
from shelver.taxonomy import Taxonomy

N_FOUND: Final = 20
_MAX_QUERY: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """A category to choose: its id, the names from level 1 down to its own, whether others are below it, and the
    names in the language that somebody searched in, where that is another one."""

    node_id: str
    path: tuple[str, ...]
    has_more: bool
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picker:
    """What the picker shows.

    Attributes:
        name: of its radio buttons; its other fields are called so with an ending.
        chosen: the category that is chosen.
        query: what was searched for.
        inside: the category that was looked into; None at the top.
        found: what the search found, or is inside; None where nobody asked.
    """

    name: str
    chosen: Place | None
    query: str
    inside: Place | None
    found: tuple[Place, ...] | None


def picker_of(
    service: Service, form: Mapping[str, Any], *, name: str = "node_id", chosen: str | None = None
) -> Picker:
    """The picker as a form left it.

    Args:
        service: whose tree is shown.
        form: what was sent; empty where nothing was.
        name: of the field that takes the category.
        chosen: the category that is shown where the form names none.
    """
    tree = service.models.current().taxonomy
    query = _text(form, f"{name}_q")[:_MAX_QUERY].strip()
    inside = place_of(tree, _text(form, f"{name}_in"))
    found: tuple[Place, ...] | None = None
    if inside is not None:
        found = tuple(_place(tree, k) for k in tree.children(tree.index(inside.node_id)).tolist())
    elif _text(form, f"{name}_top"):
        found = tuple(_place(tree, k) for k in np.flatnonzero(tree.level == 1).tolist())
    elif query:
        search = search_of(tree, service.settings.data / NAMES)
        found = tuple(
            replace(_place(tree, k), also=tuple(search.also(k, query) or ())) for k in search(query, N_FOUND)
        )
    return Picker(
        name=name,
        chosen=place_of(tree, _text(form, name) or chosen),
        query=query,
        inside=inside,
        found=found,
    )


def asked_of(form: Mapping[str, Any], *, name: str = "node_id") -> bool:
    """Whether a button of the picker sent the form: it is to be shown again then, and nothing saved."""
    return any(_text(form, f"{name}_{ending}") for ending in ("find", "in", "top"))


def place_of(tree: Taxonomy, node_id: str | None) -> Place | None:
    """A category by its id; None where the tree has none."""
    k = tree.find(node_id) if node_id else None
    return None if k is None else _place(tree, k)


def _place(tree: Taxonomy, k: int) -> Place:
    return Place(tree.ids[k], tuple(tree.path_names(k)), not bool(tree.is_leaf[k]))


def _text(form: Mapping[str, Any], name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""
