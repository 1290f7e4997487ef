"""Events set aside: parked because they can't be projected, held back behind one, or skipped by an operator.

One bad event never stops the rest (DESIGN rule 8). It is parked with its reason, the later events of its stream are
held back behind it, and an operator retries it once its cause is gone, or skips it for good.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from eventsourcing.persistence import Notification
from psycopg import Connection

from projections.batch import Projection
from projections.faults import PoisonEvent
from projections.folding import Folder, Opened
from projections.reading import LogReader, read
from sql import queries

#: Name under which the projections park events.
SUBSCRIBER: Final = "projector"
#: Notified when what is projected has changed; the payload is the position reached, or a word.
PROJECTED: Final = "evosense_projected"
HELD_BACK: Final = "held back behind a parked event of its stream"

_ENGINE: Final = queries("engine")


class Aside(NamedTuple):
    """What a batch has to leave out: streams that are held back, and positions that were skipped."""

    streams: frozenset[Any]
    positions: frozenset[int]


def set_aside(conn: Connection[Any], names: Sequence[str], after: int, up_to: int) -> Aside:
    """What these projections leave out between two positions."""
    rows = list(_ENGINE.set_aside(conn, subscriber=SUBSCRIBER, projections=list(names), after=after, up_to=up_to))
    return Aside(
        frozenset(row["stream_id"] for row in rows if row["stream_id"] is not None),
        frozenset(row["position"] for row in rows if row["position"] is not None),
    )


def skipped_between(conn: Connection[Any], after: int, up_to: int) -> frozenset[int]:
    """The positions behind `after` and up to `up_to` that an operator has skipped."""
    return frozenset(row["position"] for row in _ENGINE.skipped_between(conn, after=after, up_to=up_to))


def park(conn: Connection[Any], poison: PoisonEvent | Notification, names: Sequence[str], *, attempts: int = 0) -> None:
    """Set an event aside for these projections: a poison one with its reason, any other as held back behind one."""
    notification = poison.notification if isinstance(poison, PoisonEvent) else poison
    _ENGINE.park(
        conn,
        subscriber=SUBSCRIBER,
        position=notification.id,
        tenant_id=poison.tenant_id if isinstance(poison, PoisonEvent) else None,
        stream_id=notification.originator_id,
        event_type=notification.topic,
        reason=poison.reason if isinstance(poison, PoisonEvent) else HELD_BACK,
        attempts=attempts,
        projections=list(names),
    )


def fold(
    conn: Connection[Any],
    folder: Folder,
    opened: Sequence[Opened],
    active: Sequence[Projection],
    after: int,
    up_to: int,
) -> None:
    """Fold the events between two positions into the tables of `active`, but for what is set aside.

    Events of streams that are held back are parked. Raises as `Folder.apply` does.
    """
    names = [projection.name for projection in active]
    aside = set_aside(conn, names, after, up_to)
    here = [one for one in opened if one.notification.id not in aside.positions]
    for one in here:
        if one.notification.originator_id in aside.streams:
            park(conn, one.notification, names)
    folder.apply(conn, [one for one in here if one.notification.originator_id not in aside.streams], active)


class Retried(msgspec.Struct, frozen=True):
    """What became of a parked event: projected, parked again (with the reason), or waiting behind an earlier one."""

    position: int
    outcome: Literal["projected", "failed", "waiting", "gone"]
    reason: str | None = None


class ParkedEvents:
    """What an operator may do with the events that the projections have parked.

    Each step is a transaction that holds the checkpoints, so that nothing is projected meanwhile: an event can't be
    held back behind one that is just being released.
    """

    def __init__(self, reader: LogReader, folder: Folder) -> None:
        self._reader = reader
        self.folder = folder
        self._names = [projection.name for projection in folder.projections]

    def retry(self, conn: Connection[Any], position: int) -> Retried:
        """Project a parked event now. Raises the errors in `FAULTS`."""
        try:
            with conn.transaction():
                self._stand_still(conn)
                row = _ENGINE.parked_at(conn, subscriber=SUBSCRIBER, position=position)
                if row is None:
                    return Retried(position, "gone")
                earlier = _ENGINE.parked_before(conn, subscriber=SUBSCRIBER, position=position)
                if earlier is not None:
                    return Retried(position, "waiting", f"the event at position {earlier} comes first")
                opened = self._opened(position)
                if not opened:
                    return Retried(position, "failed", "the log holds no event at this position")
                self.folder.apply(conn, opened, self._projections(row["projections"]))
                _ENGINE.unpark(conn, subscriber=SUBSCRIBER, position=position)
                _ENGINE.notify(conn, channel=PROJECTED, payload="unparked")
        except PoisonEvent as poison:
            _ENGINE.failed_again(conn, subscriber=SUBSCRIBER, position=position, reason=poison.reason)
            return Retried(position, "failed", poison.reason)
        return Retried(position, "projected")

    def retry_streams(self, conn: Connection[Any], streams: Collection[UUID] | None = None) -> Iterator[Retried]:
        """Retry all that is parked of these streams, or of all where None, in the order of the log.

        A running projector holds back what is appended to a stream until the last parked event of it has gone through:
        what came to be parked meanwhile is retried at the end, while nothing is projected. Raises the errors in
        `FAULTS`.
        """
        tried: set[int] = set()
        for position in self._due(conn, streams, tried):
            tried.add(position)
            yield self.retry(conn, position)
        if not tried:
            return
        with conn.transaction():
            self._stand_still(conn)
            late = [self.retry(conn, position) for position in self._due(conn, streams, tried)]
        yield from late

    def _due(self, conn: Connection[Any], streams: Collection[UUID] | None, tried: Collection[int]) -> list[int]:
        return [
            row["position"]
            for row in _ENGINE.parked_positions(conn, subscriber=SUBSCRIBER)
            if row["position"] not in tried and (streams is None or row["stream_id"] in streams)
        ]

    def skip(self, conn: Connection[Any], position: int, reason: str, *, unparked: bool = False) -> bool:
        """Leave a parked event out of the read models for good; False where none is parked at that position.

        What was held back behind it stays parked until it is retried. `unparked`: any event of the log is skipped, such
        as one at which a rebuild has stopped; what it has become stays in the live tables until they are rebuilt.
        """
        with conn.transaction():
            self._stand_still(conn)
            row = _ENGINE.parked_at(conn, subscriber=SUBSCRIBER, position=position)
            if row is None and unparked:
                row = _ENGINE.event_to_skip(conn, position=position)
            if row is None:
                return False
            _ENGINE.skip(
                conn,
                position=position,
                tenant_id=row["tenant_id"],
                stream_id=row["stream_id"],
                event_type=row["event_type"],
                reason=reason,
            )
            _ENGINE.unpark(conn, subscriber=SUBSCRIBER, position=position)
        return True

    def _stand_still(self, conn: Connection[Any]) -> None:
        """Lock all checkpoints for this transaction."""
        # A query that gives rows is only asked when they are fetched.
        list(_ENGINE.lock_checkpoints(conn, projections=self._names))

    def _opened(self, position: int) -> list[Opened]:
        page = read(self._reader, position - 1, 1, position)
        return self.folder.open(page.notifications)

    def _projections(self, names: Sequence[str] | None) -> list[Projection]:
        return [p for p in self.folder.projections if names is None or p.name in names]
