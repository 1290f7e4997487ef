"""What a tenant does with its commands."""

from datetime import date

import pytest

from domain.authn import RecordLogin
from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.tenancy import (
    ChangeSubscription,
    ReactivateTenant,
    RegisterTenant,
    RenameTenant,
    SubscriptionChanged,
    SuspendTenant,
    TenantReactivated,
    TenantRegistered,
    TenantRenamed,
    TenantSuspended,
    tenant,
)
from tests.support.spec import NOW, TENANT, fact, given

EMPTY = tenant(TENANT)
BILLING = date(2026, 4, 1)
REGISTERED = fact(TenantRegistered, TENANT, name="Padaria Sol", plan="pro", status="trial", next_billing_date=BILLING)
SUSPENDED = fact(TenantSuspended, TENANT, 2, reason="fatura em aberto")


def test_a_company_becomes_a_tenant() -> None:
    command = RegisterTenant(at=NOW, name="  Padaria Sol ", plan="pro", status="trial", next_billing_date=BILLING)
    given(EMPTY).when(command).then(REGISTERED)


def test_it_is_registered_once() -> None:
    given(EMPTY, REGISTERED).when(RegisterTenant(at=NOW, name="Outra")).refused(AlreadyExists, "registered already")


@pytest.mark.parametrize("name", ["", "   ", "x" * 161, "Padaria\0Sol", "Padaria \ud83d"])
def test_a_name_that_its_column_cannot_hold_is_refused(name: str) -> None:
    given(EMPTY).when(RegisterTenant(at=NOW, name=name)).refused(Invalid, "tenant's name")
    given(EMPTY, REGISTERED).when(RenameTenant(at=NOW, name=name)).refused(Invalid, "tenant's name")


def test_plans_and_statuses_are_the_documented_ones() -> None:
    given(EMPTY).when(RegisterTenant(at=NOW, name="P", plan="gold")).refused(Invalid, "starter, pro, scale, enterprise")
    given(EMPTY).when(RegisterTenant(at=NOW, name="P", status="gone")).refused(Invalid, "active, suspended, trial")
    change = ChangeSubscription(at=NOW, plan="pro", status="suspended", next_billing_date=None)
    given(EMPTY, REGISTERED).when(change).refused(Invalid, "active, trial")


def test_a_time_without_a_zone_is_refused() -> None:
    command = RegisterTenant(at=NOW.replace(tzinfo=None), name="Padaria Sol")
    given(EMPTY).when(command).refused(Invalid, "without a zone")


def test_it_is_renamed() -> None:
    renamed = fact(TenantRenamed, TENANT, 2, name="Padaria Lua")
    given(EMPTY, REGISTERED).when(RenameTenant(at=NOW, name="Padaria Lua")).then(renamed)
    given(EMPTY, REGISTERED, renamed).when(RenameTenant(at=NOW, name=" Padaria Lua")).then()


def test_its_subscription_changes() -> None:
    changed = fact(SubscriptionChanged, TENANT, 2, plan="scale", status="active", next_billing_date=None)
    command = ChangeSubscription(at=NOW, plan="scale", status="active", next_billing_date=None)
    given(EMPTY, REGISTERED).when(command).then(changed)
    given(EMPTY, REGISTERED, changed).when(command).then()


def test_a_suspended_tenants_subscription_stands_still() -> None:
    command = ChangeSubscription(at=NOW, plan="scale", status="active", next_billing_date=None)
    given(EMPTY, REGISTERED, SUSPENDED).when(command).refused(NotAllowed, "reactivate it")


def test_it_is_suspended_and_reactivated() -> None:
    suspend, reactivate = SuspendTenant(at=NOW, reason="fatura em aberto"), ReactivateTenant(at=NOW)
    given(EMPTY, REGISTERED).when(suspend).then(SUSPENDED)
    given(EMPTY, REGISTERED, SUSPENDED).when(suspend).then()
    given(EMPTY, REGISTERED).when(reactivate).then()
    reactivated = fact(TenantReactivated, TENANT, 3, status=REGISTERED.status)
    given(EMPTY, REGISTERED, SUSPENDED).when(reactivate).then(reactivated)
    given(EMPTY, REGISTERED, SUSPENDED, reactivated).when(suspend).then(
        fact(TenantSuspended, TENANT, 4, reason="fatura em aberto")
    )


def test_a_trial_that_was_suspended_goes_on_as_a_trial() -> None:
    trial = fact(SubscriptionChanged, TENANT, 2, plan="pro", status="trial", next_billing_date=None)
    suspended = fact(TenantSuspended, TENANT, 3, reason="abuso")
    given(EMPTY, REGISTERED, trial, suspended).when(ReactivateTenant(at=NOW)).then(
        fact(TenantReactivated, TENANT, 4, status="trial")
    )


@pytest.mark.parametrize(
    "command",
    [
        RenameTenant(at=NOW, name="Padaria"),
        ChangeSubscription(at=NOW, plan="pro", status="active", next_billing_date=None),
        SuspendTenant(at=NOW, reason="x"),
        ReactivateTenant(at=NOW),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_tenant_that_was_never_registered_is_not_found(command: RenameTenant) -> None:
    given(EMPTY).when(command).refused(NotFound, "there is no tenant")


def test_a_command_of_another_aggregate_is_refused() -> None:
    given(EMPTY, REGISTERED).when(RecordLogin(at=NOW)).refused(Invalid, "RecordLogin")
