"""Pictures that come as addresses: fetched from public hosts, in bounds, before the request takes a place.

Whatever a host does, the request is answered: from the text alone where there is one, and `picture_error` names
one of `FETCH_CODES`. The code is the same whether a private host is there or not, and nothing of what a host
answered is told.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import prometheus_client
import structlog

from shelver import __version__
from shelver.addresses import Names, Network, NotPublicError, checked_url, public_session
from shelver.service.answers.decoding import MAX_PICTURE_BYTES, Source, Unfetched
from shelver.service.problems import ServiceError

LIMIT_S: Final = 4.0
"""For a picture, redirects included."""
BATCH_S: Final = 20.0
"""For all pictures of a request with several products."""
WAIT_S: Final = 0.5
"""For a turn; who waits longer is told to come again."""
CONNECT_S: Final = 2.0
N_AT_ONCE: Final = 32
N_OF_CALLER: Final = 16
N_OF_HOST: Final = 16
_N_LINED_UP: Final = 4
"""Times as many may have a turn or wait for one; the next is told at once."""
MAX_REDIRECTS: Final = 3
FETCH_CODES: Final = {
    "address_unusable": "not http or https, without a host, or with a user name in it",
    "address_not_public": "the host has no public address, or the port is neither 80 nor 443",
    "fetch_failed": "no connection, or no HTTP",
    "fetch_redirects": f"more than {MAX_REDIRECTS} redirects",
    "fetch_status": "the host did not answer with 200",
    "fetch_timeout": f"not there within {LIMIT_S:g} s",
    "fetch_too_large": f"more than {MAX_PICTURE_BYTES} bytes",
}
"""Every reason for which a picture is not fetched, and what it means."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "User-Agent": f"shelver/{__version__}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",  # nothing is unpacked: the decoder looks at the bytes as they come
}
log = structlog.get_logger("shelver.service")


class _FetchError(Exception):
    """One of `FETCH_CODES`."""


class Fetching:
    """Fetches pictures; used from one event loop.

    Args:
        metrics: counts fetches by what came of them.
        networks: that may be reached beside the public internet; no request can change them.
        n_at_once: so many at a time; 0 fetches none.
        limit_s: for one picture.
    """

    def __init__(
        self,
        metrics: prometheus_client.CollectorRegistry,
        *,
        networks: Sequence[Network] = (),
        n_at_once: int = N_AT_ONCE,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._networks = tuple(networks)
        self._n_at_once = n_at_once
        self._limit_s = limit_s
        self._all, self._callers, self._hosts = _Turns(n_at_once), _Turns(N_OF_CALLER), _Turns(N_OF_HOST)
        self._threads = ThreadPoolExecutor(4 * N_OF_CALLER, thread_name_prefix="shelver-names")
        self._fetches = prometheus_client.Counter(
            "shelver_fetches", "Pictures by address, by what came of them.", ("outcome",), registry=metrics
        )

    async def fetch(self, url: str, caller: str, *, until_s: float | None = None) -> Source:
        """The bytes of a picture, or why there are none.

        Args:
            url: as the caller wrote it.
            caller: in whose name it is fetched.
            until_s: on the monotonic clock: when all that the request fetches must be there.

        Raises:
            ServiceError: too many are fetched at a time, or none at all are fetched here.
        """
        if not self._n_at_once:
            raise ServiceError(
                "picture_not_fetched",
                "the address of a picture",
                allowed="the picture itself: this server fetches none",
                remedy="Send it as image_base64, or as the file `image` of a form.",
            )
        await self._callers.take(caller)
        names = Names(self._threads)
        try:
            code, data = await self._outcome(url, names, until_s)
        finally:
            # His turn lasts as long as a name is looked up for him.
            names.when_idle(lambda: self._callers.give(caller))
        self._fetches.labels(code).inc()
        if data is not None:
            return data
        # Not the address: it may hold what only its owner should know.
        log.info("picture not fetched", reason=code)
        return Unfetched(code)

    async def _outcome(self, url: str, names: Names, until_s: float | None) -> tuple[str, bytes | None]:
        limit_s = self._limit_s if until_s is None else min(self._limit_s, until_s - time.monotonic())
        try:
            checked = checked_url(url)
            async with self._all.of(""), asyncio.timeout(limit_s):
                return "fetched", await self._fetched(checked, names)
        except ValueError:  # `AddressError`, aiohttp's `InvalidURL`, and what else it thinks of odd hosts
            return "address_unusable", None
        except _FetchError as error:
            return str(error), None
        except TimeoutError:
            return "fetch_timeout", None
        except aiohttp.ClientConnectorDNSError:
            return "address_not_public", None  # whether an inner name is known here is nobody's business
        except aiohttp.ClientConnectorError as error:
            return "address_not_public" if isinstance(error.os_error, NotPublicError) else "fetch_failed", None
        except ServiceError:
            raise
        except Exception as error:  # what a library thinks of a stranger's answer has no closed list
            if not isinstance(error, aiohttp.ClientError | OSError):
                log.warning("fetching a picture failed", error=type(error).__name__)
            return "fetch_failed", None

    async def _fetched(self, url: str, names: Names) -> bytes:
        async with public_session(self._networks, names=names, connect_s=CONNECT_S) as session:
            for _ in range(MAX_REDIRECTS + 1):
                host = urlsplit(url).hostname or ""
                async with (
                    self._hosts.of(host),
                    session.get(url, headers=_HEADERS, allow_redirects=False) as response,
                ):
                    if response.status not in _REDIRECTS:
                        return await _body(response)
                    url = checked_url(response.headers.get("Location", ""), url)
        raise _FetchError("fetch_redirects")

    def close(self) -> None:
        """Take no more names; those that are looked up are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.status != 200:
        raise _FetchError("fetch_status")
    if (response.content_length or 0) > MAX_PICTURE_BYTES:
        raise _FetchError("fetch_too_large")
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > MAX_PICTURE_BYTES:
            raise _FetchError("fetch_too_large")
    return bytes(data)


class _Turns:
    """So many at a time of each key; the others wait for their turn, but not long."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        await self.take(key)
        try:
            yield
        finally:
            self.give(key)

    async def take(self, key: str) -> None:
        """Wait for a turn.

        Raises:
            ServiceError: there was none.
        """
        if self._used[key] >= _N_LINED_UP * self._n:
            raise _busy()
        turns = self._turns.setdefault(key, asyncio.Semaphore(self._n))
        self._used[key] += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await turns.acquire()
        except BaseException as error:
            self._forget(key)
            if isinstance(error, TimeoutError):
                raise _busy() from error
            raise

    def give(self, key: str) -> None:
        """End a turn."""
        self._turns[key].release()
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key], self._turns[key]


def _busy() -> ServiceError:
    return ServiceError(
        "busy",
        "the address of a picture while many are fetched",
        allowed=f"{N_OF_CALLER} at a time of one caller, {N_AT_ONCE} in all",
        remedy="Try again after the time that Retry-After names, or send the picture itself.",
        retry_after_s=1,
    )
