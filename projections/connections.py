"""Connections, in the documented table `connections_evolutionconnection`, and under which hash the company writes."""

from typing import Any, Final

from psycopg import Connection

from domain.connections import ConnectionActivated, ConnectionDeactivated, ConnectionRegistered, TokenRotated
from projections.batch import Batch
from sql import queries

_CONNECTIONS: Final = queries("connections")
_OURS: Final = (ConnectionRegistered, TokenRotated, ConnectionActivated, ConnectionDeactivated)


class ConnectionsProjection:
    """See `Projection`."""

    name = "connections"
    tables = ("connections_evolutionconnection", "connections_companysender")

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        ours = [(position, event) for position, event in batch.recorded if isinstance(event, _OURS)]
        row_ids = batch.row_ids(conn, (event.originator_id for _, event in ours))
        for position, event in ours:
            row_id = row_ids[event.originator_id]
            match event:
                case ConnectionRegistered():
                    _CONNECTIONS.put_connection(
                        conn,
                        id=position,
                        tenant_id=event.tenant_id,
                        name=event.name,
                        evo_ws_url=event.evo_ws_url,
                        evo_token=event.sealed_token,
                        at=event.at,
                    )
                    _CONNECTIONS.put_company_sender(
                        conn, connection_id=position, tenant_id=event.tenant_id, sender=event.company_sender
                    )
                case TokenRotated():
                    _CONNECTIONS.set_token(conn, id=row_id, evo_token=event.sealed_token, at=event.at)
                case ConnectionActivated():
                    _CONNECTIONS.set_active(conn, id=row_id, is_active=True, at=event.at)
                case ConnectionDeactivated():
                    _CONNECTIONS.set_active(conn, id=row_id, is_active=False, at=event.at)
