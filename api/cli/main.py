"""All commands, and how their errors are shown: one sentence, never a traceback."""

import os
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import psycopg
import typer
from eventsourcing.persistence import PersistenceError
from rich.markup import escape

from adapters.embedded import EmbeddedError
from adapters.migrations import MigrationError
from adapters.settings import SettingsError
from adapters.vault import VaultError
from api.cli import (
    audit,
    backfill,
    connections,
    demo,
    down,
    history,
    import_,
    keys,
    migrate,
    models,
    monitor,
    parked,
    rebuild,
    reembed,
    replay,
    roles,
    shards,
    status,
    sweep,
    up,
    vector,
)
from api.cli.screen import CommandError, console, errors
from projections.faults import PoisonEvent

app = typer.Typer(
    name="evosense",
    help="EvoSense tells companies, in numbers they can prove, how their WhatsApp customers feel.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_SYSTEM = "The whole system on this machine"
_OPERATE = "Operating an installation"
_ROLES = "Roles: one process each (compose runs these)"

app.command(rich_help_panel=_SYSTEM)(up.up)
app.command(rich_help_panel=_SYSTEM)(down.down)
app.command(rich_help_panel=_SYSTEM)(demo.demo)
app.command(rich_help_panel=_OPERATE)(status.status)
app.command(rich_help_panel=_OPERATE)(migrate.migrate)
app.command(rich_help_panel=_OPERATE)(migrate.admin)
app.command(rich_help_panel=_OPERATE)(monitor.monitor)
app.command(rich_help_panel=_OPERATE)(rebuild.rebuild)
app.command(rich_help_panel=_OPERATE)(rebuild.rollback)
app.command(rich_help_panel=_OPERATE)(audit.audit)
app.command(rich_help_panel=_OPERATE)(replay.replay)
app.command(rich_help_panel=_OPERATE)(reembed.reembed)
app.command(rich_help_panel=_OPERATE)(history.history)
app.command(rich_help_panel=_OPERATE)(shards.shards)
app.add_typer(parked.app, name="parked", rich_help_panel=_OPERATE)
app.add_typer(connections.app, name="connections", rich_help_panel=_OPERATE)
app.command("import", rich_help_panel=_OPERATE)(import_.import_)
app.command(rich_help_panel=_OPERATE)(backfill.backfill)
app.add_typer(models.app, name="models", rich_help_panel=_OPERATE)
app.add_typer(vector.app, name="vector", rich_help_panel=_OPERATE)
app.add_typer(keys.app, name="keys", rich_help_panel=_OPERATE)
app.command(rich_help_panel=_ROLES)(roles.api)
app.command(rich_help_panel=_ROLES)(roles.projector)
app.command(rich_help_panel=_ROLES)(roles.relay)
app.command(rich_help_panel=_ROLES)(roles.worker)
app.command(rich_help_panel=_ROLES)(sweep.sweep)
app.command(rich_help_panel=_ROLES)(roles.listener)
app.command(rich_help_panel=_ROLES)(roles.healthcheck)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"evosense {installed_version('evosense')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


#: Errors whose message is meant for the user.
_EXPLAINED = (CommandError, SettingsError, EmbeddedError, MigrationError, VaultError, PoisonEvent)


def main() -> None:
    """Run a command; exit with 1 and one sentence where it fails."""
    try:
        app()
    except _EXPLAINED as error:
        _fail(str(error))
    except (psycopg.Error, PersistenceError) as error:
        _fail(f"the database can't be worked with ({type(error).__name__}). Is it running, and is its address right?")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Somebody closed the pipe that the output went to, such as `| head`: no fault of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str) -> None:
    errors.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(1)
