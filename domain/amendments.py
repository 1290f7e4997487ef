"""Edits and deletions as they are announced: by (connection, key.id) alone, and perhaps before their message is here.

Evolution writes the rest of an edit's key from the editor's side, so what the announcement says of chat and direction
is a hint. What was announced stands in a stream of its own, whichever message it turns out to mean.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, with_zone
from domain.errors import Invalid
from domain.event import SEALED, Event, event_type
from domain.limits import fitting
from domain.message_keys import message_key_id
from domain.messages import MAX_CHAT_ID, DeleteMessage, EditMessage, Message, check_text


@event_type("amendments.EditAnnounced")
class EditAnnounced(Event, frozen=True, kw_only=True):
    """A message with that key says something else from now on. `text` is masked already.

    `chat_id` (a keyed hash, '' where unknown) and `from_me` are hints. `edited_at`: None where nobody said it.
    """

    connection_id: UUID
    chat_id: str
    from_me: bool | None
    edited_at: datetime | None
    external_id: Annotated[str, SEALED]
    text: Annotated[str, SEALED]


@event_type("amendments.DeletionAnnounced")
class DeletionAnnounced(Event, frozen=True, kw_only=True):
    """A message with that key was deleted for everyone; fields as in `EditAnnounced`."""

    connection_id: UUID
    chat_id: str
    from_me: bool | None
    deleted_at: datetime | None
    external_id: Annotated[str, SEALED]


class AnnounceEdit(Command, frozen=True, kw_only=True):
    """Record that an edit was announced."""

    tenant_id: UUID
    connection_id: UUID
    chat_id: str
    from_me: bool | None
    edited_at: datetime | None
    external_id: str
    text: str


class AnnounceDeletion(Command, frozen=True, kw_only=True):
    """Record that a deletion was announced."""

    tenant_id: UUID
    connection_id: UUID
    chat_id: str
    from_me: bool | None
    deleted_at: datetime | None
    external_id: str


class MessageKey(Aggregate, frozen=True, kw_only=True):
    """What was announced of the message, or the few messages, with one key.id on one connection."""

    tenant_id: UUID | None = None
    edits: tuple[EditAnnounced, ...] = ()
    deletions: tuple[DeletionAnnounced, ...] = ()

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = replace(super().evolve(event), tenant_id=event.tenant_id)
        match event:
            case EditAnnounced():
                return replace(after, edits=(*self.edits, event))
            case DeletionAnnounced():
                return replace(after, deletions=(*self.deletions, event))
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What was announced in the same words already gives no event.

        Neither does an edit once a deletion was announced: the text would have to be sealed away at once, and of an
        earlier announcement that was, nobody could tell any more whether it is the same.
        """
        match command:
            case AnnounceEdit():
                check_text(command.text)
                self._check(command)
                if self.deletions or any(_same(command, edit) for edit in self.edits):
                    return ()
                edited_at = command.edited_at and with_zone("edited_at", command.edited_at)
                return (
                    self._event(
                        EditAnnounced,
                        command,
                        command.tenant_id,
                        connection_id=command.connection_id,
                        chat_id=command.chat_id,
                        from_me=command.from_me,
                        edited_at=edited_at,
                        external_id=command.external_id,
                        text=command.text,
                    ),
                )
            case AnnounceDeletion():
                self._check(command)
                hints = command.chat_id, command.from_me
                # Whatever time it tells: a message is deleted once.
                if any((deletion.chat_id, deletion.from_me) == hints for deletion in self.deletions):
                    return ()
                deleted_at = command.deleted_at and with_zone("deleted_at", command.deleted_at)
                return (
                    self._event(
                        DeletionAnnounced,
                        command,
                        command.tenant_id,
                        connection_id=command.connection_id,
                        chat_id=command.chat_id,
                        from_me=command.from_me,
                        deleted_at=deleted_at,
                        external_id=command.external_id,
                    ),
                )
        raise Invalid(f"a message's key does not understand {type(command).__name__}")

    def _check(self, command: AnnounceEdit | AnnounceDeletion) -> None:
        fitting("chat_id", command.chat_id, MAX_CHAT_ID)
        if self.id != message_key_id(command.connection_id, command.external_id):
            raise Invalid("an announcement belongs to the stream of its own key")


def _same(command: AnnounceEdit, edit: EditAnnounced) -> bool:
    return (command.text, command.edited_at, command.chat_id, command.from_me) == (
        edit.text,
        edit.edited_at,
        edit.chat_id,
        edit.from_me,
    )


def meant(announced: EditAnnounced | DeletionAnnounced, messages: Sequence[Message]) -> list[Message]:
    """Which of the messages with its key an announcement speaks of.

    One alone is meant whatever the hints say. Of several, those that fit best: the chat counts before the direction.
    Where the hints don't tell them apart, all. And with each those of its direction and moment: they are one message,
    that arrived under the phone of its chat and under its LID, before anything named both (docs/adr/0033).
    """

    def fit(message: Message) -> tuple[bool, bool]:
        return message.chat_id == announced.chat_id, message.from_me == announced.from_me

    best = max(map(fit, messages), default=None)
    chosen = {(message.from_me, message.sent_at) for message in messages if fit(message) == best}
    return [message for message in messages if (message.from_me, message.sent_at) in chosen]


def amend(key: MessageKey, messages: Sequence[Message], at: datetime) -> dict[UUID, EditMessage | DeleteMessage]:
    """What has to be done to which of the messages with this key, by all that was announced: one command at most each.

    The same whichever came first, message or announcement, and in whatever order announcements came.
    """
    commands: dict[UUID, EditMessage | DeleteMessage] = {}
    # One that was sealed away says nothing any more.
    told = [edit for edit in key.edits if edit.text]
    for edit in sorted(told, key=lambda edit: (edit.edited_at or edit.at, edit.originator_version)):
        for message in meant(edit, messages):
            commands[message.id] = EditMessage(
                at=at,
                key_id=key.id,
                announcement=edit.originator_version,
                edited_at=edit.edited_at or edit.at,
                text=edit.text,
            )
    for deletion in reversed(key.deletions):
        for message in meant(deletion, messages):
            commands[message.id] = DeleteMessage(
                at=at,
                key_id=key.id,
                announcement=deletion.originator_version,
                deleted_at=deletion.deleted_at or deletion.at,
            )
    return commands


def addressed(key: MessageKey) -> Iterable[tuple[str, bool, str]]:
    """Chat, direction and key.id of the messages that announcements name in full, as far as they can still be read."""
    everything: tuple[EditAnnounced | DeletionAnnounced, ...] = (*key.edits, *key.deletions)
    for announced in everything:
        if announced.chat_id and announced.from_me is not None and announced.external_id:
            yield announced.chat_id, announced.from_me, announced.external_id


def message_key(identifier: UUID) -> MessageKey:
    """The key of that id (`message_key_id`) before anything was announced."""
    return MessageKey(id=identifier)
