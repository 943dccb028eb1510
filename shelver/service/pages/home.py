"""The first page, and the choice of language and theme."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.pages import locales
from shelver.service.pages.navigation import home_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import OWN_FORM, THEME, THEMES, keep_choice, own_path
from shelver.service.state import ServiceDep

router = APIRouter()


@router.get("/", include_in_schema=False)
def home(request: Request, service: ServiceDep, identity: Annotated[Identity, allowed("public")]) -> Response:
    """Where one begins: one's own first page, or who this is."""
    if identity.via == "password":
        return redirect(home_of(identity.role))
    return page(request, "home.html", registration=service.settings.registration == "open")


@router.post("/preferences", include_in_schema=False, dependencies=[allowed("public"), OWN_FORM])
def choose(
    request: Request,
    language: Annotated[str, Form()] = "",
    theme: Annotated[str, Form()] = "",
    back: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Choose a language, a theme, or both."""
    answer = redirect(own_path(back, "/"))
    if language in locales.LANGUAGES:
        keep_choice(request, answer, locales.COOKIE, language)
    if theme in THEMES:
        keep_choice(request, answer, THEME, theme)
    return answer
