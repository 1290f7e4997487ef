"""NATS JetStream: how we connect, the stream and its consumer, and the envelope in which an event travels.

The stream is transport, never the truth: it holds envelopes that say where an event stands in the log and of what type
it is, and nothing of what is in it. Whoever needs the content reads the log.
"""

from typing import Any, Final
from uuid import UUID

import msgspec
import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import NotFoundError

STREAM: Final = "EVOSENSE_EVENTS"
SUBJECTS: Final = "evosense.events.>"
#: The durable consumer that all message workers share.
CONSUMER: Final = "worker"
#: What the message worker listens to: what it analyses, what it applies, and what it seals away.
LISTENS_TO: Final = tuple(
    f"evosense.events.*.{name}"
    for name in ("MessageReceived", "MessageEdited", "MessageDeleted", "EditAnnounced", "DeletionAnnounced")
)

#: Seconds that the stream keeps an envelope. A worker that is away for longer misses some: delete the stream, and the
#: relay makes a new one and sends the whole log again, which is harmless.
MAX_AGE_S: Final = 7 * 24 * 3600
#: Seconds within which an envelope that is sent again is dropped by the server.
DUPLICATE_WINDOW_S: Final = 300

_CONNECT_TIMEOUT_S: Final = 5
_SUBJECT_ROOT: Final = SUBJECTS.removesuffix(">")


class MalformedEnvelope(ValueError):
    """What arrived is no envelope of ours; the message says why, without quoting it."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event stands in the log, and of what type it is. `position` counts from 1, `version` too."""

    position: int
    tenant: UUID
    stream: UUID
    version: int
    type: str
    type_version: int

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "Envelope":
        """The envelope of a row of the query `envelopes_after`."""
        name, _, version = row["topic"].rpartition(":")
        return cls(
            position=row["notification_id"],
            tenant=row["tenant_id"],
            stream=row["originator_id"],
            version=row["originator_version"],
            type=name,
            type_version=int(version),
        )

    @property
    def topic(self) -> str:
        """Type and version as they stand in the log."""
        return f"{self.type}:{self.type_version}"

    @property
    def subject(self) -> str:
        """`evosense.events.<tenant>.<Event>`, `Event` being the last part of the type's name."""
        return f"{_SUBJECT_ROOT}{self.tenant}.{self.type.rpartition('.')[2]}"

    def encode(self) -> bytes:
        """JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, subject: str, data: bytes) -> "Envelope":
        """The envelope in a message. Raises `MalformedEnvelope`, also where it does not belong to the subject."""
        try:
            envelope = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, ValueError) as error:
            raise MalformedEnvelope(f"expected the JSON of an envelope ({type(error).__name__})") from None
        if envelope.subject != subject:
            raise MalformedEnvelope("tenant or type in the envelope are not those of its subject")
        if envelope.position < 1 or envelope.version < 1:
            raise MalformedEnvelope("positions and versions count from 1")
        return envelope


def servers(url: str) -> list[str]:
    """The servers of a cluster: addresses with commas between them."""
    return [part for part in (piece.strip() for piece in url.split(",")) if part]


async def connect(url: str, name: str) -> Client:
    """Connect once, and never again by itself: whoever uses it starts anew when the connection is lost.

    Raises `nats.errors.Error`, `OSError` or `asyncio.TimeoutError`.
    """
    return await nats.connect(
        servers(url),
        name=name,
        allow_reconnect=False,
        # Else the client tries each server sixty times, with pauses, before it says that none is there.
        max_reconnect_attempts=1,
        reconnect_time_wait=0,
        connect_timeout=_CONNECT_TIMEOUT_S,
        error_cb=_silent,
    )


async def ensure_stream(js: JetStreamContext) -> StreamInfo:
    """Create the stream, or bring it to our settings; limits that are not ours (replicas, bytes) stay as they are.

    Raises `nats.errors.Error`, a `BadRequestError` where the server does not allow it.
    """
    wanted: dict[str, Any] = {
        "subjects": [SUBJECTS],
        "retention": RetentionPolicy.LIMITS,
        "discard": DiscardPolicy.OLD,
        "max_age": MAX_AGE_S,
        "duplicate_window": DUPLICATE_WINDOW_S,
    }
    try:
        info = await js.stream_info(STREAM)
    except NotFoundError:
        return await js.add_stream(StreamConfig(name=STREAM, storage=StorageType.FILE, **wanted))
    if any(getattr(info.config, name) != value for name, value in wanted.items()):
        return await js.update_stream(info.config.evolve(**wanted))
    return info


async def identity(js: JetStreamContext) -> str:
    """What tells this stream from one of the same name that was here before: when it was created.

    Raises `NotFoundError` where there is none.
    """
    info = await js.stream_info(STREAM)
    return incarnation(info)


def incarnation(info: StreamInfo) -> str:
    """See `identity`."""
    return info.created.isoformat() if info.created else ""


def consumer_config(*, ack_wait: float, max_ack_pending: int) -> ConsumerConfig:
    """The message workers' consumer. `ack_wait`: seconds after which an unanswered message is delivered again.

    The server never gives up on a message (`max_deliver` -1), since it would do so silently: giving up is the worker's
    decision, and leaves a parked event behind.
    """
    return ConsumerConfig(
        name=CONSUMER,
        durable_name=CONSUMER,
        filter_subjects=list(LISTENS_TO),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
        max_deliver=-1,
        max_ack_pending=max_ack_pending,
    )


async def ensure_consumer(js: JetStreamContext, config: ConsumerConfig) -> None:
    """Create the consumer, or bring it to these settings. Raises `NotFoundError` where there is no stream yet.

    One that gets further subjects goes on where it was: what was published on these before is not delivered.
    """
    await js.add_consumer(STREAM, config)


async def consumer_exists(js: JetStreamContext, stream: str = STREAM, consumer: str = CONSUMER) -> bool:
    """Whether stream and consumer are still there. Raises `nats.errors.Error` where the server does not answer."""
    try:
        await js.consumer_info(stream, consumer)
    except NotFoundError:
        return False
    return True


async def _silent(_: Exception) -> None:
    """The client's own reports: what matters of them reaches the caller as an exception."""
