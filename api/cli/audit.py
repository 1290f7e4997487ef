"""`evosense audit`: whether the tables say what the log says."""

import time
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from api.cli.projecting import Disk, Watched, bar, projecting
from api.cli.rebuild import Contexts
from api.cli.screen import CommandError, console
from projections.audit import AuditDisturbed, Auditor, AuditReport
from projections.builds import BuildError
from projections.catalog import all_projections


def audit(
    contexts: Contexts = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Compare a digest of each table and tenant, not row by row.")
    ] = False,
    tenant: Annotated[UUID | None, typer.Option("--tenant", help="Look at this tenant's rows only.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Differences to show of each table.")] = 10,
    anyway: Annotated[bool, typer.Option("--anyway", help="Begin though the disk may be too small.")] = False,
) -> None:
    """Make the read models again to the side, and compare them with the live tables at one position.

    Says that they are equal, or the first differences by table, id and column, and then exits with 1. Values are not
    shown. Nothing that is live is changed; queries and projectors go on.
    """
    names = contexts or [projection.name for projection in all_projections()]
    try:
        with projecting() as (settings, side):
            auditor = Auditor(side.builder, names, tenant_id=tenant, most=most)
            disk = Disk(settings)
            with side.builder.connect() as conn:
                disk.require(conn, names, anyway=anyway)
            started = time.monotonic()
            head = side.builder.head()
            with bar() as progress:
                watched = Watched(progress, disk)
                report = auditor.audit(
                    lambda events, position: watched.loaded(events, position, head),
                    fast=fast,
                    on_table=watched.comparing,
                )
    except (BuildError, AuditDisturbed) as error:
        raise CommandError(str(error)) from None
    _show(report, time.monotonic() - started)
    if not report.equal:
        raise typer.Exit(1)


def _show(report: AuditReport, seconds: float) -> None:
    rows = sum(report.rows.values())
    where = f"at position {report.position:,}: {rows:,} rows in {len(report.rows)} tables, {seconds:.1f} s"
    if report.parked:
        console.print(
            f"[yellow]{report.parked:,} parked events are in neither: see `evosense parked list`[/]", soft_wrap=True
        )
    if report.equal:
        console.print(f"[green]equal[/] {where}", soft_wrap=True)
        return
    console.print(f"[red]not equal[/] {where}", soft_wrap=True)
    if report.differences:
        table = Table("table", "id", "what", "columns")
        said = {"missing": "only the log has it", "extra": "only the table has it", "differs": "differs"}
        for one in report.differences:
            table.add_row(one.table, one.key, said[one.kind], ", ".join(one.columns))
        console.print(table)
    if report.digests:
        table = Table("table", "tenant", "rows", "rows by the log")
        for digest in report.digests:
            table.add_row(digest.table, str(digest.tenant_id or ""), f"{digest.live_rows:,}", f"{digest.log_rows:,}")
        console.print(table)
    console.print("`evosense rebuild` makes the tables say what the log says")
