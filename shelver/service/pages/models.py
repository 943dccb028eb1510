"""Models: which ones there are, how good each is and what changed; promote, roll back, register."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path as Folder
from typing import Annotated, Final

from fastapi import APIRouter, Form, Path, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from shelver.errors import ModelError, ShelverError
from shelver.library import Aliases, ModelStore
from shelver.registry import MANIFEST
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.jobs.payloads import JobFilters
from shelver.service.jobs.routes import list_jobs
from shelver.service.jobs.waiting import nobody_works
from shelver.service.models import routes
from shelver.service.models.facts import Curve, ModelFacts, facts_of
from shelver.service.models.payloads import ModelOut, RegisterIn
from shelver.service.models.promotion import promotion_of
from shelver.service.pages import charts
from shelver.service.pages.locales import Words, mark, words_of
from shelver.service.pages.render import page, redirect
from shelver.service.state import ServiceDep
from shelver.service.tables.accounts import User

router = APIRouter()
READERS: Final = [allowed("reviewer", "admin")]
ADMINS: Final = [allowed("admin")]
Reader = Annotated[Identity, allowed("reviewer", "admin")]
Admin = Annotated[Identity, allowed("admin")]
Version = Annotated[str, Path(max_length=80)]
Asked = Annotated[str, Query(max_length=80)]
MAX_FOLDERS: Final = 100
FIGURES: Final = {
    "accuracy": mark("Accuracy"),
    "weighted_f1": mark("Weighted F1"),
    "macro_f1": mark("Macro-F1"),
    "hierarchical_f1": mark("Hierarchical F1"),
    "top3_accuracy": mark("Among the first three"),
    "coverage": mark("Coverage"),
    "coverage_at_95": mark("Coverage at 95 % right"),
    "ece": mark("Calibration error"),
}
PARTS: Final = {
    "texts": mark("Reads texts with"),
    "pictures": mark("Sees pictures with"),
    "precision": mark("Precision"),
    "attributes": mark("Attributes"),
    "n_train": mark("Training products"),
    "n_labels": mark("Categories with products"),
    "n_nodes": mark("Categories of the tree"),
    "n_levels": mark("Levels of the tree"),
    "shelver_version": mark("Made by shelver"),
    "git_commit": mark("Commit"),
}
_QUANTITIES: Final = {"accuracy": mark("Accuracy"), "loss": mark("Loss"), "f1": mark("F1")}
_SIDES: Final = {"train": mark("training products"), "validation": mark("held-out products")}
_PHASES: Final = {
    "choose": mark("while it chose its settings"),
    "refit": mark("when it learned again from all"),
    "fold": mark("with a part held out"),
}


@router.get("/models", include_in_schema=False)
def show_models(request: Request, service: ServiceDep, session: SessionDep, identity: Reader) -> Response:
    """All models, how good each is, and what can be done."""
    store = service.models.store
    aliases = store.aliases()
    found = routes.list_models(service).models
    known = {one.model_version: facts for one in found for facts in [_facts(store, one.model_version)] if facts}
    trainings = list_jobs(JobFilters(kind="train", limit=5), session, identity).items
    return page(
        request,
        "models.html",
        models=found,
        facts=known,
        aliases=aliases,
        chosen=_likely_pair(found, aliases),
        names=_names(session, found),
        figures=FIGURES,
        trainings=[job for job in trainings if job.state in ("queued", "running")],
        nobody=nobody_works(session),
        folders=[(one, one) for one in _folders(service.models.imports)] if identity.role == "admin" else [],
        imports=str(service.models.imports),
        problem=None,
    )


@router.get("/models/compare", include_in_schema=False, dependencies=READERS)
def compare_models(request: Request, service: ServiceDep, base: Asked = "", version: Asked = "") -> Response:
    """Two models side by side: what changed, how good each is, how each learned."""
    if not version:
        return redirect("/models")
    changes = routes.read_changes(version, service, base or None)
    store = service.models.store
    both = [facts_of(store, changes.base), facts_of(store, changes.model_version)]
    _ = words_of(request)
    return page(
        request,
        "models_compare.html",
        changes=changes,
        both=both,
        figures=FIGURES,
        parts=PARTS,
        models=routes.list_models(service).models,
        charts=curve_charts(_, both),
        champion=store.aliases().champion,
    )


@router.post("/models/register", include_in_schema=False)
def register_model(
    request: Request,
    service: ServiceDep,
    identity: Admin,
    folder: Annotated[str, Form(max_length=500)] = "",
    challenger: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Register a folder of the import folder."""
    try:
        body = RegisterIn(path=folder, challenger=bool(challenger))  # type: ignore[call-arg]
        made = routes.register_model(body, service, identity)
    except ValidationError:
        return redirect("/models", done="model-not-named")
    except ShelverError as error:
        return page(request, "model_refused.html", status=error.http_status, problem=error, folder=folder)
    return redirect(f"/models/{made.model_version}", done="model-registered")


@router.get("/models/rollback", include_in_schema=False, dependencies=ADMINS)
def ask_to_roll_back(request: Request, service: ServiceDep, session: SessionDep) -> Response:
    """What a roll back would change."""
    previous = service.models.store.aliases().previous
    if previous is None:
        return redirect("/models", done="model-no-previous")
    return _asked(request, service, session, previous, back=True)


@router.post("/models/rollback", include_in_schema=False)
def roll_back(service: ServiceDep, identity: Admin, version: Annotated[str, Form(max_length=80)] = "") -> Response:
    """Let the previous model answer again: the one that the page named, so pressing twice is as once."""
    try:
        routes.roll_back_to(version, service, identity)
    except ShelverError:
        if service.models.store.aliases().champion != version:
            raise
    return redirect("/models", done="model-rolled-back")


@router.get("/models/{version}", include_in_schema=False, dependencies=READERS)
def show_model(request: Request, version: Version, service: ServiceDep, session: SessionDep) -> Response:
    """A model: what it is, how good it is and how it learned."""
    model = routes.read_model(version, service)
    store = service.models.store
    facts = facts_of(store, model.model_version)
    aliases = store.aliases()
    return page(
        request,
        "model.html",
        model=model,
        facts=facts,
        aliases=aliases,
        name=_names(session, [model]).get(model.registered_by, model.registered_by),
        figures=FIGURES,
        parts=PARTS,
        charts=curve_charts(words_of(request), [facts]),
        others=[one for one in routes.list_models(service).models if one.model_version != model.model_version],
    )


@router.get("/models/{version}/promote", include_in_schema=False, dependencies=ADMINS)
def ask_to_promote(request: Request, version: Version, service: ServiceDep, session: SessionDep) -> Response:
    """What a promotion would change."""
    model = routes.read_model(version, service)
    return _asked(request, service, session, model.model_version, back=False)


@router.post("/models/{version}/promote", include_in_schema=False)
def promote_model(version: Version, service: ServiceDep, identity: Admin) -> Response:
    """Let a model answer."""
    routes.promote_model(version, service, identity)
    return redirect(f"/models/{version}", done="model-promoted")


def _asked(request: Request, service: ServiceDep, session: Session, version: str, *, back: bool) -> Response:
    return page(
        request,
        "model_promote.html",
        promotion=promotion_of(session, service, version),
        back=back,
        figures=FIGURES,
        parts=PARTS,
    )


def curve_charts(_: Words, models: Collection[ModelFacts]) -> list[charts.Chart]:
    """The learning curves of some models, a chart a quantity."""
    by: dict[tuple[str, str, str], list[tuple[str, Curve]]] = {}
    for facts in models:
        for curve in facts.curves:
            side, _comma, phase = curve.name.partition(", ")
            words = ", ".join(_(known.get(one, one)) for known, one in ((_SIDES, side), (_PHASES, phase)) if one)
            name = words if len(models) == 1 else f"{facts.model_version}: {words}"
            # Losses are weighed differently in training: on one axis the other would be a flat line.
            part = side if curve.quantity == "loss" else ""
            by.setdefault((curve.quantity, curve.time, part), []).append((name, curve))
    found = []
    for (quantity, time, part), curves in by.items():
        xs = sorted({x for _name, curve in curves for x in curve.x})
        series = []
        for name, curve in curves:
            value_at = dict(zip(curve.x, curve.y, strict=True))
            series.append(charts.Series(name, [value_at.get(x) for x in xs]))
        share = quantity != "loss"
        found.append(
            charts.lines(
                f"{_(_QUANTITIES[quantity])}, {_(_SIDES.get(part, part))}" if part else _(_QUANTITIES[quantity]),
                _("How it changed while the model learned."),
                _("Epoch") if time == "epoch" else _("Step"),
                [_.number(x, 0 if x == int(x) else 1) for x in xs],
                series,
                (lambda value: _.percent(value, 1)) if share else (lambda value: _.number(value, 2)),
                share=share,
                xs=xs,
                joined=True,
            )
        )
    return found


def _likely_pair(models: Sequence[ModelOut], aliases: Aliases) -> tuple[str, str]:
    """Which two somebody most likely compares: the champion with what may be next, else with what was before."""
    versions = [one.model_version for one in models]
    newest = versions[0] if versions else ""
    if aliases.champion is None:
        return (versions[1] if len(versions) > 1 else newest), newest
    following = aliases.challenger or (newest if newest not in (aliases.champion, aliases.previous) else None)
    if following is not None:
        return aliases.champion, following
    before = aliases.previous or next((one for one in versions if one != aliases.champion), aliases.champion)
    return before, aliases.champion


def _facts(store: ModelStore, version: str) -> ModelFacts | None:
    """None where its folder cannot be read: one that is damaged must not hide the others."""
    try:
        return facts_of(store, version)
    except (ModelError, OSError):
        return None


def _names(session: Session, models: Collection[ModelOut]) -> dict[str, str]:
    """Who registered them, by what the store noted."""
    ids = {one.registered_by for one in models}
    return dict(session.execute(select(User.id, User.name).where(User.id.in_(ids))).all())


def _folders(imports: Folder) -> list[str]:
    """Model folders that can be registered, from the import folder on."""
    return sorted(path.parent.name for path in imports.glob(f"*/{MANIFEST}"))[:MAX_FOLDERS]
