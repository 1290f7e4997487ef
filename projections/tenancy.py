"""Tenants, in the documented table `tenancy_tenant`."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from psycopg import Connection

from domain.event import Event
from domain.tenancy import (
    SubscriptionChanged,
    TenantReactivated,
    TenantRegistered,
    TenantRenamed,
    TenantSuspended,
)
from projections.batch import Batch
from sql import LIVE, queries


class TenancyProjection:
    """See `Projection`. A batch becomes at most two statements. Tenants are few: no COPY into bare tables."""

    name = "tenancy"
    tables = ("tenancy_tenant",)
    events: tuple[type[Event], ...] = (
        TenantRegistered,
        TenantRenamed,
        SubscriptionChanged,
        TenantSuspended,
        TenantReactivated,
    )

    def __init__(self, schema: str = LIVE, *, bare: bool = False) -> None:
        self._queries = queries("tenancy", schema=schema)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        changes: defaultdict[UUID, dict[str, Any]] = defaultdict(dict)
        for _, event in batch.of_any(self.events):
            changes[event.originator_id] |= _change(event)
        born = {row_id: change for row_id, change in changes.items() if "created_at" in change}
        earlier = {row_id: change for row_id, change in changes.items() if row_id not in born}
        if born:
            self._queries.put_tenants(
                conn, **_columns(born), created_ats=[change["created_at"] for change in born.values()]
            )
        if earlier:
            self._queries.change_tenants(conn, **_columns(earlier))


def _change(event: Event) -> dict[str, Any]:
    """What an event sets, by column."""
    change: dict[str, Any] = {"updated_at": event.at}
    match event:
        case TenantRegistered():
            change["created_at"] = event.at
            change["name"] = event.name
        case TenantRenamed():
            change["name"] = event.name
        case TenantSuspended():
            change["status"] = "suspended"
        case TenantReactivated():
            change["status"] = event.status
    if isinstance(event, TenantRegistered | SubscriptionChanged):
        change |= {"plan": event.plan, "status": event.status, "next_billing_date": event.next_billing_date}
    return change


def _columns(changes: dict[UUID, dict[str, Any]]) -> dict[str, list[Any]]:
    """The rows as arrays, with None in what was not set."""
    return {
        "ids": list(changes),
        "names": [change.get("name") for change in changes.values()],
        "plans": [change.get("plan") for change in changes.values()],
        "next_billing_dates": [change.get("next_billing_date") for change in changes.values()],
        "statuses": [change.get("status") for change in changes.values()],
        "updated_ats": [change["updated_at"] for change in changes.values()],
    }
