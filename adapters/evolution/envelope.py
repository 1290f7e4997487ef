"""Reads one delivery of Evolution API, from whichever transport: what was said, changed and deleted, and what not."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from adapters.evolution.cutting import clean
from adapters.evolution.model import Envelope, EnvelopeError, Ignored, Refusal, safe_name
from adapters.evolution.rows import Rows
from adapters.evolution.states import read_state
from adapters.evolution.vocabulary import (
    CHANGE_EVENTS,
    MESSAGE_EVENTS,
    NOT_ABOUT_MESSAGES,
    OTHER_EVENTS,
    STATE_EVENTS,
    UNKNOWN,
)

_SEPARATORS: Final = re.compile("[_-]")
#: Under which name an object holds its rows; `keys` is Baileys' own form of a deletion.
_HOLDERS: Final = ("messages", "keys")


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def decode(body: bytes) -> object:
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


def _event_name(event: str) -> str:
    """Return the dotted spelling: subscriptions and some proxies write `MESSAGES_UPSERT` or `messages-upsert`."""
    return safe_name(_SEPARATORS.sub(".", event.lower()))


def _rows(data: object) -> Iterator[object]:
    """The rows, in order, out of lists in lists and `{messages: […]}`, however deep: it keeps its own stack."""
    pending = [iter((data,))]
    while pending:
        for item in pending[-1]:
            held = item
            if isinstance(item, Mapping):
                held = next((item[name] for name in _HOLDERS if isinstance(item.get(name), list)), item)
            if isinstance(held, list):
                pending.append(iter(held))
                break
            yield item
        else:
            pending.pop()


def parse_object(envelope: object, *, now: datetime) -> Envelope:
    """Read an envelope that is already decoded, as socket.io hands it over; see `parse`."""
    if not isinstance(envelope, Mapping):
        raise EnvelopeError("the body must be a JSON object with `event`, `instance` and `data`")
    name = _string(envelope.get("event"))
    if name is None:
        raise EnvelopeError("`event` is missing; expected a name such as `messages.upsert`")
    event = _event_name(name)
    instance = clean(_string(envelope.get("instance")) or "", 255)
    data = envelope.get("data")
    if event in STATE_EVENTS:
        try:
            return Envelope(event, instance, (), (), state=read_state(event, data, envelope.get("date_time")))
        except Refusal as refusal:
            return Envelope(event, instance, (), (refusal.ignored,))
    if event not in MESSAGE_EVENTS and event not in CHANGE_EVENTS:
        reason = NOT_ABOUT_MESSAGES if event in OTHER_EVENTS else UNKNOWN
        return Envelope(event, instance, (), (Ignored(event, reason),))
    if event in MESSAGE_EVENTS:
        if data is None:
            raise EnvelopeError("`data` is missing; expected a message or an array of messages")
        if not isinstance(data, Mapping | list):
            raise EnvelopeError("`data` must be an object or an array of messages")
    rows = Rows(envelope.get("sender"), now)
    for row in _rows(data):
        rows.take(event, row)
    return rows.envelope(event, instance)


def parse(body: bytes, *, now: datetime) -> Envelope:
    """Read the body of a delivery: UTF-8 JSON `{event, instance, data, ...}`; `now` (aware) bounds the timestamps.

    Unknown events and kinds and broken rows become `Ignored`; they never raise and never touch the rows beside them.
    The instance's token (`apikey`) is never read.

    Raises:
        EnvelopeError: not JSON, not an object, no `event`, or an event of messages without usable `data`.
    """
    return parse_object(decode(body), now=now)
