"""`evosense replay`: the read models as they were."""

import time
from datetime import datetime
from typing import Annotated

import typer

from api.cli.projecting import Disk, Watched, bar, projecting
from api.cli.screen import CommandError, console
from projections.builds import BuildError
from projections.catalog import all_projections
from projections.replay import forget, position_at
from projections.replay import replay as make


def replay(
    schema: Annotated[str, typer.Option("--schema", help="Name of the schema to make, such as `march`.")],
    until: Annotated[
        str | None,
        typer.Option("--until", help="A position of the log, or a moment such as 2026-03-31T23:59:59-03:00."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the schema of an earlier replay.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Begin though the disk may be too small.")] = False,
) -> None:
    """Make the read models as they were at a position or a moment, in a schema of their own that can be queried.

    The schema has the documented tables, views and `semantic_search`, with the same rules about who sees which rows.
    What an event recorded later is not in it.
    """
    if drop == (until is not None):
        raise CommandError("give either --until with a position or a moment, or --drop")
    try:
        with projecting() as (settings, side):
            if drop:
                forget(side.builder, schema)
                console.print(f"dropped schema {schema}")
                return
            disk = Disk(settings)
            with side.builder.connect() as conn:
                position = _position(str(until)) if str(until).isdecimal() else position_at(conn, _moment(str(until)))
                disk.require(conn, [projection.name for projection in all_projections()], anyway=anyway)
            started = time.monotonic()
            with bar() as progress:
                watched = Watched(progress, disk)
                make(
                    side.builder,
                    schema,
                    position,
                    lambda events, reached: watched.loaded(events, reached, position),
                    watched.making,
                )
    except BuildError as error:
        raise CommandError(str(error)) from None
    console.print(
        f"schema {schema} shows the read models as they were at position {position:,} "
        f"({time.monotonic() - started:.1f} s). `SET search_path = {schema}, public` and query it; "
        f"`evosense replay --schema {schema} --drop` drops it",
        soft_wrap=True,
    )


def _position(text: str) -> int:
    if len(text) > 18:
        raise CommandError(f"--until {text} is beyond any position")
    return int(text)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--until {text!r} is neither a position nor a moment such as 2026-03-31T23:59:59-03:00"
        ) from None
    if moment.tzinfo is None:
        raise CommandError(f"--until {text}: say in which time zone, such as {text}-03:00 or {text}Z")
    return moment
