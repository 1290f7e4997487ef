"""What Evolution API (2.3.x) sends, read into plain values: `parse` for JSON, `parse_object` for decoded envelopes."""

from adapters.evolution.envelope import parse, parse_object
from adapters.evolution.model import Envelope, EnvelopeError, Ignored, InboundMessage

__all__ = ["Envelope", "EnvelopeError", "Ignored", "InboundMessage", "parse", "parse_object"]
