"""Periods that metrics are asked for, and the buckets that they are cut into."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import msgspec
import psycopg

from api.filters import check_time_zones
from api.problems import ProblemError
from sql import queries

_METRICS: Final = queries("metrics", "apsycopg")
_HOUR: Final = timedelta(hours=1)
_FIRST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_DEFAULT: Final = {"hour": timedelta(days=1), "day": timedelta(days=30)}
#: Most buckets in an answer.
MOST_BUCKETS: Final = 1000

Bucket = Literal["hour", "day"]


class Buckets(msgspec.Struct, frozen=True):
    """`bounds`: where each bucket begins, and where the last one ends; `days`: their dates, where they are days.

    `before`: where the previous period begins, which has as many buckets and ends where this one begins.
    """

    bounds: list[datetime]
    before: datetime
    days: list[date] | None

    @property
    def number(self) -> int:
        """How many buckets there are."""
        return len(self.bounds) - 1


def period(
    since: datetime | None, until: datetime | None, *, default: timedelta, most: timedelta
) -> tuple[datetime, datetime]:
    """The period that is asked for, in UTC: up to now and `default` long where nothing else is said.

    Raises `ProblemError` where it is empty, longer than `most`, without a time zone or not between 1970 and 2200.
    """
    check_time_zones(since=since, until=until)
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and not _FIRST <= moment <= _LAST:
            raise ProblemError(400, f"query.{name}: it lies between 1970 and 2200")
    end = until or (since + default if since and since + default > datetime.now(UTC) else datetime.now(UTC))
    begin = since or end - default
    if begin >= end:
        raise ProblemError(400, "query.since: it has to lie before until")
    if end - begin > most:
        raise ProblemError(400, f"query.since: the period has more than {most.days} days: ask for a shorter one")
    return begin.astimezone(UTC), end.astimezone(UTC)


def whole_hours(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The period widened to whole hours of UTC."""
    begin = since.replace(minute=0, second=0, microsecond=0)
    end = until.replace(minute=0, second=0, microsecond=0)
    return begin, end if end == until else end + _HOUR


async def buckets(conn: Any, bucket: Bucket, since: datetime | None, until: datetime | None, tz: str) -> Buckets:
    """The buckets that a period touches, whole: hours of UTC, or days of an IANA time zone.

    Raises `ProblemError`: see `period`; for more than `MOST_BUCKETS`; for an unknown time zone; for days that do not
    begin at a whole hour of UTC, as the metrics are kept by those.
    """
    most = MOST_BUCKETS * (_HOUR if bucket == "hour" else timedelta(days=1))
    begin, end = period(since, until, default=_DEFAULT[bucket], most=timedelta(days=MOST_BUCKETS))
    if end - begin > most:
        raise _too_many()
    if bucket == "hour":
        begin, end = whole_hours(begin, end)
        number = (end - begin) // _HOUR
        found = Buckets([begin + n * _HOUR for n in range(number + 1)], begin - number * _HOUR, None)
    else:
        found = await _days(conn, begin, end, tz)
    if found.number > MOST_BUCKETS:
        raise _too_many()
    return found


async def _days(conn: Any, since: datetime, until: datetime, tz: str) -> Buckets:
    try:
        rows = [row async for row in _METRICS.local_days(conn, tz=tz, since=since, until=until)]
    except psycopg.errors.InvalidParameterValue:
        raise ProblemError(400, "query.tz: there is no such time zone: name one as America/Sao_Paulo") from None
    starts = [row["start"].astimezone(UTC) for row in rows]
    if any(start.minute or start.second for start in starts):
        raise ProblemError(
            400, f"query.tz: days of {tz} do not begin at a whole hour of UTC, by which metrics are kept: ask for hours"
        )
    first = len(rows) // 2
    return Buckets(starts[first:], starts[0], [row["day"] for row in rows[first:]])


def _too_many() -> ProblemError:
    return ProblemError(400, f"query.since: more than {MOST_BUCKETS} buckets: ask for a shorter period, or for days")
