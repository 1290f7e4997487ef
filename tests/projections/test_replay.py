"""The log gives the same rows, ids included, whatever the size of the batches (DESIGN rule 1)."""

from collections.abc import Iterator

import psycopg
import pytest
from msgspec.structs import replace

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import read_side, write_side
from domain.messages import AnalyzeMessage, MessageReceived, message
from projections.catalog import all_projections
from projections.rebuild import rebuild
from tests.support.rebuilding import Watched
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
from tests.support.world import World, record

#: Tables that no event fills yet.
EMPTY = {
    "billing_billingevent",
    "billing_paymentaccount",
    "experiments_experimentrun",
}


@pytest.fixture(scope="module")
def head(write: object, settings: Settings) -> int:
    """A history of everything that can happen, in the module's database; the position of its end."""
    side = write_side(settings)
    world = World(42)
    world.prompts = True
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


def test_a_rebuild_gives_the_rows_that_projecting_gives(
    settings: Settings, head: int, admin: psycopg.Connection
) -> None:
    """Whole batches are folded where nothing but the keys is there yet: see test_rebuild.py for the rest."""
    before = projected(settings, 50)
    side = read_side(settings)
    report = rebuild(side.builder, [projection.name for projection in all_projections()], Watched())
    side.close()
    assert contents(admin) == before
    assert report.rows == {table: len(rows) for table, rows in before.items()}
    assert positions(admin) == {head}


def test_the_projections_own_every_table_and_each_has_one_owner(admin: psycopg.Connection, head: int) -> None:
    owned = [table for projection in all_projections() for table in projection.tables]
    assert sorted(owned) == tables(admin)
