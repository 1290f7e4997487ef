"""Specifications of the domain without any I/O: `given(aggregate, events).when(command).then(events)`."""

from datetime import UTC, datetime
from typing import Generic, TypeVar
from uuid import UUID

import pytest

from domain.aggregate import Aggregate, Command
from domain.errors import DomainError
from domain.event import Event

#: When everything in a specification happens, unless it says otherwise.
NOW = datetime(2026, 3, 2, 14, 30, 15, 123456, tzinfo=UTC)
TENANT = UUID("11111111-1111-4111-8111-111111111111")

_A = TypeVar("_A", bound=Aggregate)
_E = TypeVar("_E", bound=Event)


def fact(
    cls: type[_E], stream: Aggregate | UUID, version: int = 1, *, tenant_id: UUID = TENANT, **fields: object
) -> _E:
    """An event of a stream, at `NOW`."""
    identifier = stream if isinstance(stream, UUID) else stream.id
    place = {"originator_id": identifier, "originator_version": version, "tenant_id": tenant_id, "at": NOW}
    return cls(**{**place, **fields})


class Scenario(Generic[_A]):
    """An aggregate to which some events have happened."""

    def __init__(self, empty: _A, events: tuple[Event, ...]) -> None:
        self.state = empty.replay(events)

    def when(self, command: Command) -> "Decision":
        """Let it decide."""
        try:
            return Decision(self.state.decide(command), None)
        except DomainError as error:
            return Decision((), error)


class Decision:
    """What a command led to."""

    def __init__(self, events: tuple[Event, ...], error: DomainError | None) -> None:
        self._events = events
        self._error = error

    def then(self, *events: Event) -> None:
        """Exactly these events, and no refusal."""
        assert self._error is None, f"refused: {self._error}"
        assert self._events == events

    def refused(self, error: type[DomainError], saying: str) -> None:
        """A refusal of this very kind whose message contains `saying`, and no event."""
        assert not self._events
        if self._error is None:
            pytest.fail("the command was not refused")
        assert type(self._error) is error
        assert saying in str(self._error)


def given(empty: _A, *events: Event) -> Scenario[_A]:
    """Begin a specification."""
    return Scenario(empty, events)
