"""Finds what a WhatsApp message says in words: its kind and its text, out of the wrappers it may come in."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.evolution.model import Refusal

#: Bytes of UTF-8 kept of one text. WhatsApp itself allows 65,536 characters.
MAX_TEXT_BYTES: Final = 65_536

_MAX_WRAPPERS: Final = 8

#: Kinds that hold another message under `message`.
_WRAPPERS: Final = (
    "ephemeralMessage",
    "viewOnceMessage",
    "viewOnceMessageV2",
    "viewOnceMessageV2Extension",
    "documentWithCaptionMessage",
    "deviceSentMessage",
    "groupMentionedMessage",
    "associatedChildMessage",
    "botInvokeMessage",
    "pollCreationMessageV4",
)

#: Keys that stand beside the content and say nothing about it.
_COMPANIONS: Final = frozenset(
    {"messageContextInfo", "senderKeyDistributionMessage", "base64", "mediaUrl", "speechToText"}
)

# Evolution puts "[audio] " before its transcript, and JavaScript's idea of nothing behind it when there was none.
_TRANSCRIPT: Final = re.compile(r"\[audio\] ?(?P<text>.*)", re.DOTALL)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")

Message = Mapping[str, Any]


def clean(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return the text without NUL (PostgreSQL takes none), without halves of surrogate pairs, at most `limit` bytes."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text[:limit]
    encoded = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text).encode()
    return encoded[:limit].decode(errors="ignore")


def _lines(*values: object) -> str | None:
    """Join the texts among the values, each once, one a line."""
    return "\n".join(dict.fromkeys(v for v in values if isinstance(v, str) and v.strip())) or None


def _field(*path: str) -> Callable[[Any], str | None]:
    def read(value: Any) -> str | None:
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return _lines(value)

    return read


def _title_and_description(value: Any) -> str | None:
    return _lines(value.get("title"), value.get("description")) if isinstance(value, Mapping) else None


def _poll(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    options = value.get("options")
    names = [o.get("optionName") for o in options if isinstance(o, Mapping)] if isinstance(options, list) else []
    return _lines(value.get("name"), *names)


def _template(value: Any) -> str | None:
    for name in ("hydratedTemplate", "hydratedFourRowTemplate"):
        if text := _field(name, "hydratedContentText")(value):
            return text
    return _field("interactiveMessageTemplate", "body", "text")(value)


#: Where each kind keeps its words. In order: the first one present decides.
_TEXTS: Final[dict[str, Callable[[Any], str | None]]] = {
    "conversation": _lines,
    "extendedTextMessage": _field("text"),
    "imageMessage": _field("caption"),
    "videoMessage": _field("caption"),
    "documentMessage": _field("caption"),
    "buttonsResponseMessage": _field("selectedDisplayText"),
    "listResponseMessage": _title_and_description,
    "templateButtonReplyMessage": _field("selectedDisplayText"),
    # `nativeFlowResponseMessage.paramsJson` beside it is data of the flow, not words of the customer.
    "interactiveResponseMessage": _field("body", "text"),
    "pollCreationMessage": _poll,
    "pollCreationMessageV2": _poll,
    "pollCreationMessageV3": _poll,
    "pollCreationMessageV5": _poll,
    "liveLocationMessage": _field("caption"),
    # What companies send: the questions that the replies above answer.
    "buttonsMessage": _field("contentText"),
    "listMessage": _title_and_description,
    "templateMessage": _template,
    "interactiveMessage": _field("body", "text"),
}

_PERSONAL: Final = "personal data of a third party, not a text"
_SYSTEM: Final = "system message"

#: Kinds that are known and lead to nothing, and why.
_IGNORED: Final[dict[str, str]] = {
    "reactionMessage": "reaction",
    "encReactionMessage": "reaction",
    "stickerMessage": "no text",
    "lottieStickerMessage": "no text",
    "ptvMessage": "no text",
    "albumMessage": "no text",
    "pollUpdateMessage": "no text",
    "contactMessage": _PERSONAL,
    "contactsArrayMessage": _PERSONAL,
    # A place says where somebody is and nothing about how they feel, and no mask recognises an address.
    "locationMessage": _PERSONAL,
    "keepInChatMessage": _SYSTEM,
    "pinInChatMessage": _SYSTEM,
    "callLogMesssage": _SYSTEM,  # three s: WhatsApp's own spelling
    "call": _SYSTEM,
}


def kind_of(name: str) -> str:
    """Return the short name of a message type: `imageMessage` is `image`, `pollCreationMessageV3` is `pollCreation`."""
    return re.sub(r"Message(?:V[0-9]+(?:Extension)?)?$", "", name) or name


def type_of(row: Message) -> str:
    """Return the short name of what a row says it is, for the log; the content decides what it really is."""
    name = row.get("messageType")
    return kind_of(name) if isinstance(name, str) else "other"


def _transcript(*candidates: object) -> str | None:
    for candidate in candidates:
        if not isinstance(candidate, str):
            continue
        match = _TRANSCRIPT.fullmatch(candidate)
        text = match["text"] if match else candidate
        if text.strip() and not (match and text.strip() in ("undefined", "null")):
            return text
    return None


def _unwrap(message: Message) -> Message:
    """Return the innermost message.

    Raises:
        Refusal: too many wrappers, or a wrapper around nothing.
    """
    for _ in range(_MAX_WRAPPERS + 1):
        wrapper = next((name for name in _WRAPPERS if message.get(name) is not None), None)
        if wrapper is None:
            return message
        held = message[wrapper]
        inner = held.get("message") if isinstance(held, Mapping) else None
        if not isinstance(inner, Mapping):
            raise Refusal(kind_of(wrapper), "empty wrapper")
        message = inner
    raise Refusal("other", "nested too deep")


def _refuse_protocol(message: Message) -> None:
    """Refuse what changes another message: it gets an issue of its own. An edit may come bare or wrapped."""
    protocol = message.get("protocolMessage")
    if message.get("editedMessage") is not None:
        raise Refusal("edited", "not handled yet")
    if isinstance(protocol, Mapping):
        if protocol.get("editedMessage") is not None:
            raise Refusal("edited", "not handled yet")
        if protocol.get("type") in (0, "REVOKE"):
            raise Refusal("revoked", "not handled yet")
    if protocol is not None:
        raise Refusal("protocol", _SYSTEM)


def read_content(row: Message) -> tuple[str, str]:
    """Return (kind, text) of a row as `messages.upsert` has it in `data`; the text is cleaned and not blank.

    Raises:
        Refusal: it says nothing in words, or nothing that is handled.
    """
    outer = row.get("message")
    if outer is None and row.get("messageStubType") is not None:
        raise Refusal("stub", _SYSTEM)
    if not isinstance(outer, Mapping):
        raise Refusal(type_of(row), "no message")
    message = _unwrap(outer)
    _refuse_protocol(message)
    for name, read in _TEXTS.items():
        if message.get(name) is not None:
            text = clean(read(message[name]) or "")
            if not text.strip():
                raise Refusal(kind_of(name), "no text")
            return kind_of(name), text
    if message.get("audioMessage") is not None:
        transcript = _transcript(message.get("speechToText"), outer.get("speechToText"), row.get("speechToText"))
        text = clean(transcript or "")
        if not text.strip():
            raise Refusal("audio", "no text")
        return "audio", text
    content = next((name for name, value in message.items() if name not in _COMPANIONS and value is not None), None)
    if content is None:
        raise Refusal("stub" if row.get("messageStubType") is not None else "empty", _SYSTEM)
    raise Refusal(kind_of(content), _IGNORED.get(content, "unknown"))
