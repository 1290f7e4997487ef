"""Looking back: the read models as they were at a position, in a schema that can be queried like the live one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import read_side
from projections import replay as replay_module
from projections.builds import BuildError
from projections.faults import PoisonEvent
from projections.replay import forget, position_at, replay
from projections.sharding import lay_out
from tests.support.rebuilding import StoppedHereError, System, Watched, a_system, stop_at
from tests.support.systems import administrator, parked, tables, wait_for
from tests.support.world import tampered


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[System]:
    """A history in the module's database, projected."""
    with administrator(settings) as admin:
        system = System(settings, admin, 21)
        system.grow(400)
        yield system
        system.close()


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "shared" in request.fixturenames:
        shared: System = request.getfixturevalue("shared")
        for build in shared.builds():
            forget(shared.read.builder, build.schema_name)
        assert shared.build_schemas() == set()


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres, 22) as system:
        yield system


def looked_back(system: System, schema: str, until: int, watcher: Watched | None = None, *, batch: int = 60) -> None:
    watcher = watcher or Watched()
    replay(
        system.builder(batch),
        schema,
        until,
        lambda events, position: watcher.loaded(events, position, until),
        watcher.making,
    )


def rows(system: System, schema: str) -> dict[str, list[str]]:
    """Every row of the tables in a schema."""
    found = {}
    for table in tables(system.admin):
        query = SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(Identifier(schema, table))
        found[table] = [row for (row,) in system.admin.execute(query)]
    return found


@contextmanager
def as_app(system: System, schema: str, tenant_id: UUID | None) -> Iterator[psycopg.Connection[Any]]:
    """The application's role, with a schema in front, for a tenant or for none."""
    with psycopg.connect(system.settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        conn.execute("SELECT set_config('search_path', %s, false)", (f"{schema}, public",))
        if tenant_id is not None:
            conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant_id),))
        yield conn


# ------------------------------------------------------------------------------------------------ as it was


def test_it_is_what_the_tables_were_at_that_position(system: System) -> None:
    """Collected while the log was projected batch by batch."""
    system.grow(300, project=False)
    slow = read_side(system.settings, batch=37)
    wait_for(lambda: slow.engine.run_once() > 0, "the engine has the lease")
    history = {}
    while True:
        position = system.one("SELECT max(position) FROM evosense_ops.projection_checkpoints")
        history[position] = system.contents()
        if not slow.engine.run_once():
            break
    slow.close()
    assert len(history) > 5
    live = system.contents()
    for number, position in enumerate([0, 1, *sorted(history)[::3], max(history)]):
        schema = f"then_{number}"
        looked_back(system, schema, position)
        found = rows(system, schema)
        if position in history:
            assert found == history[position], position
        else:
            assert sum(len(one) for one in found.values()) <= position
        forget(system.read.builder, schema)
    assert system.contents() == live


def test_nothing_live_is_changed(shared: System) -> None:
    before, checkpoints = shared.contents(), shared.checkpoints()
    looked_back(shared, "march", shared.head // 2)
    assert shared.contents() == before
    assert shared.checkpoints() == checkpoints
    shared.admin.execute("DELETE FROM march.messages_message")
    shared.admin.execute("UPDATE march.tenancy_tenant SET name = 'x'")
    assert shared.contents() == before
    forget(shared.read.builder, "march")
    assert shared.contents() == before
    assert shared.build_schemas() == set()


def test_a_moment_is_the_last_position_recorded_by_then(shared: System) -> None:
    recorded = shared.admin.execute(
        "SELECT notification_id, recorded_at FROM evosense_log.stored_events ORDER BY notification_id"
    ).fetchall()
    first, last = recorded[0], recorded[-1]
    with shared.read.connect() as conn:
        assert position_at(conn, first[1] - timedelta(seconds=1)) == 0
        assert position_at(conn, last[1] + timedelta(days=1)) == last[0]
        for _, moment in recorded[:: len(recorded) // 7]:
            assert position_at(conn, moment) == max(p for p, at in recorded if at <= moment)


def test_before_the_first_event_there_is_nothing(shared: System) -> None:
    looked_back(shared, "before", 0)
    assert not any(rows(shared, "before").values())


# ------------------------------------------------------------------------------------------------ to be queried


def test_the_application_sees_its_tenant_s_rows_and_no_others(shared: System) -> None:
    looked_back(shared, "march", shared.head)
    for tenant_id in shared.world.tenants:
        with as_app(shared, "march", tenant_id) as conn:
            seen = conn.execute("SELECT DISTINCT tenant_id FROM messages_message").fetchall()
            assert seen == [(tenant_id,)]
            here = conn.execute("SELECT 'messages_message'::regclass = 'march.messages_message'::regclass").fetchone()
            assert here == (True,)
    with as_app(shared, "march", None) as conn:
        for table in tables(shared.admin):
            look = SQL("SELECT count(*) FROM {}")
            try:
                seen = conn.execute(look.format(Identifier("march", table))).fetchall()
                # Prompts have no tenant.
                assert (seen == [(0,)]) == (table != "experiments_prompttemplate"), table
            except psycopg.errors.InsufficientPrivilege:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(look.format(Identifier("evosense", table)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("DELETE FROM march.messages_message")


def test_its_views_and_its_search_show_the_past(shared: System) -> None:
    tenant_id = shared.world.tenants[0]
    births = "SELECT id FROM evosense.messages_message WHERE tenant_id = %s ORDER BY id OFFSET 20 LIMIT 1"
    until = shared.one(births, tenant_id)
    looked_back(shared, "march", until)
    whole = "SELECT total_messages FROM {}tenant_metrics WHERE tenant_id = %s"
    # Of both models that the history has vectors of; the documented function searches one.
    nearest = (
        "SELECT message_id FROM {0}nearest_messages(%(tenant)s, array_fill(0.1, ARRAY[768])::vector, '{1}', 1000, -1)"
    )
    search = f"{nearest.format('{0}', 'e-1')} UNION ALL {nearest.format('{0}', 'e-2')}"
    documented = "SELECT message_id FROM semantic_search(%s, array_fill(0.1, ARRAY[768])::vector, 1000, -1)"
    with as_app(shared, "march", tenant_id) as conn:
        assert conn.execute(whole.format("").encode(), (tenant_id,)).fetchone() == (21,)
        assert conn.execute(whole.format("evosense.").encode(), (tenant_id,)).fetchone() != (21,)
        then = {found for (found,) in conn.execute(search.format("").encode(), {"tenant": tenant_id})}
        now = {found for (found,) in conn.execute(search.format("evosense.").encode(), {"tenant": tenant_id})}
        of_one_model = {found for (found,) in conn.execute(documented.encode(), (tenant_id,))}
        vectors = "SELECT message_id, model, embedding_model(tenant_id) FROM {}messages_embedding"
        stood = conn.execute(vectors.format("").encode()).fetchall()
        stands = conn.execute(vectors.format("evosense.").encode()).fetchall()
    assert then == {found for found, _, _ in stood}
    assert now == {found for found, _, _ in stands}
    assert then
    assert max(then) <= until
    assert then != now
    assert of_one_model
    assert of_one_model == {found for found, model, answering in stood if model == answering}
    by_author = shared.one("SELECT sum(total_messages) FROM march.tenant_metrics_by_author")
    assert by_author == shared.one("SELECT count(*) FROM march.messages_message")


def test_it_has_the_indexes_and_keys_of_the_live_tables(shared: System) -> None:
    looked_back(shared, "march", shared.head)
    names = "SELECT array_agg(indexname ORDER BY indexname) FROM pg_indexes WHERE schemaname = %s"
    assert shared.one(names, "march") == shared.one(names, "evosense")
    keys = "SELECT count(*) FROM pg_constraint WHERE connamespace = to_regnamespace(%s) AND contype = 'f'"
    assert shared.one(keys, "march") == shared.one(keys, "evosense")


# ------------------------------------------------------------------------------------------------ refused


def test_names_that_can_t_be(shared: System) -> None:
    shared.admin.execute("CREATE SCHEMA reports")
    shared.admin.execute("CREATE TABLE reports.own (n int)")
    looked_back(shared, "march", 10)
    before = shared.contents()
    try:
        cases = {
            "march": "schema march is a build already: drop it first, or take another name",
            "reports": "reports exists",
            "evosense": "is not a name",
            "public": "is not a name",
            "pg_stuff": "is not a name",
            "Março": "is not a name",
            "a b": "is not a name",
            "x; DROP SCHEMA evosense": "is not a name",
            "": "is not a name",
            "a" * 64: "is not a name",
        }
        for name, expected in cases.items():
            with pytest.raises(BuildError, match=expected):
                looked_back(shared, name, 11)
    finally:
        shared.admin.execute("DROP SCHEMA reports CASCADE")
    assert [build.schema_name for build in shared.builds()] == ["march"]
    assert shared.contents() == before


def test_a_position_that_is_not_there_yet(shared: System) -> None:
    with pytest.raises(BuildError, match=f"the log ends at position {shared.head}: there is no position 999999 yet"):
        looked_back(shared, "march", 999_999)
    assert shared.builds() == []


def test_only_a_replay_can_be_dropped(shared: System) -> None:
    with pytest.raises(BuildError, match="there is no replay in a schema march"):
        forget(shared.read.builder, "march")
    kept = shared.rebuild(keep=True).kept
    assert kept is not None
    with pytest.raises(BuildError, match=f"there is no replay in a schema {kept}"):
        forget(shared.read.builder, kept)
    with shared.read.connect() as conn:
        [build] = shared.builds()
        shared.read.builder.drop(conn, build)


def test_somebody_s_view_over_it_is_not_dropped_along(shared: System) -> None:
    looked_back(shared, "march", 10)
    shared.admin.execute("CREATE VIEW public.of_march AS SELECT id FROM march.tenancy_tenant")
    try:
        with pytest.raises(BuildError, match=r"view (public.)?of_march depends on"):
            forget(shared.read.builder, "march")
        assert [build.schema_name for build in shared.builds()] == ["march"]
    finally:
        shared.admin.execute("DROP VIEW public.of_march")


# ---------------------------------------------------------------------------------------------- interrupted, set aside


@pytest.mark.parametrize("step", ["loaded", "index", "security"])
def test_interrupted_it_goes_on(shared: System, step: str) -> None:
    first, second = Watched(stop_at(step, 2)), Watched()
    with pytest.raises(StoppedHereError):
        looked_back(shared, "march", shared.head, first)
    [left] = shared.builds()
    looked_back(shared, "march", shared.head, second)
    if step == "loaded":
        assert second.positions[0] > left.position > 0
    else:
        assert second.positions == [], "what was loaded is not loaded again"
    assert [build.id for build in shared.builds()] == [left.id]
    assert rows(shared, "march") == shared.contents()


def test_killed_before_the_last_step_it_is_published_by_the_next_run(
    shared: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object, **__: object) -> None:
        raise StoppedHereError

    with monkeypatch.context() as patched:
        patched.setattr(replay_module._BUILDS, "build_publish", dead)
        with pytest.raises(StoppedHereError):
            looked_back(shared, "march", 50)
    watcher = Watched()
    looked_back(shared, "march", 50, watcher)
    assert watcher.positions == []
    with as_app(shared, "march", shared.world.tenants[0]) as conn:
        assert conn.execute("SELECT count(*) FROM march.tenant_metrics").fetchone() == (1,)


def test_interrupted_and_then_wanted_at_another_position(shared: System) -> None:
    with pytest.raises(StoppedHereError):
        looked_back(shared, "march", shared.head, Watched(stop_at("index")))
    looked_back(shared, "march", 1)
    assert sum(len(found) for found in rows(shared, "march").values()) == 1


def test_the_same_name_at_the_same_time(shared: System) -> None:
    """The second is told so, and the first goes on."""
    refusals: list[str] = []

    def second(step: str) -> None:
        if step == "index" and not refusals:
            with pytest.raises(BuildError) as refused:
                looked_back(shared, "march", shared.head)
            refusals.append(str(refused.value))

    looked_back(shared, "march", shared.head, Watched(second))
    assert "another process is working on schema march" in refusals[0]
    assert rows(shared, "march") == shared.contents()


def test_what_is_parked_is_left_out_and_poison_is_named(system: System) -> None:
    system.grow(150)
    live = system.contents()
    position = system.one("SELECT id FROM evosense.messages_message ORDER BY id OFFSET 20 LIMIT 1")
    tampered(system.admin, position)
    with pytest.raises(PoisonEvent, match=f"position {position} "):
        looked_back(system, "march", system.head)
    looked_back(system, "before_it", position - 1)
    assert system.contents() == live
    without = system.projected_afresh()
    assert position in parked(system.admin)
    forget(system.read.builder, "march")
    looked_back(system, "march", system.head)
    assert rows(system, "march") == without


def test_it_does_not_depend_on_the_shards(system: System) -> None:
    system.grow(150)
    lay_out(system.builder(), 3)
    looked_back(system, "march", system.head)
    assert rows(system, "march") == system.contents()


def test_a_rebuild_beside_it_changes_nothing(shared: System) -> None:
    before = shared.contents()
    looked_back(shared, "march", shared.head // 2)
    then = rows(shared, "march")
    shared.rebuild()
    assert rows(shared, "march") == then
    assert shared.contents() == before
    assert [build.schema_name for build in shared.builds()] == ["march"]
