"""Reads how an instance is connected to WhatsApp, out of the events that say so."""

import re
from collections.abc import Mapping
from typing import Final

from adapters.evolution.model import InboundState, Refusal
from adapters.evolution.vocabulary import NO_STATE

#: `status.instance` says `closed` where `connection.update` says `close`.
_STATES: Final = {"open": "open", "connecting": "connecting", "close": "close", "closed": "close"}
_ENDED: Final = frozenset({"logout.instance", "remove.instance"})
#: HTTP's numbers and a few of WhatsApp's own.
_NUMBER: Final = re.compile("[0-9]{1,4}", re.ASCII)


def read_state(event: str, data: object) -> InboundState:
    """Return the state that an event of `STATE_EVENTS` tells.

    Raises:
        Refusal: it tells none that is known.
    """
    fields = (
        next((item for item in reversed(data) if isinstance(item, Mapping)), {}) if isinstance(data, list) else data
    )
    if not isinstance(fields, Mapping):
        fields = {}
    reason = _number(fields.get("statusReason"), fields.get("disconnectionReasonCode"))
    if event in _ENDED:
        return InboundState(state="close", reason=reason)
    for name in ("state", "status", "connection"):
        value = fields.get(name)
        if isinstance(value, str) and (state := _STATES.get(value.lower())):
            return InboundState(state=state, reason=reason)
    raise Refusal(event, NO_STATE)


def _number(*values: object) -> int | None:
    for value in values:
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9999:
            return value
    return None
