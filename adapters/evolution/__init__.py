"""What Evolution API (2.3.x) sends, read into plain values: `parse` for JSON, `parse_object` for decoded envelopes."""

from adapters.evolution.envelope import _decode as decode
from adapters.evolution.envelope import parse, parse_object
from adapters.evolution.model import (
    Envelope,
    EnvelopeError,
    Ignored,
    InboundDeletion,
    InboundEdit,
    InboundMessage,
    InboundState,
)

__all__ = [
    "Envelope",
    "EnvelopeError",
    "Ignored",
    "InboundDeletion",
    "InboundEdit",
    "InboundMessage",
    "InboundState",
    "decode",
    "parse",
    "parse_object",
]
