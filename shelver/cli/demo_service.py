"""`shelver demo --serve`: the service on the demo's model, with people, listings, and some weeks of work."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from shelver.cli import say
from shelver.cli.models import require_training
from shelver.cli.serve import service_settings
from shelver.errors import InputError
from shelver.registry import MANIFEST

if TYPE_CHECKING:
    from shelver.service.demonstration.cast import SignIn
    from shelver.settings import ServiceSettings

_MARK: Final = ".shelver-demo"
_SERVICE: Final = "service"
_EARLIER: Final = "earlier"
_LOG: Final = "service.log"


@dataclass(frozen=True, slots=True)
class Made:
    """What a demo was made with."""

    products: int
    seed: int


def made(out: Path) -> Made | None:
    """What the whole demo in a folder was made with; None where there is none, or not all of one."""
    try:
        said = json.loads((out / _MARK).read_bytes())
        return Made(int(said["products"]), int(said["seed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note(out: Path, what: Made) -> None:
    """The demo is whole."""
    (out / _MARK).write_text(json.dumps(asdict(what)), encoding="utf-8")


def refuse_others(out: Path) -> None:
    """See to it that a folder is new, empty, or that of a demo.

    Raises:
        InputError: it is another one.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise InputError(
            f"{out} holds something that is not a demo",
            allowed="a new or empty folder, or that of an earlier demo, which is then replaced",
            remedy="Name another --out.",
        )


def refuse_another(out: Path, there: Made, products: int | None, seed: int | None) -> None:
    """See to it that the demo in a folder is the one that is wanted.

    Raises:
        InputError: it was made with other numbers.
    """
    wanted = Made(there.products if products is None else products, there.seed if seed is None else seed)
    if wanted != there:
        raise InputError(
            f"{out} holds a demo of {there.products:,} products, seed {there.seed}, and its people's work",
            allowed="the same --products and --seed, or neither",
            remedy="Leave them out, or name another --out.",
        )


def empty(out: Path) -> None:
    """Make room for a demo, also where one is that was not made to its end."""
    (out / _MARK).write_bytes(b"")
    for path in out.iterdir():
        if path.name != _MARK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def ready_to_serve(out: Path, host: str | None, port: int | None) -> ServiceSettings:
    """The settings of the demo's service, before anything long begins.

    Raises:
        MissingExtraError: what the service needs is not installed.
        ConfigError: a setting is wrong.
        InputError: the port is taken.
    """
    threads = service_settings().threads  # also looks whether all is installed
    from shelver.service.demonstration.shop import settings_of

    settings = settings_of(out / _SERVICE, host=host, port=port, threads=threads)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            tried.bind((settings.host, settings.port))
        except OSError as error:
            raise InputError(
                f"{settings.host}:{settings.port} cannot be listened at: {error.strerror}",
                allowed="an address of this machine, and a port that is free",
                remedy="End what listens there, or name another --port.",
            ) from error
    return settings


def serve(out: Path, what: Made, settings: ServiceSettings, *, new_passwords: bool, as_json: bool) -> None:
    """Serve the demo until Ctrl-C, with a worker; the first time, its weeks pass before."""
    from shelver.service.demonstration.shop import Stock, is_ready, prepare
    from shelver.service.logs import set_up_logs

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (out / _LOG).open("a", encoding="utf-8", buffering=1) as log:
        set_up_logs(stream=log)
        try:
            if not is_ready(settings):
                _train_earlier(out, what)
                say.progress("letting six weeks pass in the shop")
                stock = Stock(out / "catalog", out / _EARLIER, out / "model", what.products, what.seed)
                prepare(settings, stock, say=lambda line: say.progress(f"      {line}"))
            _serve(settings, log, new_passwords=new_passwords, as_json=as_json)
        except KeyboardInterrupt:
            pass
    say.progress(f"\nstopped; the same command goes on where it was. Everything is in {out}.")


def _train_earlier(out: Path, what: Made) -> None:
    """A first model, for the weeks before the demo's own: learned in a moment, from the texts alone."""
    from shelver.catalog.store import Catalog
    from shelver.evaluate import REPORT, evaluate
    from shelver.ngrams import NgramSpec
    from shelver.report import publish
    from shelver.settings import read_settings
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    folder, threads = out / _EARLIER, read_settings().threads
    if (folder / MANIFEST).is_file() and (folder / "report" / REPORT).is_file():
        return
    require_training()
    say.progress("learning the shop's first model, which read texts only")
    shutil.rmtree(folder, ignore_errors=True)
    config = TrainConfig(
        text_encoder="ngram",
        image_encoder="none",
        ngrams=NgramSpec(),
        linear=False,
        epochs=2,
        folds=0,
        refit=False,
        seed=what.seed + 1,
    )
    catalog = Catalog.open(out / "catalog")
    train(catalog, folder, config, cache=out / "cache", threads=threads, say=_quiet)
    report = evaluate(folder, catalog, threads=threads, say=_quiet)
    publish(report, model=folder, catalog=catalog, out=folder / "report", say=_quiet)


def _serve(settings: ServiceSettings, log: TextIO, *, new_passwords: bool, as_json: bool) -> None:
    from shelver.service.accounts.secret import database_url
    from shelver.service.db import migrate, open_database
    from shelver.service.demonstration.cast import hand_out
    from shelver.service.jobs.workplace import open_workplace
    from shelver.service.server import serve
    from shelver.worker.runner import Runner

    with open_database(database_url(settings)) as database:
        migrate(database.engine)
        told = hand_out(database, settings, anew=new_passwords)
    url = f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{settings.port}"
    given = {"data": str(settings.data), "database": settings.database, "threads": settings.threads}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with open_workplace(migrated=True, **said) as place:
        _tell(url, log.name, told, as_json=as_json)
        # A thread that waits; each job has a process of its own, which ends with this one.
        runner = Runner(place, said)
        worker = threading.Thread(target=runner.work, name="shelver-worker")
        worker.start()
        try:
            serve(settings, logs=log)
        finally:
            runner.stop.set()
            worker.join()


def _tell(url: str, log: str, told: list[SignIn], *, as_json: bool) -> None:
    lines = ["", f"The demo's shop is open: {url}", ""]
    if told:
        lines += ["Sign in as (these passwords are shown this once):"]
        lines += [f"  {one.role:9} {one.email:20} {one.password}" for one in told]
    else:
        lines += [
            "The passwords were shown when the shop was opened for the first time;",
            "`shelver demo --serve --new-passwords` makes new ones.",
        ]
    lines += ["", f"The log is {log}. Ctrl-C ends it, and keeps everything."]
    record = {"url": url, "log": log, "people": [asdict(one) for one in told]}
    say.result(record, "\n".join(lines), as_json=as_json)


def _quiet(_line: str) -> None:
    pass
