"""Models as a resource: list, register, report, promote, roll back. `champion.py` has the one that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from shelver.errors import InputError
from shelver.library import Aliases, ModelStore, Registered
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.audit import audit
from shelver.service.models.champion import Loaded, Models, open_models
from shelver.service.models.changes import ModelChanges, changes_between
from shelver.service.models.facts import PAGE, REPORT, ModelFacts, facts_of
from shelver.service.models.payloads import VERSION, ChangedOut, ModelOut, ModelsOut, RegisterIn
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.state import Service, ServiceDep

__all__ = ["Loaded", "Models", "open_models", "router"]

UNTRUSTED: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
}
"""With a page that came from somebody: it may look as it likes, and do nothing."""
router = APIRouter(prefix="/v1/models", tags=["models"])
READERS: Final = [allowed("seller", "reviewer", "admin", "service")]
Admin = Annotated[Identity, allowed("admin")]


@router.get("", dependencies=READERS, summary="List the models")
def list_models(service: ServiceDep) -> ModelsOut:
    """All registered models, the latest first."""
    store = service.models.store
    aliases = store.aliases()
    return ModelsOut(models=[_out(store, one, aliases) for one in store.models()], revision=aliases.revision)


@router.get("/{version}", dependencies=READERS, summary="Read a model", responses=responses("not_found"))
def read_model(version: str, service: ServiceDep) -> ModelOut:
    """One registered model."""
    store = service.models.store
    return _out(store, _found(store, version), store.aliases())


@router.get(
    "/{version}/report",
    dependencies=READERS,
    summary="Read a model's report",
    responses={
        200: {"content": {"application/json": {"example": {"n_products": 5000}}}},
        **responses("not_found"),
    },
)
def read_report(version: str, service: ServiceDep) -> FileResponse:
    """The report.json that came with the model."""
    store = service.models.store
    path = store.folder_of(_found(store, version).model_version) / REPORT
    if not path.is_file():
        raise not_found(f"report of model {version}")
    return FileResponse(path, media_type="application/json")


@router.get(
    "/{version}/report.html",
    dependencies=READERS,
    summary="Read a model's report as a page",
    response_class=FileResponse,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html>"}}},
        **responses("not_found"),
    },
)
def read_report_page(version: str, service: ServiceDep) -> FileResponse:
    """The report.html that came with the model: a page without scripts, shown as one of nobody's."""
    store = service.models.store
    path = store.folder_of(_found(store, version).model_version) / PAGE
    if not path.is_file():
        raise not_found(f"report page of model {version}")
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=UNTRUSTED)


@router.get("/{version}/facts", dependencies=READERS, summary="What a model is", responses=responses("not_found"))
def read_facts(version: str, service: ServiceDep) -> ModelFacts:
    """Encoders, data, settings, figures and learning curves of a model, as far as its folder tells them."""
    store = service.models.store
    return facts_of(store, _found(store, version).model_version)


@router.get(
    "/{version}/changes",
    dependencies=READERS,
    summary="What changed between two models",
    responses=responses("not_found"),
)
def read_changes(
    version: str,
    service: ServiceDep,
    base: Annotated[
        str | None,
        Query(max_length=80, description="The other one; without it, the champion.", examples=[VERSION]),
    ] = None,
) -> ModelChanges:
    """What is different from the base to this model: settings, encoders, data, tree, and figures."""
    store = service.models.store
    other = base or service.models.current().model_version
    return changes_between(store, _found(store, other).model_version, _found(store, version).model_version)


@router.post(
    "", status_code=201, summary="Register a model", responses=responses("invalid_input", "model_refused")
)
def register_model(body: RegisterIn, service: ServiceDep, identity: Admin) -> ModelOut:
    """Copy a model folder from the import folder, after it opened and answered in a process of its own."""
    store, by = service.models.store, identity.user_id or identity.name
    folder = _import_path(service.models.imports, body.path)
    found = store.register(folder, by=by, expected=body.model_version)
    detail = {"sha256": found.sha256, "source": found.source, "challenger": body.challenger}
    _note(service, identity, "model.register", found.model_version, detail)
    if body.challenger:
        store.challenge(found.model_version, by=by)
    return _out(store, found, store.aliases())


@router.post(
    "/{version}/promote",
    summary="Promote a model",
    responses=responses("not_found", "model_refused", "policies_unfit"),
)
def promote_model(version: str, service: ServiceDep, identity: Admin) -> ChangedOut:
    """Let a registered model answer; the champion becomes the previous one. It answers when this call returns, on
    other servers within about two seconds."""
    models = service.models
    loaded = models.prepare(_found(models.store, version).model_version)
    misfits = models.misfits(loaded)
    if misfits:
        name, why = next(iter(misfits.items()))
        raise ServiceError(
            "policies_unfit",
            f"{len(misfits)} policies of the service do not fit model {version}; {name!r}: {why}",
            allowed="a model that all policies of the service fit",
            remedy="Change or delete these policies first: " + ", ".join(misfits) + ".",
        )
    _note(service, identity, "model.promote", version, {"before": models.store.aliases().champion})
    return _changed(models.promote(loaded, by=identity.user_id or identity.name), misfits)


@router.post(
    "/rollback", summary="Roll back", responses=responses("conflict", "no_previous_model", "model_refused")
)
def roll_back(service: ServiceDep, identity: Admin) -> ChangedOut:
    """Let the previous model answer again; the champion becomes the previous one. Policies of the service that do
    not fit it do not keep it from answering; they are listed."""
    return roll_back_to(None, service, identity)


def roll_back_to(version: str | None, service: Service, identity: Identity) -> ChangedOut:
    """Let the previous model answer again.

    Args:
        version: which one that has to be; None for whichever it is.
        service: whose champion it becomes.
        identity: who wants it.

    Raises:
        ServiceError: there is no previous model, or another one.
    """
    models = service.models
    aliases = models.store.aliases()
    if aliases.previous is None:
        raise ServiceError(
            "no_previous_model",
            "no model answered before the champion",
            allowed="a roll back after a promotion",
            remedy="Promote a registered model instead.",
        )
    if version not in (None, aliases.previous):
        raise ServiceError(
            "conflict",
            "a roll back to a model that is not the previous one" if version else "a roll back to no model",
            allowed=f"the previous model, which is {aliases.previous}",
            remedy="Look at the models: somebody may have changed the champion since. Then try again.",
        )
    loaded = models.prepare(aliases.previous)
    _note(service, identity, "model.rollback", aliases.previous, {"before": aliases.champion})
    return _changed(models.roll_back(loaded, by=identity.user_id or identity.name), models.misfits(loaded))


def _note(service: Service, identity: Identity, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Write into the audit, and commit, before the aliases change, which are not in the database: no change is
    without its line, though a line may be without its change."""
    with service.database.writing() as session:
        audit(session, identity, action, subject, detail)


def _found(store: ModelStore, version: str) -> Registered:
    found = store.find(version)
    if found is None:
        raise not_found(f"model {version[:80]}")
    return found


def _out(store: ModelStore, one: Registered, aliases: Aliases) -> ModelOut:
    has_report = (store.folder_of(one.model_version) / REPORT).is_file()
    return ModelOut(**one.model_dump(), aliases=list(aliases.of(one.model_version)), has_report=has_report)


def _changed(aliases: Aliases, misfits: dict[str, str]) -> ChangedOut:
    shown: dict[str, Any] = aliases.model_dump(include={"champion", "challenger", "previous", "revision"})
    return ChangedOut(**shown, misfits=misfits)


def _import_path(imports: Path, path: str) -> Path:
    """A folder within the import folder, links resolved; what lies outside is answered alike, there or not."""
    try:
        found = (imports / path).resolve(strict=True)
        if found.is_relative_to(imports.resolve()) and found.is_dir() and found != imports.resolve():
            return found
    except (OSError, ValueError, RuntimeError):
        pass
    raise InputError(
        f"{path!r:.120} is no folder in the import folder",
        allowed="the path of a model folder, from the import folder of the service on",
        remedy="Copy the model folder to the import folder of the service first.",
    )
