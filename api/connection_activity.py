"""What came from a connection and what became of it, as the doors of all processes have counted it."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import get
from litestar.params import Parameter

from api.activity import KEPT, totals
from api.common import WaitFor, until_reached
from api.filters import Moment
from api.periods import period
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from domain.connections import connection_id
from sql import queries

_ACTIVITY: Final = queries("activity", "apsycopg")
_CONNECTIONS: Final = queries("connections", "apsycopg")
#: Most counts in an answer.
_MOST: Final = 20_000

Per = Annotated[
    Literal["total", "hour"],
    Parameter(required=False, description="one count for the whole period, or one for each UTC hour"),
]


class Totals(msgspec.Struct, frozen=True):
    """Messages by what became of them. What is refused as a whole delivery counts as one."""

    accepted: int
    duplicate: int
    ignored: int
    refused: int


class Count(msgspec.Struct, frozen=True):
    """So many came over this transport with this outcome; `hour` is null where the whole period is meant.

    `kind` is the kind of message or event, `delivery` where one was refused as a whole, or for outcome `state` the
    state that was told; `reason` says why something was ignored or refused. What has no known name is `other`.
    """

    hour: datetime | None
    transport: str
    outcome: str
    kind: str
    reason: str
    count: int


class ConnectionActivity(msgspec.Struct, frozen=True):
    """The counts of a period of whole hours; without `since` and `until`, of all time.

    `last_message_at`: when a new message was last taken; `last_sent_at`: the latest sending time of one; `last_state`:
    what the instance last told of itself, and when, also where that was not worth an event.
    """

    since: datetime | None
    until: datetime | None
    last_message_at: datetime | None
    last_sent_at: datetime | None
    last_state: str | None
    last_state_at: datetime | None
    totals: Totals
    counts: list[Count]


@get("/connections/{identifier:int}/activity")
async def connection_activity(
    identifier: int,
    services: Services,
    principal: Principal,
    since: Moment = None,
    until: Moment = None,
    per: Per = "total",
    wait_for: WaitFor = None,
) -> ConnectionActivity:
    """What came from a connection, by transport, outcome, kind and reason. It may be a second behind.

    Hours are kept for 90 days, totals of all time for good.
    """
    await until_reached(services, wait_for)
    begin: datetime | None = None
    end: datetime | None = None
    if since or until or per == "hour":
        begin, end = period(since, until, default=timedelta(days=1), most=KEPT)
        begin = begin.replace(minute=0, second=0, microsecond=0)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _CONNECTIONS.connection(conn, id=identifier)
        if row is None:
            raise ProblemError(404, f"there is no connection {identifier}")
        stream_id = connection_id(row["tenant_id"], row["name"])
        last = [one async for one in _ACTIVITY.last(conn, connection_ids=[stream_id])]
        if begin is None or end is None:
            found = _ACTIVITY.all_time(conn, connection_id=stream_id)
        elif per == "hour":
            found = _ACTIVITY.by_hour(conn, connection_id=stream_id, since=begin, until=end, most=_MOST + 1)
        else:
            found = _ACTIVITY.of_period(conn, connection_id=stream_id, since=begin, until=end)
        rows: list[dict[str, Any]] = [one async for one in found]
    if len(rows) > _MOST:
        raise ProblemError(400, f"query.since: the period has more than {_MOST:,} counts: ask for a shorter one")
    seen = last[0] if last else dict.fromkeys(("message_at", "sent_at", "state", "state_at"))
    return ConnectionActivity(
        since=begin,
        until=end,
        last_message_at=seen["message_at"],
        last_sent_at=seen["sent_at"],
        last_state=seen["state"],
        last_state_at=seen["state_at"],
        totals=Totals(**totals(rows)),
        counts=[msgspec.convert(one, Count) for one in rows],
    )


HANDLERS: list[Any] = [connection_activity]
