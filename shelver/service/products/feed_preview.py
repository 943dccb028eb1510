"""A look at the first rows of an uploaded feed, in a process of its own: it may be hostile.

python -m shelver.service.products.feed_preview    reads what to look at as JSON, answers with a `Preview` as JSON
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from shelver.catalog.mapping import Mapping
from shelver.catalog.preview import Preview, PreviewRow, preview
from shelver.catalog.rows import Code

N_ROWS: Final = 8
LIMIT_S: Final = 20.0
MAX_MEMORY_BYTES: Final = 3 << 30
MAX_CPU_S: Final = 15
_AT_ONCE: Final = threading.BoundedSemaphore(2)
_WAIT_S: Final = 0.5
"""Short: who waits holds a thread that others need."""


class Look(BaseModel):
    """What the process is told: the feed, its ending, and which column is what."""

    model_config = ConfigDict(frozen=True)

    path: Path
    ending: str
    mapping: Mapping


def look_at(path: Path, ending: str, mapping: Mapping) -> Preview:
    """The first rows of a feed.

    Args:
        path: of its bytes.
        ending: of the name that its owner gave it; it may tell the format.
        mapping: which column is what, as far as it was said.

    Raises:
        ServiceError: too many are looked at, or this one takes too long or too much.
    """
    from shelver.service.problems import ServiceError

    if not _AT_ONCE.acquire(timeout=_WAIT_S):
        raise ServiceError(
            "busy",
            "a look at a feed while others are looked at",
            allowed="two at a time",
            remedy="Try again in a moment.",
            retry_after_s=5,
        )
    try:
        asked = Look(path=path, ending=ending, mapping=mapping).model_dump_json().encode()
        ended = subprocess.run(  # noqa: S603 - our own program, and nothing of a request
            [sys.executable, "-m", __name__],
            input=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=True,
            env=_environment(),
            cwd="/",
        )
        return Preview.model_validate_json(ended.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise ServiceError(
            "too_large",
            "a feed whose first rows cannot be read with a few seconds of work",
            allowed=f"{MAX_CPU_S} s and {MAX_MEMORY_BYTES >> 30} GiB for the first {N_ROWS} rows",
            remedy="Write it as CSV, or in smaller row groups, and upload it again.",
        ) from error
    finally:
        _AT_ONCE.release()


def as_imported(seen: Preview) -> Preview:
    """The first rows with what an import would refuse beside what cannot be read: an id that a row before has, and
    products of which nothing is left without pictures at addresses, which no import fetches."""
    ids: set[str] = set()
    rows = []
    for row in seen.rows:
        code = row.code or _refusal(row, ids)
        if code is None and row.product_id is not None:
            ids.add(row.product_id.strip())
        rows.append(row if code == row.code else row.model_copy(update={"code": code}))
    return seen.model_copy(update={"rows": tuple(rows)})


def _refusal(row: PreviewRow, ids: set[str]) -> str | None:
    if row.product_id is not None and row.product_id.strip() in ids:
        return Code.duplicate_id.value
    return None if row.title or row.brand or row.n_pictures else Code.empty_product.value


def _environment() -> dict[str, str]:
    """Of ours only what Python needs, and where it finds its modules; no secret."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    here = [path for path in sys.path if path]
    return kept | {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Look, once."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
    ):
        resource.setrlimit(what, (most, most))
    look = Look.model_validate_json(sys.stdin.buffer.read())
    with tempfile.TemporaryDirectory() as folder:
        link, nothing = Path(folder) / f"feed{look.ending}", Path(folder) / "nothing"
        link.symlink_to(look.path)
        nothing.mkdir()
        seen = preview(link, look.mapping, n_rows=N_ROWS, nothing=nothing)
    sys.stdout.buffer.write(seen.model_dump_json().encode())


if __name__ == "__main__":
    main()
