"""Whether the parameters of a job name what is there and what its caller may use."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from shelver.catalog.mapping import Mapping
from shelver.service.accounts.identity import Identity
from shelver.service.jobs.keeping import CATALOGS
from shelver.service.jobs.payloads import EvaluateParams, ImportParams, PredictParams, TrainParams
from shelver.service.models.champion import Models
from shelver.service.problems import ServiceError, not_found
from shelver.service.products.uploads import find_upload
from shelver.service.state import Service


def check_params(session: Session, service: Service, identity: Identity, body: Any) -> None:
    """Refuse at once what would fail later.

    Raises:
        ServiceError: what the job names is not there, or not for the caller.
        ConfigError: its mapping cannot be used.
    """
    if isinstance(body, ImportParams | PredictParams):
        if body.upload_id is not None:
            find_upload(session, identity, body.upload_id)
        mapping_of(body.mapping.model_dump())
    if isinstance(body, PredictParams | EvaluateParams):
        _check_model(service.models, body.model_version)
    if isinstance(body, PredictParams):
        if body.model_version is not None and identity.role != "admin":
            raise ServiceError(
                "not_allowed",
                "a model version",
                allowed="the champion, for all but administrators",
                remedy="Leave model_version out.",
            )
        if body.model_version is None:
            service.models.policy(body.policy)  # ConfigError where there is none
    if isinstance(body, TrainParams):
        service.models.current()
    name = body.catalog if isinstance(body, TrainParams | EvaluateParams) else None
    if name is not None and not (service.settings.data / CATALOGS / name / "catalog.json").is_file():
        raise not_found(
            f"catalog {name}",
            allowed="the name of a folder in `catalogs/` of the service's data folder that holds a catalog",
            remedy="Write one there with `shelver ingest`, or check the name.",
        )


def _check_model(models: Models, version: str | None) -> None:
    if version is None:
        models.current()
    elif models.store.find(version) is None:
        raise not_found(
            f"model {version}",
            allowed="a registered model, as /v1/models lists them",
            remedy="Check the version, or leave it out for the champion.",
        )


def mapping_of(said: dict[str, Any]) -> Mapping:
    """The mapping that a job's parameters name; it leads to no file of this machine.

    Raises:
        ConfigError: it cannot be used.
    """
    entries = {name: value for name, value in said.items() if value is not None}
    for name in ("columns", "attributes"):
        entries[name] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entries.get(name, {}).items()
        }
    return Mapping.of(entries, where="mapping")
