"""A batch of recorded events, and the row ids that follow from the log."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast, runtime_checkable
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

    A bounded memory holds the ids learned last. It goes by the number in a UUID: hashing the UUID itself runs Python
    code, and was a fifth of all folding.
    """

    def __init__(self, *, remember: int = 100_000) -> None:
        self._remember = remember
        self._known: dict[int, int] = {}

    def learn(self, recorded: Iterable[Recorded]) -> None:
        """Note the births in a batch, which saves the question."""
        for position, event in recorded:
            if event.originator_version == 1:
                self._known[event.originator_id.int] = position

    def of(self, conn: Connection[Any], stream_ids: Sequence[UUID]) -> list[int]:
        """The row id of each of these streams, in their order. Raises `LookupError` where one was never born."""
        known = self._known
        found = [known.get(stream_id.int) for stream_id in stream_ids]
        if None in found:
            self._look_up(conn, [s for s, row_id in zip(stream_ids, found, strict=True) if row_id is None])
            found = [known[stream_id.int] for stream_id in stream_ids]
        for oldest in list(islice(known, max(0, len(known) - self._remember))):
            del known[oldest]
        return cast(list[int], found)

    def _look_up(self, conn: Connection[Any], stream_ids: Sequence[UUID]) -> None:
        for row in _LOG.births(conn, stream_ids=list(set(stream_ids))):
            self._known[row["originator_id"].int] = row["notification_id"]
        for stream_id in stream_ids:
            if stream_id.int not in self._known:
                raise LookupError(f"the log holds no first event of stream {stream_id}")


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

    def row_ids(self, conn: Connection[Any], stream_ids: Sequence[UUID]) -> list[int]:
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

        Up to 5,000 events live, up to 20,000 in a rebuild; no row is written twice, but for one that goes under another
        person's hash and is analysed in the same batch.
        """


@runtime_checkable
class Settling(Protocol):
    """A projection that leaves something over while it loads bare tables, since without indexes it would be slow."""

    def settle(self, conn: Connection[Any]) -> None:
        """Do what was left over, in one go; to do it again changes nothing. Then the rows are what they should be."""
