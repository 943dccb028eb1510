"""Micro-batching: many callers, few workers, and nobody waits for what cannot come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from shelver.service.answers.batcher import (
    MAX_BATCH,
    MAX_WAIT_MS,
    N_PLACES,
    Batcher,
    BatchSeen,
    BusyError,
    StoppingError,
)


class Worker:
    """Doubles numbers, when the gate is open; remembers the batches. Strings are errors."""

    def __init__(self, took_s: float = 0.0) -> None:
        self.batches: list[list[int | str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self._took_s = took_s

    def __call__(self, items: Sequence[int | str]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.began.set()
        assert self.gate.wait(10)
        time.sleep(self._took_s)
        return [item * 2 if isinstance(item, int) else ValueError(item) for item in items]


@contextmanager
def running(
    worker: Callable[[Sequence[int | str]], Sequence[int | Exception]],
    *,
    max_batch: int = MAX_BATCH,
    max_wait_ms: float = MAX_WAIT_MS,
    n_places: int = N_PLACES,
    n_workers: int = 1,
) -> Iterator[Batcher[int | str, int]]:
    batcher: Batcher[int | str, int] = Batcher(
        worker, max_batch=max_batch, max_wait_ms=max_wait_ms, n_places=n_places, n_workers=n_workers
    )
    try:
        yield batcher
    finally:
        if isinstance(worker, Worker):
            worker.gate.set()
        batcher.close(5)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_everybody_gets_his_own_answer_and_batches_are_as_large_as_they_may_be() -> None:
    worker = Worker()
    told: list[BatchSeen] = []

    async def ask(batcher: Batcher[int | str, int]) -> list[int]:
        return await asyncio.gather(*(batcher.submit(i, caller=f"c{i % 3}") for i in range(50)))

    batcher: Batcher[int | str, int] = Batcher(worker, max_batch=8, seen=told.append)
    assert asyncio.run(ask(batcher)) == [2 * i for i in range(50)]
    batcher.close()
    sizes = [len(batch) for batch in worker.batches]
    assert max(sizes) == 8
    assert sum(sizes) == 50
    assert [seen.n_items for seen in told] == sizes
    assert all(len(seen.waited_s) == seen.n_items and min(seen.waited_s) >= 0 for seen in told)
    assert batcher.n_held == batcher.n_waiting == 0


def test_a_lone_request_does_not_wait_for_others() -> None:
    async def ask(batcher: Batcher[int | str, int]) -> float:
        started = time.monotonic()
        for i in range(5):
            assert await batcher.submit(i, caller="one") == 2 * i
        return time.monotonic() - started

    with running(Worker(), max_wait_ms=2_000) as batcher:
        assert asyncio.run(ask(batcher)) < 1.0


def test_one_who_comes_after_many_waits_no_longer_than_he_may() -> None:
    async def ask(batcher: Batcher[int | str, int]) -> float:
        await asyncio.gather(*(batcher.submit(i, caller="one") for i in range(9)))
        started = time.monotonic()
        await batcher.submit(1, caller="one")
        return time.monotonic() - started

    with running(Worker(), max_wait_ms=50) as batcher:
        assert asyncio.run(ask(batcher)) < 1.0


def test_an_item_that_fails_fails_alone() -> None:
    async def ask(batcher: Batcher[int | str, int]) -> list[int | BaseException]:
        return await asyncio.gather(
            *(batcher.submit(item, caller="one") for item in (1, "no", 3)), return_exceptions=True
        )

    def raises(items: Sequence[int | str]) -> Sequence[int | Exception]:
        if "no" in items:
            raise ValueError("no")
        return [int(item) * 2 for item in items]

    for worker in (Worker(), raises):
        with running(worker) as batcher:
            first, failed, last = asyncio.run(ask(batcher))
            assert (first, last) == (2, 6)
            assert isinstance(failed, ValueError)
            assert asyncio.run(ask(batcher))[0] == 2, "the worker goes on"


def test_callers_are_served_in_turn() -> None:
    worker = Worker()

    async def ask(batcher: Batcher[int | str, int]) -> None:
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(0, caller="greedy"))
        await until(worker.began.is_set)
        greedy = [asyncio.create_task(batcher.submit(i, caller="greedy")) for i in range(100, 120)]
        await until(lambda: batcher.n_waiting == 20)
        modest = [asyncio.create_task(batcher.submit(i, caller=f"modest{i}")) for i in range(2)]
        await until(lambda: batcher.n_waiting == 22)
        worker.gate.set()
        await asyncio.gather(first, *greedy, *modest)

    with running(worker, max_batch=3) as batcher:
        asyncio.run(ask(batcher))
    assert worker.batches[1] == [100, 0, 1], "one of each before a second of anybody"


def test_when_it_is_full_the_next_one_is_refused_at_once() -> None:
    worker = Worker()

    async def ask(batcher: Batcher[int | str, int]) -> None:
        worker.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(i, caller="one")) for i in range(4)]
        await until(lambda: batcher.n_held == 4)
        assert not batcher.has_room("one")
        started = time.monotonic()
        with pytest.raises(BusyError) as refused:
            await batcher.submit(5, caller="one")
        assert time.monotonic() - started < 0.05
        assert (refused.value.http_status, refused.value.retry_after_s) == (503, 1)
        worker.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
        assert batcher.has_room("one")
        assert await batcher.submit(5, caller="one") == 10

    with running(worker, n_places=4) as batcher:
        asyncio.run(ask(batcher))


def test_one_caller_cannot_keep_others_out() -> None:
    worker = Worker()

    async def ask(batcher: Batcher[int | str, int]) -> None:
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(0, caller="greedy"))
        await until(worker.began.is_set)
        greedy = [asyncio.create_task(batcher.submit(i, caller="greedy")) for i in (1, 2, 3)]
        await until(lambda: batcher.n_held == 4)
        assert batcher.has_room("modest")
        modest = [asyncio.create_task(batcher.submit(i, caller="modest")) for i in (8, 9)]
        for displaced in greedy[:0:-1]:
            with pytest.raises(BusyError):
                await displaced
        assert batcher.n_held == 4
        with pytest.raises(BusyError):  # two each: he has had his share
            await batcher.submit(7, caller="modest")
        worker.gate.set()
        assert await asyncio.gather(first, greedy[0], *modest) == [0, 2, 16, 18]
        assert batcher.n_held == 0

    with running(worker, n_places=4) as batcher:
        asyncio.run(ask(batcher))


def test_one_who_has_none_at_work_gets_a_spare_place() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: items, n_places=2, n_spare=1)
    try:
        with batcher.reserve("greedy", 2):
            assert not batcher.has_room("greedy")
            with pytest.raises(BusyError):
                batcher.reserve("greedy")
            with pytest.raises(BusyError):
                batcher.reserve("new", 2)
            assert batcher.has_room("new")
            with batcher.reserve("new"):
                assert not batcher.has_room("new")
                assert not batcher.has_room("another")
            assert batcher.n_held == 2
    finally:
        batcher.close(1)


def test_who_left_is_skipped_and_his_place_is_free() -> None:
    worker = Worker()

    async def ask(batcher: Batcher[int | str, int]) -> None:
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(0, caller="one"))
        await until(worker.began.is_set)
        left, stayed = (asyncio.create_task(batcher.submit(i, caller="one")) for i in (1, 2))
        await until(lambda: batcher.n_waiting == 2)
        left.cancel()
        await asyncio.wait([left])
        assert batcher.n_waiting == 1
        assert batcher.n_held == 2
        worker.gate.set()
        assert [await first, await stayed] == [0, 4]

    with running(worker) as batcher:
        asyncio.run(ask(batcher))
    assert worker.batches == [[0], [2]]


def test_closing_answers_what_is_at_work_and_refuses_the_rest() -> None:
    worker = Worker(took_s=0.02)

    async def ask(batcher: Batcher[int | str, int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(i, caller="one")) for i in range(10)]
        await until(lambda: batcher.n_held == 10)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        assert await asyncio.gather(*tasks) == [2 * i for i in range(10)]
        await closing
        with pytest.raises(StoppingError):
            await batcher.submit(1, caller="one")

    asyncio.run(ask(Batcher(worker, max_batch=2)))


def test_what_is_not_through_when_it_must_end_is_refused() -> None:
    worker = Worker()

    async def ask(batcher: Batcher[int | str, int]) -> None:
        worker.gate.clear()
        first = asyncio.create_task(batcher.submit(1, caller="one"))
        await until(worker.began.is_set)
        late = asyncio.create_task(batcher.submit(2, caller="one"))
        await until(lambda: batcher.n_waiting == 1)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close, 0.05))
        with pytest.raises(StoppingError):
            await late
        worker.gate.set()
        assert await first == 2, "what was taken is answered"
        await closing

    asyncio.run(ask(Batcher(worker)))


def test_several_workers_lose_and_repeat_nothing() -> None:
    worker = Worker(took_s=0.001)

    async def caller(batcher: Batcher[int | str, int], name: int) -> int:
        n_refused = 0
        for i in range(40):
            try:
                assert await batcher.submit(name * 1000 + i, caller=str(name % 5)) == 2 * (name * 1000 + i)
            except BusyError:
                n_refused += 1
                await asyncio.sleep(0.001)
        return n_refused

    async def ask(batcher: Batcher[int | str, int]) -> int:
        return sum(await asyncio.gather(*(caller(batcher, name) for name in range(24))))

    with running(worker, n_workers=3, max_batch=4, n_places=16) as batcher:
        n_refused = asyncio.run(ask(batcher))
        assert batcher.n_held == batcher.n_waiting == 0
    asked = [item for batch in worker.batches for item in batch]
    assert len(asked) == len(set(asked)) == 24 * 40 - n_refused
