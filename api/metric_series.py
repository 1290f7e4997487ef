"""Metrics in time: series by hour and day, chats, and how long the models took."""

from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import get
from litestar.params import Parameter

from api.common import WaitFor, until_reached
from api.filters import Moment
from api.periods import Bucket, Buckets, buckets, period, whole_hours
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from projections.latency import percentile
from sql import queries

_METRICS: Final = queries("metrics", "apsycopg")
#: Most points in an answer, of all its series together.
_MOST_POINTS: Final = 20_000

By = Annotated[
    Literal["connection", "emotion", "tone", "author"] | None,
    Parameter(required=False, description="one series for each; without it, one of everything"),
]
TimeZone = Annotated[
    str,
    Parameter(
        pattern=r"^(UTC|[A-Za-z_]{1,32}(/[A-Za-z0-9_+-]{1,32}){1,2})$",
        required=False,
        description="IANA name of the time zone whose days are meant",
    ),
]
Most = Annotated[int, Parameter(ge=1, le=100, required=False, description="how many chats at most")]
Sort = Annotated[
    Literal["messages", "sentiment"], Parameter(required=False, description="most messages, or worst sentiment, first")
]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What some messages say. Averages and `positive_pct` are of the analysed ones, and null without any."""

    messages: int
    analysed: int
    avg_sentiment: float | None
    avg_satisfaction: float | None
    positive_pct: float | None


class Point(Figures, frozen=True, kw_only=True):
    """One bucket. `day`: its date in the time zone that was asked for; null where buckets are hours."""

    start: datetime
    day: date | None


class Series(msgspec.Struct, frozen=True):
    """`key`: connection id, emotion, tone or author; null for everything, or for what waits for its analysis.

    `points` has every bucket of the period, also those without messages. `previous` is the previous period's total.
    """

    key: str | None
    total: Figures
    previous: Figures
    points: list[Point]


class MetricSeries(msgspec.Struct, frozen=True):
    """The period as it was answered, in whole buckets, and its series, those with most messages first."""

    bucket: str
    tz: str
    by: str | None
    previous_since: datetime
    since: datetime
    until: datetime
    series: list[Series]


class ChatFigures(Figures, frozen=True, kw_only=True):
    """The same of one chat, and when its last message of the period was sent."""

    chat_id: str
    last_message_at: datetime


class Chats(msgspec.Struct, frozen=True):
    """The chats of a period."""

    since: datetime
    until: datetime
    items: list[ChatFigures]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds; null without inferences. Median and percentile lie within 1/32 of the true ones."""

    inferences: int
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None


class ModelLatency(msgspec.Struct, frozen=True):
    """How long a model took, and in the previous period. `is_shadow`: in answers that nobody was shown."""

    model_name: str
    is_shadow: bool
    latency: Latency
    previous: Latency


class Latencies(msgspec.Struct, frozen=True):
    """The models of a period, in whole hours of UTC."""

    previous_since: datetime
    since: datetime
    until: datetime
    models: list[ModelLatency]


class _Sums(msgspec.Struct):
    messages: int = 0
    analysed: int = 0
    sentiment_sum: Decimal = Decimal(0)
    satisfaction_sum: int = 0
    positive: int = 0

    def __iadd__(self, other: "_Sums") -> "_Sums":
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def figures(self) -> dict[str, Any]:
        some = self.analysed
        return {
            "messages": self.messages,
            "analysed": some,
            "avg_sentiment": float(self.sentiment_sum / some) if some else None,
            "avg_satisfaction": self.satisfaction_sum / some if some else None,
            "positive_pct": 100 * self.positive / some if some else None,
        }


@get("/metrics/series")
async def get_metric_series(
    services: Services,
    principal: Principal,
    bucket: Bucket = "day",
    since: Moment = None,
    until: Moment = None,
    tz: TimeZone = "UTC",
    by: By = None,
    wait_for: WaitFor = None,
) -> MetricSeries:
    """Your tenant's figures hour by hour or day by day, with the previous period of equal length to compare with.

    Without `since`, the last 24 hours or 30 days. Buckets that the period touches are answered whole, at most 1,000.
    Figures are kept by hours of UTC: where a zone's days begin in between, they cannot be asked for.
    """
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        cut = await buckets(conn, bucket, since, until, tz)
        rows = [
            row async for row in _METRICS.series(conn, bounds=cut.bounds, since=cut.before, until=cut.bounds[-1], by=by)
        ]
    found: defaultdict[str | None, dict[int, _Sums]] = defaultdict(dict)
    for row in rows:
        found[row["key"] or None][row["bucket"]] = msgspec.convert(row, _Sums)
    if by is None:
        found[None]  # there is this one also where there are no messages
    if len(found) * cut.number > _MOST_POINTS:
        raise ProblemError(
            400, f"query: {len(found)} series of {cut.number} buckets are too many: ask for a shorter period"
        )
    series = [_series(key, cut, sums) for key, sums in found.items()]
    series.sort(key=lambda one: (-one.total.messages, one.key or ""))
    return MetricSeries(bucket, tz, by, cut.before, cut.bounds[0], cut.bounds[-1], series)


@get("/metrics/chats")
async def get_metric_chats(
    services: Services,
    principal: Principal,
    since: Moment = None,
    until: Moment = None,
    sort: Sort = "messages",
    limit: Most = 20,
    wait_for: WaitFor = None,
) -> Chats:
    """The chats of a period of at most 92 days (the last 30 without `since`). Reads the period's messages."""
    begin, end = period(since, until, default=timedelta(days=30), most=timedelta(days=92))
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [row async for row in _METRICS.chats(conn, since=begin, until=end, sort=sort, most=limit)]
    return Chats(begin, end, [msgspec.convert(row, ChatFigures) for row in rows])


@get("/metrics/latency")
async def get_metric_latency(
    services: Services, principal: Principal, since: Moment = None, until: Moment = None, wait_for: WaitFor = None
) -> Latencies:
    """How long the models took in a period of at most 366 days (the last 7 without `since`), and in the one before."""
    begin, end = period(since, until, default=timedelta(days=7), most=timedelta(days=366))
    begin, end = whole_hours(begin, end)
    before = begin - (end - begin)
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        rows = [row async for row in _METRICS.latency(conn, before=before, since=begin, until=end)]
    models: dict[tuple[str, bool], dict[bool, list[dict[str, Any]]]] = {}
    for row in rows:
        of_model = models.setdefault((row["model_name"], row["is_shadow"]), {False: [], True: []})
        of_model[row["previous"]].append(row)
    return Latencies(
        before,
        begin,
        end,
        [ModelLatency(*key, _latency(of_model[False]), _latency(of_model[True])) for key, of_model in models.items()],
    )


def _series(key: str | None, cut: Buckets, sums: dict[int, _Sums]) -> Series:
    total = _Sums()
    points = []
    for place, start in enumerate(cut.bounds[:-1]):
        one = sums.get(place + 1) or _Sums()
        total += one
        points.append(Point(start=start, day=cut.days[place] if cut.days else None, **one.figures()))
    previous = sums.get(0) or _Sums()
    return Series(key, Figures(**total.figures()), Figures(**previous.figures()), points)


def _latency(rows: list[dict[str, Any]]) -> Latency:
    number = sum(row["inferences"] for row in rows)
    histogram = [(row["bucket"], row["inferences"]) for row in rows]
    average = sum(row["latency_ms_sum"] for row in rows) / number if number else None
    return Latency(number, average, percentile(histogram, 0.5), percentile(histogram, 0.95))


HANDLERS: list[Any] = [get_metric_series, get_metric_chats, get_metric_latency]
