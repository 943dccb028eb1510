"""A template as the answer to a request.

Every template knows `_` (words of the reader's language), `several`, `number`, `percent`, `when`, who has signed
in, and where he may go. Everything is escaped unless it is `Markup` of our own; an unknown name is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shelver import __version__
from shelver.service.accounts.identity import known_identity
from shelver.service.pages.confidence import in_words
from shelver.service.pages.locales import LANGUAGES, NAMES, Language, language_of, words_in
from shelver.service.pages.navigation import rooms_of
from shelver.service.pages.notices import NOTICES
from shelver.service.pages.session import THEME, THEMES
from shelver.service.pages.static import address_of

TEMPLATES: Final = Path(__file__).parent.parent / "templates"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""The content security policy of every page: nothing from elsewhere, no inline script or style, no HTML made of
strings in a browser."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with no-referrer a form would be sent with the origin null
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
    "Vary": "Cookie, Accept-Language",
}


def page(
    request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
) -> HTMLResponse:
    """A page, in the language and theme of whoever asks.

    Args:
        request: the request that it answers.
        template: name of a file in `templates/`.
        status: of the answer; 422 for a form that comes back with what is wrong.
        headers: beside those of every page.
        context: what the template shows.
    """
    language = language_of(request)
    identity = known_identity(request)
    theme = request.cookies.get(THEME, "auto")
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    shown = (
        environment(language)
        .get_template(template)
        .render(
            identity=identity,
            rooms=rooms_of(identity.role),
            path=request.url.path,
            here=here if request.method == "GET" else request.url.path,
            language=language,
            theme=theme if theme in THEMES else "auto",
            notice=NOTICES.get(request.query_params.get("done", "")),
            **context,
        )
    )
    return HTMLResponse(shown, status, {**HEADERS, **(headers or {})})


def redirect(path: str, *, done: str | None = None, **query: str) -> RedirectResponse:
    """After a form: go and look at what it changed.

    Args:
        path: of a page of ours.
        done: a key of `NOTICES`, which that page shows.
        query: more of the address.
    """
    asked = {**query, **({"done": done} if done is not None else {})}
    return RedirectResponse(path + (f"?{urlencode(asked)}" if asked else ""), 303)


@cache
def environment(language: Language) -> Environment:
    """The templates in a language."""
    words = words_in(language)
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.loopcontrols"],
    )
    made.globals.update(
        _=words,
        several=words.several,
        number=words.number,
        compact=words.compact,
        percent=words.percent,
        when=words.when,
        in_words=lambda share: words(in_words(share)),
        static=address_of,
        languages=[(language, NAMES[language]) for language in LANGUAGES],
        themes=THEMES,
        version=__version__,
        urlencode=urlencode,
    )
    return made
