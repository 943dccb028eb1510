"""The first load of a model, in a process of its own: what crashes or hangs there harms nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import shelver
from shelver.errors import ModelError

TRIAL_LIMIT_S: Final = 120.0
_SHOWN_CHARS: Final = 600
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
"""What the child gets of our environment: no secret of the service is among it."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A model that answered.

    Attributes:
        model_version: as the child read it.
        seconds: from its start to its answer, the loading of the libraries included.
    """

    model_version: str
    seconds: float


def try_in_child(folder: Path, *, limit_s: float = TRIAL_LIMIT_S) -> Tried:
    """Open a model folder in a child process and let it answer.

    Raises:
        ModelError: the child refused it, crashed, ran out of memory or took too long; says which.
    """
    home = str(Path(shelver.__file__).parent.parent)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        # -P: a module of the folder where the service was started must not stand in for one of ours.
        ended = subprocess.run(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-m", "shelver.library.child", str(folder)],
            env={**environment, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"it did not answer within {limit_s:g} s") from error
    if ended.returncode < 0:
        raise _refused(f"opening it ended the process with signal {-ended.returncode}")
    try:
        said = json.loads(ended.stdout.splitlines()[-1])
        if ended.returncode == 0:
            return Tried(model_version=str(said["model_version"]), seconds=float(said["seconds"]))
        reason = str(said["refused"])
    except (ValueError, LookupError, TypeError) as error:
        raise _refused(f"opening it ended the process with status {ended.returncode}") from error
    raise _refused(reason)


def _refused(reason: str) -> ModelError:
    return ModelError(
        f"the model was refused: {reason[:_SHOWN_CHARS]}",
        allowed="a model folder that opens and answers",
        remedy="Export the model again with this version of shelver, or copy it again from its source.",
    )
