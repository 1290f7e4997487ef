"""What can go wrong while projecting: faults of the database, of an event, and a rival."""

from typing import Final
from uuid import UUID

import psycopg
from eventsourcing.persistence import MapperDeserialisationError, Notification, PersistenceError

#: What is wrong with the database, the way to it or its schema, not with an event: tried again for as long as it takes.
#: `InternalError`: the server has ended the transaction of a frozen process, or lets nobody write after a switch-over.
FAULTS: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.ProgrammingError,
    psycopg.InternalError,
    PersistenceError,
)


class ProjectionConflict(Exception):
    """Somebody else holds the projections or moved a checkpoint under us; nothing of this batch was committed."""


class PoisonEvent(Exception):
    """An event can't be projected; the message says which and why, without its content."""

    def __init__(self, notification: Notification, tenant_id: UUID | None, cause: Exception) -> None:
        self.notification = notification
        self.tenant_id = tenant_id
        # Only the kind of the error: the text of a database error may quote values.
        self.reason = str(cause) if isinstance(cause, MapperDeserialisationError) else type(cause).__name__
        if isinstance(cause, psycopg.Error) and cause.diag.constraint_name:
            self.reason += f" (constraint {cause.diag.constraint_name})"
        super().__init__(
            f"the event at position {notification.id} ({notification.topic}, stream "
            f"{notification.originator_id}) can't be projected: {self.reason}"
        )
