"""What a browser keeps: the cookie of who has signed in, and where it may be sent afterwards."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import Depends, Request, Response

from shelver.service.accounts.identity import check_origin, cookie_of

THEME: Final = "shelver_theme"
THEMES: Final = ("auto", "light", "dark")
MAX_PATH: Final = 2000
_YEAR_S: Final = 365 * 24 * 3600
_OWN: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")

OWN_FORM: Final[Any] = Depends(check_origin)
"""Of a form that people send before they have signed in: it must come from a page of ours."""


def keep_session(request: Request, response: Response, token: str, lifetime_s: int) -> None:
    """Let the browser keep what `sign_ins.begin_pages` made; no script can read it."""
    response.set_cookie(
        cookie_of(request),
        token,
        max_age=lifetime_s,
        httponly=True,
        samesite="lax",
        secure=_is_secure(request),
        path="/",
    )


def forget_session(request: Request, response: Response) -> None:
    """Let the browser forget it."""
    response.delete_cookie(cookie_of(request), httponly=True, samesite="lax", secure=_is_secure(request), path="/")


def keep_choice(request: Request, response: Response, name: str, value: str) -> None:
    """Let the browser keep a choice of how pages look for a year."""
    response.set_cookie(
        name, value, max_age=_YEAR_S, httponly=True, samesite="lax", secure=_is_secure(request), path="/"
    )


def own_path(path: str, otherwise: str) -> str:
    """A path of ours to go on to; anything that a browser could take for another site is none."""
    return path if len(path) <= MAX_PATH and _OWN.fullmatch(path) else otherwise


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
