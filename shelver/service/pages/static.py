"""The files of `static/`: the style sheet, scripts and icons. Read once, named by their content."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from shelver.service.accounts.identity import allowed
from shelver.service.problems import not_found

FOLDER: Final = Path(__file__).parent.parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
router = APIRouter()


class _File(NamedTuple):
    data: bytes
    etag: str
    kind: str


@cache
def _files() -> dict[str, _File]:
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _TYPES:
            data = path.read_bytes()
            found[path.name] = _File(data, f'"{hashlib.sha256(data).hexdigest()[:16]}"', _TYPES[path.suffix])
    return found


def address_of(name: str) -> str:
    """Where a file of `static/` is."""
    assert name in _files(), f"{name} is no file of static/"
    return f"/static/{name}"


@router.get("/static/{name}", include_in_schema=False, dependencies=[allowed("public")])
def read_static(
    name: Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", examples=["shelver.css"])],
    request: Request,
) -> Response:
    """A file, which a browser keeps and asks about."""
    file = _files().get(name)
    if file is None:
        raise not_found(f"file {name}", allowed="those that pages name", remedy="Load the page again.")
    # Asked about every time: scripts name each other without a version, and must fit each other.
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Cross-Origin-Resource-Policy": "same-origin"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.kind, headers=headers)
