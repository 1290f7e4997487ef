"""What a delivery says of its sender; kept apart from `Envelope`, as it holds the instance's token."""

import msgspec

from adapters.evolution.envelope import decode
from adapters.evolution.model import EnvelopeError


class Sender(msgspec.Struct, frozen=True):
    """The instance's apikey and its server's address, where the delivery has them. Never stored, never logged."""

    apikey: str | None = None
    server_url: str | None = None

    def __repr__(self) -> str:
        """Leave the token out: reprs end up in logs and tracebacks."""
        return "Sender(...)"


class _Parts(msgspec.Struct):
    apikey: object = None
    server_url: object = None


#: What Evolution writes in the place of a token that it does not have.
_NONE = frozenset({"", "Apikey not found"})


def read_sender(body: bytes) -> Sender:
    """The sender in the body of a delivery that `parse` could read."""
    try:
        parts = msgspec.json.decode(body, type=_Parts)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            parts = msgspec.convert(decode(body), _Parts)
        except (EnvelopeError, msgspec.ValidationError):
            return Sender()
    apikey = parts.apikey if isinstance(parts.apikey, str) and parts.apikey not in _NONE else None
    return Sender(apikey, parts.server_url if isinstance(parts.server_url, str) else None)
