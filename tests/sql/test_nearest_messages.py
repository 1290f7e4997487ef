"""nearest_messages(): filters, models, limits and plans, against a comparison with every vector, in Python."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from adapters.migrations import migrate
from tests.support.vectors import Corpus, Vector, text, vector_index

LARGE, SMALL = uuid.UUID(int=1), uuid.UUID(int=2)
#: More than are compared one by one, also of three messages in five.
SIZES = {LARGE: 9000, SMALL: 400}
START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
COMPANY = "company-hash"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(SIZES)


def sentiment(number: int) -> float | None:
    """None where the message is not analysed, a tenth of all."""
    return None if number % 10 == 9 else (number % 100) / 50 - 1


def between(low: float, high: float) -> Callable[[int], bool]:
    return lambda number: low <= (-9 if (value := sentiment(number)) is None else value) <= high


@pytest.fixture(scope="module")
def dsn(database: str, corpus: Corpus) -> str:
    migrate(database)
    with psycopg.connect(database) as conn, conn.cursor() as cursor:
        for tenant in SIZES:
            cursor.execute("INSERT INTO tenancy_tenant (id, name) VALUES (%s, 'x')", (tenant,))
        for number, tenant in enumerate(SIZES, start=1):
            cursor.execute(
                "INSERT INTO connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token) "
                "VALUES (%s, %s, 'x', 'x', 'x')",
                (number, tenant),
            )
            cursor.execute("INSERT INTO connections_companysender VALUES (%s, %s, %s)", (number, tenant, COMPANY))
            rows = list(enumerate(zip(corpus.ids[tenant], corpus.vectors[tenant], strict=True)))
            with cursor.copy(
                "COPY messages_message (id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, "
                "emotion, embedding) FROM STDIN"
            ) as copy:
                for n, (id_, vector) in rows:
                    at = START + dt.timedelta(minutes=n)
                    sender = COMPANY if n % 5 < 2 else f"customer-{n % 7}"
                    emotion = "raiva" if n % 3 else "alegria"
                    connection = None if n % 11 == 0 else number
                    row = (id_, tenant, connection, f"chat-{n % 90}", sender, "x", at, sentiment(n), emotion)
                    copy.write_row((*row, text(vector)))
            with cursor.copy("COPY messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN") as copy:
                for n, (id_, vector) in rows:
                    copy.write_row((id_, tenant, model_of(tenant, n), text(vector)))
        cursor.execute("ANALYZE messages_embedding, messages_message")
    assert vector_index(database).maintain() == 1
    return database


def model_of(tenant: uuid.UUID, number: int) -> str:
    """The small tenant is on its way from one model to another."""
    return "model-b" if tenant == SMALL and number % 4 == 0 else "model-a"


@pytest.fixture
def app(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        tenant_is(conn, LARGE)
        yield conn


def tenant_is(conn: psycopg.Connection[Any], tenant: uuid.UUID) -> None:
    conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant),))


def nearest(
    conn: psycopg.Connection[Any],
    tenant: uuid.UUID,
    query: Vector,
    limit: int | None = 20,
    *,
    model: str | None = "model-a",
    threshold: float = -1.0,
    **filters: object,
) -> list[tuple[int, float]]:
    named = "".join(f", p_{name} => %({name})s" for name in filters)
    return conn.execute(
        "SELECT message_id, similarity_score "  # noqa: S608
        f"FROM nearest_messages(%(tenant)s, %(query)s::vector, %(model)s, %(limit)s, %(threshold)s{named})".encode(),
        {"tenant": tenant, "query": text(query), "model": model, "limit": limit, "threshold": threshold, **filters},
    ).fetchall()


def true_best(
    corpus: Corpus, tenant: uuid.UUID, query: Vector, limit: int | None, passes: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """By comparison with every vector of the messages, by their number in the tenant, that pass."""
    first = corpus.ids[tenant][0]
    return [hit for hit in corpus.best(tenant, query, None, -1.0) if passes(hit[0] - first)][:limit]


def company(number: int) -> bool:
    return number % 5 < 2 and number % 11 != 0


#: Filters by how many of the large tenant's messages pass: few, all but a few, and what goes by each column.
FILTERS: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"chat_id": "chat-7"}, lambda n: n % 90 == 7),
    ({"chat_id": "chat-1000"}, lambda _: False),
    ({"emotion": "raiva"}, lambda n: n % 3 > 0),
    ({"emotion": "alegria"}, lambda n: n % 3 == 0),
    ({"since": START + dt.timedelta(minutes=40)}, lambda n: n >= 40),
    ({"until": START + dt.timedelta(minutes=40)}, lambda n: n < 40),
    ({"sentiment_min": -0.9}, between(-0.9, 1)),
    ({"sentiment_max": 0.5}, between(-1, 0.5)),
    ({"author": "customer"}, lambda n: not company(n)),
    ({"author": "company"}, company),
    (
        {"author": "customer", "emotion": "raiva", "chat_id": "chat-7"},
        lambda n: n % 90 == 7 and not company(n) and n % 3 > 0,
    ),
]


@pytest.mark.parametrize(("filters", "passes"), FILTERS, ids=lambda one: "-".join(one) if isinstance(one, dict) else "")
def test_filters_leave_the_recall_alone(
    app: psycopg.Connection[Any], corpus: Corpus, filters: dict[str, Any], passes: Callable[[int], bool]
) -> None:
    few = sum(map(passes, range(SIZES[LARGE]))) <= 5000
    recall = []
    for query in corpus.draw(8):
        found = nearest(app, LARGE, query, **filters)
        best = true_best(corpus, LARGE, query, 20, passes)
        assert len(found) == len(best), "the limit is honoured where so many exist"
        assert all(passes(id_ - corpus.ids[LARGE][0]) for id_, _ in found)
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        if few:
            assert scores == pytest.approx([score for _, score in best], abs=1e-5)
        recall.append(len(set(found_ids(found)) & set(found_ids(best))) / len(best) if best else 1.0)
    assert np.mean(recall) >= 0.95
    assert min(recall) >= 0.7


def found_ids(hits: list[tuple[int, float]]) -> list[int]:
    return [id_ for id_, _ in hits]


def test_a_filter_that_lets_nothing_near_through(app: psycopg.Connection[Any], corpus: Corpus, dsn: str) -> None:
    """Two thirds of the messages pass, and none of the thousands that are nearest: the index gives none of them."""
    query = corpus.draw(1)[0]
    near = found_ids(corpus.best(LARGE, query, 3500, -1.0))
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE messages_message SET emotion = 'near' WHERE id = ANY (%s)", (near,))
        conn.execute("UPDATE messages_message SET emotion = 'far' WHERE NOT id = ANY (%s)", (near,))
        conn.commit()
        try:
            found = nearest(app, LARGE, query, emotion="far")
            best = [hit for hit in corpus.best(LARGE, query, None, -1.0) if hit[0] not in set(near)][:20]
            assert [score for _, score in found] == pytest.approx([score for _, score in best], abs=1e-5)
        finally:
            conn.execute(
                "UPDATE messages_message SET emotion = CASE WHEN (id - %s) %% 3 > 0 THEN 'raiva' ELSE 'alegria' END "
                "WHERE tenant_id = %s",
                (corpus.ids[LARGE][0], LARGE),
            )


@pytest.mark.parametrize("limit", [1, 200, 201, 3000, None])
def test_the_limit_with_a_filter(app: psycopg.Connection[Any], corpus: Corpus, limit: int | None) -> None:
    passing = sum(n % 3 > 0 for n in range(SIZES[LARGE]))
    found = nearest(app, LARGE, corpus.draw(1)[0], limit, emotion="raiva")
    assert len(found) == min(limit or passing, passing)


def test_vectors_of_two_models_are_never_compared(app: psycopg.Connection[Any], corpus: Corpus) -> None:
    tenant_is(app, SMALL)
    first = corpus.ids[SMALL][0]
    for query in corpus.draw(5):
        for model in ("model-a", "model-b"):
            found = nearest(app, SMALL, query, None, model=model)
            best = true_best(corpus, SMALL, query, None, lambda n, model=model: model_of(SMALL, n) == model)  # type: ignore[misc]
            assert {id_ for id_, _ in found} == {id_ for id_, _ in best}
        assert nearest(app, SMALL, query, model="model-c") == []
        assert nearest(app, SMALL, query, model=None) == []
        # The documented signature says no model: most of the tenant's vectors are of the first.
        documented = app.execute(
            "SELECT message_id FROM semantic_search(%s, %s::vector, 400, -1)", (SMALL, text(query))
        )
        assert {id_ - first for (id_,) in documented} == {n for n in range(SIZES[SMALL]) if n % 4}


def test_a_model_of_few_vectors_among_many_is_searched_exactly(
    app: psycopg.Connection[Any], corpus: Corpus, dsn: str
) -> None:
    """It has no index yet."""
    chosen = corpus.ids[LARGE][::300]
    with psycopg.connect(dsn) as conn:
        conn.execute("UPDATE messages_embedding SET model = 'rare' WHERE message_id = ANY (%s)", (chosen,))
        conn.commit()
        try:
            for query in corpus.draw(3):
                found = nearest(app, LARGE, query, model="rare")
                best = [hit for hit in corpus.best(LARGE, query, None, -1.0) if hit[0] in set(chosen)][:20]
                assert found_ids(found) == found_ids(best)
        finally:
            conn.execute("UPDATE messages_embedding SET model = 'model-a' WHERE message_id = ANY (%s)", (chosen,))


def test_the_message_that_asks_is_no_hit(app: psycopg.Connection[Any], corpus: Corpus) -> None:
    for tenant in SIZES:
        tenant_is(app, tenant)
        number = next(n for n in range(10) if model_of(tenant, n) == "model-a")
        id_, vector = corpus.ids[tenant][number], corpus.vectors[tenant][number]
        assert found_ids(nearest(app, tenant, vector, 1)) == [id_]
        others = found_ids(nearest(app, tenant, vector, 20, **{"except": id_}))
        assert len(others) == 20
        assert id_ not in others


def test_filters_cross_no_wall(app: psycopg.Connection[Any], corpus: Corpus) -> None:
    for mine, asked in ((LARGE, SMALL), (SMALL, LARGE)):
        tenant_is(app, mine)
        query = corpus.vectors[asked][0]
        assert nearest(app, asked, query) == []
        assert nearest(app, asked, query, emotion="raiva") == []
        assert app.execute(
            "SELECT * FROM matching_messages(%s, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)", (asked,)
        ).fetchall() == []  # fmt: skip


def index_scans(conn: psycopg.Connection[Any]) -> int:
    """How often the vector index was scanned, this session's scans included."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    row = conn.execute(
        "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'idx_message_embedding_s%'"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "function",
    [
        "semantic_search($1, $2, 20, 0.0)",
        "nearest_messages($1, $2, 'model-a', 20, 0.0)",
        "nearest_messages($1, $2, 'model-a', 20, 0.0, p_sentiment_min => -0.95)",
    ],
    ids=["documented", "all", "filtered"],
)
@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
def test_a_prepared_statement_keeps_the_index(
    app: psycopg.Connection[Any], corpus: Corpus, function: str, mode: str
) -> None:
    """The fiftieth call answers as the third, and each asked the index, as the application's role."""
    (query,) = corpus.draw(1)
    app.execute(f"SET plan_cache_mode = {mode}".encode())
    app.execute(f"PREPARE near (uuid, vector) AS SELECT message_id, similarity_score FROM {function}".encode())  # noqa: S608
    before = index_scans(app)
    answers = [app.execute(f"EXECUTE near('{LARGE}', '{text(query)}')".encode()).fetchall() for _ in range(50)]
    assert index_scans(app) == before + 50
    assert len(answers[0]) == 20
    assert answers[49] == answers[2]
    assert all(answer == answers[2] for answer in answers)


def test_a_small_tenant_does_not_ask_the_index(app: psycopg.Connection[Any], corpus: Corpus) -> None:
    tenant_is(app, SMALL)
    before = index_scans(app)
    assert len(nearest(app, SMALL, corpus.draw(1)[0])) == 20
    assert index_scans(app) == before
