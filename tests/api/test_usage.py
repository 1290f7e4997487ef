"""What models cost: added up by many processes, right for budgets within a second, and never lost with the database."""

import threading
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import PersistenceError

from adapters.event_store import RoleDatastore
from adapters.settings import Settings
from adapters.telemetry import REGISTRY
from api import usage
from api.usage import Usage
from api.wiring import WriteSide, write_side
from domain.ports import Usage as Used
from tests.support.systems import administrator, at_port, wait_for

ONE = Used(calls=1, input_tokens=100, output_tokens=20, cost=150)


@pytest.fixture
def counting(write: WriteSide) -> Iterator[Usage]:
    """One that writes only when it is told to."""
    made = Usage(write.datastore, pause=3600)
    yield made
    made.close()


@pytest.fixture
def other(write: WriteSide) -> Iterator[Usage]:
    """Another process."""
    made = Usage(write.datastore, pause=3600)
    yield made
    made.close()


@pytest.fixture
def tenant_id(write: WriteSide) -> UUID:
    return new_tenant(write)


def new_tenant(write: WriteSide) -> UUID:
    made = uuid4()
    write.vault.create(made)
    return made


def rows(settings: Settings, tenant_id: UUID) -> list[dict[str, Any]]:
    with psycopg.connect(settings.admin_dsn, row_factory=psycopg.rows.dict_row) as conn:
        found = "SELECT * FROM evosense_ops.model_usage WHERE tenant_id = %s ORDER BY day, model_name, purpose"
        return [{**row, "tenant_id": None} for row in conn.execute(found, (tenant_id,))]


def row(model: str, *, purpose: str = "analysis", day: date | None = None, **figures: int) -> dict[str, Any]:
    columns = ("calls", "cached", "refused", "input_tokens", "output_tokens", "cost")
    return {
        "tenant_id": None,
        "day": day or usage.today(),
        "model_name": model,
        "purpose": purpose,
        **dict.fromkeys(columns, 0),
        **figures,
    }


def test_counts_add_up(counting: Usage, settings: Settings, tenant_id: UUID) -> None:
    for _ in range(2):
        counting.count(tenant_id, "m-1", ONE)
        counting.count(tenant_id, "m-1", Used(), "cached")
        counting.count(tenant_id, "m-1", Used(calls=2, input_tokens=5, cost=7), "refused")
        counting.count(tenant_id, "m-1", Used(calls=1, input_tokens=3, cost=1), "failed")
        counting.count(tenant_id, "m-2", Used(), "failed")
        counting.count(tenant_id, "m-1", Used(calls=1, input_tokens=9, cost=2), purpose="embedding")
        counting.flush()
    assert rows(settings, tenant_id) == [
        row("m-1", calls=8, cached=2, refused=2, input_tokens=216, output_tokens=40, cost=316),
        row("m-1", purpose="embedding", calls=2, input_tokens=18, cost=4),
    ]
    assert counting.spent(tenant_id) == 320, "an embedding costs as well"


def test_a_process_knows_what_it_has_not_written(counting: Usage, tenant_id: UUID) -> None:
    assert counting.spent(tenant_id) == 0
    counting.count(tenant_id, "m-1", ONE)
    assert counting.spent(tenant_id) == 150
    counting.flush()
    assert counting.spent(tenant_id) == 150
    counting.count(tenant_id, "m-2", ONE)
    assert counting.spent(tenant_id) == 300
    assert counting.spent(uuid4()) == 0


def test_what_others_spent_is_seen_with_the_next_write(counting: Usage, other: Usage, tenant_id: UUID) -> None:
    assert counting.spent(tenant_id) == other.spent(tenant_id) == 0
    counting.count(tenant_id, "m-1", ONE)
    counting.flush()
    other.count(tenant_id, "m-1", ONE)
    assert other.spent(tenant_id) == 150
    other.flush()
    assert other.spent(tenant_id) == 300
    counting.flush()
    assert counting.spent(tenant_id) == 300


def test_after_a_restart_the_spending_of_the_day_is_there(write: WriteSide, tenant_id: UUID) -> None:
    before = Usage(write.datastore)
    before.count(tenant_id, "m-1", ONE)
    before.close()
    after = Usage(write.datastore)
    assert after.spent(tenant_id) == 150
    after.close()


def test_it_writes_and_reads_by_itself(write: WriteSide, tenant_id: UUID) -> None:
    one, two = (Usage(write.datastore, pause=0.05) for _ in range(2))
    assert one.spent(tenant_id) == two.spent(tenant_id) == 0
    one.count(tenant_id, "m-1", ONE)
    wait_for(lambda: two.spent(tenant_id) == 150, "the other process to see it")
    one.close()
    two.close()


def test_a_new_day_begins_at_nothing(
    counting: Usage, settings: Settings, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.count(tenant_id, "m-1", ONE)
    assert counting.spent(tenant_id) == 150
    yesterday = usage.today()
    monkeypatch.setattr(usage, "today", lambda: yesterday + timedelta(days=1))
    assert counting.spent(tenant_id) == 0
    counting.count(tenant_id, "m-1", Used(calls=1, cost=4))
    assert counting.spent(tenant_id) == 4
    counting.flush()
    assert counting.spent(tenant_id) == 4
    assert [(found["day"], found["cost"]) for found in rows(settings, tenant_id)] == [
        (yesterday, 150),
        (yesterday + timedelta(days=1), 4),
    ]


def test_many_processes_add_to_the_same_rows(write: WriteSide, settings: Settings) -> None:
    """In whatever order each has counted: neither a deadlock nor a lost count, and nobody ever sees too much."""
    shared = [new_tenant(write) for _ in range(8)]
    gate = threading.Barrier(5)
    failures: list[BaseException] = []

    def process(number: int) -> None:
        datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer", pool_size=1, max_overflow=1)
        own = Usage(datastore, pause=3600)
        try:
            gate.wait(20)
            seen = dict.fromkeys(shared, 0)
            for round_ in range(10):
                for tenant_id in shared[number:] + shared[:number] if round_ % 2 else list(reversed(shared)):
                    own.count(tenant_id, "m-1", ONE)
                    own.count(tenant_id, "m-2", ONE)
                    spent = own.spent(tenant_id)
                    assert seen[tenant_id] + 300 <= spent <= 5 * 10 * 300
                    seen[tenant_id] = spent
                own.flush()
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()
            datastore.close()

    threads = [threading.Thread(target=process, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    for tenant_id in shared:
        assert [(found["calls"], found["cost"]) for found in rows(settings, tenant_id)] == [(50, 7500), (50, 7500)]


def test_while_the_database_is_away_counts_wait(settings: Settings, write: WriteSide, tenant_id: UUID) -> None:
    datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer")
    own = Usage(datastore, pause=3600)
    assert own.spent(tenant_id) == 0
    own.count(tenant_id, "m-1", ONE)
    away = RoleDatastore(at_port(settings.runtime_dsn, 1), "evosense_writer")
    own._datastore = away
    with pytest.raises((psycopg.Error, PersistenceError)):
        own.flush()
    own.count(tenant_id, "m-1", ONE)
    assert own.spent(tenant_id) == 300, "what is known is known without the database"
    with pytest.raises((psycopg.Error, PersistenceError)):
        own.spent(uuid4())
    own._datastore = datastore
    own.flush()
    assert own.spent(tenant_id) == 300
    assert rows(settings, tenant_id) == [row("m-1", calls=2, input_tokens=200, output_tokens=40, cost=300)]
    own.close()
    away.close()
    datastore.close()


def test_old_days_are_forgotten(counting: Usage, settings: Settings, tenant_id: UUID) -> None:
    with administrator(settings) as admin:
        for age in (401, 399):
            admin.execute(
                "INSERT INTO evosense_ops.model_usage (tenant_id, day, model_name, purpose) "
                "VALUES (%s, %s, 'm', 'analysis')",
                (tenant_id, usage.today() - timedelta(days=age)),
            )
    counting.count(tenant_id, "m-1", ONE)
    counting.flush()
    assert [(usage.today() - found["day"]).days for found in rows(settings, tenant_id)] == [399, 0]


def test_a_tenant_sees_its_own(counting: Usage, settings: Settings, write: WriteSide) -> None:
    mine, theirs = new_tenant(write), new_tenant(write)
    for one in (mine, theirs):
        counting.count(one, "m-1", ONE)
    counting.flush()
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        query = "SELECT tenant_id FROM evosense_ops.model_usage"
        assert conn.execute(query).fetchall() == []
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(mine),))
        assert conn.execute(query).fetchall() == [(mine,)]
        for statement in ("DELETE FROM evosense_ops.model_usage", "SELECT FROM evosense_ops.answer_cache"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_a_tenant_is_forgotten(settings: Settings) -> None:
    side = write_side(settings)
    gone, stays = new_tenant(side), new_tenant(side)
    for one in (gone, stays):
        side.usage.count(one, "m-1", ONE)
    side.usage.flush()
    side.usage.count(gone, "m-1", ONE)  # not written yet
    side.usage.forget(gone)
    assert rows(settings, gone) == []
    assert len(rows(settings, stays)) == 1
    # Another process may still count for it when its key is gone.
    with administrator(settings) as admin:
        admin.execute("DELETE FROM evosense_log.tenant_keys WHERE tenant_id = %s", (gone,))
    side.usage.count(gone, "m-1", ONE)
    side.usage.count(stays, "m-1", ONE)
    side.close()
    assert rows(settings, gone) == []
    assert rows(settings, stays)[0]["calls"] == 2


def test_prometheus_hears_of_models_and_of_no_tenant(counting: Usage, tenant_id: UUID) -> None:
    counting.count(tenant_id, "m-telemetry", Used(calls=1, input_tokens=7, output_tokens=3, cost=1_500_000))
    counting.count(tenant_id, "m-telemetry", Used(), "failed")
    told = {"model": "m-telemetry", "purpose": "analysis"}
    sample = REGISTRY.get_sample_value
    assert sample("evosense_model_answers_total", {**told, "outcome": "answered"}) == 1
    assert sample("evosense_model_answers_total", {**told, "outcome": "failed"}) == 1
    assert sample("evosense_model_tokens_total", {**told, "direction": "input"}) == 7
    assert sample("evosense_model_tokens_total", {**told, "direction": "output"}) == 3
    assert sample("evosense_model_cost_usd_total", told) == 1.5
