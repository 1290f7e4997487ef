"""The link with one connection's Evolution by socket.io: kept for ever, and everything that comes by it recorded.

Evolution offers no acknowledgement and no replay: what was received lives in this process until it is recorded, and
what was sent while there was no link is for catching up to find (`OnLinked`).
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from adapters.evolution import Envelope, EnvelopeError, parse_object
from adapters.evolution_socket import EvolutionSocket, SocketFault
from adapters.vault import VaultError
from api.faults import passes
from api.instances import is_missing, same
from api.links import Fault, Report, State
from api.relay import wait_any
from api.services import now
from domain.connections import Connection
from domain.errors import DomainError

#: Called when a link is there (again), with the time of the last event that is recorded: what came since is missing.
OnLinked = Callable[[Connection, datetime | None], None]
#: Records what an event holds; blocks on the database.
RecordEvent = Callable[[Connection, Envelope, datetime], object]

#: Events that are received and not yet recorded: beyond it the server has to wait.
QUEUE: Final = 1000
#: Seconds for which a link that ends goes on recording what it has received.
DRAIN_S: Final = 10.0
#: Asking for a namespace costs a packet of a connection that is there: seldom would only lose more.
_LONGEST_JOIN_S: Final = 5.0
_LONGEST_RECORD_S: Final = 5.0
#: Tries to record an event that fails for a reason of its own.
_TRIES: Final = 5
_FOR_EVER_S: Final = 10.0**9

_log = logging.getLogger(__name__)


class Pace(msgspec.Struct, frozen=True):
    """How long a link waits between attempts, in seconds: twice as long each time, from `first` to `longest`."""

    first: float = 1.0
    longest: float = 60.0

    def pause(self, attempts: int, longest: float | None = None) -> float:
        """How long to wait after so many attempts in vain (from 1); less by chance, so that not all come at once."""
        most = min(self.longest, longest or self.longest)
        grown = min(most, self.first * 2.0 ** min(attempts - 1, 30))
        return grown * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class SocketLink:
    """Runs until it is stopped. `secret_of` gives a connection's token; `counted` is shared, by outcome."""

    def __init__(
        self,
        source: Connection,
        last_event_at: datetime | None,
        *,
        secret_of: Callable[[Connection], str],
        record: RecordEvent,
        on_linked: OnLinked,
        counted: Counter[str],
        pace: Pace,
        queue: int = QUEUE,
    ) -> None:
        self.source = source
        self._secret_of = secret_of
        self._secret = ""
        self._record_event = record
        self._on_linked = on_linked
        self._counted = counted
        self._pace = pace
        self._queue: asyncio.Queue[tuple[Connection, Envelope, datetime]] = asyncio.Queue(queue)
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._abandoned = asyncio.Event()
        self._report = Report(state="connecting", since=now(), attempts=0, error=None, last_event_at=last_event_at)
        self._told: str | None = None
        #: Connections in a row that could not be had, or were lost at once.
        self._failed = 0

    @property
    def report(self) -> Report:
        """How it stands."""
        return self._report

    def follow(self, source: Connection) -> None:
        """The connection as it is now: where token or address have changed, connect anew."""
        before, self.source = self.source, source
        if (before.evo_ws_url, before.sealed_token) != (source.evo_ws_url, source.sealed_token):
            self._changed.set()

    def stop(self) -> None:
        """Listen no more; `run` returns when what was received is recorded, or can't be."""
        self._stop.set()

    async def run(self) -> None:
        """Keep the link until `stop`."""
        recorder = asyncio.create_task(self._record_all())
        try:
            while not self._stop.is_set():
                await self._connect()
            await wait_any(self._queue.join(), seconds=DRAIN_S)
        finally:
            self._abandoned.set()
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            if left := self._queue.qsize():
                self._counted["socket.io unrecorded"] += left
                _log.error("%d events of connection %s could not be recorded", left, self.source.id)

    # ------------------------------------------------------------------------------------------------------ the link

    async def _connect(self) -> None:
        """One connection, from the attempt to its end, and the pause after it."""
        self._changed.clear()
        self._becomes("connecting", self._report.error)
        socket: EvolutionSocket | None = None
        try:
            self._secret = await asyncio.to_thread(self._secret_of, self.source)
            socket = EvolutionSocket(self.source.evo_ws_url, self.source.name, self._secret, self._take)
            fault = await self._serve(socket)
        except SocketFault as error:
            fault = msgspec.convert(str(error), Fault)
        except VaultError:
            fault = "bad token"
        except Exception as error:
            if not passes(error):
                _log.exception("the link of connection %s failed in a way of its own", self.source.id)
            fault = "unreachable"
        finally:
            if socket is not None:
                await socket.close()
        if self._stop.is_set() or self._changed.is_set():
            return
        self._in_vain(fault)
        self._failed += 1
        pause = self._pace.pause(self._failed)
        await wait_any(self._stop.wait(), self._changed.wait(), seconds=pause)

    async def _serve(self, socket: EvolutionSocket) -> Fault:
        """Open it, and wait until it has ended or has to end."""
        opening = asyncio.create_task(socket.open())
        try:
            await wait_any(asyncio.wait([opening]), self._stop.wait(), self._changed.wait(), seconds=_FOR_EVER_S)
            if not opening.done():
                return "dropped"
            opening.result()
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        opened = asyncio.get_running_loop().time()
        keeper = asyncio.create_task(self._keep_joined(socket))
        try:
            await wait_any(socket.ended(), self._stop.wait(), self._changed.wait(), seconds=_FOR_EVER_S)
        finally:
            if self._report.state == "linked" or asyncio.get_running_loop().time() - opened > self._pace.longest:
                self._failed = 0
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        return "dropped"

    async def _keep_joined(self, socket: EvolutionSocket) -> None:
        """Be in the instance's namespace, as soon as and whenever there is one."""
        in_vain = 0
        while True:
            socket.changed.clear()
            if socket.joined or await socket.join():
                in_vain = 0
                self._is_linked()
                await socket.changed.wait()
                if not socket.joined:
                    self._in_vain("dropped")
                continue
            in_vain += 1
            if self._report.state != "linked":  # by `/`, with global events
                self._in_vain("invalid namespace")
                if in_vain == 1 and self._report.last_event_at is not None:
                    # With global events it never comes: what was missed must not wait for the next event.
                    self._ask_to_catch_up()
            pause = self._pace.pause(in_vain, _LONGEST_JOIN_S)
            await wait_any(socket.changed.wait(), seconds=pause)

    def _is_linked(self) -> None:
        if self._report.state == "linked":
            return
        self._becomes("linked", None, attempts=0)
        self._say("up")
        self._ask_to_catch_up()

    def _ask_to_catch_up(self) -> None:
        try:
            self._on_linked(self.source, self._report.last_event_at)
        except Exception:
            _log.exception("catching up of connection %s could not be asked for", self.source.id)

    def _in_vain(self, fault: Fault) -> None:
        self._becomes("waiting", fault, attempts=self._report.attempts + 1)
        self._say(fault)

    def _becomes(self, state: State, error: Fault | None, *, attempts: int | None = None) -> None:
        report = self._report
        self._report = msgspec.structs.replace(
            report,
            state=state,
            since=report.since if (state == "linked") == (report.state == "linked") else now(),
            error=error,
            attempts=report.attempts if attempts is None else attempts,
        )

    def _say(self, what: str) -> None:
        """Log when it comes up, and when or why it is down: once, not with each attempt."""
        if what != self._told:
            self._told = what
            if what == "up":
                _log.info("the link of connection %s is up", self.source.id)
            else:
                _log.warning("the link of connection %s is down or gives nothing (%s)", self.source.id, what)

    # ---------------------------------------------------------------------------------------------------- the events

    async def _take(self, namespace: str, data: object) -> None:
        source, moment = self.source, now()
        try:
            envelope = await self._read(namespace, data, moment)
        except EnvelopeError as error:
            self._counted["socket.io malformed"] += 1
            _log.warning("an event of connection %s is no envelope: %s", source.id, error)
            return
        except Exception as error:
            self._counted["socket.io malformed"] += 1
            _log.warning("an event of connection %s can't be read (%s)", source.id, type(error).__name__)
            return
        if envelope is None:
            return
        if namespace == "/":
            self._is_linked()
        if self._report.error in ("foreign apikey", "no apikey"):
            self._becomes(self._report.state, None)
        await wait_any(self._queue.put((source, envelope, moment)), self._abandoned.wait(), seconds=_FOR_EVER_S)

    async def _read(self, namespace: str, data: object, moment: datetime) -> Envelope | None:
        """The envelope, if it is for this connection. Raises `EnvelopeError`."""
        if isinstance(data, Mapping):
            if data.get("instance") != self.source.name:
                if namespace != "/":
                    self._counted["socket.io foreign"] += 1
                return None  # by `/` come everybody's
            given = data.get("apikey")
            if not same(given, self._secret):
                # Evolution lets whoever has any instance's token listen to all of them: the wall is ours to keep.
                none = is_missing(given)
                self._counted["socket.io without apikey" if none else "socket.io foreign"] += 1
                if namespace == "/":
                    self._is_linked()
                self._becomes(self._report.state, fault := "no apikey" if none else "foreign apikey")
                self._say(fault)
                return None
        return await asyncio.to_thread(parse_object, data, now=moment)

    async def _record_all(self) -> None:
        while True:
            source, envelope, moment = await self._queue.get()
            try:
                await self._record(source, envelope, moment)
            finally:
                self._queue.task_done()

    async def _record(self, source: Connection, envelope: Envelope, moment: datetime) -> None:
        """Record it, for as long as it takes; what fails for a reason of its own is given up, lest it stop the rest."""
        tries = waited = 0
        while True:
            try:
                await asyncio.to_thread(self._record_event, source, envelope, moment)
            except Exception as error:
                tries += not passes(error)
                if tries >= _TRIES or isinstance(error, DomainError):
                    self._counted["socket.io unrecorded"] += 1
                    _log.exception("an event of connection %s could not be recorded (%s)", source.id, envelope.event)
                    return
                if not waited:
                    _log.warning("connection %s has to wait to be recorded (%s)", source.id, type(error).__name__)
                waited += 1
                await asyncio.sleep(self._pace.pause(waited, _LONGEST_RECORD_S))
            else:
                self._counted["socket.io recorded"] += 1
                self._report = msgspec.structs.replace(self._report, last_event_at=moment)
                return
