"""Rebuild: empty every read model and fold the whole log into them again, in one transaction.

Readers wait for it and never see a half: it either commits whole or leaves the old rows standing.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from projections.batch import Projection
from projections.engine import PROJECTED, SUBSCRIBER, Engine
from sql import queries

_ENGINE: Final = queries("engine")


class RebuildReport(msgspec.Struct, frozen=True):
    """What a rebuild took: events read, and rows in each table afterwards."""

    events: int
    rows: dict[str, int]


def rebuild(
    engine: Engine,
    projections: list[Projection],
    conn: Connection[Any],
    on_progress: Callable[[int, int], None],
) -> RebuildReport:
    """Drop the rows of all read models and make them again from the log; same rows, ids included (DESIGN rule 1).

    `conn` acts as the projector's role. `on_progress` is called with events so far and the position. Raises
    `PoisonEvent` and changes nothing where an event can't be projected.
    """
    tables = [table for projection in projections for table in projection.tables]
    with conn.transaction():
        _ENGINE.ensure_checkpoints(conn, projections=engine.names)
        # Running projectors wait for these locks, and go on from the position that the rebuild leaves.
        list(_ENGINE.lock_checkpoints(conn, projections=engine.names))
        names = SQL(", ").join(Identifier("evosense", table) for table in tables)
        # All in one statement: tables that point at one another can only be emptied together, and without CASCADE
        # nothing else is.
        conn.execute(SQL("TRUNCATE {}").format(names))
        _ENGINE.forget_parked(conn, subscriber=SUBSCRIBER)
        events = engine.replay_into(conn, on_progress)
        _ENGINE.notify(conn, channel=PROJECTED, payload="rebuilt")
        rows = {table: _count(conn, table) for table in tables}
    return RebuildReport(events, rows)


def _count(conn: Connection[Any], table: str) -> int:
    row = conn.execute(SQL("SELECT count(*) AS n FROM {}").format(Identifier("evosense", table))).fetchone()
    return int(row["n"]) if row else 0
