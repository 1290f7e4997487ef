"""The JetStream stream that makes Evolution's core NATS messages durable on our side, and our consumer of it."""

from collections.abc import Sequence
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

STREAM: Final = "EVOLUTION"
#: The durable consumer that all processes of the listener share.
CONSUMER: Final = "evosense"
#: Seconds that the stream keeps a message: so long may nobody listen before something is lost.
MAX_AGE_S: Final = 7 * 24 * 3600


async def ensure_stream(js: JetStreamContext, subjects: Sequence[str]) -> list[str]:
    """Create the stream where there is none; one that is there stays as it is. Returns what it does not capture.

    Raises `nats.errors.Error`, a `BadRequestError` where another stream captures some of these subjects.
    """
    try:
        info = await js.stream_info(STREAM)
    except NotFoundError:
        info = await js.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=list(subjects),
                storage=StorageType.FILE,
                retention=RetentionPolicy.LIMITS,
                discard=DiscardPolicy.OLD,
                max_age=MAX_AGE_S,
                # Whoever publishes is told nothing, which Evolution does not ask for. Without it the server refuses
                # subjects that begin with any word, because `$JS` would be one.
                no_ack=True,
            )
        )
    captured = info.config.subjects or []
    return [subject for subject in subjects if not any(covers(pattern, subject) for pattern in captured)]


async def ensure_consumer(js: JetStreamContext, *, ack_wait: float, max_ack_pending: int) -> None:
    """Create the consumer, or bring it to these settings. `ack_wait`: seconds until what got no answer comes again."""
    config = ConsumerConfig(
        name=CONSUMER,
        durable_name=CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
        # Giving up is the listener's decision, which it logs; the server would do so in silence.
        max_deliver=-1,
        max_ack_pending=max_ack_pending,
    )
    await js.add_consumer(STREAM, config)


def covers(pattern: str, subject: str) -> bool:
    """Whether everything that `subject` (a subject or itself a pattern) stands for is captured by `pattern`."""
    ours, theirs = pattern.split("."), subject.split(".")
    for place, part in enumerate(ours):
        if part == ">":
            return len(theirs) > place
        if place >= len(theirs) or theirs[place] == ">" or part not in ("*", theirs[place]):
            return False
    return len(ours) == len(theirs)
