"""Rebuilding beside the live tables: the same rows, through kills and poison, while everything else goes on."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from api.wiring import read_side
from projections import build as build_module
from projections.build import REBUILD_GUARD
from projections.builds import BuildError
from projections.faults import PoisonEvent
from projections.rebuild import AlreadyRunning
from projections.swap import StillInUse
from tests.support.rebuilding import (
    NAMES,
    StoppedHereError,
    System,
    Watched,
    a_system,
    appending_meanwhile,
    killed,
    projecting_meanwhile,
    run,
    session_gone,
    stop_at,
)
from tests.support.systems import administrator, drain, parked, positions, wait_for
from tests.support.world import tampered

#: Where the appender of a test keeps what it tampers with.
ONE_EACH = [(name,) for name in NAMES]
PAIRS = list(itertools.combinations(NAMES, 2))


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[System]:
    """A history in the module's database, projected; for tests that leave its rows as they were."""
    with administrator(settings) as admin:
        system = System(settings, admin, 42)
        system.grow(1000)
        yield system
        system.close()


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres) as system:
        yield system


def spoilt(system: System) -> None:
    """A row too many, one too few and one that is wrong, in tables of several contexts."""
    system.admin.execute("UPDATE evosense.tenancy_tenant SET name = 'verfälscht', status = 'suspended'")
    system.admin.execute("UPDATE evosense.messages_message SET text = 'verfälscht', sentiment = 1")
    system.admin.execute("UPDATE evosense.experiments_inference SET latency_ms = 7")
    system.admin.execute("UPDATE evosense.metrics_rollup SET messages = messages + 5")
    system.admin.execute("DELETE FROM evosense.metrics_latency")
    system.admin.execute("DELETE FROM evosense.messages_embedding")


# ------------------------------------------------------------------------------------------------ the same rows


def test_the_same_rows_whatever_was_in_the_tables(shared: System) -> None:
    before = shared.contents()
    spoilt(shared)
    assert shared.contents() != before
    report = shared.rebuild()
    assert shared.contents() == before
    assert report.rows == {table: len(rows) for table, rows in before.items()}
    assert report.events == shared.one("SELECT count(*) FROM evosense_log.stored_events")
    assert report.position == shared.head
    assert report.invalid == ()
    assert report.kept is None
    assert positions(shared.admin) == {shared.head}
    assert shared.builds() == []
    assert shared.build_schemas() == set()


@pytest.mark.parametrize("names", [*ONE_EACH, *PAIRS], ids="+".join)
def test_some_contexts_alone(shared: System, names: tuple[str, ...]) -> None:
    """Only theirs are made anew; what others point at stays what it was."""
    before = shared.contents()
    # In any order: they are made in the order in which they depend on one another.
    report = shared.rebuild(list(reversed(names)))
    assert shared.contents() == before
    assert report.invalid == ()
    assert positions(shared.admin) == {shared.head}
    unvalidated = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated"
    assert shared.one(unvalidated) == 0


def test_a_part_repairs_its_own_tables_and_no_others(shared: System) -> None:
    before = shared.contents()
    spoilt(shared)
    shared.rebuild(["metrics"])
    after = shared.contents()
    wrong = {table for table in before if after[table] != before[table]}
    assert wrong == {"tenancy_tenant", "messages_message", "messages_embedding", "experiments_inference"}
    shared.rebuild(["messages", "tenancy"])
    after = shared.contents()
    assert {table for table in before if after[table] != before[table]} == {"experiments_inference"}
    shared.rebuild(["experiments"])
    assert shared.contents() == before


def test_the_size_of_the_batches_changes_nothing(shared: System) -> None:
    before = shared.contents()
    for batch in (1, 7, 5000):
        shared.rebuild(batch=batch)
        assert shared.contents() == before, f"batches of {batch}"


def test_no_event_is_appended_and_the_log_is_not_touched(shared: System) -> None:
    digest = "SELECT count(*), sum(hashtextextended(e::text, 0)::numeric) FROM evosense_log.stored_events AS e"
    before = shared.admin.execute(digest).fetchone()
    heard: list[Any] = []
    with administrator(shared.settings) as listener:
        listener.execute("LISTEN evosense_log")
        shared.rebuild()
        heard += listener.notifies(timeout=0.1)
    assert shared.admin.execute(digest).fetchone() == before
    assert heard == [], "the relay and the worker hear of nothing"


def test_what_waits_for_a_position_hears_of_the_swap(shared: System) -> None:
    with administrator(shared.settings) as listener:
        listener.execute("LISTEN evosense_projected")
        shared.rebuild(["tenancy"])
        heard = [one.payload for one in listener.notifies(timeout=5, stop_after=1)]
    assert heard == ["rebuilt"]


def test_a_context_that_is_none_is_named(shared: System) -> None:
    with pytest.raises(BuildError, match="there is no projection mesages: there are tenancy, authn, ") as refused:
        shared.rebuild(["mesages"])
    assert "metrics" in str(refused.value)
    assert shared.builds() == []


# ------------------------------------------------------------------------------------------------ little in the log


@pytest.mark.parametrize("names", [(), ("messages",), ("billing", "metrics")], ids=["all", "messages", "two"])
def test_an_empty_log(system: System, names: tuple[str, ...]) -> None:
    report = system.rebuild(names)
    assert report.events == 0
    assert report.position == 0
    assert not any(report.rows.values())
    assert positions(system.admin) == {0}
    system.grow(50)
    assert system.contents() == system.projected_afresh()


def test_a_log_without_a_single_message(system: System) -> None:
    """Nothing in it is of any interest to some contexts, which still come to its head."""
    system.grow(0)
    before = system.contents()
    for names in (("messages",), ("metrics",), ("tenancy",), ()):
        report = system.rebuild(names)
        assert report.events == (0 if names in (("messages",), ("metrics",)) else report.events)
        assert positions(system.admin) == {system.head}
        assert system.contents() == before
    system.grow(50)
    assert system.contents() == system.projected_afresh()


def test_a_rare_kind_of_event_is_not_looked_for_one_by_one(shared: System) -> None:
    """A log of mostly messages, of which a context reads a few events: it folds those alone, in long stretches."""
    watcher = Watched()
    report = shared.rebuild(["tenancy"], watcher, batch=50)
    topics = "SELECT count(*) FROM evosense_log.stored_events WHERE topic LIKE 'tenancy.%'"
    assert report.events == shared.one(topics)
    assert len(watcher.positions) <= shared.head // (8 * 50) + 1


# ------------------------------------------------------------------------------------------------ poison


def some_message(system: System) -> tuple[int, str]:
    row = system.admin.execute("SELECT id, text FROM evosense.messages_message ORDER BY id OFFSET 60 LIMIT 1")
    position, words = row.fetchone() or (0, "")
    return position, words


def test_a_poison_event_stops_it_at_once_and_it_goes_on_when_the_cause_is_gone(system: System) -> None:
    system.grow(600)
    before, checkpoints = system.contents(), system.checkpoints()
    position, words = some_message(system)
    tampered(system.admin, position)
    with pytest.raises(PoisonEvent) as poison:
        system.rebuild(batch=40)
    assert f"the event at position {position} (messages.MessageReceived:1, " in str(poison.value)
    assert "sealed part does not fit" in str(poison.value)
    assert words not in str(poison.value)
    assert poison.value.__suppress_context__
    assert system.contents() == before
    assert system.checkpoints() == checkpoints
    assert parked(system.admin) == {}
    # Again: it stops at the same place, without beginning anew.
    with pytest.raises(PoisonEvent, match=f"position {position} "):
        system.rebuild([], watcher := Watched(), batch=40)
    assert watcher.resumed_at
    assert position - 40 <= watcher.resumed_at < position
    tampered(system.admin, position)  # a second time: as it was
    watcher = Watched()
    report = system.rebuild([], watcher)
    assert watcher.resumed_at
    assert watcher.positions[0] > position
    assert 0 < report.events < system.head
    assert system.contents() == before


def test_a_constraint_that_refuses_an_event_is_named_without_the_row(system: System) -> None:
    system.grow(300)
    before = system.contents()
    position, words = some_message(system)
    check = f"ALTER TABLE evosense.messages_message ADD CONSTRAINT no_more CHECK (id <> {position}) NOT VALID"
    system.admin.execute(check.encode())
    with pytest.raises(PoisonEvent) as poison:
        system.rebuild()
    assert f"position {position} " in str(poison.value)
    assert "CheckViolation (constraint no_more)" in str(poison.value)
    assert words not in str(poison.value)
    assert system.contents() == before


def test_it_goes_on_past_an_event_that_was_skipped(system: System) -> None:
    system.grow(300)
    position, _ = some_message(system)
    tampered(system.admin, position)
    with pytest.raises(PoisonEvent):
        system.rebuild(batch=40)
    with system.read.connect() as conn:
        assert not system.read.parked.skip(conn, position, "a test"), "it is not parked"
        assert system.read.parked.skip(conn, position, "a test", unparked=True)
        assert not system.read.parked.skip(conn, 999_999, "a test", unparked=True)
    watcher = Watched()
    system.rebuild([], watcher)
    assert watcher.resumed_at
    rows = system.contents()
    assert system.one("SELECT count(*) FROM evosense.messages_message WHERE id = %s", position) == 0
    assert rows == system.projected_afresh()
    assert parked(system.admin) == {}


def test_parked_events_are_projected_and_leave_the_list(system: System) -> None:
    system.grow(200, project=False)
    whole = system.projected_afresh()
    position, _ = some_message(system)
    tampered(system.admin, position)
    assert system.projected_afresh() != whole
    held_back = set(parked(system.admin))
    assert min(held_back) == position
    tampered(system.admin, position)
    # A part takes only itself off: the others are still without these events.
    system.rebuild(["messages", "metrics"])
    left = system.admin.execute("SELECT position, projections FROM evosense_ops.parked_events").fetchall()
    assert {found for found, _ in left} == held_back
    for _, projections in left:
        assert sorted(projections) == sorted(set(NAMES) - {"messages", "metrics"})
    for table in ("messages_message", "messages_embedding", "metrics_message", "metrics_rollup"):
        assert system.contents()[table] == whole[table]
    system.rebuild([name for name in NAMES if name not in ("messages", "metrics")])
    assert parked(system.admin) == {}
    assert system.contents() == whole


# ------------------------------------------------------------------------------------------------ interrupted


@pytest.mark.parametrize("step", ["began", "loaded", "index", "foreign key", "trigger", "security", "statistics"])
def test_stopped_at_any_step_it_goes_on_where_it_was(shared: System, step: str) -> None:
    before = shared.contents()
    with pytest.raises(StoppedHereError):
        shared.rebuild([], Watched(stop_at(step, 2 if step not in ("began", "trigger") else 1)), batch=100)
    assert shared.contents() == before
    [left] = shared.builds()
    assert shared.build_schemas() == {left.schema_name}
    first = Watched()
    report = shared.rebuild([], first)
    assert first.resumed_at == left.position
    if step not in ("began", "loaded"):
        assert report.events == 0, "what was loaded is not loaded again"
        assert first.resumed_at == shared.head
    assert shared.contents() == before
    assert shared.builds() == []
    assert shared.build_schemas() == set()


def test_what_was_made_is_not_made_again(shared: System) -> None:
    first, second = Watched(stop_at("security")), Watched()
    with pytest.raises(StoppedHereError):
        shared.rebuild([], first)
    shared.rebuild([], second)
    assert not set(first.made[:-1]) & set(second.made)
    assert {one.kind for one in first.made[:-1]} == {"index", "foreign key", "trigger"}


def test_more_was_appended_before_it_went_on(system: System) -> None:
    system.grow(300)
    for step in ("loaded", "index"):
        with pytest.raises(StoppedHereError):
            system.rebuild([], Watched(stop_at(step)), batch=50)
        system.grow(200)
    system.rebuild()
    rows = system.contents()
    assert rows == system.projected_afresh()


@pytest.mark.parametrize("changed", ["program", "schema"])
def test_a_build_of_another_program_or_schema_is_begun_anew(
    shared: System, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shared.contents()
    with pytest.raises(StoppedHereError):
        shared.rebuild([], Watched(stop_at("index")))
    [left] = shared.builds()
    assert left.position
    if changed == "program":
        monkeypatch.setattr(build_module, "fingerprint", lambda: "another program")
    else:
        shared.admin.execute("UPDATE evosense_ops.builds SET schema_version = schema_version - 1")
    watcher = Watched()
    shared.rebuild([], watcher)
    assert watcher.resumed_at is None
    assert watcher.builds[-1][0].id != left.id
    assert shared.contents() == before
    assert shared.build_schemas() == set()


def test_a_build_of_other_contexts_is_dropped(shared: System) -> None:
    with pytest.raises(StoppedHereError):
        shared.rebuild([], Watched(stop_at("index")))
    watcher = Watched()
    shared.rebuild(["tenancy"], watcher)
    assert watcher.resumed_at is None
    assert shared.builds() == []
    assert shared.build_schemas() == set()


def test_the_build_of_a_session_that_was_lost_is_not_swapped(system: System) -> None:
    """Whoever has lost its guard may not be alone any more."""
    system.grow(100)
    before = system.contents()

    def lost() -> None:
        system.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s "
            "AND classid = 'evosense_ops.builds'::regclass",
            (REBUILD_GUARD,),
        )

    with pytest.raises(psycopg.OperationalError):
        system.rebuild(before_swap=lost)
    assert system.contents() == before
    assert [build.state for build in system.builds()] == ["ready"]
    watcher = Watched()
    assert system.rebuild([], watcher).events == 0
    assert watcher.resumed_at == system.head


def test_two_at_once_are_refused(shared: System) -> None:
    refusals: list[str] = []

    def second() -> None:
        with pytest.raises(AlreadyRunning) as refused:
            shared.rebuild(["tenancy"])
        refusals.append(str(refused.value))

    shared.rebuild(before_swap=second)
    assert refusals == ["a rebuild, a rollback or a new layout of shards is running already"]


# ------------------------------------------------------------------------------------------------ killed


def test_killed_while_it_loads_then_among_the_indexes_then_before_the_swap(system: System) -> None:
    """kill -9, of a process, three times in the life of one build; the fourth run ends it."""
    system.grow(2500)
    before = system.contents()
    build = "SELECT coalesce(max(position), 0) FROM evosense_ops.builds WHERE state = %s AND position < %s"
    # The second batch waits for a key that the test holds.
    with administrator(system.settings) as holder:
        births = "SELECT notification_id FROM evosense_log.stored_events WHERE topic LIKE 'messages.MessageR%'"
        assert holder.execute(births).fetchone()
        process = run(system, "rebuild")
        killed(process, lambda: bool(system.builds()), "the build is begun")
    wait_for(session_gone(system), "the server knows of the end")
    assert system.contents() == before
    watcher = Watched(stop_at("loaded", 3))
    with pytest.raises(StoppedHereError):
        system.rebuild([], watcher, batch=400)
    assert watcher.resumed_at is not None
    assert system.one(build, "loading", system.head) > 0
    # Somebody reads the live tables: the swap waits, and that is where it is killed.
    with administrator(system.settings) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM evosense.messages_message")
        process = run(system, "rebuild")
        ready = "SELECT count(*) FROM evosense_ops.builds WHERE state = 'ready' AND purpose = 'rebuild'"
        killed(process, lambda: system.one(ready) == 1, "all is ready for the swap")
    wait_for(session_gone(system), "the server knows of the end")
    assert system.contents() == before
    last = Watched()
    report = system.rebuild([], last)
    assert last.resumed_at == system.head
    assert report.events == 0
    assert system.contents() == before
    assert system.build_schemas() == set()


def test_killed_between_two_indexes(system: System) -> None:
    system.grow(300)
    before = system.contents()
    # The index of a table that is locked has to wait; those before it are made.
    with administrator(system.settings) as holder, holder.transaction():
        process = run(system, "rebuild")
        schema = "SELECT schema_name FROM evosense_ops.builds WHERE purpose = 'rebuild'"
        wait_for(lambda: bool(system.admin.execute(schema).fetchone()), "the build is begun", seconds=30)
        table = f"{system.one(schema)}.messages_message"

        def locked() -> bool:
            try:
                holder.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
            except psycopg.errors.UndefinedTable:
                return False
            return True

        wait_for(locked, "the table is there")
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%build_make%' "
            "AND datname = current_database()"
        )
        killed(process, lambda: system.one(waiting) == 1, "an index waits")
    wait_for(session_gone(system), "the server knows of the end")
    assert [build.state for build in system.builds()] == ["finishing"]
    watcher = Watched()
    assert system.rebuild([], watcher).events == 0
    assert watcher.resumed_at == system.head
    assert system.contents() == before


def test_killed_right_after_the_swap(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was live is left behind as kept; the next run cleans up."""
    from projections import rebuild as rebuild_module

    system.grow(200)
    before = system.contents()

    def dead(*_: object, **__: object) -> None:
        raise StoppedHereError

    with monkeypatch.context() as patched:
        patched.setattr(rebuild_module, "_settle", dead)
        with pytest.raises(StoppedHereError):
            system.rebuild(["messages"])
    assert system.contents() == before
    [left] = system.builds()
    assert left.purpose == "kept"
    system.grow(100)
    system.rebuild(["messages"])
    assert system.builds() == []
    assert system.build_schemas() == set()
    assert system.one("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    assert system.contents() == system.projected_afresh()


# ------------------------------------------------------------------------------------------------ in the way


def test_somebody_s_view_is_named_and_nothing_is_begun(system: System) -> None:
    system.grow(50)
    system.admin.execute("CREATE ROLE evosense_analyst_of_test")
    try:
        system.admin.execute("CREATE SCHEMA reports AUTHORIZATION evosense_analyst_of_test")
        system.admin.execute("GRANT USAGE ON SCHEMA evosense TO evosense_analyst_of_test")
        system.admin.execute("CREATE VIEW reports.moods AS SELECT sentiment FROM evosense.messages_message")
        system.admin.execute("ALTER VIEW reports.moods OWNER TO evosense_analyst_of_test")
        with pytest.raises(BuildError) as refused:
            system.rebuild()
        told = "view reports.moods of evosense_analyst_of_test (on messages_message)"
        assert told in str(refused.value)
        assert "Drop them, and make them again after the rebuild" in str(refused.value)
        assert system.builds() == []
        assert system.build_schemas() == {"reports"}
        # What the view does not read can be rebuilt.
        system.rebuild(["tenancy"])
        system.admin.execute("DROP VIEW reports.moods")
        system.rebuild()
    finally:
        system.admin.execute("DROP SCHEMA IF EXISTS reports CASCADE")
        system.admin.execute("DROP OWNED BY evosense_analyst_of_test")
        system.admin.execute("DROP ROLE evosense_analyst_of_test")


def test_a_view_that_was_made_meanwhile_stops_the_swap_and_not_for_good(system: System) -> None:
    system.grow(50)
    before = system.contents()

    def view() -> None:
        system.admin.execute("CREATE VIEW public.late AS SELECT id FROM evosense.tenancy_tenant")

    with pytest.raises(BuildError, match=r"view (public\.)?late of .* \(on tenancy_tenant\)"):
        system.rebuild(before_swap=view)
    assert system.contents() == before
    system.admin.execute("DROP VIEW public.late")
    watcher = Watched()
    assert system.rebuild([], watcher).events == 0
    assert watcher.resumed_at == system.head


def test_a_long_query_keeps_the_swap_waiting_and_no_other_reader(system: System) -> None:
    system.grow(300)
    before = system.contents()
    told, slowest, stop = threading.Event(), [0.0], threading.Event()
    watcher = Watched(lambda step: told.set() if step == "waiting" else None)

    def read_on() -> None:
        with administrator(system.settings) as reader:
            while not stop.is_set():
                began = time.monotonic()
                reader.execute("SELECT count(*) FROM evosense.messages_message")
                slowest[0] = max(slowest[0], time.monotonic() - began)

    done: list[Any] = []
    rebuilding = threading.Thread(target=lambda: done.append(system.rebuild([], watcher)), daemon=True)
    other = threading.Thread(target=read_on, daemon=True)
    with administrator(system.settings) as long, long.transaction():
        long.execute("SET application_name = 'month end report'")
        long.execute("SELECT count(*) FROM evosense.messages_message")
        rebuilding.start()
        assert told.wait(30)
        other.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            # Projectors, too, go on: the swap steps back each time.
            system.grow(3)
        assert not done
        stop.set()
        other.join(10)
    rebuilding.join(30)
    assert done
    assert slowest[0] < 1, "a reader has waited behind the swap"
    assert "waiting for a query to end (process " in watcher.waits[0]
    assert "month end report" in watcher.waits[0]
    rows = system.contents()
    assert rows != before
    assert rows == system.projected_afresh()


def test_patience_runs_out_and_the_next_run_only_swaps(system: System) -> None:
    system.grow(200)
    with administrator(system.settings) as long, long.transaction():
        long.execute("SELECT count(*) FROM evosense.messages_message")
        with pytest.raises(StillInUse, match=r"in use for 0\.3 s \(process \d+, \w+\): nothing was swapped"):
            system.rebuild(patience=0.3)
    assert [build.state for build in system.builds()] == ["ready"]
    system.grow(100)
    watcher = Watched()
    assert system.rebuild([], watcher).events == 0
    assert watcher.made == []
    rows = system.contents()
    assert rows == system.projected_afresh()


# ------------------------------------------------------------------------------------------------ beside the living


class Readers:
    """Readers of several kinds in threads, each of which counts and compares for as long as the block lasts."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.tenant = system.world.tenants[0]
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.rounds: dict[str, int] = {}
        self.kinds = [self.prepared, self.metrics, self.searching, self.one_moment]

    def __enter__(self) -> "Readers":
        self._threads = [threading.Thread(target=self._loop, args=(kind,), daemon=True) for kind in self.kinds]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(10)

    def _loop(self, kind: Any) -> None:
        try:
            with psycopg.connect(self.system.settings.runtime_dsn, autocommit=True, prepare_threshold=1) as conn:
                conn.execute("SET ROLE evosense_app")
                conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(self.tenant),))
                least = 0
                while not self.stop.is_set():
                    seen = kind(conn)
                    if seen < least:
                        raise AssertionError(f"{seen} rows after {least}")
                    least = seen
                    self.rounds[kind.__name__] = self.rounds.get(kind.__name__, 0) + 1
        except Exception as error:
            self.faults.append(f"{kind.__name__}: {type(error).__name__}: {error}")

    def prepared(self, conn: psycopg.Connection) -> int:
        row = conn.execute("SELECT count(*) FROM evosense.messages_message WHERE tenant_id = %s", (self.tenant,))
        return int((row.fetchone() or (0,))[0])

    def metrics(self, conn: psycopg.Connection) -> int:
        row = conn.execute("SELECT total_messages FROM evosense.tenant_metrics WHERE tenant_id = %s", (self.tenant,))
        return int((row.fetchone() or (0,))[0])

    def searching(self, conn: psycopg.Connection) -> int:
        """Of both models that the history has vectors of: which of them prevails may change."""
        query = (
            "SELECT count(*) FROM unnest(ARRAY['e-1', 'e-2']) model, "
            "evosense.nearest_messages(%s, array_fill(0.1, ARRAY[768])::vector, model, 100000, -1)"
        )
        return int((conn.execute(query, (self.tenant,)).fetchone() or (0,))[0])

    def one_moment(self, conn: psycopg.Connection) -> int:
        """A transaction that has begun sees the same rows to its end, whatever is swapped meanwhile."""
        with conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            first = self.prepared(conn)
            for _ in range(3):
                assert self.prepared(conn) == first
        return first


def test_everything_else_goes_on_beside_it(system: System) -> None:
    """Readers see old rows or new ones: never an error, an empty table, or fewer rows than before."""
    system.grow(800)
    system.world.moves = False  # an adoption leaves fewer vectors, rightly
    with projecting_meanwhile(system), Readers(system) as readers:
        wait_for(lambda: len(readers.rounds) == 4 or bool(readers.faults), "all readers have begun")
        assert not readers.faults, readers.faults
        with appending_meanwhile(system):
            for names in ((), (), ("messages",), ("metrics", "tenancy")):
                system.rebuild(names, batch=200)
                assert not readers.faults, readers.faults
        wait_for(lambda: positions(system.admin) == {system.head}, "the engine comes to the head")
    assert not readers.faults, readers.faults
    assert min(readers.rounds.values()) > 10
    assert parked(system.admin) == {}
    rows = system.contents()
    assert rows == system.projected_afresh()


def test_a_transaction_that_began_before_the_last_rows_does_not_find_emptied_tables(system: System) -> None:
    """It has not used the table yet, so holds no lock, and sees what was committed when it began: not the new rows."""
    system.grow(200)
    told, done = threading.Event(), threading.Event()
    watcher = Watched(lambda step: told.set() if step == "waiting" else None)

    def rebuilding() -> None:
        system.rebuild([], watcher)
        done.set()

    count = "SELECT count(*) FROM evosense.messages_message"
    before = system.one(count)
    thread = threading.Thread(target=rebuilding, daemon=True)
    with administrator(system.settings) as reader, reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        thread.start()
        assert told.wait(30) or done.is_set()
        assert reader.execute(count).fetchone() == (before,)
    thread.join(30)
    assert done.is_set()
    assert system.one(count) == before


def test_the_shards_of_tenants_are_brought_to_one_position(system: System) -> None:
    from projections.sharding import lay_out

    system.grow(200)
    lay_out(system.builder(), 3)
    system.grow(200, project=False)
    # One shard goes ahead; the others lie behind.
    side = read_side(system.settings, batch=30)
    side.engine.run_once()
    side.engine.close()
    assert len(positions(system.admin)) >= 1
    system.rebuild()
    assert positions(system.admin) == {system.head}
    rows = system.contents()
    system.grow(100)
    after = system.contents()
    assert after != rows
    assert after == system.projected_afresh()
    drain(side.engine)
    side.close()
