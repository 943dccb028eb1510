"""The form that starts a training."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request, Response
from pydantic import ValidationError
from sqlalchemy import func, select

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.jobs.keeping import CATALOGS
from shelver.service.jobs.payloads import TrainParams
from shelver.service.jobs.routes import start_job
from shelver.service.jobs.waiting import nobody_works
from shelver.service.pages.forms import wrong_fields
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.render import page, redirect
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import ProductRow

TEXTS: Final = (
    ("auto", mark("Chosen by the number of products")),
    ("ngram", mark("Words and parts of words, learned here")),
    ("use", mark("Sentences in many languages, learned elsewhere")),
    ("ngram+use", mark("Both of them")),
    ("ngram+use@tuned", mark("Both, the second one tuned here: slow, often best")),
    ("none", mark("None: leave texts out")),
)
PICTURES: Final = (
    ("auto", mark("Chosen by what the catalog has")),
    ("lite0", mark("A small network, learned elsewhere")),
    ("lite0+colour", mark("The same, and colours")),
    ("lite0@tuned", mark("The same network tuned here: slow, often best")),
    ("none", mark("None: leave pictures out")),
)
PRECISIONS: Final = (("fp32", mark("Full")), ("int8", mark("Eight bits: pictures faster")))
_NUMBERS: Final = ("epochs", "seed")
Text = Annotated[str, Form(max_length=2000)]
Admin = Annotated[Identity, allowed("admin")]
router = APIRouter()


@router.get("/models/train", include_in_schema=False, dependencies=[allowed("admin")])
def show_training(request: Request, service: ServiceDep, session: SessionDep) -> Response:
    """The form."""
    return _form(request, service, session, {}, {})


@router.post("/models/train", include_in_schema=False)
def start_training(
    request: Request,
    response: Response,
    service: ServiceDep,
    session: SessionDep,
    identity: Admin,
    catalog: Text = "",
    text_encoder: Text = "auto",
    image_encoder: Text = "auto",
    attributes: Text = "",
    epochs: Text = "",
    minutes: Text = "",
    precision: Text = "fp32",
    seed: Text = "",
) -> Response:
    """Put a training into the queue."""
    typed = {
        "catalog": catalog,
        "text_encoder": text_encoder,
        "image_encoder": image_encoder,
        "attributes": attributes,
        "epochs": epochs,
        "minutes": minutes,
        "precision": precision,
        "seed": seed,
    }
    try:
        params = _params(typed)
    except ValidationError as error:
        wrong = wrong_fields(error)
        if "time_limit_s" in wrong:
            wrong["minutes"] = words_of(request)("From 1 to 43,200 minutes, or nothing.")
        return _form(request, service, session, typed, wrong, status=422)
    try:
        job = start_job(params, response, session, service, identity)
    except ServiceError as error:
        return _form(request, service, session, typed, {}, status=error.http_status, problem=error)
    return redirect(f"/jobs/{job.id}", done="training-started")


def _params(typed: dict[str, str]) -> TrainParams:
    """What the form says, as the API takes it.

    Raises:
        ValidationError: it cannot be.
    """
    said: dict[str, Any] = {"kind": "train"}
    for name in ("catalog", "text_encoder", "image_encoder", "precision", *_NUMBERS):
        if typed[name].strip():
            said[name] = typed[name].strip()
    names = [name.strip() for name in typed["attributes"].split(",") if name.strip()]
    if names:
        said["attributes"] = names
    if typed["minutes"].strip():
        try:
            said["time_limit_s"] = 60 * float(typed["minutes"].replace(",", "."))
        except ValueError:
            said["time_limit_s"] = typed["minutes"]
    return TrainParams.model_validate(said)


def _form(
    request: Request,
    service: Service,
    session: SessionDep,
    typed: dict[str, str],
    wrong: dict[str, str],
    *,
    status: int = 200,
    problem: ServiceError | None = None,
) -> Response:
    labelled = select(func.count()).select_from(ProductRow).where(ProductRow.node_id.is_not(None))
    return page(
        request,
        "train.html",
        status=status,
        typed={"text_encoder": "auto", "image_encoder": "auto", "precision": "fp32", **typed},
        wrong=wrong,
        problem=problem,
        catalogs=_catalogs(service),
        n_labelled=session.scalar(labelled) or 0,
        texts=TEXTS,
        pictures=PICTURES,
        precisions=PRECISIONS,
        nobody=nobody_works(session),
        folder=str(service.settings.data / CATALOGS),
    )


def _catalogs(service: Service) -> list[str]:
    """The catalogs of the installation that can be learned from."""
    return sorted(path.parent.name for path in (service.settings.data / CATALOGS).glob("*/catalog.json"))[:200]
