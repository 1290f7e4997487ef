"""Metrics: what a tenant looks at."""

from typing import Any, Final

import msgspec
from litestar import get

from api.common import WaitFor, until_reached
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from sql import queries

_METRICS: Final = queries("metrics", "apsycopg")


class AuthorMetrics(msgspec.Struct, frozen=True):
    """The figures of one side of the conversations: `customer` or `company`."""

    author: str
    total_messages: int
    avg_sentiment: float | None
    avg_satisfaction: float | None
    positive_pct: float | None


class EmotionCount(msgspec.Struct, frozen=True):
    """How many messages of one side carry an emotion."""

    author: str
    emotion: str
    messages: int


class Metrics(msgspec.Struct, frozen=True):
    """The documented view `tenant_metrics` (over all messages), then the two sides told apart, then emotions."""

    tenant_id: str
    tenant_name: str
    plan: str
    total_messages: int
    avg_sentiment: float | None
    avg_satisfaction: float | None
    positive_pct: float | None
    messages_today: int
    active_connections: int
    avg_latency_ms: float | None
    by_author: list[AuthorMetrics]
    emotions: list[EmotionCount]


@get("/metrics")
async def get_metrics(services: Services, principal: Principal, wait_for: WaitFor = None) -> Metrics:
    """Your tenant's figures. `messages_today` counts from midnight UTC here."""
    await until_reached(services, wait_for)
    async with services.reads.as_tenant(principal.tenant_id) as conn:
        row = await _METRICS.tenant_metrics(conn)
        if row is None:
            raise ProblemError(503, "the tenant is not in the read models yet", retry_after=1)
        authors = [author async for author in _METRICS.by_author(conn)]
        emotions = [emotion async for emotion in _METRICS.emotions(conn)]
    return msgspec.convert(
        {**row, "tenant_id": str(row["tenant_id"]), "by_author": authors, "emotions": emotions}, Metrics, strict=False
    )


HANDLERS: list[Any] = [get_metrics]
