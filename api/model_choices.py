"""Which models a tenant's messages are given to: chosen by superusers, among those that are configured."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, delete, get, put

from api.chains import OFFLINE, chain_of
from api.commands import Key
from api.common import Accepted, answer
from api.problems import ProblemError
from api.security import superusers_only
from api.services import Services, now
from domain.errors import Invalid
from domain.model_choices import ChooseModels, ClearChoice, model_choice
from domain.tenancy import tenant

Dollars = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of analysers in the order in which they are asked, and US dollars a day; empty for the installation's."""

    analysers: list[str] = []
    daily_budget_usd: Dollars | None = None


class ModelsInUse(msgspec.Struct, frozen=True):
    """`chosen`: what the tenant chose; `analysers` and `daily_budget_usd`: what that comes to; `configured`: all names.

    What was chosen and is configured no longer is passed over; with nothing left the offline analyser answers.
    """

    tenant_id: UUID
    chosen: Choice
    analysers: list[str]
    daily_budget_usd: float | None
    configured: list[str]


@get("/tenants/{tenant_id:uuid}/models", guards=[superusers_only])
async def get_models(tenant_id: UUID, services: Services) -> ModelsInUse:
    """Which analysers a tenant's messages are given to, and for how much a day."""
    await asyncio.to_thread(_known, services, tenant_id)
    choice = await asyncio.to_thread(services.aggregates.load, model_choice(tenant_id))
    names = configured(services)
    chain = chain_of(choice, names, services.models.chain, services.settings.daily_budget_in_millionths)
    return ModelsInUse(
        tenant_id,
        Choice(list(choice.analysers), dollars(choice.daily_budget)),
        list(chain.names),
        dollars(chain.daily_budget),
        names,
    )


@put("/tenants/{tenant_id:uuid}/models", guards=[superusers_only])
async def choose_models(tenant_id: UUID, data: Choice, services: Services, key: Key | None) -> Response[Accepted]:
    """Choose a tenant's analysers and budget; what is left out is the installation's. Workers follow within seconds.

    The next of the chain is asked where one is unavailable. Without `offline` at its end messages wait then.
    """
    await asyncio.to_thread(_known, services, tenant_id)
    names = configured(services)
    if unknown := [name for name in data.analysers if name not in names]:
        raise Invalid(f"there is no analyser {', '.join(map(repr, unknown))}: there are {', '.join(names)}")
    budget = None if data.daily_budget_usd is None else round(data.daily_budget_usd * 1_000_000)
    command = ChooseModels(at=now(), tenant_id=tenant_id, analysers=tuple(data.analysers), daily_budget=budget)
    return await answer(services, model_choice(tenant_id), command, key)


@delete("/tenants/{tenant_id:uuid}/models", guards=[superusers_only], status_code=200)
async def clear_models(tenant_id: UUID, services: Services, key: Key | None) -> Response[Accepted]:
    """Go back to the installation's analysers and budget."""
    await asyncio.to_thread(_known, services, tenant_id)
    return await answer(services, model_choice(tenant_id), ClearChoice(at=now()), key)


def configured(services: Services) -> list[str]:
    """The names of all analysers of the installation."""
    return [*(server.name for server in services.models.analysers), OFFLINE]


def dollars(millionths: int | None) -> float | None:
    """US dollars, for people."""
    return None if millionths is None else millionths / 1_000_000


def _known(services: Services, tenant_id: UUID) -> None:
    if not services.aggregates.load(tenant(tenant_id)).exists:
        raise ProblemError(404, f"there is no tenant {tenant_id}")


HANDLERS: list[Any] = [get_models, choose_models, clear_models]
