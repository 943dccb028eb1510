"""The command line: one command a verb. A command parses its flags, calls one function and prints.

Messages go to standard error, results to standard output. Exit status: 0 success, 2 a mistake in the call or the
input, 1 anything else. Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from shelver import __version__
from shelver.cli import catalogs, compare, demo, extract, models, policies, serve, worker
from shelver.errors import ShelverError

app = typer.Typer(
    name="shelver",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shelver {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Put every product on the right shelf: learn a category tree from a labelled catalog, then answer for any
    product with a text, a picture or both."""


app.command()(catalogs.ingest)
app.command()(catalogs.describe)
app.command()(catalogs.golden)
app.command()(models.train)
app.command()(models.evaluate)
app.command()(models.predict)
app.command()(compare.compare)
app.command()(compare.sweep)
app.add_typer(policies.app)
app.add_typer(extract.app)
app.command()(serve.serve)
app.command()(worker.worker)
app.add_typer(serve.app)
app.command()(demo.generate)
app.command()(demo.demo)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit status."""
    try:
        app()
    except ShelverError as error:
        fail(str(error), error.exit_status)
    except BrokenPipeError:
        # The reader of our output has gone, for example `| head`; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        fail(f"{error.strerror} ({error.filename}). Allowed: a path that exists and may be used. Check it.", 2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(
            f"{error.strerror or error}{where}. Make room or mend the device, then run the same command again.", 1
        )
    except Exception as error:  # the last resort of a program's outermost frame
        if os.environ.get("SHELVER_DEBUG"):
            traceback.print_exc()
        fail(
            f"unexpected {type(error).__name__}: {error}. This is a bug in shelver: run the command again with "
            "SHELVER_DEBUG=1 and report what it prints.",
            1,
        )


def fail(message: str, status: int) -> None:
    """Say what went wrong and end the program."""
    typer.echo(f"shelver: {message}", err=True)
    sys.exit(status)
