"""What LIDs and persons do with their commands."""

from datetime import timedelta

import pytest

from domain.errors import Invalid
from domain.people import LidLinked, LidNoted, LinkLid, NoteLid, lid, person
from domain.tenancy import ReactivateTenant
from tests.support.spec import NOW, TENANT, fact, given

ALIAS, RAFAEL, NEW_NUMBER = "1a" * 32, "2b" * 32, "3c" * 32
EMPTY = lid(TENANT, ALIAS)
NOBODY = person(TENANT, RAFAEL)
LINKED = fact(LidLinked, EMPTY, alias=ALIAS, person=RAFAEL, said_at=NOW)
NOTED = fact(LidNoted, NOBODY, alias=ALIAS, person=RAFAEL)


def link(**fields: object) -> LinkLid:
    usual = {"tenant_id": TENANT, "alias": ALIAS, "person": RAFAEL, "said_at": NOW}
    return LinkLid(at=NOW, **{**usual, **fields})  # type: ignore[arg-type]


def note(**fields: object) -> NoteLid:
    return NoteLid(at=NOW, **{"tenant_id": TENANT, "alias": ALIAS, "person": RAFAEL, **fields})  # type: ignore[arg-type]


def test_a_lid_is_linked_to_a_person() -> None:
    given(EMPTY).when(link()).then(LINKED)
    assert given(EMPTY).state.person is None
    assert given(EMPTY, LINKED).state.person == RAFAEL
    assert given(EMPTY, LINKED).state.linked_at == NOW


@pytest.mark.parametrize("later", [-1, 0, 1])
def test_once(later: int) -> None:
    given(EMPTY, LINKED).when(link(said_at=NOW + timedelta(days=later))).then()


def test_who_does_not_correct_may_link_what_nobody_has_linked() -> None:
    given(EMPTY).when(link(corrects=False)).then(LINKED)


def test_a_new_number_counts_from_there_on() -> None:
    later = NOW + timedelta(seconds=1)
    moved = fact(LidLinked, EMPTY, 2, alias=ALIAS, person=NEW_NUMBER, said_at=later)
    given(EMPTY, LINKED).when(link(person=NEW_NUMBER, said_at=later)).then(moved)
    state = given(EMPTY, LINKED, moved).state
    assert (state.person, state.persons, state.said_at) == (NEW_NUMBER, (RAFAEL, NEW_NUMBER), later)
    back = fact(LidLinked, EMPTY, 3, alias=ALIAS, person=RAFAEL, said_at=later)
    assert given(EMPTY, LINKED, moved, back).state.persons == (NEW_NUMBER, RAFAEL)


@pytest.mark.parametrize("older", [0, 1])
def test_an_older_message_takes_nothing_back(older: int) -> None:
    given(EMPTY, LINKED).when(link(person=NEW_NUMBER, said_at=NOW - timedelta(days=older))).then()


def test_who_does_not_correct_changes_nothing() -> None:
    later = NOW + timedelta(days=1)
    given(EMPTY, LINKED).when(link(person=NEW_NUMBER, said_at=later, corrects=False)).then()


def test_what_can_not_be_linked() -> None:
    given(EMPTY).when(link(person=ALIAS)).refused(Invalid, "not to itself")
    given(EMPTY).when(link(alias=NEW_NUMBER)).refused(Invalid, "does not belong")
    given(EMPTY).when(link(tenant_id=EMPTY.id)).refused(Invalid, "does not belong")
    given(EMPTY).when(link(person="")).refused(Invalid, "person has 1 to 64")
    given(EMPTY).when(link(person="x" * 65)).refused(Invalid, "person has 1 to 64")
    given(EMPTY).when(link(said_at=NOW.replace(tzinfo=None))).refused(Invalid, "said_at is a time without a zone")
    given(EMPTY).when(ReactivateTenant(at=NOW)).refused(Invalid, "does not understand ReactivateTenant")


def test_a_person_remembers_each_lid_once() -> None:
    given(NOBODY).when(note()).then(NOTED)
    given(NOBODY, NOTED).when(note()).then()
    another = fact(LidNoted, NOBODY, 2, alias=NEW_NUMBER, person=RAFAEL)
    given(NOBODY, NOTED).when(note(alias=NEW_NUMBER)).then(another)
    assert given(NOBODY, NOTED, another).state.aliases == (ALIAS, NEW_NUMBER)


def test_what_a_person_does_not_remember() -> None:
    given(NOBODY).when(note(person=ALIAS)).refused(Invalid, "does not belong")
    given(NOBODY).when(note(alias="")).refused(Invalid, "alias has 1 to 64")
    given(NOBODY).when(ReactivateTenant(at=NOW)).refused(Invalid, "does not understand ReactivateTenant")


def test_lids_and_persons_of_two_tenants_are_different_streams() -> None:
    assert len({EMPTY.id, NOBODY.id, lid(EMPTY.id, ALIAS).id, person(TENANT, ALIAS).id}) == 4
