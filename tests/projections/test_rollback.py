"""Keeping the old tables at a rebuild, bringing them back up to date with the log, and forgetting them."""

from collections.abc import Iterator

import pytest
from psycopg.sql import SQL, Identifier

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import read_side
from projections import build as build_module
from projections.builds import BuildError
from projections.faults import PoisonEvent
from projections.metrics import MetricsProjection
from projections.rebuild import RebuildReport, forget_kept, rollback
from projections.sharding import lay_out
from tests.support.rebuilding import (
    StoppedHereError,
    System,
    Watched,
    a_system,
    appending_meanwhile,
    projecting_meanwhile,
    stop_at,
)
from tests.support.systems import administrator, parked, positions, wait_for
from tests.support.world import tampered


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[System]:
    """A history in the module's database that grows from test to test."""
    with administrator(settings) as admin:
        system = System(settings, admin, 4)
        system.grow(300)
        yield system
        system.close()


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres, 6) as system:
        yield system


@pytest.fixture(autouse=True)
def nothing_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "shared" in request.fixturenames:
        shared: System = request.getfixturevalue("shared")
        with shared.read.connect() as conn:
            forget_kept(shared.read.builder, conn)
        assert shared.build_schemas() == set()


def rolled_back(system: System, watcher: Watched | None = None, *, keep: bool = False) -> RebuildReport:
    return rollback(system.builder(), watcher or Watched(), keep=keep)


def mark(system: System, text: str) -> None:
    """Tell the live tables from others: what is marked is not what the log says."""
    system.admin.execute("UPDATE evosense.tenancy_tenant SET plan = %s", (text,))


def marks(system: System, schema: str = "evosense") -> set[str]:
    query = SQL("SELECT plan FROM {}").format(Identifier(schema, "tenancy_tenant"))
    return {plan for (plan,) in system.admin.execute(query)}


def test_the_old_tables_come_back_at_the_head_of_the_log(shared: System) -> None:
    mark(shared, "enterprise")
    report = shared.rebuild(keep=True)
    assert report.kept is not None
    assert shared.build_schemas() == {report.kept}
    assert marks(shared, report.kept) == {"enterprise"}
    assert marks(shared) == {"pro"}
    since = shared.head
    shared.grow(200)
    events = shared.one("SELECT count(*) FROM evosense_log.stored_events WHERE notification_id > %s", since)
    watcher = Watched()
    back = rolled_back(shared, watcher)
    assert watcher.resumed_at == since
    assert back.events == events
    assert back.position == shared.head
    assert back.kept is None
    assert marks(shared) == {"enterprise"}
    assert positions(shared.admin) == {shared.head}
    assert shared.builds() == []
    assert shared.build_schemas() == set()
    mark(shared, "pro")
    shared.grow(100)
    rows = shared.contents()
    assert rows == shared.projected_afresh()


def test_a_way_back_from_the_way_back(shared: System) -> None:
    mark(shared, "enterprise")
    shared.rebuild(keep=True)
    shared.grow(20)
    kept = rolled_back(shared, keep=True).kept
    assert kept is not None
    assert marks(shared) == {"enterprise"}
    assert marks(shared, kept) == {"pro"}
    shared.grow(20)
    assert rolled_back(shared, keep=True).kept
    assert marks(shared) == {"pro"}
    rows = shared.contents()
    assert rows == shared.projected_afresh()


def test_nothing_was_kept(shared: System) -> None:
    before = shared.contents()
    with pytest.raises(BuildError, match="nothing was kept: a rebuild keeps the old tables with --keep"):
        rolled_back(shared)
    shared.rebuild()
    with pytest.raises(BuildError, match="nothing was kept"):
        rolled_back(shared)
    assert shared.contents() == before


def test_a_schema_that_was_migrated_since_is_refused(shared: System) -> None:
    shared.rebuild(keep=True)
    before = shared.contents()
    shared.admin.execute("CREATE TABLE public.was AS SELECT * FROM evosense_ops.schema_migrations")
    try:
        shared.admin.execute("UPDATE evosense_ops.schema_migrations SET version = version + 100")
        with pytest.raises(BuildError, match=r"of schema version \d+, and the database was migrated since.*rebuild"):
            rolled_back(shared)
    finally:
        shared.admin.execute("UPDATE evosense_ops.schema_migrations SET version = version - 100")
        shared.admin.execute("DROP TABLE public.was")
    assert shared.contents() == before
    assert len(shared.builds()) == 1


def test_what_was_kept_can_be_dropped(shared: System) -> None:
    kept = shared.rebuild(keep=True).kept
    with shared.read.connect() as conn:
        assert forget_kept(shared.read.builder, conn) == [kept]
        assert forget_kept(shared.read.builder, conn) == []
    assert shared.build_schemas() == set()


def test_a_later_rebuild_drops_what_was_kept_of_the_same_tables(shared: System) -> None:
    first = shared.rebuild(keep=True).kept
    second = shared.rebuild(keep=True).kept
    assert shared.build_schemas() == {second} != {first}
    shared.rebuild(["metrics"])
    assert shared.build_schemas() == set()


def test_a_part_is_kept_and_brought_back(shared: System) -> None:
    mark(shared, "enterprise")
    kept = shared.rebuild(["metrics", "tenancy"], keep=True).kept
    [build] = shared.builds()
    assert build.schema_name == kept
    assert build.projections == ["tenancy", "metrics"]
    shared.grow(100)
    before = shared.contents()
    report = rolled_back(shared)
    assert set(report.rows) == set(build.tables)
    assert marks(shared) == {"enterprise"}
    mark(shared, "pro")
    assert shared.contents() == before
    assert report.invalid == ()
    assert shared.one("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    rows = shared.contents()
    assert rows == shared.projected_afresh()


def test_parts_that_were_kept_one_after_the_other(shared: System) -> None:
    mark(shared, "enterprise")
    shared.rebuild(["tenancy"], keep=True)
    shared.rebuild(["metrics"], keep=True)
    assert len(shared.builds()) == 2
    assert set(rolled_back(shared).rows) == set(MetricsProjection.tables)
    assert rolled_back(shared).rows.keys() == {"tenancy_tenant"}
    assert marks(shared) == {"enterprise"}
    mark(shared, "pro")
    rows = shared.contents()
    assert rows == shared.projected_afresh()


def test_interrupted_it_goes_on(shared: System) -> None:
    shared.rebuild(keep=True)
    since = shared.head
    shared.grow(200)
    live = shared.contents()
    with pytest.raises(StoppedHereError):
        rollback(shared.builder(40), Watched(stop_at("loaded", 2)))
    assert shared.contents() == live
    watcher = Watched()
    rolled_back(shared, watcher)
    assert watcher.resumed_at is not None
    assert since < watcher.resumed_at < shared.head
    assert shared.contents() == live


def test_shards_that_stood_apart_when_they_were_kept(system: System) -> None:
    system.grow(0)
    lay_out(system.builder(), 3)
    system.grow(300, project=False)
    behind = read_side(system.settings, batch=20)
    wait_for(lambda: behind.engine.run_once() > 0, "the engine has the leases")
    behind.engine.close()
    behind.close()
    stood = dict(
        system.admin.execute("SELECT shard, max(position) FROM evosense_ops.projection_checkpoints GROUP BY 1")
    )
    assert len(set(stood.values())) > 1, "the test needs shards that stand apart"
    system.rebuild(keep=True)
    [kept] = system.builds()
    assert kept.positions == [stood[shard] for shard in sorted(stood)]
    rows = system.contents()
    system.grow(100)
    assert positions(system.admin) == {system.head}
    live = system.contents()
    assert live != rows
    rolled_back(system)
    assert system.contents() == live == system.projected_afresh()


def test_beside_projectors_and_new_events(system: System) -> None:
    system.grow(200)
    with projecting_meanwhile(system):
        with appending_meanwhile(system):
            for _ in range(2):
                system.rebuild(keep=True)
                rolled_back(system, keep=True)
                rolled_back(system)
        wait_for(lambda: positions(system.admin) == {system.head}, "the engine comes to the head")
    assert parked(system.admin) == {}
    rows = system.contents()
    assert rows == system.projected_afresh()


def test_poison_stops_it_and_leaves_what_is_live(system: System) -> None:
    system.grow(100)
    system.rebuild(keep=True)
    system.grow(100)
    last = system.one("SELECT max(id) FROM evosense.messages_message")
    live = system.contents()
    tampered(system.admin, last)
    with pytest.raises(PoisonEvent, match=f"position {last} "):
        rolled_back(system)
    assert system.contents() == live
    tampered(system.admin, last)
    rolled_back(system)
    assert system.contents() == live


def test_the_program_from_before_brings_its_tables_back(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback is of a changed program most of all: it is not the fingerprint that decides."""
    shared.rebuild(keep=True)
    monkeypatch.setattr(build_module, "fingerprint", lambda: "another program")
    before = shared.contents()
    rolled_back(shared)
    assert shared.contents() == before


def test_what_was_parked_when_they_were_kept_comes_in_as_well(system: System) -> None:
    """The kept tables are without it, and the list of parked events forgot it at the swap."""
    system.grow(200, project=False)
    whole = system.projected_afresh()
    position = system.one("SELECT id FROM evosense.messages_message ORDER BY id OFFSET 20 LIMIT 1")
    tampered(system.admin, position)
    assert system.projected_afresh() != whole
    assert position in parked(system.admin)
    tampered(system.admin, position)
    system.rebuild(keep=True)
    assert system.contents() == whole
    assert parked(system.admin) == {}
    rolled_back(system)
    assert system.contents() == whole
    assert system.builds() == []
