"""How the worker sets events aside that it could not take, so that the rest goes on; and what passes by itself."""

from typing import Final
from uuid import UUID

import psycopg
from eventsourcing import persistence
from psycopg import Connection
from psycopg.rows import DictRow

from adapters.event_store.datastore import RoleDatastore
from adapters.nats import Envelope
from adapters.vault import VaultError
from api.commands import Contended
from domain.errors import DomainError
from sql import queries

#: Name under which the worker parks events.
SUBSCRIBER: Final = "worker"
#: What is no fault of a message: it is taken again, and never parked for it.
PASSING: Final = (
    *(persistence.OperationalError, persistence.InterfaceError, persistence.ProgrammingError),
    *(psycopg.OperationalError, psycopg.InterfaceError, psycopg.ProgrammingError),
    Contended,
)
#: Errors of ours, whose text is fit for an operator and holds no content.
_TELLING: Final = (DomainError, persistence.MapperDeserialisationError, VaultError)

_ENGINE: Final = queries("engine")


class Parking:
    """What the worker has parked. Its calls block on the database."""

    def __init__(self, datastore: RoleDatastore) -> None:
        self._datastore = datastore

    def park(self, envelope: Envelope, reason: str, attempts: int) -> None:
        """Set an event aside."""
        with self._datastore.get_connection() as conn, conn.transaction():
            park(conn, envelope.position, envelope.tenant, envelope.stream, envelope.topic, reason, attempts)

    def is_parked(self, envelope: Envelope) -> bool:
        """Whether it is."""
        with self._datastore.get_connection() as conn:
            return bool(_ENGINE.is_parked(conn, subscriber=SUBSCRIBER, position=envelope.position))

    def unpark(self, envelope: Envelope, reason: str) -> None:
        """It was parked for that reason, and is through. What it was parked for since stays."""
        with self._datastore.get_connection() as conn, conn.transaction():
            _ENGINE.unpark_for(conn, subscriber=SUBSCRIBER, position=envelope.position, reason=reason)


def park(
    conn: Connection[DictRow],
    position: int,
    tenant_id: UUID,
    stream_id: UUID,
    event_type: str,
    reason: str,
    attempts: int,
) -> None:
    """Set an event aside in the caller's transaction."""
    _ENGINE.park(
        conn,
        subscriber=SUBSCRIBER,
        position=position,
        tenant_id=tenant_id,
        stream_id=stream_id,
        event_type=event_type,
        reason=reason,
        attempts=attempts,
        projections=None,
    )


def reason_of(error: Exception) -> str:
    """What may be shown: a foreign error's text may quote a message, so only its kind is."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, _TELLING) else name
