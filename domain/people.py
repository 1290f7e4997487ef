"""People under their names: WhatsApp's own number for someone (LID), linked to the phone once it is known.

Everything here speaks of keyed hashes (`TenantKey.pseudonym`), never of a number. `alias` is the hash of the LID,
`person` that of the phone, under which the person is known. A link stands in two streams, appended together: the LID's,
which says whose it is and is what read models follow, and the person's, which says by which LIDs somebody may have been
received before.
"""

from datetime import datetime
from typing import Self
from uuid import UUID

from msgspec.structs import replace

from domain.aggregate import Aggregate, Command, derived_id, with_zone
from domain.errors import Invalid
from domain.event import Event, event_type
from domain.limits import fitting
from domain.messages import MAX_SENDER


@event_type("people.LidLinked")
class LidLinked(Event, frozen=True, kw_only=True):
    """Whoever comes under this LID is this person. A later one, of somebody with a new number, counts from there on.

    `said_at` is when the message was sent whose delivery named both.
    """

    alias: str
    person: str
    said_at: datetime


@event_type("people.LidNoted")
class LidNoted(Event, frozen=True, kw_only=True):
    """The same from the person's side: messages of theirs may stand under that LID."""

    alias: str
    person: str


class LinkLid(Command, frozen=True, kw_only=True):
    """A delivery named both. `corrects`: it may change a link that says otherwise, if it is the newer one."""

    tenant_id: UUID
    alias: str
    person: str
    said_at: datetime
    corrects: bool = True


class NoteLid(Command, frozen=True, kw_only=True):
    """Remember the LID with the person."""

    tenant_id: UUID
    alias: str
    person: str


class Lid(Aggregate, frozen=True, kw_only=True):
    """Whose a LID is: `persons` are all that it was ever linked to, the one of now last."""

    persons: tuple[str, ...] = ()
    said_at: datetime | None = None
    linked_at: datetime | None = None

    @property
    def person(self) -> str | None:
        """Who it is now; None while that is not known."""
        return self.persons[-1] if self.persons else None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        if isinstance(event, LidLinked):
            before = tuple(person for person in self.persons if person != event.person)
            return replace(after, persons=(*before, event.person), said_at=event.said_at, linked_at=event.at)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`. An old message, from a history or a retry, never takes back a newer link."""
        if not isinstance(command, LinkLid):
            raise Invalid(f"a LID does not understand {type(command).__name__}")
        said_at = with_zone("said_at", command.said_at)
        if self.id != lid_id(command.tenant_id, fitting("alias", command.alias, MAX_SENDER, least=1)):
            raise Invalid("the id does not belong to that tenant and LID")
        fitting("person", command.person, MAX_SENDER, least=1)
        if command.person == command.alias:
            raise Invalid("a LID is linked to a number, not to itself")
        if self.said_at is not None and (
            command.person == self.person or not command.corrects or said_at <= self.said_at
        ):
            return ()
        return (
            self._event(
                LidLinked,
                command,
                command.tenant_id,
                alias=command.alias,
                person=command.person,
                said_at=said_at,
            ),
        )


class Person(Aggregate, frozen=True, kw_only=True):
    """By which LIDs a person was ever known, and when the last of them was learned."""

    aliases: tuple[str, ...] = ()
    noted_at: datetime | None = None

    def evolve(self, event: Event) -> Self:
        """See `Aggregate.evolve`."""
        after = super().evolve(event)
        if isinstance(event, LidNoted):
            return replace(after, aliases=(*self.aliases, event.alias), noted_at=event.at)
        return after

    def decide(self, command: Command) -> tuple[Event, ...]:
        """See `Aggregate.decide`."""
        if not isinstance(command, NoteLid):
            raise Invalid(f"a person does not understand {type(command).__name__}")
        if self.id != person_id(command.tenant_id, fitting("person", command.person, MAX_SENDER, least=1)):
            raise Invalid("the id does not belong to that tenant and person")
        fitting("alias", command.alias, MAX_SENDER, least=1)
        if command.alias in self.aliases:
            return ()
        return (self._event(LidNoted, command, command.tenant_id, alias=command.alias, person=command.person),)


def lid_id(tenant_id: UUID, alias: str) -> UUID:
    """The stream id of a LID, given its hash."""
    return derived_id("lid", tenant_id, alias)


def lid(tenant_id: UUID, alias: str) -> Lid:
    """A LID before anything is known of it."""
    return Lid(id=lid_id(tenant_id, alias))


def person_id(tenant_id: UUID, person: str) -> UUID:
    """The stream id of a person, given the hash of the phone."""
    return derived_id("person", tenant_id, person)


def person(tenant_id: UUID, identity: str) -> Person:
    """A person before any LID of theirs is known."""
    return Person(id=person_id(tenant_id, identity))
