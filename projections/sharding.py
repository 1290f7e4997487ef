"""In how many tenant shards the projections run: changed while everything goes on."""

import time
from typing import Any, Final

from psycopg import Connection, Rollback

from projections.build import REBUILD_GUARD, Builder
from projections.catalog import all_projections
from projections.rebuild import AlreadyRunning
from sql import queries

#: A tenant's shard follows from one byte of its id.
MOST_SHARDS: Final = 256
_PAUSE_S: Final = 0.02

_ENGINE: Final = queries("engine")


class NotLevel(Exception):
    """The shards did not stand at one position for as long as it was tried."""


def lay_out(builder: Builder, shards: int, *, patience: float = 60.0) -> int:
    """Divide the projections into so many shards, from 1 to `MOST_SHARDS`; returns the position at which that was done.

    It is done at a moment at which all present shards stand at one position; running projectors notice, and share the
    new ones. Raises `NotLevel` where there is no such moment within `patience` seconds, `AlreadyRunning` beside a
    rebuild.
    """
    names = [projection.name for projection in all_projections()]
    deadline = time.monotonic() + patience
    with builder.guard(REBUILD_GUARD) as guard, builder.connect() as conn:
        if guard is None:
            raise AlreadyRunning("a rebuild, a rollback or a new layout of shards is running already")
        while True:
            position = _try(conn, names, shards)
            if position is not None:
                return position
            if time.monotonic() > deadline:
                raise NotLevel(
                    f"the shards did not stand at one position within {patience:g} s: is a projector running? "
                    "`evosense status` shows where they stand"
                )
            time.sleep(_PAUSE_S)


def _try(conn: Connection[Any], names: list[str], shards: int) -> int | None:
    with conn.transaction() as attempt:
        _ENGINE.ensure_checkpoints(conn, projections=names)
        positions = {row["position"] for row in _ENGINE.lock_checkpoints(conn, projections=names)}
        if len(positions) > 1:
            raise Rollback(attempt)
        position = positions.pop()
        _ENGINE.drop_checkpoints(conn, projections=names)
        _ENGINE.lay_out_shards(conn, projections=names, shards=shards, position=position)
        return int(position)
    return None
