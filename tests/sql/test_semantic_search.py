"""semantic_search() against a comparison with every vector, in Python."""

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from adapters.migrations import migrate
from tests.support.vectors import DIMENSIONS, Corpus, Vector, text, vector_index

SIZES = {uuid.UUID(int=1): 5600, uuid.UUID(int=2): 300, uuid.UUID(int=3): 3}
LARGE, SMALL, TINY = SIZES


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(SIZES)


@pytest.fixture(scope="module")
def dsn(database: str, corpus: Corpus) -> str:
    migrate(database)
    with psycopg.connect(database) as conn, conn.cursor() as cursor:
        for tenant in SIZES:
            cursor.execute("INSERT INTO tenancy_tenant (id, name) VALUES (%s, 'x')", (tenant,))
            rows = [(i, text(v)) for i, v in zip(corpus.ids[tenant], corpus.vectors[tenant], strict=True)]
            now = dt.datetime.now(dt.UTC)
            with cursor.copy(
                "COPY messages_message (id, tenant_id, chat_id, sender, text, created_at, sentiment, satisfaction, "
                "embedding) FROM STDIN"
            ) as copy:
                for id_, vector in rows:
                    copy.write_row((id_, tenant, "chat", "hash", f"texto {id_}", now, 0.5, 80, vector))
            with cursor.copy("COPY messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN") as copy:
                for id_, vector in rows:
                    copy.write_row((id_, tenant, "m", vector))
        cursor.execute("ANALYZE messages_embedding")
    assert vector_index(database, first=5000).maintain() == 1
    return database


@pytest.fixture
def app(dsn: str) -> Iterator[psycopg.Connection]:
    """A fresh connection as the application's role: nothing has loaded the extension's library yet."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        yield conn


def tenant_is(conn: psycopg.Connection, tenant: uuid.UUID) -> None:
    conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant),))


def search(
    conn: psycopg.Connection, tenant: uuid.UUID | None, query: Vector, limit: int | None = 20, threshold: float = 0.0
) -> list[tuple[int, float]]:
    return conn.execute(
        "SELECT message_id, similarity_score FROM semantic_search(%s, %s::vector, %s, %s)",
        (tenant, text(query), limit, threshold),
    ).fetchall()


@pytest.mark.parametrize("tenant", [SMALL, TINY])
@pytest.mark.parametrize(
    ("limit", "threshold"), [(1, 0.0), (20, 0.0), (20, 0.3), (5, -1.0), (None, -1.0), (2**31 - 1, 0.2)]
)
def test_a_small_tenant_gets_exact_answers(
    app: psycopg.Connection, corpus: Corpus, tenant: uuid.UUID, limit: int | None, threshold: float
) -> None:
    tenant_is(app, tenant)
    for query in corpus.draw(10):
        corpus.assert_exact(tenant, query, limit, threshold, search(app, tenant, query, limit, threshold))


def test_a_large_tenant_uses_the_index_and_finds_nearly_everything(app: psycopg.Connection, corpus: Corpus) -> None:
    tenant_is(app, LARGE)
    queries = corpus.draw(20)
    recall = [
        len({i for i, _ in search(app, LARGE, q)} & {i for i, _ in corpus.best(LARGE, q, 20, 0.0)}) / 20
        for q in queries
    ]
    assert np.mean(recall) >= 0.95
    assert min(recall) >= 0.7
    app.execute("RESET ROLE")
    app.execute("SELECT pg_stat_force_next_flush()")
    scans = app.execute(
        "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'idx_message_embedding_s%'"
    ).fetchone()
    assert scans is not None
    assert scans[0] >= len(queries)


def test_a_deep_search_of_a_large_tenant_is_exact(app: psycopg.Connection, corpus: Corpus) -> None:
    tenant_is(app, LARGE)
    (query,) = corpus.draw(1)
    corpus.assert_exact(LARGE, query, 1000, 0.0, search(app, LARGE, query, 1000))
    assert len(search(app, LARGE, query, None, -1.0)) == SIZES[LARGE]


@pytest.mark.parametrize("tenant", [LARGE, SMALL])
def test_the_twentieth_call_of_a_prepared_statement_answers_as_the_first(
    app: psycopg.Connection, corpus: Corpus, tenant: uuid.UUID
) -> None:
    """After five calls PostgreSQL may change to a generic plan, which has no index and no partition (DESIGN 6)."""
    tenant_is(app, tenant)
    app.execute("PREPARE nearest AS SELECT message_id FROM semantic_search($1, $2, 20, 0.0)")
    (query,) = corpus.draw(1)
    answers = [app.execute(f"EXECUTE nearest('{tenant}', '{text(query)}')".encode()).fetchall() for _ in range(20)]
    assert len(answers[0]) == 20
    assert all(answer == answers[0] for answer in answers)


def test_no_search_crosses_into_another_tenant(app: psycopg.Connection, corpus: Corpus) -> None:
    for asked, mine in itertools.permutations(SIZES, 2):
        tenant_is(app, mine)
        assert search(app, asked, corpus.vectors[asked][0], 20, -1.0) == []
        assert search(app, asked, corpus.vectors[asked][0], None, -1.0) == []
    app.execute("SELECT set_config('evosense.tenant_id', '', false)")
    assert search(app, LARGE, corpus.vectors[LARGE][0], 20, -1.0) == []


def test_hits_are_the_asked_tenants_even_for_an_administrator(dsn: str, corpus: Corpus) -> None:
    with psycopg.connect(dsn) as conn:
        found = search(conn, SMALL, corpus.vectors[LARGE][0], 20, -1.0)
    assert {i for i, _ in found} <= set(corpus.ids[SMALL])


def test_documented_defaults_and_columns(app: psycopg.Connection, corpus: Corpus) -> None:
    tenant_is(app, TINY)
    cursor = app.execute("SELECT * FROM semantic_search(%s, %s::vector)", (TINY, text(corpus.vectors[TINY][1])))
    assert [c.name for c in cursor.description or ()] == [
        "message_id", "text", "sentiment", "satisfaction", "similarity_score", "created_at",
    ]  # fmt: skip
    hits = cursor.fetchall()
    id_ = corpus.ids[TINY][1]
    assert hits[0][:4] == (id_, f"texto {id_}", 0.5, 80)
    assert all(hit[4] >= 0.7 for hit in hits)


@pytest.mark.parametrize("limit", [0, -1, -(2**31)])
def test_a_limit_of_nothing_finds_nothing(app: psycopg.Connection, corpus: Corpus, limit: int) -> None:
    tenant_is(app, SMALL)
    assert search(app, SMALL, corpus.vectors[SMALL][0], limit) == []


def test_missing_arguments_find_nothing(app: psycopg.Connection, corpus: Corpus) -> None:
    tenant_is(app, SMALL)
    for call in ("NULL, 'V'", "'T', NULL", "'T', 'V', 20, NULL"):
        arguments = call.replace("T", str(SMALL)).replace("V", text(corpus.vectors[SMALL][0]))
        assert app.execute(f"SELECT * FROM semantic_search({arguments})".encode()).fetchall() == []  # noqa: S608


def test_a_vector_without_direction_is_like_nothing(app: psycopg.Connection) -> None:
    for tenant in (LARGE, TINY):
        tenant_is(app, tenant)
        assert search(app, tenant, np.zeros(DIMENSIONS, np.float32), 20, -1.0) == []


def test_a_vector_of_another_length_is_refused(app: psycopg.Connection) -> None:
    tenant_is(app, TINY)
    with pytest.raises(psycopg.errors.DataException, match="expected 768 dimensions, not 3"):
        search(app, TINY, np.ones(3, np.float32))


def test_the_settings_of_the_session_are_left_alone(app: psycopg.Connection, corpus: Corpus) -> None:
    tenant_is(app, TINY)
    app.execute("SET hnsw.ef_search = 41")
    search(app, TINY, corpus.vectors[TINY][0])
    assert app.execute("SHOW hnsw.ef_search").fetchone() == ("41",)
    assert app.execute("SHOW plan_cache_mode").fetchone() == ("auto",)
