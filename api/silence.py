"""Connections that have been silent for longer than their own habit: found, said once, and taken back."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from adapters.event_store.datastore import once_more
from api.wiring import WriteSide
from domain.connections import Connection, connection_id
from projections.catalog import all_projections
from sql import queries

#: Seconds between two looks: habits are of an hour and more.
LOOK_EVERY_S: Final = 120.0
#: What an operator is told to do about it.
ADVICE: Final = (
    "check in Evolution's manager that the instance is open and its webhook enabled for MESSAGES_UPSERT, and that the "
    "phone is online; restart the instance if all of that is right"
)

_SWEEPING: Final = queries("sweeping")
_ENGINE: Final = queries("engine")
_log = structlog.stdlib.get_logger(__name__)


class Silence:
    """Looks at the habits of all connections, not more often than is worth while."""

    def __init__(self, write: WriteSide, clock: Callable[[], datetime]) -> None:
        self._write = write
        self._clock = clock
        self._projections = [projection.name for projection in all_projections()]
        self._looked = float("-inf")
        self._head = -1  # of the log, at the last look

    async def keep_looking(self, found: Callable[[], Sequence[Connection]], pause: float) -> None:
        """Look, again and again, until cancelled; `found` are the connections as they are known by then.

        For a task of its own: habits of a large installation take seconds. Whatever goes wrong is said and tried again.
        """
        while True:
            if known := found():
                try:
                    await asyncio.to_thread(self.look, known)
                except (PersistenceError, psycopg.Error) as error:
                    _log.warning("who is silent can't be looked for; trying again", error=type(error).__name__)
                except Exception:
                    _log.exception("who is silent can't be looked for; trying again")
            await asyncio.sleep(pause)

    @once_more
    def look(self, found: Sequence[Connection]) -> None:
        """Look at these connections, if it is time; blocks on the database."""
        with self._write.datastore.get_connection() as conn:
            if time.monotonic() - self._looked < LOOK_EVERY_S or not self._is_up_to_date(conn):
                return
            now = self._clock()
            habits = {connection_id(row["tenant_id"], row["name"]): row for row in _SWEEPING.habits(conn, at=now)}
            self._looked = time.monotonic()
            self._judge(conn, {one.id: habits[one.id] for one in found if one.is_active and one.id in habits}, now)

    def _is_up_to_date(self, conn: Any) -> bool:
        """Whether the read models have all that the log had at the last look: a projector that stands still makes every
        connection look silent."""
        before, self._head = self._head, self._write.log.head()
        reached = _ENGINE.projected_position(conn, projections=self._projections)["position"]
        return reached is not None and reached >= (before if before >= 0 else self._head)

    def _judge(self, conn: Any, habits: dict[UUID, dict[str, Any]], now: datetime) -> None:
        _SWEEPING.heard(
            conn,
            connection_ids=list(habits),
            last_message_ats=[row["last_message_at"] for row in habits.values()],
            gaps=[row["expected_gap_seconds"] for row in habits.values()],
        )
        silent = {row["connection_id"]: row["silent_since"] for row in _SWEEPING.standings(conn, tenant_id=None)}
        for identifier, row in habits.items():
            last, expected, since = row["last_message_at"], row["expected_gap_seconds"], silent.get(identifier)
            if last is None:
                continue
            if since is not None and last > since:
                if _SWEEPING.lift_silence(conn, connection_id=identifier, last_message_at=last):
                    _log.info("a connection is silent no more", connection=str(identifier))
                since = None
            late = since is None and expected is not None and now - last > timedelta(seconds=expected)
            if late and _SWEEPING.raise_silence(conn, connection_id=identifier, since=last, at=now):
                _log.warning(
                    "a connection is silent for longer than its habit: " + ADVICE,
                    connection=str(identifier),
                    last_message_at=last.isoformat(),
                    expected_gap_seconds=expected,
                )
