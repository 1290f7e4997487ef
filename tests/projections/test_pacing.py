"""How many events a batch takes: whatever is there under light load, more or fewer under heavy load."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from eventsourcing.persistence import Notification

from adapters.embedded import PostgresServer
from projections import engine as engine_module
from projections.pacing import BYTES, QUICK_S, SLOW_S, Pace
from tests.support.engine_process import engine_of
from tests.support.projectors import System, a_system, running
from tests.support.systems import administrator, contents, wait_for


def events(number: int, *, size: int = 100) -> list[Notification]:
    """Sealed events of so many bytes each."""
    return [
        Notification(originator_id=UUID(int=1), originator_version=1, topic="t", state=bytes(size), id=position)
        for position in range(1, number + 1)
    ]


def test_it_begins_with_what_it_is_given_and_never_takes_more_than_the_most() -> None:
    assert Pace(5000, 1000).size == 1000
    assert Pace(4, 1000).size == 4


def test_full_batches_that_are_quickly_done_are_followed_by_bigger_ones() -> None:
    pace = Pace(5000, 1000)
    sizes = []
    for _ in range(4):
        pace.took(events(pace.size), QUICK_S / 2)
        sizes.append(pace.size)
    assert sizes == [2000, 4000, 5000, 5000]


@pytest.mark.parametrize(("number", "seconds"), [(999, QUICK_S / 2), (0, 0.0), (1000, (QUICK_S + SLOW_S) / 2)])
def test_what_was_not_full_or_not_quick_changes_nothing(number: int, seconds: float) -> None:
    pace = Pace(5000, 1000)
    pace.took(events(number), seconds)
    assert pace.size == 1000


def test_a_slow_batch_is_followed_by_one_of_half_its_size_but_not_by_ever_smaller_ones() -> None:
    pace = Pace(5000, 5000)
    pace.took(events(3000), 2 * SLOW_S)
    assert pace.size == 1500
    for _ in range(20):
        pace.took(events(pace.size), 2 * SLOW_S)
    assert pace.size == 50
    for _ in range(20):
        pace.took(events(pace.size), QUICK_S / 2)
    assert pace.size == 5000, "it recovers"


def test_a_slow_batch_does_not_make_a_small_bound_bigger() -> None:
    pace = Pace(7, 7)
    pace.took(events(7), 2 * SLOW_S)
    assert pace.size == 7


def test_big_events_come_in_batches_that_fit_the_memory() -> None:
    pace = Pace(5000, 5000)
    pace.took(events(10, size=BYTES // 100), QUICK_S / 2)
    assert pace.size == 100
    pace.took(events(1, size=2 * BYTES), QUICK_S / 2)
    assert pace.size == 1, "one is always taken"
    for _ in range(20):
        pace.took(events(pace.size), QUICK_S / 2)
    assert pace.size == 5000, "they were few"


# ------------------------------------------------------------------------------------------- in the engine


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres) as system:
        yield system


def test_under_light_load_each_append_is_visible_without_waiting_for_others(system: System) -> None:
    """The engine would look again in a minute, and takes 5,000 at once: only what is there may be waited for."""
    system.grow(5)
    with administrator(system.settings) as listener, running(engine_of(system.read, batch=5000), poll=60):
        wait_for(system.at_head, "it has begun")
        listener.execute("LISTEN evosense_projected")
        for _ in range(20):
            while not (units := system.world.happen(1)):
                pass
            position = system.append(units)
            wait_for(system.at_head, f"the event at position {position} is visible", seconds=5)
        told = [int(one.payload) for one in listener.notifies(timeout=0)]
    assert len(told) >= 20, "each was a batch of its own"
    assert told == sorted(set(told))


def test_an_engine_that_is_slow_goes_on_with_smaller_batches(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.grow(400)
    clock = iter(range(0, 100_000, 2))
    engine = engine_of(system.read, batch=200)
    engine._beat()
    monkeypatch.setattr(engine, "_next_beat", float("inf"))
    with monkeypatch.context() as patched:
        patched.setattr(engine_module.time, "monotonic", lambda: float(next(clock)))
        sizes = [engine.run_once() for _ in range(3)]
    assert sizes == [200, 100, 50]
    engine.close()
    system.project()
    assert contents(system.admin) == system.projected_afresh()
