"""Receipt: the memory that a command with an idempotency key was carried out, and what came of it.

It is an event like any other, appended in the same transaction as the command's own events: either both are in the log
or neither is.
"""

from typing import Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id
from domain.errors import DomainError, Invalid
from domain.event import Event, event_type


class KeyReused(DomainError):
    """The idempotency key was given before, with another command."""


@event_type("receipts.CommandCarriedOut")
class CommandCarriedOut(Event, frozen=True, kw_only=True):
    """A command with an idempotency key was carried out.

    `fingerprint` is a keyed hash of the command; `events` says how many events it led to, which stand right before this
    one in the log; `reached` is the position that was answered where there were none.
    """

    fingerprint: str
    events: int
    reached: int


class CarryOut(Command, frozen=True, kw_only=True):
    """Note that the command with this fingerprint leads to so many events."""

    tenant_id: UUID
    fingerprint: str
    events: int
    reached: int


class Receipt(Aggregate, frozen=True, kw_only=True):
    """State of an idempotency key: unused, or what came of the command that it was given with."""

    fingerprint: str = ""
    events: int = 0
    reached: int = 0

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        if isinstance(event, CommandCarriedOut):
            return replace(after, fingerprint=event.fingerprint, events=event.events, reached=event.reached)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. A key that was used with the same command needs no event."""
        if not isinstance(command, CarryOut):
            raise Invalid(f"a receipt does not understand {type(command).__name__}")
        if self.exists:
            if self.fingerprint != command.fingerprint:
                raise KeyReused("this idempotency key was used before, with another command: take a new key")
            return ()
        return (
            self._event(
                CommandCarriedOut,
                command,
                command.tenant_id,
                fingerprint=command.fingerprint,
                events=command.events,
                reached=command.reached,
            ),
        )

    def positions(self, at: int) -> tuple[int, ...]:
        """The positions of the command's own events, given that of the receipt: one append numbers without gaps."""
        return tuple(range(at - self.events, at))


def receipt_id(user_id: UUID, key: str) -> UUID:
    """The stream id of a user's idempotency key: one user's keys are of no concern to another."""
    return derived_id("receipt", user_id, key)


def receipt(identifier: UUID) -> Receipt:
    """The receipt of that id before anything has happened."""
    return Receipt(id=identifier)
