"""`evosense status`: how the system is."""

import asyncio
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from adapters.migrations import schema_state
from adapters.postgres import connect
from adapters.settings import Settings
from api.cli.installation import Installation, configured
from api.cli.screen import console
from api.relay import jetstream_state
from projections.catalog import all_projections
from sql import queries

_ENGINE: Final = queries("engine")
_LOG: Final = queries("log")


def status() -> None:
    """Show the servers, how far each projection is behind the log, and what is parked."""
    with configured(start=False) as settings:
        embedded = Settings.load().database_url is None
        current, latest = schema_state(settings.runtime_dsn)
        servers = _grid()
        if embedded:
            state = Installation.of(Settings.load()).state()
            servers.add_row("API", state["api"] if state else "[yellow]not up[/]")
        servers.add_row("PostgreSQL", f"answers; schema version {current}" + _hint(current, latest))
        jetstream = _jetstream(settings)
        servers.add_row("NATS", _told(jetstream))
        console.print(servers)
        if current != latest:
            return
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            head = _LOG.head(conn)["position"]
            checkpoints = {row["projection"]: row for row in _ENGINE.checkpoints(conn)}
            parked = list(_ENGINE.parked(conn))
    table = Table("reader", "position", "lag", "moved", title=f"the log stands at position {head:,}")
    for column in table.columns[1:3]:
        column.justify = "right"
    for projection in all_projections():
        row = checkpoints.get(projection.name)
        position = row["position"] if row else 0
        moved = f"{row['updated_at']:%Y-%m-%d %H:%M:%S %Z}" if row else "never"
        table.add_row(projection.name, f"{position:,}", _lag(head - position), moved)
    relayed = jetstream.get("relayed") if isinstance(jetstream, dict) else None
    if relayed is not None:
        table.add_row("relay", f"{relayed:,}", _lag(head - relayed), "")
    console.print(table)
    console.print(_parked(parked) if parked else "nothing is parked")


def _parked(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "subscriber", "position", "event", "tenant", "tries", "reason", title=f"{len(rows):,} events are parked"
    )
    for row in rows[:50]:
        table.add_row(
            row["subscriber"],
            f"{row['position']:,}",
            row["event_type"],
            str(row["tenant_id"] or ""),
            str(row["attempts"]),
            row["reason"],
        )
    return table


def _lag(events: int) -> str:
    return f"[yellow]{events:,}[/]" if events else "0"


def _hint(current: int, latest: int) -> str:
    if current == latest:
        return ""
    return f" [red](this program knows {latest}: run `evosense migrate`, or upgrade the program)[/]"


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    return table


def _jetstream(settings: Settings) -> dict[str, Any] | str:
    """The state of the stream, or in words why it is not known."""
    if settings.nats_url is None:
        return "[yellow]EVOSENSE_NATS_URL is not set[/]"
    try:
        return asyncio.run(jetstream_state(settings))
    except Exception as error:  # whatever it is, the status of the rest is wanted all the more
        return f"[red]does not answer ({type(error).__name__})[/]"


def _told(state: dict[str, Any] | str) -> str:
    if isinstance(state, str):
        return state
    if "error" in state:
        return f"[red]{escape(str(state['error']))}[/]"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in state.items() if name != "relayed")
