"""Reads one delivery of Evolution API, from whichever transport, into messages and what was ignored.

Rows are checked by hand, field by field: a history of ten thousand messages has to pass in about a second, most of its
bytes are media keys that nobody reads, and a broken row must not fail the ones beside it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from adapters.evolution.content import clean, read_content, type_of
from adapters.evolution.model import Envelope, EnvelopeError, Ignored, InboundMessage, Refusal, safe_name
from adapters.evolution.timestamps import read_timestamp
from domain.identity import NotAJid, canonical_chat, canonical_person, is_group, server_of

#: Events whose data are messages, as one row, a list of rows, or `{messages: [...]}`.
_MESSAGE_EVENTS: Final = frozenset({"messages.upsert", "messages.set", "send.message"})
#: Events about messages that get an issue of their own.
_LATER: Final = frozenset({"messages.edited", "messages.delete", "messages.update", "send.message.update"})
#: Events that say nothing about messages.
_UNINTERESTING: Final = frozenset(
    {
        "application.startup", "instance.create", "instance.delete", "connection.update", "logout.instance",
        "remove.instance", "status.instance", "qrcode.updated", "presence.update", "contacts.set", "contacts.upsert",
        "contacts.update", "chats.set", "chats.upsert", "chats.update", "chats.delete", "groups.upsert", "group.update",
        "groups.update", "group.participants.update", "labels.edit", "labels.association", "call",
        "typebot.start", "typebot.change.status", "new.jwt.token", "messaging.history.set",
    }
)  # fmt: skip

_EXTERNAL_ID: Final = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)
_LID_SERVERS: Final = frozenset({"lid", "hosted.lid"})
_BROADCASTS: Final = {"broadcast": "status or broadcast list", "newsletter": "channel"}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _decode(body: bytes) -> object:
    """Return the decoded JSON, or raise without a cause: a decoder's error may hold the whole body."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # JavaScript writes half a surrogate pair where a text was cut inside an emoji; only the tolerant decoder takes it.
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        pass
    raise EnvelopeError("the body is not JSON in UTF-8; expected an object with `event`, `instance` and `data`")


def _event_name(event: object) -> str:
    """Return the dotted spelling: subscriptions and some proxies write `MESSAGES_UPSERT` or `messages-upsert`."""
    return safe_name(re.sub("[_-]", ".", event.lower())) if isinstance(event, str) else "other"


def _rows(data: object) -> Iterable[object]:
    if isinstance(data, Mapping):
        held = data.get("messages")
        return held if isinstance(held, list) else (data,)
    if isinstance(data, list):
        return data
    raise EnvelopeError("`data` must be an object or an array of messages")


def _from_me(key: Mapping[str, Any]) -> bool | None:
    """Tell whether the company wrote it; absent is false, as in WhatsApp's own encoding. None if it cannot be told."""
    value = key.get("fromMe")
    if value is None:
        return False
    return value if isinstance(value, bool) else None


def _people(key: Mapping[str, Any], from_me: bool, row_participant: object, own: str | None) -> tuple[str, str | None]:
    """Return (chat, author) of a message, both canonical; the author is None for what the company wrote.

    `own` is the instance's own number. It never stands for the other side: some versions fill `remoteJidAlt` and
    `senderPn` with the sender's number, which is the company's in what it wrote.

    Raises:
        NotAJid: the chat or the author cannot be told.
    """
    remote = key["remoteJid"]
    if is_group(remote):
        chat = canonical_chat(remote)
        if from_me:
            return chat, None
        names = ("participant", "participantAlt", "participantPn", "senderPn", "participantLid", "senderLid")
        return chat, canonical_person(*_addresses(key, names, row_participant))
    if server_of(remote) in _LID_SERVERS:
        names = ("remoteJidAlt", "previousRemoteJid", *(() if from_me else ("senderPn",)))
        chat = canonical_chat(remote, *(a for a in _addresses(key, names) if _person_or_none(a) != own))
    else:
        chat = canonical_chat(remote)  # it is the phone already
    return chat, None if from_me else chat


def _addresses(key: Mapping[str, Any], names: Iterable[str], *more: object) -> list[str]:
    return [value if isinstance(value, str) else "" for value in (*(key.get(name) for name in names), *more)]


def _person_or_none(jid: object) -> str | None:
    try:
        return canonical_person(jid) if isinstance(jid, str) else None
    except NotAJid:
        return None


def _lids(key: Mapping[str, Any], from_me: bool) -> tuple[str | None, str | None]:
    """The LIDs that the key gives for the other side of a 1:1 chat and for the author, beside a phone or alone."""
    if is_group(key["remoteJid"]):
        names = ("participant", "participantAlt", "participantLid", "senderLid")
        return None, None if from_me else _lid(*(key.get(name) for name in names))
    other = _lid(key["remoteJid"], key.get("remoteJidAlt"))
    return other, None if from_me else other


def _lid(*jids: object) -> str | None:
    """The first of these addresses that is a LID, canonical."""
    people = (_person_or_none(jid) for jid in jids if isinstance(jid, str) and server_of(jid) in _LID_SERVERS)
    return next((person for person in people if person is not None), None)


def _read_row(row: object, own: str | None, now: datetime) -> InboundMessage:
    """Return the message in one row.

    Raises:
        Refusal: there is none, and why.
    """
    if not isinstance(row, Mapping):
        raise Refusal("other", "not an object")
    hint = type_of(row)
    key = row.get("key")
    if not isinstance(key, Mapping):
        raise Refusal(hint, "no key")
    remote = _string(key.get("remoteJid"))
    if remote is None:
        raise Refusal(hint, "no key.remoteJid")
    if reason := _BROADCASTS.get(server_of(remote)):
        raise Refusal(hint, reason)
    kind, text = read_content(row)
    external_id = _string(key.get("id"))
    if external_id is None:
        raise Refusal(kind, "no key.id")
    if _EXTERNAL_ID.fullmatch(external_id) is None:
        raise Refusal(kind, "bad key.id")
    from_me = _from_me(key)
    if from_me is None:
        raise Refusal(kind, "bad key.fromMe")
    try:
        chat, author = _people(key, from_me, row.get("participant"), own)
    except NotAJid:
        raise Refusal(kind, "no address of a person in key") from None
    try:
        sent_at = read_timestamp(row.get("messageTimestamp"), now=now)
    except ValueError as error:
        raise Refusal(kind, str(error)) from None
    chat_lid, author_lid = _lids(key, from_me)
    return InboundMessage(
        external_id=external_id,
        chat=chat,
        author=author,
        from_me=from_me,
        is_group=is_group(remote),
        kind=kind,
        text=text,
        sent_at=sent_at,
        chat_lid=chat_lid,
        author_lid=author_lid,
    )


def parse_object(envelope: object, *, now: datetime) -> Envelope:
    """Read an envelope that is already decoded, as socket.io hands it over; see `parse`."""
    if not isinstance(envelope, Mapping):
        raise EnvelopeError("the body must be a JSON object with `event`, `instance` and `data`")
    if _string(envelope.get("event")) is None:
        raise EnvelopeError("`event` is missing; expected a name such as `messages.upsert`")
    event = _event_name(envelope["event"])
    instance = clean(_string(envelope.get("instance")) or "", 255)
    if event not in _MESSAGE_EVENTS:
        reason = (
            "not handled yet" if event in _LATER else "not about messages" if event in _UNINTERESTING else "unknown"
        )
        return Envelope(event, instance, (), (Ignored(event, reason),))
    data = envelope.get("data")
    if data is None:
        raise EnvelopeError("`data` is missing; expected a message or an array of messages")
    own = _person_or_none(envelope.get("sender"))
    messages: list[InboundMessage] = []
    ignored: list[Ignored] = []
    for row in _rows(data):
        try:
            messages.append(_read_row(row, own, now))
        except Refusal as refusal:
            ignored.append(refusal.ignored)
    return Envelope(event, instance, tuple(messages), tuple(ignored))


def parse(body: bytes, *, now: datetime) -> Envelope:
    """Read the body of a delivery: UTF-8 JSON `{event, instance, data, ...}`; `now` (aware) bounds the timestamps.

    Unknown events and kinds and broken rows become `Ignored`; they never raise and never touch the rows beside them.
    The instance's token (`apikey`) is never read.

    Raises:
        EnvelopeError: not JSON, not an object, no `event`, or an event of messages without usable `data`.
    """
    return parse_object(_decode(body), now=now)
