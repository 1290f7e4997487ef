"""`evosense parked`: events that were set aside, trying them again, and leaving them out for good."""

from typing import Annotated, Any, Final
from uuid import UUID

import nats.errors
import typer
from rich.markup import escape
from rich.table import Table

from adapters.settings import Settings, SettingsError
from api.cli.projecting import projecting
from api.cli.screen import CommandError, console
from api.parked import send_again
from api.parking import SUBSCRIBER as WORKER
from api.wiring import ReadSide
from projections.catalog import all_projections
from projections.parking import HELD_BACK, SUBSCRIBER
from sql import queries

app = typer.Typer(help="Events that were set aside: list, show, retry, skip.", no_args_is_help=True)

Positions = Annotated[list[int] | None, typer.Argument(help="Positions in the log.", min=1)]
_ENGINE: Final = queries("engine")


@app.command("list")
def list_(
    most: Annotated[int, typer.Option("--most", min=1, help="How many to show.")] = 50,
) -> None:
    """Show what is parked and why, in the order of the log, and what was skipped."""
    with projecting() as (_, side), side.connect() as conn:
        parked, skipped = list(_ENGINE.parked(conn)), list(_ENGINE.skipped(conn))
    console.print(parked_table(parked, most) if parked else "nothing is parked")
    if skipped:
        table = Table("position", "event", "tenant", "skipped", "because", title=f"{len(skipped):,} events are skipped")
        for row in skipped[:most]:
            table.add_row(
                f"{row['position']:,}",
                row["event_type"],
                str(row["tenant_id"] or ""),
                f"{row['skipped_at']:%Y-%m-%d %H:%M:%S %Z}",
                escape(row["reason"]),
            )
        console.print(table)


@app.command()
def show(position: Annotated[int, typer.Argument(help="Position in the log.", min=1)]) -> None:
    """Show all that is known of a parked event, and what waits behind it."""
    with projecting() as (_, side), side.connect() as conn:
        rows = [row for row in _ENGINE.parked(conn) if row["position"] == position]
        streams = {row["stream_id"] for row in rows}
        behind = [
            row["position"]
            for row in _ENGINE.parked(conn)
            if row["stream_id"] in streams and row["position"] > position and row["reason"] == HELD_BACK
        ]
    if not rows:
        raise CommandError(f"no event is parked at position {position}: `evosense parked list` shows those that are")
    for row in rows:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        for name in ("subscriber", "position", "event_type", "tenant_id", "stream_id", "reason", "attempts"):
            table.add_row(name.replace("_", " "), escape(str(row[name] if row[name] is not None else "unknown")))
        table.add_row("parked at", f"{row['parked_at']:%Y-%m-%d %H:%M:%S %Z}")
        if row["projections"]:
            table.add_row("projections", ", ".join(row["projections"]))
        if behind:
            table.add_row("held back", f"{len(behind):,} later events of its stream, the first at {behind[0]:,}")
        console.print(table)
    console.print(
        f"its stream: `evosense history` shows it event by event. When the cause is gone: `evosense parked retry "
        f"{position}`",
        soft_wrap=True,
    )


@app.command()
def retry(
    positions: Positions = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is parked, in the log's order.")] = False,
) -> None:
    """Try parked events again, now. What was held back behind one that goes through is tried as well.

    Exits with 1 where any is still parked afterwards.
    """
    if bool(positions) == everything:
        raise CommandError("say which: positions of the log, or --all")
    with projecting() as (settings, side):
        with side.connect() as conn:
            rows = list(_ENGINE.parked(conn))
        if everything and not rows:
            console.print("nothing is parked")
            return
        chosen = {row["position"] for row in rows} if everything else set(positions or ())
        if unknown := chosen - {row["position"] for row in rows}:
            raise CommandError(f"no event is parked at position {', '.join(map(str, sorted(unknown)))}")
        failed = _retry_projections(side, None if everything else _streams(rows, chosen))
        _retry_worker(settings, [row["position"] for row in rows if row["subscriber"] == WORKER], chosen)
    if failed:
        raise CommandError(f"{failed:,} events are still parked: see `evosense parked list`")


@app.command()
def skip(
    position: Annotated[int, typer.Argument(help="Position in the log.", min=1)],
    reason: Annotated[str, typer.Option("--reason", help="Why it may be left out: kept, and shown. No personal data.")],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also where it is not parked, such as an event that a rebuild stopped at.")
    ] = False,
) -> None:
    """Leave a parked event out of the read models for good: a rebuild leaves it out, too.

    The event stays in the log. What was held back behind it is tried at once.
    """
    if not reason.strip():
        raise CommandError("--reason is empty: say why the event may be left out")
    with projecting() as (_, side):
        with side.connect() as conn:
            rows = list(_ENGINE.parked(conn))
            ours = [row for row in rows if row["position"] == position]
            if not ours and not anyway:
                raise CommandError(
                    f"no event is parked at position {position}: one that a rebuild stopped at is skipped with --anyway"
                )
            if not ours and not side.parked.skip(conn, position, reason.strip(), unparked=True):
                raise CommandError(f"the log holds no event at position {position}")
            if any(row["reason"] == HELD_BACK for row in ours):
                raise CommandError(
                    f"the event at position {position} is only held back behind an earlier one of its stream: "
                    "retry or skip that one"
                )
            for row in ours:
                if row["subscriber"] == SUBSCRIBER:
                    side.parked.skip(conn, position, reason.strip())
                else:
                    _ENGINE.unpark(conn, subscriber=WORKER, position=position)
        console.print(f"skipped the event at position {position:,}")
        if had := _already_projected(ours):
            names = " ".join(had)
            console.print(
                f"its rows of before stay where it was projected already: `evosense rebuild {names}` leaves them out",
                soft_wrap=True,
            )
        _retry_projections(side, _streams(rows, {position}))


def parked_table(rows: list[dict[str, Any]], most: int) -> Table:
    """Parked events as `evosense status` shows them, too."""
    table = Table(
        "subscriber", "position", "event", "tenant", "tries", "reason", title=f"{len(rows):,} events are parked"
    )
    for row in rows[:most]:
        table.add_row(
            row["subscriber"],
            f"{row['position']:,}",
            row["event_type"],
            str(row["tenant_id"] or ""),
            str(row["attempts"]),
            escape(row["reason"]),
        )
    if len(rows) > most:
        table.caption = f"and {len(rows) - most:,} more"
    return table


def _already_projected(parked: list[dict[str, Any]]) -> list[str]:
    """Projections that read an event's type and have not parked it, as after a rebuild of some of them alone.

    Nothing where it was parked by no projection: then there is none that has come past it, or all of them have.
    """
    ours = [row for row in parked if row["subscriber"] == SUBSCRIBER and row["projections"] is not None]
    return [
        projection.name
        for row in ours
        for projection in all_projections()
        if projection.name not in row["projections"]
        and row["event_type"].rpartition(":")[0] in {event.type_name for event in projection.events}
    ]


def _streams(rows: list[dict[str, Any]], chosen: set[int]) -> set[UUID]:
    """The streams of what the projections have parked at these positions."""
    return {row["stream_id"] for row in rows if row["subscriber"] == SUBSCRIBER and row["position"] in chosen}


def _retry_projections(side: ReadSide, streams: set[UUID] | None) -> int:
    """Retry what is parked of these streams, or of all; returns how many still wait."""
    failed = 0
    with side.connect() as conn:
        for result in side.parked.retry_streams(conn, streams):
            if result.outcome == "projected":
                console.print(f"projected the event at position {result.position:,}")
            elif result.outcome in ("failed", "waiting"):
                failed += 1
                if result.outcome == "failed":
                    console.print(f"[red]still parked:[/] position {result.position:,}: {escape(result.reason or '')}")
    return failed


def _retry_worker(settings: Settings, parked: list[int], chosen: set[int]) -> None:
    wanted = sorted(chosen.intersection(parked))
    if not wanted:
        return
    try:
        sent = send_again(settings, wanted)
    except (nats.errors.Error, OSError, TimeoutError, SettingsError) as error:
        raise CommandError(
            f"{len(wanted):,} events that the worker parked can't be sent to it again ({type(error).__name__}): is "
            "NATS running, and EVOSENSE_NATS_URL right?"
        ) from None
    for position in sent:
        console.print(f"sent the event at position {position:,} to the worker again")
