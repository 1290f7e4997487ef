"""Message: one WhatsApp message, received once; then what a model said of it and where it lies in meaning."""

import array
import math
import sys
from datetime import datetime
from typing import Annotated, Final, Self
from uuid import UUID

from msgspec import field
from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id, with_zone
from domain.errors import Invalid, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting, storable
from domain.ports import DIMENSIONS, EMOTIONS, TONES, Analysis

VECTOR_BYTES: Final = DIMENSIONS * 4
#: Limits of the documented columns.
MAX_SUMMARY: Final = 200
MAX_CHAT_ID: Final = 128
MAX_SENDER: Final = 64
MAX_MODEL_NAME: Final = 64
#: What pgvector's `halfvec`, which the search reads, can hold.
_LARGEST_COMPONENT: Final = 65504
MAX_TEXT_BYTES: Final = 64 * 1024


@event_type("messages.MessageReceived")
class MessageReceived(Event, frozen=True, kw_only=True):
    """A message reached us for the first time. `text` is masked already; `chat_id` and `sender` are keyed hashes."""

    connection_id: UUID
    chat_id: str
    sender: str
    from_me: bool
    is_group: bool
    kind: str
    sent_at: datetime
    external_id: Annotated[str, SEALED]
    text: Annotated[str, SEALED]


@event_type("messages.MessageAnalyzed")
class MessageAnalyzed(Event, frozen=True, kw_only=True):
    """A model said what the message feels like. A later one of the same message replaces it."""

    model_name: str
    prompt_version: str
    sentiment: float
    emotion: str
    satisfaction: int
    tone: str
    summary: Annotated[str, SEALED]


@event_type("messages.MessageEmbedded")
class MessageEmbedded(Event, frozen=True, kw_only=True):
    """A model placed the message in its space. `vector`: 768 little-endian 32-bit floats."""

    model_name: str
    vector: Annotated[bytes, SEALED]


class ReceiveMessage(Command, frozen=True, kw_only=True):
    """Record a message that arrived."""

    tenant_id: UUID
    connection_id: UUID
    chat_id: str
    sender: str
    from_me: bool
    is_group: bool
    kind: str
    sent_at: datetime
    external_id: str
    text: str


class AnalyzeMessage(Command, frozen=True, kw_only=True):
    """Record what a model said."""

    model_name: str
    prompt_version: str
    analysis: Analysis


class EmbedMessage(Command, frozen=True, kw_only=True):
    """Record where a model placed the message.

    What the model has said already needs no second event, unless it was said in the stream's version `replaces` or
    before: that vector is no longer read (the tenant moved to another model, and is moving back).
    """

    model_name: str
    vector: bytes
    replaces: int = 0


class Message(Aggregate, frozen=True, kw_only=True):
    """State of a message. Its stream id is derived from what makes it unique in the world, so it is stored once.

    `embedded_by`: the models that gave it a vector, each with the version of the stream at which it last did.
    """

    tenant_id: UUID | None = None
    text: str = ""
    analyzed_by: tuple[str, str] | None = None
    embedded_by: dict[str, int] = field(default_factory=dict)

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case MessageReceived():
                return replace(after, tenant_id=event.tenant_id, text=event.text)
            case MessageAnalyzed():
                return replace(after, analyzed_by=(event.model_name, event.prompt_version))
            case MessageEmbedded():
                return replace(after, embedded_by={**self.embedded_by, event.model_name: after.version})
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What was recorded already needs no event: commands are idempotent (rule 3)."""
        if isinstance(command, ReceiveMessage):
            return self._receive(command)
        if self.tenant_id is None:
            raise NotFound("there is no such message")
        match command:
            case AnalyzeMessage():
                if self.analyzed_by == (command.model_name, command.prompt_version):
                    return ()
                analysis = checked(command.analysis)
                fitting("model_name", command.model_name, MAX_MODEL_NAME, least=1)
                return (
                    self._event(
                        MessageAnalyzed,
                        command,
                        self.tenant_id,
                        model_name=command.model_name,
                        prompt_version=command.prompt_version,
                        sentiment=analysis.sentiment,
                        emotion=analysis.emotion,
                        satisfaction=analysis.satisfaction,
                        tone=analysis.tone,
                        summary=analysis.summary,
                    ),
                )
            case EmbedMessage():
                if self.embedded_by.get(command.model_name, 0) > command.replaces:
                    return ()
                fitting("model_name", command.model_name, MAX_MODEL_NAME, least=1)
                _check_vector(command.vector)
                return (
                    self._event(
                        MessageEmbedded,
                        command,
                        self.tenant_id,
                        model_name=command.model_name,
                        vector=command.vector,
                    ),
                )
        raise Invalid(f"a message does not understand {type(command).__name__}")

    def _receive(self, command: ReceiveMessage) -> tuple[Event, ...]:
        if self.exists:
            return ()
        if not command.text.strip():
            raise Invalid("a message without text is none")
        if len(storable("a message's text", command.text)) > MAX_TEXT_BYTES:
            raise Invalid(f"a message's text has at most {MAX_TEXT_BYTES} bytes")
        fitting("chat_id", command.chat_id, MAX_CHAT_ID, least=1)
        fitting("sender", command.sender, MAX_SENDER, least=1)
        return (
            self._event(
                MessageReceived,
                command,
                command.tenant_id,
                connection_id=command.connection_id,
                chat_id=command.chat_id,
                sender=command.sender,
                from_me=command.from_me,
                is_group=command.is_group,
                kind=command.kind,
                sent_at=with_zone("sent_at", command.sent_at),
                external_id=command.external_id,
                text=command.text,
            ),
        )


def checked(analysis: Analysis) -> Analysis:
    """The analysis as it may be stored: `sentiment` rounded to 6 decimals, so that sums of it are exact.

    Raises `Invalid` where a value is out of range or vocabulary: a schema-valid answer of a model is not yet a valid
    one.
    """
    check_scores(analysis.sentiment, analysis.satisfaction)
    if analysis.emotion not in EMOTIONS:
        raise Invalid(f"the emotion is none of {', '.join(EMOTIONS)}")
    if analysis.tone not in TONES:
        raise Invalid(f"the tone is none of {', '.join(TONES)}")
    fitting("a summary", analysis.summary, MAX_SUMMARY)
    return replace(analysis, sentiment=round(analysis.sentiment, 6) + 0.0)


def check_scores(sentiment: float, satisfaction: int) -> None:
    """Raises `Invalid` where a score is out of its range (documented) or no number."""
    if not math.isfinite(sentiment) or not -1 <= sentiment <= 1:
        raise Invalid(f"sentiment lies between -1 and 1, not at {sentiment}")
    if not 0 <= satisfaction <= 100:
        raise Invalid(f"satisfaction lies between 0 and 100, not at {satisfaction}")


def _check_vector(vector: bytes) -> None:
    if len(vector) != VECTOR_BYTES:
        raise Invalid(f"a vector has {VECTOR_BYTES} bytes ({DIMENSIONS} floats); this one has {len(vector)}")
    floats = array.array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    if not all(abs(component) <= _LARGEST_COMPONENT for component in floats):
        raise Invalid(f"a vector's components are numbers between -{_LARGEST_COMPONENT} and {_LARGEST_COMPONENT}")
    if not any(floats):
        raise Invalid("a vector of zeros points nowhere: it has no cosine distance to anything")


def message_id(connection_id: UUID, chat_id: str, from_me: bool, external_id: str) -> UUID:
    """The stream id of a message: (connection, chat, fromMe, key.id), as EVOLUTION.md says, with the chat hashed."""
    return derived_id("message", connection_id, chat_id, int(from_me), external_id)


def message(identifier: UUID) -> Message:
    """The message of that id before anything has happened."""
    return Message(id=identifier)
