"""Models in object storage, for several servers and workers; each fetches into a folder of its own what it needs.

::

    aliases.json             champion, challenger, previous
    models/VERSION-SHA256/   as in the folder; registered.json is written last: what has it is whole
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from shelver.errors import ModelError
from shelver.folders import sha256_of
from shelver.library.intake import MAX_BESIDE_BYTES, MAX_CORE_BYTES, MAX_FILES, take_in
from shelver.objects import Objects
from shelver.registry import MANIFEST

REGISTERED: Final = "registered.json"
MODELS: Final = "models"
_PLAIN: Final = re.compile(r"(?:report/)?\w[\w.-]{0,99}", re.ASCII)


class RemoteModels:
    """What the storage holds. Every method raises StorageError where it does not answer."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def addresses(self) -> list[str]:
        """The names of all models that are whole."""
        names = (name.split("/") for name in self._objects.names(f"{MODELS}/"))
        return [parts[1] for parts in names if len(parts) == 3 and parts[2] == REGISTERED]

    def record(self, address: str) -> bytes:
        """What was noted of a model.

        Raises:
            ModelError: nothing was.
        """
        found = self._objects.get(f"{MODELS}/{address}/{REGISTERED}")
        if found is None:
            raise _changed(address)
        return found[0]

    def push(self, folder: Path) -> None:
        """Write a model that is whole in a folder."""
        below = f"{MODELS}/{folder.name}"
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != REGISTERED:
                self._objects.put(f"{below}/{path.relative_to(folder).as_posix()}", path)
        # Where another server was faster, its note stays.
        self._objects.replace(f"{below}/{REGISTERED}", (folder / REGISTERED).read_bytes(), None)

    def pull(self, address: str, raw: Path, into: Path) -> None:
        """Fetch a model; nothing of its core is taken over that its address does not vouch for.

        Args:
            address: of the model: its version and the SHA-256 of its manifest.
            raw: an empty folder for what comes over the network.
            into: an empty folder for the model.

        Raises:
            ModelError: its bytes are not those that were registered.
        """
        below = f"{MODELS}/{address}/"
        names = [name.removeprefix(below) for name in self._objects.names(below)]
        if len(names) > 2 * MAX_FILES or not all(_PLAIN.fullmatch(name) for name in names):
            raise _changed(address)
        left = MAX_CORE_BYTES + MAX_FILES * MAX_BESIDE_BYTES
        for name in names:
            if name == REGISTERED:
                continue
            path = raw / name
            path.parent.mkdir(exist_ok=True)
            try:
                self._objects.fetch(below + name, path, limit=left)
            except FileNotFoundError as error:
                raise _changed(address) from error
            left -= path.stat().st_size
        manifest = take_in(raw, into)
        if f"{manifest.model_version}-{sha256_of(into / MANIFEST)}" != address:
            raise _changed(address)
        (into / REGISTERED).write_bytes(self.record(address))


def _changed(address: str) -> ModelError:
    return ModelError(
        f"model {address.split('-')[0]} of the object storage is not what was registered",
        allowed="the files as they were registered",
        remedy="Register the model again from its source.",
    )
