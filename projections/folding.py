"""Folding: recorded events are opened once and handed to every projection that runs."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, cast

from eventsourcing.persistence import Mapper, MapperDeserialisationError, Notification
from psycopg import Connection

from domain.event import Event, event_types
from projections.batch import Batch, Projection, Recorded, RowIds
from projections.faults import FAULTS, PoisonEvent


class Opened(NamedTuple):
    """A notification and its event; None where no projection reads its type, the error where it can't be opened."""

    notification: Notification
    event: Event | MapperDeserialisationError | None


class Folder:
    """Opens events and folds them into the tables of some projections, within the caller's transactions."""

    def __init__(self, mapper: Mapper[Any], projections: Sequence[Projection]) -> None:
        self._mapper = mapper
        self.projections = projections
        self._row_ids = RowIds()
        self._read = {event.type_name for projection in projections for event in projection.events}
        self._known = event_types()

    def open(self, notifications: Iterable[Notification]) -> list[Opened]:
        """Open the events that some projection reads. Raises the errors in `FAULTS`, such as a missing key."""
        return [Opened(notification, self._open(notification)) for notification in notifications]

    def apply(self, conn: Connection[Any], opened: Sequence[Opened], active: Sequence[Projection]) -> None:
        """Fold these events into the tables of `active`, in order.

        Raises `PoisonEvent` where that can't be done. It names the event that can't be opened, if any of `active` reads
        its type or nobody knows it; an error of a projector is laid to the first event of the batch, since it may have
        been any of them. Raises the errors in `FAULTS` as they are.
        """
        for notification, event in opened:
            if isinstance(event, MapperDeserialisationError) and self._concerns(notification, active):
                raise PoisonEvent(notification, None, event) from None
        recorded = [Recorded(notification.id, event) for notification, event in opened if isinstance(event, Event)]
        if not recorded:
            return
        self._row_ids.learn(recorded)
        batch = Batch(recorded, self._row_ids)
        try:
            for projection in active:
                projection.project(conn, batch)
        except FAULTS:
            raise
        except Exception as error:  # whatever an event may provoke in a projector
            first = next(one for one in opened if isinstance(one.event, Event))
            raise PoisonEvent(first.notification, cast(Event, first.event).tenant_id, error) from None

    def apply_singly(self, conn: Connection[Any], opened: Sequence[Opened], active: Sequence[Projection]) -> None:
        """Fold event by event a batch that failed as a whole. Raises `PoisonEvent` for the very one that can't be."""
        for one in opened:
            self.apply(conn, [one], active)

    def _concerns(self, notification: Notification, active: Sequence[Projection]) -> bool:
        # Some of the projections may go alone: over what the others read they pass, as they do when it can be opened.
        name = notification.topic.rpartition(":")[0]
        return name not in self._known or any(name == event.type_name for one in active for event in one.events)

    def _open(self, notification: Notification) -> Event | MapperDeserialisationError | None:
        name = notification.topic.rpartition(":")[0]
        # A type that nobody reads need not be opened. One that nobody knows is poison: it may be of a newer program.
        if name not in self._read and name in self._known:
            return None
        try:
            # Our mapper gives our events; the library's interface promises less.
            return cast(Event, self._mapper.to_domain_event(notification))
        except MapperDeserialisationError as error:
            return error


def without(opened: Iterable[Opened], positions: Collection[int]) -> list[Opened]:
    """The events except those at these positions."""
    return [one for one in opened if one.notification.id not in positions]
