"""Reads the rows of a delivery: each is a message, an edit, a deletion, or nothing of interest.

Rows are checked by hand, field by field: a history of ten thousand messages has to pass in about a second, most of its
bytes are media keys that nobody reads, and a broken row must not fail the ones beside it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from adapters.evolution.content import Message, Opened, open_message, read_content, type_of
from adapters.evolution.keys import (
    Hints,
    Key,
    editors_hints,
    from_me_of,
    id_of,
    our_hints,
    people_of,
    person_or_none,
    remote_of,
)
from adapters.evolution.model import Envelope, Ignored, InboundDeletion, InboundEdit, InboundMessage, Refusal
from adapters.evolution.timestamps import read_timestamp, timestamp_or_none
from adapters.evolution.vocabulary import (
    DELETED,
    DELIVERY_STATUS,
    EDITED,
    NO_KEY,
    NO_MESSAGE,
    NOT_AN_OBJECT,
    OTHER,
    STATUS,
    STUB,
    SYSTEM,
)
from domain.identity import is_group

_EDIT, _REVOKE = "edit", "revoke"
_REVOKED: Final = (0, "0", "REVOKE")
_STUB_REVOKED: Final = (1, "1", "REVOKE")


class Rows:
    """Takes the rows of one delivery and keeps what was in them."""

    def __init__(self, sender: object, now: datetime) -> None:
        """`sender`: the envelope's, the instance's own address; `now` bounds the timestamps."""
        self._own = person_or_none(sender)
        self._now = now
        self._messages: list[InboundMessage] = []
        self._edits: list[InboundEdit] = []
        self._deletions: list[InboundDeletion] = []
        self._ignored: list[Ignored] = []

    def envelope(self, event: str, instance: str) -> Envelope:
        """What was in all the rows."""
        return Envelope(
            event,
            instance,
            tuple(self._messages),
            tuple(self._ignored),
            tuple(self._edits),
            tuple(self._deletions),
        )

    def take(self, event: str, row: object) -> None:
        """Read a row of this event. Never raises for what is in it."""
        try:
            if not isinstance(row, Mapping):
                raise Refusal(OTHER, NOT_AN_OBJECT)
            match event:
                case "messages.edited" | "send.message.update":
                    self._protocol_row(event, row)
                case "messages.delete":
                    self._deletion_row(row)
                case "messages.update":
                    self._update_row(row)
                case _:
                    self._message_row(row)
        except Refusal as refusal:
            self._ignored.append(refusal.ignored)

    # ------------------------------------------------------------------------------------------ events of messages

    def _message_row(self, row: Message) -> None:
        kind = type_of(row)
        key = row.get("key")
        if not isinstance(key, Mapping):
            raise Refusal(kind, NO_KEY)
        remote = remote_of(key, kind)
        outer = row.get("message")
        if _is_deleted(row, key, outer):
            self._delete(id_of(key, DELETED), our_hints(key, self._own, DELETED), None)
            return
        if outer is None and row.get("messageStubType") is not None:
            raise Refusal(STUB, SYSTEM)
        if not isinstance(outer, Mapping):
            raise Refusal(kind, NO_MESSAGE)
        opened = open_message(outer)
        change, edited_at = _change_in(opened.protocol), None
        if change is not None and opened.protocol is not None:
            meant = opened.protocol.get("key")
            if not (change == _EDIT and isinstance(meant, Mapping) and meant.get("id") == key.get("id")):
                self._change(change, opened.protocol, key, self._hints(change, key, opened.protocol), row)
                return
            # A history has the message itself in its edited form.
            edited_at = timestamp_or_none(opened.protocol.get("timestampMs"), now=self._now)
            opened = _edited_form(opened.protocol)
        message = self._message(row, key, remote, opened)
        self._messages.append(message)
        if opened.edited or row.get("status") == "EDITED":
            hints = Hints(message.chat, message.from_me)
            self._edit(message.external_id, hints, message.text, edited_at or message.sent_at)

    def _message(self, row: Message, key: Key, remote: str, opened: Opened) -> InboundMessage:
        kind, text = read_content(opened, row)
        external_id = id_of(key, kind)
        from_me = from_me_of(key, kind)
        people = people_of(key, remote, from_me, row.get("participant"), self._own, kind)
        try:
            sent_at = read_timestamp(row.get("messageTimestamp"), now=self._now)
        except ValueError as error:
            raise Refusal(kind, str(error)) from None
        return InboundMessage(
            external_id=external_id,
            chat=people.chat,
            author=people.author,
            from_me=from_me,
            is_group=is_group(remote),
            kind=kind,
            text=text,
            sent_at=sent_at,
            chat_lid=people.chat_lid,
            author_lid=people.author_lid,
        )

    def _hints(self, change: str, key: Key, protocol: Message) -> Hints:
        """Who is meant by a change that came as a row: whoever edits wrote it, and so, mostly, did whoever deletes."""
        hints = our_hints(key, self._own, EDITED if change == _EDIT else DELETED)
        from_me = hints.from_me if key.get("fromMe") is not None else False
        meant = protocol.get("key")
        own = isinstance(meant, Mapping) and meant.get("fromMe") is True
        if change == _REVOKE and not own and is_group(str(key.get("remoteJid"))):
            return Hints(hints.chat, None)  # an administrator deletes what others wrote
        return Hints(hints.chat, from_me)

    # ------------------------------------------------------------------------------------------- events of changes

    def _protocol_row(self, event: str, row: Message) -> None:
        protocol, nested = row, row.get("protocolMessage")
        if isinstance(nested, Mapping):
            protocol = nested
        elif row.get("editedMessage") is None and row.get("type") is None and isinstance(row.get("message"), Mapping):
            opened = open_message(row["message"])
            if opened.protocol is None:
                # No protocol message but a row with the new content, as some forks of Evolution send it.
                protocol = {
                    "key": row.get("key"),
                    "editedMessage": row["message"],
                    "timestampMs": row.get("messageTimestamp"),
                }
            else:
                self._message_row(row)
                return
        change = _change_in(protocol)
        if change is None:
            raise Refusal("protocol", SYSTEM)
        kind = EDITED if change == _EDIT else DELETED
        key = protocol.get("key")
        if not isinstance(key, Mapping):
            raise Refusal(kind, NO_KEY)
        if event == "send.message.update":
            # The editor is the company, so its side is ours.
            ours = our_hints(key, self._own, kind)
            hints = Hints(None if ours.chat == self._own else ours.chat, True if change == _EDIT else ours.from_me)
        else:
            hints = editors_hints(key, self._own, kind)
        self._change(change, protocol, key, hints, {})

    def _deletion_row(self, row: Message) -> None:
        nested = row.get("key")
        key = nested if isinstance(nested, Mapping) else row
        # In a row of Evolution's database `id` is the row's, and `keyId` the message's.
        self._delete(id_of(key, DELETED, "keyId", "id"), our_hints(key, self._own, DELETED), None)

    def _update_row(self, row: Message) -> None:
        key = row["key"] if isinstance(row.get("key"), Mapping) else row
        update = row["update"] if isinstance(row.get("update"), Mapping) else row
        if update.get("status") == "DELETED" or update.get("messageStubType") in _STUB_REVOKED:
            self._delete(id_of(key, DELETED, "keyId", "id"), our_hints(key, self._own, DELETED), None)
            return
        message = update.get("message")
        opened = open_message(message) if isinstance(message, Mapping) else None
        change = _change_in(opened.protocol) if opened is not None else None
        if opened is None or not (change or opened.edited):
            raise Refusal(STATUS, DELIVERY_STATUS)
        hints = our_hints(key, self._own, EDITED)
        if change is not None and opened.protocol is not None:
            self._change(change, opened.protocol, key, hints, update)
            return
        _, text = read_content(opened, update)
        at = timestamp_or_none(update.get("messageTimestamp"), now=self._now)
        self._edit(id_of(key, EDITED, "keyId", "id"), hints, text, at)

    # ----------------------------------------------------------------------------------------------- what is kept

    def _change(self, change: str, protocol: Message, outer: Key, hints: Hints, row: Message) -> None:
        """Keep what a protocol message says; where it lacks the key of the message meant, `outer` has it."""
        at = timestamp_or_none(protocol.get("timestampMs"), row.get("messageTimestamp"), now=self._now)
        meant = protocol.get("key")
        key = meant if isinstance(meant, Mapping) else outer
        names = ("id",) if isinstance(meant, Mapping) else ("keyId", "id")
        if change == _REVOKE:
            self._delete(id_of(key, DELETED, *names), hints, at)
            return
        _, text = read_content(_edited_form(protocol), {})
        self._edit(id_of(key, EDITED, *names), hints, text, at)

    def _edit(self, external_id: str, hints: Hints, text: str, at: datetime | None) -> None:
        self._edits.append(
            InboundEdit(external_id=external_id, chat=hints.chat, from_me=hints.from_me, text=text, edited_at=at)
        )

    def _delete(self, external_id: str, hints: Hints, at: datetime | None) -> None:
        self._deletions.append(
            InboundDeletion(external_id=external_id, chat=hints.chat, from_me=hints.from_me, deleted_at=at)
        )


def _change_in(protocol: Message | None) -> str | None:
    """Tell whether a protocol message edits or deletes; most of the others are WhatsApp's own affairs."""
    if protocol is None:
        return None
    kind = protocol.get("type")
    if kind in _REVOKED and not isinstance(kind, bool):
        return _REVOKE
    return _EDIT if protocol.get("editedMessage") is not None else None


def _edited_form(protocol: Message) -> Opened:
    """The content that an edit puts in place, opened. Raises `Refusal` where there is none."""
    content: Any = protocol.get("editedMessage")
    if not isinstance(content, Mapping):
        raise Refusal(EDITED, NO_MESSAGE)
    # Some versions wrap the content without a name.
    inner = content.get("message")
    opened = open_message(inner if isinstance(inner, Mapping) else content)
    return Opened(opened.levels, opened.protocol, True)


def _is_deleted(row: Message, key: Key, content: object) -> bool:
    """Tell whether the row stands where a message was that is deleted now."""
    if row.get("status") == "DELETED" or key.get("deleted") is True:
        return True
    stub = row.get("messageStubType")
    return stub in _STUB_REVOKED and not isinstance(stub, bool) and not content
