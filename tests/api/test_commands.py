"""The command bus: load, decide, append; and again where somebody else was faster."""

import threading
from uuid import UUID, uuid4

import msgspec
import pytest

from adapters.event_store import Appended, EventLog, standing
from adapters.settings import Settings
from api.commands import CommandBus, Contended, Done, Intent, Moved, Step
from api.wiring import WriteSide, write_side
from domain import authn, tenancy
from domain.aggregate import Command
from domain.errors import AlreadyExists, DomainError, Invalid, NotFound
from domain.event import Event
from tests.support.spec import NOW, fact


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    """A registered tenant."""
    tenant_id = uuid4()
    write.vault.create(tenant_id)
    write.commands.handle(tenancy.tenant(tenant_id), tenancy.RegisterTenant(at=NOW, name="Loja"), new=True)
    return tenant_id


def rename(tenant_id: UUID, name: str, *, new: bool = False) -> Intent:
    return Intent((Step(tenancy.tenant(tenant_id), (tenancy.RenameTenant(at=NOW, name=name),)),), new)


def register(tenant_id: UUID, *, new: bool = True) -> Intent:
    return Intent((Step(tenancy.tenant(tenant_id), (tenancy.RegisterTenant(at=NOW, name="Loja"),)),), new)


def test_a_command_becomes_events_with_positions(write: WriteSide, tenant_id: UUID) -> None:
    done = write.commands.handle(
        tenancy.tenant(tenant_id),
        tenancy.RenameTenant(at=NOW, name="Nova"),
        tenancy.SuspendTenant(at=NOW, reason="atraso"),
    )
    assert len(done.positions) == 2
    assert done.position == done.positions[-1] == write.log.head()
    assert not done.duplicate
    state = write.log.load(tenancy.tenant(tenant_id))
    assert (state.name, state.status, state.version) == ("Nova", "suspended", 3)


def test_what_is_so_already_is_a_duplicate_with_the_position_to_wait_for(write: WriteSide, tenant_id: UUID) -> None:
    first = write.commands.handle(tenancy.tenant(tenant_id), tenancy.RenameTenant(at=NOW, name="Nova"))
    again = write.commands.handle(tenancy.tenant(tenant_id), tenancy.RenameTenant(at=NOW, name="Nova"))
    assert again.duplicate
    assert again.position == first.position
    assert write.log.head() == first.position


def test_a_refusal_is_raised_and_records_nothing(write: WriteSide) -> None:
    head, stranger = write.log.head(), uuid4()
    with pytest.raises(NotFound):
        write.commands.handle(tenancy.tenant(stranger), tenancy.ReactivateTenant(at=NOW))
    assert write.log.head() == head


def test_the_steps_of_an_intent_succeed_together_or_not_at_all(write: WriteSide, tenant_id: UUID) -> None:
    user = authn.user(authn.user_id(f"u{uuid4().hex}"))
    renaming = Step(tenancy.tenant(tenant_id), (tenancy.RenameTenant(at=NOW, name="Outra"),))
    outcome = write.commands.handle_many([Intent((renaming, Step(user, (authn.RecordLogin(at=NOW),))))])[0]
    assert isinstance(outcome, NotFound)
    assert write.log.load(tenancy.tenant(tenant_id)).name == "Loja"


def test_a_later_step_sees_what_an_earlier_one_did_to_the_same_aggregate(write: WriteSide, tenant_id: UUID) -> None:
    empty = tenancy.tenant(tenant_id)
    suspend, reactivate = tenancy.SuspendTenant(at=NOW, reason="x"), tenancy.ReactivateTenant(at=NOW)
    outcome = write.commands.handle_many([Intent((Step(empty, (suspend,)), Step(empty, (reactivate,))))])[0]
    assert not isinstance(outcome, DomainError)
    assert len(outcome.positions) == 2
    assert write.log.load(empty).status == "active"


def test_each_intent_has_its_own_outcome(write: WriteSide, tenant_id: UUID) -> None:
    fresh, stranger = uuid4(), uuid4()
    write.vault.create(fresh)
    outcomes = write.commands.handle_many(
        [
            rename(tenant_id, "Loja"),
            rename(stranger, "X"),
            register(fresh),
            rename(tenant_id, ""),
            register(tenant_id),
            rename(tenant_id, "Nova"),
        ]
    )
    kinds = [type(o).__name__ if isinstance(o, DomainError) else len(o.positions) for o in outcomes]
    assert kinds == [0, "NotFound", 1, "Invalid", "AlreadyExists", 1]
    assert isinstance(outcomes[4], AlreadyExists)
    assert isinstance(outcomes[3], Invalid)


def test_a_thing_thought_new_that_exists_is_decided_on_what_is_there(write: WriteSide, tenant_id: UUID) -> None:
    with pytest.raises(AlreadyExists):
        write.commands.handle(tenancy.tenant(tenant_id), tenancy.RegisterTenant(at=NOW, name="Loja"), new=True)


def test_many_of_one_call_may_concern_the_same_stream(write: WriteSide, tenant_id: UUID) -> None:
    """More of them than there are tries: they come through one by one, and that is no contention."""
    outcomes = write.commands.handle_many([rename(tenant_id, f"Nome {n}") for n in range(20)])
    assert all(not isinstance(o, DomainError) and len(o.positions) == 1 for o in outcomes)
    state = write.log.load(tenancy.tenant(tenant_id))
    assert (state.version, state.name) == (21, "Nome 19")


def test_the_same_new_thing_twice_in_a_call_is_recorded_once(write: WriteSide) -> None:
    fresh = uuid4()
    write.vault.create(fresh)
    first, second = write.commands.handle_many([register(fresh), register(fresh)])
    assert not isinstance(first, DomainError)
    assert isinstance(second, AlreadyExists)
    assert len(write.log.history(fresh)) == 1


def test_of_two_writers_one_wins_and_the_other_decides_again(settings: Settings, tenant_id: UUID) -> None:
    """Every thread renames to names of its own, many times: all of it lands, without gap or double."""
    threads, each = 5, 12
    errors: list[BaseException] = []

    def work(number: int) -> None:
        side = write_side(settings)
        try:
            for turn in range(each):
                name = f"{number}.{turn}"
                while True:
                    try:
                        side.commands.handle(tenancy.tenant(tenant_id), tenancy.RenameTenant(at=NOW, name=name))
                    except Contended:
                        continue
                    break
        except BaseException as error:
            errors.append(error)
        finally:
            side.close()

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)
        assert not worker.is_alive()
    assert not errors
    side = write_side(settings)
    events = [recorded.event for recorded in side.log.history(tenant_id)]
    side.close()
    assert [event.originator_version for event in events] == list(range(1, threads * each + 2))
    names = [event.name for event in events if isinstance(event, tenancy.TenantRenamed)]
    assert sorted(names) == sorted(f"{number}.{turn}" for number in range(threads) for turn in range(each))


class Rival(EventLog):
    """A log in which somebody else is always a little faster, so often."""

    def __init__(self, side: WriteSide, tenant_id: UUID, times: int) -> None:
        super().__init__(side.log._recorder, side.log._mapper)
        self._tenant_id = tenant_id
        self.left = times

    def append(self, units, conditions=()):  # type: ignore[no-untyped-def]
        """Somebody else's event first."""
        if self.left:
            self.left -= 1
            version = self.load(tenancy.tenant(self._tenant_id)).version + 1
            event: Event = fact(
                tenancy.TenantRenamed, self._tenant_id, version, tenant_id=self._tenant_id, name=f"rival {version}"
            )
            assert isinstance(super().append([[event]])[0], Appended)
        return super().append(units, conditions)


@pytest.mark.parametrize(("times", "succeeds"), [(1, True), (7, True), (8, False), (100, False)])
def test_it_decides_again_but_not_for_ever(write: WriteSide, tenant_id: UUID, times: int, succeeds: bool) -> None:
    rival = Rival(write, tenant_id, times)
    command: Command = tenancy.RenameTenant(at=NOW, name="Minha")
    bus = CommandBus(rival)
    if succeeds:
        assert bus.handle(tenancy.tenant(tenant_id), command).positions
        assert write.log.load(tenancy.tenant(tenant_id)).name == "Minha"
    else:
        with pytest.raises(Contended, match="try again"):
            bus.handle(tenancy.tenant(tenant_id), command)
        assert "Minha" not in [getattr(r.event, "name", "") for r in write.log.history(tenant_id)]


def test_a_decision_on_newer_state_may_become_a_duplicate(write: WriteSide, tenant_id: UUID) -> None:
    rival = Rival(write, tenant_id, 1)
    done = CommandBus(rival).handle(tenancy.tenant(tenant_id), tenancy.RenameTenant(at=NOW, name="rival 2"))
    assert done.duplicate
    assert done.position == write.log.head()


def test_the_position_of_a_duplicate_is_that_of_its_latest_stream(write: WriteSide, tenant_id: UUID) -> None:
    other = uuid4()
    write.vault.create(other)
    later = write.commands.handle_many([register(other)])[0]
    assert not isinstance(later, DomainError)
    steps = tuple(Step(tenancy.tenant(one), (tenancy.RenameTenant(at=NOW, name="Loja"),)) for one in (tenant_id, other))
    done = write.commands.handle_many([Intent(steps)])[0]
    assert not isinstance(done, DomainError)
    assert done.duplicate
    assert done.position == later.position


def test_a_condition_that_no_longer_holds_is_told_apart_from_a_stream_that_moved(
    write: WriteSide, tenant_id: UUID
) -> None:
    version = write.log.load(tenancy.tenant(tenant_id)).version
    other = uuid4()
    write.vault.create(other)
    held, late = (standing(tenant_id, v, tenant_id, strict=False) for v in (version, version + 1))
    moved, refused, done = write.commands.handle_many(
        [
            msgspec.structs.replace(register(other), conditions=(late,)),
            msgspec.structs.replace(register(tenant_id), conditions=(standing(uuid4(), 0, tenant_id, strict=False),)),
            msgspec.structs.replace(register(other), conditions=(held,)),
        ]
    )
    assert isinstance(moved, Moved)
    assert isinstance(refused, AlreadyExists)
    assert isinstance(done, Done)
    assert len(done.positions) == 1


def test_nothing_asked_is_nothing_done(write: WriteSide) -> None:
    head = write.log.head()
    assert write.commands.handle_many([]) == []
    assert write.log.head() == head
