"""The metrics views against a count over every row, and what deleting messages does to them."""

import datetime as dt
import random
import statistics
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from adapters.migrations import migrate

PLANS = ("starter", "pro", "scale", "enterprise")
RETENTION_DAYS = {"starter": 30, "pro": 180, "scale": 365, "enterprise": 730}
TENANTS = [uuid.UUID(int=n) for n in range(1, 7)]
EMPTY, SUSPENDED = TENANTS[4], TENANTS[5]

# What a projector keeps up to date message by message, computed here at once from the documented tables.
FILL = """
INSERT INTO metrics_message (
    message_id, tenant_id, author, sentiment, satisfaction, emotion, hour, connection_id, tone
)
    SELECT m.id, m.tenant_id, CASE WHEN s.sender IS NULL THEN 'customer' ELSE 'company' END,
           m.sentiment, m.satisfaction, m.emotion, floor(extract(epoch FROM m.created_at) / 3600), m.connection_id,
           m.tone
    FROM messages_message m
    LEFT JOIN connections_companysender s ON s.connection_id = m.connection_id AND s.sender = m.sender;
INSERT INTO metrics_rollup
    SELECT tenant_id, author, count(*), count(sentiment), coalesce(sum(sentiment::numeric), 0),
           coalesce(sum(satisfaction), 0), count(*) FILTER (WHERE sentiment > 0.1)
    FROM metrics_message GROUP BY tenant_id, author;
INSERT INTO metrics_emotion
    SELECT tenant_id, author, emotion, count(*) FROM metrics_message WHERE emotion IS NOT NULL GROUP BY 1, 2, 3;
INSERT INTO metrics_latency
    SELECT tenant_id, count(*), sum(latency_ms) FROM experiments_inference GROUP BY tenant_id;
INSERT INTO metrics_span
    SELECT tenant_id, date_bin('6 hours', hour, 'epoch'), array_agg(extract(epoch FROM hour) / 3600 % 6),
           array_agg(connection_id), array_agg(author), array_agg(emotion), array_agg(tone), array_agg(messages),
           array_agg(sentiment_sum), array_agg(satisfaction_sum), array_agg(positive)
    FROM (
        SELECT tenant_id, to_timestamp(3600.0 * hour) AS hour, connection_id, author, coalesce(emotion, '') AS emotion,
               coalesce(tone, '') AS tone, count(*) AS messages,
               coalesce(sum(sentiment::numeric * 1000000), 0) AS sentiment_sum,
               coalesce(sum(satisfaction), 0) AS satisfaction_sum, count(*) FILTER (WHERE sentiment > 0.1) AS positive
        FROM metrics_message GROUP BY 1, 2, 3, 4, 5, 6
        ORDER BY 1, 2, 3, author COLLATE "C", coalesce(emotion, '') COLLATE "C", coalesce(tone, '') COLLATE "C"
    ) AS cell GROUP BY 1, 2;
INSERT INTO metrics_latency_span
    SELECT tenant_id, date_bin('6 hours', hour, 'epoch'), model_name, is_shadow,
           array_agg(extract(epoch FROM hour) / 3600 % 6), array_agg(bucket), array_agg(inferences), array_agg(ms)
    FROM (
        SELECT tenant_id, date_trunc('hour', created_at, 'UTC') AS hour, model_name, is_shadow,
               latency_bucket(latency_ms) AS bucket, count(*) AS inferences, sum(latency_ms) AS ms
        FROM experiments_inference GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ) AS cell GROUP BY 1, 2, 3, 4;
"""
TOTALS = {
    "metrics_rollup": "SELECT tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive "
    "FROM metrics_rollup WHERE messages <> 0 ORDER BY 1, 2",
    "metrics_emotion": "SELECT * FROM metrics_emotion WHERE messages <> 0 ORDER BY 1, 2, 3",
    "metrics_latency": "SELECT * FROM metrics_latency WHERE inferences <> 0 ORDER BY 1",
    # Rows of these go with their last message or inference.
    "metrics_span": "SELECT * FROM metrics_span ORDER BY 1, 2",
    "metrics_latency_span": "SELECT * FROM metrics_latency_span ORDER BY 1, 2, 3, 4",
    "metrics_message": "SELECT message_id FROM metrics_message ORDER BY 1",
}
CLEAR = "TRUNCATE metrics_message, metrics_rollup, metrics_emotion, metrics_latency, metrics_span, metrics_latency_span"

Admin = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def dsn(database: str) -> str:
    migrate(database)
    return database


@pytest.fixture
def admin(dsn: str) -> Iterator[Admin]:
    """A connection to random rows of six tenants, one without messages; everything is rolled back afterwards."""
    with psycopg.connect(dsn, row_factory=dict_row) as conn:
        _fill(conn, random.Random(2))  # noqa: S311 - the same rows in every run
        yield conn
        conn.rollback()


def _fill(conn: Admin, rng: random.Random) -> None:
    now = dt.datetime.now(dt.UTC)
    cursor = conn.cursor()
    for n, tenant in enumerate(TENANTS):
        status = "suspended" if tenant == SUSPENDED else "active"
        cursor.execute(
            "INSERT INTO tenancy_tenant (id, name, plan, status) VALUES (%s, %s, %s, %s)",
            (tenant, f"tenant {n}", PLANS[n % 4], status),
        )
        for connection in (n * 10 + 1, n * 10 + 2, n * 10 + 3):
            cursor.execute(
                "INSERT INTO connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token, is_active) "
                "VALUES (%s, %s, %s, 'wss://example', 'x', %s)",
                (connection, tenant, str(connection), connection % 10 != 3),
            )
            cursor.execute("INSERT INTO connections_companysender VALUES (%s, %s, 'company')", (connection, tenant))
    messages = []
    for id_ in range(1, 1201):
        analysed = rng.random() < 0.8
        messages.append(
            (
                id_,
                (tenant := rng.choice([t for t in TENANTS if t != EMPTY])),
                TENANTS.index(tenant) * 10 + rng.randint(1, 3),
                rng.choice(["company", "customer 1", "customer 2"]),
                now - dt.timedelta(days=rng.choice([0, 0, 1, 10, 40, 200, 400, 800]), minutes=rng.randint(0, 1500)),
                rng.choice([0.1, 0.1000001, -1.0, round(rng.uniform(-1, 1), 6)]) if analysed else None,
                rng.randint(0, 100) if analysed else None,
                rng.choice(["alegria", "raiva", "neutro"]) if analysed else None,
                rng.choice(["cordial", "formal"]) if analysed else None,
            )
        )
    cursor.executemany(
        "INSERT INTO messages_message (id, tenant_id, connection_id, chat_id, sender, text, created_at, sentiment, "
        "satisfaction, emotion, tone) VALUES (%s, %s, %s, 'chat', %s, 'texto', %s, %s, %s, %s, %s)",
        messages,
    )
    cursor.executemany(
        "INSERT INTO messages_embedding VALUES (%s, %s, 'm', array_fill(0.1, ARRAY[768])::halfvec)",
        [(m[0], m[1]) for m in messages[:200]],
    )
    cursor.executemany(
        "INSERT INTO experiments_inference (id, tenant_id, message_id, model_name, prompt_version, template_hash, "
        "latency_ms, sentiment, emotion, satisfaction, run_id, created_at) "
        "VALUES (%s, %s, %s, 'm', 'p', 'h', %s, 0, 'neutro', 50, 'r', %s)",
        [(n, (m := rng.choice(messages))[1], m[0], rng.randint(1, 5000), m[4]) for n in range(1, 901)],
    )
    cursor.execute(FILL.encode())


def totals(conn: Admin) -> dict[str, list[dict[str, Any]]]:
    return {name: conn.execute(query.encode()).fetchall() for name, query in TOTALS.items()}


def brute_force(conn: Admin, tenant: uuid.UUID) -> dict[str, Any]:
    """The documented figures from the rows themselves, in Python."""
    messages = conn.execute("SELECT * FROM messages_message WHERE tenant_id = %s", (tenant,)).fetchall()
    inferences = conn.execute("SELECT latency_ms FROM experiments_inference WHERE tenant_id = %s", (tenant,)).fetchall()
    connections = conn.execute(
        "SELECT * FROM connections_evolutionconnection WHERE tenant_id = %s", (tenant,)
    ).fetchall()
    midnight = conn.execute("SELECT CURRENT_DATE::timestamptz AS at").fetchone()
    assert midnight is not None

    def mean(values: list[Any]) -> float | None:
        return statistics.fmean(values) if values else None

    analysed = [m for m in messages if m["sentiment"] is not None]
    positive = sum(m["sentiment"] > 0.1 for m in analysed)
    return {
        "total_messages": len(messages),
        "avg_sentiment": mean([m["sentiment"] for m in analysed]),
        "avg_satisfaction": mean([m["satisfaction"] for m in analysed]),
        "positive_pct": positive * 100 / len(messages) if messages else None,
        "messages_today": sum(m["created_at"] >= midnight["at"] for m in messages),
        "active_connections": sum(c["is_active"] for c in connections),
        "avg_latency_ms": mean([i["latency_ms"] for i in inferences]),
    }


def same(shown: dict[str, Any], counted: dict[str, Any]) -> None:
    for name, value in counted.items():
        if value is None:
            assert shown[name] is None, name
        else:
            assert float(shown[name]) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("zone", ["UTC", "America/Sao_Paulo", "Pacific/Kiritimati"])
def test_tenant_metrics_is_what_the_rows_say(admin: Admin, zone: str) -> None:
    admin.execute("SELECT set_config('TimeZone', %s, true)", (zone,))
    shown = {row["tenant_id"]: row for row in admin.execute("SELECT * FROM tenant_metrics").fetchall()}
    assert set(shown) == set(TENANTS)
    for n, tenant in enumerate(TENANTS):
        same(shown[tenant], brute_force(admin, tenant))
        assert (shown[tenant]["tenant_name"], shown[tenant]["plan"]) == (f"tenant {n}", PLANS[n % 4])
    assert shown[EMPTY]["total_messages"] == 0
    assert shown[EMPTY]["positive_pct"] is None


def test_by_author_customers_and_company_are_told_apart(admin: Admin) -> None:
    for tenant in TENANTS:
        for author in ("customer", "company"):
            shown = admin.execute(
                "SELECT * FROM tenant_metrics_by_author WHERE tenant_id = %s AND author = %s", (tenant, author)
            ).fetchone()
            messages = admin.execute(
                "SELECT sentiment, satisfaction FROM messages_message "
                "WHERE tenant_id = %s AND (sender = 'company') = (%s = 'company')",
                (tenant, author),
            ).fetchall()
            if tenant == EMPTY:
                assert shown is None
                continue
            assert shown is not None
            analysed = [m for m in messages if m["sentiment"] is not None]
            same(
                shown,
                {
                    "total_messages": len(messages),
                    "avg_sentiment": statistics.fmean(m["sentiment"] for m in analysed),
                    "avg_satisfaction": statistics.fmean(m["satisfaction"] for m in analysed),
                    "positive_pct": sum(m["sentiment"] > 0.1 for m in analysed) * 100 / len(analysed),
                },
            )


def test_the_views_do_not_read_history(admin: Admin) -> None:
    """The cost is that of the totals: the only scan of messages is today's, by index."""
    admin.execute("SET LOCAL enable_seqscan = off")
    (plan,) = admin.execute("EXPLAIN (FORMAT JSON) SELECT * FROM tenant_metrics").fetchall()

    def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if node.get("Relation Name") == "messages_message":
            yield node
        for child in node.get("Plans", []):
            yield from scans(child)

    found = list(scans(plan["QUERY PLAN"][0]["Plan"]))
    assert [("created_at >= CURRENT_DATE" in str(n.get("Index Cond", ""))) for n in found] == [True]


@pytest.mark.parametrize(
    "delete",
    [
        "DELETE FROM messages_message WHERE id % 3 = 0",
        "DELETE FROM messages_message WHERE id = 7",
        "DELETE FROM messages_message WHERE false",
        "DELETE FROM tenancy_tenant WHERE id = '00000000-0000-0000-0000-000000000001'",
        "DELETE FROM experiments_inference WHERE id % 2 = 0",
        "SELECT cleanup_old_messages()",
    ],
)
@pytest.mark.parametrize("role", ["none", "evosense_owner", "evosense_projector"])
def test_whatever_deletes_messages_leaves_the_totals_right(admin: Admin, delete: str, role: str) -> None:
    if "cleanup" in delete and role == "evosense_projector":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            admin.execute("SET LOCAL ROLE evosense_projector; SELECT cleanup_old_messages()")
        return
    admin.execute(f"SET LOCAL ROLE {role}".encode())
    admin.execute(delete.encode())
    admin.execute("SET LOCAL ROLE NONE")
    kept = totals(admin)
    vectors = admin.execute("SELECT count(*) AS n FROM messages_embedding").fetchone()
    expected = admin.execute("SELECT count(*) AS n FROM messages_message WHERE id <= 200").fetchone()
    assert vectors == expected
    admin.execute(CLEAR)
    admin.execute(FILL.encode())
    assert kept == totals(admin)
    assert len(kept["metrics_message"]) > 0


def test_cleanup_keeps_to_the_documented_periods_and_returns_the_total(admin: Admin) -> None:
    before = admin.execute(
        "SELECT m.id, m.created_at, t.plan, t.status FROM messages_message m "
        "JOIN tenancy_tenant t ON t.id = m.tenant_id"
    ).fetchall()
    today = admin.execute("SELECT CURRENT_DATE AS d").fetchone()
    assert today is not None
    midnight = {
        plan: admin.execute("SELECT (%s::date - %s)::timestamptz AS at", (today["d"], days)).fetchone()
        for plan, days in RETENTION_DAYS.items()
    }
    expired = {
        m["id"] for m in before if m["status"] == "active" and m["created_at"] < (midnight[m["plan"]] or {})["at"]
    }
    spared = {
        m["id"] for m in before if m["status"] != "active" and m["created_at"] < (midnight[m["plan"]] or {})["at"]
    }
    assert {m["plan"] for m in before if m["id"] in expired} == set(PLANS)
    assert spared  # retention covers active tenants alone, as documented
    assert admin.execute("SELECT cleanup_old_messages() AS n").fetchone() == {"n": len(expired)}
    left = {m["id"] for m in admin.execute("SELECT id FROM messages_message").fetchall()}
    assert left == {m["id"] for m in before} - expired
    assert admin.execute("SELECT cleanup_old_messages() AS n").fetchone() == {"n": 0}


def test_a_message_is_analysed_in_everything_or_in_nothing(admin: Admin) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("UPDATE metrics_message SET emotion = NULL WHERE sentiment IS NOT NULL")
