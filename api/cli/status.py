"""`evosense status`: how the system is."""

import asyncio
from typing import Any, Final

import msgspec
from rich.markup import escape
from rich.table import Table

from adapters.migrations import schema_state
from adapters.postgres import connect
from adapters.settings import Settings
from api.backlog import Waiting, waiting
from api.cli.installation import Installation, configured
from api.cli.links import told_of
from api.cli.parked import parked_table
from api.cli.screen import console
from api.links import all_links
from api.relay import jetstream_state
from api.sweeps import ConnectionSweep
from projections.catalog import all_projections
from sql import queries

_ENGINE: Final = queries("engine")
_BUILDS: Final = queries("builds")
#: Parked events, and connections in trouble, to show.
_MOST: Final = 50
_LOG: Final = queries("log")
_SWEEPING: Final = queries("sweeping")


def status() -> None:
    """Show the servers, each projection's lag, what waits for a model, what is parked, and connections in trouble."""
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
        if current != latest:
            console.print(servers)
            return
        with connect(settings.runtime_dsn, "evosense_writer") as conn:
            servers.add_row("listener", told_of(*all_links(conn)))
            console.print(servers)
            head = _LOG.head(conn)["position"]
            checkpoints: dict[str, list[dict[str, Any]]] = {}
            for row in _ENGINE.checkpoints(conn):
                checkpoints.setdefault(row["projection"], []).append(row)
            parked = list(_ENGINE.parked(conn))
            builds = list(_BUILDS.builds(conn))
            backlog = waiting(conn)
            standings = [msgspec.convert(row, ConnectionSweep) for row in _SWEEPING.standings(conn, tenant_id=None)]
    table = Table("reader", "position", "lag", "moved", "held by", title=f"the log stands at position {head:,}")
    for column in table.columns[1:3]:
        column.justify = "right"
    for projection in all_projections():
        rows = checkpoints.get(projection.name, [])
        position = min((row["position"] for row in rows), default=0)
        moved = max((row["updated_at"] for row in rows), default=None)
        table.add_row(
            projection.name,
            f"{position:,}",
            _lag(head - position),
            f"{moved:%Y-%m-%d %H:%M:%S %Z}" if moved else "never",
            _holders(rows),
        )
    relayed = jetstream.get("relayed") if isinstance(jetstream, dict) else None
    if relayed is not None:
        table.add_row("relay", f"{relayed:,}", _lag(head - relayed), "", "")
    console.print(table)
    for build in builds:
        console.print(_told_of(build, head), soft_wrap=True)
    if backlog:
        console.print(_backlog_table(backlog))
    console.print(parked_table(parked, _MOST) if parked else "nothing is parked")
    troubles = [(one, trouble) for one in standings for trouble in one.troubles()]
    for one, trouble in troubles[:_MOST]:
        name = f"connection {escape(one.name)} of tenant {one.tenant_id}"
        console.print(f"[yellow]{name}[/]: {escape(trouble)}", soft_wrap=True)
    if len(troubles) > _MOST:
        console.print(f"and {len(troubles) - _MOST:,} more connections in trouble: `evosense monitor` shows them")


def _holders(rows: list[dict[str, Any]]) -> str:
    """Which processes hold the leases; of many shards, how many are held."""
    holders = sorted({row["holder"].rpartition(":")[0] for row in rows if row["held"]})
    if not holders:
        return "[yellow]nobody[/]"
    held = sum(bool(row["held"]) for row in rows)
    shards = f" ({held} of {len(rows)} shards)" if len(rows) > 1 else ""
    return ", ".join(holders) + shards


def _told_of(build: dict[str, Any], head: int) -> str:
    """A build in one line."""
    match build["purpose"]:
        case "kept":
            return f"schema {build['schema_name']} keeps what a rebuild replaced: `evosense rollback` brings it back"
        case "replay":
            return f"schema {build['schema_name']} shows the read models as they were at position {build['until']:,}"
    return (
        f"a {build['purpose']} in schema {build['schema_name']} is {build['state']}, at position "
        f"{build['position']:,} of {head:,}"
    )


def _backlog_table(backlog: list[Waiting]) -> Table:
    """What waits for models behind servers, the one that has waited longest first (docs/outages.md)."""
    total = sum(one.messages for one in backlog)
    table = Table(
        "tenant", "wants", "messages", "in hand", "since", "put off because", title=f"{total:,} answers of models wait"
    )
    for column in table.columns[2:4]:
        column.justify = "right"
    for one in backlog[:_MOST]:
        since = f"{one.since:%Y-%m-%d %H:%M:%S %Z}"
        cells = (str(one.tenant_id), one.wants, f"{one.messages:,}", f"{one.in_hand:,}", since)
        table.add_row(*cells, escape(one.reason or ""))
    if len(backlog) > _MOST:
        table.caption = f"and {len(backlog) - _MOST:,} more: `evosense monitor model_backlog` shows them"
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
