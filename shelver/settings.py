"""Settings of an installation, from environment variables and a TOML file.

Read by the command line and services only; everything below gets plain values.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from shelver.errors import ConfigError


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelver"


class _Sources(BaseSettings):
    """What is given, then the environment, then `shelver.toml`."""

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


class Settings(_Sources):
    """Each can be set by `SHELVER_<NAME>`, or in `shelver.toml` of the working folder; the environment wins.

    Attributes:
        cache: folder for picture embeddings, shared by all trainings; it can be deleted at any time.
        threads: threads for each ONNX session; all available cores where it is not set.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix="SHELVER_", toml_file="shelver.toml", extra="ignore")

    cache: Path = Field(default_factory=_default_cache)
    threads: int | None = Field(default=None, ge=1)


def _default_data() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "shelver"


class ServiceSettings(_Sources):
    """Settings of `shelver serve`: `SHELVER_SERVICE_<NAME>`, or the table `[service]` of `shelver.toml`.

    Attributes:
        model: the model folder that a new installation starts with.
        data: folder of the database, the pictures and the secret, unless they are set.
        database: an SQLAlchemy URL; a SQLite file in `data` where it is not set.
        host, port: where it listens.
        trusted_proxies: addresses or networks whose `X-Forwarded-For` names the caller.
        secret: at least 32 characters that sign the access tokens; made in `data` where it is not set.
        threads: threads for each ONNX session; all available cores where it is not set.
        registration: whether people may register themselves, as sellers.
        access_s, refresh_s: lifetime of access tokens, and of a sign-in that is refreshed.
        one_time_s: lifetime of the token that makes the first administrator or sets a password anew.
        password_characters: fewest characters of a password.
        password_kib, password_passes: memory and passes of Argon2 for one password.
        sign_in_failures: wrong passwords in a row before an account is locked for whoever tried.
        lockout_s: how long it is locked.
        sign_ins_per_minute: from one address.
        openid_issuer: the issuer of OpenID Connect that signs people in; none by default.
        openid_client_id, openid_client_secret: of this service, at the issuer.
        openid_redirect: address of /sign-in/openid or /v1/openid/callback as browsers see it; either will do.
        openid_role_claim, openid_roles: the claim of an ID token that names groups, and the role of each.
        openid_domains: only people with a verified e-mail address in one of these domains; all where it is empty.
        mail_hook: address that delivers the mail of whoever forgot his password.
        mail_secret: at least 32 characters that sign what is sent there.
        storage: keeps pictures and models, such as s3://bucket/prefix; the folder `data` where it is not set.
        preload_max_bytes: files of challenger and previous model together up to which both are kept open.
        public_per_minute: predictions a minute from one address without signing in; none by default.
        log_keep_days: how long predictions stay in the log; for ever where it is 0.
        audit_share: share of the accepted answers that go to review, because acceptance is not truth.
        review_below: decisions of less confidence go to review.
        review_lease_s: how long what a reviewer has claimed is his.
        similar_products: so many products are held in memory to find those that look alike; 0 finds none.
        similar_across_sellers: whether sellers see titles and categories of others' products that look alike.
        examples: catalog, in the folder `catalogs` of `data`, that products to try come from; none by default.
        picture_fetches: pictures that are fetched from their addresses at a time; 0 fetches none.
        picture_networks: networks that pictures may be fetched from, at any port, beside public addresses.
        body_max_bytes: largest request that is read.
        stop_s: how long requests that have begun may go on when the server is stopped.
        upload_max_bytes: largest file that is taken for a job; an account may keep four times as much.
        jobs_waiting: jobs of one account that may wait or run at a time.
        job_attempts: how often a job is begun whose process or worker dies.
        job_limit_s: how long one attempt at a job may take.
        job_keep_days: how long jobs that have ended, their files and uploads stay; for ever where it is 0.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="SHELVER_SERVICE_",
        toml_file="shelver.toml",
        toml_table_header=("service",),
        extra="forbid",
    )

    model: Path | None = None
    data: Path = Field(default_factory=_default_data)
    database: str | None = Field(default=None, repr=False)  # it may hold a password
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("127.0.0.1"), IPv6Network("::1"))
    secret: SecretStr | None = Field(default=None, min_length=32)
    threads: int | None = Field(default=None, ge=1)
    registration: Literal["open", "closed"] = "open"
    access_s: int = Field(default=15 * 60, ge=1)
    refresh_s: int = Field(default=30 * 24 * 3600, ge=60)
    one_time_s: int = Field(default=24 * 3600, ge=60)
    password_characters: int = Field(default=10, ge=8)
    password_kib: int = Field(default=65536, ge=8)
    password_passes: int = Field(default=3, ge=1)
    sign_in_failures: int = Field(default=5, ge=1)
    lockout_s: int = Field(default=15 * 60, ge=1)
    sign_ins_per_minute: int = Field(default=30, ge=1)
    openid_issuer: str | None = None
    openid_client_id: str | None = None
    openid_client_secret: SecretStr | None = None
    openid_redirect: str | None = None
    openid_role_claim: str | None = None
    openid_roles: dict[str, Literal["seller", "reviewer", "admin"]] = Field(default_factory=dict)
    openid_domains: tuple[str, ...] = ()
    mail_hook: str | None = Field(default=None, repr=False)  # it may hold a key
    mail_secret: SecretStr | None = Field(default=None, min_length=32)
    storage: str | None = None
    preload_max_bytes: int = Field(default=2**30, ge=0)
    public_per_minute: int = Field(default=0, ge=0)
    log_keep_days: float = Field(default=365, ge=0)
    audit_share: float = Field(default=0.02, ge=0, le=1)
    review_below: float = Field(default=0.5, ge=0, le=1)
    review_lease_s: int = Field(default=600, ge=1)
    similar_products: int = Field(default=200_000, ge=0)
    similar_across_sellers: bool = False
    examples: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")
    picture_fetches: int = Field(default=32, ge=0)
    picture_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    body_max_bytes: int = Field(default=32 * 2**20, ge=1024)
    stop_s: int = Field(default=30, ge=0)
    upload_max_bytes: int = Field(default=2**30, ge=1024, lt=2**31)
    jobs_waiting: int = Field(default=20, ge=1)
    job_attempts: int = Field(default=3, ge=1)
    job_limit_s: int = Field(default=24 * 3600, ge=1)
    job_keep_days: float = Field(default=30, ge=0)


_KUBERNETES: Final = "port_"
"""Kubernetes gives such variables, as SHELVER_SERVICE_PORT_8000_TCP, to all beside a Service named shelver."""
_WORDS: Final = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "path_type": "a path",
}
"""Of what pydantic found: what would be allowed, where it says more than whoever sets it wants to know."""
_HIDDEN = frozenset({"secret", "database", "openid_client_secret", "mail_hook", "mail_secret"})
_Any = TypeVar("_Any", bound=BaseSettings)


def read_settings() -> Settings:
    """The settings of this installation.

    Raises:
        ConfigError: a variable or `shelver.toml` holds what no setting can be.
    """
    return _read(Settings)


def read_service_settings(**given: Any) -> ServiceSettings:
    """The settings of the service; what is given, and not None, wins over the environment and the file.

    Raises:
        ConfigError: a variable or `shelver.toml` holds what no setting can be, or has the name of none.
    """
    # The library passes over variables that it does not know; one that is misspelled would leave a door open.
    prefix = str(ServiceSettings.model_config["env_prefix"])
    for variable in sorted(os.environ):
        name = variable.lower().removeprefix(prefix.lower())
        if variable.lower() == name or name in ServiceSettings.model_fields or name.startswith(_KUBERNETES):
            continue
        raise ConfigError(
            f"the variable {variable}, of no setting",
            allowed=_names_like(name, prefix),
            remedy="Mend its name, or unset it.",
        )
    return _read(ServiceSettings, **{name: value for name, value in given.items() if value is not None})


def _read(kind: type[_Any], **given: Any) -> _Any:
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":  # its value may be a secret
            raise ConfigError(
                f"setting {name} in shelver.toml, which there is not",
                allowed=_names_like(name),
                remedy="Mend its name, or remove it.",
            ) from error
        said = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise ConfigError(
            f"setting {name} = {'(hidden)' if name in _HIDDEN else repr(first['input'])}",
            allowed=_WORDS.get(first["type"], said),
            remedy="Change the SHELVER_ variable, or shelver.toml in the working folder.",
        ) from error
    except SettingsError as error:  # it names the setting, and not its value
        raise ConfigError(
            f"a SHELVER_ variable: {error}",
            allowed="""JSON where a setting has several values, such as '["10.0.0.0/8"]'""",
            remedy="Change the variable.",
        ) from error
    except (OSError, ValueError) as error:  # TOML that is none, or no UTF-8
        raise ConfigError(
            f"shelver.toml cannot be read: {error}", allowed="a TOML file", remedy="Mend the file, or remove it."
        ) from error


def _names_like(name: str, prefix: str = "") -> str:
    """The setting of the service that was probably meant, as it would be written there."""
    near = get_close_matches(name, ServiceSettings.model_fields, n=1)
    return (
        f"{prefix}{near[0].upper() if prefix else near[0]}" if near else "the settings that docs/service.md lists"
    )
