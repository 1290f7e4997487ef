"""How a command becomes events: load, decide, append; and again where somebody else was faster.

Every door goes through here. The calls block on the database: coroutines use `asyncio.to_thread`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast
from uuid import UUID

import msgspec

from adapters.event_store import Appended, EventLog, Standing
from domain.aggregate import Aggregate, Command
from domain.errors import DomainError
from domain.event import Event
from domain.receipts import CarryOut, CommandCarriedOut, Receipt, receipt

#: How often in a row all that is left may be outrun by others, before it is given up.
_TRIES: Final = 8


class Contended(Exception):
    """The stream kept moving under the command; nothing was changed, and a later try may succeed."""


class Moved(DomainError):
    """A condition of the intent is no longer so: nothing was changed, and whoever set it has to decide anew."""


class Step(msgspec.Struct, frozen=True):
    """Commands to one aggregate, in order; `empty` names it.

    `follows`: only where the steps before it lead to something.
    """

    empty: Aggregate
    commands: tuple[Command, ...]
    follows: bool = False


class Key(msgspec.Struct, frozen=True):
    """An idempotency key that came with a command: of which tenant, its receipt's stream, and the command's hash."""

    tenant_id: UUID
    receipt_id: UUID
    fingerprint: str
    at: datetime


class Intent(msgspec.Struct, frozen=True):
    """Steps that succeed together or not at all.

    `new` says that the aggregates are expected not to exist yet, which saves loading them; if one does, the intent is
    decided once more on what is there. With a `key` the outcome is recorded along with the events, and is the outcome
    of every later intent with that key. The `conditions` hold at the append, or the outcome is `Moved`.
    """

    steps: tuple[Step, ...]
    new: bool = False
    key: Key | None = None
    conditions: tuple[Standing, ...] = ()


class Done(msgspec.Struct, frozen=True):
    """The outcome: the log's position from which on the outcome can be seen, and the position of each of its events.

    `duplicate` says that nothing had to be recorded. The positions are then those of the first time where the command
    creates something or came with a key, and none where it found everything as it wished.
    """

    position: int
    positions: tuple[int, ...] = ()
    duplicate: bool = False


Outcome = Done | DomainError


class CommandBus:
    """Carries commands to aggregates and their events to the log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def handle(self, empty: Aggregate, *commands: Command, new: bool = False, key: Key | None = None) -> Done:
        """Carry out commands to one aggregate. Raises `DomainError` where they are refused, `Contended`."""
        outcome = self.handle_many([Intent((Step(empty, commands),), new, key)])[0]
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
            states = self._load(open_, trust_new=first)
            units: dict[int, tuple[Event, ...]] = {}
            found_so: dict[int, Intent] = {}
            for place, intent in open_.items():
                decided = self._decide(intent, states)
                if isinstance(decided, (Done, DomainError)):
                    outcomes[place] = decided
                elif decided:
                    units[place] = decided
                else:
                    found_so[place] = intent
            outcomes.update(self._found_so(found_so))
            if units:
                conditions = [open_[place].conditions for place in units]
                for place, appended in zip(units, self._log.append(list(units.values()), conditions), strict=True):
                    if isinstance(appended, Appended):
                        outcomes[place] = _done(units[place], appended)
                    elif any(one.originator_id == appended.stream_id for one in open_[place].conditions):
                        outcomes[place] = Moved("what this was decided on has changed: decide anew")
            open_ = {place: intent for place, intent in open_.items() if place not in outcomes}
            # Intents of one call that concern the same stream come through one by one: that is no contention.
            first, in_vain = False, in_vain + 1 if len(open_) == before else 0
            if in_vain == _TRIES:
                raise Contended("the same thing is being changed by many at once: try again")
        return [outcomes[place] for place in range(len(intents))]

    def _load(self, intents: dict[int, Intent], *, trust_new: bool) -> dict[UUID, Aggregate]:
        wanted: dict[UUID, Aggregate] = {
            step.empty.id: step.empty
            for intent in intents.values()
            if not (trust_new and intent.new)
            for step in intent.steps
        }
        # A key is looked up every time: what it stands for may long have been done.
        wanted.update({i.key.receipt_id: receipt(i.key.receipt_id) for i in intents.values() if i.key})
        return {state.id: state for state in self._log.load_many(list(wanted.values()))} if wanted else {}

    def _decide(self, intent: Intent, states: dict[UUID, Aggregate]) -> tuple[Event, ...] | Done | DomainError:
        events: list[Event] = []
        current: dict[UUID, Aggregate] = {}  # a later step may concern the aggregate of an earlier one
        try:
            if intent.key is not None and (known := states[intent.key.receipt_id]).exists:
                return self._replayed(intent.key, cast(Receipt, known))
            for step in intent.steps:
                if step.follows and not events:
                    continue
                state = current.get(step.empty.id) or states.get(step.empty.id, step.empty)
                for command in step.commands:
                    new = state.decide(command)
                    state = state.replay(new)
                    events.extend(new)
                current[step.empty.id] = state
            if intent.key is not None:
                reached = 0 if events else self._reached(intent).position
                events.extend(receipt(intent.key.receipt_id).decide(_carry_out(intent.key, len(events), reached)))
        except DomainError as error:
            return error
        return tuple(events)

    def _replayed(self, key: Key, known: Receipt) -> Done:
        """The outcome of the first time. Raises `KeyReused` where the key came with another command then."""
        known.decide(_carry_out(key, 0, 0))
        if not known.events:
            return Done(known.reached, (), duplicate=True)
        positions = known.positions(self._log.last_position_of(known.id))
        return Done(positions[-1], positions, duplicate=True)

    def _reached(self, intent: Intent) -> Done:
        return cast(Done, self._found_so({0: intent})[0])

    def _found_so(self, intents: dict[int, Intent]) -> dict[int, Outcome]:
        """Outcomes of intents that found everything as they wish, with two questions to the log at the most."""
        if not intents:
            return {}
        streams = {place: [step.empty.id for step in intent.steps] for place, intent in intents.items()}
        created = {stream for place, intent in intents.items() if intent.new for stream in streams[place]}
        changed = {stream for place, intent in intents.items() if not intent.new for stream in streams[place]}
        births = self._log.births(created) if created else {}
        last = self._log.last_positions(changed) if changed else {}
        outcomes: dict[int, Outcome] = {}
        for place, intent in intents.items():
            if intent.new:
                positions = tuple(sorted(births[stream] for stream in streams[place] if stream in births))
                outcomes[place] = Done(max(positions, default=0), positions, duplicate=True)
            else:
                position = max((last.get(stream, 0) for stream in streams[place]), default=0)
                outcomes[place] = Done(position, (), duplicate=True)
        return outcomes


def _done(events: Sequence[Event], appended: Appended) -> Done:
    """The outcome of what was appended; a receipt, which comes last, is nobody's concern but ours."""
    last = events[-1]
    if not isinstance(last, CommandCarriedOut):
        return Done(appended.positions[-1], appended.positions)
    own = appended.positions[:-1]
    return Done(own[-1], own) if own else Done(last.reached, (), duplicate=True)


def _carry_out(key: Key, events: int, reached: int) -> CarryOut:
    return CarryOut(at=key.at, tenant_id=key.tenant_id, fingerprint=key.fingerprint, events=events, reached=reached)
