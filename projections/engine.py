"""The projection engine: takes the log in batches, and commits rows and checkpoints together.

One transaction a batch: lock the checkpoints, read on from there, decode once, let each projector fold the batch into
its tables, move the checkpoints by compare-and-set, notify, commit. A killed engine leaves rows and checkpoints as
they were after the last whole batch; two engines at once take turns.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    Mapper,
    MapperDeserialisationError,
    Notification,
    PersistenceError,
)
from psycopg import Connection

from domain.event import Event
from projections.batch import Batch, Projection, Recorded, RowIds
from sql import queries

#: Notified with each batch; the payload is the position reached.
PROJECTED: Final = "evosense_projected"
#: Name under which the engine parks events.
SUBSCRIBER: Final = "projector"
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

#: What is wrong with the database, the way to it or its schema, not with an event: tried again for as long as it takes.
FAULTS: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.ProgrammingError, PersistenceError)


class ProjectionConflict(Exception):
    """Somebody else moved a checkpoint under us; nothing of this batch was committed."""


class PoisonEvent(Exception):
    """An event can't be projected; the message says which and why, without its content."""

    def __init__(self, notification: Notification, tenant_id: UUID | None, cause: Exception) -> None:
        self.notification = notification
        self.tenant_id = tenant_id
        # Only the kind of the error: the text of a database error may quote values.
        self.reason = str(cause) if isinstance(cause, MapperDeserialisationError) else type(cause).__name__
        if isinstance(cause, psycopg.Error) and cause.diag.constraint_name:
            self.reason += f" (constraint {cause.diag.constraint_name})"
        super().__init__(
            f"the event at position {notification.id} ({notification.topic}, stream "
            f"{notification.originator_id}) can't be projected: {self.reason}"
        )


class Engine:
    """Runs projections over the log."""

    def __init__(
        self,
        reader: ApplicationRecorder,
        mapper: Mapper[UUID],
        connect: Callable[[], Connection[Any]],
        projections: Sequence[Projection],
        *,
        batch: int = 1000,
    ) -> None:
        self._reader = reader
        self._mapper = mapper
        self._connect = connect
        self._projections = {projection.name: projection for projection in projections}
        self._batch = batch
        self._row_ids = RowIds()
        self._conn: Connection[Any] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the projections."""
        return list(self._projections)

    def close(self) -> None:
        """Let go of the connection."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def run(self, stop: threading.Event, *, poll: float = 1.0, channel: str = "evosense_log") -> None:
        """Project until `stop` is set, woken by the log's notifications, looking at least every `poll` seconds.

        Faults of the database are waited out with growing pauses; a poison event is parked.
        """
        rest = _FIRST_REST_S
        while not stop.is_set():
            began = time.monotonic()
            try:
                self._run(stop, poll, channel)
            except FAULTS as error:
                self.close()
                if time.monotonic() - began > _LAST_REST_S:
                    rest = _FIRST_REST_S  # it went well for a while
                _log.error("the database can't be worked with (%s); trying again", type(error).__name__)
                stop.wait(rest)
                rest = min(2 * rest, _LAST_REST_S)
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

    def run_once(self) -> int:
        """Project one batch; returns how many events it had, 0 where the log is at its end.

        A batch that fails is taken again event by event; the one that fails alone is tried `ATTEMPTS` times and
        parked (DESIGN rule 8), and the later events of its stream are held back behind it. Raises the errors in
        `FAULTS`.
        """
        try:
            return self._project_batch(self._batch)
        except ProjectionConflict:
            return 1
        except PoisonEvent:
            return self._one_by_one()

    def replay_into(self, conn: Connection[Any], on_progress: Callable[[int, int], None]) -> int:
        """Project the whole log into empty tables within the caller's transaction; returns the number of events.

        `on_progress` is called with events so far and the position. Nothing is parked: raises `PoisonEvent` at the
        first event that can't be projected.
        """
        position, events = 0, 0
        while notifications := self._reader.select_notifications(position, self._batch, inclusive_of_start=False):
            self._replay_batch(conn, notifications)
            position, events = notifications[-1].id, events + len(notifications)
            on_progress(events, position)
        _ENGINE.ensure_checkpoints(conn, projections=self.names)
        _ENGINE.set_checkpoints(conn, projections=self.names, position=position)
        return events

    def _replay_batch(self, conn: Connection[Any], notifications: Sequence[Notification]) -> None:
        recorded = [Recorded(notification.id, self._decode(notification)) for notification in notifications]
        projections = list(self._projections.values())
        try:
            with conn.transaction():
                self._apply(conn, recorded, projections)
        except FAULTS:
            raise
        except Exception:
            # Which one was it? The savepoint is rolled back: take the batch again, one event at a time.
            for notification, one in zip(notifications, recorded, strict=True):
                try:
                    self._apply(conn, [one], projections)
                except FAULTS:
                    raise
                except Exception as error:
                    raise _poison(notification, one, error) from None
            raise

    # ------------------------------------------------------------------------------------------------ one batch

    def _project_batch(self, size: int) -> int:
        conn = self._connection()
        with conn.transaction():
            active, start, stop = self._lock(conn)
            notifications = self._reader.select_notifications(start, size, stop, inclusive_of_start=False)
            if not notifications:
                if stop is None:
                    return 0
                # Nothing lies between the stragglers and the others: let them draw level.
                self._move(conn, active, start, stop)
                return 1
            held = {row["stream_id"] for row in _ENGINE.held_streams(conn, subscriber=SUBSCRIBER)}
            recorded: list[Recorded] = []
            for notification in notifications:
                if notification.originator_id in held:
                    self._park(conn, notification, None, "held back behind a parked event of its stream", 0)
                else:
                    recorded.append(Recorded(notification.id, self._decode(notification)))
            try:
                self._apply(conn, recorded, active)
            except FAULTS:
                raise
            except Exception as error:  # whatever an event may provoke in a projector
                # In a batch of many it is one of them: the first stands for all, and each is then taken alone.
                raise _poison(notifications[0], recorded[0] if recorded else None, error) from None
            self._move(conn, active, start, notifications[-1].id)
        return len(notifications)

    def _lock(self, conn: Connection[Any]) -> tuple[list[Projection], int, int | None]:
        """Which projections are furthest behind, where they stand, and where the next ones do (None: nowhere)."""
        rows = list(_ENGINE.lock_checkpoints(conn, projections=self.names))
        if len(rows) < len(self._projections):
            _ENGINE.ensure_checkpoints(conn, projections=self.names)
            rows = list(_ENGINE.lock_checkpoints(conn, projections=self.names))
        start = min(row["position"] for row in rows)
        ahead = [row["position"] for row in rows if row["position"] > start]
        active = [self._projections[row["projection"]] for row in rows if row["position"] == start]
        # In the order in which they were given: a table comes before those that point at it.
        active.sort(key=lambda projection: self.names.index(projection.name))
        return active, start, min(ahead) if ahead else None

    def _apply(self, conn: Connection[Any], recorded: Sequence[Recorded], active: Sequence[Projection]) -> None:
        self._row_ids.learn(recorded)
        batch = Batch(recorded, self._row_ids)
        for projection in active:
            projection.project(conn, batch)

    def _move(self, conn: Connection[Any], active: Sequence[Projection], start: int, end: int) -> None:
        names = [projection.name for projection in active]
        if _ENGINE.move_checkpoints(conn, projections=names, from_position=start, to_position=end) != len(names):
            raise ProjectionConflict
        _ENGINE.notify(conn, channel=PROJECTED, payload=str(end))

    def _decode(self, notification: Notification) -> Event:
        try:
            # Our mapper gives our events; the library's interface promises less.
            return cast(Event, self._mapper.to_domain_event(notification))
        except MapperDeserialisationError as error:
            raise PoisonEvent(notification, None, error) from None

    # ------------------------------------------------------------------------------------------------ poison

    def _one_by_one(self) -> int:
        """Take the next batch event by event, parking those that can't be projected."""
        for taken in range(self._batch):
            try:
                if not self._project_patiently():
                    return taken
            except ProjectionConflict:
                return taken + 1
            except PoisonEvent as poison:
                self._park_if_next(poison)
        return self._batch

    def _project_patiently(self) -> int:
        for attempt in range(1, ATTEMPTS):
            try:
                return self._project_batch(1)
            except PoisonEvent:  # perhaps it passes
                time.sleep(_PAUSE_S * attempt)
        return self._project_batch(1)

    def _park_if_next(self, poison: PoisonEvent) -> None:
        """Park it and pass it by, unless another engine has seen to it since: the next event is then another one."""
        conn = self._connection()
        with conn.transaction():
            active, start, stop = self._lock(conn)
            following = self._reader.select_notifications(start, 1, stop, inclusive_of_start=False)
            if not following or following[0].id != poison.notification.id:
                return
            _log.error("parked: %s", poison)
            self._park(conn, poison.notification, poison.tenant_id, poison.reason, ATTEMPTS)
            self._move(conn, active, start, poison.notification.id)

    @staticmethod
    def _park(
        conn: Connection[Any], notification: Notification, tenant_id: UUID | None, reason: str, attempts: int
    ) -> None:
        _ENGINE.park(
            conn,
            subscriber=SUBSCRIBER,
            position=notification.id,
            tenant_id=tenant_id,
            stream_id=notification.originator_id,
            event_type=notification.topic,
            reason=reason,
            attempts=attempts,
        )

    def _connection(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = self._connect()
        return self._conn


def _poison(notification: Notification, recorded: Recorded | None, cause: Exception) -> PoisonEvent:
    return PoisonEvent(notification, recorded.event.tenant_id if recorded else None, cause)
