"""Tenant: a company with its plan. Everything else in EvoSense belongs to exactly one tenant."""

from datetime import date
from typing import Annotated, Final, Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command
from domain.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from domain.event import SEALED, Event, event_type
from domain.limits import fitting

#: Plans and statuses of the documented table `tenancy_tenant`.
PLANS: Final = ("starter", "pro", "scale", "enterprise")
STATUSES: Final = ("active", "suspended", "trial")


@event_type("tenancy.TenantRegistered")
class TenantRegistered(Event, frozen=True, kw_only=True):
    """A company became a tenant."""

    name: Annotated[str, SEALED]
    plan: str
    status: str
    next_billing_date: date | None


@event_type("tenancy.TenantRenamed")
class TenantRenamed(Event, frozen=True, kw_only=True):
    """The tenant goes by another name."""

    name: Annotated[str, SEALED]


@event_type("tenancy.SubscriptionChanged")
class SubscriptionChanged(Event, frozen=True, kw_only=True):
    """Plan, status or next billing date changed; the event holds all three as they are now."""

    plan: str
    status: str
    next_billing_date: date | None


@event_type("tenancy.TenantSuspended")
class TenantSuspended(Event, frozen=True, kw_only=True):
    """The tenant's users are shut out. Messages are still received, so that nothing is lost."""

    reason: Annotated[str, SEALED]


@event_type("tenancy.TenantReactivated")
class TenantReactivated(Event, frozen=True, kw_only=True):
    """A suspended tenant is back; `status` is what it was before: `active` or `trial`."""

    status: str


class RegisterTenant(Command, frozen=True, kw_only=True):
    """Make a company a tenant."""

    name: str
    plan: str = "starter"
    status: str = "active"
    next_billing_date: date | None = None


class RenameTenant(Command, frozen=True, kw_only=True):
    """Give the tenant another name."""

    name: str


class ChangeSubscription(Command, frozen=True, kw_only=True):
    """Set plan, status (`active` or `trial`) and next billing date."""

    plan: str
    status: str
    next_billing_date: date | None


class SuspendTenant(Command, frozen=True, kw_only=True):
    """Shut the tenant's users out."""

    reason: str


class ReactivateTenant(Command, frozen=True, kw_only=True):
    """Let a suspended tenant's users in again."""


class Tenant(Aggregate, frozen=True, kw_only=True):
    """State of a tenant; its stream id is the tenant's id."""

    name: str = ""
    plan: str = "starter"
    status: str = "active"
    next_billing_date: date | None = None
    status_before: str = "active"

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        match event:
            case TenantRegistered():
                return replace(
                    after,
                    name=event.name,
                    plan=event.plan,
                    status=event.status,
                    next_billing_date=event.next_billing_date,
                )
            case TenantRenamed():
                return replace(after, name=event.name)
            case SubscriptionChanged():
                return replace(after, plan=event.plan, status=event.status, next_billing_date=event.next_billing_date)
            case TenantSuspended():
                return replace(after, status="suspended", status_before=self.status)
            case TenantReactivated():
                return replace(after, status=event.status)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. What is already so needs no event."""
        if isinstance(command, RegisterTenant):
            if self.exists:
                raise AlreadyExists(f"the tenant {self.id} is registered already")
            name = _name(command.name)
            _plan_and_status(command.plan, command.status, STATUSES)
            return (
                self._event(
                    TenantRegistered,
                    command,
                    self.id,
                    name=name,
                    plan=command.plan,
                    status=command.status,
                    next_billing_date=command.next_billing_date,
                ),
            )
        if not self.exists:
            raise NotFound(f"there is no tenant {self.id}")
        match command:
            case RenameTenant():
                name = _name(command.name)
                return () if name == self.name else (self._event(TenantRenamed, command, self.id, name=name),)
            case ChangeSubscription():
                return self._change_subscription(command)
            case SuspendTenant():
                if self.status == "suspended":
                    return ()
                return (self._event(TenantSuspended, command, self.id, reason=command.reason),)
            case ReactivateTenant():
                if self.status != "suspended":
                    return ()
                return (self._event(TenantReactivated, command, self.id, status=self.status_before),)
        raise Invalid(f"a tenant does not understand {type(command).__name__}")

    def _change_subscription(self, command: ChangeSubscription) -> tuple[Event, ...]:
        _plan_and_status(command.plan, command.status, ("active", "trial"))
        if self.status == "suspended":
            raise NotAllowed("the tenant is suspended: reactivate it before its subscription is changed")
        wanted = (command.plan, command.status, command.next_billing_date)
        if wanted == (self.plan, self.status, self.next_billing_date):
            return ()
        return (
            self._event(
                SubscriptionChanged,
                command,
                self.id,
                plan=command.plan,
                status=command.status,
                next_billing_date=command.next_billing_date,
            ),
        )


def _name(name: str) -> str:
    return fitting("a tenant's name", name.strip(), 160, least=1)


def _plan_and_status(plan: str, status: str, statuses: tuple[str, ...]) -> None:
    if plan not in PLANS:
        raise Invalid(f"there is no plan {plan!r}: the plans are {', '.join(PLANS)}")
    if status not in statuses:
        raise Invalid(f"the status {status!r} can't be set here: one of {', '.join(statuses)} can")


def tenant(tenant_id: UUID) -> Tenant:
    """The tenant of that id before anything has happened to it."""
    return Tenant(id=tenant_id)
