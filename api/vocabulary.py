"""The names that counts may have: the sender chooses what it sends, and must not choose how many rows that makes."""

from typing import Final

from adapters.evolution import vocabulary
from adapters.evolution.texts import KINDS as MESSAGE_KINDS

OTHER: Final = vocabulary.OTHER

TRANSPORTS: Final = frozenset({"webhook", "global-webhook", "socket.io", "nats", "backfill", "sweep", "import"})

#: Short names of message types, of Evolution's events, of states, and of what is counted as a whole.
KINDS: Final = (
    frozenset({"", "message", "edit", "deletion", "delivery", "open", "connecting", "close"})
    | {vocabulary.EMPTY, vocabulary.STUB, vocabulary.STATUS, vocabulary.EDITED, vocabulary.DELETED}
    | vocabulary.MESSAGE_EVENTS
    | vocabulary.CHANGE_EVENTS
    | vocabulary.STATE_EVENTS
    | vocabulary.OTHER_EVENTS
    | frozenset(MESSAGE_KINDS.values())
)

#: Why something was ignored (`adapters/evolution`) or refused.
REASONS: Final = vocabulary.REASONS | frozenset(
    {
        "", "token", "deactivated", "no envelope", "too large", "busy", "unavailable", "ambiguous", "invalid",
        "not allowed", "not found", "exists already",
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
