"""Requests a second, and what each costs: shelver's service beside simpler ones, in one run.

    python -m benchmarks.load MODEL [--pictures] [--seconds 10] [--json FILE]

ours    the whole service: an API key is checked, answers stand in the log (SQLite), requests are batched
plain   a FastAPI application that calls the classifier once a request, without key and log
bare    an ASGI function that does the same, without a framework

Each is a uvicorn of its own on 127.0.0.1; the generator runs beside it on the same cores, one request at a time
on each of its connections. Then ours is asked five times as often as it can answer, on five times the connections:
what it still serves (`kept`, of the peak), and how soon it refuses the rest. `cpu_ms` is processor time of the
server a request, answered or refused. At the end ours is set against the others: throughput, processor time.
Titles and pictures are drawn; a picture is a JPEG of 1,000 pixels a side and some 300 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import numpy as np
import psutil
import uvloop
from PIL import Image

from benchmarks.load_servers import SERVERS
from benchmarks.machine import facts
from benchmarks.run import HERE

RESULTS: Final = HERE / "load.json"
WARM_S: Final = 2.0
MAX_S: Final = 30.0
OVERLOAD: Final = 5
SOON_S: Final = 0.05
TEXT_CONNECTIONS, PICTURE_CONNECTIONS = 32, 16
_WORDS: Final = (
    *("red", "blue", "cotton", "chair", "lamp", "shoe", "watch", "women", "men"),
    *("casual", "sports", "leather", "small", "large", "set"),
)

Row = dict[str, Any]


@dataclass
class Tally:
    """Seconds of each answer, by status."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    n_lost: int = 0

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def of(self, status: int) -> list[float]:
        return self.seconds.get(status, [])


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request is sent, and its answer's status awaited."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else None])
        if len(self._buffer) >= end + 4 + length:
            status = int(head[9:12])
            self._buffer.clear()
            if not self._answer.done():
                self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError())

    async def ask(self, request: bytes) -> int:
        """Send a request; its answer's status."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def drive(
    port: int, requests: Sequence[bytes], n_connections: int, seconds: float, per_s: float | None = None
) -> Tally:
    """Ask for so long: as fast as answers come, or so often in all as far as connections are free."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + min(seconds, MAX_S)
    pause_s = n_connections / per_s if per_s else 0.0

    async def one(number: int) -> None:
        due = time.perf_counter() + pause_s * number / n_connections
        connection: Connection | None = None
        i = number
        while (now := time.perf_counter()) < until:
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due + pause_s, now - pause_s)
            if connection is None:
                _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
            began = time.perf_counter()
            try:
                async with asyncio.timeout(MAX_S):
                    tally.add(await connection.ask(requests[i % len(requests)]), time.perf_counter() - began)
            except (OSError, TimeoutError):
                tally.n_lost += 1
                connection = None
            i += 7
        if connection is not None:
            connection.close()

    await asyncio.gather(*(one(number) for number in range(n_connections)))
    return tally


class Server(AbstractContextManager["Server"]):
    """A server in a process of its own."""

    def __init__(self, name: str, model: Path, scratch: Path, threads: int) -> None:
        self.name = name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        data = scratch / f"{name}-{self.port}"
        data.mkdir()
        self._err = (data / "log.txt").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.load_servers", name, str(model)),
                *("--port", str(self.port), "--data", str(data), "--threads", str(threads)),
            ],
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        assert self._process.stdout is not None
        self.key = self._process.stdout.readline().strip()
        self._watched = psutil.Process(self._process.pid)
        self._await()

    def _await(self) -> None:
        for _ in range(600):
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        said = Path(self._err.name).read_text(encoding="utf-8", errors="replace")
        self.__exit__(None, None, None)
        raise RuntimeError(f"the server {self.name} did not start: {said[-2000:]}")

    def cpu_s(self) -> float:
        """Processor time of the server so far, with that of its own processes, which decode pictures."""
        used = self._watched.cpu_times()
        total = float(used.user + used.system + used.children_user + used.children_system)
        for child in self._watched.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                of_child = child.cpu_times()
                total += of_child.user + of_child.system
        return total

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._err.close()


def bodies(n: int, *, pictures: bool, seed: int = 0) -> list[bytes]:
    """Products as JSON."""
    rng = np.random.default_rng(seed)
    drawn = [_jpeg(rng) for _ in range(16)] if pictures else []
    made = []
    for i in range(n):
        product: dict[str, Any] = {"title": " ".join(rng.choice(_WORDS, 8)) + f" {i}"}
        if drawn:
            product["image_base64"] = drawn[i % len(drawn)]
        made.append(json.dumps(product).encode())
    return made


def _jpeg(rng: np.random.Generator) -> str:
    coarse = Image.fromarray(rng.integers(0, 255, (100, 100, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((1000, 1000), Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(smooth + rng.integers(-12, 12, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def requests_of(server: Server, products: Sequence[bytes]) -> list[bytes]:
    """As they go over the wire."""
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if server.key:
        head += f"Authorization: Bearer {server.key}\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in products]


def measured(
    server: Server, products: Sequence[bytes], asked: str, n: int, seconds: float, per_s: float | None = None
) -> Row:
    """A row: what a server did under this load."""
    requests = requests_of(server, products)
    uvloop.run(drive(server.port, requests, min(n, 32), WARM_S))
    cpu_s, began = server.cpu_s(), time.perf_counter()
    generator_s = time.process_time()
    tally = uvloop.run(drive(server.port, requests, n, seconds, per_s))
    generator_s = time.process_time() - generator_s
    took_s, cpu_s = time.perf_counter() - began, server.cpu_s() - cpu_s
    served, refused = tally.of(200), tally.of(503)
    n_others = sum(len(of) for status, of in tally.seconds.items() if status not in (200, 503))
    row: Row = {
        "server": server.name,
        "asked": asked,
        "connections": n,
        "offered_per_s": round(per_s, 1) if per_s else None,
        "served_per_s": round(len(served) / took_s, 1),
        **_quantiles("", served),
        "refused_per_s": round(len(refused) / took_s, 1),
        **_quantiles("refused_", refused),
        "refused_in_time": round(sum(s < SOON_S for s in refused) / len(refused), 4) if refused else None,
        "n_others": n_others + tally.n_lost,
        "cpu_ms": round(cpu_s / max(len(served) + len(refused), 1) * 1000, 3),
        "cores": round(cpu_s / took_s, 2),
        "generator_cores": round(generator_s / took_s, 2),
        "load": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(row), flush=True)
    return row


def _quantiles(name: str, seconds: Sequence[float]) -> Row:
    found = np.quantile(seconds, (0.5, 0.99)) * 1000 if seconds else (None, None)
    return {
        f"{name}p{q}_ms": None if value is None else round(float(value), 1)
        for q, value in zip((50, 99), found, strict=True)
    }


def run(model: Path, *, pictures: bool, seconds: float, threads: int, servers: Sequence[str]) -> list[Row]:
    """A row for each server and load."""
    loads = [("text", TEXT_CONNECTIONS, bodies(512, pictures=False))]
    if pictures:
        loads.append(("text and picture", PICTURE_CONNECTIONS, bodies(64, pictures=True)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in servers:
            with Server(name, model, Path(folder), threads) as server:
                for asked, n, products in loads:
                    row = measured(server, products, asked, n, seconds)
                    rows.append(row)
                    if name == "ours":
                        much = OVERLOAD * max(row["served_per_s"], 1.0)
                        over = measured(
                            server, products, f"{asked}, {OVERLOAD} times", OVERLOAD * n, seconds, much
                        )
                        rows.append(
                            {**over, "kept": round(over["served_per_s"] / max(row["served_per_s"], 1.0), 3)}
                        )
    return rows


def compared(rows: Sequence[Row]) -> list[Row]:
    """Ours against the others, load by load."""
    by = {(row["server"], row["asked"]): row for row in rows}
    found = []
    for (server, asked), ours in by.items():
        if server != "ours" or "kept" in ours:
            continue
        row: Row = {"asked": asked, "per_s": ours["served_per_s"], "p99_ms": ours["p99_ms"]}
        if plain := by.get(("plain", asked)):
            row["times_plain"] = round(ours["served_per_s"] / max(plain["served_per_s"], 0.1), 2)
        if bare := by.get(("bare", asked)):
            row["times_cpu_of_bare"] = round(ours["cpu_ms"] / max(bare["cpu_ms"], 0.001), 2)
        if over := by.get(("ours", f"{asked}, {OVERLOAD} times")):
            row |= {name: over[name] for name in ("kept", "refused_p50_ms", "refused_p99_ms", "refused_in_time")}
        found.append(row)
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = ["server", "asked", "served_per_s", "p50_ms", "p99_ms", "kept"]
    names += ["refused_per_s", "refused_p50_ms", "refused_p99_ms", "cpu_ms"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += [
        "| " + " | ".join(str(row.get(n) if row.get(n) is not None else "") for n in names) + " |" for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Requests a second, and what each costs.")
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--pictures", action="store_true", help="also products with a text and a picture")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load; at most 30")
    parser.add_argument("--threads", type=int, default=1, help="of each ONNX session")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the rows are written")
    call = parser.parse_args(arguments)
    said = facts(call.threads)
    rows = run(
        call.model, pictures=call.pictures, seconds=call.seconds, threads=call.threads, servers=call.servers
    )
    against = compared(rows)
    call.json.write_text(
        json.dumps({**said, "rows": rows, "compared": against}, indent=1) + "\n", encoding="utf-8"
    )
    print(table(rows))
    for row in against:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
