"""What Evolution API (2.3.x) sends, read into plain values: `parse` for JSON, `parse_object` for decoded envelopes."""

from adapters.evolution.cutting import CUT_MARK, MAX_TEXT_BYTES, fitted
from adapters.evolution.envelope import decode, parse, parse_object
from adapters.evolution.model import (
    Envelope,
    EnvelopeError,
    Ignored,
    InboundDeletion,
    InboundEdit,
    InboundMessage,
    InboundState,
)
from adapters.evolution.vocabulary import BROKEN

__all__ = [
    "BROKEN",
    "CUT_MARK",
    "MAX_TEXT_BYTES",
    "Envelope",
    "EnvelopeError",
    "Ignored",
    "InboundDeletion",
    "InboundEdit",
    "InboundMessage",
    "InboundState",
    "decode",
    "fitted",
    "parse",
    "parse_object",
]
