"""The model that answers.

`Models.current()` is one reference that is read without a lock. A swap replaces it: a batch that has begun ends on
the model that it took. The models that may answer next, the challenger and the previous one, are open already
where memory allows; another one is opened and warmed before anything changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shelver.decide import Policy, policies_of
from shelver.errors import ConfigError, ModelError
from shelver.library import Aliases, ModelStore
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import read_manifest
from shelver.service.db import Database
from shelver.service.models.loaded import Loaded
from shelver.service.models.preload import Preloader
from shelver.service.models.search import NAMES, warm
from shelver.service.problems import ServiceError
from shelver.service.storage import open_store
from shelver.service.tables.models import StoredPolicy
from shelver.settings import ServiceSettings

__all__ = ["IMPORT", "POLL_S", "Loaded", "Models", "open_models"]

POLL_S: Final = 0.5
"""How often a server looks whether another one has promoted a model or changed a policy."""
RETRY_S: Final = 30.0
IMPORT: Final = "import"
_STARTER: Final = "the start of the service"
_REVISIONS: Final = select(StoredPolicy.name, StoredPolicy.revision)
_BODIES: Final = select(StoredPolicy.name, StoredPolicy.revision, StoredPolicy.body)
log = structlog.get_logger("shelver.service")


class Models:
    """Which model answers here; follows what other servers on the same store and database change.

    Attributes:
        store: the models on disk.
        imports: folder that models may be registered from.
    """

    def __init__(
        self,
        store: ModelStore,
        database: Database,
        imports: Path,
        *,
        threads: int | None = None,
        preload_max_bytes: int = 0,
    ) -> None:
        self.store = store
        self.imports = imports
        self._database = database
        self._threads = threads
        self._current: Loaded | None = None
        self._kept: dict[str, tuple[str, Policy]] = {}
        self._problem: str | None = None
        self._changing = threading.Lock()
        self._reading = threading.Lock()
        self._preload_max_bytes = preload_max_bytes
        self._ahead: Preloader[Loaded] = Preloader(self._open, self._wanted)
        self._stale_since: float | None = None
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="shelver-models", daemon=True)

    def current(self) -> Loaded:
        """The model that answers now.

        Raises:
            ServiceError: there is none yet.
        """
        loaded = self._current
        if loaded is None:
            raise ServiceError(
                "not_ready",
                "no model answers",
                allowed="a service with a champion",
                remedy="Register a model and promote it.",
                retry_after_s=5,
            )
        return loaded

    def policy(self, name: str | None = None) -> Policy:
        """A policy of the current model and the service by its name; raises as `Loaded.policy`."""
        return self.current().policy(name)

    def fresh(self) -> bool:
        """Whether the champion answers, and not one that it should have replaced long ago."""
        return self._current is not None and self._problem is None and self.stale_s < RETRY_S

    @property
    def n_ready(self) -> int:
        """Models that are open beside the one that answers."""
        return self._ahead.n_ready

    @property
    def stale_s(self) -> float:
        """For how long the champion has been another one than the model that answers."""
        since = self._stale_since
        return 0.0 if since is None else time.monotonic() - since

    def prepare(self, version: str) -> Loaded:
        """A registered model, hashed, open and warm, which answers nobody yet.

        Raises:
            ModelError: it is not registered, or no longer what was registered.
        """
        # Also where it is open already: after a restart it would have to be opened from the disk.
        self.store.verified(version)
        return self._ahead.opened(version)

    def _open(self, version: str) -> Loaded:
        folder, manifest = self.store.verified(version)
        classifier = Classifier.open(folder, threads=self._threads, verify=False)
        classifier([Product("first", title="The first answer is the slowest one")])
        own = policies_of(folder)
        return Loaded(classifier, manifest, folder, own, self._merged(own))

    def _wanted(self) -> list[str]:
        """Which models are opened ahead: those that may answer next, as long as their files are not too large."""
        aliases, left, wanted = self.store.aliases(), self._preload_max_bytes, list[str]()
        for version in (aliases.previous, aliases.challenger):
            if version is None or version in (aliases.champion, *wanted):
                continue
            found = self.store.find(version)
            if found is not None and found.n_bytes <= left:
                left -= found.n_bytes
                wanted.append(version)
        return wanted

    def misfits(self, loaded: Loaded) -> dict[str, str]:
        """The service's own policies that do not fit a model, and why."""
        found = {}
        for name, (_, policy) in self._kept.items():
            try:
                loaded.check(policy)
            except ConfigError as error:
                found[name] = str(error)
        return found

    def promote(self, loaded: Loaded, *, by: str) -> Aliases:
        """Let a prepared model answer from now on, here and on every other server.

        Raises:
            ModelError: the store refuses it.
        """
        with self._changing:
            aliases = self.store.promote(loaded.model_version, by=by, verify=False)
            self._show(loaded)
        return aliases

    def roll_back(self, loaded: Loaded, *, by: str) -> Aliases:
        """Let the previous model, which was prepared, answer again.

        Raises:
            ModelError: the store refuses it.
            ServiceError: another model has become the previous one.
        """
        with self._changing:
            if self.store.aliases().previous != loaded.model_version:
                raise _another_one(loaded)
            # Another server may be quicker still; then the store refuses.
            aliases = self.store.roll_back(by=by, verify=False, expected=loaded.model_version)
            self._show(loaded)
        return aliases

    def read_policies(self) -> None:
        """Take over what the database holds; policies that did not change stay the same objects.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        # One reads at a time, so that nobody puts back what is older.
        with self._reading:
            kept = self._policies_read()
            if kept is not None:
                with self._changing:
                    self._kept = kept
                    if self._current is not None:
                        self._current = replace(self._current, policies=self._merged(self._current.own))

    def _policies_read(self) -> dict[str, tuple[str, Policy]] | None:
        with self._database.reading() as session:
            rows = dict(session.execute(_REVISIONS).all())
            if rows == {name: revision for name, (revision, _) in self._kept.items()}:
                return None
            found = session.execute(_BODIES).all()
        kept: dict[str, tuple[str, Policy]] = {}
        for name, revision, body in found:
            known = self._kept.get(name)
            if known is not None and known[0] == revision:
                kept[name] = known
                continue
            try:
                kept[name] = revision, Policy.model_validate_json(body)
            except ValidationError as error:
                log.error("policy unreadable", policy=name, fields=[one["loc"] for one in error.errors()])
        return kept

    def policies_changed(self) -> None:
        """As `read_policies`, after a commit; where the database has just gone away, the next look will do."""
        try:
            self.read_policies()
        except SQLAlchemyError:  # /readyz tells
            pass
        except Exception:  # what was committed stays so, and a follower that ends would follow nobody
            log.exception("policies cannot be read")

    def start(self, model: Path | None) -> None:
        """Open the champion, and follow it; a store without one begins with `model`.

        Raises:
            ModelError: the first model is refused.
        """
        self.read_policies()
        champion = self.store.aliases().champion
        if champion is None and model is not None:
            # Without a child: no champion is in danger yet, and who starts the server names the model himself.
            first = self.store.register(model, by=_STARTER, trial=False).model_version
            self.promote(self.prepare(first), by=_STARTER)
        elif champion is not None:
            if model is None or _version_in(model) == champion:
                log.info("the champion answers", champion=champion)
            else:
                log.warning(
                    "the model of --model is ignored: the installation has a champion, which answers",
                    champion=champion,
                    given=model.name,
                    remedy="copy the folder into import/ of the data folder, register it with POST /v1/models, "
                    "and promote it with POST /v1/models/{version}/promote",
                )
            self._try_to_catch_up()
        else:
            log.warning("no model answers yet", remedy="start once with --model, or register one and promote it")
        self._ahead.start()
        self._follower.start()

    def close(self) -> None:
        """Follow no longer."""
        self._stop.set()
        if self._follower.is_alive():
            self._follower.join(timeout=10)
        self._ahead.close()

    def _merged(self, own: Mapping[str, Policy]) -> dict[str, Policy]:
        return {**own, **{name: policy for name, (_, policy) in self._kept.items()}}

    def _show(self, loaded: Loaded) -> None:
        # Policies may have changed since it was opened.
        before = self._current
        self._current = replace(loaded, policies=self._merged(loaded.own))
        self._problem = self._stale_since = None
        # It is the previous one now, most often.
        self._ahead.keep(before)
        log.info("model answers", model_version=loaded.model_version, taxonomy_version=loaded.taxonomy_version)

    def _catch_up(self) -> None:
        """Let the champion answer where another model does."""
        with self._changing:  # in the midst of a promotion the aliases are ahead of what answers
            champion = self.store.aliases().champion
            current = self._current
            if champion is None or (current is not None and current.model_version == champion):
                self._problem = self._stale_since = None
                return
        if self._stale_since is None:
            self._stale_since = time.monotonic()
        # One that is open was hashed when it was opened, and again by the server that promoted it.
        loaded = self._ahead.opened(champion)
        with self._changing:
            # While it was opened, a request may have promoted another.
            if self.store.aliases().champion == champion:
                self._show(loaded)

    def _try_to_catch_up(self) -> None:
        try:
            self._catch_up()
        except Exception as error:  # whatever is wrong with it, what answers goes on; /readyz tells
            self._problem = str(error)
            log.error("champion not opened", error=self._problem)

    def _follow(self) -> None:
        stamp: object = None
        tried = 0.0
        while not self._stop.wait(POLL_S):
            try:
                found = self.store.stamp()
            except Exception as error:  # a follower that ends would follow nobody
                self._problem = str(error)
                log.error("models cannot be read", error=self._problem)
                continue
            if found != stamp or (self._problem is not None and time.monotonic() - tried > RETRY_S):
                stamp, tried = found, time.monotonic()
                self._try_to_catch_up()
                self._ahead.look()
                if self._current is not None:  # no matter which server promoted it
                    warm(self._current.taxonomy, self.imports.parent / NAMES)
            self.policies_changed()


def _version_in(model: Path) -> str | None:
    """Which model a folder holds; None where it holds none, which is no matter where another one answers."""
    try:
        return read_manifest(model, verify=False).model_version
    except (ModelError, OSError):
        return None


def _another_one(loaded: Loaded) -> ServiceError:
    return ServiceError(
        "conflict",
        f"model {loaded.model_version} is no longer the previous one",
        allowed="one change of the champion at a time",
        remedy="Look at the models, and try again.",
    )


@contextmanager
def open_models(settings: ServiceSettings, database: Database) -> Iterator[Models]:
    """The models of an installation, in its data folder; the champion answers as long as the block runs.

    Raises:
        ModelError: there was no champion yet, and the model of the settings was refused.
    """
    imports = settings.data / IMPORT
    imports.mkdir(parents=True, exist_ok=True)
    models = Models(
        open_store(settings),
        database,
        imports,
        threads=settings.threads,
        preload_max_bytes=settings.preload_max_bytes,
    )
    try:
        models.start(settings.model)
        yield models
    finally:
        models.close()
