"""Read your own writes: a query that names a position waits until the read models have reached it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from adapters.postgres import connect_async
from api.problems import ProblemError
from projections.parking import PROJECTED
from sql import queries

_ENGINE: Final = queries("engine", "apsycopg")
_log = logging.getLogger(__name__)
_PAUSE_S: Final = 1.0
#: Looks even without a notification, should one be lost.
_POLL_S: Final = 1.0


class PositionWaiter:
    """Knows how far the read models are, told by the engine's notifications."""

    def __init__(self, dsn: str, projections: list[str], head: Callable[[], int]) -> None:
        """Take the projections to wait for, and what tells the log's last position (it may block)."""
        self._dsn = dsn
        self.projections = projections
        self._head = head
        self._position = 0
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """The position that all read models have reached, as far as is known here."""
        return self._position

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._follow(), name="position waiter")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self, position: int, seconds: float) -> None:
        """Return once the read models have reached `position`.

        Raises `ProblemError` 503 with Retry-After when so many seconds pass first, and 400, at once, for a position
        that the log has not reached either: no command has answered with it.
        """
        if position > self._position and position > (head := await asyncio.to_thread(self._head)):
            raise ProblemError(400, f"the log ends at position {head}: nothing has reached {position}")
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self._position >= position)
        except TimeoutError:
            raise ProblemError(
                503,
                f"the read models stand at position {self._position} and did not reach {position} within {seconds:g} s",
                retry_after=1,
            ) from None

    async def _follow(self) -> None:
        while True:
            try:
                async with await connect_async(self._dsn, "evosense_writer") as conn:
                    await conn.execute(SQL("LISTEN {}").format(Identifier(PROJECTED)))
                    while True:
                        await self._look(conn)
                        async for _ in conn.notifies(timeout=_POLL_S, stop_after=1):
                            pass
            except psycopg.Error as error:
                _log.warning("no word of the projections (%s); trying again", type(error).__name__)
                await asyncio.sleep(_PAUSE_S)

    async def _look(self, conn: psycopg.AsyncConnection[psycopg.rows.DictRow]) -> None:
        position = (await _ENGINE.projected_position(conn, projections=self.projections))["position"]
        if position is not None and position != self._position:
            async with self._moved:
                self._position = position
                self._moved.notify_all()
