"""`evosense sweep`: fetches, all the time, what Evolution has and nothing has brought."""

import asyncio
import signal
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from adapters.migrations import require_current_schema
from adapters.settings import Settings
from adapters.telemetry import configure_logging
from api.cli.installation import configured
from api.cli.roles import Supervised, end_with_parent
from api.cli.screen import console
from api.known_connections import known_connections
from api.sweeping import Sweeper
from api.sweeps import ConnectionSweep, sweeps
from api.wiring import write_side


def sweep(
    once: Annotated[
        bool, typer.Option("--once", help="Sweep every connection now, show how it went, and end.")
    ] = False,
    supervised: Supervised = False,
) -> None:
    """Fetch what Evolution has and nothing has brought, of every active connection; catch up after a gap.

    Every [bold]EVOSENSE_SWEEP_SECONDS[/] (default 300; 0: never). Any number of these may run.
    """
    if once:
        with configured(start=True) as settings:
            configure_logging(settings.log_level, settings.log_format)
            require_current_schema(settings.runtime_dsn)
            write = write_side(settings)
            try:
                asyncio.run(Sweeper(write, settings).once())
                active = {one.id for one in known_connections(write) if one.is_active}
                standings = [one for one in sweeps(write) if one.connection_id in active]
            finally:
                write.close()
        console.print(_table(standings) if standings else "there are no connections to sweep")
        if any(one.last_error for one in standings):
            raise typer.Exit(1)
        return
    settings = Settings.load()
    configure_logging(settings.log_level, settings.log_format)
    require_current_schema(settings.runtime_dsn)
    if supervised:
        end_with_parent()
    asyncio.run(_until_told(settings))


async def _until_told(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    write = write_side(settings)
    try:
        await Sweeper(write, settings).run(stop)
    finally:
        # What is being recorded in a thread is let finish.
        await asyncio.get_running_loop().shutdown_default_executor()
        write.close()


def _table(standings: list[ConnectionSweep]) -> Table:
    table = Table("connection", "tenant", "fetched until", "only the sweep found", "catching up found", "trouble")
    for number in (3, 4):
        table.columns[number].justify = "right"
    for one in standings:
        table.add_row(
            escape(one.name),
            str(one.tenant_id),
            f"{one.swept_until:%Y-%m-%d %H:%M:%S %Z}" if one.swept_until else "never",
            f"{one.found_only_by_sweep:,}",
            f"{one.found_catching_up:,}",
            escape("; ".join(one.troubles())),
        )
    return table
