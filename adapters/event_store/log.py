"""The log as the command side sees it: aggregates are loaded from it, and decided events appended to it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from eventsourcing.persistence import StoredEvent

from adapters.event_store.datastore import once_more
from adapters.event_store.group_commit import GroupCommit
from adapters.event_store.recorder import Appended, Conflict, LogRecorder
from adapters.event_store.wire import Standing, StructMapper, TenantStoredEvent
from domain.aggregate import Aggregate
from domain.event import Event
from sql import queries

_A = TypeVar("_A", bound=Aggregate)
_LOG: Final = queries("log")


class StreamAt(msgspec.Struct, frozen=True):
    """What stands at a position: the stream, whose it is and the stable name of the event's type."""

    stream_id: UUID
    tenant_id: UUID
    type_name: str


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event with its position in the log."""

    position: int
    event: Event


class EventLog:
    """Reads and appends. Safe to share between threads; every call may block on the database."""

    def __init__(self, recorder: LogRecorder, mapper: StructMapper, group: GroupCommit | None = None) -> None:
        """With `group` appends share transactions with those that other threads make at the same time."""
        self._recorder = recorder
        self._group = group
        self._mapper = mapper

    def load(self, empty: _A) -> _A:
        """The aggregate as it is now. Raises the errors of `StructMapper.to_domain_event`."""
        return self.catch_up(empty)

    @once_more
    def catch_up(self, state: _A) -> _A:
        """The aggregate as it is now, given how it was after `state.version` events."""
        with self._recorder.datastore.get_connection() as conn:
            rows = list(_LOG.stream_events(conn, stream_id=state.id, after=state.version))
        return state.replay(self._decode(state.id, row) for row in rows)

    @once_more
    def load_many(self, states: Sequence[_A]) -> list[_A]:
        """Several aggregates as they are now, in the order given, with one question to the database.

        Each is given as it was after `version` events: the less is missing, the less it costs.
        """
        after = {state.id: state.version for state in states}
        streams: dict[UUID, list[Event]] = {stream_id: [] for stream_id in after}
        with self._recorder.datastore.get_connection() as conn:
            for row in _LOG.streams_events(conn, stream_ids=list(after), versions=list(after.values())):
                streams[row["originator_id"]].append(self._decode(row["originator_id"], row))
        return [state.replay(streams[state.id]) for state in states]

    def append(
        self, units: Sequence[Sequence[Event]], conditions: Sequence[Sequence[Standing]] = ()
    ) -> list[Appended | Conflict]:
        """Append each unit of events, all of it or none. See `LogRecorder.append`.

        `conditions`: those of each unit, in the same order; none where it is empty.

        Raises `Overloaded` where too much is waiting to be appended.
        """
        # Sealed and encoded here, in the caller's thread: the one that appends has only to send bytes.
        stored: list[list[TenantStoredEvent]] = [
            [*of_unit, *(self._mapper.to_stored_event(event) for event in unit)]
            for unit, of_unit in zip(units, conditions or [()] * len(units), strict=True)
        ]
        if self._group is None:
            return self._recorder.append(stored)
        return self._group.submit(stored).result()

    @once_more
    def last_position_of(self, stream_id: UUID) -> int:
        """The position of the stream's last event; 0 where there is no such stream."""
        with self._recorder.datastore.get_connection() as conn:
            return int(_LOG.last_position_of(conn, stream_id=stream_id) or 0)

    @once_more
    def last_positions(self, stream_ids: Collection[UUID]) -> dict[UUID, int]:
        """The position of the last event of each of these streams that exists."""
        with self._recorder.datastore.get_connection() as conn:
            rows = _LOG.last_positions(conn, stream_ids=list(stream_ids))
            return {row["originator_id"]: row["notification_id"] for row in rows}

    @once_more
    def births(self, stream_ids: Collection[UUID]) -> dict[UUID, int]:
        """The position of the first event of each of these streams that exists."""
        with self._recorder.datastore.get_connection() as conn:
            rows = _LOG.births(conn, stream_ids=list(stream_ids))
            return {row["originator_id"]: row["notification_id"] for row in rows}

    @once_more
    def births_after(
        self, position: int, until: int, tenant_id: UUID, event_class: type[Event], page: int
    ) -> list[tuple[int, UUID]]:
        """The tenant's next streams that begin with an event of that class: at most `page`, with their positions."""
        topics = [f"{event_class.type_name}:{version}" for version in range(1, event_class.type_version + 1)]
        with self._recorder.datastore.get_connection() as conn:
            rows = _LOG.births_after(
                conn, position=position, until=until, tenant_id=tenant_id, topics=topics, page=page
            )
            return [(row["notification_id"], row["originator_id"]) for row in rows]

    @once_more
    def positions_of(self, events: Mapping[UUID, int]) -> dict[UUID, int]:
        """The position of one event of each of these streams, given its version."""
        with self._recorder.datastore.get_connection() as conn:
            rows = _LOG.positions_of(conn, stream_ids=list(events), versions=list(events.values()))
            return {row["originator_id"]: row["notification_id"] for row in rows}

    @once_more
    def stream_at(self, position: int) -> StreamAt | None:
        """What stands at a position, or None."""
        with self._recorder.datastore.get_connection() as conn:
            row = _LOG.stream_at(conn, position=position)
        if row is None:
            return None
        return StreamAt(row["originator_id"], row["tenant_id"], row["topic"].rpartition(":")[0])

    @once_more
    def history(self, stream_id: UUID) -> list[RecordedEvent]:
        """All events of a stream with their positions, opened."""
        with self._recorder.datastore.get_connection() as conn:
            rows = list(_LOG.stream_events(conn, stream_id=stream_id, after=0))
        return [RecordedEvent(row["notification_id"], self._decode(stream_id, row)) for row in rows]

    @once_more
    def streams_at(self, positions: Collection[int]) -> dict[int, UUID]:
        """The streams that have an event at these positions."""
        with self._recorder.datastore.get_connection() as conn:
            rows = _LOG.streams_at(conn, positions=list(positions))
            return {row["notification_id"]: row["originator_id"] for row in rows}

    def seal_away(self, stream_id: UUID, event_classes: Collection[type[Event]]) -> int:
        """Leave nothing in the personal fields of the stream's events of these classes; how many had anything there.

        The database refuses where the stream does not say that its message was deleted (`sql/functions/seal_away.sql`).
        Raises the errors of `StructMapper.to_domain_event`; nothing has changed then.
        """
        topics = {event_class.topic() for event_class in event_classes}
        with self._recorder.datastore.get_connection() as conn, conn.transaction():
            rows = [row for row in _LOG.stream_events(conn, stream_id=stream_id, after=0) if row["topic"] in topics]
            states = [
                self._mapper.emptied(
                    StoredEvent(stream_id, row["originator_version"], row["topic"], bytes(row["state"]))
                )
                for row in rows
            ]
            versions = [row["originator_version"] for row in rows]
            return int(_LOG.seal_away(conn, stream_id=stream_id, versions=versions, states=states)) if rows else 0

    @once_more
    def head(self) -> int:
        """The last position of the log; 0 while it is empty."""
        with self._recorder.datastore.get_connection() as conn:
            return int(_LOG.head(conn)["position"])

    def _decode(self, stream_id: UUID, row: dict[str, Any]) -> Event:
        return self._mapper.to_domain_event(
            StoredEvent(stream_id, row["originator_version"], row["topic"], bytes(row["state"]))
        )
