"""Tenants: managed by superusers."""

import asyncio
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from litestar import Response, get, patch, post, put

from api.commands import Key
from api.common import Accepted, Page, PageSize, WaitFor, accepted, answer, cursor_page, handle, until_reached
from api.problems import ProblemError
from api.security import superusers_only
from api.services import Services, now
from domain.aggregate import derived_id
from domain.tenancy import (
    ChangeSubscription,
    ReactivateTenant,
    RegisterTenant,
    RenameTenant,
    SuspendTenant,
    tenant,
)
from sql import queries

_TENANCY: Final = queries("tenancy", "apsycopg")


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A company to become a tenant."""

    name: str
    plan: str = "starter"
    status: str = "active"
    next_billing_date: date | None = None


class TenantName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another name."""

    name: str


class Subscription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Plan, status (`active` or `trial`) and next billing date."""

    plan: str
    status: str
    next_billing_date: date | None = None


class Suspension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why."""

    reason: str


class TenantRow(msgspec.Struct, frozen=True):
    """A tenant as the read model has it."""

    id: UUID
    name: str
    plan: str
    status: str
    next_billing_date: date | None
    created_at: datetime
    updated_at: datetime


class TenantCreated(msgspec.Struct, frozen=True):
    """The new tenant's id, and the position that queries can wait for."""

    id: UUID
    position: int


@post("/tenants", guards=[superusers_only])
async def register_tenant(data: NewTenant, services: Services, key: Key | None) -> Response[TenantCreated]:
    """Make a company a tenant. Its first admin is registered with POST /users and its tenant_id."""
    # A repeated command must speak of the same tenant.
    tenant_id = derived_id("tenant", key.receipt_id) if key else uuid4()
    command = RegisterTenant(
        at=now(), name=data.name, plan=data.plan, status=data.status, next_billing_date=data.next_billing_date
    )
    tenant(tenant_id).decide(command)  # refused before a key is made for it
    await asyncio.to_thread(services.write.vault.create, tenant_id)
    done = await handle(services, tenant(tenant_id), command, key, new=True)
    return accepted(done, TenantCreated(tenant_id, done.position))


@get("/tenants", guards=[superusers_only])
async def list_tenants(
    services: Services, limit: PageSize = 50, after: UUID | None = None, wait_for: WaitFor = None
) -> Page[TenantRow]:
    """All tenants, in the order of their ids."""
    await until_reached(services, wait_for)
    async with services.reads.all_tenants() as conn:
        rows = [row async for row in _TENANCY.tenants(conn, after=after, page=limit + 1)]
    return cursor_page(rows, [msgspec.convert(row, TenantRow) for row in rows], limit)


@get("/tenants/{tenant_id:uuid}", guards=[superusers_only])
async def get_tenant(tenant_id: UUID, services: Services, wait_for: WaitFor = None) -> TenantRow:
    """One tenant."""
    await until_reached(services, wait_for)
    async with services.reads.all_tenants() as conn:
        row = await _TENANCY.tenant(conn, id=tenant_id)
    if row is None:
        raise ProblemError(404, f"there is no tenant {tenant_id}")
    return msgspec.convert(row, TenantRow)


@patch("/tenants/{tenant_id:uuid}", guards=[superusers_only])
async def rename_tenant(tenant_id: UUID, data: TenantName, services: Services, key: Key | None) -> Response[Accepted]:
    """Give a tenant another name."""
    return await answer(services, tenant(tenant_id), RenameTenant(at=now(), name=data.name), key)


@put("/tenants/{tenant_id:uuid}/subscription", guards=[superusers_only])
async def change_subscription(
    tenant_id: UUID, data: Subscription, services: Services, key: Key | None
) -> Response[Accepted]:
    """Set a tenant's plan, status and next billing date."""
    command = ChangeSubscription(at=now(), plan=data.plan, status=data.status, next_billing_date=data.next_billing_date)
    return await answer(services, tenant(tenant_id), command, key)


@post("/tenants/{tenant_id:uuid}/suspend", guards=[superusers_only], status_code=200)
async def suspend_tenant(tenant_id: UUID, data: Suspension, services: Services, key: Key | None) -> Response[Accepted]:
    """Shut a tenant's users out. Its messages are still received."""
    return await answer(services, tenant(tenant_id), SuspendTenant(at=now(), reason=data.reason), key)


@post("/tenants/{tenant_id:uuid}/reactivate", guards=[superusers_only], status_code=200)
async def reactivate_tenant(tenant_id: UUID, services: Services, key: Key | None) -> Response[Accepted]:
    """Let a suspended tenant's users in again."""
    return await answer(services, tenant(tenant_id), ReactivateTenant(at=now()), key)


HANDLERS: list[Any] = [
    register_tenant,
    list_tenants,
    get_tenant,
    rename_tenant,
    change_subscription,
    suspend_tenant,
    reactivate_tenant,
]
