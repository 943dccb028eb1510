"""The store: models by version in one folder, and the aliases that say which one answers.

::

    aliases.json             champion, challenger, previous; replaced as a whole
    models/VERSION-SHA256/   the core, named by its version and the SHA-256 of its manifest, which lists those of
                             all its files; beside it policies.json, README.md, report/ and registered.json
    incoming/                what is being registered
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from shelver.errors import ModelError
from shelver.folders import refuse_file, sha256_of
from shelver.library.intake import take_in
from shelver.library.records import Aliases, Registered, sync, write
from shelver.library.trial import TRIAL_LIMIT_S, try_in_child
from shelver.registry import MANIFEST, Manifest, read_manifest

ALIASES: Final = "aliases.json"
REGISTERED: Final = "registered.json"
MODELS: Final = "models"
INCOMING: Final = "incoming"
_ADDRESS: Final = re.compile(r"([0-9a-f]{12})-([0-9a-f]{64})")


class ModelStore:
    """A folder of models. Several processes may use it at once.

    Attributes:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        refuse_file(folder)
        self.folder = folder
        for name in (MODELS, INCOMING):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def models(self) -> tuple[Registered, ...]:
        """All models, the latest first.

        Raises:
            ModelError: what was noted of one cannot be read.
        """
        found = [self._registered(folder) for folder in self._folders()]
        return tuple(sorted(found, key=lambda one: (one.registered_at, one.model_version), reverse=True))

    def find(self, version: str) -> Registered | None:
        """A model by its version, None where there is none; raises as `models`."""
        folder = self._folder_of(version)
        return self._registered(folder) if folder is not None else None

    def folder_of(self, version: str) -> Path:
        """The folder of a model, whose bytes were not looked at.

        Raises:
            ModelError: no model has this version.
        """
        folder = self._folder_of(version)
        if folder is None:
            raise ModelError(
                f"model {version!r:.80} is not registered",
                allowed="the version of a registered model",
                remedy="List the models, or register this one first.",
            )
        return folder

    def verified(self, version: str) -> tuple[Path, Manifest]:
        """The folder of a model, after every byte of its core was hashed.

        Raises:
            ModelError: it is not registered, or is no longer what was registered.
        """
        folder = self.folder_of(version)
        manifest = read_manifest(folder)
        if f"{manifest.model_version}-{sha256_of(folder / MANIFEST)}" != folder.name:
            raise ModelError(
                f"{folder / MANIFEST} is not the file that was registered",
                allowed="the core as it was registered",
                remedy="Register the model again from its source.",
            )
        return folder, manifest

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
        with _alone(incoming):
            for left in incoming.iterdir():  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            staged = Path(tempfile.mkdtemp(dir=incoming))
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
            finally:
                shutil.rmtree(staged, ignore_errors=True)

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
        damaged = self._folder_of(version)
        if damaged is not None:
            damaged.rename(staged.parent / "damaged")
        for path in (*staged.rglob("*"), staged):
            sync(path)
        staged.rename(self.folder / MODELS / record.address)
        sync(self.folder / MODELS)
        return record

    def aliases(self) -> Aliases:
        """Which model is what.

        Raises:
            ModelError: the file of aliases cannot be read.
        """
        path = self.folder / ALIASES
        try:
            return Aliases.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Aliases()
        except (OSError, ValidationError) as error:
            raise ModelError(
                f"{path} cannot be read",
                allowed="the aliases as this store writes them",
                remedy="Restore the file from a copy; the models themselves are untouched.",
            ) from error

    def stamp(self) -> tuple[int, ...] | None:
        """Differs after every change of the aliases, by any process; cheap to ask for."""
        try:
            found = (self.folder / ALIASES).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

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
        with _alone(self.folder):
            now = self.aliases()
            if now.champion == version:
                return now
            challenger = now.challenger if now.challenger != version else None
            return self._change(now, by, champion=version, previous=now.champion, challenger=challenger)

    def challenge(self, version: str, *, by: str) -> Aliases:
        """Name a registered model the challenger; raises as `promote`."""
        self.verified(version)
        with _alone(self.folder):
            return self._change(self.aliases(), by, challenger=version)

    def roll_back(self, *, by: str, verify: bool = True) -> Aliases:
        """Let the previous model answer again; the champion becomes the previous one.

        Args:
            by: who wants it.
            verify: as of `promote`.

        Raises:
            ModelError: there is no previous model, or it is no longer what was registered.
        """
        with _alone(self.folder):
            now = self.aliases()
            if now.previous is None:
                raise ModelError(
                    "no model answered before the champion",
                    allowed="a roll back after a promotion",
                    remedy="Promote a registered model instead.",
                )
            _ = self.verified(now.previous) if verify else self.folder_of(now.previous)
            return self._change(now, by, champion=now.previous, previous=now.champion)

    def _change(self, now: Aliases, by: str, **changes: Any) -> Aliases:
        new = now.model_copy(
            update={**changes, "revision": now.revision + 1, "changed_at": datetime.now(UTC), "changed_by": by}
        )
        partial = self.folder / (ALIASES + ".partial")
        write(partial, new)
        partial.replace(self.folder / ALIASES)
        sync(self.folder)
        return new

    def _folders(self) -> list[Path]:
        return [folder for folder in (self.folder / MODELS).iterdir() if _ADDRESS.fullmatch(folder.name)]

    def _folder_of(self, version: str) -> Path | None:
        return next((folder for folder in self._folders() if folder.name.split("-")[0] == version), None)

    def _whole(self, version: str) -> Registered | None:
        """A model that is there and undamaged."""
        try:
            self.verified(version)
            return self.find(version)
        except ModelError:
            return None

    def _registered(self, folder: Path) -> Registered:
        try:
            return Registered.model_validate_json((folder / REGISTERED).read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(
                f"{folder / REGISTERED} cannot be read",
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
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other thread or process changes a folder, and keep them away."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
