"""The connections of the whole installation: for the doors that serve all tenants at once."""

import threading
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from psycopg import Connection as DatabaseConnection

from adapters.event_store import EventLog, RoleDatastore
from adapters.event_store.datastore import once_more
from adapters.vault import VaultError
from domain.connections import Connection, connection, connection_id
from sql import queries

if TYPE_CHECKING:
    from api.wiring import WriteSide

_RECEIVING: Final = queries("receiving")
#: What opening an event raises where the tenant's key is gone.
_CLOSED: Final = (MapperDeserialisationError, VaultError)
#: Seconds after which it is tried again to open what could not be opened.
_AGAIN_S: Final = 60.0


class KnownConnections:
    """Answers with all connections as they are; remembers them, so that only what is new is asked of the log.

    The doors ask every other second, and a connection's stream grows with its instance's states. Safe to share between
    threads. There are as many entries as connections.
    """

    def __init__(self, datastore: RoleDatastore, log: EventLog) -> None:
        self._datastore = datastore
        self._log = log
        self._lock = threading.Lock()
        self._known: dict[UUID, Connection] = {}
        self._closed: dict[UUID, float] = {}

    @once_more
    def of(self, name: str | None = None) -> list[Connection]:
        """See `known_connections`."""
        with self._datastore.get_connection() as conn:
            rows = list(_RECEIVING.known_connections(conn, name=name))
        now = time.monotonic()
        with self._lock:
            empties = [connection(connection_id(row["tenant_id"], row["name"])) for row in rows]
            states = [self._known.get(empty.id, empty) for empty in empties if self._closed.get(empty.id, 0.0) <= now]
        current = self._opened(states)
        with self._lock:
            self._known.update((one.id, one) for one in current)
            self._closed = {one: until for one, until in self._closed.items() if until > now}
            opened = {one.id for one in current}
            self._closed.update((one.id, now + _AGAIN_S) for one in states if one.id not in opened)
        return current

    def _opened(self, states: list[Connection]) -> list[Connection]:
        try:
            return self._log.load_many(states) if states else []
        except _CLOSED:
            return [one for state in states if (one := self._opened_alone(state)) is not None]

    def _opened_alone(self, state: Connection) -> Connection | None:
        try:
            return self._log.catch_up(state)
        except _CLOSED:
            return None


def known_connections(write: "WriteSide", name: str | None = None) -> list[Connection]:
    """All connections, active or not, or all of that name; oldest first, as the log has them; blocks on the database.

    Which there are comes from the read model, so a connection is found a moment after it was registered; how it is
    comes from the log. Those that can't be opened, as their tenant's key is gone, are left out: they are nobody's any
    more, and must not take the others along.
    """
    return write.known.of(name)


def names_of(conn: DatabaseConnection[Any]) -> dict[UUID, str]:
    """The names of all connections by their stream's id, for an operator; `conn` is in the writer's role."""
    rows = _RECEIVING.known_connections(conn, name=None)
    return {connection_id(row["tenant_id"], row["name"]): row["name"] for row in rows}
