"""The listener: hears Evolution by socket.io and NATS, for all tenants.

Each active connection whose address begins with `ws` is listened to by socket.io, by one process at a time; which one
is a matter of leases (`api.links`). Whoever can't reach the database keeps what it holds: nobody else could take it,
and what arrives meanwhile is kept until it can be recorded.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Final, ParamSpec, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from adapters.settings import Settings
from api.evolution_nats import EvolutionNats
from api.faults import connected
from api.instances import secret_of
from api.known_connections import known_connections
from api.links import BEAT_S, LEASE_S, Links, Report
from api.receiving import record
from api.relay import PASSING, wait_any
from api.socket_link import QUEUE, Pace, SocketLink
from api.waking import CatchUp, TableWaker
from api.wiring import WriteSide
from domain.connections import Connection

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_S: Final = 1.0
_THREADS: Final = 32
#: Seconds in which links are ended when the process is to stop, before they are given up.
_STOP_S: Final = 20.0

_log = logging.getLogger(__name__)


def by_socket(source: Connection) -> bool:
    """Whether a connection is to be listened to by socket.io: its address says so."""
    return source.is_active and urlsplit(source.evo_ws_url).scheme in ("ws", "wss")


class Listener:
    """One process of the listener. `queue`: events of a link that may wait to be recorded."""

    def __init__(
        self,
        write: WriteSide,
        *,
        nats: EvolutionNats | None = None,
        catch_up: CatchUp | None = None,
        lease: float = LEASE_S,
        beat: float = BEAT_S,
        pace: Pace | None = None,
        queue: int = QUEUE,
    ) -> None:
        self._write = write
        self._nats = nats
        self._catch_up = catch_up or TableWaker(write)
        self._beat_s = beat
        self._pace = pace or Pace()
        self._queue = queue
        self._leases = Links(write, lease=lease)
        # A thread of its own: while the database is away, links that wait to record hold all others.
        self._thread = ThreadPoolExecutor(1, "leases")
        # Beats and releases change the same leases.
        self._turn = asyncio.Lock()
        self._links: dict[UUID, tuple[SocketLink, asyncio.Task[None]]] = {}
        #: Links that are being ended, and whose leases are held until they are.
        self._leaving: dict[UUID, SocketLink] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._counted: Counter[str] = nats.counted if nats else Counter()
        self._away = False

    @property
    def holder(self) -> str:
        """This process's name in the table of leases."""
        return self._leases.holder

    @property
    def linked(self) -> dict[UUID, Report]:
        """The links of this process, and how each stands."""
        return {one: link.report for one, (link, _) in self._links.items()}

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop` is set; then record what was received, and give everything back."""
        nats = asyncio.create_task(self._nats.run(stop)) if self._nats else None
        try:
            while not stop.is_set():
                await self._try_beat()
                await wait_any(stop.wait(), seconds=self._beat_s)
        finally:
            for one in list(self._links):
                self._end(one)
            if ending := {*self._ending, *([nats] if nats else [])}:
                await asyncio.wait(ending, timeout=_STOP_S)
            try:
                async with self._turn:
                    await self._in_thread(self._leases.gone)
            except PASSING as error:
                _log.warning("the listener could not say that it is gone (%s)", type(error).__name__)
            self._thread.shutdown(wait=False)

    async def _try_beat(self) -> None:
        try:
            await self._beat()
        except PASSING as error:
            if not self._away:
                _log.warning("the database can't be worked with (%s); links stay", type(error).__name__)
            self._away = True
        else:
            self._away = False

    async def _beat(self) -> None:
        nats, error = (self._nats.state, self._nats.error) if self._nats else ("off", None)
        await self._in_thread(self._leases.seen, nats, error, dict(self._counted))
        known = await self._in_thread(known_connections, self._write)
        wanted = {source.id: source for source in known if by_socket(source)}
        tenants = {one: source.tenant_id for one, source in wanted.items() if source.tenant_id}
        async with self._turn:
            beat = await self._in_thread(self._leases.beat, tenants, self._reports())
        for one in beat.lost:
            _log.warning("another process has taken the link of connection %s", one)
            self._leaving.pop(one, None)
            self._end(one, held=False)
        for one in {*beat.surplus, *(self._links.keys() - wanted.keys())}:
            self._end(one)
        for taken in beat.taken:
            self._begin(wanted[taken.connection_id], taken.last_event_at)
        for one, (link, task) in list(self._links.items()):
            link.follow(wanted[one])
            if task.done():  # a fault of ours: it comes back with the next beat
                self._end(one)

    async def _in_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *arguments, **named))

    def _reports(self) -> dict[UUID, Report]:
        """How everything stands that is held, what is being given back as well."""
        links = {one: link for one, (link, _) in self._links.items()}
        return {one: link.report for one, link in {**self._leaving, **links}.items()}

    def _begin(self, source: Connection, last_event_at: datetime | None) -> None:
        link = SocketLink(
            source,
            last_event_at,
            secret_of=partial(secret_of, self._write.vault),
            record=partial(record, self._write, transport="socket.io"),
            on_linked=self._on_linked,
            counted=self._counted,
            pace=self._pace,
            queue=self._queue,
        )
        self._links[source.id] = (link, asyncio.create_task(link.run()))

    def _on_linked(self, source: Connection, since: datetime | None) -> None:
        """A link is there (again): what was sent since the last event is missing."""
        self._catch_up.wake(source.id)

    def _end(self, one: UUID, *, held: bool = True) -> None:
        """Listen no more, and give the lease back once that is so. In the background: beats go on meanwhile."""
        if one not in self._links:
            return
        link, task = self._links.pop(one)
        link.stop()
        if held:
            self._leaving[one] = link
        ending = asyncio.create_task(self._finish(one, link, task))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _finish(self, one: UUID, link: SocketLink, task: "asyncio.Task[None]") -> None:
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if outcome is not None:
            _log.error("the link of connection %s has ended in an error (%s)", one, type(outcome).__name__)
        try:
            async with self._turn:
                if self._leaving.get(one) is link:
                    await self._in_thread(self._leases.release, {one: link.report})
        except PASSING as error:
            _log.warning("a lease could not be given back (%s)", type(error).__name__)
        finally:
            if self._leaving.get(one) is link:
                del self._leaving[one]


async def run_listener(settings: Settings, stop: asyncio.Event, *, catch_up: CatchUp | None = None) -> None:
    """The role `listener`: listen until `stop` is set.

    Raises `SettingsError` or `MasterKeyError` where the configuration can't be used.
    """
    subjects = settings.evolution_subjects()
    # An append for each event that is recorded: threads of links wait for one another's, and share them.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "listener"))
    write = await connected(settings, stop)
    if write is None:
        return
    try:
        nats = (
            EvolutionNats(write, settings.evolution_nats_url.get_secret_value(), subjects)
            if (settings.evolution_nats_url)
            else None
        )
        await Listener(write, nats=nats, catch_up=catch_up).run(stop)
    finally:
        await asyncio.to_thread(write.close)
