"""Reads `messageTimestamp`: seconds as a number, a numeric string or a Long `{low, high, unsigned}`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from adapters.evolution.vocabulary import BAD_TIMESTAMP, TOO_EARLY, TOO_LATE

_NUMERIC: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,9})?", re.ASCII)
#: Seconds pass this number in the year 5138, milliseconds passed it in 1973.
_MILLISECONDS_ABOVE: Final = 1e11
#: WhatsApp appeared in 2009.
_EARLIEST: Final = datetime(2009, 1, 1, tzinfo=UTC)
_CLOCK_SKEW: Final = timedelta(hours=24)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _long(value: Mapping[object, object]) -> int | None:
    """Combine the two 32-bit halves of a long.js Long, which are signed in JSON whatever `unsigned` says."""
    low, high = _integer(value.get("low")), _integer(value.get("high"))
    if low is None or high is None or not (-(2**31) <= low < 2**32 and -(2**31) <= high < 2**32):
        return None
    combined = (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF)
    return combined - 2**64 if combined >= 2**63 and value.get("unsigned") is not True else combined


def read_timestamp(value: object, *, now: datetime) -> datetime:
    """Return the time in UTC; above 10^11 the number is taken for milliseconds.

    Raises:
        ValueError: `BAD_TIMESTAMP` if it is none, `TOO_EARLY` before 2009, `TOO_LATE` over 24 hours after `now`.
    """
    number: float | None = None
    if isinstance(value, Mapping):
        number = _long(value)
    elif isinstance(value, str):
        number = float(value) if _NUMERIC.fullmatch(value) else None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if number is None or number != number:  # noqa: PLR0124 - Python's own JSON reader lets NaN in
        raise ValueError(BAD_TIMESTAMP)
    # Compared before it is converted: the number may be too large for a float, or for a year of four digits.
    if number <= 0:
        raise ValueError(TOO_EARLY)
    if number >= 1e14:
        raise ValueError(TOO_LATE)
    moment = datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS_ABOVE else number, UTC)
    if moment < _EARLIEST:
        raise ValueError(TOO_EARLY)
    if moment > now + _CLOCK_SKEW:
        raise ValueError(TOO_LATE)
    return moment


def timestamp_or_none(*values: object, now: datetime) -> datetime | None:
    """Return the first of the values that is a time, or None: of an edit, the time is good to know and no more."""
    for value in values:
        try:
            return read_timestamp(value, now=now)
        except ValueError:
            continue
    return None
