"""Requests that the service itself makes, to addresses that its administrator has set: an issuer, a mail hook."""

from __future__ import annotations

import http.client
import ipaddress
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from shelver.errors import ConfigError

_MAX_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 16


class NoAnswerError(Exception):
    """The other side cannot be reached, takes too long, or says too much."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the other side answered, whatever its status; a redirection is not followed."""

    status: int
    body: bytes


def checked_address(what: str, url: str) -> str:
    """An address as it may stand in the settings.

    Raises:
        ConfigError: it is none, would be sent in the clear, or holds a password.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None and not parts.fragment
        usable &= parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))
        usable &= url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{what}: an address that cannot be used",  # it may hold a password
            allowed="https://…, or http:// to this machine itself; without user and fragment",
            remedy="Change the setting.",
        )
    return url


def call(
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
) -> Reply:
    """GET an address, or POST to it where there is a body.

    Args:
        url: was checked.
        body: to be sent.
        headers: of the request.
        timeout_s: for all of it, but for what the system takes to look up a name.

    Raises:
        NoAnswerError: there was none in time, or one of more than 1 MiB.
    """
    until = time.monotonic() + timeout_s
    request = urllib.request.Request(url, body, dict(headers or {}))  # noqa: S310 - the scheme was checked
    request.add_header("User-Agent", "shelver")
    # Built by hand: nothing but HTTP, no redirection followed, every status an answer.
    opener = urllib.request.OpenerDirector()
    proxies: dict[str, str] | None = {} if _is_loopback(urlsplit(url).hostname) else None
    for handler in (urllib.request.ProxyHandler(proxies), urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler() if isinstance(handler, type) else handler)
    try:
        with opener.open(request, timeout=timeout_s) as response:
            found = bytearray()
            while chunk := response.read1(_CHUNK_BYTES):
                found += chunk
                if len(found) > _MAX_BYTES or time.monotonic() > until:
                    raise NoAnswerError(f"{len(found):,} bytes in {timeout_s:g} s and no end")
            return Reply(response.status, bytes(found))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(type(error).__name__) from error


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
