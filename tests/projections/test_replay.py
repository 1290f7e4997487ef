"""Rebuilding gives the same rows, ids included, whatever the size of the batches (DESIGN rule 1)."""

from collections.abc import Iterator

import psycopg
import pytest
from msgspec.structs import replace

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import read_side, write_side
from domain.messages import AnalyzeMessage, MessageReceived, message
from projections.catalog import all_projections
from projections.engine import PoisonEvent
from projections.rebuild import RebuildReport, rebuild
from tests.support.spec import NOW
from tests.support.systems import (
    administrator,
    contents,
    drain,
    forget_read_models,
    fresh_system,
    parked,
    positions,
    tables,
)
from tests.support.world import World, record, tampered

#: Tables that no event fills yet.
EMPTY = {
    "billing_billingevent",
    "billing_paymentaccount",
    "experiments_experimentrun",
    "experiments_prompttemplate",
}


@pytest.fixture(scope="module")
def head(write: object, settings: Settings) -> int:
    """A history of everything that can happen, in the module's database; the position of its end."""
    side = write_side(settings)
    world = World(42)
    last = record(side, [*world.births(), *world.happen(1200)])
    side.close()
    return last


@pytest.fixture
def admin(settings: Settings) -> Iterator[psycopg.Connection]:
    """A superuser's connection."""
    with administrator(settings) as conn:
        yield conn


def projected(settings: Settings, batch: int) -> dict[str, list[str]]:
    """What the read models hold after everything was projected anew in batches of that size."""
    side = read_side(settings, batch=batch)
    with administrator(settings) as conn:
        forget_read_models(conn)
        drain(side.engine)
        side.close()
        assert not parked(conn)
        return contents(conn)


def rebuilt(settings: Settings, batch: int = 500) -> RebuildReport:
    side = read_side(settings, batch=batch)
    progress: list[tuple[int, int]] = []
    try:
        with side.connect() as conn:
            report = rebuild(side.engine, all_projections(), conn, lambda *so_far: progress.append(so_far))
    finally:
        side.close()
    assert progress == sorted(progress)
    assert progress[-1][0] == report.events
    return report


def test_batches_of_any_size_give_the_same_rows(settings: Settings, head: int, admin: psycopg.Connection) -> None:
    one_by_one = projected(settings, 1)
    assert {table for table, rows in one_by_one.items() if not rows} == EMPTY
    assert positions(admin) == {head}
    for batch in (7, 500):
        in_batches = projected(settings, batch)
        for table in tables(admin):
            assert in_batches[table] == one_by_one[table], f"{table} depends on the size of the batch"


def test_what_was_replaced_within_a_batch_leaves_no_trace(postgres: PostgresServer) -> None:
    """A sum keeps the number of decimal places of what was added and taken away, unless all have the same."""
    with fresh_system(postgres) as settings:
        write, world = write_side(settings), World(5, tenants=1)
        units = [*world.births(), *world.happen(1)]
        while not any(isinstance(event, MessageReceived) for event in units[-1]):
            units += world.happen(1)
        message_id = units[-1][0].originator_id
        for model, sentiment in (("model-8", 0.123456), ("model-9", 0.5)):
            analysis = replace(world.analysis(), sentiment=sentiment)
            command = AnalyzeMessage(at=NOW, model_name=model, prompt_version="p-1", analysis=analysis)
            units.append(world.carry_out(message(message_id), command))
        record(write, units)
        write.close()
        assert projected(settings, 1) == projected(settings, 500)


def test_a_row_s_id_is_the_position_of_the_event_that_created_it(
    settings: Settings, head: int, admin: psycopg.Connection
) -> None:
    projected(settings, 500)
    births = {
        "authn_user": "authn.UserRegistered:1",
        "connections_evolutionconnection": "connections.ConnectionRegistered:1",
        "messages_message": "messages.MessageReceived:1",
        "experiments_inference": "experiments.InferenceRecorded:1",
    }
    for table, topic in births.items():
        ids = admin.execute(f"SELECT id FROM evosense.{table} ORDER BY id").fetchall()  # noqa: S608 - names from above
        born = "SELECT notification_id FROM evosense_log.stored_events WHERE topic = %s ORDER BY 1"
        assert ids == admin.execute(born, (topic,)).fetchall()
        assert ids


def test_a_rebuild_gives_the_same_rows_and_says_how_many(
    settings: Settings, head: int, admin: psycopg.Connection
) -> None:
    before = projected(settings, 50)
    # What is not from the log goes.
    admin.execute("UPDATE evosense.messages_message SET text = 'verfälscht', sentiment = 1")
    admin.execute("DELETE FROM evosense.authn_user")
    admin.execute("UPDATE evosense.metrics_rollup SET messages = messages + 5")
    report = rebuilt(settings)
    assert contents(admin) == before
    assert report.rows == {table: len(rows) for table, rows in before.items()}
    count = admin.execute("SELECT count(*) FROM evosense_log.stored_events").fetchone()
    assert (report.events,) == count
    assert positions(admin) == {head}
    assert rebuilt(settings, batch=7) == report
    assert contents(admin) == before


def test_the_projections_own_every_table_and_each_has_one_owner(admin: psycopg.Connection, head: int) -> None:
    owned = [table for projection in all_projections() for table in projection.tables]
    assert sorted(owned) == tables(admin)


def test_a_rebuild_goes_on_where_the_engine_then_stands(postgres: PostgresServer) -> None:
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        write, read, world = write_side(settings), read_side(settings), World(1)
        record(write, [*world.births(), *world.happen(50)])
        drain(read.engine)
        rebuilt(settings)
        last = record(write, world.happen(50))
        drain(read.engine)
        assert positions(admin) == {last}
        live = contents(admin)
        write.close()
        read.close()
        assert projected(settings, 500) == live


def test_an_empty_log_rebuilds_to_empty_tables(postgres: PostgresServer) -> None:
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        side = read_side(settings)
        with side.connect() as conn:
            report = rebuild(side.engine, all_projections(), conn, lambda *_: None)
        side.close()
        assert report.events == 0
        assert not any(report.rows.values())
        assert positions(admin) == {0}


@pytest.mark.parametrize("fault", ["tampered", "constraint"])
def test_a_rebuild_stops_loudly_at_a_poison_event_and_leaves_the_old_rows(postgres: PostgresServer, fault: str) -> None:
    with fresh_system(postgres) as settings, administrator(settings) as admin:
        write, read, world = write_side(settings), read_side(settings), World(2)
        record(write, [*world.births(), *world.happen(120)])
        drain(read.engine)
        before = contents(admin)
        text = "SELECT id, text FROM evosense.messages_message ORDER BY id OFFSET 10 LIMIT 1"
        position, words = admin.execute(text).fetchone()
        if fault == "tampered":
            tampered(admin, position)
            reason = "sealed part does not fit"
        else:
            check = f"ALTER TABLE evosense.messages_message ADD CONSTRAINT no_more CHECK (id <> {position}) NOT VALID"
            admin.execute(check)
            reason = "CheckViolation (constraint no_more)"
        with pytest.raises(PoisonEvent) as poison:
            rebuilt(settings)
        assert f"position {position} " in str(poison.value)
        assert reason in str(poison.value)
        # Neither the message nor what a traceback shows of it quotes the row.
        assert words not in str(poison.value)
        assert poison.value.__suppress_context__
        assert contents(admin) == before
        write.close()
        read.close()
