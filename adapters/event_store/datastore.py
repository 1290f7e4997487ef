"""Connections of the event store: the library's datastore, acting in one of our database roles."""

import select
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from eventsourcing.persistence import InterfaceError, OperationalError
from eventsourcing.postgres import ConnectionPool, PostgresDatastore
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg.types.array import ListBinaryDumper
from psycopg_pool import PoolTimeout

#: The database roles that the runtime's log-in may take on; `sql/roles` says what each may do.
Role = Literal["evosense_app", "evosense_writer", "evosense_projector"]

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA: Final = "evosense_log"
#: Seconds for which an append waits for its turn, and for which a writer that has gone silent may keep it.
LOCK_TIMEOUT_S: Final = 20
SILENCE_TIMEOUT_S: Final = 15
#: Seconds for which a caller waits for a connection: longer, and a webhook's sender is kept waiting for a 503.
CONNECT_TIMEOUT_S: Final = 5.0
#: Seconds before a question is asked again. A server that ends all connections takes a moment about it: those that the
#: pool holds beside the first one may look alive still, so the last try comes when they are dead, and are passed over.
_PAUSES_S: Final = (0.0, 0.2)


def _check(conn: Connection[Any]) -> None:
    """Raise `psycopg.OperationalError` where the server has ended the connection.

    A server that ends one says so, or closes the socket: only then is there something to read on a connection that
    waits in the pool. To ask the server each time would cost every append and every load a round trip.
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    if poll.poll(0):
        ConnectionPool.check_connection(conn)


def once_more(question: Callable[P, T]) -> Callable[P, T]:
    """Decorator for what may be asked again: a connection that the server has just dropped shows only in use.

    Where no connection can be had at all, it is not asked again: the caller has waited long enough.
    """

    @wraps(question)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in _PAUSES_S:
            try:
                return question(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                if isinstance(error.__cause__, PoolTimeout):
                    raise
            time.sleep(pause)
        return question(*args, **kwargs)

    return asked


def send_arrays_in_binary(conn: Connection[Any]) -> None:
    """Make lists binary arrays: as text, every byte of an event becomes two, and an append takes 2.7 times as long."""
    conn.adapters.register_dumper(list, ListBinaryDumper)


class RoleDatastore(PostgresDatastore):
    """A pool whose connections have taken on `role`, and so may do what the role may and nothing else."""

    def __init__(self, dsn: str, role: Role, *, pool_size: int = 2, max_overflow: int = 4) -> None:
        # Set before the base class builds its pool, which asks for `after_connect_func`.
        self._role = role
        parts = conninfo_to_dict(dsn)
        super().__init__(
            dbname=str(parts.get("dbname") or "evosense"),
            host=str(parts.get("host") or "127.0.0.1"),
            port=str(parts.get("port") or "5432"),
            user=str(parts.get("user") or ""),
            password=str(parts.get("password") or ""),
            connect_timeout=CONNECT_TIMEOUT_S,
            idle_in_transaction_session_timeout=SILENCE_TIMEOUT_S,
            pool_size=pool_size,
            max_overflow=max_overflow,
            schema=SCHEMA,
        )
        # A server that was restarted leaves dead connections in the pool: look before use.
        self.pool._check = _check
        # After a fall of the database the next who asks tries at once, not when a pause of minutes has passed.
        self.pool.reconnect_timeout = CONNECT_TIMEOUT_S
        # The library knows five parameters: keep the others too, or `sslmode=verify-full` would be lost in silence.
        self.pool.kwargs = {**parts, **cast(dict[str, Any], self.pool.kwargs)}

    def after_connect_func(self) -> Callable[[Connection[Any]], None]:
        """The library's own preparation, then the role and how long it waits for a lock."""
        prepare = super().after_connect_func()
        role = self._role

        def after_connect(conn: Connection[Any]) -> None:
            prepare(conn)
            conn.execute(SQL("SET ROLE {}").format(Identifier(role)))
            send_arrays_in_binary(conn)
            conn.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_TIMEOUT_S}s",))

        return after_connect
