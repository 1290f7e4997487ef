"""How a door that was shut for a while has its connection caught up, by whichever process sweeps."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import UUID

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from api.wiring import WriteSide
from sql import queries

_SWEEPING: Final = queries("sweeping")
_log = structlog.stdlib.get_logger(__name__)


class CatchUp(Protocol):
    """Who makes good what a transport may have missed. `api.sweeping.Sweeper`, which has to run, is one as well."""

    def wake(self, connection_id: UUID) -> None:
        """Catch this connection up as soon as may be; returns at once, and never raises."""


async def ask(write: WriteSide, query: Callable[..., Any], **parameters: Any) -> Any:
    """Ask the database one of our questions, from a thread. Raises `PersistenceError` and `psycopg.Error`."""

    def asked() -> Any:
        with write.datastore.get_connection() as conn:
            return query(conn, **parameters)

    return await asyncio.to_thread(asked)


class TableWaker:
    """A `CatchUp` that sweeps nothing itself: it says so in the table that all sweepers look at every few seconds.

    For one event loop. What can't be said because the database is away is made good by the next sweep.
    """

    def __init__(self, write: WriteSide) -> None:
        self._write = write
        self._saying: set[asyncio.Future[Any]] = set()

    def wake(self, connection_id: UUID) -> None:
        """See `CatchUp.wake`."""
        saying = asyncio.get_running_loop().run_in_executor(None, self._say, connection_id)
        self._saying.add(saying)
        saying.add_done_callback(self._saying.discard)

    def _say(self, connection_id: UUID) -> None:
        try:
            with self._write.datastore.get_connection() as conn:
                _SWEEPING.wake(conn, connection_id=connection_id)
        except (PersistenceError, psycopg.Error) as error:
            _log.warning("a connection can't be woken now; the next sweep comes", error=type(error).__name__)
