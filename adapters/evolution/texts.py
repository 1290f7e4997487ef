"""Where each kind of WhatsApp message keeps its words. `docs/evolution-messages.md` has the same table for people."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from adapters.evolution.vocabulary import ENCRYPTED, NO_TEXT, STATUS_POST, SYSTEM, kind_of

Reader = Callable[[Any], str | None]

# Evolution puts "[audio] " before its transcript, and JavaScript's idea of nothing behind it when there was none.
_TRANSCRIPT: Final = re.compile(r"(?:\[audio\] ?)?(?P<text>.*)", re.DOTALL)
_NO_TRANSCRIPT: Final = frozenset({"", "undefined", "null", "[object Object]"})


class NotText(Exception):
    """Where words belong stands something else: bytes, a number, an object. Never leaves the package."""


def lines(*values: object) -> str | None:
    """Join the texts among the values, each once, one a line; None if there are none.

    Raises:
        NotText: there are none, but something that is no text.
    """
    found = dict.fromkeys(value for value in values if isinstance(value, str) and value.strip())
    if not found and any(value is not None and not isinstance(value, str) for value in values):
        raise NotText
    return "\n".join(found) or None


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _fields(*paths: str) -> Reader:
    """Return a reader of these fields, given as `a.b`, one a line."""
    split = [path.split(".") for path in paths]
    return lambda value: lines(*(_at(value, *path) for path in split))


def _each(value: Any, *path: str) -> Iterator[object]:
    """The field of every object in a list."""
    return (_at(item, *path) for item in value) if isinstance(value, list) else iter(())


def _document(value: Any) -> str | None:
    # Some clients write the file's name where the caption belongs. It is no sentence of anybody's.
    caption = _at(value, "caption")
    return None if caption in (_at(value, "fileName"), _at(value, "title")) else lines(caption)


def _contacts(value: Any) -> str | None:
    return lines(*_each(_at(value, "contacts"), "displayName")) or lines(_at(value, "displayName"))


def _poll(value: Any) -> str | None:
    return lines(_at(value, "name"), *_each(_at(value, "options"), "optionName"))


def _poll_result(value: Any) -> str | None:
    return lines(_at(value, "name"), *_each(_at(value, "pollVotes"), "optionName"))


def _vote(value: Any) -> str | None:
    # Evolution deciphers a vote where it can and then puts names in place of the hashes.
    chosen = _at(value, "vote", "selectedOptions")
    return lines(*(name for name in chosen if isinstance(name, str))) if isinstance(chosen, list) else None


def _interactive_response(value: Any) -> str | None:
    if text := lines(_at(value, "body", "text")):
        return text
    # Some clients leave the body empty. What the button said is in the flow's data; the rest of these is no speech.
    try:
        answer = msgspec.json.decode(_at(value, "nativeFlowResponseMessage", "paramsJson") or "")
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError):
        return None
    return lines(_at(answer, "display_text")) or lines(_at(answer, "title"), _at(answer, "description"))


def _interactive(value: Any) -> str | None:
    cards = _each(_at(value, "carouselMessage", "cards"), "body", "text")
    return lines(_at(value, "header", "title"), _at(value, "body", "text"), *cards)


def _template(value: Any) -> str | None:
    for name in ("hydratedTemplate", "hydratedFourRowTemplate"):
        if text := lines(_at(value, name, "hydratedTitleText"), _at(value, name, "hydratedContentText")):
            return text
    return _interactive(_at(value, "interactiveMessageTemplate"))


def _structured(value: Any) -> str | None:
    return _template(_at(value, "hydratedHsm"))


def _note(value: Any) -> str | None:
    note = _at(value, "noteMessage")
    return lines(_at(note, "extendedTextMessage", "text"), _at(note, "conversation"), _at(value, "note"))


def _ai_answer(value: Any) -> str | None:
    return lines(*_each(_at(value, "submessages"), "messageText"))


#: In order: the first one present decides.
TEXTS: Final[dict[str, Reader]] = {
    "conversation": lines,
    "extendedTextMessage": _fields("text"),
    "imageMessage": _fields("caption"),
    "videoMessage": _fields("caption"),
    "ptvMessage": _fields("caption"),
    "documentMessage": _document,
    "buttonsResponseMessage": _fields("selectedDisplayText"),
    # `singleSelectReply.selectedRowId` beside it is an identifier of the company's.
    "listResponseMessage": _fields("title", "description"),
    "templateButtonReplyMessage": _fields("selectedDisplayText"),
    "interactiveResponseMessage": _interactive_response,
    **dict.fromkeys(("pollCreationMessage", *(f"pollCreationMessageV{version}" for version in range(2, 10))), _poll),
    "pollUpdateMessage": _vote,
    "pollResultSnapshotMessage": _poll_result,
    "reactionMessage": _fields("text"),
    # The card itself (`vcard`) holds numbers and addresses and is never read.
    "contactMessage": _fields("displayName"),
    "contactsArrayMessage": _contacts,
    "locationMessage": _fields("name", "address", "comment"),
    "liveLocationMessage": _fields("caption"),
    "eventMessage": _fields("name", "description"),
    "scheduledCallCreationMessage": _fields("title"),
    "orderMessage": _fields("orderTitle", "message", "text"),
    "productMessage": _fields("product.title", "product.description", "body"),
    "groupInviteMessage": _fields("groupName", "caption"),
    "newsletterAdminInviteMessage": _fields("caption"),
    "newsletterFollowerInviteMessage": _fields("caption"),
    "newsletterFollowerInviteMessageV2": _fields("caption"),
    "requestPaymentMessage": _note,
    "sendPaymentMessage": _note,
    "invoiceMessage": _note,
    "stickerPackMessage": _fields("caption"),
    "questionResponseMessage": _fields("text"),
    "statusQuestionAnswerMessage": _fields("text"),
    # What companies send: the questions that the replies above answer.
    "buttonsMessage": _fields("text", "contentText"),
    "listMessage": _fields("title", "description"),
    "templateMessage": _template,
    "interactiveMessage": _interactive,
    "highlyStructuredMessage": _structured,
    "richResponseMessage": _ai_answer,
}

#: Kinds that are known and lead to nothing, and why.
IGNORED: Final[dict[str, str]] = {
    "stickerMessage": NO_TEXT,
    "lottieStickerMessage": NO_TEXT,
    "albumMessage": NO_TEXT,
    "paymentInviteMessage": NO_TEXT,
    "eventCoverImage": NO_TEXT,
    "pollCreationOptionImageMessage": NO_TEXT,
    "encReactionMessage": ENCRYPTED,
    "encCommentMessage": ENCRYPTED,
    "encEventResponseMessage": ENCRYPTED,
    "secretEncryptedMessage": ENCRYPTED,
    "groupStatusMessage": STATUS_POST,
    "groupStatusMessageV2": STATUS_POST,
    "statusAddYours": STATUS_POST,
    "statusMentionMessage": STATUS_POST,
    "groupStatusMentionMessage": STATUS_POST,
    "statusQuotedMessage": STATUS_POST,
    "statusNotificationMessage": STATUS_POST,
    "statusStickerInteractionMessage": STATUS_POST,
    "keepInChatMessage": SYSTEM,
    "pinInChatMessage": SYSTEM,
    "callLogMesssage": SYSTEM,  # three s: WhatsApp's own spelling
    "call": SYSTEM,
    "bcallMessage": SYSTEM,
    "scheduledCallEditMessage": SYSTEM,
    "cancelPaymentRequestMessage": SYSTEM,
    "declinePaymentRequestMessage": SYSTEM,
    "placeholderMessage": SYSTEM,
    "limitSharingMessage": SYSTEM,
    "messageHistoryBundle": SYSTEM,
    "messageHistoryNotice": SYSTEM,
    "requestPhoneNumberMessage": SYSTEM,
    "stickerSyncRmrMessage": SYSTEM,
    "protocolMessage": SYSTEM,
}

#: Kinds that hold another message under `message`. So does everything unknown that has such a `message`: WhatsApp calls
#: that shape future-proof, and wraps new things in it so that old readers still find the content.
WRAPPERS: Final = frozenset(
    {
        "ephemeralMessage",
        "viewOnceMessage",
        "viewOnceMessageV2",
        "viewOnceMessageV2Extension",
        "documentWithCaptionMessage",
        "deviceSentMessage",
        "groupMentionedMessage",
        "associatedChildMessage",
        "botInvokeMessage",
        "botTaskMessage",
        "botForwardedMessage",
        "questionMessage",
        "questionReplyMessage",
        "commentMessage",
        "editedMessage",
    }
)

#: Keys that stand beside the content and say nothing about it.
COMPANIONS: Final = frozenset(
    {
        "messageContextInfo", "senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage",
        "contextInfo", "base64", "mediaUrl", "speechToText",
    }
)  # fmt: skip

#: The short name of every kind that is known, by WhatsApp's name for it.
KINDS: Final = {name: kind_of(name) for name in (*TEXTS, *IGNORED, *WRAPPERS, "audioMessage")}


def transcript(*candidates: object) -> str | None:
    """Return the first transcript among the candidates, without Evolution's prefix."""
    for candidate in candidates:
        match = _TRANSCRIPT.fullmatch(candidate) if isinstance(candidate, str) else None
        if match is not None and match["text"].strip() not in _NO_TRANSCRIPT:
            return match["text"]
    return None
