"""The store: models by version in one folder, and the aliases that say which one answers.

::

    aliases.json             champion, challenger, previous; replaced as a whole
    models/VERSION-SHA256/   the core, named by its version and the SHA-256 of its manifest, which lists those of
                             all its files; beside it policies.json, README.md, report/ and registered.json
    incoming/                what is being registered

With object storage, that holds the aliases and all models (see `remote`), and the folder is where they are fetched
to and opened from, each once its bytes were compared with its address.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shelver.errors import ModelError
from shelver.folders import refuse_file, sha256_of
from shelver.library.aliases import FolderAliases, ObjectAliases
from shelver.library.intake import take_in
from shelver.library.records import Aliases, Registered, alone, sync, write
from shelver.library.remote import MODELS, REGISTERED, RemoteModels
from shelver.library.trial import TRIAL_LIMIT_S, try_in_child
from shelver.objects import Objects
from shelver.registry import MANIFEST, Manifest, read_manifest

INCOMING: Final = "incoming"
FETCHING: Final = "fetching"
_ATTEMPTS: Final = 20
log = logging.getLogger("shelver.library")
_ADDRESS: Final = re.compile(r"([0-9a-f]{12})-([0-9a-f]{64})")


class ModelStore:
    """Models in a folder. Several processes may use it at once.

    Where they are kept in object storage, all methods raise StorageError while that does not answer.

    Attributes:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path, objects: Objects | None = None) -> None:
        refuse_file(folder)
        self.folder = folder
        self._remote = RemoteModels(objects) if objects is not None else None
        self._aliases = FolderAliases(folder) if objects is None else ObjectAliases(objects)
        self._known: frozenset[str] = frozenset()
        for name in (MODELS, INCOMING, FETCHING):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def models(self) -> tuple[Registered, ...]:
        """All models of which can be read what was noted, the latest first."""
        found = []
        for address in self._addresses():
            try:
                found.append(self._registered(address))
            except ModelError:  # one that is damaged must not hide the others
                log.warning("model %s left out: what was noted of it cannot be read", address)
        return tuple(sorted(found, key=lambda one: (one.registered_at, one.model_version), reverse=True))

    def find(self, version: str) -> Registered | None:
        """A model by its version, None where there is none.

        Raises:
            ModelError: what was noted of it cannot be read.
        """
        address = self._address_of(version)
        return self._registered(address) if address is not None else None

    def folder_of(self, version: str) -> Path:
        """The folder of a model, whose bytes were not looked at; it is fetched where it is not here yet.

        Raises:
            ModelError: no model has this version.
        """
        address = self._address_of(version)
        if address is None:
            raise ModelError(
                f"model {version!r:.80} is not registered",
                allowed="the version of a registered model",
                remedy="List the models, or register this one first.",
            )
        folder = self.folder / MODELS / address
        if self._remote is not None and not folder.is_dir():
            self._fetch(self._remote, address)
        return folder

    def verified(self, version: str) -> tuple[Path, Manifest]:
        """The folder of a model, after every byte of its core was hashed.

        Raises:
            ModelError: it is not registered, or is no longer what was registered.
        """
        folder = self.folder_of(version)
        try:
            return folder, self._verified(folder)
        except ModelError:
            if self._remote is None:
                raise
        # What was fetched is damaged; the storage has it whole.
        self._fetch(self._remote, folder.name)
        return folder, self._verified(folder)

    def _verified(self, folder: Path) -> Manifest:
        manifest = read_manifest(folder)
        if f"{manifest.model_version}-{sha256_of(folder / MANIFEST)}" != folder.name:
            raise ModelError(
                f"{folder / MANIFEST} is not the file that was registered",
                allowed="the core as it was registered",
                remedy="Register the model again from its source.",
            )
        return manifest

    def register(
        self,
        source: Path,
        *,
        by: str,
        expected: str | None = None,
        trial: bool = True,
        limit_s: float = TRIAL_LIMIT_S,
    ) -> Registered:
        """Copy a model in, after it opened and answered in a process of its own.

        A model that is there already is left as it is. One at a time; others wait.

        Args:
            source: its folder.
            by: who registers it.
            expected: its version, where the caller knows it.
            trial: open it in a child process first; False where the caller opens it next and nothing is in
                danger.
            limit_s: time for the trial.

        Raises:
            ModelError: it was refused, with the reason. The store is as it was.
        """
        incoming = self.folder / INCOMING
        with _staged(incoming) as staged:
            try:
                return self._register(source, staged / "model", by, expected, limit_s if trial else None)
            except ModelError as error:
                # The reader knows the folder that he named, not our copy.
                shown = error.received.replace(str(staged / "model"), str(source))
                raise ModelError(shown, allowed=error.allowed, remedy=error.remedy) from error
            except (OSError, ValidationError) as error:
                raise ModelError(
                    f"{source} cannot be copied: {type(error).__name__}",
                    allowed="a whole model folder, and room on the disk for a copy of it",
                    remedy="Check the folder, and the space and rights in the data folder of the service.",
                ) from error

    def _register(
        self, source: Path, staged: Path, by: str, expected: str | None, limit_s: float | None
    ) -> Registered:
        staged.mkdir()
        manifest = take_in(source, staged)
        version = manifest.model_version
        if expected is not None and version != expected:
            raise ModelError(
                f"{source} holds model {version}, not {expected!r:.80}",
                allowed="the model that was asked for",
                remedy="Check the path and the version.",
            )
        there = self._whole(version)
        if there is not None:
            _refuse_another(read_manifest(self.folder_of(version), verify=False), manifest)
            return there
        if limit_s is not None:
            tried = try_in_child(staged, limit_s=limit_s)
            assert tried.model_version == version
        record = Registered(
            model_version=version,
            sha256=sha256_of(staged / MANIFEST),
            base=manifest.base,
            taxonomy_version=manifest.taxonomy_version,
            source=source.name,
            registered_at=datetime.now(UTC),
            registered_by=by,
            n_bytes=sum((staged / name).stat().st_size for name in manifest.files),
        )
        write(staged / REGISTERED, record)
        # What is there under this version is damaged, or was not written to the storage.
        for folder in (self.folder / MODELS).glob(f"{version}-*"):
            folder.rename(staged.parent / f"{folder.name}.damaged")
        self._keep(staged, record.address)
        if self._remote is not None:
            self._remote.push(self.folder / MODELS / record.address)
        return record

    def _keep(self, staged: Path, address: str) -> None:
        for path in (*staged.rglob("*"), staged):
            sync(path)
        staged.rename(self.folder / MODELS / address)
        sync(self.folder / MODELS)

    def _fetch(self, remote: RemoteModels, address: str) -> None:
        """Bring a model here from the storage, in place of what is here under its address and is damaged."""
        with _staged(self.folder / FETCHING) as staged:
            there = self.folder / MODELS / address
            if there.is_dir():
                try:
                    self._verified(there)
                except ModelError:
                    there.rename(staged / "damaged")
                else:
                    return  # another thread or process was faster
            for name in ("raw", "model"):
                (staged / name).mkdir()
            remote.pull(address, staged / "raw", staged / "model")
            self._keep(staged / "model", address)

    def aliases(self) -> Aliases:
        """Which model is what.

        Raises:
            StorageError: the file of aliases cannot be read.
        """
        return self._aliases.read()

    def stamp(self) -> object:
        """Differs after every change of the aliases, by any process; cheap to ask for, and never fails."""
        return self._aliases.stamp()

    def promote(self, version: str, *, by: str, verify: bool = True) -> Aliases:
        """Let a registered model answer; the champion before it becomes the previous one.

        Args:
            version: of the model.
            by: who wants it.
            verify: hash its core first; False where the caller has just done so.

        Raises:
            ModelError: it is not registered, or no longer what was registered.
        """
        _ = self.verified(version) if verify else self.folder_of(version)

        def promoted(now: Aliases) -> Mapping[str, str | None]:
            if now.champion == version:
                return {}
            challenger = now.challenger if now.challenger != version else None
            return {"champion": version, "previous": now.champion, "challenger": challenger}

        return self._aliases.change(by, promoted)

    def challenge(self, version: str, *, by: str) -> Aliases:
        """Name a registered model the challenger; raises as `promote`."""
        self.verified(version)
        return self._aliases.change(by, lambda _: {"challenger": version})

    def roll_back(self, *, by: str, verify: bool = True, expected: str | None = None) -> Aliases:
        """Let the previous model answer again; the champion becomes the previous one.

        Args:
            by: who wants it.
            verify: as of `promote`.
            expected: the previous model, where the caller has looked.

        Raises:
            ModelError: there is no previous model, or another one, or it is no longer what was registered.
        """

        def rolled_back(now: Aliases) -> Mapping[str, str | None]:
            if now.previous is None:
                raise ModelError(
                    "no model answered before the champion",
                    allowed="a roll back after a promotion",
                    remedy="Promote a registered model instead.",
                )
            if expected not in (None, now.previous):
                raise ModelError(
                    f"model {now.previous} is the previous one, no longer {expected}",
                    allowed="one change of the champion at a time",
                    remedy="Look at the models, and try again.",
                )
            _ = self.verified(now.previous) if verify else self.folder_of(now.previous)
            return {"champion": now.previous, "previous": now.champion}

        return self._aliases.change(by, rolled_back)

    def _addresses(self) -> list[str]:
        if self._remote is not None:
            found = self._remote.addresses()
            self._known = frozenset(found)
        else:
            found = [folder.name for folder in (self.folder / MODELS).iterdir()]
        return sorted(filter(_ADDRESS.fullmatch, found))

    def _address_of(self, version: str) -> str | None:
        def first(addresses: Iterable[str]) -> str | None:
            return next((one for one in sorted(addresses) if one.split("-")[0] == version), None)

        # The storage is asked for what is not known yet only: no model ever leaves it.
        return first(self._known) or first(self._addresses())

    def _whole(self, version: str) -> Registered | None:
        """A model that is there and undamaged."""
        try:
            self.verified(version)
            return self.find(version)
        except ModelError:
            return None

    def _registered(self, address: str) -> Registered:
        path = self.folder / MODELS / address / REGISTERED
        try:
            if self._remote is not None and not path.is_file():
                return Registered.model_validate_json(self._remote.record(address))
            return Registered.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(
                f"{path} cannot be read",
                allowed="what this store noted when the model was registered",
                remedy="Register the model again from its source.",
            ) from error


def _refuse_another(there: Manifest, new: Manifest) -> None:
    """Twelve digits can be made to meet: one version must never stand for two models."""
    decisive = ("format_version", "text", "image", "head", "calibration", "files")
    if any(getattr(there, name) != getattr(new, name) for name in decisive):
        raise ModelError(
            f"another model is registered under the version {new.model_version}",
            allowed="a model whose version is its own",
            remedy="Train it again with another seed.",
        )


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A new folder within one, alone; what a process that was killed left there is removed."""
    with alone(folder):
        for left in folder.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(dir=folder))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
