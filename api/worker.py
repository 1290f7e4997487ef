"""The message worker's door: a FastStream subscriber on JetStream, a durable consumer that all workers share.

FastStream pulls and hands over raw messages in batches; `api.analysis` decides about each. Beside it stands a guard
that notices when stream or consumer are gone and subscribes anew, since a pull on a missing consumer says nothing.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import nats.errors
from faststream.middlewares import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsBatchMessage
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError, ServiceUnavailableError

from adapters import nats as jetstream
from adapters.embeddings import Embedders
from adapters.settings import Settings
from api.analysis import MessageWorker
from api.asking import Asking, Asks
from api.backlog import LEASE_S, Backlog
from api.deferring import Deferring
from api.draining import Drainer
from api.faults import connected
from api.lanes import Counts
from api.local_asks import LocalAsks
from api.model_catalogue import Catalogue
from api.models import Models
from api.relay import PASSING, wait_any
from domain.ports import Analyser, Embedder

_PAUSE_S: Final = 1.0
_GUARD_S: Final = 2.0
_START_S: Final = 10.0
#: Seconds for which a pull waits for its first message, and for each that follows.
_LINGER_S: Final = 1.0
_GATHER_S: Final = 0.01
_SLACK_S: Final = 0.2
#: No message, and the time is up: how a pull ends in a quiet hour.
_NOTHING_CAME: Final = ("404", "408")

_log = logging.getLogger(__name__)


class Worker:
    """Subscribes, and keeps the subscription alive.

    `batch`: messages at once; `ack_wait`: seconds after which a message without an answer is delivered to another
    worker, to be longer than a batch takes.
    """

    def __init__(self, messages: MessageWorker, nats_url: str, *, batch: int = 64, ack_wait: float = 60) -> None:
        self._messages = messages
        self._nats_url = nats_url
        self._batch = batch
        self._ack_wait = ack_wait

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, finishing the batch in hand. Faults of NATS are waited out."""
        while not stop.is_set():
            try:
                async with self._subscribed() as guarded:
                    while not stop.is_set() and await guarded():
                        await wait_any(stop.wait(), seconds=_GUARD_S)
                    if not stop.is_set():
                        _log.warning("the subscription is gone; subscribing anew")
            except NotFoundError:
                _log.info("the stream %s is not there yet: the relay makes it", jetstream.STREAM)
            except PASSING as error:
                _log.warning("NATS can't be worked with (%s); trying again", type(error).__name__)
            if not stop.is_set():
                await wait_any(stop.wait(), seconds=_PAUSE_S)

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[Any]:
        """Subscribe; gives a function that says whether the subscription is still good."""
        config = jetstream.consumer_config(ack_wait=self._ack_wait, max_ack_pending=max(512, 4 * self._batch))
        # First by a connection of our own: the broker's would bind to an existing consumer without updating it, and
        # would wait for ever for a server that is not there.
        client = await jetstream.connect(self._nats_url, "evosense worker guard")
        try:
            await jetstream.ensure_consumer(client.jetstream(), config)
            broker = self._broker()
            subscriber = broker.subscriber(
                jetstream.SUBJECTS,  # its filter stands in `config`
                durable=jetstream.CONSUMER,
                config=config,
                stream=JStream(jetstream.STREAM, declare=False),
                pull_sub=PullSub(batch_size=self._batch, timeout=_LINGER_S, batch=True),
                ack_policy=AckPolicy.MANUAL,
                decoder=_raw,
            )
            subscriber(self._take)
            try:
                await asyncio.wait_for(broker.start(), _START_S)
                if subscriber.subscription is not None:
                    subscriber.subscription = PatientPull.of(subscriber.subscription)
                yield lambda: _good(client, broker)
            finally:
                await _stopped(broker)
        finally:
            with suppress(*PASSING):
                await client.close()

    async def _take(self, batch: list[Msg]) -> None:
        try:
            await self._messages.take(batch)
        except Exception:
            # FastStream would swallow it; the messages come back after `ack_wait`.
            _log.exception("the worker could not settle a batch")

    def _broker(self) -> NatsBroker:
        return NatsBroker(
            jetstream.servers(self._nats_url),
            name="evosense worker",
            # The batch in hand is finished before the connection is given up.
            graceful_timeout=self._ack_wait,
            # Never closed under the subscriber, see `PatientPull`.
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            # The handler takes what the decoder gives, unvalidated: one malformed message must not cost its neighbours.
            apply_types=False,
            logger=None,
        )


class PatientPull(JetStreamContext.PullSubscription):
    """Pulls without losing what was delivered, and without blocking the loop.

    The library's `fetch` drains what is left of earlier pulls first, asks for "the rest" even where that is a negative
    number, and drops all it has drained when the server answers 400 (nats-py 2.16): those messages came back after
    `ack_wait`. And FastStream asks again at once when a pull fails; where it fails at once, too, the loop hangs.
    """

    @classmethod
    def of(cls, pull: JetStreamContext.PullSubscription) -> "PatientPull":
        """The same subscription, with patience."""
        patient = cls.__new__(cls)
        patient.__dict__.update(pull.__dict__)
        return patient

    async def fetch(self, batch: int = 1, timeout: float | None = 5, heartbeat: float | None = None) -> list[Msg]:  # noqa: ASYNC109 - the library's own signature
        """At most `batch` messages: those that are here already, or the first one to come within `timeout` seconds and
        those that come with it. None where none comes; what comes later is for the next call."""
        messages = await self._here(batch, 0.0)
        if messages:
            return messages
        seconds = timeout or _LINGER_S
        request = {"batch": batch, "expires": int(seconds * 1_000_000_000)}
        try:
            await self._nc.publish(self._nms, json.dumps(request).encode(), self._deliver)
            first = await self._sub.next_msg(seconds + _SLACK_S)
        except (TimeoutError, nats.errors.TimeoutError):
            return []
        except (nats.errors.ConnectionClosedError, ServiceUnavailableError):
            await asyncio.sleep(_PAUSE_S)
            raise
        if JetStreamContext.is_status_msg(first):
            # The request has ended: nothing came, or there is nobody to answer it.
            await asyncio.sleep(0 if JetStreamContext.is_status_msg(first) in _NOTHING_CAME else _PAUSE_S)
            return []
        return [first, *await self._here(batch - 1, _GATHER_S)]

    async def _here(self, most: int, patience: float) -> list[Msg]:
        """What has been delivered, and what follows each within `patience` seconds."""
        messages: list[Msg] = []
        while len(messages) < most and (patience or self._sub.pending_msgs):
            try:
                message = await self._sub.next_msg(patience or _SLACK_S)
            except (TimeoutError, nats.errors.Error):
                break
            if not JetStreamContext.is_status_msg(message):
                messages.append(message)
            elif patience:
                break
        return messages


async def run_worker(
    settings: Settings,
    stop: asyncio.Event,
    *,
    analyser: Analyser | None = None,
    embedder: Embedder | None = None,
    asks: Asks | None = None,
    count: Counts | None = None,
    ack_wait: float = 60,
    lease: float = LEASE_S,
) -> None:
    """The role `worker`: work until `stop` is set, with the configured models where none are given.

    `asks`: how what waits in the backlog is answered; by the tenants' chains where neither it nor an analyser is given,
    else by that analyser. `count`: who counts what embedding costs; the tenants' usage where nobody is given. `lease`:
    seconds after which another worker takes what this one had in hand, where this one is gone. Raises `SettingsError`
    or `MasterKeyError` where the configuration can't be used.
    """
    catalogue = Catalogue.of(settings)
    models = Models(analyser or catalogue.offline, Embedders(embedder) if embedder else catalogue.embedders)
    if embedder is None:
        await catalogue.probe()
    if analyser is None and embedder is None:
        # The offline models load on first use: now, and not as the latency of the first message's analysis.
        await models.analyser.analyse(["bom dia"])
    url = settings.nats_dsn
    write = await connected(settings, stop)
    if write is None:
        return
    async with AsyncExitStack() as opened:
        opened.push_async_callback(asyncio.to_thread, write.close)
        opened.push_async_callback(catalogue.close)
        if asks is None and analyser is None:
            from api.active_prompt import ActivePrompt  # noqa: PLC0415 - its template engine is for this role alone

            budget = settings.daily_budget_in_millionths
            asks = asking = Asking(write, catalogue, ActivePrompt(write.log), write.usage, write.answers, budget)
            opened.push_async_callback(asking.close)
        asks = asks or LocalAsks(models)
        count = count or partial(write.usage.count, purpose="embedding")
        backlog = Backlog(write.datastore, lease=lease)
        tries, delay = settings.worker_max_deliver, settings.worker_retry_delay
        deferring = Deferring(backlog, asks)
        messages = MessageWorker(write, models, max_deliver=tries, retry_delay=delay, deferring=deferring)
        order = settings.analysis_order
        drainer = Drainer(write, backlog, asks, models, order, max_deliver=tries, retry_delay=delay, count=count)
        worker = Worker(messages, url, batch=settings.worker_batch, ack_wait=ack_wait)
        async with asyncio.TaskGroup() as side_by_side:
            side_by_side.create_task(worker.run(stop))
            side_by_side.create_task(drainer.run(stop))


async def _raw(batch: NatsBatchMessage) -> list[Msg]:
    return batch.raw_message


async def _good(client: Client, broker: NatsBroker) -> bool:
    if client.is_closed or not await broker.ping(timeout=_GUARD_S):
        return False
    return await jetstream.consumer_exists(client.jetstream())


async def _stopped(broker: NatsBroker) -> None:
    connection = broker.connection if broker.config.broker_config.connection_state else None
    with suppress(*PASSING):
        await broker.stop()
    # Without a server there is nothing to drain, and `stop` gives up before it closes.
    if connection is not None and not connection.is_closed:
        with suppress(*PASSING):
            await connection.close()
