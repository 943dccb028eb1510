"""Settings: from the environment, then the file, then the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shelver.errors import ConfigError
from shelver.settings import Settings, read_service_settings


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


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "SHELVER_SERVICE_REGISTRATIN",
            "closed",
            "SHELVER_SERVICE_REGISTRATIN.*Allowed: SHELVER_SERVICE_REGISTRATION",
        ),
        ("shelver_service_zzz", "x", "shelver_service_zzz.*docs/service.md"),
        ("SHELVER_SERVICE_THREADS", "abc", r"^setting threads = 'abc'\. Allowed: a whole number\. Change"),
        ("SHELVER_SERVICE_PORT", "70000", r"Allowed: less than or equal to 65535\."),
        ("SHELVER_SERVICE_REGISTRATION", "shut", r"Allowed: 'open' or 'closed'\."),
        ("SHELVER_SERVICE_SIMILAR_ACROSS_SELLERS", "perhaps", r"Allowed: true or false\."),
        ("SHELVER_SERVICE_TRUSTED_PROXIES", "10.0.0.1", r"SHELVER_ variable.*trusted_proxies.*Allowed: JSON"),
    ],
)
def test_a_wrong_variable_of_the_service_is_refused_in_words(
    empty_settings: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=says) as refused:
        read_service_settings()
    assert "Input should" not in str(refused.value)


def test_a_misspelled_setting_in_the_file_is_refused_without_its_value(empty_settings: Path) -> None:
    (empty_settings / "shelver.toml").write_text('[service]\nsecrt = "nobody must see this"\n')
    with pytest.raises(ConfigError, match=r"secrt.*Allowed: secret") as refused:
        read_service_settings()
    assert "nobody" not in str(refused.value)


def test_the_variables_of_kubernetes_and_of_the_command_line_do_not_matter(
    empty_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELVER_SERVICE_PORT_8000_TCP", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("SHELVER_CACHE", "here")
    monkeypatch.setenv("shelver_service_threads", "2")
    assert read_service_settings().threads == 2
