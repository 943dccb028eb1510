"""Work on a feed that is cut into parts: each part is a file that is there whole or not at all.

The reader of a feed is deterministic, so that the records of an earlier attempt are the first ones again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductFeed, open_products
from shelver.errors import FeedError
from shelver.service.jobs.keeping import ending_of, upload_of
from shelver.worker.attempt import Attempt, write_whole

Record = TypeVar("Record")


def uploaded(attempt: Attempt, upload_id: str) -> Path:
    """The file of an upload, under a name that ends as its owner's did: the ending may tell the format.

    Raises:
        FeedError: it was deleted.
    """
    found = upload_of(attempt.place.database, attempt.place.data, upload_id)
    if found is None:
        raise FeedError(f"no upload {upload_id}", allowed="one that is there", remedy="Upload the feed again.")
    path, name = found
    link = attempt.work / f"feed{ending_of(name)}"
    if not link.is_symlink():
        link.symlink_to(path)
    return link


def read_feed(attempt: Attempt, feed: Path, mapping: Mapping, *, labels: bool) -> ProductFeed:
    """Open a feed; no file of this machine is read as one of its pictures.

    Raises:
        FeedError, ConfigError: as `open_products`.
    """
    nothing = attempt.work / "nothing"
    nothing.mkdir(exist_ok=True)
    return open_products(feed, mapping=mapping, image_root=nothing, labels=labels)


def numbered(rows: Iterable[Record], done: int, size: int) -> Iterator[tuple[int, list[Record]]]:
    """The records after the first `done`, in parts of `size`, each with the number of its first record."""
    rest = islice(rows, done, None)
    while part := list(islice(rest, size)):
        yield done, part
        done += len(part)


def part_path(folder: Path, first: int) -> Path:
    """The file of the part that begins with this record."""
    return folder / f"{first:010d}.jsonl"


def write_part(folder: Path, first: int, lines: Sequence[dict[str, Any]]) -> None:
    """Write a part, a line a record."""
    folder.mkdir(exist_ok=True)
    write_whole(part_path(folder, first), "".join(json.dumps(line) + "\n" for line in lines).encode())


def read_parts(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of all parts, in the order of the feed."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
