"""`evosense vector`: the vector index, shown, kept as tenants grow, and made anew."""

import json
import signal
import threading
import time
from typing import Annotated
from uuid import UUID

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from adapters.migrations import require_current_schema
from adapters.settings import Settings
from adapters.telemetry import configure_logging
from api.cli.installation import configured
from api.cli.roles import Supervised, end_with_parent
from api.cli.screen import CommandError, console
from api.wiring import vector_index
from projections.vector_index import Busy, Standing, Step

app = typer.Typer(help="The vector index: status, maintain, reindex.", no_args_is_help=True)

Tenant = Annotated[UUID | None, typer.Option("--tenant", help="Only this tenant's.")]


@app.command()
def status(
    tenant: Tenant = None,
    sample: Annotated[
        int, typer.Option("--sample", min=0, max=1000, help="Questions for the recall of each tenant; 0: none.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """Show size and coverage of each tenant's vector index, and its recall beside exact search.

    The recall is of the 20 nearest, asked with some of the tenant's own vectors; a tenant without an index is always
    searched exactly.
    """
    with configured(start=True) as settings:
        require_current_schema(settings.runtime_dsn)
        index = vector_index(settings)
        standings = index.standings(tenant)
        if tenant is not None and not standings:
            raise CommandError(f"tenant {tenant} has no vectors, or there is no such tenant")
        recalls = {
            (one.tenant_id, one.model): index.recall(one, sample) if one.segments and sample else None
            for one in standings
        }
    rows = [_row(one, recalls[one.tenant_id, one.model]) for one in standings]
    if as_json:
        console.print_json(json.dumps(rows, default=str))
        return
    console.print(_table(rows) if rows else "there are no vectors yet")


@app.command()
def reindex(tenant: Tenant = None) -> None:
    """Make vector indexes anew beside the old ones, which answer until then; writes go on. Then make what is due."""
    with configured(start=True) as settings:
        require_current_schema(settings.runtime_dsn)
        try:
            with console.status("looking"):
                made = vector_index(settings).reindex(tenant, _told)
        except Busy as error:
            raise CommandError(str(error)) from None
    console.print(_made(made) if made else "no tenant has enough vectors for an index: they are searched exactly")


@app.command()
def maintain(
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two looks.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Make what is due, and end.")] = False,
    supervised: Supervised = False,
) -> None:
    """Make vector indexes as tenants grow, until told to stop. One process at a time does it; others stand by.

    Needs [bold]EVOSENSE_ADMIN_DATABASE_URL[/]: an index is made by the owner of its table.
    """
    if once:
        with configured(start=True) as settings:
            require_current_schema(settings.runtime_dsn)
            try:
                made = vector_index(settings).maintain(_told)
            except Busy as error:
                raise CommandError(str(error)) from None
        console.print(_made(made) if made else "nothing is due")
        return
    settings = Settings.load()
    configure_logging(settings.log_level, settings.log_format)
    require_current_schema(settings.runtime_dsn)
    index = vector_index(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if supervised:
        end_with_parent()
    index.keep(stop, every)


def _made(number: int) -> str:
    return f"{number:,} vector {'index' if number == 1 else 'indexes'} made"


def _told(standing: Standing, step: Step) -> None:
    what = f"an index of {step.vectors:,} vectors" if step.vectors else "no index any more"
    in_place = f", in the place of {len(step.replaced)}" if step.replaced and step.vectors else ""
    console.print(f"{time.strftime('%H:%M:%S')} {escape(standing.name)} ({escape(standing.model)}): {what}{in_place}")


def _row(one: Standing, recall: float | None) -> dict[str, object]:
    indexed = one.vectors - one.tail - sum(s.live for s in one.segments if not s.index_name)
    return {
        "tenant": one.name,
        "tenant_id": one.tenant_id,
        "model": one.model,
        "vectors": one.vectors,
        "indexes": sum(bool(s.index_name) for s in one.segments),
        "indexed": indexed,
        "coverage": round(indexed / one.vectors, 4) if one.vectors else None,
        "bytes": one.index_bytes,
        "recall": None if recall is None else round(recall, 4),
    }


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table("tenant", "model", "vectors", "indexes", "indexed", "size", "recall@20", title="vector index")
    table.columns[1].overflow = "fold"  # half of a model's name is none
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        coverage, recall = row["coverage"], row["recall"]
        table.add_row(
            escape(str(row["tenant"])),
            escape(str(row["model"])),
            f"{row['vectors']:,}",
            str(row["indexes"]),
            f"{coverage:.0%}" if row["indexes"] else "exact",
            decimal(int(str(row["bytes"]))),
            "" if recall is None else f"{recall:.3f}",
        )
    return table
