"""The model that answers.

`Models.current()` is one reference that is read without a lock. A swap opens the next model beside it and then
replaces the reference: a batch that has begun ends on the model that it took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from shelver.decide import Policy, policies_of, policy_named
from shelver.decide.attributes import check_rules
from shelver.decide.plan import plan_of
from shelver.decide.policies import DEFAULT
from shelver.errors import ConfigError
from shelver.library import Aliases, ModelStore
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.registry import Manifest
from shelver.service.db import Database
from shelver.service.problems import ServiceError
from shelver.service.tables.models import StoredPolicy
from shelver.settings import ServiceSettings
from shelver.taxonomy import Taxonomy

POLL_S: Final = 1.0
"""How often a server looks whether another one has promoted a model or changed a policy."""
RETRY_S: Final = 30.0
IMPORT: Final = "import"
STORE: Final = "models"
_STARTER: Final = "the start of the service"
_REVISIONS: Final = select(StoredPolicy.name, StoredPolicy.revision)
_BODIES: Final = select(StoredPolicy.name, StoredPolicy.revision, StoredPolicy.body)
log = structlog.get_logger("shelver.service")


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A model that answers, and what belongs to it. A request takes it once and uses nothing else.

    Attributes:
        classifier: the open model.
        manifest: what its folder says of itself.
        folder: where it lies.
        policies: by name: those of the folder, and before them those of the service.
    """

    classifier: Classifier
    manifest: Manifest
    folder: Path
    policies: Mapping[str, Policy]

    @property
    def model_version(self) -> str:
        return self.classifier.model_version

    @property
    def taxonomy(self) -> Taxonomy:
        return self.classifier.taxonomy

    @property
    def taxonomy_version(self) -> str:
        return self.manifest.taxonomy_version

    def policy(self, name: str | None = None) -> Policy:
        """A policy by its name; the default one where none is named.

        Raises:
            ConfigError: none has this name.
        """
        return policy_named(name if name is not None else DEFAULT, self.policies)

    def check(self, policy: Policy) -> None:
        """See to it that a policy fits this model.

        Raises:
            ConfigError: it names a node or an attribute that the model does not have.
        """
        stage = self.classifier.prob2pred
        plan_of(policy, stage.groups)
        check_rules(policy, stage.attributes)


class Models:
    """Which model answers here; follows what other servers on the same store and database change.

    Attributes:
        store: the models on disk.
        imports: folder that models may be registered from.
    """

    def __init__(
        self, store: ModelStore, database: Database, imports: Path, *, threads: int | None = None
    ) -> None:
        self.store = store
        self.imports = imports
        self._database = database
        self._threads = threads
        self._current: Loaded | None = None
        self._kept: dict[str, tuple[str, Policy]] = {}
        self._problem: str | None = None
        self._changing = threading.Lock()
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
        """Whether the champion answers, and not one that it should have replaced."""
        return self._current is not None and self._problem is None

    def prepare(self, version: str) -> Loaded:
        """Hash, open and warm a registered model, which answers nobody yet.

        Raises:
            ModelError: it is not registered, or no longer what was registered.
        """
        folder, manifest = self.store.verified(version)
        classifier = Classifier.open(folder, threads=self._threads, verify=False)
        classifier([Product("first", title="The first answer is the slowest one")])
        return Loaded(classifier, manifest, folder, self._merged(folder))

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
                raise ServiceError(
                    "conflict",
                    f"model {loaded.model_version} is no longer the previous one",
                    allowed="one change of the champion at a time",
                    remedy="Look at the models, and try again.",
                )
            aliases = self.store.roll_back(by=by, verify=False)
            self._show(loaded)
        return aliases

    def read_policies(self) -> None:
        """Take over what the database holds; policies that did not change stay the same objects.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        with self._changing, self._database.reading() as session:
            rows = dict(session.execute(_REVISIONS).all())
            if rows == {name: revision for name, (revision, _) in self._kept.items()}:
                return
            found = session.execute(_BODIES)
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
            self._kept = kept
            if self._current is not None:
                self._current = replace(self._current, policies=self._merged(self._current.folder))

    def policies_changed(self) -> None:
        """As `read_policies`, after a commit; where the database has just gone away, the next look will do."""
        with suppress(SQLAlchemyError):
            self.read_policies()

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
            log.info("the champion answers", champion=champion, given=model.name if model is not None else None)
            self._try_to_catch_up()
        self._follower.start()

    def close(self) -> None:
        """Follow no longer."""
        self._stop.set()
        if self._follower.is_alive():
            self._follower.join(timeout=10)

    def _merged(self, folder: Path) -> dict[str, Policy]:
        return {**policies_of(folder), **{name: policy for name, (_, policy) in self._kept.items()}}

    def _show(self, loaded: Loaded) -> None:
        # Policies may have changed while it was opened.
        self._current = replace(loaded, policies=self._merged(loaded.folder))
        self._problem = None
        log.info("model answers", model_version=loaded.model_version, taxonomy_version=loaded.taxonomy_version)

    def _catch_up(self) -> None:
        """Open the champion where another model answers."""
        champion = self.store.aliases().champion
        current = self._current
        if champion is None or (current is not None and current.model_version == champion):
            self._problem = None
            return
        loaded = self.prepare(champion)
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
            self.policies_changed()
            found = self.store.stamp()
            if found != stamp or (self._problem is not None and time.monotonic() - tried > RETRY_S):
                stamp, tried = found, time.monotonic()
                self._try_to_catch_up()


@contextmanager
def open_models(settings: ServiceSettings, database: Database) -> Iterator[Models]:
    """The models of an installation, in its data folder; the champion answers as long as the block runs.

    Raises:
        ModelError: there was no champion yet, and the model of the settings was refused.
    """
    imports = settings.data / IMPORT
    imports.mkdir(parents=True, exist_ok=True)
    models = Models(ModelStore(settings.data / STORE), database, imports, threads=settings.threads)
    try:
        models.start(settings.model)
        yield models
    finally:
        models.close()
