"""The connections of the whole installation: for the doors that serve all tenants at once."""

from typing import Any, Final
from uuid import UUID

from psycopg import Connection as DatabaseConnection

from adapters.event_store.datastore import once_more
from api.wiring import WriteSide
from domain.connections import Connection, connection, connection_id
from sql import queries

_RECEIVING: Final = queries("receiving")


@once_more
def known_connections(write: WriteSide, name: str | None = None) -> list[Connection]:
    """All connections, active or not, or all of that name; oldest first, as the log has them; blocks on the database.

    Which there are comes from the read model, so a connection is found a moment after it was registered; how it is
    comes from the log.
    """
    with write.datastore.get_connection() as conn:
        rows = list(_RECEIVING.known_connections(conn, name=name))
    empties = [connection(connection_id(row["tenant_id"], row["name"])) for row in rows]
    return write.log.load_many(empties) if empties else []


def names_of(conn: "DatabaseConnection[Any]") -> dict[UUID, str]:
    """The names of all connections by their stream's id, for an operator; `conn` is in the writer's role."""
    rows = _RECEIVING.known_connections(conn, name=None)
    return {connection_id(row["tenant_id"], row["name"]): row["name"] for row in rows}
