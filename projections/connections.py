"""Connections, in the documented table `connections_evolutionconnection`, under which hash the company writes, and in
which state the instances are."""

from collections import defaultdict
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from domain.connections import (
    ConnectionActivated,
    ConnectionDeactivated,
    ConnectionRegistered,
    ConnectionStateChanged,
    TokenRotated,
)
from domain.event import Event
from projections.batch import Batch
from sql import LIVE, queries

#: Events that change the row of the documented table.
_ROW_EVENTS: Final[tuple[type[Event], ...]] = (
    ConnectionRegistered,
    TokenRotated,
    ConnectionActivated,
    ConnectionDeactivated,
)


class ConnectionsProjection:
    """See `Projection`. A batch becomes at most four statements. Connections are few: no COPY into bare tables."""

    name = "connections"
    tables = ("connections_evolutionconnection", "connections_companysender", "connections_state")
    events: tuple[type[Event], ...] = (*_ROW_EVENTS, ConnectionStateChanged)

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("connections", schema=schema)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        registered = batch.of(ConnectionRegistered)
        changes: defaultdict[UUID, dict[str, Any]] = defaultdict(dict)
        for _, event in batch.of_any(_ROW_EVENTS):
            changes[event.originator_id] |= _change(event)
        if registered:
            born = [changes.pop(event.originator_id) for _, event in registered]
            ids = [position for position, _ in registered]
            tenant_ids = [event.tenant_id for _, event in registered]
            self._queries.put_connections(
                conn,
                ids=ids,
                tenant_ids=tenant_ids,
                names=[event.name for _, event in registered],
                evo_ws_urls=[event.evo_ws_url for _, event in registered],
                created_ats=[event.at for _, event in registered],
                **_columns(born),
            )
            senders = [event.company_sender for _, event in registered]
            self._queries.put_company_senders(conn, connection_ids=ids, tenant_ids=tenant_ids, senders=senders)
        if changes:
            ids = batch.row_ids(conn, list(changes))
            self._queries.change_connections(conn, ids=ids, **_columns(list(changes.values())))
        if states := {event.originator_id: event for _, event in batch.of(ConnectionStateChanged)}:
            told = list(states.values())
            self._queries.put_connection_states(
                conn,
                connection_ids=batch.row_ids(conn, list(states)),
                tenant_ids=[event.tenant_id for event in told],
                states=[event.state for event in told],
                reasons=[event.reason for event in told],
                changed_ats=[event.at for event in told],
            )


def _change(event: Event) -> dict[str, Any]:
    """What an event sets of what may change, by column."""
    change: dict[str, Any] = {"updated_at": event.at}
    match event:
        case ConnectionRegistered():
            change |= {"evo_token": event.sealed_token, "is_active": True}
        case TokenRotated():
            change["evo_token"] = event.sealed_token
        case ConnectionActivated():
            change["is_active"] = True
        case ConnectionDeactivated():
            change["is_active"] = False
    return change


def _columns(changes: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The rows as arrays, with None in what was not set."""
    return {
        "evo_tokens": [change.get("evo_token") for change in changes],
        "actives": [change.get("is_active") for change in changes],
        "updated_ats": [change["updated_at"] for change in changes],
    }
