"""Pictures are decoded in processes that can be killed: what hangs or crashes there harms one picture."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from hostile_pictures import bomb, honest, mutated
from numpy.typing import NDArray
from PIL import Image
from service_rig import service_behind, signed_in

from shelver.errors import ImageError
from shelver.images import IMAGE_CODES, ImageSpec, View, views
from shelver.pipeline import Classifier
from shelver.service.answers.decoding import Decoders
from shelver.service.answers.picture_processes import CRASHED, TIMEOUT, PictureProcesses

LOOKS: tuple[tuple[View, ImageSpec], ...] = (
    ("fit", ImageSpec(height_px=64, width_px=96)),
    ("crop", ImageSpec(height_px=32, width_px=32, background=(1, 2, 3))),
    ("box", ImageSpec()),
)


def jpeg(side_px: int = 300) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (30, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((side_px, side_px)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def processes() -> Iterator[PictureProcesses]:
    made = PictureProcesses(1, limit_s=1.0)
    yield made
    made.close()
    assert not decoders_of(os.getpid())


def in_process(data: bytes) -> list[NDArray[np.uint8]] | str:
    try:
        return views(data, LOOKS)
    except ImageError as error:
        return error.code


def decoders_of(pid: int) -> list[psutil.Process]:
    """The decoding processes of a process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        return [child for child in children if "shelver.service.answers.decoder" in " ".join(child.cmdline())]
    return []


def the_one() -> psutil.Process:
    (process,) = decoders_of(os.getpid())
    return process


def await_true(check: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not check() and time.monotonic() < until:
        time.sleep(0.01)
    assert check()


def test_what_comes_back_is_what_the_pipeline_sees(processes: PictureProcesses) -> None:
    rng = np.random.default_rng(11)
    for data in [jpeg(), jpeg(2000), b"", b"none", *(honest(rng) for _ in range(25))]:
        seen, expected = processes.prepare(data, LOOKS), in_process(data)
        if isinstance(seen, str) or isinstance(expected, str):
            assert seen == expected
            continue
        for one, other in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert processes.n_replaced == 0


def test_a_picture_that_cannot_be_used_is_refused_before_it_is_kept(processes: PictureProcesses) -> None:
    processes.check(jpeg())
    with pytest.raises(ImageError, match="not one of") as refused:
        processes.check(b"none")
    assert refused.value.code == "image_format"


def test_a_process_that_hangs_is_killed_and_replaced(processes: PictureProcesses) -> None:
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    hung = the_one()
    hung.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert processes.prepare(jpeg(), LOOKS) == TIMEOUT
    assert time.monotonic() - began < 5
    assert not hung.is_running()
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    assert the_one().pid != hung.pid
    assert processes.n_replaced == 1


def test_a_process_that_dies_is_replaced_and_the_picture_answered(processes: PictureProcesses) -> None:
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    for _ in range(3):
        the_one().kill()
        assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    assert processes.n_replaced == 3


def test_a_picture_that_no_process_survives_has_a_reason(
    processes: PictureProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        assert processes.prepare(jpeg(), LOOKS) == CRASHED
        broken.setattr(sys, "executable", "/there/is/no/such/program")
        assert processes.prepare(jpeg(), LOOKS) == CRASHED
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)


def test_a_process_has_bounds_and_no_secrets(processes: PictureProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELVER_SERVICE_SECRET", "nobody must see this, not even a decoder")
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    process = the_one()
    assert process.rlimit(psutil.RLIMIT_DATA)[0] == 1 << 30
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == 0
    assert process.rlimit(psutil.RLIMIT_CPU)[0] < 60
    assert "SHELVER_SERVICE_SECRET" not in process.environ()
    assert len(process.net_connections("inet")) == 0
    # Less memory than a large picture needs: it is refused, the process lives.
    process.rlimit(psutil.RLIMIT_DATA, (90 << 20, 1 << 30))
    file = io.BytesIO()
    Image.new("RGBA", (4500, 4500)).save(file, "PNG")
    assert processes.prepare(file.getvalue(), LOOKS) in IMAGE_CODES
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    assert the_one().pid == process.pid
    for ignored in (signal.SIGTERM, signal.SIGINT):  # a service manager tells all processes
        process.send_signal(ignored)
    assert not isinstance(processes.prepare(jpeg(), LOOKS), str)
    assert processes.n_replaced == 0


def test_when_the_service_is_killed_its_processes_end() -> None:
    program = (
        "import sys, time\n"
        "from shelver.service.answers.picture_processes import PictureProcesses\n"
        "from shelver.images import ImageSpec\n"
        "processes = PictureProcesses(1)\n"
        "processes.prepare(b'none', (('fit', ImageSpec()),))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"ready\n"
        (child,) = decoders_of(parent.pid)
        parent.kill()
        parent.wait()
    await_true(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture
def image2emb(trained: Callable[[str, str], Path]) -> Any:
    return Classifier.open(trained("ngram", "lite0"), threads=1).image2emb


def test_callers_take_turns(image2emb: Any) -> None:
    async def ask() -> list[str]:
        decoders = Decoders(1)
        ended: list[str] = []

        async def one(caller: str) -> None:
            picture = await decoders.decode(jpeg(), image2emb, caller=caller)
            assert not isinstance(picture.prepared, str | None)
            ended.append(caller)

        try:
            greedy = [asyncio.create_task(one("ann")) for _ in range(30)]
            left = [asyncio.create_task(one("cid")) for _ in range(5)]
            await asyncio.sleep(0)
            lone = asyncio.create_task(one("bob"))
            for task in left:  # who leaves keeps no turn
                task.cancel()
            await asyncio.gather(*greedy, lone)
            await asyncio.sleep(0.01)
            assert not decoders._lines
            return ended
        finally:
            decoders.close()

    ended = asyncio.run(ask())
    assert ended.index("bob") < 8, "he came last, and waited for no more than a turn of each"


@pytest.fixture
def seller(make_app: Callable[..., TestClient], trained: Callable[[str, str], Path]) -> TestClient:
    return signed_in(make_app(model=trained("ngram", "lite0")), "seller")


def test_a_stopped_decoder_costs_one_answer_its_picture_and_no_process_stays(
    make_app: Callable[..., TestClient], trained: Callable[[str, str], Path]
) -> None:
    client = make_app(model=trained("ngram", "lite0"))
    seller = signed_in(client, "seller")
    asked: dict[str, Any] = {"files": {"image": ("a.jpg", jpeg()), "title": (None, "bar stool")}}
    assert seller.post("/v1/predict", **asked).json()["modality"] == "both"
    for process in decoders_of(os.getpid()):
        process.send_signal(signal.SIGSTOP)
    stopped = seller.post("/v1/predict", **asked)
    assert stopped.status_code == 200
    answer = stopped.json()
    assert (answer["picture_error"], answer["modality"], answer["outcome"]) == (TIMEOUT, "text", "decided")
    assert seller.post("/v1/predict", **asked).json()["modality"] == "both"
    for process in decoders_of(os.getpid()):
        process.kill()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: seller.post("/v1/predict", **asked).json(), range(8)))
    assert {answer["picture_error"] for answer in answers} == {None}
    service_behind(client).answering.close()
    assert not decoders_of(os.getpid())


def upload(seller: TestClient, n: int, seed: int) -> None:
    """Mutated pictures and bombs through the application; each is answered."""
    rng = np.random.default_rng(seed)
    me = psutil.Process()
    largest = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for process in decoders_of(me.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    largest[0] = max(largest[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = me.memory_info().rss
    known = {*IMAGE_CODES, TIMEOUT, CRASHED, None}
    found = set()
    try:
        for number in range(n):
            data = bomb(rng) if number % 25 == 0 else mutated(rng)
            title = {"title": (None, "bar stool")} if number % 2 else {}
            answer = seller.post("/v1/predict", files={"image": ("a.jpg", data), **title})
            if answer.status_code == 413:
                assert len(data) > 8 * 2**20
                continue
            assert answer.status_code == 200, answer.text
            said = answer.json()
            assert said["picture_error"] in known, said
            assert said["outcome"] == (
                "error" if said["picture_error"] and not title and data else said["outcome"]
            )
            found.add(said["picture_error"])
    finally:
        over.set()
        watcher.join()
    assert len(found) >= 4
    assert None in found
    grown_mb = (me.memory_info().rss - before) / 2**20
    assert grown_mb < 200, f"the service grew by {grown_mb:.0f} MB"
    assert largest[0] < 1 << 30, f"a decoder took {largest[0] >> 20} MB"
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{n} pictures: {sorted(map(str, found))}, grown {grown_mb:.0f} MB, peak {peak_mb} MB, "
        f"largest decoder {largest[0] >> 20} MB"
    )


def test_150_mutated_pictures_and_bombs_are_answered(seller: TestClient) -> None:
    upload(seller, 150, seed=21)


@pytest.mark.drill
def test_1500_mutated_pictures_and_bombs_are_answered(seller: TestClient) -> None:
    upload(seller, 1500, seed=22)
