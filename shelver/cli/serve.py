"""`shelver serve`, and what must be done at the machine itself: the first administrator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shelver.cli import say
from shelver.cli.catalogs import AsJson

if TYPE_CHECKING:
    from shelver.settings import ServiceSettings

app = typer.Typer(
    name="account",
    no_args_is_help=True,
    help="Accounts, as far as they cannot be made over HTTP.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Database = Annotated[
    str | None, typer.Option(help="SQLAlchemy URL of the database; a SQLite file in the data folder without it.")
]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the database, the pictures and the secret.", file_okay=False)
]


def serve(
    model: Annotated[
        Path | None, typer.Option(help="Model folder that a new installation starts with.", file_okay=False)
    ] = None,
    database: Database = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at; 127.0.0.1 without it.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at; 8000 without it.", min=0, max=65535)] = None,
) -> None:
    """Answer over HTTP: predictions, accounts, products, feedback, models.

    What is not given comes from SHELVER_SERVICE_ variables, or the table [service] of shelver.toml. A new database
    is made on start. Logs are JSON lines on standard error. SIGTERM ends it, after what has begun.
    """
    settings = service_settings(model=model, database=database, data=data, host=host, port=port)
    from shelver.service.server import serve as run

    run(settings)


@app.command()
def first_admin(database: Database = None, data: Data = None, as_json: AsJson = False) -> None:
    """Print a token that makes the first administrator: on the page /first-admin, or by POST to /v1/first-admin.

    It works once, for a day, and only while there is no administrator. A token that was printed before ends. The
    address of the page, as a browser of this machine has it, goes to standard error.
    """
    settings = service_settings(database=database, data=data)
    from shelver.service.server import first_admin_token

    token = first_admin_token(settings)
    host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104 - not listened at
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port or 8000}/first-admin?token={token}"
    say.progress(f"Open {address} in a browser while `shelver serve` runs.")
    say.result({"token": token, "lives_s": settings.one_time_s, "address": address}, token, as_json=as_json)


def service_settings(**given: object) -> ServiceSettings:
    """The settings of the service, what is given first.

    Raises:
        MissingExtraError: what the service needs is not installed.
        ConfigError: a setting is wrong.
    """
    from importlib.util import find_spec

    from shelver.errors import MissingExtraError
    from shelver.settings import read_service_settings, read_settings

    names = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "jwt", "pwdlib", "structlog", "prometheus_client")
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the service needs {', '.join(missing)}, not installed",
            allowed="an environment with the `service` extra",
            remedy="Run `pip install 'shelver[service]'`.",
        )
    settings = read_service_settings(**given)
    return settings if settings.threads else settings.model_copy(update={"threads": read_settings().threads})
