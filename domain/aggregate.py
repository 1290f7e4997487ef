"""The shape every aggregate has: a frozen state, folded from its events, that decides what a command leads to."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID, uuid5

import msgspec

from domain.errors import Invalid
from domain.event import Event

#: Root of all derived ids. It must never change: the ids of everything ever recorded hang on it (DESIGN rule 3).
NAMESPACE = UUID("5d3e7a52-0c1f-5b7e-9d6a-6f0e3a1c8b44")

_E = TypeVar("_E", bound=Event)


def derived_id(kind: str, *parts: object) -> UUID:
    """The id (uuid5) of the thing that `parts` make unique in the world; the same parts give the same id."""
    # A length before each part: ("ab", "c") and ("a", "bc") must not meet.
    key = "".join(f"{len(text)}:{text}" for text in map(str, (kind, *parts)))
    return uuid5(NAMESPACE, key)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A wish, as a plain typed value. `at` is when it was made (UTC): the domain has no clock of its own."""

    at: datetime


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """State of one stream after `version` events. Version 0 is a thing that does not exist yet.

    Subclasses define `evolve` (state and event give the next state) and `decide` (state and command give events, or
    raise a `DomainError`). Both are pure.
    """

    id: UUID
    version: int = 0

    @property
    def exists(self) -> bool:
        """Whether anything has happened to it yet."""
        return self.version > 0

    def evolve(self, event: Event) -> Self:
        """The state after `event`. Subclasses override it and call it for the version."""
        return msgspec.structs.replace(self, version=event.originator_version)

    def decide(self, command: Command) -> tuple[Event, ...]:
        """The events that `command` leads to, perhaps none. Raises `DomainError` where a rule forbids it."""
        raise NotImplementedError

    def replay(self, events: Iterable[Event]) -> Self:
        """Fold `events`, in stream order, into this state."""
        state = self
        for event in events:
            state = state.evolve(event)
        return state

    def _event(self, cls: type[_E], command: Command, tenant_id: UUID, *, after: int = 0, **fields: Any) -> _E:
        return cls(
            originator_id=self.id,
            originator_version=self.version + 1 + after,
            tenant_id=tenant_id,
            at=with_zone("at", command.at),
            **fields,
        )


def with_zone(field: str, moment: datetime) -> datetime:
    """The moment, if it says in which zone. Raises `Invalid`: a database would take it in the zone of its session."""
    if moment.utcoffset() is None:
        raise Invalid(f"{field} is a time without a zone: give it one, such as UTC")
    return moment
