"""The closed list of words in which a delivery's parts are named: they become labels of metrics and lines of logs.

A sender chooses the names in what it sends. Only names that are listed here, or in the tables of `texts`, come out as
they are; all others are `other`. There is one exception: where the reason is `UNKNOWN`, the kind is the sender's own
word if that can be logged (`model.safe_name`), so that an operator learns what new kinds there are. Whoever counts must
count those together (`adapters.telemetry.count_ignored`).
"""

import re
from typing import Final

UNKNOWN: Final = "unknown"
STATUS_POST: Final = "status or broadcast list"
CHANNEL: Final = "channel"
SYSTEM: Final = "system message"
NO_TEXT: Final = "no text"
ENCRYPTED: Final = "encrypted"
WITHDRAWN: Final = "reaction withdrawn"
DELIVERY_STATUS: Final = "delivery status"
NOT_ABOUT_MESSAGES: Final = "not about messages"
NO_STATE: Final = "no known state"

NOT_AN_OBJECT: Final = "not an object"
NO_MESSAGE: Final = "no message"
NO_KEY: Final = "no key"
NO_REMOTE: Final = "no key.remoteJid"
NO_ID: Final = "no key.id"
BAD_ID: Final = "bad key.id"
BAD_FROM_ME: Final = "bad key.fromMe"
NO_ADDRESS: Final = "no address of a person in key"
BAD_TIMESTAMP: Final = "bad timestamp"
TOO_EARLY: Final = "timestamp before 2009"
TOO_LATE: Final = "timestamp more than 24 hours ahead"
NOT_A_STRING: Final = "text is not a string"
EMPTY_WRAPPER: Final = "empty wrapper"
TOO_DEEP: Final = "nested too deep"

#: Why something is left out that is broken, not merely of no interest.
BROKEN: Final = frozenset(
    {
        NOT_AN_OBJECT, NO_KEY, NO_REMOTE, NO_ID, BAD_ID, BAD_FROM_ME, NO_ADDRESS, BAD_TIMESTAMP, TOO_EARLY, TOO_LATE,
        NOT_A_STRING, EMPTY_WRAPPER, TOO_DEEP,
    }
)  # fmt: skip

#: Every reason there is.
REASONS: Final = BROKEN | {
    UNKNOWN, STATUS_POST, CHANNEL, SYSTEM, NO_TEXT, ENCRYPTED, WITHDRAWN, DELIVERY_STATUS, NOT_ABOUT_MESSAGES, NO_STATE,
    NO_MESSAGE,
}  # fmt: skip

#: Events whose data are messages, as one row, a list of rows, or `{messages: [...]}`.
MESSAGE_EVENTS: Final = frozenset({"messages.upsert", "messages.set", "send.message"})
#: Events that change messages.
CHANGE_EVENTS: Final = frozenset({"messages.edited", "messages.delete", "messages.update", "send.message.update"})
#: Events that say how the instance is connected.
STATE_EVENTS: Final = frozenset({"connection.update", "logout.instance", "remove.instance", "status.instance"})
#: Events that say nothing about messages.
OTHER_EVENTS: Final = frozenset(
    {
        "application.startup", "instance.create", "instance.delete", "qrcode.updated", "presence.update",
        "contacts.set", "contacts.upsert", "contacts.update", "chats.set", "chats.upsert", "chats.update",
        "chats.delete", "groups.upsert", "group.update", "groups.update", "group.participants.update", "labels.edit",
        "labels.association", "call", "typebot.start", "typebot.change.status", "new.jwt.token",
        "messaging.history.set", "errors", "errors.webhook",
    }
)  # fmt: skip

#: Words for kinds that are no type of message.
OTHER, EMPTY, STUB, STATUS, EDITED, DELETED = "other", "empty", "stub", "status", "edited", "deleted"

_SUFFIX: Final = re.compile(r"Message(?:V[0-9]{1,3}(?:Extension)?)?$")


def kind_of(name: str) -> str:
    """Return the short name of a message type: `imageMessage` is `image`, `pollCreationMessageV3` is `pollCreation`."""
    return _SUFFIX.sub("", name) or name
