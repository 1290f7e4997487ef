"""In how many tenant shards the projections run: changed while everything goes on."""

import time
from typing import Any, Final

from psycopg import Connection, Rollback

from projections.build import REBUILD_GUARD, Builder
from projections.catalog import all_projections
from projections.faults import PoisonEvent
from projections.folding import Folder
from projections.parking import fold
from projections.reading import LogReader, Part, read
from projections.rebuild import AlreadyRunning
from sql import queries

#: A tenant's shard follows from one byte of its id.
MOST_SHARDS: Final = 256
_PAUSE_S: Final = 0.02
#: How many positions the shards may be behind in all where they are brought level here.
_LAST_EVENTS: Final = 2_000

_ENGINE: Final = queries("engine")


class NotLevel(Exception):
    """The shards did not stand at one position for as long as it was tried."""


def lay_out(builder: Builder, shards: int, *, folder: Folder | None = None, patience: float = 60.0) -> int:
    """Divide the projections into so many shards, from 1 to `MOST_SHARDS`; returns the position at which that was done.

    It is done at a moment at which all present shards stand at one position; running projectors notice, and share the
    new ones. Where messages come in all the time there is hardly such a moment: with a `folder`, over all projections,
    shards that are a little behind the others are brought to where those are. Raises `NotLevel` where it was not to be
    done within `patience` seconds, `AlreadyRunning` beside a rebuild, `ValueError` for a number that is none.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise ValueError(f"{shards} shards are not possible: there can be 1 to {MOST_SHARDS}")
    names = [projection.name for projection in all_projections()]
    deadline = time.monotonic() + patience
    with builder.guard(REBUILD_GUARD) as guard, builder.connect() as conn:
        if guard is None:
            raise AlreadyRunning("a rebuild, a rollback or a new layout of shards is running already")
        while True:
            position = _try(conn, names, shards, builder.reader, folder)
            if position is not None:
                return position
            if time.monotonic() > deadline:
                raise NotLevel(
                    f"the shards did not stand at one position within {patience:g} s: is a projector running? "
                    "`evosense status` shows where they stand"
                )
            time.sleep(_PAUSE_S)


def _try(conn: Connection[Any], names: list[str], shards: int, reader: LogReader, folder: Folder | None) -> int | None:
    with conn.transaction() as attempt:
        _ENGINE.ensure_checkpoints(conn, projections=names)
        rows = list(_ENGINE.lock_checkpoints(conn, projections=names))
        position = max(row["position"] for row in rows)
        if not _level(conn, rows, position, reader, folder):
            raise Rollback(attempt)
        _ENGINE.drop_checkpoints(conn, projections=names)
        _ENGINE.lay_out_shards(conn, projections=names, shards=shards, position=position)
        return int(position)
    return None


def _level(
    conn: Connection[Any], rows: list[dict[str, Any]], target: int, reader: LogReader, folder: Folder | None
) -> bool:
    """Whether all shards stand at `target`, after those a little behind were brought there; projectors wait meanwhile.

    Each is left to its projector where it is far behind, or its projections stand apart, or an event of it is poison.
    """
    parts = {(row["shard"], row["shards"], row["position"]) for row in rows}
    behind = [(Part(shard, shards), position) for shard, shards, position in parts if position < target]
    if not behind:
        return True
    apart = len(parts) > len({row["shard"] for row in rows})
    if folder is None or apart or sum(target - position for _, position in behind) > _LAST_EVENTS:
        return False
    try:
        for part, position in behind:
            page = read(reader, position, _LAST_EVENTS, target, part)
            fold(conn, folder, folder.open(page.notifications), folder.projections, position, target)
    except PoisonEvent:
        return False
    return True
