"""What changed from one model to another: settings, encoders, data, tree, and how good each is.

Where both were scored on the same products, the difference of their accuracies carries an interval: that of
Newcombe for two shares, from the interval of each. It takes the products for different ones, so it is too wide
rather than too narrow; `shelver compare` asks both models about each product, and is sharper.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from shelver.library import ModelStore
from shelver.registry import TAXONOMY
from shelver.service.models.facts import SHOWN, ModelFacts, Scores, facts_of
from shelver.service.models.payloads import VERSION
from shelver.service.records.payloads import Figure
from shelver.taxonomy import Taxonomy

MAX_NAMED: Final = 50


class Change(BaseModel):
    """Something that the two have differently."""

    name: str = Field(examples=["epochs"])
    before: str | None = Field(examples=["10"])
    after: str | None = Field(examples=["20"])


class FigureChange(BaseModel):
    """A figure of both on the same products."""

    name: str = Field(examples=["accuracy"])
    before: float = Field(examples=[0.89])
    after: float = Field(examples=[0.91])
    difference: float = Field(examples=[0.02])
    low: float | None = Field(description="Of the difference, at 95 %; where both know enough.", examples=[0.008])
    high: float | None = Field(examples=[0.032])


class Compared(BaseModel):
    """The figures of both on a split that both were scored on."""

    catalog: str = Field(examples=["fashion"])
    split: str = Field(examples=["test"])
    n: int = Field(examples=[5000])
    figures: list[FigureChange]


class TreeChange(BaseModel):
    """What became of the tree."""

    n_before: int = Field(description="Categories.", examples=[146])
    n_after: int = Field(examples=[150])
    added: list[str] = Field(description="Paths; at most 50.", examples=[["Home > Lamps"]])
    removed: list[str] = Field(examples=[[]])


class ModelChanges(BaseModel):
    """What changed from one model, the base, to another."""

    model_config = ConfigDict(protected_namespaces=())

    base: str = Field(examples=["c0ffee123456"])
    model_version: str = Field(examples=[VERSION])
    settings: list[Change] = Field(description="Of the training.")
    parts: list[Change] = Field(description="Encoders, precision, attributes, data and the software.")
    tree: TreeChange | None = Field(description="None where it is the same one.")
    compared: Compared | None = Field(description="None where no report of both is on the same products.")


def changes_between(store: ModelStore, base: str, version: str) -> ModelChanges:
    """What changed from `base` to `version`.

    Raises:
        ModelError: one of them is not registered.
    """
    before, after = facts_of(store, base), facts_of(store, version)
    return ModelChanges(
        base=base,
        model_version=version,
        settings=_differing(_flat(before.config), _flat(after.config)),
        parts=_differing(_parts(before), _parts(after)),
        tree=_tree_change(store, base, version),
        compared=_compared(before.scores, after.scores),
    )


def difference(before: Figure, after: Figure) -> tuple[float, float] | None:
    """The interval of the difference of two shares.

    Source:
        Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    gap = after.value - before.value
    below = math.hypot(after.value - after.low, before.high - before.value)
    above = math.hypot(after.high - after.value, before.value - before.low)
    return max(gap - below, -1.0), min(gap + above, 1.0)


def _compared(before: list[Scores], after: list[Scores]) -> Compared | None:
    for new in after:
        for old in before:
            if (new.catalog_version, new.split, new.n) != (old.catalog_version, old.split, old.n):
                continue
            figures = []
            for name in SHOWN:
                if name not in new.figures or name not in old.figures:
                    continue
                was, now = old.figures[name], new.figures[name]
                limits = None
                if name == "accuracy" and old.accuracy is not None and new.accuracy is not None:
                    limits = difference(old.accuracy, new.accuracy)
                low, high = limits or (None, None)
                change = FigureChange(name=name, before=was, after=now, difference=now - was, low=low, high=high)
                figures.append(change)
            return Compared(catalog=new.catalog, split=new.split, n=new.n, figures=figures)
    return None


def _parts(facts: ModelFacts) -> dict[str, str | None]:
    data = facts.data
    return {
        "texts": facts.texts,
        "pictures": facts.pictures,
        "precision": facts.precision,
        "attributes": ", ".join(facts.attributes) or None,
        "n_train": None if data is None else str(data.n_train),
        "n_labels": None if data is None else str(data.n_labels),
        "n_nodes": None if data is None else str(data.n_nodes),
        "n_levels": None if data is None else str(data.n_levels),
        "shelver_version": facts.shelver_version,
        "git_commit": facts.git_commit,
    }


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[before + name] = text[:200]
    return found


def _differing(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> list[Change]:
    names = dict.fromkeys([*before, *after])
    return [
        Change(name=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _tree_change(store: ModelStore, base: str, version: str) -> TreeChange | None:
    old, new = (Taxonomy.load(store.folder_of(one) / TAXONOMY) for one in (base, version))
    if old.version == new.version:
        return None
    had, has = (dict(zip(tree.ids, tree.paths, strict=True)) for tree in (old, new))
    return TreeChange(
        n_before=old.n_nodes,
        n_after=new.n_nodes,
        added=sorted(path for node_id, path in has.items() if node_id not in had)[:MAX_NAMED],
        removed=sorted(path for node_id, path in had.items() if node_id not in has)[:MAX_NAMED],
    )
