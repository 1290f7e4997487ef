"""The swap: new tables take the place of the live ones in one short transaction, while readers go on.

Projectors wait for it from the moment their checkpoints are locked; readers only from the moment the tables are, which
is milliseconds. A query that is under way is waited for, but nobody is kept waiting behind it for longer than
`READERS_WAIT_MS`: then the swap steps back and tries again.

A transaction may see the database as it was when it began (REPEATABLE READ, or a function that is STABLE), and use a
table for the first time after the swap: in the new one it would miss every row that was committed since. So the last
rows are committed before the swap, and whoever began before them is waited for.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psycopg
from psycopg import Connection

from projections.build import Builder
from projections.builds import Build, BuildError
from projections.parking import PROJECTED, SUBSCRIBER
from sql import queries

#: How long new queries may wait behind the swap while it waits for old ones, in milliseconds.
READERS_WAIT_MS: Final = 40
#: How long the swap waits for a projector to finish its batch, in milliseconds.
_PROJECTORS_WAIT_MS: Final = 20_000
_PAUSE_S: Final = 0.25
#: For how long the swap is tried again while a query of somebody's goes on and on, in seconds.
PATIENCE_S: Final = 900.0
#: So many events are folded at most while projectors wait.
_LAST_EVENTS: Final = 2_000
#: How long transactions that began earlier are waited for, in seconds: while everything goes on, then with projectors
#: waiting, who would otherwise make new rows.
_EARLIER_WAIT_S: Final = 1.0
_LAST_WAIT_S: Final = 0.2
_LOOK_S: Final = 0.004

_BUILDS: Final = queries("builds")
_ENGINE: Final = queries("engine")


class StillInUse(BuildError):
    """Queries have held the live tables for all the time that the swap was tried; nothing was changed."""


def swap(
    builder: Builder,
    conn: Connection[Any],
    build: Build,
    on_wait: Callable[[str], None],
    *,
    patience: float = PATIENCE_S,
) -> Build:
    """Put a finished build in the place of the live tables, at one position; returns what was live, as a kept build.

    `on_wait` is told what is waited for. Raises `StillInUse` after `patience` seconds, `BuildError` where something
    stands in the way, `PoisonEvent`.
    """
    deadline = time.monotonic() + patience
    with builder.connect() as side:
        while True:
            _catch_up(builder, side, build)
            try:
                _await_earlier(side, _EARLIER_WAIT_S)
                return _swap_once(builder, conn, side, build)
            except (psycopg.errors.LockNotAvailable, _InUseError) as error:
                who = str(error) if isinstance(error, _InUseError) else _in_the_way(conn, build)
                if time.monotonic() > deadline:
                    raise StillInUse(
                        f"the live tables were in use for {patience:g} s{who}: nothing was swapped, and the build is "
                        "kept; run the command again when that has ended"
                    ) from None
                on_wait(f"waiting for a query to end{who}")
                time.sleep(_PAUSE_S)
            except _ApartError:
                if time.monotonic() > deadline:
                    raise StillInUse(
                        f"the live projections have stood at different positions for {patience:g} s: nothing was "
                        "swapped, and the build is kept; start a projector, or rebuild all of them"
                    ) from None
                on_wait("waiting for a projector to bring the live tables to one position")
                time.sleep(_PAUSE_S)
            except _TooFarBehindError:
                continue
            except psycopg.errors.DependentObjectsStillExist as error:
                raise BuildError(error.diag.message_primary or "something depends on the live tables") from None


class _TooFarBehindError(Exception):
    """More was appended meanwhile than should be folded while projectors wait."""


class _InUseError(Exception):
    """Transactions go on that began before the last rows were there; the message says whose."""


class _ApartError(Exception):
    """The live projections stand at different positions: what was live could not be kept as one."""


def _catch_up(builder: Builder, conn: Connection[Any], build: Build) -> None:
    """Come so near to the head of the log that the rest is quickly done."""
    while (head := builder.head()) - build.position > _LAST_EVENTS // 4:
        builder.load(conn, build, head, lambda *_: None, bare=False)


def _swap_once(builder: Builder, conn: Connection[Any], side: Connection[Any], build: Build) -> Build:
    with conn.transaction():
        _BUILDS.lock_timeout(conn, milliseconds=str(_PROJECTORS_WAIT_MS))
        live = list(_ENGINE.lock_checkpoints(conn, projections=build.projections))
        # Behind what is live they must not fall: rows that others point at would be gone.
        target = max([builder.head(), *(row["position"] for row in live)])
        if target - build.position > _LAST_EVENTS:
            raise _TooFarBehindError
        with side.transaction():
            reached = builder.fold_within(side, build, target)
        build.position = reached
        _await_earlier(side, _LAST_WAIT_S)
        kept = _record_live(conn, build, live)
        _BUILDS.lock_timeout(conn, milliseconds=str(READERS_WAIT_MS))
        _BUILDS.build_swap(conn, schema=build.schema_name, old_schema=kept.schema_name)
        _ENGINE.ensure_checkpoints(conn, projections=build.projections)
        _ENGINE.set_checkpoints(conn, projections=build.projections, position=target)
        _ENGINE.rebuilt_parked(conn, subscriber=SUBSCRIBER, projections=build.projections)
        _BUILDS.forget_build(conn, id=build.id)
        _ENGINE.notify(conn, channel=PROJECTED, payload="rebuilt")
    return kept


def _record_live(conn: Connection[Any], build: Build, live: list[dict[str, Any]]) -> Build:
    """Enter what is live now as a kept build, with the position of each shard."""
    positions: dict[int, set[int]] = {}
    for row in live:
        positions.setdefault(row["shard"], set()).add(row["position"])
    if any(len(found) > 1 for found in positions.values()):
        # One of them is new or was rebuilt just now, and a projector is about to bring it to where the others are.
        raise _ApartError
    shards = [found.pop() for _, found in sorted(positions.items())] or [0]
    row = _BUILDS.add_build(
        conn,
        schema=None,
        purpose="kept",
        projections=build.projections,
        tables=build.tables,
        until=None,
        fingerprint="live",
        schema_version=build.schema_version,
    )
    uneven = shards if len(set(shards)) > 1 else None
    _BUILDS.keep_build(conn, id=row["id"], position=min(shards), positions=uneven, subscriber=SUBSCRIBER)
    return msgspec.convert({**row, "state": "ready", "position": min(shards), "positions": uneven}, Build)


def _await_earlier(conn: Connection[Any], patience: float) -> None:
    """Wait until no transaction is open that is open now. Raises `_InUseError` after `patience` seconds."""
    deadline = time.monotonic() + patience
    earlier = {row["transaction"] for row in _BUILDS.open_transactions(conn)}
    while earlier:
        rows = [row for row in _BUILDS.open_transactions(conn) if row["transaction"] in earlier]
        if rows and time.monotonic() > deadline:
            raise _InUseError(_named(rows))
        earlier = {row["transaction"] for row in rows}
        time.sleep(_LOOK_S if earlier else 0)


def _in_the_way(conn: Connection[Any], build: Build) -> str:
    return _named(list(_BUILDS.in_the_way(conn, tables=build.tables)))


def _named(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    first = rows[0]
    seconds = f" for {first['seconds']:.0f} s" if first["seconds"] is not None else ""
    return f" (process {first['pid']}, {first['who']}{seconds})"
