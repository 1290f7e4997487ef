"""`evosense backfill`: fetch what Evolution has of a connection's messages since a date."""

import asyncio
import re
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import typer
from eventsourcing.persistence import PersistenceError
from rich.console import Group
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from adapters.evolution_api import EvolutionError
from adapters.evolution_messages import EvolutionMessages
from adapters.migrations import require_current_schema
from api.catching_up import Catcher, Caught, client_of, utc_now
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from api.known_connections import known_connections
from api.wiring import WriteSide, write_side
from domain.connections import Connection, connection, connection_id
from domain.errors import Invalid
from sql import queries

_STEP: Final = timedelta(days=1)
_TRIES: Final = 5
_RELATIVE: Final = re.compile(r"([1-9][0-9]{0,4})\s*([mhdw])", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
#: WhatsApp appeared in 2009.
_EARLIEST: Final = datetime(2009, 1, 1, tzinfo=UTC)
_SWEEPING: Final = queries("sweeping")


class _Run:
    """What a backfill has done so far: it has to be told when the run is broken off, too."""

    def __init__(self) -> None:
        self.done: datetime | None = None  # everything up to then is recorded
        self.caught = Caught()


def backfill(
    connection: Annotated[
        str, typer.Option(help="The connection's name; or its UUID, the last part of its webhook address.")
    ],
    since: Annotated[
        str, typer.Option(help="From when: 2026-11-01, 2026-11-01T08:00-03:00 (UTC without a zone), 3d or 12h ago.")
    ],
    until: Annotated[str | None, typer.Option(help="Up to when, likewise; now where it is left out.")] = None,
    tenant: Annotated[
        UUID | None, typer.Option(help="The tenant's UUID, where several have a connection of that name.")
    ] = None,
) -> None:
    """Fetch what Evolution has of a connection's messages since a date, over its API.

    What is stored already is recognised, so the command can be stopped and given again at any time. The system may be
    up meanwhile or not.
    """
    now = utc_now()
    begin, end = _moment("--since", since, now), _moment("--until", until, now) if until else now
    if begin >= end:
        raise CommandError(f"there is nothing between {begin.isoformat()} and {end.isoformat()}: --since is not before")
    started, run = time.monotonic(), _Run()
    try:
        with configured(start=True) as settings:
            require_current_schema(settings.runtime_dsn)
            write = write_side(settings)
            try:
                source = _source(write, connection, tenant)
                with _bar() as bar:
                    asyncio.run(_fetch(write, source, begin, end, run, bar))
                _filled(write, source, begin, end)
            finally:
                write.close()
    except EvolutionError as error:
        raise CommandError(f"Evolution: {error}. {_so_far(run)}") from None
    except PersistenceError as error:
        raise CommandError(f"the database can't be worked with ({type(error).__name__}). {_so_far(run)}") from None
    except KeyboardInterrupt:
        console.print(f"stopped. {_so_far(run)}")
        raise
    console.print(_summary(run.caught, time.monotonic() - started))


async def _fetch(write: WriteSide, source: Connection, since: datetime, until: datetime, run: _Run, bar: Bar) -> None:
    task = bar.add_task("", total=(until - since).total_seconds(), messages=0, new=0)

    def on_page(page: Caught) -> None:
        run.caught.add(page)
        messages = run.caught.new + run.caught.duplicates
        bar.update(task, messages=messages, new=run.caught.new)

    async with client_of(write, source) as client:
        messages = EvolutionMessages(client, tries=_TRIES)
        catcher = Catcher(write, source, messages, clock=utc_now)
        async with aclosing(catcher.windows(since, until, _STEP, on_page)) as windows:
            async for end, _ in windows:
                run.done = end
                bar.update(task, completed=(end - since).total_seconds())
        bar.update(task, completed=(until - since).total_seconds())


def _source(write: WriteSide, given: str, tenant_id: UUID | None) -> Connection:
    """The connection that is meant. Raises `CommandError`."""
    try:
        identifiers = [UUID(given)]
    except ValueError:
        try:
            if tenant_id is not None:
                identifiers = [connection_id(tenant_id, given)]
            else:
                identifiers = [one.id for one in known_connections(write, given.strip())]
        except Invalid as error:
            raise CommandError(str(error)) from None
    if len(identifiers) > 1:
        which = "; ".join(f"{one.id} of tenant {one.tenant_id}" for one in known_connections(write, given.strip()))
        raise CommandError(f"several tenants have a connection {given!r}: give its UUID, or --tenant ({which})")
    found = write.log.load(connection(identifiers[0])) if identifiers else None
    if found is None or found.tenant_id is None or tenant_id not in (None, found.tenant_id):
        where = f" of tenant {tenant_id}" if tenant_id else ""
        raise CommandError(f"there is no connection {given!r}{where}: `evosense connections list` shows all")
    if not found.is_active:
        raise CommandError(f"the connection {found.name!r} is deactivated: activate it before you fetch its messages")
    return found


def _moment(option: str, given: str, now: datetime) -> datetime:
    """The moment that is meant. Raises `CommandError`."""
    text = given.strip()
    if found := _RELATIVE.fullmatch(text.lower()):
        return max(_EARLIEST, now - timedelta(**{_UNITS[found[2]]: int(found[1])}))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{option} {given!r} is no moment: write a date (2026-11-01), a date with a time (2026-11-01T08:00-03:00; "
            "UTC without a zone), or how long ago it was (30m, 12h, 3d, 2w)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment < _EARLIEST:
        raise CommandError(f"{option} {given!r} is before WhatsApp: there is nothing earlier than 2009")
    if moment > now:
        raise CommandError(f"{option} {given!r} has yet to come")
    return moment.astimezone(UTC)


def _filled(write: WriteSide, source: Connection, since: datetime, until: datetime) -> None:
    with write.datastore.get_connection() as conn:
        _SWEEPING.filled(conn, connection_id=source.id, since=since, until=until)


def _so_far(run: _Run) -> str:
    if run.done is None:
        return f"{run.caught.new:,} new messages are recorded so far: the same command goes on"
    return (
        f"Everything up to {run.done:%Y-%m-%dT%H:%M:%SZ} is recorded ({run.caught.new:,} new messages so far): give "
        "the command again, with that as --since if you like"
    )


def _bar() -> Bar:
    return Bar(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[messages]:,} messages, {task.fields[new]:,} new"),
        TimeRemainingColumn(),
        console=console,
    )


def _summary(caught: Caught, seconds: float) -> Group:
    table = Table("", "messages", title=f"{seconds:.1f} s")
    table.columns[1].justify = "right"
    for name, number in (
        ("seen", caught.seen),
        ("new", caught.new),
        ("duplicates", caught.duplicates),
        *((f"ignored, {what}", caught.ignored[what]) for what in sorted(caught.ignored)),
        ("refused", caught.refused),
    ):
        table.add_row(escape(name), f"{number:,}")
    lines: list[Text | Table] = [table]
    if not caught.seen:
        lines.append(
            Text("Evolution has nothing for that time: does it keep messages (DATABASE_SAVE_DATA_NEW_MESSAGE=true)?")
        )
    return Group(*lines)
