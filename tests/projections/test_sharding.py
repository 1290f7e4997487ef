"""Tenant shards: the same rows with any number of them, changed under running engines."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.embedded import PostgresServer
from adapters.event_store import recorder
from domain.messages import EmbedMessage, message
from projections.build import REBUILD_GUARD
from projections.reading import Part, read
from projections.rebuild import AlreadyRunning
from projections.sharding import MOST_SHARDS, NotLevel, lay_out
from tests.support.engine_process import engine_of
from tests.support.projectors import System, a_system, running
from tests.support.spec import NOW
from tests.support.systems import administrator, contents, drain, forget_read_models, parked, wait_for
from tests.support.world import repeatable, tampered, vector

SHARDS = (1, 3, 4, 8)
BATCHES = (1, 7, 500, 5000)


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres, tenants=6) as system:
        yield system


@pytest.fixture(scope="module")
def history(postgres: PostgresServer) -> Iterator[System]:
    """A history of six tenants that nobody adds to."""
    with a_system(postgres, tenants=6) as system:
        system.grow(250)
        yield system


@pytest.fixture(scope="module")
def one_by_one(history: System) -> dict[str, list[str]]:
    """Its rows, made with one shard and one event at a time."""
    history.project(batch=1)
    return contents(history.admin)


@pytest.mark.parametrize("shards", SHARDS)
def test_any_number_of_shards_and_batches_of_any_size_give_the_same_rows(
    history: System, one_by_one: dict[str, list[str]], shards: int
) -> None:
    for batch in BATCHES:
        forget_read_models(history.admin)
        history.lay_out(shards)
        history.project(batch=batch)
        assert not parked(history.admin)
        found = contents(history.admin)
        for table, rows in one_by_one.items():
            assert found[table] == rows, f"{table} depends on {shards} shards or batches of {batch}"


def test_every_tenant_is_in_one_shard_and_all_are_used(history: System) -> None:
    reader = history.read.builder.reader
    everything = [one.id for one in read(reader, 0, 10_000).notifications]
    for shards in (*SHARDS, 100, MOST_SHARDS):
        pages = [read(reader, 0, 10_000, None, Part(number, shards)).notifications for number in range(shards)]
        assert sorted(one.id for page in pages for one in page) == everything
        tenants = history.admin.execute(
            "SELECT count(DISTINCT evosense_ops.shard_of(gen_random_uuid(), %s)) FROM generate_series(1, 10000)",
            (shards,),
        ).fetchone()
        assert tenants == (shards,)


def test_a_shard_without_any_event_comes_to_the_head_as_well(system: System) -> None:
    """Whoever waits for a position waits for the slowest shard."""
    system.lay_out(200)
    system.grow(30)
    system.project()
    assert system.one("SELECT count(*) FROM evosense_ops.projection_checkpoints") == 200 * 7
    system.grow(5)
    system.project()


def test_what_is_appended_between_two_looks_of_a_reader_is_projected_once(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of a shard looks where the log ends, and then for events: what came in between has a higher position.

    The checkpoint stayed before it, and it was projected once more: parked, as its row was there already.
    """
    system.lay_out(2)
    system.grow(30)
    system.project()
    real, log = recorder._LOG.head, recorder._LOG
    turns = 0

    def head(conn: Any) -> Any:
        nonlocal turns
        answer = real(conn)
        # Counted first: while it grows, others look as well.
        turns += 1
        if turns <= 4:
            system.grow(5)
        return answer

    monkeypatch.setattr(log, "head", head)
    system.project()
    assert turns > 4
    monkeypatch.undo()
    system.assert_undisturbed()


# ------------------------------------------------------------------------------------------- changing the number


def test_the_number_changes_while_engines_run_and_events_are_appended(system: System) -> None:
    system.grow(50)
    engines = [engine_of(system.read, batch=10, lease=1.0) for _ in range(2)]
    with running(*engines):
        for shards in (4, 1, 3, 8, 2):
            stop = threading.Event()
            appending = threading.Thread(target=keep_appending, args=(system, stop), daemon=True)
            appending.start()
            try:
                position = system.lay_out(shards)
            finally:
                stop.set()
                appending.join(20)
            assert not appending.is_alive()
            assert position <= system.head
            assert system.one("SELECT count(DISTINCT shard) FROM evosense_ops.projection_checkpoints") == shards
            assert system.one("SELECT count(DISTINCT shards) FROM evosense_ops.projection_checkpoints") == 1
            system.grow(20)
            wait_for(system.at_head, f"the engines go on with {shards} shards")
    system.assert_undisturbed()


def keep_appending(system: System, stop: threading.Event) -> None:
    while not stop.is_set():
        system.grow(3)


def test_an_engine_that_held_a_shard_of_the_old_layout_commits_nothing_of_it(system: System) -> None:
    system.grow(60)
    engine = engine_of(system.read, batch=20)
    engine.run_once()
    assert engine.holding == [0]
    rows = contents(system.admin)
    system.lay_out(3)
    engine.run_once()
    assert contents(system.admin) == rows
    drain(engine)
    system.assert_undisturbed()


def test_shards_that_stand_apart_and_that_nobody_moves_are_left_alone(system: System) -> None:
    system.lay_out(3)
    system.grow(60)
    system.project()
    system.admin.execute("UPDATE evosense_ops.projection_checkpoints SET position = 5 WHERE shard = 1")
    with pytest.raises(NotLevel, match="is a projector running"):
        lay_out(system.read.builder, 1, patience=0.1)
    assert system.one("SELECT count(DISTINCT shard) FROM evosense_ops.projection_checkpoints") == 3


def test_shards_that_stand_apart_are_brought_level_but_for_what_is_set_aside(system: System) -> None:
    """Streams that are held back stay so: an event that was parked and one behind it are not projected."""
    system.lay_out(3)
    system.grow(60)
    system.project()
    position, stream, shard = system.admin.execute(
        "SELECT notification_id, originator_id, evosense_ops.shard_of(tenant_id, 3) FROM evosense_log.stored_events "
        "WHERE topic = 'messages.MessageAnalyzed:1' ORDER BY 1 LIMIT 1"
    ).fetchone()
    tampered(system.admin, position)
    forget_read_models(system.admin)
    system.lay_out(3)
    drain(system.read.engine)
    assert position in parked(system.admin)
    behind = system.head
    system.grow(100)
    command = EmbedMessage(at=NOW, model_name="e-9", vector=vector(repeatable(1)))
    held_back = system.append([system.world.carry_out(message(stream), command)])
    with administrator(system.settings) as other, other.transaction():
        other.execute("SELECT FROM evosense_ops.projection_checkpoints WHERE shard = %s FOR UPDATE", (shard,))
        drain(system.read.engine)
    assert system.one("SELECT min(position) FROM evosense_ops.projection_checkpoints") == behind
    assert lay_out(system.read.builder, 2, folder=system.read.parked.folder, patience=0) == system.head
    assert held_back in parked(system.admin)
    found = (contents(system.admin), parked(system.admin).keys())
    forget_read_models(system.admin)
    drain(system.read.engine)
    assert found == (contents(system.admin), parked(system.admin).keys())


def test_it_is_refused_beside_a_rebuild(system: System) -> None:
    system.grow(10)
    system.project()
    with system.read.builder.guard(REBUILD_GUARD) as guard:
        assert guard is not None
        with pytest.raises(AlreadyRunning):
            lay_out(system.read.builder, 4)
    assert system.lay_out(4) == system.head


@pytest.mark.parametrize("shards", [0, MOST_SHARDS + 1])
def test_a_number_that_is_none_changes_nothing(system: System, shards: int) -> None:
    system.grow(10)
    system.project()
    before = system.admin.execute("SELECT * FROM evosense_ops.projection_checkpoints ORDER BY 1").fetchall()
    with pytest.raises(ValueError, match="there can be 1 to 256"):
        lay_out(system.read.builder, shards)
    assert system.admin.execute("SELECT * FROM evosense_ops.projection_checkpoints ORDER BY 1").fetchall() == before
