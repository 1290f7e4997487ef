"""The engine: rows and checkpoint together, exactly once, through kills, crashes, rivals and poison."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from eventsourcing.persistence import PersistenceError
from pydantic import SecretStr

from adapters.embedded import PostgresServer, start_postgres
from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide, read_side, write_side
from projections import engine as engine_module
from projections.engine import Engine
from projections.metrics import MetricsProjection
from projections.tenancy import TenancyProjection
from tests.support.systems import (
    administrator,
    contents,
    drain,
    empty,
    forget_read_models,
    fresh_system,
    parked,
    positions,
    wait_for,
)
from tests.support.world import World, record, tampered

ROOT = Path(__file__).parent.parent.parent


class System:
    """A database of its own with both sides and a history."""

    def __init__(self, settings: Settings, admin: psycopg.Connection) -> None:
        self.settings = settings
        self.admin = admin
        self.write: WriteSide = write_side(settings)
        self.read: ReadSide = read_side(settings, batch=50)
        self.world = World(9)
        self.head = 0

    def grow(self, steps: int) -> int:
        """Append a history of so many steps; returns where it ends."""
        units = self.world.births() if not self.head else []
        self.head = record(self.write, [*units, *self.world.happen(steps)])
        return self.head

    def projected_afresh(self) -> dict[str, list[str]]:
        """What an undisturbed engine makes of the log."""
        forget_read_models(self.admin)
        side = read_side(self.settings, batch=200)
        drain(side.engine)
        side.close()
        return contents(self.admin)

    def at_head(self) -> bool:
        """Whether all projections have come to the end."""
        return positions(self.admin) == {self.head}

    def close(self) -> None:
        self.write.close()
        self.read.close()


@contextmanager
def a_system(postgres: PostgresServer) -> Iterator[System]:
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        system = System(settings, admin)
        try:
            yield system
        finally:
            system.close()


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres) as system:
        yield system


@contextmanager
def running(engine: Engine, *, poll: float) -> Iterator[None]:
    """The engine in a thread, for as long as the block lasts. It must still be alive at its end, and stop soon."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,), kwargs={"poll": poll}, daemon=True)
    thread.start()
    try:
        yield
        assert thread.is_alive(), "the engine died"
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive(), "the engine does not hear that it should stop"


# ------------------------------------------------------------------------------------------- rows and checkpoint


def test_rows_and_checkpoint_commit_together_or_not_at_all(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is ended after the rows were written and before the checkpoint has moved."""
    system.grow(100)
    move = Engine._move
    before = contents(system.admin)

    def cut(self: Engine, conn: Any, *args: Any) -> None:
        written = conn.execute("SELECT count(*) AS n FROM evosense.tenancy_tenant").fetchone()
        assert written["n"] == 3
        system.admin.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        move(self, conn, *args)

    monkeypatch.setattr(Engine, "_move", cut)
    with pytest.raises(psycopg.OperationalError):
        system.read.engine.run_once()
    assert contents(system.admin) == before
    assert positions(system.admin) <= {0}
    monkeypatch.undo()
    drain(system.read.engine)
    assert system.at_head()
    assert contents(system.admin) == system.projected_afresh()


def test_a_checkpoint_that_moved_under_the_engine_rolls_its_rows_back(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare-and-set (DESIGN rule 7), for a rival that does not ask for the lock."""
    system.grow(60)
    move = Engine._move

    def rival_first(self: Engine, conn: Any, held: Any, names: Any, start: int, end: int) -> None:
        move(self, conn, held, names, start + 1, end)

    monkeypatch.setattr(Engine, "_move", rival_first)
    assert system.read.engine.run_once() == 1
    assert not any(contents(system.admin).values())


def test_nothing_to_do_is_nothing_done(system: System) -> None:
    assert system.read.engine.run_once() == 0
    system.grow(10)
    drain(system.read.engine)
    before = contents(system.admin)
    assert system.read.engine.run_once() == 0
    assert contents(system.admin) == before


def test_a_projection_that_fell_behind_draws_level(system: System) -> None:
    system.grow(120)
    drain(system.read.engine)
    expected = contents(system.admin)
    # As when a projection is new: its tables are empty and it has no checkpoint.
    empty(system.admin, MetricsProjection.tables)
    system.admin.execute("DELETE FROM evosense_ops.projection_checkpoints WHERE projection = 'metrics'")
    drain(system.read.engine)
    assert contents(system.admin) == expected
    assert system.at_head()


# ------------------------------------------------------------------------------------------- rivals, kills, crashes


def test_two_engines_at_once_end_with_the_right_rows(system: System) -> None:
    other = read_side(system.settings, batch=3)
    with running(system.read.engine, poll=0.2), running(other.engine, poll=0.2):
        for _ in range(8):
            system.grow(60)
        wait_for(system.at_head, "both engines together reach the head")
    other.close()
    assert not parked(system.admin)
    assert contents(system.admin) == system.projected_afresh()


def test_killed_in_the_middle_of_a_batch_it_resumes_exactly(system: System) -> None:
    """kill -9 while rows of a batch are written and not committed, and again somewhere on the way."""
    system.grow(900)
    lock = "LOCK TABLE evosense.experiments_inference IN ACCESS EXCLUSIVE MODE"
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE '%experiments_inference%'"
    )
    with administrator(system.settings) as blocker:
        with blocker.transaction():
            # Inferences come after the messages of the same batch: those are written when it gets stuck here.
            blocker.execute(lock)
            process = engine_process(system.settings, batch=5)
            wait_for(lambda: system.admin.execute(waiting).fetchone() == (1,), "the engine is within a batch")
            kill(process)
        # The server notices that the client has gone, and rolls back.
        gone = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND usename = 'evosense_test' AND xact_start IS NOT NULL"
        )
        wait_for(lambda: system.admin.execute(gone).fetchone() == (0,), "the transaction of the killed one is gone")
    reached = positions(system.admin)
    assert len(reached) == 1
    assert max(reached) < system.head
    newest = system.admin.execute("SELECT coalesce(max(id), 0) FROM evosense.messages_message").fetchone()
    assert newest is not None
    assert newest[0] <= max(reached), "a row stands beyond the checkpoint"

    process = engine_process(system.settings, batch=5)
    start = max(reached)
    wait_for(lambda: max(positions(system.admin)) > start, "the second process goes on")
    kill(process)
    assert max(positions(system.admin)) < system.head, "it was killed on the way"

    drain(system.read.engine)
    assert not parked(system.admin)
    assert contents(system.admin) == system.projected_afresh()


def engine_process(settings: Settings, *, batch: int) -> subprocess.Popen[bytes]:
    """An engine in a process of its own."""
    command = [sys.executable, "-m", "tests.support.engine_process", str(batch)]
    return subprocess.Popen(command, cwd=ROOT, env=settings.environment())


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "it ended by itself"
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_a_crash_of_the_database_under_a_running_engine_is_survived() -> None:
    """A backend is killed with -9 on a server of our own: PostgreSQL restarts them all after recovery."""
    with tempfile.TemporaryDirectory(prefix="evosense-crash-") as home:
        Path(home).chmod(0o755)
        with start_postgres(Path(home)) as server, a_system(server) as system:
            system.grow(100)
            with running(system.read.engine, poll=1.0):
                wait_for(system.at_head, "the engine has begun")
                pid = system.admin.info.backend_pid
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: answers(server), "the server is back")
                system.admin = administrator(system.settings)
                system.grow(100)
                wait_for(system.at_head, "the engine goes on by itself")
            assert not parked(system.admin)
            assert contents(system.admin) == system.projected_afresh()
            system.admin.close()


def answers(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def test_connections_that_the_server_dropped_are_survived(system: System, caplog: pytest.LogCaptureFixture) -> None:
    system.grow(20)
    with caplog.at_level(logging.ERROR), running(system.read.engine, poll=30):
        for _ in range(2):
            wait_for(system.at_head, "the engine is there")
            system.admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'evosense_test'"
            )
            # The write side's connections went as well. It asks once more, which two dead ones would use up.
            system.write.datastore.pool.check()
            system.grow(20)
        wait_for(system.at_head, "the engine goes on")
    assert "the database can't be worked with" in caplog.text
    assert contents(system.admin) == system.projected_afresh()


# ------------------------------------------------------------------------------------------- waking


def test_an_append_wakes_the_engine_long_before_it_would_look(system: System) -> None:
    listening = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND query LIKE 'LISTEN%' AND state = 'idle'"
    )
    with running(system.read.engine, poll=60):
        for _ in range(3):
            wait_for(lambda: system.admin.execute(listening).fetchone() == (1,), "the engine listens")
            system.grow(5)
            # It would look again in a minute: only the notification can wake it within the deadline.
            wait_for(system.at_head, "it was woken", seconds=5)


def test_without_a_wake_up_it_looks_by_itself(system: System) -> None:
    stop = threading.Event()
    deaf = threading.Thread(
        target=system.read.engine.run, args=(stop,), kwargs={"poll": 0.2, "channel": "silence"}, daemon=True
    )
    deaf.start()
    system.grow(5)
    wait_for(system.at_head, "it looked by itself", seconds=10)
    stop.set()
    deaf.join(5)
    assert not deaf.is_alive()


def test_each_batch_tells_how_far_it_came(system: System) -> None:
    with administrator(system.settings) as listener:
        listener.execute("LISTEN evosense_projected")
        system.grow(5)
        drain(system.read.engine)
        heard = list(listener.notifies(timeout=10, stop_after=1))
    assert [notification.payload for notification in heard] == [str(system.head)]


# ------------------------------------------------------------------------------------------- poison


def stream_of(system: System, position: int) -> list[int]:
    """The positions of the stream that has an event at this one."""
    found = system.admin.execute(
        "SELECT notification_id FROM evosense_log.stored_events WHERE originator_id = "
        "(SELECT originator_id FROM evosense_log.stored_events WHERE notification_id = %s) ORDER BY 1",
        (position,),
    )
    return [row[0] for row in found]


def received_and_changed(system: System) -> int:
    """The position of a message that has later events, and that no inference points at."""
    row = system.admin.execute(
        "SELECT e.notification_id FROM evosense_log.stored_events e WHERE e.topic = 'messages.MessageReceived:1' "
        "AND (SELECT count(*) FROM evosense_log.stored_events o WHERE o.originator_id = e.originator_id) >= 3 "
        "ORDER BY 1 LIMIT 1"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between the tries of a poison event."""
    monkeypatch.setattr(engine_module, "_PAUSE_S", 0.0)


@pytest.mark.parametrize("fault", ["tampered", "constraint"])
@pytest.mark.usefixtures("hasty")
def test_a_poison_event_is_parked_with_its_stream_and_the_others_go_on(
    system: System, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    system.grow(200)
    poison = received_and_changed(system)
    stream = stream_of(system, poison)
    if fault == "tampered":
        tampered(system.admin, poison)
        reason = "its sealed part does not fit its key"
    else:
        constraint = f"CHECK (id <> {poison})"
        system.admin.execute(f"ALTER TABLE evosense.messages_message ADD CONSTRAINT no_such_row {constraint}")
        reason = "CheckViolation (constraint no_such_row)"
    drain(system.read.engine)
    system.grow(50)
    drain(system.read.engine)

    found = parked(system.admin)
    assert reason in found[poison]
    assert stream[0] == poison
    behind = {position: why for position, why in found.items() if position in stream_of(system, poison)[1:]}
    assert len(behind) >= 2
    assert set(behind.values()) == {"held back behind a parked event of its stream"}
    # What points at the message can't stand without it; nothing else is missing.
    others = {position: why for position, why in found.items() if position not in stream_of(system, poison)}
    assert all("ForeignKeyViolation" in why for why in others.values())
    assert system.at_head()
    rows = "SELECT id FROM evosense.messages_message ORDER BY id"
    events = "SELECT notification_id FROM evosense_log.stored_events WHERE topic LIKE '%MessageReceived:1' ORDER BY 1"
    standing = [row[0] for row in system.admin.execute(rows)]
    assert standing == [row[0] for row in system.admin.execute(events) if row[0] != poison]
    # An operator sees which, whose and why; nobody sees what was in it.
    subscriber, tenant, kind, attempts = system.admin.execute(
        "SELECT subscriber, tenant_id, event_type, attempts FROM evosense_ops.parked_events WHERE position = %s",
        (poison,),
    ).fetchone()
    assert (subscriber, kind, attempts) == ("projector", "messages.MessageReceived:1", 3)
    assert tenant in (system.world.tenants if fault == "constraint" else [None])
    assert f"parked: the event at position {poison} " in caplog.text
    assert "mensagem" not in caplog.text


@pytest.mark.usefixtures("hasty")
def test_a_fault_that_passes_parks_nothing(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    system.grow(60)
    project, failures = TenancyProjection.project, [0]

    def fail_twice(self: TenancyProjection, *args: Any) -> None:
        project(self, *args)
        if failures[0] < 3:
            failures[0] += 1
            raise RuntimeError("passes")

    monkeypatch.setattr(TenancyProjection, "project", fail_twice)
    drain(system.read.engine)
    assert failures[0] == 3, "the batch and two tries of the first event"
    assert not parked(system.admin)
    monkeypatch.undo()
    assert contents(system.admin) == system.projected_afresh()


@pytest.mark.usefixtures("hasty")
def test_of_two_engines_that_meet_a_poison_event_neither_parks_an_innocent_one(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one has lost its lease, finds the poison parked and passed by, and must not park what stands next."""
    system.grow(80)
    poison = received_and_changed(system)
    tampered(system.admin, poison)
    other = read_side(system.settings, batch=1)
    pass_by = Engine._pass_by

    def let_the_other_be_faster(self: Engine, *found: Any) -> None:
        if self is system.read.engine:
            monkeypatch.setattr(Engine, "_pass_by", pass_by)
            system.admin.execute("UPDATE evosense_ops.projection_checkpoints SET held_until = now()")
            while poison not in parked(system.admin):
                other.engine.run_once()
            for _ in range(5):
                other.engine.run_once()
            assert poison < max(positions(system.admin)) < system.head
            other.engine.close()
        pass_by(self, *found)

    monkeypatch.setattr(Engine, "_pass_by", let_the_other_be_faster)
    drain(system.read.engine)
    other.close()
    stream = set(stream_of(system, poison))
    innocent = {
        position: why
        for position, why in parked(system.admin).items()
        if position not in stream and "ForeignKeyViolation" not in why
    }
    assert innocent == {}
    assert poison in parked(system.admin)
    assert system.at_head()


def test_a_wrong_master_key_parks_nothing(system: System) -> None:
    """It is no fault of the events: all of them would be parked."""
    system.grow(20)
    drain(system.read.engine)
    wrong = read_side(system.settings)
    system.grow(20)
    # The keys in the store are not those that the running process could open: as after a botched rotation.
    wrapped = system.admin.execute("SELECT tenant_id, wrapped_key FROM evosense_log.tenant_keys").fetchall()
    system.admin.execute("UPDATE evosense_log.tenant_keys SET wrapped_key = reverse(wrapped_key)")
    with pytest.raises(PersistenceError, match="does not open the key of tenant"):
        drain(wrong.engine)
    assert not parked(system.admin)
    for tenant_id, key in wrapped:
        system.admin.execute(
            "UPDATE evosense_log.tenant_keys SET wrapped_key = %s WHERE tenant_id = %s", (key, tenant_id)
        )
    drain(wrong.engine)
    wrong.close()
    assert system.at_head()


def test_a_schema_that_does_not_fit_parks_nothing(system: System) -> None:
    system.grow(20)
    system.admin.execute("ALTER TABLE evosense.messages_message RENAME COLUMN text TO words")
    with running(system.read.engine, poll=0.2):
        system.admin.execute("ALTER TABLE evosense.messages_message RENAME COLUMN words TO text")
        wait_for(system.at_head, "it goes on when the schema fits")
    assert not parked(system.admin)


def test_settings_name_the_size_of_a_batch(system: System) -> None:
    head = system.grow(30)
    small = system.settings.model_copy(update={"projector_batch": 4, "log_level": "error"})
    assert isinstance(small.database_url, SecretStr)
    side = read_side(small)
    assert side.engine.run_once() == 4
    assert max(positions(system.admin)) < head
    side.close()
