"""How a command becomes events: load, decide, append; and again where somebody else was faster.

Every door goes through here. The calls block on the database: coroutines use `asyncio.to_thread`.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from adapters.event_store import Appended, EventLog
from domain.aggregate import Aggregate, Command
from domain.errors import DomainError
from domain.event import Event

#: How often in a row all that is left may be outrun by others, before it is given up.
_TRIES: Final = 8


class Contended(Exception):
    """The stream kept moving under the command; nothing was changed, and a later try may succeed."""


class Step(msgspec.Struct, frozen=True):
    """Commands to one aggregate, in order; `empty` names it."""

    empty: Aggregate
    commands: tuple[Command, ...]


class Intent(msgspec.Struct, frozen=True):
    """Steps that succeed together or not at all.

    `new` says that the aggregates are expected not to exist yet, which saves loading them; if one does, the intent is
    decided once more on what is there.
    """

    steps: tuple[Step, ...]
    new: bool = False


class Done(msgspec.Struct, frozen=True):
    """The outcome: the log's position from which on the outcome can be seen, and the position of each new event.

    No new event means that everything was so already: the command is a duplicate.
    """

    position: int
    positions: tuple[int, ...] = ()

    @property
    def duplicate(self) -> bool:
        """Whether nothing had to be recorded."""
        return not self.positions


Outcome = Done | DomainError


class CommandBus:
    """Carries commands to aggregates and their events to the log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def handle(self, empty: Aggregate, *commands: Command, new: bool = False) -> Done:
        """Carry out commands to one aggregate. Raises `DomainError` where they are refused, `Contended`."""
        outcome = self.handle_many([Intent((Step(empty, commands),), new)])[0]
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    def handle_many(self, intents: Sequence[Intent]) -> list[Outcome]:
        """Carry out many intents with few transactions; one outcome each, in order.

        A refusal or conflict concerns its own intent alone. Raises `Contended` where one finds no quiet moment.
        """
        outcomes: dict[int, Outcome] = {}
        open_: dict[int, Intent] = dict(enumerate(intents))
        first, in_vain = True, 0
        while open_:
            before = len(open_)
            units: dict[int, tuple[Event, ...]] = {}
            for place, decided in self._decide(open_, trust_new=first).items():
                if isinstance(decided, DomainError):
                    outcomes[place] = decided
                elif decided:
                    units[place] = decided
                else:
                    streams = {step.empty.id for step in open_[place].steps}
                    outcomes[place] = Done(max(map(self._log.last_position_of, streams), default=0))
            if units:
                for place, appended in zip(units, self._log.append(list(units.values())), strict=True):
                    if isinstance(appended, Appended):
                        outcomes[place] = Done(appended.positions[-1], appended.positions)
            open_ = {place: intent for place, intent in open_.items() if place not in outcomes}
            # Intents of one call that concern the same stream come through one by one: that is no contention.
            first, in_vain = False, in_vain + 1 if len(open_) == before else 0
            if in_vain == _TRIES:
                raise Contended("the same thing is being changed by many at once: try again")
        return [outcomes[place] for place in range(len(intents))]

    def _decide(self, intents: dict[int, Intent], *, trust_new: bool) -> dict[int, tuple[Event, ...] | DomainError]:
        wanted = {
            step.empty.id: step.empty
            for intent in intents.values()
            if not (trust_new and intent.new)
            for step in intent.steps
        }
        states = {state.id: state for state in self._log.load_many(list(wanted.values()))} if wanted else {}
        decided: dict[int, tuple[Event, ...] | DomainError] = {}
        for place, intent in intents.items():
            events: list[Event] = []
            current: dict[UUID, Aggregate] = {}  # a later step may concern the aggregate of an earlier one
            try:
                for step in intent.steps:
                    state = current.get(step.empty.id) or states.get(step.empty.id, step.empty)
                    for command in step.commands:
                        new = state.decide(command)
                        state = state.replay(new)
                        events.extend(new)
                    current[step.empty.id] = state
            except DomainError as error:
                decided[place] = error
            else:
                decided[place] = tuple(events)
        return decided
