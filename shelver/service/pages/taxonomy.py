"""The explorer of the tree: level by level with counts, accuracy and confusions, down to the products."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.models.node_figures import node_out, products_at, quality_of, tree_figures
from shelver.service.models.node_payloads import ChildCounts, NodeQualityOut
from shelver.service.models.payloads import FoundNode
from shelver.service.models.search import NAMES, search_of
from shelver.service.models.taxonomy import found_node
from shelver.service.pages.locales import mark
from shelver.service.pages.render import page
from shelver.service.paging import Paged, page_of
from shelver.service.products.answers import read_products
from shelver.service.state import ServiceDep
from shelver.service.tables.records import ProductRow

Sort = Literal["tree", "products", "worst", "name"]
PAGE: Final = 24
N_FOUND: Final = 30
DAYS: Final = (7, 30, 90, 365)
_SORTS: Final = {
    "tree": mark("as in the tree"),
    "products": mark("most products first"),
    "worst": mark("least accurate first"),
    "name": mark("by name"),
}
router = APIRouter()


@router.get("/taxonomy", include_in_schema=False, dependencies=[allowed("reviewer", "admin")])
def show_taxonomy(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    node: Annotated[str | None, Query(max_length=255)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    days: Annotated[int, Query(ge=1, le=366)] = 30,
    sort: Sort = "tree",
    below: bool = True,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """A node of the tree, its children, its confusions and its products; without `node` the whole tree."""
    tree = service.models.current().taxonomy
    k = -1 if not node else found_node(tree, node)
    figures = tree_figures(session, tree, service.previews, days)
    quality = quality_of(tree, figures, k)
    found: list[FoundNode] | None = None
    if q.strip():
        search = search_of(tree, service.settings.data / NAMES)
        found = [
            FoundNode(**node_out(tree, one).model_dump(), also=search.also(one, q)) for one in search(q, N_FOUND)
        ]
    products, following = None, None
    if k >= 0:
        wanted = products_at(tree, figures, k, below=below)
        asked = Paged(limit=PAGE, after=after)
        rows, following = page_of(session, wanted, ProductRow.created_at, ProductRow.id, asked)
        products = read_products(session, service, rows)
    query = {"days": days, "sort": sort}
    return page(
        request,
        "taxonomy.html",
        quality=quality,
        children=_sorted(quality, sort),
        most=max((child.n_products for child in quality.children), default=0),
        facts=tree,
        q=q,
        found=found,
        days=days,
        all_days=DAYS,
        sort=sort,
        sorts=_SORTS,
        below=below,
        products=products,
        following=following,
        first=after is None,
        query=query,
        list_query={**query, "node": node or "", "below": str(below).lower()},
    )


def _sorted(quality: NodeQualityOut, sort: Sort) -> list[ChildCounts]:
    match sort:
        case "products":
            return sorted(quality.children, key=lambda one: -one.n_products)
        case "worst":  # those that nobody judged come last
            return sorted(quality.children, key=lambda one: 2.0 if one.accuracy is None else one.accuracy.value)
        case "name":
            return sorted(quality.children, key=lambda one: one.name.casefold())
    return quality.children
