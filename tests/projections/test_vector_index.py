"""The vector index as it grows: what is made and when, that nothing is missed, and what an interruption leaves."""

import dataclasses
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.migrations import migrate
from projections import vector_index as module
from projections.build import REBUILD_GUARD
from projections.vector_index import FIRST, GROWTH, MOST, TAIL, Busy, Segment, Standing, Step, VectorIndex, next_step
from tests.support.vectors import Corpus, text, vector_index

# ------------------------------------------------------------------------------------------------ what is due


def segment(after: int, upto: int, vectors: int, live: int | None = None, name: str | None = None) -> Segment:
    return Segment(after, upto, f"s{after}" if name is None else name, vectors, vectors if live is None else live)


def test_a_small_tenant_gets_no_index() -> None:
    assert next_step((), FIRST - 1, 9000) is None
    assert next_step((), FIRST, 9000) == Step(0, 9000, FIRST, ())


def test_a_short_tail_waits() -> None:
    one = segment(0, 10_000, 50_000)
    assert next_step((one,), TAIL - 1, 90_000) is None
    assert next_step((one,), TAIL, 90_000) == Step(10_000, 90_000, TAIL, ())


def test_small_indexes_are_made_into_a_bigger_one() -> None:
    big, small, smaller = segment(0, 10, 100_000), segment(10, 20, 3 * TAIL), segment(20, 30, TAIL)
    step = next_step((big, small, smaller), TAIL, 40)
    assert step == Step(10, 40, 5 * TAIL, ("s20", "s10"))


def test_no_index_grows_beyond_what_memory_holds() -> None:
    step = next_step((segment(0, 10, MOST - 10),), MOST // GROWTH + 10, 20)
    assert step is not None
    assert step.replaced == ()


def test_a_worn_index_goes() -> None:
    rest = segment(10, 20, 50_000)
    assert next_step((segment(0, 10, 10_000, 5_000), rest), 0, 20) == Step(0, 10, 0, ("s0",), worn=True)
    assert next_step((segment(0, 10, 10_000, 0), rest), 0, 20) == Step(0, 10, 0, ("s0",), worn=True)


def test_a_tenant_that_shrank_loses_its_indexes() -> None:
    step = next_step((segment(0, 10, 5_000, 900), segment(10, 20, 5_000, 5)), 5, 30)
    assert step == Step(0, 30, 0, ("s0", "s10"), worn=True)


def test_a_hole_gets_an_index_of_its_own_when_it_is_big() -> None:
    big = segment(50, 90, 50_000)
    assert next_step((segment(0, 50, 0, TAIL - 1, name=""), big), 0, 90) is None
    assert next_step((segment(0, 50, 0, TAIL, name=""), big), 0, 90) == Step(0, 50, TAIL, ())


@given(st.lists(st.integers(1, 30_000), max_size=40))
def test_indexes_stay_few_and_nothing_is_built_often(arrivals: list[int]) -> None:
    segments: list[Segment] = []
    tail = total = built = 0
    for place, arrived in enumerate(arrivals, start=1):
        tail += arrived
        total += arrived
        while (step := next_step(segments, tail, place)) is not None:
            built += step.vectors
            segments = [s for s in segments if s.index_name not in step.replaced]
            segments.append(Segment(step.after_id, step.upto_id, f"s{place}", step.vectors, step.vectors))
            tail = 0
    assert sum(s.live for s in segments) + tail == total
    assert tail < FIRST
    # Each is more than GROWTH times as big as what comes behind it.
    levels = np.log(max(total, 1) / TAIL) / np.log(GROWTH + 1) + 2
    assert len(segments) <= max(1, levels)
    assert built <= total * (GROWTH + 2) * max(1, levels)


# ------------------------------------------------------------------------------------------------ on a real database

NAMES = "SELECT index_name FROM evosense_ops.vector_segments ORDER BY after_id"
FEW, LONGEST = 300, 100
TENANT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


@dataclasses.dataclass
class World:
    """A tenant that grows."""

    dsn: str
    conn: psycopg.Connection[Any]
    corpus: Corpus
    index: VectorIndex
    size: int = 0

    def grow(self, number: int) -> None:
        ids = range(self.size + 1, self.size + number + 1)
        rows = [(i, text(self.corpus.vectors[TENANT][i - 1])) for i in ids]
        with self.conn.transaction(), self.conn.cursor() as cursor:
            with cursor.copy(
                "COPY messages_message (id, tenant_id, chat_id, sender, text, created_at, embedding) FROM STDIN"
            ) as copy:
                for id_, vector in rows:
                    copy.write_row((id_, TENANT, "c", "s", "x", "2026-05-04 10:00Z", vector))
            with cursor.copy("COPY messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN") as copy:
                for id_, vector in rows:
                    copy.write_row((id_, TENANT, "m", vector))
        self.size += number

    def forget(self, first: int, last: int) -> None:
        self.conn.execute("DELETE FROM messages_message WHERE id BETWEEN %s AND %s", (first, last))

    def search(self, query: Any, limit: int = 20) -> list[int]:
        with psycopg.connect(self.dsn, autocommit=True) as app:
            app.execute("SET ROLE evosense_app")
            app.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(TENANT),))
            found = app.execute(
                "SELECT message_id FROM semantic_search(%s, %s::vector, %s, -1)", (TENANT, text(query), limit)
            )
            return [row[0] for row in found]

    def best(self, query: Any, known: range, limit: int = 20) -> list[int]:
        return [id_ for id_, _ in self.corpus.best(TENANT, query, None, -2.0) if id_ in known][:limit]

    def recall(self, known: range) -> float:
        queries = self.corpus.draw(5)
        return float(np.mean([len(set(self.search(q)) & set(self.best(q, known))) / 20 for q in queries]))

    def indexes(self) -> list[str]:
        return [
            row[0]
            for row in self.conn.execute(
                "SELECT indexname FROM pg_indexes WHERE schemaname = 'evosense' AND indexname ~ '_s[0-9]+$' ORDER BY 1"
            )
        ]

    def standing(self) -> Standing:
        (one,) = self.index.standings(TENANT)
        return one


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus({TENANT: 2100})


@pytest.fixture
def world(database: str, corpus: Corpus) -> Iterator[World]:
    migrate(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DELETE FROM tenancy_tenant")
        conn.execute("INSERT INTO tenancy_tenant (id, name) VALUES (%s, 'Padaria'), (%s, 'x')", (TENANT, OTHER))
        # As with many times as many: building takes its time.
        index = vector_index(database, first=FEW, longest=LONGEST)
        index.maintain()
        made = World(database, conn, corpus, index)
        assert made.indexes() == []
        yield made


def test_a_tenant_grows_and_nothing_is_missed(world: World) -> None:
    for number, arrived in enumerate((299, 1, 75, 30, 600, 125), start=1):
        world.grow(arrived)
        before = world.recall(range(1, world.size + 1))
        world.index.maintain()
        after = world.recall(range(1, world.size + 1))
        assert (before, after) >= (0.99, 0.99), number
        standing = world.standing()
        assert standing.vectors == world.size
        assert standing.tail < FEW
        assert [s.index_name for s in standing.segments] == [
            row[0]
            for row in world.conn.execute("SELECT index_name FROM evosense_ops.vector_segments ORDER BY after_id")
        ]
    assert world.standing().tail < LONGEST
    assert world.index.maintain() == 0, "nothing more is due"
    recall = world.index.recall(world.standing(), 20)
    assert recall is not None
    assert recall >= 0.99


def test_a_vector_is_found_as_soon_as_it_is_committed(world: World) -> None:
    world.grow(700)
    world.index.maintain()
    world.grow(1)
    assert world.standing().tail == 1
    assert world.search(world.corpus.vectors[TENANT][700], 1) == [701]


def test_an_older_message_that_is_embedded_late_is_found(world: World) -> None:
    world.grow(700)
    world.conn.execute("DELETE FROM messages_embedding WHERE message_id = 350")
    world.index.maintain()
    world.conn.execute(
        "INSERT INTO messages_embedding (message_id, tenant_id, model, embedding) VALUES (350, %s, 'm', %s)",
        (TENANT, text(world.corpus.vectors[TENANT][349])),
    )
    assert world.search(world.corpus.vectors[TENANT][349], 1) == [350]


def test_the_application_asks_each_index_from_a_prepared_statement(world: World) -> None:
    world.grow(700)
    world.index.maintain()
    world.grow(100)
    world.index.maintain()
    assert len(world.indexes()) == 2
    query = text(world.corpus.vectors[TENANT][5])
    with psycopg.connect(world.dsn, autocommit=True) as app:
        app.execute("SET ROLE evosense_app")
        app.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(TENANT),))
        app.execute("PREPARE near (uuid, vector) AS SELECT message_id FROM semantic_search($1, $2, 20, -1)")

        def scans() -> int:
            app.execute("SELECT pg_stat_force_next_flush()")
            row = app.execute(
                "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname ~ '^idx_message_embedding_s'"
            ).fetchone()
            assert row is not None
            return int(row[0])

        before = scans()
        answers = [app.execute(f"EXECUTE near('{TENANT}', '{query}')".encode()).fetchall() for _ in range(20)]
        assert scans() == before + 40
        assert all(answer == answers[0] for answer in answers)


def test_retention_takes_worn_indexes_along(world: World) -> None:
    world.grow(1200)
    world.index.maintain()
    world.forget(1, 500)
    assert world.recall(range(501, 1201)) >= 0.99
    assert world.index.maintain() == 1
    assert world.standing().vectors == 700
    assert world.recall(range(501, 1201)) >= 0.99
    world.forget(501, 1150)
    world.index.maintain()
    assert world.indexes() == []
    assert world.recall(range(1151, 1201)) == 1.0


def test_an_index_that_runs_dry_is_not_believed(world: World) -> None:
    """Beside a tail that has enough to hide it: the stretch is compared one by one."""
    world.grow(700)
    world.index.maintain()
    world.grow(90)
    signature = "evosense.nearest_by_index(uuid, text, halfvec, bigint)"
    world.conn.execute(f"ALTER FUNCTION {signature} SET hnsw.iterative_scan = off".encode())
    world.conn.execute(f"ALTER FUNCTION {signature} SET hnsw.ef_search = 5".encode())
    try:
        assert world.recall(range(1, 791)) == 1.0
    finally:
        world.conn.execute(f"ALTER FUNCTION {signature} SET hnsw.iterative_scan = relaxed_order".encode())
        world.conn.execute(f"ALTER FUNCTION {signature} SET hnsw.ef_search = 100".encode())


def test_what_an_interrupted_build_left_is_cleared_away(world: World) -> None:
    world.grow(700)
    world.index.maintain()
    (name,) = world.indexes()
    world.conn.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (f"evosense.{name}",))
    assert world.recall(range(1, 701)) == 1.0, "it is not asked"
    assert world.index.maintain() == 1
    assert world.indexes() != [name]
    # Made, and not yet known.
    world.conn.execute("DELETE FROM evosense_ops.vector_segments")
    assert world.recall(range(1, 701)) == 1.0
    assert world.index.maintain() == 1
    assert len(world.indexes()) == 1


def test_reindex_makes_them_anew_while_the_old_ones_answer(world: World) -> None:
    world.grow(700)
    world.index.maintain()
    before = world.indexes()
    assert world.index.reindex(TENANT) == 1
    after = world.indexes()
    assert len(after) == 1
    assert after != before
    assert world.recall(range(1, 701)) >= 0.99


def test_writes_go_on_while_an_index_is_made(world: World) -> None:
    """Its first wait is for a transaction that began before: meanwhile a writer is not held up."""
    world.grow(700)
    with psycopg.connect(world.dsn) as old:
        old.execute("SELECT 1 FROM messages_embedding LIMIT 1")
        old.execute("UPDATE messages_embedding SET model = model WHERE message_id = 1")
        making = threading.Thread(target=world.index.maintain)
        making.start()
        world.conn.execute("SET lock_timeout = '2s'")
        while not world.conn.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' "
            "AND datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone():
            assert making.is_alive()
        world.grow(50)
        assert making.is_alive()
        old.rollback()
    making.join(30)
    assert not making.is_alive()
    world.conn.execute("RESET lock_timeout")
    assert world.standing().tail <= 50
    assert world.recall(range(1, 751)) >= 0.99


def test_a_tenant_that_is_big_from_the_start_gets_several(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an import: no index holds more than memory does."""
    monkeypatch.setattr(module, "MOST", 400)
    world.grow(1000)
    assert world.index.maintain() == 3
    assert [s.live for s in world.standing().segments] == [400, 400, 200]
    assert world.standing().tail == 0
    assert world.recall(range(1, 1001)) >= 0.99


def test_one_process_at_a_time(world: World) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtext('evosense vector index'))")
        with pytest.raises(Busy, match="another process"):
            world.index.maintain()


def test_it_keeps_away_from_a_rebuild_and_not_from_what_one_left(world: World) -> None:
    world.grow(400)
    world.conn.execute(
        "INSERT INTO evosense_ops.builds (schema_name, purpose, projections, tables, fingerprint, schema_version) "
        "VALUES ('killed', 'rebuild', '{}', '{}', 'x', 1)"
    )
    with psycopg.connect(world.dsn, autocommit=True) as rebuild:
        rebuild.execute("SELECT pg_advisory_lock('evosense_ops.builds'::regclass::oid::int, %s)", (REBUILD_GUARD,))
        for call in (world.index.maintain, world.index.reindex):
            with pytest.raises(Busy, match="a rebuild is under way"):
                call()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert world.index.maintain() == 1
            break
        except Busy:  # the server has yet to notice that the session is gone
            pass
    assert len(world.indexes()) == 1
    world.conn.execute("DELETE FROM evosense_ops.builds")


def test_the_keeper_is_seen_and_keeps(world: World) -> None:
    def absent() -> bool:
        with psycopg.connect(world.dsn, autocommit=True) as conn:
            row = conn.execute("SELECT pg_try_advisory_lock(hashtext('evosense vector keeper'))").fetchone()
            assert row is not None
            return bool(row[0])

    assert absent()
    world.grow(400)
    stop = threading.Event()
    keeper = threading.Thread(target=world.index.keep, args=(stop, 0.1))
    keeper.start()
    try:
        deadline = time.monotonic() + 30
        while not world.standing().segments:
            assert time.monotonic() < deadline
        assert not absent()
    finally:
        stop.set()
        keeper.join(30)
    assert not keeper.is_alive()
    assert absent()
