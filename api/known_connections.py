"""The connections of the whole installation: for the doors that serve all tenants at once."""

from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import MapperDeserialisationError
from psycopg import Connection as DatabaseConnection

from adapters.event_store.datastore import once_more
from adapters.vault import VaultError
from api.wiring import WriteSide
from domain.connections import Connection, connection, connection_id
from sql import queries

_RECEIVING: Final = queries("receiving")
#: What opening an event raises where the tenant's key is gone.
_CLOSED: Final = (MapperDeserialisationError, VaultError)


@once_more
def known_connections(write: WriteSide, name: str | None = None) -> list[Connection]:
    """All connections, active or not, or all of that name; oldest first, as the log has them; blocks on the database.

    Which there are comes from the read model, so a connection is found a moment after it was registered; how it is
    comes from the log. Those that can't be opened, as their tenant's key is gone, are left out: they are nobody's any
    more, and must not take the others along.
    """
    with write.datastore.get_connection() as conn:
        rows = list(_RECEIVING.known_connections(conn, name=name))
    empties = [connection(connection_id(row["tenant_id"], row["name"])) for row in rows]
    try:
        return write.log.load_many(empties) if empties else []
    except _CLOSED:
        return [one for empty in empties if (one := _opened(write, empty)) is not None]


def _opened(write: WriteSide, empty: Connection) -> Connection | None:
    try:
        return write.log.load(empty)
    except _CLOSED:
        return None


def names_of(conn: DatabaseConnection[Any]) -> dict[UUID, str]:
    """The names of all connections by their stream's id, for an operator; `conn` is in the writer's role."""
    rows = _RECEIVING.known_connections(conn, name=None)
    return {connection_id(row["tenant_id"], row["name"]): row["name"] for row in rows}
