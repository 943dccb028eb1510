"""`Client` and `AsyncClient`: they send and wait; what to send, and when again, is `exchange`'s."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import update_wrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, overload

import httpx2

from shelver.client import accounts, answers, configuration, exchange, following, records, reviewing
from shelver.client.call import Call
from shelver.client.exchange import Outcome, Pause, Renew, Send, Session, Steps
from shelver.client.following import JobEvent
from shelver.service.jobs.payloads import JobRead

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT_S: Final = 60.0
_CHUNK_BYTES: Final = 1 << 18


class _Method(Generic[P, T]):
    """An operation as a method of either client, with the arguments that its call takes."""

    def __init__(self, call: Callable[P, Call[T]]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type[Client]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type[AsyncClient]) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type[Any]) -> Any:
        if client is None:
            return self

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.send(self._call(*args, **kwargs))

        return update_wrapper(method, self._call)


class _Operations:
    """What both clients can do; the arguments and the answers stand at each function."""

    predict = _Method(answers.predict)
    predict_batch = _Method(answers.predict_batch)
    propose_category = _Method(answers.propose_category)
    embed_text = _Method(answers.embed_text)
    embed_image = _Method(answers.embed_image)
    probabilities = _Method(answers.probabilities)
    decide = _Method(answers.decide)
    explain = _Method(answers.explain)
    find_similar = _Method(answers.find_similar)
    find_similar_to_product = _Method(answers.find_similar_to_product)
    create_product = _Method(records.create_product)
    list_products = _Method(records.list_products)
    read_product = _Method(records.read_product)
    read_example = _Method(records.read_example)
    replace_product = _Method(records.replace_product)
    delete_product = _Method(records.delete_product)
    give_feedback = _Method(records.give_feedback)
    list_feedback = _Method(records.list_feedback)
    list_predictions = _Method(records.list_predictions)
    read_prediction = _Method(records.read_prediction)
    export_predictions = _Method(records.export_predictions)
    read_quality = _Method(records.read_quality)
    upload_feed = _Method(records.upload_feed)
    start_job = _Method(records.start_job)
    read_job = _Method(records.read_job)
    list_jobs = _Method(records.list_jobs)
    cancel_job = _Method(records.cancel_job)
    read_job_file = _Method(records.read_job_file)
    register = _Method(records.register)
    read_me = _Method(records.read_me)
    export_me = _Method(records.export_me)
    first_admin = _Method(accounts.first_admin)
    read_sign_in_options = _Method(accounts.read_sign_in_options)
    rename_me = _Method(accounts.rename_me)
    change_password = _Method(accounts.change_password)
    forgot_password = _Method(accounts.forgot_password)
    reset_password = _Method(accounts.reset_password)
    delete_me = _Method(accounts.delete_me)
    list_sign_ins = _Method(accounts.list_sign_ins)
    end_other_sign_ins = _Method(accounts.end_other_sign_ins)
    list_users = _Method(accounts.list_users)
    create_user = _Method(accounts.create_user)
    read_user = _Method(accounts.read_user)
    change_user = _Method(accounts.change_user)
    create_password_token = _Method(accounts.create_password_token)
    end_sign_ins = _Method(accounts.end_sign_ins)
    list_keys = _Method(accounts.list_keys)
    create_key = _Method(accounts.create_key)
    revoke_key = _Method(accounts.revoke_key)
    list_audit = _Method(accounts.list_audit)
    list_review_items = _Method(reviewing.list_review_items)
    count_review_items = _Method(reviewing.count_review_items)
    claim_review_items = _Method(reviewing.claim_review_items)
    release_review_items = _Method(reviewing.release_review_items)
    decide_review_items = _Method(reviewing.decide_review_items)
    undo_review_decision = _Method(reviewing.undo_review_decision)
    list_models = _Method(configuration.list_models)
    read_model = _Method(configuration.read_model)
    register_model = _Method(configuration.register_model)
    promote_model = _Method(configuration.promote_model)
    roll_back = _Method(configuration.roll_back)
    list_policies = _Method(configuration.list_policies)
    read_policy = _Method(configuration.read_policy)
    write_policy = _Method(configuration.write_policy)
    preview_policy = _Method(configuration.preview_policy)
    delete_policy = _Method(configuration.delete_policy)
    read_taxonomy = _Method(configuration.read_taxonomy)
    search_nodes = _Method(configuration.search_nodes)
    read_node = _Method(configuration.read_node)
    read_node_quality = _Method(configuration.read_node_quality)


class Client(_Operations):
    """The service, over HTTP. Any number of threads may use one.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        email, password: of a person; the tokens come and are renewed by themselves.
        api_key: of a machine, in place of both.
        timeout_s: for each step of a request: to connect, to send, to wait for the next bytes.
        attempts: how often a call is made at most, where it is refused for the moment or gets lost.
        transport: what carries the requests, in place of the network.

    Raises:
        InputError: the address has no http:// or https://, or the sign-in is half of one.
    """

    def __init__(
        self,
        url: str,
        *,
        email: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = 4,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._session = Session(api_key=api_key, email=email, password=password, attempts=attempts)
        self._http = httpx2.Client(base_url=exchange.address_of(url), timeout=timeout_s, transport=transport)
        self._renewing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the sign-in stays good until it ends by itself."""
        self._http.close()

    def sign_in(self, email: str, password: str) -> None:
        """Sign in as somebody; the password is not kept, so that the sign-in ends when it is not used for long."""
        self._run(exchange.sign_in(self._session, email, password))

    def sign_out(self) -> None:
        """End the sign-in."""
        self._run(exchange.sign_out(self._session))

    def send(self, call: Call[T]) -> T:
        """Make any call: those of this package's modules, such as `records`, or one's own."""
        return self._run(exchange.exchange(self._session, call))

    def follow_job(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """What happens in a job, from the event after this number to its last; a lost connection is made again."""
        follower = following.Follower(self._session, job_id, after)
        while not follower.over:
            self._run(follower.before())
            try:
                with self._http.stream(**follower.request()) as response:
                    if follower.began(response):
                        for event in httpx2.EventSource(response):
                            yield from follower.read(event)
                    else:
                        response.read()
                        follower.outcome = response
            except httpx2.TransportError as error:
                follower.outcome = error
            self._run(follower.after())

    def wait_for_job(self, job_id: str) -> JobRead:
        """The job when it has ended, well or not."""
        for _ in self.follow_job(job_id):
            pass
        return self.read_job(job_id)

    def _run(self, steps: Steps[T]) -> T:
        reply: Any = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            reply = None
            match step:
                case Send():
                    reply = self._send(step)
                case Pause(seconds):
                    time.sleep(seconds)
                case Renew(stale):
                    with self._renewing:
                        self._run(exchange.renewal(self._session, stale))

    def _send(self, step: Send) -> Outcome:
        try:
            return self._http.request(
                step.method, step.path, params=step.params, headers=step.headers, **_carried(step.body, _chunks)
            )
        except httpx2.TransportError as error:
            return error


class AsyncClient(_Operations):
    """`Client` for programs that do not wait: each method gives something to await. One event loop may use one."""

    def __init__(
        self,
        url: str,
        *,
        email: str | None = None,
        password: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = 4,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._session = Session(api_key=api_key, email=email, password=password, attempts=attempts)
        self._http = httpx2.AsyncClient(base_url=exchange.address_of(url), timeout=timeout_s, transport=transport)
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sign_in(self, email: str, password: str) -> None:
        """As `Client.sign_in`."""
        await self._run(exchange.sign_in(self._session, email, password))

    async def sign_out(self) -> None:
        """End the sign-in."""
        await self._run(exchange.sign_out(self._session))

    async def send(self, call: Call[T]) -> T:
        """Make any call."""
        return await self._run(exchange.exchange(self._session, call))

    async def follow_job(self, job_id: str, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """As `Client.follow_job`."""
        follower = following.Follower(self._session, job_id, after)
        while not follower.over:
            await self._run(follower.before())
            try:
                async with self._http.stream(**follower.request()) as response:
                    if follower.began(response):
                        async for event in httpx2.EventSource(response):
                            for one in follower.read(event):
                                yield one
                    else:
                        await response.aread()
                        follower.outcome = response
            except httpx2.TransportError as error:
                follower.outcome = error
            await self._run(follower.after())

    async def wait_for_job(self, job_id: str) -> JobRead:
        """As `Client.wait_for_job`."""
        async for _ in self.follow_job(job_id):
            pass
        return await self.read_job(job_id)

    async def _run(self, steps: Steps[T]) -> T:
        reply: Any = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            reply = None
            match step:
                case Send():
                    reply = await self._send(step)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Renew(stale):
                    async with self._renewing:
                        await self._run(exchange.renewal(self._session, stale))

    async def _send(self, step: Send) -> Outcome:
        try:
            return await self._http.request(
                step.method,
                step.path,
                params=step.params,
                headers=step.headers,
                **_carried(step.body, _chunks_later),
            )
        except httpx2.TransportError as error:
            return error


def _carried(body: Mapping[str, Any], chunks: Callable[[Path], Any]) -> dict[str, Any]:
    """A body as httpx takes it; a file is opened anew for each attempt."""
    return {"content": chunks(body["file"])} if "file" in body else dict(body)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


async def _chunks_later(path: Path) -> AsyncIterator[bytes]:
    for chunk in _chunks(path):  # from a disk: no wait that a loop would notice
        yield chunk
