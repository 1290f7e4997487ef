"""For how long a connection is used to be without a message: from rows that stand in the read models as they may."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from adapters.migrations import migrate

#: A Wednesday, 15:00 UTC.
NOW = datetime(2026, 11, 25, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def dsn(database: str) -> str:
    migrate(database)
    return database


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


class Shop:
    """A connection whose messages fall into the hours that a rule names."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.tenant = uuid4()
        self.name = f"loja-{self.tenant.hex[:6]}"
        conn.execute("SET ROLE evosense_projector")
        conn.execute("INSERT INTO evosense.tenancy_tenant (id, name) VALUES (%s, 'Loja')", (self.tenant,))
        row = conn.execute(
            "INSERT INTO evosense.connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token) VALUES "
            "((SELECT coalesce(max(id), 0) + 1 FROM evosense.connections_evolutionconnection), %s, %s, 'wss://e', 's') "
            "RETURNING id",
            (self.tenant, self.name),
        ).fetchone()
        conn.execute("RESET ROLE")
        assert row is not None
        self.id = row[0]

    def messages(self, *hours: datetime, each: int = 5) -> None:
        """So many in each of the hours; the last one half an hour into it."""
        self._conn.execute("SET ROLE evosense_projector")
        with self._conn.cursor() as cursor:
            spans: dict[datetime, list[int]] = {}
            for hour in sorted(hours):
                spans.setdefault(hour.replace(hour=hour.hour // 6 * 6), []).extend([hour.hour % 6] * 2)
            cursor.executemany(
                "INSERT INTO evosense.metrics_span VALUES (%s, %s, %s::smallint[], %s::bigint[], %s::text[], "
                "%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[], %s::integer[])",
                [
                    (
                        self.tenant,
                        since,
                        within,
                        *([value] * len(within) for value in (self.id, "customer")),
                        ["", "alegria"] * (len(within) // 2),
                        ["", "neutro"] * (len(within) // 2),
                        *([value] * len(within) for value in (each, 0, 0, 0)),
                    )
                    for since, within in spans.items()
                ],
            )
            cursor.executemany(
                "INSERT INTO evosense.messages_message "
                "(tenant_id, connection_id, chat_id, sender, text, created_at, id) "
                "VALUES (%s, %s, 'c', 's', 'olá', %s, "
                "(SELECT coalesce(max(id), 0) + 1 FROM evosense.messages_message))",
                [(self.tenant, self.id, hour + HOUR / 2) for hour in hours],
            )
        self._conn.execute("RESET ROLE")

    def habit(self, at: datetime = NOW) -> dict[str, Any]:
        """What a writer is told."""
        self._conn.execute("SET ROLE evosense_writer")
        with self._conn.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            rows = cursor.execute("SELECT * FROM evosense.connection_habits(%s)", (at,)).fetchall()
        self._conn.execute("RESET ROLE")
        (found,) = [row for row in rows if row["tenant_id"] == self.tenant]
        return found

    def expected(self, at: datetime = NOW) -> timedelta | None:
        """The longest gap that is nothing to speak of."""
        seconds = self.habit(at)["expected_gap_seconds"]
        return None if seconds is None else timedelta(seconds=seconds)


def hours(weeks: int, open_: Callable[[datetime], bool], until: datetime = NOW) -> list[datetime]:
    """The hours in which a shop that opens like this has messages."""
    all_ = (until - n * HOUR for n in range(1, weeks * 168 + 1))
    return [hour for hour in all_ if open_(hour)]


def office(hour: datetime) -> bool:
    """Monday to Friday, 9 to 18."""
    return hour.weekday() < 5 and 9 <= hour.hour < 18


def test_in_opening_hours_little_is_expected_and_at_night_and_weekends_more(conn: psycopg.Connection) -> None:
    shop = Shop(conn)
    shop.messages(*hours(5, office))
    habit = shop.habit()
    assert habit["name"] == shop.name
    assert habit["is_active"]
    assert habit["last_message_at"] == NOW - HOUR / 2
    assert habit["messages"] == 10 * len(hours(5, office))
    # At 15:00 there had always been one within the hour: an hour, and half as much again.
    assert shop.expected() == 1.5 * HOUR
    # At 7:00 there had been none since 18:00, 13 hours; at 8:00, the hour beside it, 14.
    assert shop.expected(NOW + timedelta(hours=16)) == 1.5 * (14 + 1) * HOUR
    # On Sunday at 15:00 there had been none for 45 hours; at 16:00, 46.
    assert shop.expected(NOW + timedelta(days=4)) == 1.5 * (46 + 1) * HOUR


def test_a_silence_that_goes_on_becomes_no_habit(conn: psycopg.Connection) -> None:
    shop = Shop(conn)
    last = NOW - timedelta(days=8)
    shop.messages(*hours(4, office, until=last))
    # A week ago, at this hour, it was silent already: that is not asked.
    assert shop.expected() == 1.5 * HOUR
    assert shop.habit()["last_message_at"] == last - HOUR / 2


def test_with_one_week_alone_the_longest_gap_counts(conn: psycopg.Connection) -> None:
    shop = Shop(conn)
    # Of nine days, one can be asked about this hour.
    shop.messages(*[hour for hour in hours(2, office) if hour >= NOW - timedelta(days=9)])
    assert shop.expected() == 1.5 * (63 + 1) * HOUR  # from Friday at 18:00 to Monday at 9:00


@pytest.mark.parametrize(
    ("weeks", "each", "known"), [(1, 5, False), (2, 5, True), (3, 0, False)], ids=["a week", "enough", "few messages"]
)
def test_little_is_no_habit(conn: psycopg.Connection, weeks: int, each: int, known: bool) -> None:
    shop = Shop(conn)
    days = hours(weeks, lambda hour: hour.hour == 12)
    shop.messages(*days[: -1 if weeks == 1 else None], each=each)
    assert (shop.expected() is not None) is known


def test_no_message_is_no_habit_and_no_error(conn: psycopg.Connection) -> None:
    shop = Shop(conn)
    assert shop.habit()["messages"] == 0
    assert shop.habit()["last_message_at"] is None
    assert shop.expected() is None


def test_other_connections_change_nothing(conn: psycopg.Connection) -> None:
    shop, other = Shop(conn), Shop(conn)
    shop.messages(*hours(5, office))
    other.messages(*hours(5, lambda _: True))
    assert shop.expected(NOW + timedelta(days=4)) == 1.5 * (46 + 1) * HOUR
    assert other.expected() == 1.5 * HOUR


def test_each_span_is_read_once_however_many_connections_there_are(conn: psycopg.Connection) -> None:
    for _ in range(5):
        Shop(conn).messages(*hours(2, office))
    with conn.transaction():
        conn.execute("SELECT * FROM evosense.connection_habits(%s)", (NOW,))
        (read,) = conn.execute(
            "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_all_tables "
            "WHERE relid = 'evosense.metrics_span'::regclass"
        ).fetchone() or (0,)
        (there,) = conn.execute("SELECT count(*) FROM evosense.metrics_span").fetchone() or (0,)
    assert 0 < read <= there


@pytest.mark.parametrize("role", ["evosense_app", "public"])
def test_the_application_is_told_nothing_of_others(conn: psycopg.Connection, role: str) -> None:
    if role == "public":
        conn.execute("CREATE ROLE evosense_test_nobody")
        role = "evosense_test_nobody"
    try:
        conn.execute(f"SET ROLE {role}".encode())
        for statement in (
            "SELECT * FROM evosense.connection_habits(now())",
            "SELECT * FROM evosense_ops.connection_sweeps",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(statement.encode())
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP ROLE IF EXISTS evosense_test_nobody")


def test_the_projector_reads_how_sweeps_stand_and_changes_nothing(conn: psycopg.Connection) -> None:
    conn.execute("SET ROLE evosense_projector")
    conn.execute("SELECT * FROM evosense_ops.connection_sweeps")
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute("DELETE FROM evosense_ops.connection_sweeps")
