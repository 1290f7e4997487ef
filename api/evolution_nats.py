"""Evolution by NATS: what a stream of ours captured of its core messages is recorded, and acknowledged after that.

What fails for a passing reason comes again, and so does, for a while, what may still find its connection; what can
never be recorded is ended with a line in the log. Several processes share one consumer, and each message is for one of
them.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal
from uuid import UUID

from nats.aio.msg import Msg
from nats.js import JetStreamContext

from adapters import evolution_stream as stream
from adapters import nats as jetstream
from adapters.evolution import EnvelopeError, decode, parse_object
from api.faults import passes
from api.instances import Instances, is_missing
from api.receiving import record
from api.relay import PASSING, wait_any
from api.services import now
from api.unclaimed import MOST, PATIENCE_S, Unclaimed
from api.wiring import WriteSide
from api.worker import PatientPull
from domain.connections import Connection
from domain.errors import DomainError

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
#: Seconds between looks whether stream and consumer are still there: a pull on a missing one says nothing.
_GUARD_S: Final = 5.0
_LINGER_S: Final = 1.0
#: Tries to record a message that fails for a reason of its own, and messages whose tries are counted.
_TRIES: Final = 5
_MOST_TRIED: Final = 10_000

_log = logging.getLogger(__name__)


class EvolutionNats:
    """Takes messages until stopped.

    `ack_wait`, `retry`, `later`: seconds until one comes again that got no answer, that failed, whose token is not its
    connection's; the last for `patience` seconds.
    """

    def __init__(
        self,
        write: WriteSide,
        url: str,
        subjects: list[str],
        *,
        batch: int = 64,
        ack_wait: float = 60,
        retry: float = 5.0,
        later: float = 60.0,
        patience: float = PATIENCE_S,
    ) -> None:
        self._write = write
        self._url = url
        self._subjects = subjects
        self._batch = batch
        self._ack_wait = ack_wait
        self._retry = float(retry)
        self._later = float(later)
        self._instances = Instances(write)
        self._unclaimed = Unclaimed(write, patience=patience)
        #: How often each has failed here for a reason of its own; what passed does not count.
        self._tries: dict[object, int] = {}
        self.state: Literal["waiting", "linked"] = "waiting"
        #: What is wrong, fit to be shown; None while all is well.
        self.error: str | None = None
        self.counted: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Take what comes until `stop` is set. Faults of NATS are waited out, for ever."""
        pause = _FIRST_PAUSE_S
        while not stop.is_set():
            try:
                await self._serve(stop)
                pause = _FIRST_PAUSE_S
            except Exception as error:
                if not isinstance(error, PASSING):
                    _log.exception("Evolution's NATS: a failure of its own")
                pause = _FIRST_PAUSE_S if self.state == "linked" else pause
                self.state = "waiting"
                self._is_wrong(_told(error))
                await wait_any(stop.wait(), seconds=pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _serve(self, stop: asyncio.Event) -> None:
        client = await jetstream.connect(self._url, "evosense listener")
        try:
            js = client.jetstream()
            missing = await stream.ensure_stream(js, self._subjects)
            await stream.ensure_consumer(js, ack_wait=self._ack_wait, max_ack_pending=4 * (self._batch + MOST))
            pull = PatientPull.of(await js.pull_subscribe_bind(stream.CONSUMER, stream.STREAM))
            self.state = "linked"
            if missing:
                self._is_wrong(f"the stream {stream.STREAM} does not capture {', '.join(missing)}")
            else:
                self.error = None
            _log.info("Evolution's NATS is listened to")
            await self._pull(js, pull, stop)
        finally:
            with suppress(*PASSING):
                await client.close()

    async def _pull(self, js: JetStreamContext, pull: PatientPull, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while not stop.is_set():
            if messages := await pull.fetch(self._batch, timeout=_LINGER_S):
                await self._take(messages)
            if loop.time() - looked > _GUARD_S:
                if not await jetstream.consumer_exists(js, stream.STREAM, stream.CONSUMER):
                    raise ConnectionError("the stream or its consumer is gone")
                looked = loop.time()

    def _is_wrong(self, what: str) -> None:
        if what != self.error:
            _log.error("Evolution's NATS: %s", what)
        self.error = what

    # ------------------------------------------------------------------------------------------------------ messages

    async def _take(self, messages: list[Msg]) -> None:
        """Answer each: those of one connection in their order, different ones side by side."""
        mine: defaultdict[UUID, list[tuple[Msg, Connection, object]]] = defaultdict(list)
        for message in messages:
            try:
                found = await asyncio.to_thread(self._read, message)
            except EnvelopeError as error:
                await self._hopeless(message, str(error))
            except Exception as error:
                await self._failed(message, error)
            else:
                if isinstance(found, float):
                    await message.nak(delay=found)
                elif isinstance(found, str):
                    self.counted[f"nats {found}"] += 1
                    await message.ack()
                else:
                    source, content = found
                    mine[source.id].append((message, source, content))
        for outcome in await asyncio.gather(*map(self._record, mine.values()), return_exceptions=True):
            if outcome is not None:
                raise outcome  # an answer could not be given: what got none comes again

    def _read(self, message: Msg) -> tuple[Connection, object] | str | float:
        """Connection and content; why it is of no interest; or in how many seconds it is to come again.

        Blocks. Raises `EnvelopeError`.
        """
        content = decode(message.data)
        if not isinstance(content, Mapping):
            raise EnvelopeError("the body must be a JSON object with `event`, `instance` and `data`")
        instance, apikey, url = content.get("instance"), content.get("apikey"), content.get("server_url")
        if is_missing(apikey):
            return "without apikey"
        key = _key(message)
        source = self._instances.connection_of(instance, apikey, url)
        if source == "unknown" and isinstance(instance, str):
            if self._unclaimed.is_early(key):
                self.counted["nats again"] += 1
                return self._retry
            source = self._instances.connection_of(instance, apikey, url)
        if source == "foreign apikey":
            is_new = key not in self._unclaimed
            if self._unclaimed.may_wait(key, str(instance)):
                self.counted["nats foreign apikey"] += is_new
                return self._later
            return "unknown"
        self._unclaimed.forget(key)
        if isinstance(source, str):
            return source
        return (source, content) if source.is_active else "inactive"

    async def _record(self, group: list[tuple[Msg, Connection, object]]) -> None:
        for message, source, content in group:
            try:
                await asyncio.to_thread(self._record_one, source, content)
            except EnvelopeError as error:
                await self._hopeless(message, str(error))
            except Exception as error:
                await self._failed(message, error)
            else:
                self._tries.pop(_key(message), None)
                self.counted["nats recorded"] += 1
                await message.ack()

    def _record_one(self, source: Connection, content: object) -> None:
        moment = now()
        record(self._write, source, parse_object(content, now=moment), moment, "nats")

    async def _hopeless(self, message: Msg, why: str) -> None:
        self.counted["nats malformed"] += 1
        _log.warning("dropped a message of Evolution: %s", why)
        await message.term()

    async def _failed(self, message: Msg, error: Exception) -> None:
        """Have it delivered again, unless that is of no use."""
        again = passes(error) or (not isinstance(error, DomainError) and self._tried(message) < _TRIES)
        if again:
            self.counted["nats again"] += 1
            await message.nak(delay=self._retry)
        else:
            self._tries.pop(_key(message), None)
            self.counted["nats unrecorded"] += 1
            _log.error("a message of Evolution could not be recorded (%s)", type(error).__name__)
            await message.term()

    def _tried(self, message: Msg) -> int:
        """Count one more try that failed for a reason of the message's own, and how many there were."""
        key = _key(message)
        tries = self._tries.pop(key, 0) + 1
        if len(self._tries) >= _MOST_TRIED:
            del self._tries[next(iter(self._tries))]
        self._tries[key] = tries
        return tries


def _key(message: Msg) -> object:
    """Tells a message from all others; a stream that is made anew begins its numbers again."""
    return message.metadata.sequence.stream, message.metadata.timestamp


def _told(error: BaseException) -> str:
    """Why it can't be listened to. What the server says of a stream is fit to be shown; addresses are not in it."""
    description = getattr(error, "description", None)
    return f"{type(error).__name__}: {description}" if isinstance(description, str) else type(error).__name__
