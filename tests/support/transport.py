"""What the tests of relay and worker share: messages in the log, JetStream's raw content, waiting for conditions."""

import asyncio
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from adapters.nats import CONSUMER, STREAM
from adapters.settings import Settings
from api.commands import Done, Intent, Step
from api.wiring import WriteSide
from domain.messages import ReceiveMessage, message

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

#: Personal data that goes in with every message, and must be found nowhere outside the log.
NUMBER = "5511987650001"
EXTERNAL = "3EB0C767D26A1B2C3D4E"


async def until(condition: Callable[[], Any], what: str, *, seconds: float = 25) -> None:
    """Wait until the condition (a function or coroutine function) holds; fails with `what` after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        assert asyncio.get_running_loop().time() < deadline, f"waited {seconds} s in vain: {what}"
        await asyncio.sleep(0.02)


def receive(write: WriteSide, texts: Sequence[str], *, tenant: UUID | None = None) -> list[UUID]:
    """Put messages of a (new) tenant into the log; returns their stream ids."""
    if tenant is None:
        tenant = uuid4()
        write.vault.create(tenant)
    connection = uuid4()
    ids = [uuid4() for _ in texts]
    outcomes = write.commands.handle_many(
        [
            Intent(
                (
                    Step(
                        message(identifier),
                        (
                            ReceiveMessage(
                                at=NOW,
                                tenant_id=tenant,
                                connection_id=connection,
                                chat_id=write.vault.key(tenant).pseudonym(NUMBER),
                                sender=write.vault.key(tenant).pseudonym(NUMBER),
                                from_me=False,
                                is_group=False,
                                kind="text",
                                sent_at=NOW,
                                external_id=f"{EXTERNAL}{number}",
                                text=text,
                            ),
                        ),
                    ),
                ),
                new=True,
            )
            for number, (identifier, text) in enumerate(zip(ids, texts, strict=True))
        ]
    )
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    return ids


@asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """JetStream for the test itself."""
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def wipe(url: str) -> None:
    """Delete the stream with its consumers."""
    async with jetstream(url) as js:
        with suppress(NotFoundError):
            await js.delete_stream(STREAM)


async def stored(js: JetStreamContext) -> list[RawStreamMsg]:
    """All messages of the stream, in its order."""
    try:
        info = await js.stream_info(STREAM)
    except NotFoundError:
        return []
    return [await js.get_msg(STREAM, sequence) for sequence in range(1, info.state.last_seq + 1)]


async def count(js: JetStreamContext) -> int:
    """How many messages the stream has; 0 where there is no stream."""
    try:
        return (await js.stream_info(STREAM)).state.messages
    except NotFoundError:
        return 0


async def settled(js: JetStreamContext) -> bool:
    """Whether the worker was delivered, and has answered, all that is in the stream for it."""
    try:
        consumer = await js.consumer_info(STREAM, CONSUMER)
    except NotFoundError:
        return False
    return not consumer.num_pending and not consumer.num_ack_pending


@asynccontextmanager
async def running(role: Callable[[asyncio.Event], Any]) -> AsyncIterator[asyncio.Event]:
    """A role in the background, stopped at the end; fails where it ended in an error."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(role(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


@asynccontextmanager
async def process(settings: Settings, file: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A test file's own program as a process of its own; killed at the end."""
    environment = {**settings.environment(), "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, file, *arguments, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def secrets_of(settings: Settings) -> list[bytes]:
    """The settings' own secrets, as bytes."""
    assert settings.master_key is not None
    return [settings.master_key.get_secret_value().encode(), os.fsencode(settings.runtime_dsn)]
