"""Events set aside: retried, released in order, skipped for good; nothing is lost or left behind."""

import threading
from collections.abc import Iterator
from typing import Any, LiteralString, cast
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from adapters.embedded import PostgresServer
from domain.messages import EmbedMessage, message
from projections import engine as engine_module
from projections.catalog import all_projections
from projections.engine import Engine
from projections.metrics import MetricsProjection
from projections.parking import HELD_BACK, ParkedEvents, Retried
from projections.rebuild import rebuild
from projections.tenancy import TenancyProjection
from tests.support.engine_process import engine_of
from tests.support.projectors import System, a_system, running
from tests.support.spec import NOW
from tests.support.systems import contents, drain, empty, forget_read_models, parked, wait_for
from tests.support.world import repeatable, tampered, vector

DAMAGED = "its sealed part does not fit its key"


@pytest.fixture
def system(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A history, not yet projected; poison events are tried without pauses."""
    monkeypatch.setattr(engine_module, "_PAUSE_S", 0.0)
    with a_system(postgres) as system:
        system.grow(200)
        yield system


def first(system: System, topic: str) -> int:
    """The position of the first event of a type."""
    return int(system.one("SELECT min(notification_id) FROM evosense_log.stored_events WHERE topic = %s", topic))


def changed_message(system: System) -> int:
    """The position of the first message that has two later events at least, and that no inference points at."""
    return int(
        system.one(
            "SELECT min(e.notification_id) FROM evosense_log.stored_events AS e "
            "WHERE e.topic = 'messages.MessageReceived:1' AND NOT EXISTS "
            "(SELECT FROM evosense.experiments_inference AS i WHERE i.message_id = e.notification_id) "
            "AND (SELECT count(*) FROM evosense_log.stored_events AS o WHERE o.originator_id = e.originator_id) >= 3"
        )
    )


def stream_at(system: System, position: int) -> UUID:
    found = system.one("SELECT originator_id FROM evosense_log.stored_events WHERE notification_id = %s", position)
    assert isinstance(found, UUID)
    return found


def poisoned(system: System) -> int:
    """Everything is projected but a message that is damaged, and the later events of its stream; its position."""
    system.project()
    position = changed_message(system)
    tampered(system.admin, position)
    forget_read_models(system.admin)
    system.project()
    found = parked(system.admin)
    assert DAMAGED in found.pop(position)
    assert len(found) >= 2
    assert set(found.values()) == {HELD_BACK}
    return position


def embedded(system: System, stream: UUID, number: int = 1) -> list[Any]:
    """A further event of a message's stream."""
    command = EmbedMessage(at=NOW, model_name=f"e-{number + 2}", vector=vector(repeatable(number)))
    return [system.world.carry_out(message(stream), command)]


def retry(system: System, position: int) -> Retried:
    with system.read.connect() as conn:
        return system.read.parked.retry(conn, position)


def release(system: System, *positions: int) -> list[Retried]:
    """Retry the streams of these positions, or all."""
    streams = {stream_at(system, position) for position in positions} or None
    with system.read.connect() as conn:
        return list(system.read.parked.retry_streams(conn, streams))


def attempts(system: System, position: int) -> int:
    return int(system.one("SELECT attempts FROM evosense_ops.parked_events WHERE position = %s", position))


def forbid(system: System, table: str, column: str, position: int) -> None:
    """Let a table refuse the row of that id."""
    check = SQL("ALTER TABLE {} ADD CONSTRAINT not_this_one CHECK ({} <> {}) NOT VALID")
    system.admin.execute(check.format(Identifier("evosense", table), Identifier(column), Literal(position)))


def allow(system: System, table: str) -> None:
    drop = SQL("ALTER TABLE {} DROP CONSTRAINT not_this_one")
    system.admin.execute(drop.format(Identifier("evosense", table)))


# ------------------------------------------------------------------------------------------- retry


def test_what_is_retried_fails_again_until_its_cause_is_gone_and_is_then_released_in_order(system: System) -> None:
    position = poisoned(system)
    aside = list(parked(system.admin))
    failed = retry(system, position)
    assert failed.outcome == "failed"
    assert failed.reason == parked(system.admin)[position]
    assert attempts(system, position) == 4
    for behind in aside[1:]:
        told = retry(system, behind)
        assert told.outcome == "waiting"
        assert told.reason == f"the event at position {aside[0]} comes first"
    tampered(system.admin, position)
    forbid(system, "messages_message", "id", position)
    assert [one.outcome for one in release(system, position)] == ["failed", *["waiting"] * (len(aside) - 1)]
    assert parked(system.admin)[position] == "CheckViolation (constraint not_this_one)", "another reason now"
    assert attempts(system, position) == 5
    allow(system, "messages_message")
    assert release(system, position) == [Retried(one, "projected") for one in aside]
    assert retry(system, position) == Retried(position, "gone")
    system.assert_undisturbed()


def test_what_points_at_a_parked_event_goes_through_in_the_order_of_the_log(system: System) -> None:
    """A connection is damaged: its messages are parked, and the inferences about them, each a stream of its own."""
    position = first(system, "connections.ConnectionRegistered:1")
    tampered(system.admin, position)
    system.project(batch=50)
    system.grow(100)
    system.project(batch=7)
    aside = parked(system.admin)
    reasons = {reason.partition(" ")[0] for reason in aside.values()}
    assert reasons >= {"ForeignKeyViolation", "held", "event"}
    assert len(aside) > 20
    tampered(system.admin, position)
    assert release(system) == [Retried(one, "projected") for one in sorted(aside)]
    system.assert_undisturbed()


def test_what_some_projections_could_not_take_is_retried_for_those_alone(system: System) -> None:
    system.project()
    position = changed_message(system)
    # As when a projection is new: it comes to the event long after the others.
    empty(system.admin, MetricsProjection.tables)
    system.admin.execute("DELETE FROM evosense_ops.projection_checkpoints WHERE projection = 'metrics'")
    forbid(system, "metrics_message", "message_id", position)
    system.project()
    concerned = system.admin.execute("SELECT DISTINCT projections FROM evosense_ops.parked_events").fetchall()
    assert concerned == [(["metrics"],)]
    # A later event of the stream is held back for all.
    system.append(embedded(system, stream_at(system, position)))
    system.project()
    assert parked(system.admin)[system.head] == HELD_BACK
    allow(system, "metrics_message")
    assert {one.outcome for one in release(system, position)} == {"projected"}
    system.assert_undisturbed()


@pytest.mark.parametrize(
    ("table", "check"),
    [("metrics_latency_span", "false"), ("metrics_span", "false"), ("metrics_message", "emotion IS NULL")],
)
def test_what_fails_in_a_pipeline_is_parked_for_its_own_reason(system: System, table: str, check: str) -> None:
    """Statements sent off behind it are aborted: taken for a fault of the database, that would be tried for ever."""
    add = SQL("ALTER TABLE {} ADD CONSTRAINT not_this_one CHECK ({}) NOT VALID")
    system.admin.execute(add.format(Identifier("evosense", table), SQL(cast(LiteralString, check))))
    system.project(batch=50)
    reasons = set(parked(system.admin).values())
    assert "CheckViolation (constraint not_this_one)" in reasons
    # A message that is parked has no row for its inferences to refer to.
    assert {reason.partition(" ")[0] for reason in reasons - {HELD_BACK}} <= {"CheckViolation", "ForeignKeyViolation"}
    allow(system, table)
    assert {one.outcome for one in release(system)} == {"projected"}
    system.assert_undisturbed()


def test_a_position_that_the_log_has_lost_is_said_to_be_lost(system: System) -> None:
    """As after a restore of an older backup of the log alone. It was an IndexError."""
    system.admin.execute(
        "INSERT INTO evosense_ops.parked_events (subscriber, position, stream_id, event_type, reason, attempts) "
        "VALUES ('projector', 999999, gen_random_uuid(), 'messages.MessageReceived:1', 'lost', 3)"
    )
    assert retry(system, 999_999) == Retried(999_999, "failed", "the log holds no event at this position")


def test_what_is_held_back_while_its_stream_is_released_is_released_as_well(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be retried was looked up once: an event held back meanwhile stayed so, behind nothing."""
    position = poisoned(system)
    tampered(system.admin, position)
    stream, retry_one = stream_at(system, position), ParkedEvents.retry
    late: list[int] = []

    def append_first(self: ParkedEvents, *args: Any) -> Retried:
        if len(late) < 2:
            late.append(system.append(embedded(system, stream, len(late))))
            drain(engine_of(system.read))
            assert parked(system.admin)[late[-1]] == HELD_BACK
        return retry_one(self, *args)

    monkeypatch.setattr(ParkedEvents, "retry", append_first)
    released = release(system, position)
    assert [one.position for one in released][-2:] == late
    assert {one.outcome for one in released} == {"projected"}
    system.assert_undisturbed()


def test_beside_a_running_engine_nothing_is_lost_or_left_behind(system: System) -> None:
    position = poisoned(system)
    stream = stream_at(system, position)
    stop = threading.Event()

    def keep_appending() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            system.append([*embedded(system, stream, number), *system.world.happen(1)])

    with running(engine_of(system.read, batch=10)):
        thread = threading.Thread(target=keep_appending, daemon=True)
        thread.start()
        try:
            before = len(parked(system.admin))
            wait_for(lambda: len(parked(system.admin)) > before + 5, "more and more is held back")
            tampered(system.admin, position)
            # It comes to an end although more comes in than it releases one by one.
            assert {one.outcome for one in release(system, position)} == {"projected"}
            assert not parked(system.admin)
        finally:
            stop.set()
            thread.join(10)
        wait_for(system.at_head, "the engine goes on")
    system.assert_undisturbed()


def test_while_an_event_is_retried_no_projector_commits(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints were not locked at all: a query that gives rows waits until these are fetched."""
    position = poisoned(system)
    tampered(system.admin, position)
    lock = "SELECT FROM evosense_ops.projection_checkpoints FOR UPDATE NOWAIT"
    opened, looked = ParkedEvents._opened, []

    def look(self: ParkedEvents, at: int) -> Any:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            system.admin.execute(lock)
        looked.append(at)
        return opened(self, at)

    monkeypatch.setattr(ParkedEvents, "_opened", look)
    assert retry(system, position).outcome == "projected"
    assert looked == [position]
    system.admin.execute(lock)


# ------------------------------------------------------------------------------------------- skip


class Silent:
    """A watcher that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize("topic", ["messages.MessageReceived:1", "messages.MessageAnalyzed:1", "authn.UserLoggedIn:1"])
def test_what_was_skipped_is_left_out_by_everyone(system: System, topic: str) -> None:
    system.project()
    position = changed_message(system) if topic == "messages.MessageReceived:1" else first(system, topic)
    stream = stream_at(system, position)
    tampered(system.admin, position)
    forget_read_models(system.admin)
    system.project()
    with system.read.connect() as conn:
        assert system.read.parked.skip(conn, position, "estragado")
        assert not system.read.parked.skip(conn, position, "estragado"), "it is parked no more"
    row = system.admin.execute("SELECT position, stream_id, event_type, reason FROM evosense_ops.skipped_events")
    assert row.fetchall() == [(position, stream, topic, "estragado")]
    assert {one.outcome for one in release(system, position)} <= {"projected"}
    if topic.startswith("messages"):
        system.append(embedded(system, stream))
    system.grow(30)
    with running(engine_of(system.read)):
        wait_for(system.at_head, "a running engine goes on")
    assert not parked(system.admin)
    found = contents(system.admin)
    assert system.projected_afresh() == found, "an engine that begins anew"
    report = rebuild(system.read.builder, [projection.name for projection in all_projections()], Silent())
    assert report.position == system.head
    assert contents(system.admin) == found, "a rebuild"
    tampered(system.admin, position)
    assert system.projected_afresh() == found, "it stays out when it could be read again"


# ------------------------------------------------------------------------------------------- what is poison


def test_several_poison_events_in_one_batch_and_none_at_its_beginning(system: System) -> None:
    system.project()
    topics = ("authn.UserLoggedIn:1", "messages.MessageAnalyzed:1", "experiments.InferenceRecorded:1")
    damaged = [
        int(system.one("SELECT max(notification_id) FROM evosense_log.stored_events WHERE topic = %s", topic))
        for topic in topics
    ]
    forbidden = changed_message(system)
    for position in damaged:
        tampered(system.admin, position)
    forget_read_models(system.admin)
    forbid(system, "messages_message", "id", forbidden)
    engine = engine_of(system.read, batch=5000)
    drain(engine)
    assert system.at_head()
    reasons = {position: reason for position, reason in parked(system.admin).items() if reason != HELD_BACK}
    assert reasons.keys() == {*damaged, forbidden}
    assert reasons[forbidden] == "CheckViolation (constraint not_this_one)"
    assert all(DAMAGED in reasons[position] for position in damaged)
    allow(system, "messages_message")
    for position in damaged:
        tampered(system.admin, position)
    assert {one.outcome for one in release(system)} == {"projected"}
    system.assert_undisturbed()


def test_an_unknown_type_is_parked_and_a_damaged_event_that_nobody_reads_is_not(system: System) -> None:
    position = first(system, "authn.UserLoggedIn:1")
    as_type = "UPDATE evosense_log.stored_events SET topic = %s WHERE notification_id = %s"
    tampered(system.admin, position)
    side = system.read
    drain(Engine(side.builder.reader, side.builder._mapper, side.connect, [TenancyProjection()]))
    assert system.at_head()
    assert not parked(system.admin), "tenants don't read log-ins"
    system.admin.execute(as_type, ("authn.UserGilded:1", position))
    forget_read_models(system.admin)
    system.project()
    assert "authn.UserGilded:1" in parked(system.admin)[position], "it may be of a newer program"
    system.admin.execute(as_type, ("authn.UserLoggedIn:1", position))
    tampered(system.admin, position)
    assert {one.outcome for one in release(system)} == {"projected"}
    system.assert_undisturbed()


# ------------------------------------------------------------------------------------------- many at once


class Waits(threading.Event):
    """Remembers for how long it was waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return super().wait(0)


def test_for_a_flood_of_events_that_fail_the_others_are_not_kept_waiting(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was waited for 0.15 s: a damaged connection with a thousand messages held everybody up for minutes."""
    monkeypatch.setattr(engine_module, "_PAUSE_S", 0.05)
    tampered(system.admin, first(system, "connections.ConnectionRegistered:1"))
    engine, waits = engine_of(system.read, batch=5000), Waits()
    engine._stop = waits
    drain(engine)
    failed = [reason for reason in parked(system.admin).values() if reason != HELD_BACK]
    assert len(failed) > 10
    assert [wait for wait in waits.waits if wait] == [0.05, 0.1], "the first is tried with patience"
    assert len(waits.waits) == 2 * len(failed)
    assert {attempts(system, position) for position, why in parked(system.admin).items() if why != HELD_BACK} == {3}


def test_in_the_middle_of_a_flood_it_hears_that_it_should_stop(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    tampered(system.admin, first(system, "connections.ConnectionRegistered:1"))
    engine, pass_by = engine_of(system.read, batch=5000), Engine._pass_by

    def stop_then(self: Engine, *args: Any) -> None:
        pass_by(self, *args)
        self._stop.set()

    monkeypatch.setattr(Engine, "_pass_by", stop_then)
    assert engine.run_once() < system.head
    assert len(parked(system.admin)) == 1
    engine.close()


def test_its_lease_is_renewed_in_the_middle_of_a_flood(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was as good as dead for the others: they took its other shards."""
    tampered(system.admin, first(system, "connections.ConnectionRegistered:1"))
    engine, pass_by = engine_of(system.read, batch=5000), Engine._pass_by
    forgotten = "DELETE FROM evosense_ops.projectors"
    looked: list[bool] = []

    def forget(self: Engine, *args: Any) -> None:
        looked.append(system.admin.execute(forgotten).rowcount == 1)
        self._next_beat = 0.0
        pass_by(self, *args)

    monkeypatch.setattr(Engine, "_pass_by", forget)
    engine.run_once()
    engine.close()
    assert len(looked) > 10
    assert all(looked)


def test_nothing_of_what_was_written_stands_where_operators_look(system: System, caplog: Any) -> None:
    position = poisoned(system)
    forbid(system, "messages_message", "id", position)
    tampered(system.admin, position)
    release(system, position)
    shown = system.admin.execute("SELECT string_agg(e::text, ' ') FROM evosense_ops.parked_events AS e").fetchone()
    assert "mensagem" not in str(shown)
    assert "mensagem" not in caplog.text
