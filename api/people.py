"""One person, one hash: messages are recorded under the phone of whoever the delivery names, also by LID alone.

And once, whichever names the deliveries of a message give. The stream of a 1:1 message is named by its chat, so the
same message may have been received under another name of the same person: the log is asked for those streams. What
keeps the answer right is in docs/adr/0033.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from adapters.event_store import EventLog, Standing, standing
from api.commands import CommandBus, Contended, Done, Intent, Moved, Outcome, Step
from domain.aggregate import Aggregate
from domain.messages import MessageReceived, ReceiveMessage, message, message_id
from domain.people import Lid, LinkLid, NoteLid, Person, lid, lid_id, person, person_id

#: A message that was sent so long after a link was learned can't have been received before it: timestamps are taken up
#: to 24 hours ahead of our clock (`adapters.evolution`), and the rest is for clocks that differ and appends that wait.
SETTLED_AFTER: Final = timedelta(hours=48)
#: How often links may be learned under our hands before it is given up.
_TRIES: Final = 8

_A = TypeVar("_A", bound=Aggregate)


class Named(msgspec.Struct, frozen=True):
    """How a delivery names somebody: keyed hashes of LID and phone, at least one of them."""

    alias: str | None
    person: str | None


class Reception(msgspec.Struct, frozen=True):
    """A message to be recorded, under the names that its delivery gave.

    `chat` is the other side of a 1:1 chat, None in a group; `author` the customer who wrote it, None for the company.
    `command` has the phone's hash for each of them, or the LID's where the delivery gave no phone.
    """

    command: ReceiveMessage
    chat: Named | None
    author: Named | None

    @property
    def stream(self) -> UUID:
        """The message's stream where it is recorded under the names that it came with."""
        return _stream(self.command)

    @property
    def with_lid(self) -> bool:
        """Whether somebody in it comes with a LID."""
        return any(named is not None and named.alias is not None for named in (self.chat, self.author))

    @property
    def conditions(self) -> tuple[Standing, ...]:
        """Without a LID in it, it may be recorded as it is if these hold at the append; otherwise `People` has to."""
        if self.chat is None or self.chat.person is None:
            return ()
        tenant_id = self.command.tenant_id
        return (standing(person_id(tenant_id, self.chat.person), 0, tenant_id, strict=False),)


def reception_of(event: MessageReceived) -> Reception:
    """The message that came without a LID and was about to be recorded by this event."""
    fields = {name: getattr(event, name) for name in ReceiveMessage.__struct_fields__}
    chat = None if event.is_group else Named(None, event.chat_id)
    return Reception(ReceiveMessage(**fields), chat, None if event.from_me else chat)


class _Plan(msgspec.Struct, frozen=True):
    """What a message is recorded as, the streams in which it may be already, and what must still hold."""

    command: ReceiveMessage
    elsewhere: tuple[UUID, ...] = ()
    conditions: tuple[Standing, ...] = ()

    @property
    def intent(self) -> Intent:
        return Intent((Step(message(_stream(self.command)), (self.command,)),), new=True, conditions=self.conditions)


class _Memory:
    """What was learned lately, bounded. Safe to share between threads."""

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._known: OrderedDict[UUID, Aggregate] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, empty: _A) -> _A:
        with self._lock:
            known = self._known.get(empty.id)
            if known is None:
                return empty
            self._known.move_to_end(empty.id)
        assert isinstance(known, type(empty))  # noqa: S101 - ids are derived from the kind, too
        return known

    def learn(self, states: Iterable[Aggregate]) -> None:
        with self._lock:
            for state in states:
                if state.exists:
                    self._known[state.id] = state
                    self._known.move_to_end(state.id)
            while len(self._known) > self._remember:
                self._known.popitem(last=False)


class People:
    """Records messages under the person's hash, and learns who is who. Safe to share; blocks on the database."""

    def __init__(self, log: EventLog, commands: CommandBus, *, remember: int = 50_000) -> None:
        self._log = log
        self._commands = commands
        self._memory = _Memory(remember)

    def receive(self, receptions: Sequence[Reception]) -> list[Outcome]:
        """Record the messages of a delivery, of one tenant, and the links that it names; one outcome each, in order.

        Messages whose people are known cost no question beside the append. Raises `Contended`, and what the log raises.
        """
        outcomes: dict[int, Outcome] = {}
        open_ = dict(enumerate(receptions))
        for attempt in range(_TRIES):
            if not open_:
                break
            known = self._known(list(open_.values()), afresh=attempt > 0)
            plans = {place: _plan(reception, known) for place, reception in open_.items()}
            sought = {stream for plan in plans.values() for stream in plan.elsewhere}
            births = self._log.births(sought) if sought else {}
            for place, plan in plans.items():
                if found := [births[stream] for stream in plan.elsewhere if stream in births]:
                    outcomes[place] = Done(min(found), (min(found),), duplicate=True)
            rest = {place: plan for place, plan in plans.items() if place not in outcomes}
            done = self._commands.handle_many([plan.intent for plan in rest.values()]) if rest else []
            outcomes.update((p, o) for p, o in zip(rest, done, strict=True) if not isinstance(o, Moved))
            open_ = {place: reception for place, reception in open_.items() if place not in outcomes}
        if open_:
            raise Contended("links between LIDs and phones are being learned all the time: try again")
        return [outcomes[place] for place in range(len(receptions))]

    def _known(self, receptions: Sequence[Reception], *, afresh: bool) -> Mapping[UUID, Aggregate]:
        """All LIDs and persons of these messages as they are known, after the links in the deliveries were recorded."""
        states: dict[UUID, Aggregate] = {}
        unsure: dict[UUID, Aggregate] = {}
        for reception, named in _names(receptions):
            tenant_id = reception.command.tenant_id
            if named.alias is not None:
                lid_ = self._memory.recall(lid(tenant_id, named.alias))
                states[lid_.id] = lid_
                # A LID alone is looked up each time: somebody may have a new number. With the phone it is certain.
                if named.person is None or lid_.person != named.person:
                    unsure[lid_.id] = lid(tenant_id, named.alias)
            elif named.person is not None and reception.chat is named:
                person_ = self._memory.recall(person(tenant_id, named.person))
                states[person_.id] = person_
                if afresh:
                    unsure[person_.id] = person(tenant_id, named.person)
        states.update(self._look_up(unsure.values()))
        links = _links(receptions, states)
        if links:
            self._commands.handle_many(links)
            changed = {step.empty.id: step.empty for link in links for step in link.steps}
            states.update(self._look_up(changed.values()))
        return states

    def _look_up(self, empties: Iterable[Aggregate]) -> dict[UUID, Aggregate]:
        wanted = list(empties)
        found = self._log.load_many(wanted) if wanted else []
        self._memory.learn(found)
        return {state.id: state for state in found}


def _names(receptions: Iterable[Reception]) -> Iterable[tuple[Reception, Named]]:
    for reception in receptions:
        if reception.chat is not None:
            yield reception, reception.chat
        elif reception.author is not None:
            yield reception, reception.author


def _links(receptions: Iterable[Reception], states: Mapping[UUID, Aggregate]) -> list[Intent]:
    """Intents for the links that the deliveries name and the log lacks, oldest message first."""
    links: dict[tuple[str, str], Intent] = {}
    for reception, named in sorted(_names(receptions), key=lambda one: one[0].command.sent_at):
        received = reception.command
        tenant_id, alias, phone = received.tenant_id, named.alias, named.person
        if alias is None or phone is None:
            continue
        # What the company wrote may name its own number where the customer's belongs (older servers, EVOLUTION.md).
        link = LinkLid(
            at=received.at,
            tenant_id=tenant_id,
            alias=alias,
            person=phone,
            said_at=received.sent_at,
            corrects=not received.from_me,
        )
        if states[lid_id(tenant_id, alias)].decide(link):
            note = NoteLid(at=received.at, tenant_id=tenant_id, alias=alias, person=phone)
            links.setdefault(
                (alias, phone),
                Intent((Step(lid(tenant_id, alias), (link,)), Step(person(tenant_id, phone), (note,)))),
            )
    return list(links.values())


def _plan(reception: Reception, known: Mapping[UUID, Aggregate]) -> _Plan:
    received, tenant_id = reception.command, reception.command.tenant_id
    if reception.chat is None:
        # The stream of a group's message is named by the group: whoever wrote it, it is the same.
        author = reception.author
        if author is None or author.alias is None:
            return _Plan(received)
        who = known[lid_id(tenant_id, author.alias)]
        assert isinstance(who, Lid)  # noqa: S101 - by its id
        return _Plan(msgspec.structs.replace(received, sender=author.person or who.person or author.alias))
    here, others, learned_at, conditions = _chat(reception.chat, received, known)
    sender = received.sender if reception.author is None else here
    command = msgspec.structs.replace(received, chat_id=here, sender=sender)
    if learned_at is not None and received.sent_at > learned_at + SETTLED_AFTER:
        return _Plan(command, (), conditions)
    elsewhere = tuple(_stream(received, chat) for chat in others if chat != here)
    return _Plan(command, elsewhere, conditions)


def _chat(
    chat: Named, received: ReceiveMessage, known: Mapping[UUID, Aggregate]
) -> tuple[str, Sequence[str], datetime | None, tuple[Standing, ...]]:
    """The hash to record under, all others that the person has or had, when the last was learned, and conditions."""
    tenant_id = received.tenant_id
    if chat.alias is None:
        assert chat.person is not None  # noqa: S101 - a name is one or the other
        whom = known[person_id(tenant_id, chat.person)]
        assert isinstance(whom, Person)  # noqa: S101 - by its id
        # Not strict, so that it costs nothing: at the very moment at which the link is learned, the message could as
        # well have come before it.
        return chat.person, whom.aliases, whom.noted_at, (standing(whom.id, whom.version, tenant_id, strict=False),)
    who = known[lid_id(tenant_id, chat.alias)]
    assert isinstance(who, Lid)  # noqa: S101 - by its id
    if who.person is None:
        # Strict: once a link is in the log, nothing is recorded under the LID, and who looks there has seen it all.
        return chat.alias, (), None, (standing(who.id, 0, tenant_id, strict=True),)
    told = who.person if received.from_me else chat.person or who.person
    return told, (chat.alias, *who.persons), who.linked_at, ()


def _stream(received: ReceiveMessage, chat_id: str | None = None) -> UUID:
    chat = received.chat_id if chat_id is None else chat_id
    return message_id(received.connection_id, chat, received.from_me, received.external_id)
