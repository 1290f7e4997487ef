"""Opens a WhatsApp message: out of the wrappers it may come in, to what it says or what it does to another message."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from adapters.evolution.cutting import fitted, is_blank
from adapters.evolution.model import Refusal
from adapters.evolution.texts import COMPANIONS, IGNORED, KINDS, TEXTS, WRAPPERS, NotText, transcript
from adapters.evolution.vocabulary import (
    EMPTY,
    EMPTY_WRAPPER,
    NO_TEXT,
    NOT_A_STRING,
    OTHER,
    STUB,
    SYSTEM,
    TOO_DEEP,
    UNKNOWN,
    WITHDRAWN,
    kind_of,
)

_MAX_WRAPPERS: Final = 8
_RANK: Final = {name: rank for rank, name in enumerate(TEXTS)}
_REACTION: Final = "reactionMessage"

Message = Mapping[str, Any]


class Opened(msgspec.Struct, frozen=True):
    """A message without its wrappers.

    `levels`: all of them from the outermost to the innermost, which holds the content. `protocol`: what changes another
    message, if that is what it is. `edited`: one of the wrappers says that the content replaces an earlier one.
    """

    levels: tuple[Message, ...]
    protocol: Message | None
    edited: bool


def type_of(row: Message) -> str:
    """Return the short name of what a row says it is, or `other`; the content decides what it really is."""
    name = row.get("messageType")
    return KINDS.get(name, OTHER) if isinstance(name, str) else OTHER


def _wrapper(message: Message) -> str | None:
    unknown = None
    known = False
    for name, value in message.items():
        if value is None:
            continue
        if name in WRAPPERS:
            return name
        inner = value.get("message") if isinstance(value, Mapping) else None
        if isinstance(inner, Mapping) and name not in IGNORED and name not in COMPANIONS:
            unknown = unknown or name
        elif name in TEXTS or name == "audioMessage":
            known = True
    return None if known else unknown


def open_message(outer: Message) -> Opened:
    """Take off the wrappers.

    Raises:
        Refusal: too many wrappers, or a wrapper around nothing.
    """
    levels, edited = [outer], False
    for _ in range(_MAX_WRAPPERS + 1):
        message = levels[-1]
        protocol = message.get("protocolMessage")
        if isinstance(protocol, Mapping):
            return Opened(tuple(levels), protocol, edited)
        wrapper = _wrapper(message)
        if wrapper is None:
            return Opened(tuple(levels), None, edited)
        held = message[wrapper]
        inner = held.get("message") if isinstance(held, Mapping) else None
        if not isinstance(inner, Mapping):
            raise Refusal(KINDS.get(wrapper, OTHER), EMPTY_WRAPPER)
        edited = edited or wrapper == "editedMessage"
        levels.append(inner)
    raise Refusal(OTHER, TOO_DEEP)


def read_content(opened: Opened, row: Message) -> tuple[str, str]:
    """Return (kind, text): what an opened message says. The text is clean, cut where it is too long, and not blank.

    Raises:
        Refusal: it says nothing in words.
    """
    message = opened.levels[-1]
    if opened.protocol is not None:
        raise Refusal("protocol", SYSTEM)
    present = [name for name, value in message.items() if name in TEXTS and value is not None]
    if present:
        name = min(present, key=_RANK.__getitem__)
        try:
            text = fitted(TEXTS[name](message[name]) or "")
        except NotText:
            raise Refusal(KINDS[name], NOT_A_STRING) from None
        if is_blank(text):
            raise Refusal(KINDS[name], WITHDRAWN if name == _REACTION else NO_TEXT)
        return KINDS[name], text
    audio = message.get("audioMessage")
    if audio is not None:
        beside = [level.get("speechToText") for level in reversed(opened.levels)]
        inside = audio.get("speechToText") if isinstance(audio, Mapping) else None
        text = fitted(transcript(*beside, inside, row.get("speechToText")) or "")
        if is_blank(text):
            raise Refusal("audio", NO_TEXT)
        return "audio", text
    content = [name for name, value in message.items() if name not in COMPANIONS and value is not None]
    if not content:
        raise Refusal(STUB if row.get("messageStubType") is not None else EMPTY, SYSTEM)
    # Meta's cloud puts its own fields beside WhatsApp's.
    name = next((name for name in content if name in IGNORED), content[0])
    if name in IGNORED:
        raise Refusal(KINDS[name], IGNORED[name])
    raise Refusal(kind_of(name), UNKNOWN)
