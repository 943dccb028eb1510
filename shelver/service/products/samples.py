"""An example to try: a product of a catalog's test split, which the model did not learn from.

One row group is read for it, never the whole catalog.
"""

from __future__ import annotations

import base64
import random
from typing import Annotated, Any, Final

import pyarrow.parquet as pq
from fastapi import APIRouter

from shelver.catalog.store import Catalog
from shelver.errors import CatalogError
from shelver.images import sniff
from shelver.product import clean
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.jobs.keeping import CATALOGS
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.payloads import ExampleOut
from shelver.service.products.pictures import MEDIA_TYPES
from shelver.service.state import Service, ServiceDep

_COLUMNS: Final = ["product_id", "title", "description", "brand", "images"]
_DRAWS: Final = 8
"""So many rows are looked at for one with both a title and a picture."""
_DRAW: Final = random.SystemRandom()
router = APIRouter(tags=["products"])


@router.get("/v1/examples/random", summary="A product to try", responses=responses("not_found"))
def read_example(
    service: ServiceDep,
    identity: Annotated[Identity, allowed("seller", "admin", "service")],  # noqa: ARG001 - any of these
) -> ExampleOut:
    """A product of the installation's example catalog (setting `examples`), another one each time."""
    return example_of(service)


def example_of(service: Service) -> ExampleOut:
    """A product that the model has not seen; mostly one with a title and a picture.

    Raises:
        ServiceError: the installation has no examples.
    """
    name = service.settings.examples
    if name is None:
        raise _without_examples("no catalog is set for them")
    try:
        catalog = Catalog.open(service.settings.data / CATALOGS / name)
    except CatalogError as error:
        raise _without_examples(f"the catalog {name!r} cannot be opened") from error
    shards = [shard for shard in catalog.info.shards if shard.split == "test" and shard.n_rows]
    if not shards:
        raise _without_examples(f"the catalog {name!r} has no test split")
    shard = _DRAW.choices(shards, [shard.n_rows for shard in shards])[0]
    with pq.ParquetFile(catalog.folder / shard.file) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        rows = file.read_row_group(_DRAW.choices(range(len(sizes)), sizes)[0], columns=_COLUMNS)
    drawn = [rows.slice(_DRAW.randrange(rows.num_rows), 1).to_pylist()[0] for _ in range(_DRAWS)]
    return _shown(next((row for row in drawn if row["title"] and row["images"]), drawn[0]))


def _shown(row: dict[str, Any]) -> ExampleOut:
    picture = media_type = None
    for data in (row["images"] or ())[:1]:
        kind = sniff(data)
        if kind is not None:
            picture, media_type = base64.b64encode(data).decode(), MEDIA_TYPES[kind]
    # As somebody types it, without the tags and entities of exports.
    texts = {name: clean(row[name]) if row[name] else None for name in ("title", "description", "brand")}
    return ExampleOut(product_id=row["product_id"], **texts, image_base64=picture, media_type=media_type)


def _without_examples(why: str) -> ServiceError:
    return not_found(
        f"example: {why}",
        allowed="an installation whose setting `examples` names a catalog with a test split",
        remedy="Set it to the name of a folder in data/catalogs, and start the service again.",
    )
