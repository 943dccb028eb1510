"""`shelver worker`: runs the jobs of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelver.cli.serve import Data, Database, service_settings

if TYPE_CHECKING:
    from types import FrameType


def worker(
    database: Database = None,
    data: Data = None,
    once: Annotated[bool, typer.Option("--once", help="Run one job, if one waits, and end.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Only jobs of this kind; may be given several times: train, evaluate, predict, import_products, "
            "reset_demo."
        ),
    ] = None,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds without a sign of life after which others take the job.")
    ] = 60.0,
) -> None:
    """Run the jobs of a service, each in a process of its own.

    Start as many as should run at a time, on machines that share the database and the data folder. What is not
    given comes from SHELVER_SERVICE_ variables, or the table "service" of shelver.toml, as for `shelver serve`.
    SIGTERM gives a job that runs back to the others; it goes on where it stopped.
    """
    settings = service_settings(database=database, data=data)
    import signal

    from shelver.errors import ConfigError
    from shelver.service.jobs.payloads import KINDS
    from shelver.service.jobs.workplace import open_workplace
    from shelver.service.logs import set_up_logs
    from shelver.worker.runner import Runner

    unknown = sorted(set(kind or ()) - set(KINDS))
    if unknown:
        raise ConfigError(f"--kind {unknown[0]}", allowed=", ".join(KINDS), remedy="Name one of these.")
    set_up_logs()
    said: dict[str, Any] = {"database": database, "data": data and str(data), "threads": settings.threads}
    given = {name: value for name, value in said.items() if value is not None}
    with open_workplace(**given) as place:
        runner = Runner(place, given, lease_s=lease, kinds=tuple(kind or ()))

        def stop(_number: int, _frame: FrameType | None) -> None:
            runner.stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        runner.work(once=once)
