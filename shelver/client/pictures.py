"""A picture as a caller has it: a path, an address or bytes."""

from __future__ import annotations

import base64
from pathlib import Path

Picture = str | Path | bytes
"""Bytes of a file, its path, or an `http(s)://` address that the service fetches itself."""


def is_address(picture: Picture | None) -> bool:
    """Whether the service is to fetch it."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def as_base64(picture: Picture) -> str:
    """The bytes as JSON takes them.

    Raises:
        OSError: the file cannot be read.
    """
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    return base64.b64encode(data).decode()


def fields_of(picture: Picture | None) -> dict[str, str]:
    """What the body of a request says of a picture."""
    if picture is None:
        return {}
    return {"image_url": str(picture)} if is_address(picture) else {"image_base64": as_base64(picture)}
