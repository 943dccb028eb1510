"""Settings of an installation, from environment variables and a TOML file.

Read by the command line and services only; everything below gets plain values.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from shelver.errors import ConfigError


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelver"


class Settings(BaseSettings):
    """Each can be set by `SHELVER_<NAME>`, or in `shelver.toml` of the working folder; the environment wins.

    Attributes:
        cache: folder for picture embeddings, shared by all trainings; it can be deleted at any time.
        threads: threads for each ONNX session; all available cores where it is not set.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix="SHELVER_", toml_file="shelver.toml", extra="ignore")

    cache: Path = Field(default_factory=_default_cache)
    threads: int | None = Field(default=None, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings() -> Settings:
    """The settings of this installation.

    Raises:
        ConfigError: a variable or `shelver.toml` holds what no setting can be.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"setting {'.'.join(map(str, first['loc']))} = {first['input']!r}",
            allowed=first["msg"],
            remedy="Change the SHELVER_ variable, or shelver.toml in the working folder.",
        ) from error
    except (OSError, ValueError) as error:  # TOML that is none, or no UTF-8
        raise ConfigError(
            f"shelver.toml cannot be read: {error}", allowed="a TOML file", remedy="Mend the file, or remove it."
        ) from error
