"""Passwords: Argon2, two at a time, in threads that step back for everything else.

A flood of sign-ins waits at its own door: who does not get a turn soon is refused, and predictions go on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import unicodedata
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from fastapi import Depends, Request
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from shelver.service.limits import address_of
from shelver.service.problems import ServiceError

if TYPE_CHECKING:
    from shelver.service.state import Service

AT_ONCE: Final = 2
_WAIT_S: Final = 2.0
_WAITING: Final = 16
MAX_CHARACTERS: Final = 200


class Passwords:
    """Hashes and checks passwords.

    Args:
        characters: the fewest that a password has.
        kib, passes: Argon2's memory and passes.
    """

    def __init__(self, *, characters: int, kib: int, passes: int) -> None:
        self._characters = characters
        self._hasher = PasswordHash((Argon2Hasher(memory_cost=kib, time_cost=passes, parallelism=1),))
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password", initializer=_step_back)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._n_waiting = 0
        self._nobodys = self._hasher.hash("the password of nobody")

    def close(self) -> None:
        """Wait for what has begun, and end the threads."""
        self._threads.shutdown(cancel_futures=True)

    def hash(self, password: str) -> str:
        """The hash of a new password.

        Raises:
            ServiceError: it is too short or too long.
        """
        password = _composed(password)
        if not self._characters <= len(password) <= MAX_CHARACTERS:
            raise ServiceError(
                "password_unfit",
                f"a password of {len(password)} characters",
                allowed=f"{self._characters} to {MAX_CHARACTERS} characters",
                remedy="Several words in a row are easy to remember and hard to guess.",
            )
        return self._threads.submit(self._hasher.hash, password).result()

    def check(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether the password is right, and a new hash where the stored one was made with other parameters.

        Args:
            password: as it was typed.
            hashed: None where there is no such user; checking takes as long all the same.
        """
        password = _composed(password)
        if len(password) > MAX_CHARACTERS:
            password, hashed = "", None
        right, renewed = self._threads.submit(
            self._hasher.verify_and_update, password, hashed or self._nobodys
        ).result()
        return (right, renewed) if hashed is not None else (False, None)

    async def enter(self) -> None:
        """Wait for a turn.

        Raises:
            ServiceError: too many others wait, or waited for too long.
        """
        if self._n_waiting >= _WAITING:
            raise _crowded()
        self._n_waiting += 1
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise _crowded() from None
        finally:
            self._n_waiting -= 1

    def leave(self) -> None:
        """Give the turn to the next."""
        self._turns.release()


async def password_turn(request: Request) -> AsyncGenerator[None, None]:
    """A turn for the whole of a request that handles a password, so that it holds no thread while it waits."""
    service: Service = request.app.state.service
    service.limits.take(f"sign-in:{address_of(request)}", service.settings.sign_ins_per_minute)
    passwords = service.passwords
    await passwords.enter()
    try:
        yield
    finally:
        passwords.leave()


PASSWORD_TURN: Final = Depends(password_turn, scope="function")


def _composed(password: str) -> str:
    """One form of what keyboards write in two: an accent with its letter, or after it (RFC 8265)."""
    return unicodedata.normalize("NFC", password)


def _crowded() -> ServiceError:
    return ServiceError(
        "too_many_requests",
        "more sign-ins at once than are checked",
        allowed=f"{AT_ONCE} at once and {_WAITING} waiting",
        remedy="Try again in a moment.",
        retry_after_s=2,
    )


def _step_back() -> None:
    """Give way to the threads that predict, where the system knows priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
