"""Which addresses are public, and HTTP sessions that connect to no other.

What strangers name as an address must not lead into the network that the server stands in. Names say nothing: one
may resolve to any address, and to another one a moment later. So it is the address of each socket that is checked,
right before it connects.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

Network = IPv4Network | IPv6Network

PUBLIC_PORTS: Final = (80, 443)
"""Of public addresses; what listens at other ports was seldom meant for strangers."""
MAX_CHARS: Final = 4096
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)

# `is_global` of the standard library follows the registries of its day: 3.11 takes parts of 192.0.0.0/24, NAT64's
# local prefix and others for global. Here all of IPv6 is refused but what is given out to networks, less some.
_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # behind a carrier's NAT; some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, seen from inside only
        "169.254.0.0/16",  # link-local; the metadata of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112: answers are thrown away
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GIVEN_OUT_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo, measurements, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = ip_network("64:ff9b::/96")
"""Where only IPv6 is spoken, names of IPv4 hosts resolve to this. The last four bytes count."""

_URL: Final = re.compile(
    # Strict on purpose: what two readers of addresses might read differently is refused. So no user names, zones
    # of IPv6, backslashes or percent signs before the path.
    r"(?i:https?)://(?:\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,253})(?::[0-9]{1,5})?(?:[/?][^\x00-\x20\x7f\\#]*)?"
)


class NotPublicError(OSError):
    """A socket would have led to no public address; always the same text, so that it tells nothing."""

    def __init__(self) -> None:
        super().__init__("no public address")


class AddressError(ValueError):
    """The text is no address that is fetched from."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, and so to nobody's inner network."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _GIVEN_OUT_6 or address.scope_id is not None:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)


def may_connect(host: str, port: int, extra_networks: Sequence[Network] = ()) -> bool:
    """Whether a socket may connect.

    Args:
        host: the address as the socket takes it. A name, or a spelling that only the system's C library knows
            (`127.1`, `0x7f000001`), is refused.
        port: of the socket; those of public addresses are `PUBLIC_PORTS`.
        extra_networks: allowed too, at any port.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if any(address in network for network in extra_networks):
        return True
    return port in PUBLIC_PORTS and is_public(address)


def checked_url(text: str, base: str | None = None) -> str:
    """An address as it is fetched from: http or https, a host, perhaps a port, a path and a query.

    Args:
        text: as somebody wrote it.
        base: where it was found, if it may be relative.

    Raises:
        AddressError: it is none, or holds what is never needed to fetch a picture.
    """
    text = text.strip(" \t\r\n").partition("#")[0].replace(" ", "%20")
    try:
        whole = text if base is None else urljoin(base, text)
    except ValueError as error:
        raise AddressError("no address") from error
    if len(whole) > MAX_CHARS or not _URL.fullmatch(whole):
        raise AddressError("no address")
    return whole


class Names(AbstractResolver):
    """Looks up names in threads of its own, one after another: a slow name server holds up nothing else.

    Args:
        threads: closed by whoever made them.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._latest: Future[list[Any]] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name."""
        self._latest = self._threads.submit(_looked_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in await asyncio.wrap_future(self._latest)
            if kind in _FAMILIES
        ]

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call back once no thread looks up anything for this any more: nobody can stop one, though he gave up."""
        loop = asyncio.get_running_loop()

        def later(_: Future[list[Any]]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(then)

        if self._latest is None or self._latest.done():
            then()
        else:
            self._latest.add_done_callback(later)

    async def close(self) -> None:
        """Nothing: the threads are somebody else's."""


def _looked_up(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)


def public_session(
    extra_networks: Sequence[Network] = (), *, names: AbstractResolver | None = None, connect_s: float = 2.0
) -> aiohttp.ClientSession:
    """A session that connects to public addresses only, keeps no cookies, and uses no proxy.

    Each request makes its own connection, nothing is decompressed, and redirects are for the caller to follow,
    with `checked_url` for each. A connection to any other address fails with `NotPublicError`.

    Args:
        extra_networks: allowed too, at any port.
        names: looks up names.
        connect_s: seconds until a connection must stand, the look-up included.
    """
    extra = tuple(extra_networks)

    def checked_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if family not in _FAMILIES or not may_connect(str(address[0]), int(address[1]), extra):
            raise NotPublicError
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            socket_factory=checked_socket,
            resolver=names,
            use_dns_cache=False,
            force_close=True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(connect=connect_s),
        trust_env=False,
        auto_decompress=False,
        requote_redirect_url=False,
    )
