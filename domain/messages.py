"""Message: one WhatsApp message, received once; what a model said of it; and what its sender made of it later."""

from datetime import datetime
from typing import Annotated, Any, Final, Self
from uuid import UUID

from msgspec import field
from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id, with_zone
from domain.answers import check_vector, checked
from domain.errors import Invalid, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting, storable
from domain.message_keys import message_key_id
from domain.ports import Analysis

#: Limits of the documented columns.
MAX_CHAT_ID: Final = 128
MAX_SENDER: Final = 64
MAX_MODEL_NAME: Final = 64
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


@event_type("messages.MessageEdited")
class MessageEdited(Event, frozen=True, kw_only=True):
    """The message says something else from now on: what models said of the old text counts no more.

    It was announced in stream `key_id` (`domain.amendments.MessageKey`) with version `announcement`.
    """

    key_id: UUID
    announcement: int
    edited_at: datetime
    text: Annotated[str, SEALED]


@event_type("messages.MessageDeleted")
class MessageDeleted(Event, frozen=True, kw_only=True):
    """The message was deleted for everyone. Where it comes from as in `MessageEdited`."""

    key_id: UUID
    announcement: int
    deleted_at: datetime


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
    """Record what a model said of the text with that version (`Message.text_version`); nothing where that is gone.

    `only_first`: nothing, either, where any model has had its say on that text.
    """

    model_name: str
    prompt_version: str
    analysis: Analysis
    text_version: int = 1
    only_first: bool = False


class EmbedMessage(Command, frozen=True, kw_only=True):
    """Record where a model placed the message.

    What the model has said already needs no second event, unless it was said in the stream's version `replaces` or
    before: that vector is no longer read (the tenant moved to another model, and is moving back). `text_version` as in
    `AnalyzeMessage`.
    """

    model_name: str
    vector: bytes
    replaces: int = 0
    text_version: int = 1


class EditMessage(Command, frozen=True, kw_only=True):
    """Give the message another text, as an announcement says. An edit that is older than the text gives nothing."""

    key_id: UUID
    announcement: int
    edited_at: datetime
    text: str


class DeleteMessage(Command, frozen=True, kw_only=True):
    """Take the message away for good, as an announcement says."""

    key_id: UUID
    announcement: int
    deleted_at: datetime


class Message(Aggregate, frozen=True, kw_only=True):
    """State of a message. Its stream id is derived from what makes it unique in the world, so it is stored once.

    `text_version`: the version of the stream with which it got its text; what models said counts for that text alone.
    `edition`: when the text was written and which announcement said so, None for the text it came with.
    `embedded_by`: the models that gave it a vector, each with the version of the stream at which it last did.
    """

    tenant_id: UUID | None = None
    connection_id: UUID | None = None
    chat_id: str = ""
    from_me: bool = False
    sent_at: datetime | None = None
    external_id: str = ""
    text: str = ""
    text_version: int = 0
    edition: tuple[datetime, int] | None = None
    deleted: bool = False
    analyzed_by: tuple[str, str] | None = None
    embedded_by: dict[str, int] = field(default_factory=dict)

    @property
    def key_id(self) -> UUID | None:
        """Where edits and deletions of it are announced; None where none is of interest: none or gone."""
        if self.connection_id is None or self.deleted:
            return None
        return message_key_id(self.connection_id, self.external_id)

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case MessageReceived():
                return replace(
                    after,
                    tenant_id=event.tenant_id,
                    connection_id=event.connection_id,
                    chat_id=event.chat_id,
                    from_me=event.from_me,
                    sent_at=event.sent_at,
                    external_id=event.external_id,
                    text=event.text,
                    text_version=after.version,
                )
            case MessageAnalyzed():
                return replace(after, analyzed_by=(event.model_name, event.prompt_version))
            case MessageEmbedded():
                return replace(after, embedded_by={**self.embedded_by, event.model_name: after.version})
            case MessageEdited():
                edition = event.edited_at, event.announcement
                unread = replace(after, analyzed_by=None, embedded_by={})
                return replace(unread, text=event.text, text_version=after.version, edition=edition)
            case MessageDeleted():
                unread = replace(after, analyzed_by=None, embedded_by={})
                return replace(unread, text="", text_version=after.version, edition=None, deleted=True)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What was recorded already needs no event: commands are idempotent (rule 3)."""
        if isinstance(command, ReceiveMessage):
            return self._receive(command)
        if self.tenant_id is None:
            raise NotFound("there is no such message")
        if self.deleted:
            return ()
        match command:
            case AnalyzeMessage() | EmbedMessage() if command.text_version != self.text_version:
                return ()
            case AnalyzeMessage():
                same = self.analyzed_by == (command.model_name, command.prompt_version)
                if same or (command.only_first and self.analyzed_by is not None):
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
                check_vector(command.vector)
                return (
                    self._event(
                        MessageEmbedded,
                        command,
                        self.tenant_id,
                        model_name=command.model_name,
                        vector=command.vector,
                    ),
                )
            case EditMessage():
                edited_at = with_zone("edited_at", command.edited_at)
                if self.edition is not None and self.edition >= (edited_at, command.announcement):
                    return ()
                if self.edition is not None and self.edition[0] == edited_at and command.text == self.text:
                    return ()  # one edit, told in two ways
                check_text(command.text)
                source: dict[str, Any] = {"key_id": command.key_id, "announcement": command.announcement}
                said: dict[str, Any] = {"edited_at": edited_at, "text": command.text}
                return (self._event(MessageEdited, command, self.tenant_id, **source, **said),)
            case DeleteMessage():
                source = {"key_id": command.key_id, "announcement": command.announcement}
                deleted_at = with_zone("deleted_at", command.deleted_at)
                return (self._event(MessageDeleted, command, self.tenant_id, **source, deleted_at=deleted_at),)
        raise Invalid(f"a message does not understand {type(command).__name__}")

    def _receive(self, command: ReceiveMessage) -> tuple[Event, ...]:
        if self.exists:
            return ()
        check_text(command.text)
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


def check_text(text: str) -> None:
    """Raises `Invalid` where it says nothing, or more than a message's text may."""
    if not text.strip():
        raise Invalid("a message without text is none")
    if len(storable("a message's text", text)) > MAX_TEXT_BYTES:
        raise Invalid(f"a message's text has at most {MAX_TEXT_BYTES} bytes")


def message_id(connection_id: UUID, chat_id: str, from_me: bool, external_id: str) -> UUID:
    """The stream id of a message: (connection, chat, fromMe, key.id), as EVOLUTION.md says, with the chat hashed."""
    return derived_id("message", connection_id, chat_id, int(from_me), external_id)


def message(identifier: UUID) -> Message:
    """The message of that id before anything has happened."""
    return Message(id=identifier)
