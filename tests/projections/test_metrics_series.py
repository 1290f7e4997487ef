"""The hourly roll-ups equal a count over the rows, whatever happens, in batches of any size, in any time zone."""

import random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from adapters.settings import Settings
from api.wiring import WriteSide, read_side
from domain.experiments import InferenceRecorded
from projections.latency import RELATIVE_ERROR, bucket_of, middle_of, percentile
from tests.support.seeds import Seeds
from tests.support.systems import administrator, drain, parked
from tests.support.world import World, record, repeatable

NEW_SEEDS = Seeds()

ZONES = ("UTC", "America/Sao_Paulo", "Pacific/Kiritimati", "Asia/Kolkata", "America/St_Johns")
HOURS = """
    SELECT m.tenant_id, date_trunc('hour', m.created_at, 'UTC'), m.connection_id,
           CASE WHEN c.sender IS NULL THEN 'customer' ELSE 'company' END, coalesce(m.emotion, ''), coalesce(m.tone, ''),
           count(*), coalesce(sum(m.sentiment::numeric), 0), coalesce(sum(m.satisfaction), 0),
           count(*) FILTER (WHERE m.sentiment > 0.1)
    FROM evosense.messages_message m
    LEFT JOIN evosense.connections_companysender c ON c.connection_id = m.connection_id AND c.sender = m.sender
    GROUP BY 1, 2, 3, 4, 5, 6
"""
LATENCIES = "SELECT tenant_id, created_at, model_name, is_shadow, latency_ms FROM evosense.experiments_inference"
# By the day in which the message's hour begins, in whole hours of UTC: the same where a zone is whole hours from UTC.
DAYS = """
    SELECT tenant_id, date_trunc('hour', created_at, 'UTC')::date, count(*), count(sentiment),
           avg(sentiment::numeric), avg(satisfaction),
           100.0 * count(*) FILTER (WHERE sentiment > 0.1) / nullif(count(sentiment), 0)
    FROM evosense.messages_message GROUP BY 1, 2 ORDER BY 1, 2
"""


def rows(conn: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    return conn.execute(statement.encode()).fetchall()


def check(conn: psycopg.Connection) -> None:
    """Every hour beside a count of the same thing, and days as sessions in several time zones see them."""
    hours = sorted(rows(conn, "SELECT * FROM evosense.metrics_hour"))
    assert [row[:-1] for row in hours] == sorted(rows(conn, HOURS))
    counted: dict[tuple[Any, ...], tuple[int, int]] = {}
    for tenant_id, at, model, is_shadow, latency in rows(conn, LATENCIES):
        key = tenant_id, at.replace(minute=0, second=0, microsecond=0), model, is_shadow, bucket_of(latency)
        number, total = counted.get(key, (0, 0))
        counted[key] = number + 1, total + latency
    latencies = rows(conn, "SELECT * FROM evosense.metrics_latency_hour")
    kept = {row[:5]: row[5:-1] for row in latencies}
    for row in (*hours, *latencies):
        assert row[-1] == row[1].replace(hour=row[1].hour // 6 * 6)
    assert kept == counted
    for zone in ZONES:
        with conn.transaction():
            conn.execute("SELECT set_config('TimeZone', %s, true)", (zone,))
            shown = rows(conn, "SELECT * FROM evosense.tenant_metrics_by_day ORDER BY 1, 2")
            wanted = rows(conn, DAYS)
        assert [row[:4] for row in shown] == [row[:4] for row in wanted], zone
        for one, other in zip(shown, wanted, strict=True):
            for figure, expected in zip(one[4:], other[4:], strict=True):
                assert (figure is None) == (expected is None)
                assert figure is None or float(figure) == pytest.approx(float(expected), abs=1e-12)


@examples(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    tenants=st.integers(1, 3),
    steps=st.integers(0, 160),
    batches=st.tuples(*[st.sampled_from([1, 3, 10, 64, 1000])] * 3),
    deleted=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    cleanup=st.booleans(),
)
def test_hours_equal_a_count(
    settings: Settings,
    write: WriteSide,
    seed: int,
    tenants: int,
    steps: int,
    batches: tuple[int, int, int],
    deleted: float,
    cleanup: bool,
) -> None:
    """Messages come, are analysed and analysed anew, edited, taken back by who sent them, and deleted by retention; and
    more is said of those that are left and gone."""
    world = World(NEW_SEEDS(seed), tenants=tenants)
    world.rewrites = True
    with administrator(settings) as conn:
        for number, batch in enumerate(batches):
            units = [*world.births(), *world.happen(steps)] if number == 0 else world.happen(steps // 2)
            gone = _deleted(conn, deleted, repeatable(seed + number)) if number == 1 else _streams(conn)
            # An inference of a message that is gone is parked: its foreign key has nothing to refer to.
            said = [u for u in units if not any(isinstance(e, InferenceRecorded) and e.message_id in gone for e in u)]
            side = read_side(settings, batch=batch)
            record(write, said)
            drain(side.engine)
            side.close()
            check(conn)
        if cleanup:
            # As old as they are: those of plan pro go, enterprise keeps them.
            conn.execute("UPDATE evosense.tenancy_tenant SET plan = 'enterprise' WHERE id = %s", (world.tenants[0],))
            conn.execute("SELECT evosense.cleanup_old_messages()")
            check(conn)
        assert not parked(conn)


def test_a_message_from_before_the_hours_were_kept_is_in_none(settings: Settings, write: WriteSide) -> None:
    """As after a migration: its row says no hour. What is said of it changes the totals alone, and so does its end."""
    world = World(NEW_SEEDS(91), tenants=1)
    side = read_side(settings, batch=50)
    with administrator(settings) as conn:
        record(write, [*world.births(), *world.happen(120)])
        drain(side.engine)
        conn.execute("UPDATE evosense.metrics_message SET hour = NULL, connection_id = NULL, tone = NULL")
        conn.execute("TRUNCATE evosense.metrics_span, evosense.metrics_latency_span")
        record(write, world.happen(120))
        drain(side.engine)
        in_hours = "SELECT coalesce(sum(messages), 0) FROM evosense.metrics_hour"
        known = "SELECT count(*) FROM evosense.metrics_message WHERE hour IS NOT NULL"
        assert rows(conn, in_hours) == rows(conn, known)
        assert rows(conn, in_hours)[0][0] > 0
        conn.execute("DELETE FROM evosense.messages_message")
        assert not parked(conn)
        for table in ("metrics_span", "metrics_latency_span", "metrics_message"):
            assert rows(conn, f"SELECT count(*) FROM evosense.{table}") == [(0,)], table  # noqa: S608
    side.close()


def test_sql_and_python_agree_on_the_bucket_of_every_latency(settings: Settings) -> None:
    chance = random.Random(4)  # noqa: S311 - the same numbers every time
    latencies = {*range(5000), *(chance.randrange(2**31) for _ in range(5000))}
    edges = (((16 + part) << places) + step for places in range(27) for part in range(17) for step in (-1, 0, 1))
    latencies |= {edge for edge in edges if 0 <= edge < 2**31}
    with administrator(settings) as conn:
        found = conn.execute(
            "SELECT n, evosense.latency_bucket(n) FROM unnest(%s::int[]) AS n ORDER BY n", (list(latencies),)
        ).fetchall()
        assert conn.execute("SELECT evosense.latency_bucket(-5)").fetchone() == (bucket_of(-5),)
    assert found == [(latency, bucket_of(latency)) for latency in sorted(latencies)]
    buckets = [bucket for _, bucket in found]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 447
    for latency, bucket in found:
        assert abs(middle_of(bucket) - latency) <= RELATIVE_ERROR * latency


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_percentiles_are_near_the_true_ones(share: float) -> None:
    chance = random.Random(8)  # noqa: S311
    for number in (1, 2, 3, 10, 999):
        latencies = sorted(round(chance.lognormvariate(6, 1.2)) for _ in range(number))
        histogram: dict[int, int] = {}
        for latency in latencies:
            histogram[bucket_of(latency)] = histogram.get(bucket_of(latency), 0) + 1
        # The first that has at least this share of them up to it: percentile_disc().
        true = next(one for place, one in enumerate(latencies, start=1) if place >= share * number)
        shown = percentile(sorted(histogram.items()), share)
        assert shown == pytest.approx(true, rel=RELATIVE_ERROR)
    assert percentile([], share) is None


def _deleted(conn: psycopg.Connection, share: float, chance: random.Random) -> set[UUID]:
    """Delete about that share of all messages; returns the streams of all that are gone by now."""
    ids = [row[0] for row in rows(conn, "SELECT id FROM evosense.messages_message")]
    gone = [row_id for row_id in ids if chance.random() < share]
    conn.execute("DELETE FROM evosense.messages_message WHERE id = ANY(%s)", (gone,))
    check(conn)
    return _streams(conn)


def _streams(conn: psycopg.Connection) -> set[UUID]:
    """The messages that the log has and the tables no more."""
    found = rows(
        conn,
        "SELECT e.originator_id FROM evosense_log.stored_events e WHERE e.topic LIKE 'messages.MessageReceived%' "
        "AND NOT EXISTS (SELECT FROM evosense.messages_message m WHERE m.id = e.notification_id)",
    )
    return {stream_id for (stream_id,) in found}
