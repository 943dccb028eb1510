"""What a promotion would change, told before it is done."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shelver.service.models.changes import ModelChanges, changes_between
from shelver.service.state import Service
from shelver.service.tables.records import ProductRow


@dataclass(frozen=True)
class Promotion:
    """What becomes of an installation when another model answers.

    Attributes:
        version: of the model that would answer.
        champion: the one that answers now, and becomes the previous one; None where none does.
        previous: the one that could be rolled back to until now.
        changes: from the champion to it.
        misfits: policies of the service that do not fit it, and why; with any of them a promotion is refused.
        n_products, n_lost: stored products with a category, and those of them whose category its tree lacks.
    """

    version: str
    champion: str | None
    previous: str | None
    changes: ModelChanges | None
    misfits: dict[str, str]
    n_products: int
    n_lost: int


def promotion_of(session: Session, service: Service, version: str) -> Promotion:
    """What would change if a model answered. The model is opened for it, as for the promotion itself.

    Raises:
        ModelError: it is not registered, or no longer what was registered.
    """
    models = service.models
    loaded = models.prepare(version)
    aliases = models.store.aliases()
    changes = None
    if aliases.champion is not None and aliases.champion != version:
        changes = changes_between(models.store, aliases.champion, version)
    counted = select(ProductRow.node_id, func.count()).where(ProductRow.node_id.is_not(None))
    n_of = dict(session.execute(counted.group_by(ProductRow.node_id)).all())
    tree = loaded.taxonomy
    return Promotion(
        version=version,
        champion=aliases.champion,
        previous=aliases.previous,
        changes=changes,
        misfits=models.misfits(loaded),
        n_products=sum(n_of.values()),
        n_lost=sum(n for node_id, n in n_of.items() if node_id is None or tree.find(node_id) is None),
    )
