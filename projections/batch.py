"""A batch of recorded events, and the row ids that follow from the log."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast
from uuid import UUID

from psycopg import Connection

from domain.event import Event
from sql import queries

_LOG: Final = queries("log")
_E = TypeVar("_E", bound=Event)


class Recorded(NamedTuple):
    """An event and its position in the log."""

    position: int
    event: Event


class RowIds:
    """Which row a stream became: the position of its first event (DESIGN rule 1), looked up in the log itself.

    A bounded memory holds the ids learned last.
    """

    def __init__(self, *, remember: int = 100_000) -> None:
        self._remember = remember
        self._known: OrderedDict[UUID, int] = OrderedDict()

    def learn(self, recorded: Iterable[Recorded]) -> None:
        """Note the births in a batch, which saves the question."""
        for position, event in recorded:
            if event.originator_version == 1:
                self._known[event.originator_id] = position

    def of(self, conn: Connection[Any], stream_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """The row id of each of these streams. Raises `LookupError` where one was never born."""
        wanted = set(stream_ids)
        found = {stream_id: self._known[stream_id] for stream_id in wanted if stream_id in self._known}
        missing = wanted - found.keys()
        if missing:
            for row in _LOG.births(conn, stream_ids=list(missing)):
                found[row["originator_id"]] = self._known[row["originator_id"]] = row["notification_id"]
        if len(found) < len(wanted):
            raise LookupError(f"the log holds no first event of stream {next(iter(wanted - found.keys()))}")
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        return found


class Batch:
    """Events in log order, with what a projector may ask about them."""

    def __init__(self, recorded: Sequence[Recorded], row_ids: RowIds) -> None:
        self.recorded = recorded
        self._row_ids = row_ids
        # Sorted once for all projectors: each then looks at its own events alone.
        self._by_class: defaultdict[type[Event], list[Recorded]] = defaultdict(list)
        for one in recorded:
            self._by_class[type(one[1])].append(one)

    def of(self, event_class: type[_E]) -> Sequence[tuple[int, _E]]:
        """The events of exactly that class, in order, with their positions."""
        return cast(Sequence[tuple[int, _E]], self._by_class.get(event_class, ()))

    def of_any(self, event_classes: Iterable[type[Event]]) -> Sequence[Recorded]:
        """The events of exactly these classes, in order."""
        found = chain.from_iterable(self._by_class.get(event_class, ()) for event_class in event_classes)
        return sorted(found, key=itemgetter(0))

    def row_ids(self, conn: Connection[Any], stream_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """See `RowIds.of`."""
        return self._row_ids.of(conn, stream_ids)


class Projection(Protocol):
    """Folds events into the tables that it owns.

    The constructors in `projections/catalog.py` take `schema`, where the tables are, and `bare`, which says that they
    are being loaded: they have their primary keys and unique constraints, and no foreign keys, triggers, other indexes
    or row-level security. Either way the same events give the same rows.
    """

    @property
    def name(self) -> str:
        """Name of the context; its checkpoint goes by it."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables it owns."""

    @property
    def events(self) -> tuple[type[Event], ...]:
        """The event classes that it reads: a batch without any of these changes nothing in its tables."""

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """Fold the batch into the tables, within the engine's transaction, in as few statements as it takes.

        Up to 5,000 events live, up to 20,000 in a rebuild; no row is written twice.
        """
