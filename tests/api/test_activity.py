"""Counts of connections: added up by many at once, kept while the database is away, and never without bounds."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import PersistenceError

from adapters.event_store import RoleDatastore
from adapters.settings import Settings
from api.activity import Activity
from api.wiring import WriteSide, write_side
from domain.connections import Connection
from tests.support.systems import wait_for

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def source() -> Connection:
    return Connection(id=uuid4(), tenant_id=uuid4(), name="loja", is_active=True)


@pytest.fixture
def counting(write: WriteSide) -> Iterator[Activity]:
    """One that writes only when it is told to."""
    made = Activity(write.datastore, pause=3600)
    yield made
    made.close()


def rows(settings: Settings, table: str, connection_id: UUID) -> list[dict[str, Any]]:
    with psycopg.connect(settings.admin_dsn, row_factory=psycopg.rows.dict_row) as conn:
        # 'infinity' has no place in a datetime.
        hours = ", hour = '-infinity' AS always, nullif(hour, '-infinity') AS hour"
        columns = "count, outcome, kind, reason, transport, tenant_id" + hours if table.endswith("activity") else "*"
        query = f"SELECT {columns} FROM evosense_ops.{table} WHERE connection_id = %s"  # noqa: S608 - own names
        return list(conn.execute(query.encode(), (connection_id,)))


def counted(settings: Settings, one: Connection) -> dict[tuple[str, str, str, str], int]:
    """The totals of all time; the hours together must say the same."""
    found = rows(settings, "connection_activity", one.id)
    sums: dict[bool, dict[tuple[str, str, str, str], int]] = {True: {}, False: {}}
    for row in found:
        assert row["tenant_id"] == one.tenant_id
        key = (row["transport"], row["outcome"], row["kind"], row["reason"])
        sums[row["always"]][key] = sums[row["always"]].get(key, 0) + row["count"]
    assert sums[True] == sums[False]
    return sums[True]


def test_counts_add_up(counting: Activity, settings: Settings) -> None:
    one, other = source(), source()
    for _ in range(2):
        counting.note(one, "webhook", "accepted", kind="image", count=3)
        counting.note(one, "nats", "accepted", kind="image")
        counting.note(one, "webhook", "refused", kind="delivery", reason="token")
        counting.note(other, "webhook", "ignored", kind="reaction", reason="reaction", count=0)
        counting.flush()
    assert counted(settings, one) == {
        ("webhook", "accepted", "image", ""): 6,
        ("nats", "accepted", "image", ""): 2,
        ("webhook", "refused", "delivery", "token"): 2,
    }
    assert counted(settings, other) == {}


def test_names_that_a_sender_makes_up_are_one(counting: Activity, settings: Settings) -> None:
    one = source()
    for number in range(1000):
        counting.note(one, f"pigeon{number}", "ignored", kind=f"kind{number}", reason=f"reason{number}")
    counting.flush()
    assert counted(settings, one) == {("other", "ignored", "other", "other"): 1000}


def test_who_belongs_to_nobody_is_not_counted(counting: Activity, settings: Settings) -> None:
    nobody = replace_tenant(source())
    counting.note(nobody, "webhook", "refused", reason="token")
    counting.saw(nobody, NOW, state="open")
    counting.flush()
    assert rows(settings, "connection_activity", nobody.id) == rows(settings, "connection_last", nobody.id) == []


def replace_tenant(one: Connection) -> Connection:
    return Connection(id=one.id, name=one.name)


def test_many_processes_add_to_the_same_counts(write: WriteSide, settings: Settings) -> None:
    """In whatever order each has counted: neither a deadlock nor a lost count."""
    shared = [source() for _ in range(20)]
    gate = threading.Barrier(6)
    failures: list[BaseException] = []

    def process(number: int) -> None:
        datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer", pool_size=1, max_overflow=0)
        own = Activity(datastore, pause=3600)
        try:
            gate.wait(20)
            for round_ in range(10):
                order = shared[number:] + shared[:number] if round_ % 2 else list(reversed(shared))
                for one in order:
                    own.note(one, "webhook", "accepted", kind="image")
                    own.note(one, "nats", "duplicate", kind="image")
                    own.saw(one, NOW + timedelta(seconds=number), sent_at=NOW, state="open")
                own.flush()
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()
            datastore.close()

    threads = [threading.Thread(target=process, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    for one in shared:
        totals = counted(settings, one)
        assert totals == {("webhook", "accepted", "image", ""): 60, ("nats", "duplicate", "image", ""): 60}
        (last,) = rows(settings, "connection_last", one.id)
        assert last["message_at"] == last["state_at"] == NOW + timedelta(seconds=5)


def test_threads_of_one_process_share_it(counting: Activity, settings: Settings) -> None:
    one, done = source(), threading.Event()

    def write_all_the_time() -> None:
        while not done.is_set():
            counting.flush()

    def count() -> None:
        for _ in range(500):
            counting.note(one, "webhook", "accepted", kind="image")

    writer = threading.Thread(target=write_all_the_time)
    counters = [threading.Thread(target=count) for _ in range(4)]
    for thread in (writer, *counters):
        thread.start()
    for thread in counters:
        thread.join(60)
    done.set()
    writer.join(60)
    counting.flush()
    assert counted(settings, one) == {("webhook", "accepted", "image", ""): 2000}


def test_what_could_not_be_written_is_written_later(settings: Settings) -> None:
    one = source()
    datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer", pool_size=1, max_overflow=0)
    own = Activity(datastore, pause=3600)
    own.note(one, "webhook", "accepted", kind="image")
    own.saw(one, NOW, sent_at=NOW)
    with psycopg.connect(settings.admin_dsn, autocommit=True) as admin:
        admin.execute("REVOKE INSERT ON evosense_ops.connection_last FROM evosense_writer")
        try:
            with pytest.raises(PersistenceError):
                own.flush()
        finally:
            admin.execute("GRANT INSERT ON evosense_ops.connection_last TO evosense_writer")
    assert counted(settings, one) == {}, "all of it or nothing"
    own.note(one, "webhook", "accepted", kind="image")
    own.saw(one, NOW + timedelta(hours=1), sent_at=NOW - timedelta(hours=1))
    own.close()
    datastore.close()
    assert counted(settings, one) == {("webhook", "accepted", "image", ""): 2}
    (last,) = rows(settings, "connection_last", one.id)
    assert (last["message_at"], last["sent_at"], last["state"]) == (NOW + timedelta(hours=1), NOW, None)


def test_it_writes_by_itself_and_at_the_end(settings: Settings) -> None:
    one = source()
    side = write_side(settings)
    side.activity.note(one, "webhook", "accepted", kind="image")
    side.close()
    assert counted(settings, one) == {("webhook", "accepted", "image", ""): 1}
    datastore = RoleDatastore(settings.runtime_dsn, "evosense_writer")
    own = Activity(datastore, pause=0.05)
    own.note(one, "webhook", "accepted", kind="image")
    wait_for(lambda: counted(settings, one) == {("webhook", "accepted", "image", ""): 2}, "the count to be written")
    own.close()
    own.close()
    datastore.close()


def test_a_late_state_does_not_cover_a_later_one(counting: Activity, settings: Settings) -> None:
    one = source()
    for moment, state in ((NOW, "open"), (NOW - timedelta(minutes=1), "close")):
        counting.saw(one, moment, state=state)
        counting.flush()
    (last,) = rows(settings, "connection_last", one.id)
    assert (last["state"], last["state_at"], last["message_at"]) == ("open", NOW, None)
    counting.saw(one, NOW + timedelta(minutes=1), state="connecting")
    counting.saw(one, NOW, state="open")
    counting.flush()
    assert rows(settings, "connection_last", one.id)[0]["state"] == "connecting"


def test_old_hours_are_forgotten_and_totals_are_not(write: WriteSide, settings: Settings) -> None:
    one = source()
    own = Activity(write.datastore, pause=3600)
    own.note(one, "webhook", "accepted", kind="image", count=5)
    own.flush()
    with psycopg.connect(settings.admin_dsn) as admin:
        admin.execute(
            "UPDATE evosense_ops.connection_activity SET hour = hour - interval '91 days' "
            "WHERE connection_id = %s AND hour > '-infinity'",
            (one.id,),
        )
    again = Activity(write.datastore, pause=3600)
    again.note(one, "webhook", "accepted", kind="image")
    again.flush()
    found = {row["always"]: row["count"] for row in rows(settings, "connection_activity", one.id)}
    assert found == {True: 6, False: 1}
    own.close()
    again.close()


@pytest.mark.parametrize("table", ["connection_activity", "connection_last"])
def test_a_tenant_sees_its_own(counting: Activity, settings: Settings, table: str) -> None:
    mine, theirs = source(), source()
    for one in (mine, theirs):
        counting.note(one, "webhook", "accepted", kind="image")
        counting.saw(one, NOW, state="open")
    counting.flush()
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        query = f"SELECT DISTINCT connection_id FROM evosense_ops.{table}".encode()  # noqa: S608 - own names
        assert conn.execute(query).fetchall() == []
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(mine.tenant_id),))
        assert conn.execute(query).fetchall() == [(mine.id,)]
        for statement in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"{statement} evosense_ops.{table}".encode())


def test_a_tenant_is_forgotten(counting: Activity, settings: Settings) -> None:
    gone, stays = source(), source()
    for one in (gone, stays):
        counting.note(one, "webhook", "accepted", kind="image")
        counting.saw(one, NOW, state="open")
    counting.flush()
    assert gone.tenant_id is not None
    counting.note(gone, "webhook", "accepted", kind="image")  # not written yet
    counting.forget(gone.tenant_id)
    counting.flush()
    for table in ("connection_activity", "connection_last"):
        assert rows(settings, table, gone.id) == []
        assert rows(settings, table, stays.id)
