"""`evosense rebuild`: make the read models again from the log."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adapters.migrations import require_current_schema
from api.cli.installation import configured
from api.cli.screen import console
from api.wiring import read_side, write_side
from projections.catalog import all_projections
from projections.rebuild import rebuild as rebuild_all


def rebuild() -> None:
    """Drop every row of the read models and make them again from the log: the same rows, ids included.

    It commits whole or leaves everything as it was; queries wait for it meanwhile. No event is published, and no
    model is asked. It stops at the first event that can't be projected, and says where.
    """
    with configured(start=True) as settings:
        require_current_schema(settings.runtime_dsn)
        write = write_side(settings)
        head = write.log.head()
        write.close()
        side = read_side(settings)
        started = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console) as progress, side.connect() as conn:
                bar = progress.add_task("events", total=head)
                report = rebuild_all(
                    side.engine, all_projections(), conn, lambda _, position: progress.update(bar, completed=position)
                )
                progress.update(bar, completed=head)
        finally:
            side.close()
    seconds = time.monotonic() - started
    table = Table("table", "rows", title=f"{report.events:,} events in {seconds:.1f} s")
    table.columns[1].justify = "right"
    for name, rows in report.rows.items():
        table.add_row(name, f"{rows:,}")
    console.print(table)
