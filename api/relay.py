"""The relay: reads where events stand in the log, and tells JetStream.

It sends at least once, in the order of the log, and remembers how far JetStream has acknowledged. The checkpoint
belongs to one stream, by the time of its creation: a stream that was lost and made again has none, so that the whole
log is sent to it again. Sending again is harmless: the server drops what it has seen within its window, and
subscribers are idempotent. So are several relays at once.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import NotFoundError
from psycopg import AsyncConnection, sql

from adapters import nats as jetstream
from adapters.event_store import CHANNEL
from adapters.nats import Envelope
from adapters.postgres import connect, connect_async
from adapters.settings import Settings
from projections.faults import FAULTS
from sql import queries

#: Beginning of the names of the relay's checkpoints; the stream's time of creation follows.
CHECKPOINT: Final = "jetstream "

_ACK_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0

_LOG: Final = queries("log")
_ENGINE: Final = queries("engine")
_log = logging.getLogger(__name__)

#: What passes by itself: NATS or PostgreSQL is away, or is being set up.
PASSING: Final = (*FAULTS, nats.errors.Error, OSError, TimeoutError)


class Relay:
    """Publishes the log's envelopes.

    `batch` envelopes are on their way at once, and the checkpoint moves when the last of them is acknowledged. `poll`:
    seconds between looks at the log and the stream when nothing is notified.
    """

    def __init__(self, dsn: str, nats_url: str, *, batch: int = 1000, poll: float = 5.0) -> None:
        self._dsn = dsn
        self._nats_url = nats_url
        self._batch = batch
        self._poll = poll

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set. Faults of NATS and PostgreSQL are waited out with growing pauses."""
        pause = _FIRST_PAUSE_S
        while not stop.is_set():
            try:
                async with _Session(self._dsn, self._nats_url) as session:
                    pause = _FIRST_PAUSE_S
                    await self._serve(session, stop)
            except PASSING as error:
                _log.warning("the relay was interrupted (%s); it goes on in %.1f s", type(error).__name__, pause)
                await wait_any(stop.wait(), seconds=pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _serve(self, session: "_Session", stop: asyncio.Event) -> None:
        while not stop.is_set():
            session.wake.clear()
            while not stop.is_set() and await session.forward(self._batch):
                pass
            await wait_any(stop.wait(), session.wake.wait(), session.deaf.wait(), seconds=self._poll)
            if not stop.is_set() and not session.wake.is_set():
                await session.check()


class _Session:
    """Connections to both sides, and where the relay stands. Leaving it closes them; any error ends it."""

    def __init__(self, dsn: str, nats_url: str) -> None:
        self._dsn = dsn
        self._nats_url = nats_url
        self._stack = AsyncExitStack()
        #: Set when the log has grown.
        self.wake = asyncio.Event()
        #: Set when the log can't be heard any more.
        self.deaf = asyncio.Event()

    async def __aenter__(self) -> "_Session":
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(await connect_async(self._dsn, "evosense_writer"))
            # LISTEN comes before the first look, or what is appended between the two is not heard of.
            await listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            self._conn = await asyncio.to_thread(connect, self._dsn, "evosense_writer")
            stack.callback(self._conn.close)
            ears = asyncio.create_task(self._hear(listener))
            stack.push_async_callback(_cancelled, ears)
            client = await jetstream.connect(self._nats_url, "evosense relay")
            stack.push_async_callback(_closed, client)
            self._js: JetStreamContext = client.jetstream()
            self._incarnation = jetstream.incarnation(await jetstream.ensure_stream(self._js))
            self._log_identity = await asyncio.to_thread(_LOG.log_identity, self._conn)
            self._position = await asyncio.to_thread(self._restore)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def forward(self, batch: int) -> int:
        """Send the next envelopes; returns how many there were. Raises the errors in `PASSING`."""
        envelopes = await asyncio.to_thread(self._read, batch)
        if envelopes:
            await self._publish(envelopes)
            await asyncio.to_thread(self._move, envelopes[-1].position)
        return len(envelopes)

    async def check(self) -> None:
        """Raise an error of `PASSING` where the log is not heard any more, or the stream is not the one it was."""
        if self.deaf.is_set():
            raise ConnectionError("the log can't be heard any more")
        if await jetstream.identity(self._js) != self._incarnation:
            raise ConnectionError("the stream was replaced by another one")

    @property
    def _name(self) -> str:
        return CHECKPOINT + self._incarnation

    def _read(self, batch: int) -> list[Envelope]:
        rows = _LOG.envelopes_after(self._conn, position=self._position, batch=batch)
        return [Envelope.of_row(row) for row in rows]

    def _move(self, position: int) -> None:
        _ENGINE.move_relay_checkpoint(self._conn, name=self._name, position=position)
        self._position = position

    def _restore(self) -> int:
        position = _ENGINE.relay_checkpoint(self._conn, name=self._name)
        if position is None:
            _log.info("this stream has no checkpoint: the log is sent from its beginning")
            _ENGINE.move_relay_checkpoint(self._conn, name=self._name, position=0)
            _ENGINE.forget_other_relay_checkpoints(self._conn, prefix=CHECKPOINT, name=self._name)
        return int(position or 0)

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        acknowledgements = [
            await self._js.publish_async(
                envelope.subject,
                envelope.encode(),
                wait_stall=_ACK_TIMEOUT_S,
                stream=jetstream.STREAM,
                # A position means something within its log alone: another log's events must not be taken for it.
                headers={Header.MSG_ID: f"{self._log_identity}.{envelope.position}"},
            )
            for envelope in envelopes
        ]
        await asyncio.wait_for(asyncio.gather(*acknowledgements), _ACK_TIMEOUT_S)

    async def _hear(self, listener: AsyncConnection[Any]) -> None:
        try:
            async for _ in listener.notifies():
                self.wake.set()
        finally:
            self.deaf.set()


async def run_relay(settings: Settings, stop: asyncio.Event) -> None:
    """The role `relay`: publish until `stop` is set. Raises `SettingsError` where something is not configured."""
    await Relay(settings.runtime_dsn, settings.nats_dsn, poll=5 * settings.projector_poll).run(stop)


async def wait_any(*waiting: Any, seconds: float) -> None:
    """Wait until one of the coroutines is through, or `seconds` have passed; the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in waiting]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, *PASSING):
        await task


async def _closed(client: Client) -> None:
    with suppress(*PASSING):
        await client.close()


async def jetstream_state(settings: Settings) -> dict[str, Any]:
    """What an operator wants to know of the transport.

    `stream`, `messages`, `bytes`, `relayed` (the log's position that JetStream has acknowledged), and of the worker's
    consumer `pending` (not delivered yet), `ack_pending` (delivered, not answered), `redelivered`; each None where
    stream or consumer do not exist yet. Where NATS or PostgreSQL can't be asked: `error` alone, fit to be shown.
    """
    state: dict[str, Any] = dict.fromkeys(
        ("messages", "bytes", "relayed", "pending", "ack_pending", "redelivered"), None
    )
    try:
        client = await jetstream.connect(settings.nats_dsn, "evosense status")
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return {"error": f"NATS does not answer ({type(error).__name__}): is EVOSENSE_NATS_URL right?"}
    try:
        js = client.jetstream()
        with suppress(NotFoundError):
            info = await js.stream_info(jetstream.STREAM)
            state.update(messages=info.state.messages, bytes=info.state.bytes)
            name = CHECKPOINT + jetstream.incarnation(info)
            state["relayed"] = await asyncio.to_thread(_relayed, settings.runtime_dsn, name)
            consumer = await js.consumer_info(jetstream.STREAM, jetstream.CONSUMER)
            state.update(
                pending=consumer.num_pending,
                ack_pending=consumer.num_ack_pending,
                redelivered=consumer.num_redelivered,
            )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return {"error": f"JetStream does not answer ({type(error).__name__}): is it enabled in NATS?"}
    except FAULTS as error:
        return {"error": f"the relay's checkpoint can't be read from PostgreSQL ({type(error).__name__})"}
    finally:
        await _closed(client)
    return {"stream": jetstream.STREAM, **state}


def _relayed(dsn: str, name: str) -> int | None:
    with connect(dsn, "evosense_writer") as conn:
        position: int | None = _ENGINE.relay_checkpoint(conn, name=name)
        return position
