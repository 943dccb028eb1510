"""The tree of the model that answers: facts, nodes, search."""

from __future__ import annotations

from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query

from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.models.champion import Loaded
from shelver.service.models.node_figures import node_out, quality_of, tree_figures
from shelver.service.models.node_payloads import NodeAsked, NodeQualityOut
from shelver.service.models.payloads import (
    FoundNode,
    FoundNodes,
    NodeAttribute,
    NodeDetail,
    NodeSearch,
    TaxonomyOut,
)
from shelver.service.models.search import NAMES
from shelver.service.models.search import search_of as search_of
from shelver.service.problems import not_found, responses
from shelver.service.state import ServiceDep
from shelver.taxonomy import Taxonomy

router = APIRouter(prefix="/v1/taxonomy", tags=["taxonomy"])
READERS: Final = [allowed("seller", "reviewer", "admin", "service")]


@router.get("", dependencies=READERS, summary="Read facts of the tree")
def read_taxonomy(service: ServiceDep) -> TaxonomyOut:
    """Size and first level of the tree of the model that answers."""
    loaded = service.models.current()
    tree, attributes = loaded.taxonomy, loaded.classifier.prob2pred.attributes
    return TaxonomyOut(
        taxonomy_version=loaded.taxonomy_version,
        model_version=loaded.model_version,
        n_nodes=tree.n_nodes,
        n_leaves=tree.n_leaves,
        n_levels=tree.n_levels,
        nodes_by_level=np.bincount(tree.level)[1:].tolist(),
        attributes=list(attributes.names) if attributes is not None else [],
        roots=[node_out(tree, k) for k in np.flatnonzero(tree.level == 1).tolist()],
    )


@router.get("/search", dependencies=READERS, summary="Search the tree")
def search_nodes(asked: Annotated[NodeSearch, Query()], service: ServiceDep) -> FoundNodes:
    """Nodes by words of their names and paths, in every language that is loaded; case and accents do not matter.

    A word that no name begins with is looked for inside of names, and then with one letter wrong.
    """
    loaded = service.models.current()
    tree, search = loaded.taxonomy, search_of(loaded.taxonomy, service.settings.data / NAMES)
    return FoundNodes(
        taxonomy_version=loaded.taxonomy_version,
        nodes=[
            FoundNode(**node_out(tree, k).model_dump(), also=search.also(k, asked.q))
            for k in search(asked.q, asked.n)
        ],
    )


@router.get(
    "/quality",
    dependencies=[allowed("reviewer", "admin")],
    summary="Read how good a node is",
    responses=responses("not_found", "invalid_input"),
)
def read_node_quality(
    asked: Annotated[NodeAsked, Query()], service: ServiceDep, session: SessionDep
) -> NodeQualityOut:
    """Products, predictions, accuracy and confusions of a node and of its children, what lies below included."""
    tree = service.models.current().taxonomy
    k = -1 if asked.node_id is None else found_node(tree, asked.node_id)
    return quality_of(tree, tree_figures(session, tree, service.previews, asked.days), k)


@router.get("/nodes/{node_id:path}", dependencies=READERS, summary="Read a node", responses=responses("not_found"))
def read_node(node_id: str, service: ServiceDep) -> NodeDetail:
    """A node by its id: its path, its children, the attributes that apply to it."""
    loaded = service.models.current()
    tree = loaded.taxonomy
    k = found_node(tree, node_id)
    return NodeDetail(
        **node_out(tree, k).model_dump(),
        holds_products=bool(tree.is_leaf[k]) or int(loaded.classifier.prob2pred.groups.here_slot[k]) >= 0,
        parents=[node_out(tree, above) for above in tree.ancestors(k).tolist()],
        children=[node_out(tree, child) for child in tree.children(k).tolist()],
        attributes=attributes_of(loaded, k),
    )


def found_node(tree: Taxonomy, node_id: str) -> int:
    """The index of a node.

    Raises:
        ServiceError: the tree has none of this id.
    """
    k = tree.find(node_id)
    if k is None:
        raise not_found(
            f"node {node_id[:80]!r} in taxonomy {tree.version}",
            allowed="a node of the tree of the model that answers",
            remedy="Find its id with /v1/taxonomy/search.",
        )
    return k


def attributes_of(loaded: Loaded, k: int) -> list[NodeAttribute]:
    """The attributes that apply to a node."""
    known = loaded.classifier.prob2pred.attributes
    if known is None:
        return []
    return [
        NodeAttribute(name=known.names[a], multi=known.multi[a], values=list(known.values[a]))
        for a in np.flatnonzero(known.applies[k]).tolist()
    ]
