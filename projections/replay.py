"""Time travel: the read models as they were, as tables of a schema that can be queried like the live one."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from projections.audit import left_behind
from projections.build import Builder
from projections.builds import Build, BuildError, Missing, OnProgress
from projections.catalog import all_projections
from sql import queries

_BUILDS: Final = queries("builds")
_LOG: Final = queries("log")


def position_at(conn: Connection[Any], moment: datetime) -> int:
    """The last position that was recorded at or before a moment; 0 where there is none. `moment` has a time zone."""
    return int(_LOG.position_at(conn, moment=moment) or 0)


def replay(
    builder: Builder,
    schema: str,
    until: int,
    on_progress: OnProgress,
    on_step: Callable[[Missing, int, int], None],
) -> Build:
    """Make the read models as they were at position `until` in a schema of that name, with its indexes and views.

    Events that are parked or skipped now are left out. A build of the same schema and position that was interrupted
    goes on. Raises `BuildError` where the name is taken or is none, where another process is at it, or where the
    position is beyond the log; `PoisonEvent`.
    """
    with builder.connect() as conn:
        if until > (head := builder.head()):
            raise BuildError(f"the log ends at position {head}: there is no position {until} yet")
        build = _begun(builder, conn, schema, until)
        builder.load(conn, build, until, on_progress, leave_out=left_behind(conn, build.projections))
        builder.finish(conn, build, on_step)
        _BUILDS.build_publish(conn, schema=schema)
        return build


def forget(builder: Builder, schema: str) -> None:
    """Drop a replay. Raises `BuildError` where there is none of that name."""
    with builder.connect() as conn:
        for build in builder.builds(conn):
            if build.schema_name == schema and build.purpose == "replay":
                builder.drop(conn, build)
                return
    raise BuildError(f"there is no replay in a schema {schema}")


def _begun(builder: Builder, conn: Connection[Any], schema: str, until: int) -> Build:
    for build in builder.builds(conn):
        if build.schema_name == schema and build.purpose == "replay":
            same = build.until == until and builder.fits(conn, build)
            if same or build.state != "ready":
                builder.hold(conn, build)
            if same:
                return build  # where it is complete, nothing is left to be done
            if build.state != "ready":
                builder.drop(conn, build)
    names = [projection.name for projection in all_projections()]
    return builder.begin(conn, "replay", names, schema=schema, until=until)
