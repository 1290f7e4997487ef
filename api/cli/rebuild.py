"""`evosense rebuild` and `evosense rollback`: the read models made afresh beside the live ones, and swapped in."""

import time
from typing import Annotated

import typer
from rich.table import Table

from api.cli.projecting import Disk, Watched, bar, projecting
from api.cli.screen import CommandError, console
from api.crew import MOST, ProcessCrew, crew_size
from projections.builds import BuildError, chosen
from projections.catalog import all_projections
from projections.rebuild import RebuildReport, forget_kept
from projections.rebuild import rebuild as rebuild_these
from projections.rebuild import rollback as roll_back

Contexts = Annotated[
    list[str] | None,
    typer.Argument(help="Which ones: tenancy, authn, connections, messages, … All of them where none is named."),
]


def rebuild(
    contexts: Contexts = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the old tables, for `evosense rollback`.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Begin though the disk may be too small.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=MOST, help="Processes that read the log; as many as there are cores."),
    ] = None,
) -> None:
    """Make the read models again from the log, beside the live ones, and swap them in: the same rows, ids included.

    Everything goes on meanwhile; queries wait for milliseconds when the tables are swapped. No event is published and
    no model is asked. Stopped or killed, it goes on where it was when it is run again. It stops at the first event that
    can't be projected and says which; nothing that is live has changed then.
    """
    names = contexts or [projection.name for projection in all_projections()]
    try:
        chosen(names)
        # The crew first: it is forked, and nothing is open yet that it could inherit.
        with ProcessCrew(crew_size(jobs)) as crew, projecting() as (settings, side):
            crew.enlist(settings)
            disk = Disk(settings)
            with side.builder.connect() as conn:
                disk.require(conn, names, anyway=anyway)
            started = time.monotonic()
            with bar() as progress:
                watched = Watched(progress, disk)
                report = rebuild_these(side.builder, names, watched, keep=keep, crew=crew if crew.size > 1 else None)
    except BuildError as error:
        raise CommandError(str(error)) from None
    _show(report, time.monotonic() - started)


def rollback(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the tables that are live now, to return to them.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Drop what was kept instead; nothing is swapped.")] = False,
) -> None:
    """Bring back the tables that the last `evosense rebuild --keep` replaced, up to date with the log.

    The projectors of this program bring them up to date. To undo a change of a projector, install the program from
    before the change, and then roll back.
    """
    try:
        with projecting() as (settings, side):
            if forget:
                with side.builder.connect() as conn:
                    dropped = forget_kept(side.builder, conn)
                console.print(f"dropped {', '.join(dropped)}" if dropped else "nothing was kept")
                return
            started = time.monotonic()
            with bar() as progress:
                report = roll_back(side.builder, Watched(progress, Disk(settings)), keep=keep)
    except BuildError as error:
        raise CommandError(str(error)) from None
    _show(report, time.monotonic() - started)


def _show(report: RebuildReport, seconds: float) -> None:
    console.print(
        f"{report.events:,} events in {seconds:.1f} s; live up to position {report.position:,}", soft_wrap=True
    )
    table = Table("table", "rows")
    table.columns[1].justify = "right"
    for name, rows in report.rows.items():
        table.add_row(name, f"{rows:,}")
    console.print(table)
    if report.kept:
        console.print(
            f"the old tables are in schema {report.kept}: `evosense rollback` brings them back, "
            "`evosense rollback --forget` drops them",
            soft_wrap=True,
        )
    for key in report.invalid:
        console.print(
            f"[yellow]rows of other tables don't fit: foreign key {key} is not valid. Rebuild those, too[/]",
            soft_wrap=True,
        )
