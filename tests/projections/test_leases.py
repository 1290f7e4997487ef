"""Leases: one holder at a time, whoever is killed, frozen or told to go."""

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from adapters.embedded import PostgresServer
from projections import engine as engine_module
from projections.engine import Engine
from projections.leases import LEASE_S
from projections.metrics import MetricsProjection
from tests.support.engine_process import engine_of
from tests.support.projectors import Process, System, a_system, processes, running
from tests.support.systems import administrator, contents, drain, empty, parked, positions, wait_for

#: A dead or frozen holder is followed within so many seconds.
FOLLOWED_S = 10.0
#: Lease of the tests in which the real 5 s are not the point.
SHORT_S = 1.0


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres) as system:
        yield system


@pytest.fixture
def sharded(postgres: PostgresServer) -> Iterator[System]:
    """Four shards, each with a tenant or two."""
    with a_system(postgres, tenants=8) as system:
        system.lay_out(4)
        yield system


def a_holder_and_a_stand_by(system: System, start: object, *, lease: float | None = None) -> tuple[Process, Process]:
    """Two processes: the first holds, the second has said that it is there."""
    first: Process = start(lease=lease)  # type: ignore[operator]
    wait_for(lambda: first.holds and system.at_head(), "the first projects")
    second: Process = start(lease=lease)  # type: ignore[operator]
    wait_for(second.seen, "the second is there")
    return first, second


# ------------------------------------------------------------------------------------------- dead


def test_a_killed_holder_is_followed_within_ten_seconds(system: System) -> None:
    """With the real times."""
    system.grow(100)
    with processes(system) as start:
        first, second = a_holder_and_a_stand_by(system, start)
        for _ in range(5):
            system.grow(10)
            wait_for(system.at_head, "the first goes on")
            assert first.holds, "the second has taken what was held"
        epoch = system.one("SELECT max(epoch) FROM evosense_ops.projection_checkpoints")
        first.kill()
        system.grow(30)
        wait_for(system.at_head, "the second has taken over", seconds=FOLLOWED_S)
        assert second.holds
        assert system.one("SELECT min(epoch) FROM evosense_ops.projection_checkpoints") == epoch + 1
    system.admin.execute("UPDATE evosense_ops.projection_checkpoints SET holder = NULL")
    system.assert_undisturbed()


def test_one_that_is_told_to_go_gives_its_lease_back_at_once(system: System) -> None:
    system.grow(20)
    with processes(system) as start:
        # Ten minutes: nobody can have waited for the end of the lease.
        first, second = a_holder_and_a_stand_by(system, start, lease=600)
        first.signal(signal.SIGTERM)
        assert first.popen.wait(FOLLOWED_S) == 0
        wait_for(lambda: second.holds, "the second has it", seconds=FOLLOWED_S)
        assert system.one("SELECT count(*) FROM evosense_ops.projectors") == 1
        system.grow(20)
        wait_for(system.at_head, "and projects")


# ------------------------------------------------------------------------------------------- frozen


def test_one_that_was_frozen_between_batches_is_followed_and_stands_by_when_it_wakes(system: System) -> None:
    system.grow(100)
    with processes(system) as start:
        first, second = a_holder_and_a_stand_by(system, start, lease=SHORT_S)
        first.freeze()
        system.grow(40)
        wait_for(lambda: second.holds and system.at_head(), "the second has taken over", seconds=FOLLOWED_S)
        system.grow(40)
        first.thaw()
        wait_for(first.seen, "the first is awake")
        wait_for(system.at_head, "the second goes on")
        assert second.holds
        second.kill()
        system.grow(20)
        wait_for(lambda: first.holds and system.at_head(), "the first follows in its turn", seconds=FOLLOWED_S)
        first.signal(signal.SIGTERM)
        assert first.popen.wait(10) == 0
    system.assert_undisturbed()


def test_one_that_was_frozen_within_a_batch_is_followed_and_its_rows_are_refused(system: System) -> None:
    """It has written rows and holds their locks and those of the checkpoints when it is frozen. With the real times."""
    system.grow(300)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%%experiments_inference%%'"
    )
    with processes(system) as start:
        with administrator(system.settings) as blocker, blocker.transaction():
            blocker.execute("LOCK TABLE evosense.experiments_inference IN ACCESS EXCLUSIVE MODE")
            first = start(batch=100)
            wait_for(lambda: system.one(waiting) == 1, "the first is within a batch")
            first.freeze()
            second = start(batch=100)
            wait_for(second.seen, "the second is there")
            before = max(positions(system.admin))
        # From now on nothing keeps the second back but the first, which sleeps within its transaction.
        wait_for(lambda: second.holds and system.at_head(), "the second has taken over", seconds=FOLLOWED_S)
        assert before < system.head
        rows = contents(system.admin)
        first.thaw()
        wait_for(first.seen, "the first is awake")
        assert second.holds
        assert contents(system.admin) == rows, "what it had in hand has come through"
        assert not parked(system.admin), "the end of its transaction was laid to an event"
        second.signal(signal.SIGTERM)
        system.grow(20)
        wait_for(lambda: first.holds and system.at_head(), "the first follows in its turn", seconds=FOLLOWED_S)
        first.signal(signal.SIGTERM)
        assert first.popen.wait(10) == 0
    system.assert_undisturbed()


def test_a_transaction_that_the_server_has_ended_does_not_end_the_engine(
    system: System, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """psycopg calls it an internal error, and nobody waited those out: woken at the wrong moment, the process died."""
    monkeypatch.setattr(engine_module, "FROZEN_S", 0.2)
    move, ended = Engine._move, threading.Event()

    def sleep_first(self: Engine, conn: Any, *args: Any) -> None:
        if not ended.is_set():
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            wait_for(lambda: system.one(alive, conn.info.backend_pid) == 0, "the server has ended the transaction")
            ended.set()
        move(self, conn, *args)

    monkeypatch.setattr(Engine, "_move", sleep_first)
    system.grow(30)
    with running(engine_of(system.read)):
        wait_for(system.at_head, "the engine goes on")
    assert ended.is_set()
    assert "IdleInTransactionSessionTimeout" in caplog.text
    system.assert_undisturbed()


@pytest.mark.parametrize(
    "change", ["holder = 'rival', epoch = epoch + 1", "epoch = epoch + 1", "holder = 'rival'", "holder = NULL"]
)
def test_whose_lease_was_taken_commits_nothing(system: System, change: str) -> None:
    """Any of the columns is enough: it is compared under the lock of the rows."""
    system.grow(60)
    engine = engine_of(system.read, batch=20)
    assert engine.run_once() == 20
    engine._next_beat = math.inf  # however slow the machine: it does not look between the two batches
    assert engine.holding == [0]
    rows, reached = contents(system.admin), positions(system.admin)
    system.admin.execute(f"UPDATE evosense_ops.projection_checkpoints SET {change}".encode())  # noqa: S608 - from above
    assert engine.run_once() == 1
    assert engine.holding == []
    assert engine._next_beat == 0, "it looks at once what there is"
    assert (contents(system.admin), positions(system.admin)) == (rows, reached)
    engine.close()


# ------------------------------------------------------------------------------------------- what a lease is


def test_an_idle_engine_holds_no_lock_and_no_transaction(system: System) -> None:
    """Nothing of a lease lives in a session: it would be lost behind a pool, and kept by a frozen process."""
    system.grow(20)
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND usename = 'evosense_test'"
    with running(engine_of(system.read), poll=60):
        wait_for(system.at_head, "it has projected")
        wait_for(
            lambda: system.one(f"SELECT bool_and(state = 'idle' AND query LIKE 'LISTEN%%') {ours} AND pid IN "
                               f"(SELECT pid {ours} AND query LIKE 'LISTEN%%')") is True,
            "it listens",
        )  # fmt: skip
        for _ in range(20):
            # It renews its lease now and then: within such a moment there are locks, not afterwards.
            wait_for(
                lambda: system.one(f"SELECT count(*) {ours} AND xact_start IS NOT NULL") == 0,
                "no transaction is open",
            )
            held = system.admin.execute(
                f"SELECT locktype, mode FROM pg_locks WHERE pid IN (SELECT pid {ours} AND state = 'idle')"  # noqa: S608
            ).fetchall()
            assert held == []
        assert system.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert len(system.holders()) == 1


def test_a_shard_is_taken_whole_or_not_at_all(system: System) -> None:
    system.grow(20)
    drain(system.read.engine)
    engine = engine_of(system.read)
    with administrator(system.settings) as other, other.transaction():
        other.execute("SELECT FROM evosense_ops.projection_checkpoints WHERE projection = 'billing' FOR UPDATE")
        assert engine.run_once() == 0
        assert engine.holding == []
        assert system.one("SELECT count(*) FROM evosense_ops.projection_checkpoints WHERE holder IS NOT NULL") == 0
    engine = engine_of(system.read)
    engine.run_once()
    assert engine.holding == [0]
    engine.close()


def test_a_new_projection_is_taken_up_by_a_later_holder(system: System) -> None:
    """Its checkpoint is missing, and its epoch is younger than those of the others."""
    system.grow(80)
    for _ in range(3):
        drain(engine_of(system.read))
    expected = contents(system.admin)
    engine = engine_of(system.read, batch=7)
    engine.run_once()
    # Under an engine that holds the shard already.
    empty(system.admin, MetricsProjection.tables)
    system.admin.execute("DELETE FROM evosense_ops.projection_checkpoints WHERE projection = 'metrics'")
    with running(engine):
        wait_for(lambda: contents(system.admin) == expected, "the new one draws level")
        wait_for(system.at_head, "all stand at the head")
    epochs = system.admin.execute("SELECT DISTINCT epoch FROM evosense_ops.projection_checkpoints").fetchall()
    assert len(epochs) == 1


def test_the_clock_of_the_client_does_not_matter(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.grow(20)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    engine = engine_of(system.read)
    while engine.run_once():
        pass
    left = system.one("SELECT extract(epoch FROM min(held_until) - clock_timestamp()) "
                      "FROM evosense_ops.projection_checkpoints")  # fmt: skip
    assert 0 < left <= LEASE_S
    assert system.at_head()
    engine.close()


def test_leases_are_renewed_in_the_order_in_which_others_lock_them(sharded: System) -> None:
    """They were renewed in the order of the table: with a command that locks all checkpoints, a deadlock."""
    for kind in ("indexscan", "bitmapscan"):
        # As where the planner reads so small a table from its beginning.
        name = Identifier(sharded.admin.info.dbname)
        sharded.admin.execute(SQL("ALTER DATABASE {} SET {} = off").format(name, Identifier(f"enable_{kind}")))
    engine = engine_of(sharded.read, lease=SHORT_S)
    wait_for(lambda: engine.run_once() == 0 and len(engine.holding) == 4, "it holds all")
    # The rows of shard 0 are written last, and so stand last in the table.
    sharded.admin.execute("UPDATE evosense_ops.projection_checkpoints SET updated_at = now() WHERE shard = 0")
    blocked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%%projection_checkpoints%%'"
    )
    with administrator(sharded.settings) as other:
        with other.transaction():
            lock = "SELECT FROM evosense_ops.projection_checkpoints WHERE shard = %s FOR UPDATE NOWAIT"
            other.execute(lock, (0,))
            stop = threading.Event()
            thread = threading.Thread(target=engine.run, args=(stop,), daemon=True)
            thread.start()
            wait_for(lambda: sharded.one(blocked) == 1, "the engine waits for shard 0")
            for shard in (1, 2, 3):
                other.execute(lock, (shard,))
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


# ------------------------------------------------------------------------------------------- even shares


def shares(system: System) -> list[int]:
    """How many shards each holder has, from least to most; nothing while some shard has none."""
    holders = system.holders()
    return sorted(Counter(holders).values()) if len(holders) == 4 else []


@contextmanager
def watched(system: System) -> Iterator[None]:
    """While the block lasts, looks again and again whether some shard is held by two."""
    stop, wrong, looks = threading.Event(), [], [0]

    def look(admin: Connection[tuple[object, ...]]) -> None:
        mixed = (
            "SELECT shard FROM evosense_ops.projection_checkpoints GROUP BY shard "
            "HAVING count(DISTINCT coalesce(holder, '')) > 1 OR count(DISTINCT epoch) > 1 "
            "OR count(DISTINCT position) > 1"
        )
        while not stop.is_set():
            wrong.extend(admin.execute(mixed).fetchall())
            looks[0] += 1

    with administrator(system.settings) as admin:
        thread = threading.Thread(target=look, args=(admin,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
    assert looks[0] > 10
    assert not wrong


def test_shards_are_shared_evenly_and_nobody_goes_without(sharded: System) -> None:
    """Four shards and three engines were shared as 2, 2 and 0."""
    sharded.grow(100)
    engines = [engine_of(sharded.read, batch=20, lease=SHORT_S) for _ in range(3)]
    with watched(sharded), running(engines[0]) as stop_first:
        wait_for(lambda: shares(sharded) == [4], "one has all")
        with running(engines[1]):
            wait_for(lambda: shares(sharded) == [2, 2], "two have two each")
            sharded.grow(100)
            with running(engines[2]):
                wait_for(lambda: shares(sharded) == [1, 1, 2], "each of three has one at least")
                sharded.grow(100)
                wait_for(sharded.at_head, "all go on")
                stop_first(engines[0])
                wait_for(lambda: shares(sharded) == [2, 2], "the others share what one has left")
                sharded.grow(50)
                wait_for(sharded.at_head, "and go on")
            wait_for(lambda: shares(sharded) == [4], "one has all again")
    sharded.assert_undisturbed()


def test_more_engines_than_shards_stand_by_and_take_nothing_from_one_another(sharded: System) -> None:
    sharded.lay_out(1)
    engines = [engine_of(sharded.read, lease=SHORT_S) for _ in range(3)]
    sharded.grow(20)
    with running(engines[0]):
        wait_for(sharded.at_head, "the first has it")
        epoch = sharded.one("SELECT max(epoch) FROM evosense_ops.projection_checkpoints")
        with running(*engines[1:]):
            for _ in range(5):
                seen = sharded.one("SELECT clock_timestamp()")
                wait_for(
                    lambda seen=seen: sharded.one(
                        "SELECT count(*) FROM evosense_ops.projectors WHERE seen_at > %s", seen
                    ) == 3,
                    "all have looked",
                )  # fmt: skip
                assert set(sharded.holders()) == {engines[0].holder}
    assert sharded.one("SELECT max(epoch) FROM evosense_ops.projection_checkpoints") == epoch
