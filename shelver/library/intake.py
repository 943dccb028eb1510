"""A model folder from outside, copied in without trusting it: no link is followed, no name leaves the folder, and
what is kept is what was hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from pydantic import ValidationError

from shelver.decide import POLICIES
from shelver.errors import ModelError
from shelver.registry import MANIFEST, Manifest, read_manifest

MAX_MANIFEST_BYTES: Final = 16 << 20
MAX_CORE_BYTES: Final = 16 << 30
MAX_BESIDE_BYTES: Final = 64 << 20
"""Of one file beside the core, such as a report."""
MAX_FILES: Final = 100

REPORT: Final = "report"
CARD: Final = "README.md"
_BESIDE: Final = frozenset({POLICIES, CARD, REPORT, "run"})
_NAME: Final = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_CHUNK_BYTES: Final = 1 << 20


def take_in(source: Path, into: Path) -> Manifest:
    """Copy a model folder: its core, policies, card and report; the training run stays behind.

    Args:
        source: the folder; it may change or be hostile while it is read.
        into: an empty folder that nobody else writes.

    Raises:
        ModelError: it is no whole model folder, its bytes are not those that the manifest lists, a file is a link
            or too large, or something stands there that no model folder has.
    """
    with _opened_folder(source, None, source) as folder:
        _copy(folder, MANIFEST, source, into, MAX_MANIFEST_BYTES)
        manifest = _manifest_of(source, into)
        _refuse_strangers(folder, source, manifest)
        left = MAX_CORE_BYTES
        for name, expected in manifest.files.items():
            digest, n_bytes = _copy(folder, name, source, into, left)
            left -= n_bytes
            if digest != expected:
                _refuse(f"{source / name} is not the file that was exported", "the core as it was exported")
        # Every file that the model runs from is among those that were copied.
        read_manifest(into, verify=False)
        for name in (POLICIES, CARD):
            if _stands(folder, name):
                _copy(folder, name, source, into, MAX_BESIDE_BYTES)
        if _stands(folder, REPORT):
            with _opened_folder(source / REPORT, folder, Path(REPORT)) as report:
                (into / REPORT).mkdir()
                with os.scandir(report) as entries:
                    names = sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
                for name in names[:MAX_FILES]:
                    _copy(report, name, source / REPORT, into / REPORT, MAX_BESIDE_BYTES)
    return manifest


def _manifest_of(source: Path, into: Path) -> Manifest:
    content = (into / MANIFEST).read_bytes()
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        read_manifest(into, verify=False)  # it says what is wrong with it
        raise
    names = [*manifest.files, *manifest.core_files()]
    strange = next((name for name in names if not _NAME.fullmatch(name) or name in _BESIDE | {MANIFEST}), None)
    if strange is not None or len(names) > 2 * MAX_FILES:
        _refuse(
            f"{source / MANIFEST} lists {strange!r}" if strange is not None else f"it lists {len(names)} files",
            f"plain names of at most {MAX_FILES} files in the folder itself",
        )
    return manifest


def _refuse_strangers(folder: int, source: Path, manifest: Manifest) -> None:
    known = {MANIFEST, *manifest.files, *_BESIDE}
    with os.scandir(folder) as entries:
        stranger = next((entry.name for entry in entries if entry.name not in known), None)
    if stranger is not None:
        _refuse(
            f"{source} holds {stranger!r:.120}, which its manifest does not list",
            "the core, and beside it " + ", ".join(sorted(_BESIDE)),
            "Remove the file, or name the folder that `shelver train` wrote.",
        )


def _stands(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _opened_folder(shown: Path, within: int | None, name: Path) -> Iterator[int]:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise ModelError(
            f"{shown} {'is missing' if missing else 'is no folder, or a link'}",
            allowed="a model folder, as `shelver train` writes it",
            remedy="Check the path.",
        ) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _copy(folder: int, name: str, shown: Path, into: Path, limit: int) -> tuple[str, int]:
    """Copy one regular file; gives the SHA-256 of what was written, and how much that was."""
    try:
        # Without O_NONBLOCK a named pipe would hold us for ever.
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        why = {errno.ENOENT: "missing", errno.ELOOP: "a link"}.get(code or 0, "not to be read")
        _refuse(f"{shown / name} is {why}", "a regular file")
    digest, n_bytes = hashlib.sha256(), 0
    with os.fdopen(handle, "rb") as read:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            _refuse(f"{shown / name} is no regular file", "a regular file")
        with (into / name).open("xb") as written:
            while chunk := read.read(_CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > limit:
                    _refuse(f"{shown / name} has more than {limit:,} bytes", "a smaller file")
                digest.update(chunk)
                written.write(chunk)
    return digest.hexdigest(), n_bytes


def _refuse(
    received: str, allowed: str, remedy: str = "Copy the whole model folder again from its source."
) -> NoReturn:
    raise ModelError(received, allowed=allowed, remedy=remedy)
