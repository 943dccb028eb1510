"""The process that decodes pictures: it reads one from its standard input, answers what networks see, and so on.

python -m shelver.service.answers.decoder

It has no secret of the service, no file or socket but the one to its parent, and bounds of its own. It ends when
its parent closes the socket, and may be killed at any time. `picture_processes` is the other end.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import AvifImagePlugin

from shelver.errors import ImageError
from shelver.images import ImageSpec, View, views
from shelver.windows import placed_views

ASKED: Final = struct.Struct("<II")
"""Of a request: bytes of the looks, as JSON, and of the picture that follows."""
WINDOW: Final = struct.Struct("<4d")
"""What a look shows of the picture; those of all looks follow the looks where the request wants them."""
ANSWERED: Final = struct.Struct("<BI")
"""Of an answer: `SEEN` or `REFUSED`, and bytes of what follows: the looks one after another, or a code."""
SEEN: Final = 0
REFUSED: Final = 1
READY: Final = b"!"
MAX_MEMORY_BYTES: Final = 1 << 30
"""The interpreter and its libraries take some 60 MB of it, the worst picture a few hundred."""
MAX_CPU_S: Final = 10
"""For a picture; the parent is more impatient, but it may be gone."""


def limit() -> None:
    """No more memory than a picture can need, no files, no dump; the first to go where memory is short."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, MAX_MEMORY_BYTES),
        (resource.RLIMIT_NOFILE, 16),
    ):
        _lower(what, most)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def limit_cpu() -> None:
    """So many seconds from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + MAX_CPU_S)


def _lower(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def looks_of(said: bytes) -> tuple[list[tuple[View, ImageSpec]], bool]:
    """What a parent wants to see of a picture, and whether it wants to know what of it that is."""
    looks, placed = json.loads(said)
    return [
        (view, ImageSpec(height_px=height, width_px=width, background=background))
        for view, height, width, background in looks
    ], placed


def answer(parent: socket.socket, asked: bytes) -> None:
    """Read one picture and answer."""
    n_looks, n_bytes = ASKED.unpack(asked)
    said, data = _read(parent, n_looks), _read(parent, n_bytes)
    limit_cpu()
    try:
        seen = _seen(bytes(data), *looks_of(bytes(said)))
    except ImageError as error:
        code = error.code.encode()
        parent.sendall(ANSWERED.pack(REFUSED, len(code)) + code)
        return
    parent.sendall(ANSWERED.pack(SEEN, sum(map(len, seen))))
    for one in seen:
        parent.sendall(one)


def _seen(data: bytes, looks: list[tuple[View, ImageSpec]], placed: bool) -> list[bytes]:
    if not placed:
        return [one.tobytes() for one in views(data, looks)]
    found = placed_views(data, looks)
    return [one.tobytes() for one, _ in found] + [WINDOW.pack(*window) for _, window in found]


def _read(parent: socket.socket, n_bytes: int) -> bytearray:
    """So many bytes; fewer where the parent has gone."""
    data = bytearray(n_bytes)
    at = memoryview(data)
    while len(at) and (n := parent.recv_into(at)):
        at = at[n:]
    return data if not len(at) else bytearray()


def main() -> None:
    """Answer until the parent goes."""
    # A terminal or a service manager signals all processes; this one goes when its parent has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # One process a core is enough.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    parent = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    limit()
    with suppress(BrokenPipeError, ConnectionResetError):
        parent.sendall(READY)
        while len(asked := _read(parent, ASKED.size)):
            answer(parent, bytes(asked))


if __name__ == "__main__":
    main()
