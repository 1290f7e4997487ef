"""A batch of recorded events, and the row ids that follow from the log."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar
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

    A bounded memory holds the ids used last.
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

    def of(self, event_class: type[_E]) -> Iterator[tuple[int, _E]]:
        """The events of one class, in order, with their positions."""
        for position, event in self.recorded:
            if isinstance(event, event_class):
                yield position, event

    def row_ids(self, conn: Connection[Any], stream_ids: Iterable[UUID]) -> Mapping[UUID, int]:
        """See `RowIds.of`."""
        return self._row_ids.of(conn, stream_ids)


class Projection(Protocol):
    """Folds events into the tables that it owns."""

    @property
    def name(self) -> str:
        """Name of the context; its checkpoint goes by it."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables it owns, in schema `evosense`."""

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """Fold the batch into the tables, within the engine's transaction, in as few statements as it takes."""
