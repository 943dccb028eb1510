"""Which attributes there are, which values they take, and which nodes they apply to."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from shelver.errors import InputError
from shelver.taxonomy import Taxonomy

Kind = Literal["closed", "open", "number", "boolean"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Frozen):
    """One value of an attribute.

    Attributes:
        name: as it is answered.
        id: of the vocabulary that it comes from; None where it has none.
        synonyms: other words for it, in any language.
    """

    name: str
    id: str | None = None
    synonyms: tuple[str, ...] = ()


class Attribute(_Frozen):
    """One attribute.

    Attributes:
        name: under which it is answered, such as "baseColour".
        kind: "closed" has no values but those listed; "open" lists those that are known; "number" is a number with
            `unit`; "boolean" is "yes" or "no".
        multi: a product may have several values.
        unit: of a number, such as "cm".
        values: those that are known.
        nodes: ids of the nodes that it applies to, all below them included; empty: everywhere.
        synonyms: other names for the attribute itself, such as a column's.
        id: of the vocabulary that it comes from.
        exact: it applies to `nodes` and to nothing else: neither below them nor, where there are none, everywhere.
    """

    name: str
    kind: Kind = "open"
    multi: bool = False
    unit: str | None = None
    values: tuple[Value, ...] = ()
    nodes: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    id: str | None = None
    exact: bool = False


class Vocabulary(_Frozen):
    """The attributes that a catalog or a model knows, in order; their names are unique."""

    attributes: tuple[Attribute, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Attribute]:
        return {attribute.name: attribute for attribute in self.attributes}

    def applies(self, taxonomy: Taxonomy) -> NDArray[np.bool_]:
        """Which attributes apply to which nodes, shape (K, A).

        What applies to a node applies below it too, unless the attribute is `exact`. Ids that the tree does not
        have are passed over.
        """
        found = np.zeros((taxonomy.n_nodes, len(self.attributes)), np.bool_)
        inherited: list[int] = []
        for column, attribute in enumerate(self.attributes):
            if not (attribute.nodes or attribute.exact):
                found[:, column] = True
                continue
            found[[k for i in attribute.nodes if (k := taxonomy.find(i)) is not None], column] = True
            if not attribute.exact:
                inherited.append(column)
        if inherited:
            listed = found[:, inherited]
            below = listed.copy()
            for above in taxonomy.lineage.T:
                (at,) = np.nonzero(above >= 0)
                below[at] |= listed[above[at]]
            found[:, inherited] = below
        return found

    def save(self, path: Path) -> None:
        """Write `attributes.json`."""
        path.write_text(self.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read an `attributes.json`.

        Raises:
            InputError: it is missing, or none.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} cannot be read as a vocabulary of attributes",
                allowed="an attributes.json as shelver writes it",
                remedy="Copy the whole folder again from its source, or ingest the catalog again.",
            ) from error


EMPTY: Final = Vocabulary()
