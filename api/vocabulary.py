"""The names that counts may have: the sender chooses what it sends, and must not choose how many rows that makes."""

from typing import Final

OTHER: Final = "other"

TRANSPORTS: Final = frozenset({"webhook", "global-webhook", "socket.io", "nats", "backfill", "sweep", "import"})

#: Short names of message types (`adapters/evolution`), of Evolution's events, and of states.
KINDS: Final = frozenset(
    {
        "", "message", "edit", "deletion", "delivery",
        "conversation", "extendedText", "image", "video", "document", "audio", "ptv", "sticker", "lottieSticker",
        "album", "reaction", "encReaction", "buttonsResponse", "listResponse", "templateButtonReply",
        "interactiveResponse", "buttons", "list", "template", "interactive", "pollCreation", "pollUpdate", "contact",
        "contactsArray", "location", "liveLocation", "keepInChat", "pinInChat", "callLogMesssage", "call", "ephemeral",
        "viewOnce", "documentWithCaption", "deviceSent", "groupMentioned", "associatedChild", "botInvoke", "event",
        "groupInvite", "product", "order", "requestPhoneNumber", "edited", "revoked", "protocol", "stub", "empty",
        "messages.upsert", "messages.set", "messages.edited", "messages.delete", "messages.update", "send.message",
        "send.message.update", "application.startup", "instance.create", "instance.delete", "connection.update",
        "logout.instance", "remove.instance", "status.instance", "qrcode.updated", "presence.update", "contacts.set",
        "contacts.upsert", "contacts.update", "chats.set", "chats.upsert", "chats.update", "chats.delete",
        "groups.upsert", "group.update", "groups.update", "group.participants.update", "labels.edit",
        "labels.association", "typebot.start", "typebot.change.status", "new.jwt.token", "messaging.history.set",
        "open", "connecting", "close",
    }
)  # fmt: skip

#: Why something was ignored (`adapters/evolution`) or refused.
REASONS: Final = frozenset(
    {
        "",
        "not handled yet", "not about messages", "unknown", "no text", "reaction", "system message", "no message",
        "personal data of a third party, not a text", "empty wrapper", "nested too deep", "not an object", "no key",
        "no key.remoteJid", "no key.id", "bad key.id", "bad key.fromMe", "no address of a person in key",
        "bad timestamp", "timestamp out of range", "status or broadcast list", "channel",
        "token", "deactivated", "no envelope", "too large", "busy", "unavailable", "ambiguous",
        "invalid", "not allowed", "not found", "exists already",
    }
)  # fmt: skip


def known_kind(kind: str) -> str:
    """The kind, or `other`."""
    return kind if kind in KINDS else OTHER


def known_reason(reason: str) -> str:
    """The reason, or `other`."""
    return reason if reason in REASONS else OTHER


def known_transport(transport: str) -> str:
    """The transport, or `other`."""
    return transport if transport in TRANSPORTS else OTHER
