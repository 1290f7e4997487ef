"""The log's recorder: appends in commit order, without the library's pipeline, and tells each unit its own outcome.

The library's `insert_events` can hang for ever while it holds the table's lock, and rolls a whole batch back for one
duplicate (DESIGN section 5). This one first tries it all with one statement. Where a stream has moved, it takes a turn,
looks which ones have, inserts the rest and reads the positions back.
"""

from collections.abc import Iterator, Sequence
from inspect import unwrap
from itertools import islice
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import IntegrityError, InterfaceError, Notification, OperationalError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder
from psycopg import Connection
from psycopg.errors import UniqueViolation
from psycopg.rows import tuple_row

from adapters.event_store.datastore import RoleDatastore, once_more
from adapters.event_store.wire import Standing, TenantStoredEvent
from sql import queries

#: Notified after each append; the payload is the last position.
CHANNEL: Final = "evosense_log"
_LOG: Final = queries("log")
#: How many times as long a stretch is looked through for a part of the log, of which there may be little in it.
_SPARSE: Final = 8

Unit = Sequence[TenantStoredEvent]


class Appended(msgspec.Struct, frozen=True):
    """The unit is in the log, at these positions."""

    positions: tuple[int, ...]


class Conflict(msgspec.Struct, frozen=True):
    """Somebody else was there first: this stream does not stand where the unit expected it."""

    stream_id: UUID
    expected: int
    found: int


class LogRecorder(PostgresApplicationRecorder):
    """Events in `evosense_log.stored_events`, which `evosense migrate` makes; never by `create_table`."""

    def __init__(self, datastore: RoleDatastore) -> None:
        super().__init__(datastore, events_table_name="stored_events")
        self.channel_name = CHANNEL

    # The library tries these ten times over, each time waiting for a connection: whoever asks has hung up by then.
    select_events = unwrap(PostgresApplicationRecorder.select_events)
    max_notification_id = unwrap(PostgresApplicationRecorder.max_notification_id)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events from `start` on; see the library's interface. Raises `OperationalError`, `InterfaceError`."""
        after = 0 if start is None else start - inclusive_of_start
        found: list[Notification] = []
        while len(found) < limit:
            page, reached = self.page(after, limit - len(found), stop, topics=topics)
            if reached <= after:
                break
            found.extend(page)
            after = reached
        return found

    @once_more
    def page(
        self,
        after: int,
        limit: int,
        stop: int | None = None,
        *,
        shard: int = 0,
        shards: int = 1,
        tenant_id: UUID | None = None,
        topics: Sequence[str] = (),
    ) -> tuple[Sequence[Notification], int]:
        """At most `limit` events behind `after` and up to `stop`, and the position up to which that is all there is.

        Of one tenant shard of several, of one tenant, of some topics. Looks at a stretch of the log whose length
        follows from `limit`: there may be no event of that part in it, and more behind it. The position is `after`
        only at the log's end or at `stop`. Raises `OperationalError`, `InterfaceError`.
        """
        whole = shards == 1 and tenant_id is None and not topics
        # Bounded on both sides: with an open end, or `stop` for one, the planner may sort the whole rest for each page.
        until = after + (limit if whole else limit * max(shards, _SPARSE))
        until = until if stop is None else min(until, stop)
        bounds = {"after": after, "until": until, "page": limit}
        part = {"shard": shard, "shards": shards, "tenant_id": tenant_id, "topics": list(topics)}
        with self.datastore.get_connection() as conn:
            # The end of the log first: what is appended afterwards is not passed over.
            head = int(_LOG.head(conn)["position"])
            # In binary: as text, every byte of an event is two, and has to be decoded.
            with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
                cursor.execute(
                    (_LOG.page if whole else _LOG.page_of_part).sql, bounds if whole else bounds | part, prepare=True
                )
                found = [Notification(*row) for row in cursor]
        if len(found) == limit:
            return found, found[-1].id
        # What was appended after the look at the end may be among the events: it has been read, too.
        return found, max(found[-1].id if found else after, min(until, head))

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int]:
        """Append all or none, as the library's interface has it. Raises `IntegrityError` on a conflict."""
        events = [event for event in stored_events if isinstance(event, TenantStoredEvent)]
        if len(events) != len(stored_events):
            raise TypeError("an event without a tenant can't be appended")
        if not events:
            return []
        outcome = self.append([events])[0]
        if isinstance(outcome, Conflict):
            raise IntegrityError(f"stream {outcome.stream_id} stands at {outcome.found}, not at {outcome.expected}")
        return outcome.positions

    def append(self, units: Sequence[Unit]) -> list[Appended | Conflict]:
        """Append each unit, all of it or none, in one transaction; one outcome a unit, in the order given.

        A unit may hold conditions beside its events (`Standing`): it is refused, too, where one of them is not so.
        A unit is refused alone when a stream of it has moved, or was moved by an earlier unit of the same call. When
        the connection is lost on the way, the append is tried once more; what the first try had committed is
        recognised by its bytes, which no other writer can have produced. Raises `OperationalError` if that fails too.
        """
        try:
            return self._append_at_once(units) or self._append(units, again=False)
        except (OperationalError, InterfaceError):
            # What ended one connection has mostly ended the others: ask each of them before the one other try.
            self.datastore.pool.check()
            return self._append(units, again=True)

    def _append_at_once(self, units: Sequence[Unit]) -> list[Appended | Conflict] | None:
        """All units with one statement, which is a transaction by itself; None where that can't be done.

        One round trip instead of six is most of a lone caller's time. With many callers it is worth even more: after
        each round trip the appending thread has to wait for the interpreter among all the callers' threads.
        """
        standing_at = _standing_at(units)
        if not standing_at:
            return None
        events = [event for unit in units for event in _events(unit)]
        with self.datastore.get_connection() as conn:
            try:
                done = _LOG.append_at_once(
                    conn,
                    stream_ids=list(standing_at),
                    standing_at=list(standing_at.values()),
                    channel=CHANNEL,
                    **_columns(events),
                )
            except UniqueViolation:
                return None
        if done["last"] is None:
            return None
        positions: Iterator[int] = iter(range(done["first"], done["last"] + 1))
        if done["last"] - done["first"] + 1 != len(events):
            # Somebody drew from the sequence without having the turn: the order holds, but there are gaps.
            with self.datastore.get_connection() as conn:
                positions = iter([position for unit in units for position in self._stored(conn, unit) or ()])
        return [Appended(tuple(islice(positions, len(_events(unit))))) for unit in units]

    def _append(self, units: Sequence[Unit], *, again: bool) -> list[Appended | Conflict]:
        with self.datastore.get_connection() as conn, conn.transaction():
            _LOG.lock_for_append(conn)
            versions = self._versions(conn, units)
            accepted: list[Unit] = []
            outcomes: list[Appended | Conflict | None] = []
            for unit in units:
                conflict = _conflict(unit, versions)
                outcomes.append(conflict)
                if conflict is None:
                    accepted.append(unit)
                    versions.update({event.originator_id: event.originator_version for event in _events(unit)})
            positions = iter(self._insert(conn, [event for unit in accepted for event in _events(unit)]))
            done: list[Appended | Conflict] = []
            for unit, refused in zip(units, outcomes, strict=True):
                if refused is None:
                    done.append(Appended(tuple(next(positions) for _ in _events(unit))))
                else:
                    ours = self._stored(conn, unit) if again else None
                    done.append(Appended(ours) if ours else refused)
            return done

    def _versions(self, conn: Connection[Any], units: Sequence[Unit]) -> dict[UUID | str, int]:
        stream_ids = list({event.originator_id for unit in units for event in unit})
        return {
            row["originator_id"]: row["originator_version"] for row in _LOG.stream_versions(conn, stream_ids=stream_ids)
        }

    def _insert(self, conn: Connection[Any], events: Sequence[TenantStoredEvent]) -> list[int]:
        if not events:
            return []
        positions = [row["notification_id"] for row in _LOG.append(conn, **_columns(events))]
        _LOG.notify(conn, channel=CHANNEL, payload=str(positions[-1]))
        return positions

    def _stored(self, conn: Connection[Any], unit: Unit) -> tuple[int, ...] | None:
        """The positions of a unit that is in the log to the byte: an earlier try whose answer was lost."""
        positions: list[int] = []
        for event in _events(unit):
            row = _LOG.event_at(conn, stream_id=event.originator_id, version=event.originator_version)
            # The topic as well: two facts without fields of their own differ in nothing else.
            if row is None or row["topic"] != event.topic or bytes(row["state"]) != event.state:
                return None
            positions.append(row["notification_id"])
        return tuple(positions)


def _events(unit: Unit) -> Unit:
    """The unit without its conditions."""
    return [event for event in unit if not isinstance(event, Standing)]


def _standing_at(units: Sequence[Unit]) -> dict[UUID | str, int]:
    """Where each stream has to stand so that all units fit; nothing where they don't fit behind each other.

    Nothing, too, where a condition is to be looked at under the lock.
    """
    before: dict[UUID | str, int] = {}
    reached: dict[UUID | str, int] = {}
    for unit in units:
        for event in unit:
            stream, version = event.originator_id, event.originator_version
            if isinstance(event, Standing):
                if event.strict:
                    return {}
                at = version
            else:
                at = version - 1
            if reached.setdefault(stream, at) != at or at < 0:
                return {}
            before.setdefault(stream, at)
            reached[stream] = version
    return before


def _columns(events: Sequence[TenantStoredEvent]) -> dict[str, list[Any]]:
    """The events as the arrays that the statements take."""
    return {
        "originator_ids": [event.originator_id for event in events],
        "originator_versions": [event.originator_version for event in events],
        "topics": [event.topic for event in events],
        "states": [event.state for event in events],
        "tenant_ids": [event.tenant_id for event in events],
    }


def _conflict(unit: Unit, versions: dict[UUID | str, int]) -> Conflict | None:
    """The first stream of the unit that is not where the unit expects it."""
    seen: dict[UUID | str, int] = {}
    for event in unit:
        found = seen.get(event.originator_id, versions.get(event.originator_id, 0))
        if isinstance(event, Standing):
            if event.originator_version != found:
                return Conflict(UUID(str(event.originator_id)), event.originator_version, found)
            continue
        if event.originator_version != found + 1:
            return Conflict(UUID(str(event.originator_id)), event.originator_version - 1, found)
        seen[event.originator_id] = event.originator_version
    return None
