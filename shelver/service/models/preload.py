"""Models that are opened before they are needed, so that a promotion only swaps a reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import structlog

log = structlog.get_logger("shelver.service")


class Versioned(Protocol):
    """An open model."""

    @property
    def model_version(self) -> str:
        """What names it."""


Model = TypeVar("Model", bound=Versioned)


class Preloader(Generic[Model]):
    """Open models, by version; a thread of its own opens what is wanted and lets go of what no longer is.

    Args:
        open_model: opens a model; takes seconds.
        wanted: the versions that should be open, the most urgent first.
    """

    def __init__(self, open_model: Callable[[str], Model], wanted: Callable[[], Sequence[str]]) -> None:
        self._open = open_model
        self._wanted = wanted
        # One thread opens all: memory that another thread left is not taken again, and the server would grow.
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="shelver-open")
        self._ready: dict[str, Model] = {}
        self._refused: set[str] = set()
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shelver-preload", daemon=True)

    @property
    def n_ready(self) -> int:
        """How many are open and answer nobody."""
        return len(self._ready)

    def ready(self, version: str) -> Model | None:
        """A model, if it is open already."""
        return self._ready.get(version)

    def opened(self, version: str) -> Model:
        """A model, opened now where it is not; raises as `open_model`."""
        return self._ready.get(version) or self._opener.submit(self._opened, version).result()

    def _opened(self, version: str) -> Model:
        # Another one may have asked for it just before.
        return self._ready.get(version) or self._open(version)

    def keep(self, model: Model | None) -> None:
        """Take over one that is open, for as long as it is wanted; and look what else is wanted now."""
        if model is not None:
            self._ready[model.model_version] = model
        self.look()

    def look(self) -> None:
        """Something has changed: look what is wanted now."""
        self._refused.clear()
        self._woken.set()

    def start(self) -> None:
        """Begin to open what is wanted."""
        self._woken.set()
        self._thread.start()

    def close(self) -> None:
        """Let go of all; one that is being opened is not waited for long."""
        self._stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._opener.shutdown(wait=False, cancel_futures=True)
        self._ready.clear()

    def _run(self) -> None:
        while self._woken.wait() and not self._stopping:
            self._woken.clear()
            try:
                self._tend()
            except Exception:  # such as a store that cannot be read now: the next change is another chance
                log.exception("models are not opened ahead")

    def _tend(self) -> None:
        wanted = self._wanted()
        for version in [version for version in self._ready if version not in wanted]:
            del self._ready[version]
        for version in wanted:
            if self._woken.is_set() or self._stopping:
                return  # something else may be wanted by now
            if version in self._ready or version in self._refused:
                continue
            try:
                model = self.opened(version)
            except Exception as error:  # whoever promotes it is told
                self._refused.add(version)
                log.error("not opened ahead", model_version=version, error=str(error))
                continue
            self._ready[version] = model
            log.info("opened ahead", model_version=version)
