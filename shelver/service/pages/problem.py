"""A refusal as a page: what happened, and what to do now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from shelver.service.pages.locales import mark
from shelver.service.pages.render import page
from shelver.service.problems import Problem

_ADVICE: Final[Mapping[int, str]] = {
    401: mark("Sign in, and try again."),
    403: mark("Ask an administrator if you need this page."),
    404: mark("It may have been deleted, or the address is mistyped."),
    405: mark("Go back, and use the form of the page."),
    409: mark("Somebody else was quicker. Go back, load the page again, and look at what is there now."),
    412: mark("Somebody else was quicker. Go back, load the page again, and look at what is there now."),
    413: mark("Go back, and send less at once."),
    422: mark("Go back, mend it, and try again."),
    429: mark("Wait a moment, and try again."),
    500: mark("It is our fault, not yours. Try again; if it lasts, tell the operator the number below."),
    503: mark("Wait a moment, and try again."),
}
_EXPIRED: Final = mark(
    "Your sign-in has ended, and nothing was saved. Sign in in another tab, then load this page again: the "
    "browser sends your form once more, with all that you typed."
)
_LISTING: Final = re.compile(r"/listings/[^/]+(/\w+)?")


def problem_page(request: Request, problem: Problem) -> Response:
    """The page of a problem; who must sign in first is sent there, and comes back."""
    if problem.code == "not_signed_in" and request.method in ("GET", "HEAD"):
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(here, safe='')}", 303)
    expired = problem.status == 401 and request.method == "POST"
    no_listing = problem.code == "not_found" and _LISTING.fullmatch(request.url.path) is not None
    return page(
        request,
        "problem.html",
        status=problem.status,
        problem=problem,
        advice=_EXPIRED if expired else _ADVICE.get(problem.status),
        expired=expired,
        no_listing=no_listing,
    )
