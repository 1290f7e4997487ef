"""`evosense import`: bring a history of messages into the log."""

import time
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from eventsourcing.persistence import PersistenceError
from rich.console import Group
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from adapters.migrations import require_current_schema
from api.cli.installation import configured
from api.cli.screen import CommandError, console
from api.commands import Contended
from api.importing import HelperLost, Progress, Refused, Report, Source, SourceError, Tally, import_source, open_source
from api.receiving import Origin
from api.wiring import WriteSide, write_side
from domain.connections import connection, connection_id
from domain.errors import Invalid

_AGAIN = "start the same command again and it goes on where it was"


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A .jsonl file (a message {key, message, …} or an envelope {event, data, …} a line), "
            "or a directory of .json files with messages.set or messages.upsert payloads.",
            show_default=False,
        ),
    ],
    connection: Annotated[
        str,
        typer.Option(help="The connection's UUID, the last part of its webhook address; or its name, with --tenant."),
    ],
    tenant: Annotated[
        UUID | None,
        typer.Option(help="The tenant's UUID: needed with a connection's name, which is unique in its tenant alone."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Read from the start again; what is stored stays, and is not doubled.")
    ] = False,
) -> None:
    """Bring a history of messages, their edits and deletions into the log, as if each had come by the webhook.

    Can be stopped and started again at any time: it goes on where it was, and what is stored already is recognised.
    The system may be up meanwhile or not.
    """
    started = time.monotonic()
    try:
        opened = open_source(source)
        with configured(start=True) as settings:
            require_current_schema(settings.runtime_dsn)
            write = write_side(settings)
            try:
                origin = _origin(write, connection, tenant)
                with _bar() as bar:
                    task = bar.add_task("", total=opened.size, recorded=0, rate=0)
                    report = import_source(
                        write, settings, opened, origin, restart=restart, on_progress=_Shown(bar, task).update
                    )
            finally:
                write.close()
    except (SourceError, HelperLost) as error:
        raise CommandError(str(error)) from None
    except (PersistenceError, Contended) as error:
        raise CommandError(f"the database can't be worked with ({type(error).__name__}): {_AGAIN}") from None
    except KeyboardInterrupt:
        console.print(f"stopped: {_AGAIN}")
        raise
    console.print(_summary(opened, report, time.monotonic() - started))


def _origin(write: WriteSide, given: str, tenant_id: UUID | None) -> Origin:
    """The connection that the messages are to come from. Raises `CommandError`."""
    identifier = _uuid(given)
    if identifier is None:
        if tenant_id is None:
            raise CommandError(
                f"a connection's name is unique in its tenant alone: add --tenant with the UUID of {given!r}'s tenant, "
                "or give the connection's UUID, which is the last part of its webhook address"
            )
        try:
            identifier = connection_id(tenant_id, given)
        except Invalid as error:
            raise CommandError(str(error)) from None
    found = write.log.load(connection(identifier))
    if found.tenant_id is None or tenant_id not in (None, found.tenant_id):
        where = f" of tenant {tenant_id}" if tenant_id else ""
        raise CommandError(f"there is no connection {given!r}{where}: `evosense connections list` shows all")
    if not found.is_active:
        raise CommandError(f"the connection {found.name!r} is deactivated: activate it before you import")
    return Origin(identifier, found.tenant_id, found.company_sender)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _bar() -> Bar:
    return Bar(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[recorded]:,} recorded"),
        TextColumn("{task.fields[rate]:,}/s"),
        TimeRemainingColumn(),
        console=console,
    )


class _Shown:
    """Moves the bar, and knows how fast it goes."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._started = time.monotonic()

    def update(self, progress: Progress) -> None:
        """Show what is done."""
        recorded, seconds = progress.tally.recorded, time.monotonic() - self._started
        rate = round(recorded / seconds) if recorded else 0
        self._bar.update(self._task, completed=progress.size, recorded=recorded, rate=rate)


def _summary(source: Source, report: Report, seconds: float) -> Group:
    """What a person wants to know at the end."""
    lines: list[Text | Table] = []
    whole = report.began_size == 0
    if not whole:
        where = f"line {report.began.line:,}" if report.began.line else f"file {report.began.offset:,}"
        nothing = report.began_size >= source.size
        lines.append(
            Text("nothing is left to do: an earlier run imported this source (--restart reads it again)")
            if nothing
            else Text(f"went on behind {where}, where an earlier run had come to")
        )
    table = Table("", "this run", *(() if whole else ("all runs",)), title=f"{seconds:.1f} s")
    for column in table.columns[1:]:
        column.justify = "right"
    tallies = [report.run] if whole else [report.run, report.total]

    def row(name: str, *numbers: int) -> None:
        table.add_row(escape(name), *(f"{number:,}" for number in numbers))

    row("stored", *(tally.stored for tally in tallies))
    row("edits and deletions", *(tally.announced for tally in tallies))
    row("duplicates", *(tally.duplicates for tally in tallies))
    for what in sorted({what for tally in tallies for what in tally.ignored}):
        row(f"ignored, {what}", *(tally.ignored.get(what, 0) for tally in tallies))
    row("refused", *(tally.refused for tally in tallies))
    lines.append(table)
    lines += _refusals(source, report.total)
    return Group(*lines)


def _refusals(source: Source, tally: Tally) -> list[Text]:
    """Where what was refused stands, and why."""
    lines = [Text(f"refused: {_place(source, refused)}: {refused.reason}") for refused in tally.refusals]
    if tally.refused > len(lines):
        lines.append(Text(f"refused: and {tally.refused - len(lines):,} more"))
    return lines


def _place(source: Source, refused: Refused) -> str:
    line = f":{refused.line}" if refused.line else ""
    message = f", message {refused.message}" if refused.message else ""
    return f"{source.name(refused.file)}{line}{message}"
