"""Reads `connection.update`: in which state the instance is."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from adapters.evolution.model import InboundState
from domain.connections import MAX_REASON, STATES

#: Longer ones are no times.
_LONGEST: Final = 40
#: Nothing that a server's clock says outside of this is of use.
_BETWEEN: Final = (datetime(2009, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


def read_state(envelope: Mapping[str, Any]) -> InboundState | None:
    """The state in an envelope of `connection.update`; None where there is none that is known."""
    data = envelope.get("data")
    state = data.get("state") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(state, str) or state not in STATES:
        return None
    reason = data.get("statusReason")
    known = isinstance(reason, int) and not isinstance(reason, bool) and 0 <= reason <= MAX_REASON
    return InboundState(state=state, reason=reason if known else None, told_at=read_clock(envelope.get("date_time")))


def read_clock(value: object) -> datetime | None:
    """The server's own time, such as `2025-10-22T08:59:30.412Z`; None where it is none."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and _BETWEEN[0] <= moment <= _BETWEEN[1] else None
