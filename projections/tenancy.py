"""Tenants, in the documented table `tenancy_tenant`."""

from typing import Any, Final

from psycopg import Connection

from domain.tenancy import (
    SubscriptionChanged,
    TenantReactivated,
    TenantRegistered,
    TenantRenamed,
    TenantSuspended,
)
from projections.batch import Batch
from sql import queries

_TENANCY: Final = queries("tenancy")


class TenancyProjection:
    """See `Projection`."""

    name = "tenancy"
    tables = ("tenancy_tenant",)

    def project(self, conn: Connection[Any], batch: Batch) -> None:
        """See `Projection.project`."""
        registered = [event for _, event in batch.of(TenantRegistered)]
        if registered:
            _TENANCY.put_tenants(
                conn,
                ids=[event.originator_id for event in registered],
                names=[event.name for event in registered],
                plans=[event.plan for event in registered],
                next_billing_dates=[event.next_billing_date for event in registered],
                statuses=[event.status for event in registered],
                created_ats=[event.at for event in registered],
            )
        for _, event in batch.recorded:
            match event:
                case TenantRenamed():
                    _TENANCY.rename_tenant(conn, id=event.originator_id, name=event.name, at=event.at)
                case SubscriptionChanged():
                    _TENANCY.set_subscription(
                        conn,
                        id=event.originator_id,
                        plan=event.plan,
                        status=event.status,
                        next_billing_date=event.next_billing_date,
                        at=event.at,
                    )
                case TenantSuspended():
                    _TENANCY.set_status(conn, id=event.originator_id, status="suspended", at=event.at)
                case TenantReactivated():
                    _TENANCY.set_status(conn, id=event.originator_id, status=event.status, at=event.at)
