"""`evosense connections`: the Evolution instances of all tenants, what came from them, and whether they answer."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from adapters.migrations import require_current_schema
from api.activity import totals
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from api.connection_probe import ConnectionTest, probed, token_of
from api.connections import PATH
from api.known_connections import known_connections
from api.wiring import WriteSide, write_side
from domain.connections import Connection, connection
from sql import queries

app = typer.Typer(help="The connections of all tenants: list, test.", no_args_is_help=True)

_ACTIVITY: Final = queries("activity")


@app.command("list")
def list_() -> None:
    """Show every connection with its state, its last message, and what became of what it sent."""
    with _write_side() as write:
        found = known_connections(write)
        ids = [one.id for one in found]
        counted: defaultdict[UUID, list[dict[str, Any]]] = defaultdict(list)
        with write.datastore.get_connection() as conn:
            for row in _ACTIVITY.totals(conn, connection_ids=ids):
                counted[row["connection_id"]].append(row)
            last = {row["connection_id"]: row for row in _ACTIVITY.last(conn, connection_ids=ids)}
    if not found:
        console.print("there are no connections")
        return
    table = Table(show_lines=True)
    table.add_column("connection", no_wrap=True)  # an id that is broken in two can't be copied
    for title in ("state", "last message", "came"):
        table.add_column(title)
    for one in found:
        seen = last.get(one.id, {})
        inactive = "" if one.is_active else "\n[yellow]not active[/]"
        table.add_row(
            f"[bold]{escape(one.name)}[/]\n{one.id}\ntenant:\n{one.tenant_id}",
            _state(one) + inactive,
            _moment(seen.get("message_at")),
            "\n".join(f"{number:,} {outcome}" for outcome, number in totals(counted[one.id]).items()),
        )
    console.print(table)


@app.command()
def test(
    identifier: Annotated[UUID, typer.Argument(metavar="ID", help="The connection's UUID, as `list` shows it.")],
) -> None:
    """Ask a connection's Evolution server: is it there, is the token right, is the instance online?

    Changes nothing. Exits with 1 where something is wrong.
    """
    with _write_side() as write:
        source = write.log.load(connection(identifier))
        if source.tenant_id is None:
            raise CommandError(f"there is no connection {identifier}: `evosense connections list` shows all")
        token = token_of(write.vault, source)
    told = asyncio.run(probed(source, token, f"{PATH}/{identifier}"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for name, value in _lines(told):
        grid.add_row(name, escape(value))
    console.print(grid)
    if not told.ok:
        raise CommandError(told.detail or "the connection does not work")


@contextmanager
def _write_side() -> Iterator[WriteSide]:
    with configured(start=False) as settings:
        require_current_schema(settings.runtime_dsn)
        write = write_side(settings)
        try:
            yield write
        finally:
            write.close()


def _state(one: Connection) -> str:
    if one.instance is None:
        return "not told"
    reason = f" ({one.instance.reason})" if one.instance.reason is not None and one.instance.state == "close" else ""
    told = f"{one.instance.state}{reason}, {_moment(one.instance.at)}"
    return told if one.instance.state == "open" else f"[yellow]{told}[/]"


def _lines(told: ConnectionTest) -> Iterator[tuple[str, str]]:
    unknown = "answers" if told.reached else "does not answer"
    yield "server", f"Evolution API {told.version}" if told.version else unknown
    if told.latency_ms is not None:
        yield "answered in", f"{told.latency_ms} ms"
    for name, value in (("token", told.token_ok), ("instance", told.instance_found)):
        yield name, {True: "right", False: "wrong", None: "not known"}[value]
    yield "state", told.state or "not known"
    missing = f" ({', '.join(told.events_missing)})" if told.events_missing else ""
    yield "its webhook", told.webhook + missing


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "never"
