"""Reads Evolution's key `{remoteJid, fromMe, id, participant, …}`: which message, in which chat, written by whom."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from adapters.evolution.model import Refusal
from adapters.evolution.vocabulary import (
    BAD_FROM_ME,
    BAD_ID,
    CHANNEL,
    NO_ADDRESS,
    NO_ID,
    NO_REMOTE,
    STATUS_POST,
)
from domain.identity import NotAJid, canonical_chat, canonical_lid, canonical_person, is_group, is_lid, server_of

Key = Mapping[str, Any]

_EXTERNAL_ID: Final = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)
_NO_CONVERSATIONS: Final = {"broadcast": STATUS_POST, "newsletter": CHANNEL}


class People(msgspec.Struct, frozen=True):
    """Who speaks in which chat; as in `InboundMessage`."""

    chat: str
    author: str | None
    chat_lid: str | None
    author_lid: str | None


class Hints(msgspec.Struct, frozen=True):
    """Which of several messages with the same id is meant, seen from our side, as far as it can be told."""

    chat: str | None
    from_me: bool | None


def remote_of(key: Key, kind: str) -> str:
    """Return `remoteJid`. Raises `Refusal` where there is none, or where it is no conversation."""
    remote = key.get("remoteJid")
    if not isinstance(remote, str) or not remote:
        raise Refusal(kind, NO_REMOTE)
    if reason := _NO_CONVERSATIONS.get(server_of(remote)):
        raise Refusal(kind, reason)
    return remote


def id_of(key: Key, kind: str, *names: str) -> str:
    """Return the message's id, from the first of `names` (else `id`) that has one. Raises `Refusal`."""
    for name in names or ("id",):
        value = key.get(name)
        if isinstance(value, str) and value:
            if _EXTERNAL_ID.fullmatch(value) is None:
                raise Refusal(kind, BAD_ID)
            return value
    raise Refusal(kind, NO_ID)


def from_me_of(key: Key, kind: str) -> bool:
    """Tell whether the company wrote it; absent is false, as in WhatsApp's own encoding. Raises `Refusal`."""
    value = key.get("fromMe")
    if value is not None and not isinstance(value, bool):
        raise Refusal(kind, BAD_FROM_ME)
    return bool(value)


def people_of(key: Key, remote: str, from_me: bool, row_participant: object, own: str | None, kind: str) -> People:
    """Return the chat and the author of a message.

    `own` is the instance's own number. It never stands for the other side: some versions fill `remoteJidAlt` and
    `senderPn` with the sender's number, which is the company's in what it wrote. Its LID is known to nobody, so in
    what the company wrote a LID counts for the other side's where it stands in `remoteJid` alone.

    Raises:
        Refusal: the chat or the author cannot be told.
    """
    try:
        chat = _chat_of(key, remote, from_me, own)
        if is_group(remote):
            if from_me:
                return People(chat, None, None, None)
            names = ("participant", "participantAlt", "participantPn", "senderPn", "participantLid", "senderLid")
            addresses = _addresses(key, names, row_participant)
            return People(chat, canonical_person(*addresses), None, _lid_of(addresses, own))
    except NotAJid:
        raise Refusal(kind, NO_ADDRESS) from None
    others = () if from_me else ("remoteJidAlt", "previousRemoteJid", "senderLid")
    lid = _lid_of([remote, *_addresses(key, others)], own)
    return People(chat, None, lid, None) if from_me else People(chat, chat, lid, lid)


def our_hints(key: Key, own: str | None, kind: str) -> Hints:
    """Read a key that is written from our side. Raises `Refusal` where it is no conversation."""
    remote = _conversation(key, kind)
    from_me = key.get("fromMe")
    known = from_me if isinstance(from_me, bool) else None
    try:
        chat = None if remote is None else _chat_of(key, remote, known is not False, own)
    except NotAJid:
        chat = None
    return Hints(chat, known)


def editors_hints(key: Key, own: str | None, kind: str) -> Hints:
    """Translate a key that is written from the side of whoever changed the message, which may be the customer.

    Only what is certain: in a customer's key the chat is our own number, in ours it is the customer's. Our own LID is
    unknown, so a LID alone tells nothing. Raises `Refusal` where it is no conversation.
    """
    remote = _conversation(key, kind)
    if remote is None:
        return Hints(None, None)
    if is_group(remote):
        return Hints(our_hints(key, own, kind).chat, None)
    people = {person_or_none(value) for value in (remote, *_addresses(key, ("remoteJidAlt", "previousRemoteJid")))}
    phones = {person for person in people if person is not None and not person.startswith("lid:")}
    if key.get("fromMe") is not True or own is None or len(phones) > 1:
        return Hints(None, None)
    if own in people:
        return Hints(None, False)
    return Hints(phones.pop(), True) if phones and not own.startswith("lid:") else Hints(None, None)


def _conversation(key: Key, kind: str) -> str | None:
    """Return `remoteJid` or None: a change is found by the message's id, and good without an address."""
    remote = key.get("remoteJid")
    return remote_of(key, kind) if isinstance(remote, str) and remote else None


def _chat_of(key: Key, remote: str, from_me: bool, own: str | None) -> str:
    if not is_lid(remote):
        return canonical_chat(remote)  # a group, or the phone already
    names = ("remoteJidAlt", "previousRemoteJid", *(() if from_me else ("senderPn",)))
    return canonical_chat(remote, *(a for a in _addresses(key, names) if person_or_none(a) != own))


def _addresses(key: Key, names: Iterable[str], *more: object) -> list[str]:
    return [value if isinstance(value, str) else "" for value in (*(key.get(name) for name in names), *more)]


def _lid_of(addresses: Iterable[str], own: str | None) -> str | None:
    return next((lid for lid in map(canonical_lid, addresses) if lid is not None and lid != own), None)


def person_or_none(jid: object) -> str | None:
    """Return the canonical form of a person's address, or None where it is none."""
    try:
        return canonical_person(jid) if isinstance(jid, str) else None
    except NotAJid:
        return None
