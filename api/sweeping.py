"""The sweep: asks Evolution, all the time, for what it has and we have not; and catches up after a gap of ours.

Any number of processes may sweep: a connection is in one process's hand at a time, by a lease in
`evosense_ops.connection_sweeps`. Leases and turns go by the database's clock, windows of messages by the one given.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from adapters.evolution_api import EvolutionError, EvolutionUnavailable, rest_address
from adapters.evolution_messages import EvolutionMessages
from adapters.settings import Settings
from api.catching_up import Catcher, client_of, utc_now
from api.known_connections import known_connections
from api.silence import Silence
from api.sweeps import Claim, enrol, forget_erased
from api.waking import ask
from api.wiring import WriteSide
from domain.connections import Connection
from domain.errors import DomainError
from sql import queries

#: By how much a window reaches back into the last one: a message may be stored a while after it was sent.
OVERLAP: Final = timedelta(minutes=10)
#: What was sent so recently may be on its way by the webhook, and nobody has missed it.
GRACE: Final = timedelta(seconds=60)
#: A phone that was offline brings messages late: from time to time the sweep reaches back further.
DEEP: Final = timedelta(hours=24)
DEEP_EVERY: Final = timedelta(hours=6)
#: What is recorded before it is noted how far it has come; and how long that may take.
STEP: Final = timedelta(hours=1)
DEADLINE_S: Final = 120.0
_LEASE_S: Final = DEADLINE_S + 60
_LONGEST_BACK_OFF_S: Final = 3600.0
#: Connections that one process sweeps at a time, and those of one server among them.
_AT_ONCE: Final = 6
_AT_ONCE_A_SERVER: Final = 2
_TICK_S: Final = 5.0
_TRIES: Final = 2
#: Seconds until the next turn where the sweep is switched off and asked for once.
_DEFAULT_PAUSE_S: Final = 300

_SWEEPING: Final = queries("sweeping")
_log = structlog.stdlib.get_logger(__name__)


class Sweeper:
    """Sweeps all active connections; see the module. For one event loop."""

    def __init__(self, write: WriteSide, settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._write = write
        self._ask = partial(ask, write)
        self._on = settings.sweep_seconds > 0
        self._every = settings.sweep_seconds or _DEFAULT_PAUSE_S
        self._most = timedelta(days=settings.catch_up_days)
        self._clock = clock
        self._silence = Silence(write, clock)
        self._known: list[Connection] = []
        self._sources: dict[UUID, Connection] = {}
        self._refreshed = float("-inf")
        self._for_long = False  # or for one turn, in which everybody is asked
        self._running: dict[UUID, tuple[asyncio.Task[None], str]] = {}
        self._woken: set[UUID] = set()
        self._bell = asyncio.Event()
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"

    def wake(self, connection_id: UUID) -> None:
        """Catch this connection up as soon as may be, from where it had come to; returns at once, and never raises.

        It may be in another process's hand: it is that one's turn then.
        """
        self._woken.add(connection_id)
        self._bell.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until told to stop. Faults of the database are waited out."""
        if not self._on:
            _log.info("sweeping is switched off", setting="EVOSENSE_SWEEP_SECONDS")
            await stop.wait()
            return
        begun, self._for_long = False, True
        # Beside the sweep, which waits for nothing that it does not need.
        looking = asyncio.create_task(self._silence.keep_looking(lambda: self._known, _TICK_S))
        try:
            while not stop.is_set():
                try:
                    await self._look(begin=not begun)
                    begun = True
                except (PersistenceError, psycopg.Error) as error:
                    _log.error("the sweep can't work with the database; trying again", error=type(error).__name__)
                await self._rest(stop)
        finally:
            looking.cancel()
            await self._end()

    async def once(self, *, everything: bool = True) -> None:
        """Sweep what no other process has in its hand: everything, or what is due; and look for silence.

        Raises `PersistenceError` and `psycopg.Error`.
        """
        try:
            await self._refresh()
            await asyncio.to_thread(self._silence.look, self._known)
            await self._look(begin=everything)
            while self._running:
                await asyncio.wait([task for task, _ in self._running.values()])
                await self._look(begin=False)
        finally:
            await self._end()

    async def _rest(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._bell.wait())]
        try:
            await asyncio.wait(waiting, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        self._bell.clear()

    async def _end(self) -> None:
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(PersistenceError, psycopg.Error):
            await self._ask(_SWEEPING.release, holder=self.holder)

    # ---------------------------------------------------------------------------------------------- whose turn it is

    async def _look(self, *, begin: bool) -> None:
        """Begin with the connections whose turn it is; at times see which ones there are."""
        if time.monotonic() - self._refreshed >= _TICK_S:
            await self._refresh()
        if begin:
            await self._ask(_SWEEPING.all_due, connection_ids=list(self._sources))
        for connection_id in list(self._woken):
            await self._ask(_SWEEPING.wake, connection_id=connection_id)
            self._woken.discard(connection_id)
        await self._start(await asyncio.to_thread(self._due))

    async def _refresh(self) -> None:
        self._known = await asyncio.to_thread(known_connections, self._write)
        self._sources = {one.id: one for one in self._known if one.is_active and one.tenant_id is not None}
        await asyncio.to_thread(enrol, self._write, self._known)
        await asyncio.to_thread(forget_erased, self._write)
        if inactive := [one.id for one in self._known if not one.is_active]:
            await self._ask(_SWEEPING.keep_out, connection_ids=inactive, at=self._clock())
        self._refreshed = time.monotonic()

    def _due(self) -> list[UUID]:
        with self._write.datastore.get_connection() as conn:
            return [row["connection_id"] for row in _SWEEPING.due(conn, connection_ids=list(self._sources))]

    async def _start(self, due: Sequence[UUID]) -> None:
        """Begin with as many as may be under way at once, of one server and of all."""
        for connection_id in due:
            source = self._sources[connection_id]
            server = rest_address(source.evo_ws_url)
            same = sum(other == server for _, other in self._running.values())
            if len(self._running) >= _AT_ONCE:
                return
            if connection_id in self._running or same >= _AT_ONCE_A_SERVER:
                continue
            row = await self._ask(_SWEEPING.claim, connection_id=connection_id, holder=self.holder, lease=_LEASE_S)
            if row is not None:
                task = asyncio.create_task(self._sweep(source, Claim(**row)), name=f"sweep {connection_id}")
                self._running[connection_id] = task, server
                task.add_done_callback(partial(self._done, connection_id))

    def _done(self, connection_id: UUID, _: asyncio.Task[None]) -> None:
        self._running.pop(connection_id, None)
        self._bell.set()  # there is room for another

    # ------------------------------------------------------------------------------------------------- one connection

    async def _sweep(self, source: Connection, claim: Claim) -> None:
        """Sweep a connection that is in our hand, and note how that went. Raises nothing but `CancelledError`."""
        least_pause, hangs = 0.0, False
        try:
            deep = await self._fetch(source, claim)
        except EvolutionError as error:
            problem = str(error)
            if isinstance(error, EvolutionUnavailable):
                least_pause, hangs = error.retry_after or 0.0, error.problem == "timeout"
        except DomainError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"the sweep took longer than {DEADLINE_S:g} s for {STEP.total_seconds() / 3600:g} h of messages"
        except (PersistenceError, psycopg.Error) as error:
            problem = f"the database can't be worked with ({type(error).__name__})"
        except Exception as error:
            # Of this connection alone: the others are swept.
            _log.exception("a sweep failed", connection=str(source.id))
            problem = f"an unexpected fault ({type(error).__name__}): the log says where"
        else:
            with suppress(PersistenceError, psycopg.Error):  # its lease runs out, and it is swept again
                await self._ended(source, claim, deep)
            return
        with suppress(PersistenceError, psycopg.Error):
            await self._failed(source, claim, problem, least_pause)
            if hangs and self._for_long:
                server = rest_address(source.evo_ws_url)
                others = [one.id for one in self._sources.values() if rest_address(one.evo_ws_url) == server]
                await self._ask(_SWEEPING.put_off, connection_ids=others, pause=self._every)

    async def _fetch(self, source: Connection, claim: Claim) -> datetime | None:
        """Fetch and record what is new; returns the time where it reached back further than usual."""
        now = self._clock()
        most = now - self._most
        back = claim.swept_until - OVERLAP if claim.swept_until else claim.not_before
        since = max(claim.not_before, back, most)
        # Of a connection that was never swept nothing is known to be missing.
        if claim.swept_until is not None and (gap := max(claim.not_before, claim.swept_until)) < most:
            await self._leave_out(source, gap, most)
        late = claim.swept_until is None or now - claim.swept_until > OVERLAP + 3 * timedelta(seconds=self._every)
        catching_up = claim.catch_up or claim.failures > 0 or late
        deep = claim.deep_at is None or now - claim.deep_at >= DEEP_EVERY
        client = await asyncio.to_thread(client_of, self._write, source)
        messages = EvolutionMessages(client, tries=_TRIES)
        catcher = Catcher(self._write, source, messages, clock=self._clock, grace=GRACE, transport="sweep")
        async with client:
            done = await self._record(source, catcher, since, now, catching_up=catching_up)
            # Last, so that what is wrong with an old hour does not keep the new ones out.
            old = max(claim.not_before, now - DEEP, most)
            if done and deep and old < since:
                done = await self._record(source, catcher, old, since, catching_up=catching_up)
        return now if done and deep else None

    async def _record(
        self, source: Connection, catcher: Catcher, since: datetime, until: datetime, *, catching_up: bool
    ) -> bool:
        """Fetch and record a stretch of time; False where the connection is not ours any more."""
        async with aclosing(catcher.windows(since, until, STEP)) as windows:
            while True:
                async with asyncio.timeout(DEADLINE_S):
                    window = await anext(windows, None)
                if window is None:
                    return True
                end, caught = window
                missed = caught.new - caught.young
                held = await self._ask(
                    _SWEEPING.advance,
                    connection_id=source.id,
                    holder=self.holder,
                    lease=_LEASE_S,
                    swept_until=end,
                    seen=caught.seen,
                    found=0 if catching_up else missed,
                    caught=missed if catching_up else 0,
                )
                if missed:
                    _log.info(
                        "caught up" if catching_up else "the sweep found what nothing else had brought",
                        connection=str(source.id),
                        messages=missed,
                    )
                if not held or source.id not in self._sources:  # another process has it by now, or it was deactivated
                    return False

    async def _leave_out(self, source: Connection, since: datetime, until: datetime) -> None:
        await self._ask(_SWEEPING.leave_out, connection_id=source.id, since=since, until=until)
        _log.warning(
            "a gap is longer than what is caught up by itself (EVOSENSE_CATCH_UP_DAYS); `evosense backfill` fetches it",
            connection=str(source.id),
            since=since.isoformat(),
            until=until.isoformat(),
        )

    async def _ended(self, source: Connection, claim: Claim, deep: datetime | None) -> None:
        # Not all at the same time for ever: each has a length of its own, a tenth more or less.
        pause = self._every * (0.9 + 0.2 * (source.id.int % 1000) / 1000)
        await self._ask(_SWEEPING.ended, connection_id=source.id, holder=self.holder, pause=pause, deep_at=deep)
        if claim.last_error is not None:
            _log.info("the sweep works again", connection=str(source.id))

    async def _failed(self, source: Connection, claim: Claim, problem: str, least_pause: float) -> None:
        pause = min(_LONGEST_BACK_OFF_S, max(least_pause, self._every * 2.0 ** min(claim.failures, 20)))
        await self._ask(
            _SWEEPING.failed,
            connection_id=source.id,
            holder=self.holder,
            pause=pause,
            error=problem,
            catch_up=claim.catch_up,
        )
        if problem != claim.last_error:  # said once, and again when it is another
            _log.warning("the sweep of a connection fails", connection=str(source.id), problem=problem)
