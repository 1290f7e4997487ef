"""The roll-ups equal a count over the messages, whatever happens and in whatever batches it is folded."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide, read_side
from tests.support.seeds import Seeds
from tests.support.systems import administrator, drain, parked
from tests.support.world import World, record

NEW_SEEDS = Seeds()

#: Who wrote a message, from what the documented tables say.
AUTHORED = """
    CREATE TEMPORARY VIEW authored AS
    SELECT m.*, CASE WHEN c.sender IS NULL THEN 'customer' ELSE 'company' END AS author
    FROM evosense.messages_message m
    LEFT JOIN evosense.connections_companysender c ON c.connection_id = m.connection_id AND c.sender = m.sender
"""
ROLLUP = """
    SELECT tenant_id, author, count(*), count(sentiment), coalesce(sum(sentiment::numeric), 0),
           coalesce(sum(satisfaction), 0), count(*) FILTER (WHERE sentiment > 0.1)
    FROM authored GROUP BY tenant_id, author ORDER BY tenant_id, author
"""
EMOTIONS = """
    SELECT tenant_id, author, emotion, count(*)
    FROM authored WHERE emotion IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
LATENCY = """
    SELECT tenant_id, count(*), sum(latency_ms) FROM evosense.experiments_inference GROUP BY 1 ORDER BY 1
"""
VIEW = """
    SELECT t.id, t.name, t.plan,
           (SELECT count(*) FROM evosense.messages_message m WHERE m.tenant_id = t.id),
           (SELECT avg(m.sentiment::numeric) FROM evosense.messages_message m WHERE m.tenant_id = t.id),
           (SELECT avg(m.satisfaction) FROM evosense.messages_message m WHERE m.tenant_id = t.id),
           (SELECT 100.0 * count(*) FILTER (WHERE m.sentiment > 0.1) / nullif(count(*), 0)
            FROM evosense.messages_message m WHERE m.tenant_id = t.id),
           (SELECT count(*) FROM evosense.messages_message m WHERE m.tenant_id = t.id
            AND m.created_at >= CURRENT_DATE),
           (SELECT count(*) FROM evosense.connections_evolutionconnection c WHERE c.tenant_id = t.id AND c.is_active),
           (SELECT avg(i.latency_ms) FROM evosense.experiments_inference i WHERE i.tenant_id = t.id)
    FROM evosense.tenancy_tenant t ORDER BY t.id
"""


def rows(conn: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    return conn.execute(statement).fetchall()


def check_rollups(conn: psycopg.Connection) -> None:
    """Every total beside a count of the same thing."""
    conn.execute("DROP VIEW IF EXISTS pg_temp.authored")
    conn.execute(AUTHORED)
    kept = "SELECT tenant_id, author, messages, analysed, sentiment_sum, satisfaction_sum, positive"
    assert rows(conn, f"{kept} FROM evosense.metrics_rollup ORDER BY 1, 2") == rows(conn, ROLLUP)
    kept = "SELECT tenant_id, author, emotion, messages FROM evosense.metrics_emotion ORDER BY 1, 2, 3"
    assert rows(conn, kept) == rows(conn, EMOTIONS)
    kept = "SELECT tenant_id, inferences, latency_ms_sum FROM evosense.metrics_latency ORDER BY 1"
    assert rows(conn, kept) == rows(conn, LATENCY)


def check_view(conn: psycopg.Connection) -> None:
    """`tenant_metrics` beside the documented figures, counted one by one."""
    found = rows(conn, "SELECT * FROM evosense.tenant_metrics ORDER BY tenant_id")
    counted = rows(conn, VIEW)
    assert len(found) == len(counted)
    for row, expected in zip(found, counted, strict=True):
        assert [_rounded(value) for value in row] == [_rounded(value) for value in expected]


def _rounded(value: Any) -> Any:
    return round(float(value), 9) if isinstance(value, Decimal | float) else value


@examples(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    tenants=st.integers(1, 4),
    steps=st.integers(0, 160),
    batches=st.tuples(*[st.sampled_from([1, 3, 10, 64, 1000])] * 2),
)
def test_totals_equal_a_count(
    settings: Settings, write: WriteSide, seed: int, tenants: int, steps: int, batches: tuple[int, int]
) -> None:
    """Each example adds tenants with a history of their own to what the examples before it left.

    What happens later analyses messages of earlier batches anew: whichever way these were counted, it is taken away.
    """
    world = World(NEW_SEEDS(seed), tenants=tenants)
    for batch, units in zip(batches, ([*world.births(), *world.happen(steps)], world.happen(steps // 2)), strict=True):
        side = read_side(settings, batch=batch)
        record(write, units)
        drain(side.engine)
        side.close()
    with administrator(settings) as conn:
        assert not parked(conn)
        check_rollups(conn)
        check_view(conn)


def test_a_tenant_without_messages_has_no_percentage(settings: Settings, write: WriteSide, read: ReadSide) -> None:
    world = World(NEW_SEEDS(77), tenants=1)
    record(write, world.births())
    drain(read.engine)
    with administrator(settings) as conn:
        row = conn.execute(
            "SELECT total_messages, avg_sentiment, avg_satisfaction, positive_pct, active_connections, avg_latency_ms "
            "FROM evosense.tenant_metrics WHERE tenant_id = %s",
            (world.tenants[0],),
        ).fetchone()
    assert row == (0, None, None, None, 2, None)


def test_an_analysis_by_another_model_replaces_the_first(settings: Settings, write: WriteSide, read: ReadSide) -> None:
    world = World(NEW_SEEDS(78), tenants=1)
    record(write, [*world.births(), *world.happen(150)])
    drain(read.engine)
    with administrator(settings) as conn:
        before = _total(conn, world.tenants[0])
        analysed = world.happen(300)
        record(write, analysed)
        drain(read.engine)
        after = _total(conn, world.tenants[0])
        again = sum(
            event.originator_version > 2 for unit in analysed for event in unit if "Analyzed" in type(event).__name__
        )
        assert again > 10, "the history has analyses of what was analysed already"
        assert after[0] > before[0]
        check_rollups(conn)


def _total(conn: psycopg.Connection, tenant_id: UUID) -> tuple[Any, ...]:
    row = conn.execute(
        "SELECT sum(messages), sum(analysed) FROM evosense.metrics_rollup WHERE tenant_id = %s", (tenant_id,)
    ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("batch", [1, 1000])
def test_the_threshold_of_a_positive_message_is_exact(settings: Settings, write: WriteSide, batch: int) -> None:
    """The histories hold sentiments of exactly 0.1, which is not positive, and of 0.100001, which is."""
    world = World(NEW_SEEDS(100 + batch), tenants=1)
    record(write, [*world.births(), *world.happen(200)])
    side = read_side(settings, batch=batch)
    drain(side.engine)
    side.close()
    with administrator(settings) as conn:
        tenth = rows(conn, "SELECT count(*) FROM evosense.messages_message WHERE sentiment = 0.1")
        above = rows(conn, "SELECT count(*) FROM evosense.messages_message WHERE sentiment = 0.100001")
        assert tenth[0][0] > 5
        assert above[0][0] > 5
        check_rollups(conn)
