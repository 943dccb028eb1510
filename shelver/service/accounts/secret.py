"""Where an installation keeps what it was not told: its secret and its database."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from shelver.errors import ConfigError
from shelver.settings import ServiceSettings

_FILE: Final = "secret"
_CHARACTERS: Final = 32


def database_url(settings: ServiceSettings) -> str:
    """The database of the settings, or the SQLite file of the data folder."""
    return settings.database or f"sqlite:///{settings.data.resolve() / 'shelver.db'}"


def read_secret(settings: ServiceSettings) -> str:
    """The secret of the settings, or that of the data folder, which is made the first time.

    Raises:
        ConfigError: the file holds no secret.
    """
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    path = settings.data / _FILE
    if not path.exists():
        _make(path)
    found = path.read_text(encoding="utf-8").strip()
    if len(found) < _CHARACTERS:
        raise ConfigError(
            f"{path} holds fewer than {_CHARACTERS} characters",
            allowed="a secret that nobody can guess",
            remedy="Remove the file: a new secret is made, and people sign in again.",
        )
    return found


def _make(path: Path) -> None:
    """Write a secret whole or not at all; where another server was faster, its secret stays."""
    handle, name = tempfile.mkstemp(dir=path.parent)  # only the owner may read it
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
