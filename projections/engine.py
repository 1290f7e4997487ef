"""The projection engine: takes the log in batches, and commits rows and checkpoint together.

It works on the shards whose lease it holds (`projections.leases`). A batch is read and opened first; then one
transaction locks the shard's checkpoints, looks that they are where they should be, lets each projector fold the batch
into its tables, moves the checkpoints by compare-and-set, notifies and commits. A killed engine leaves rows and
checkpoints as they were after the last whole batch.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from eventsourcing.persistence import Mapper
from psycopg import Connection

from projections.batch import Projection
from projections.faults import FAULTS, PoisonEvent, ProjectionConflict
from projections.folding import Folder
from projections.leases import BEAT_S, FROZEN_S, LEASE_S, Held, Leases
from projections.pacing import Pace
from projections.parking import PROJECTED, fold, park
from projections.reading import LogReader, read
from sql import queries

#: How often a single event is tried before it is parked.
ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.05
#: Pauses while the database is away: the first, then twice as long each time, up to the last.
_FIRST_REST_S: Final = 0.1
_LAST_REST_S: Final = 5.0
#: How soon a sleeping engine hears that it should stop, in seconds.
_HEARS_STOP_S: Final = 0.25

_ENGINE: Final = queries("engine")
_log = logging.getLogger(__name__)


class Engine:
    """Runs projections over the log."""

    def __init__(
        self,
        reader: LogReader,
        mapper: Mapper[UUID],
        connect: Callable[[], Connection[Any]],
        projections: Sequence[Projection],
        *,
        batch: int = 5000,
        first: int | None = None,
        lease: float = LEASE_S,
    ) -> None:
        """`batch`: most events at once; `first`: how many at first (all of them); `lease`: see `LEASE_S`."""
        self._reader = reader
        self._connect = connect
        self._projections = {projection.name: projection for projection in projections}
        self._folder = Folder(mapper, projections)
        self._pace = Pace(batch, first or batch)
        self._leases = Leases(self.names, lease=lease)
        self._conn: Connection[Any] | None = None
        self._next_beat = 0.0
        self._stop = threading.Event()

    @property
    def names(self) -> list[str]:
        """Names of the projections."""
        return list(self._projections)

    @property
    def holder(self) -> str:
        """The name under which this engine holds leases."""
        return self._leases.holder

    @property
    def holding(self) -> list[int]:
        """The shards whose lease this engine holds, as far as it knows."""
        return sorted(self._leases.held)

    def close(self) -> None:
        """Give the leases back where the database can be reached, and let go of the connection."""
        if self._conn is not None:
            try:
                if not self._conn.closed:
                    self._leases.release(self._conn)
            except FAULTS:  # they end by themselves
                self._leases.held.clear()
            self._drop_connection()

    def run(self, stop: threading.Event, *, poll: float = 1.0, channel: str = "evosense_log") -> None:
        """Project until `stop` is set, woken by the log's notifications, looking at least every `poll` seconds.

        Faults of the database are waited out with growing pauses; a poison event is parked.
        """
        self._stop = stop
        rest = _FIRST_REST_S
        while not stop.is_set():
            began = time.monotonic()
            try:
                self._run(stop, poll, channel)
            except FAULTS as error:
                self._drop_connection()
                if time.monotonic() - began > _LAST_REST_S:
                    rest = _FIRST_REST_S  # it went well for a while
                _log.error("the database can't be worked with (%s); trying again", type(error).__name__)
                stop.wait(rest)
                rest = min(2 * rest, _LAST_REST_S)
        self._stop = threading.Event()
        self.close()

    def _run(self, stop: threading.Event, poll: float, channel: str) -> None:
        with self._connect() as listener:
            # LISTEN comes before the first look, or what is appended between the two is not heard of.
            listener.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
            while not stop.is_set():
                while self.run_once() and not stop.is_set():
                    pass
                deadline = time.monotonic() + poll
                while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
                    if list(listener.notifies(timeout=min(left, _HEARS_STOP_S), stop_after=1)):
                        break
                    self._beat()

    def run_once(self) -> int:
        """Project one batch of each shard that this engine holds; returns the number of events, 0 where none waits.

        A batch that fails is taken again event by event; the one that fails alone is tried `ATTEMPTS` times and
        parked (DESIGN rule 8), and the later events of its stream are held back behind it. Raises the errors in
        `FAULTS`.
        """
        self._beat()
        return sum(self._project(held) for held in list(self._leases.held.values()))

    def _project(self, held: Held) -> int:
        try:
            return self._project_batch(held, self._pace.size)
        except ProjectionConflict:
            return 1
        except PoisonEvent:
            return self._one_by_one(held)

    # ------------------------------------------------------------------------------------------------ leases

    def _beat(self) -> None:
        if time.monotonic() < self._next_beat and self._conn is not None:
            return
        conn = self._connection()
        with conn.transaction():
            before = set(self._leases.held)
            self._leases.beat(conn)
        if before != set(self._leases.held):
            _log.info("holding %d shards of the projections", len(self._leases.held))
        self._next_beat = time.monotonic() + min(BEAT_S, self._leases.lease / 4)

    # ------------------------------------------------------------------------------------------------ one batch

    def _project_batch(self, held: Held, size: int) -> int:
        """Project up to `size` events of a shard; returns how many, 0 at the end of the log.

        Raises `PoisonEvent`, `ProjectionConflict` and the errors in `FAULTS`; nothing is committed then.
        """
        active, start, stop = self._furthest_behind(held)
        page = read(self._reader, start, size, stop, held.part)
        reached = page.reached
        if reached <= start:
            return 0
        began = time.monotonic()
        opened = self._folder.open(page.notifications)
        names = [projection.name for projection in active]
        conn = self._connection()
        with conn.transaction():
            self._lock(conn, held)
            fold(conn, self._folder, opened, active, start, reached)
            self._move(conn, held, names, start, reached)
        held.positions.update(dict.fromkeys(names, reached))
        self._pace.took(page.notifications, time.monotonic() - began)
        return max(1, len(page.notifications))

    def _furthest_behind(self, held: Held) -> tuple[list[Projection], int, int | None]:
        """Which projections are furthest behind, where they stand, and where the next ones do (None: nowhere)."""
        start = min(held.positions.values())
        ahead = [position for position in held.positions.values() if position > start]
        # In the order in which they were given: a table comes before those that point at it.
        active = [p for name, p in self._projections.items() if held.positions[name] == start]
        return active, start, min(ahead) if ahead else None

    def _lock(self, conn: Connection[Any], held: Held) -> None:
        """Lock the shard for this transaction. Raises `ProjectionConflict` where it is not as it was left."""
        rows = list(_ENGINE.lock_shard(conn, projections=self.names, shard=held.shard, frozen=FROZEN_S))
        holders = {(row["holder"], row["epoch"], row["shards"]) for row in rows}
        if len(rows) < len(self._projections) or holders != {(self.holder, held.epoch, held.shards)}:
            self._leases.forget(held.shard)
            self._next_beat = 0.0
            raise ProjectionConflict
        positions = {row["projection"]: row["position"] for row in rows}
        if positions != held.positions:
            # Still ours, and elsewhere: tables were swapped in that stand there.
            held.positions = positions
            raise ProjectionConflict

    def _move(self, conn: Connection[Any], held: Held, names: list[str], start: int, end: int) -> None:
        moved = _ENGINE.move_checkpoints(
            conn,
            projections=names,
            shard=held.shard,
            epoch=held.epoch,
            from_position=start,
            to_position=end,
            lease=self._leases.lease,
        )
        if moved != len(names):
            raise ProjectionConflict
        _ENGINE.notify(conn, channel=PROJECTED, payload=str(end))

    # ------------------------------------------------------------------------------------------------ poison

    def _one_by_one(self, held: Held) -> int:
        """Take the next batch event by event, parking those that can't be projected.

        It may take long: leases are renewed on the way, and a wish to stop is heard.
        """
        pause = _PAUSE_S
        for taken in range(self._pace.size):
            try:
                self._beat()
                if self._stop.is_set() or self._leases.held.get(held.shard) is not held:
                    return taken + 1
                if not self._project_patiently(held, pause):
                    return taken
            except ProjectionConflict:
                return taken + 1
            except PoisonEvent as poison:
                if self._stop.is_set():  # it was not tried with patience
                    return taken + 1
                try:
                    self._pass_by(held, poison)
                except ProjectionConflict:
                    return taken + 1
                # What fails behind it most likely fails because of it: the others are not kept waiting for each.
                pause = 0.0
        return self._pace.size

    def _project_patiently(self, held: Held, pause: float) -> int:
        for attempt in range(1, ATTEMPTS):
            try:
                return self._project_batch(held, 1)
            except PoisonEvent:  # perhaps it passes
                self._stop.wait(pause * 2 ** (attempt - 1))
        return self._project_batch(held, 1)

    def _pass_by(self, held: Held, poison: PoisonEvent) -> None:
        """Park an event and go on behind it. Raises `ProjectionConflict`."""
        active, start, _ = self._furthest_behind(held)
        names = [projection.name for projection in active]
        conn = self._connection()
        with conn.transaction():
            self._lock(conn, held)
            _log.error("parked: %s", poison)
            park(conn, poison, names, attempts=ATTEMPTS)
            self._move(conn, held, names, start, poison.notification.id)
        held.positions.update(dict.fromkeys(names, poison.notification.id))

    def _connection(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._leases.held.clear()
            self._next_beat = 0.0
            self._conn = self._connect()
        return self._conn

    def _drop_connection(self) -> None:
        self._leases.held.clear()
        if self._conn is not None:
            self._conn.close()
            self._conn = None
