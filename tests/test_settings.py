"""Settings: from the environment, then the file, then the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shelver.settings import Settings


def test_without_anything_said_the_defaults_hold(empty_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    settings = Settings()
    assert settings.cache == Path.home() / ".cache" / "shelver"
    assert settings.threads is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_settings / "caches"))
    assert Settings().cache == empty_settings / "caches" / "shelver"


def test_the_environment_wins_over_the_file_and_the_call_over_both(
    empty_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_settings / "shelver.toml").write_text('threads = 3\ncache = "here"\nunknown = 1\n')
    assert Settings() == Settings(cache=Path("here"), threads=3)
    monkeypatch.setenv("SHELVER_THREADS", "5")
    assert Settings().threads == 5
    assert Settings().cache == Path("here")
    assert Settings(threads=7).threads == 7


@pytest.mark.parametrize("threads", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_threads_is_refused(
    empty_settings: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv("SHELVER_THREADS", threads)
    with pytest.raises(ValidationError, match="threads"):
        Settings()


def test_settings_are_frozen(empty_settings: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().threads = 2
