"""What a tenant's models answered and cost, day by day, and how its budget stands."""

import asyncio
from datetime import UTC, date, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import Parameter

from api.chains import OFFLINE, chain_of
from api.filters import Moment
from api.model_choices import configured, dollars
from api.periods import period
from api.problems import ProblemError
from api.security import Principal
from api.services import Services
from api.usage import KEPT, today
from domain.model_choices import model_choice
from domain.tenancy import tenant
from sql import queries

_USAGE: Final = queries("usage", "apsycopg")
_DAY: Final = timedelta(days=1)
#: Most rows in an answer.
_MOST: Final = 20_000

TenantId = Annotated[UUID | None, Parameter(required=False, description="another tenant's; for superusers")]


class DayUsage(msgspec.Struct, frozen=True):
    """One model on one day (UTC). `calls`: what was asked of it; `cached`: what was answered without asking it.

    `refused`: messages (of embeddings: batches) to which it gave no valid answer. `purpose`: `analysis`, `embedding`.
    """

    day: date
    model_name: str
    purpose: str
    calls: int
    cached: int
    refused: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


class Today(msgspec.Struct, frozen=True):
    """The budget's day. `analysed_by`: who is asked first now, which is `offline` where the budget is spent.

    `daily_budget_usd`: null where there is no limit. `analysers`: the tenant's chain while the budget lasts.
    """

    day: date
    cost_usd: float
    daily_budget_usd: float | None
    budget_spent: bool
    analysers: list[str]
    analysed_by: str


class TenantUsage(msgspec.Struct, frozen=True):
    """Whole days from `since` up to and with `until`, the latest first."""

    tenant_id: UUID
    since: date
    until: date
    today: Today
    cost_usd: float
    items: list[DayUsage]


@get("/usage", missing=True)
async def get_usage(
    services: Services,
    principal: Principal,
    tenant_id: TenantId = None,
    since: Moment = None,
    until: Moment = None,
) -> TenantUsage:
    """What your tenant's models answered and cost: the days (UTC) of a period, of at most 400 days, the last 30 without
    `since`. It may be a second behind. Costs are by the prices that are configured."""
    if tenant_id is not None and tenant_id != principal.tenant_id and not principal.is_superuser:
        raise ProblemError(403, "only a superuser may see the usage of another tenant")
    begin, end = period(since, until, default=timedelta(days=30), most=KEPT)
    # `end` is the first moment that is not meant.
    first, last = begin.astimezone(UTC).date(), (end - timedelta(microseconds=1)).astimezone(UTC).date()
    whose, day = tenant_id or principal.tenant_id, today()
    if not (await asyncio.to_thread(services.aggregates.load, tenant(whose))).exists:
        raise ProblemError(404, f"there is no tenant {whose}")
    choice = await asyncio.to_thread(services.aggregates.load, model_choice(whose))
    async with services.reads.as_tenant(whose) as conn:
        rows = [row async for row in _USAGE.by_day(conn, since=first, until=last + _DAY, most=_MOST + 1)]
        spent = sum([row["cost"] async for row in _USAGE.spent(conn, tenant_ids=[whose], day=day)])
    if len(rows) > _MOST:
        raise ProblemError(400, f"query.since: the period has more than {_MOST:,} rows: ask for a shorter one")
    chain = chain_of(choice, configured(services), services.models.chain, services.settings.daily_budget_in_millionths)
    over = chain.daily_budget is not None and spent >= chain.daily_budget
    items = [msgspec.convert({**row, "cost_usd": row["cost"] / 1_000_000}, DayUsage) for row in rows]
    return TenantUsage(
        whose,
        first,
        last,
        Today(
            day,
            spent / 1_000_000,
            dollars(chain.daily_budget),
            over,
            list(chain.names),
            OFFLINE if over else chain.names[0],
        ),
        sum(row["cost"] for row in rows) / 1_000_000,
        items,
    )


HANDLERS: list[Any] = [get_usage]
