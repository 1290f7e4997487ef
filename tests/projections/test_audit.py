"""The audit: it finds what is wrong, says where and not what, and disturbs nobody."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from adapters.embedded import PostgresServer
from adapters.settings import Settings
from projections.audit import Auditor, AuditReport
from projections.builds import BuildError
from projections.faults import PoisonEvent
from projections.sharding import lay_out
from tests.support.rebuilding import (
    NAMES,
    StoppedHereError,
    System,
    a_system,
    appending_meanwhile,
    killed,
    projecting_meanwhile,
    run,
    session_gone,
)
from tests.support.systems import administrator, drain, parked, positions, wait_for
from tests.support.world import tampered


@pytest.fixture(scope="module")
def shared(settings: Settings) -> Iterator[System]:
    """A history in the module's database, projected."""
    with administrator(settings) as admin:
        system = System(settings, admin, 11)
        system.grow(500)
        yield system
        system.close()


@pytest.fixture
def system(postgres: PostgresServer) -> Iterator[System]:
    with a_system(postgres, 12) as system:
        yield system


@pytest.fixture
def spoilt(shared: System) -> Iterator[System]:
    """Tests may do harm to its rows: they are made again afterwards."""
    yield shared
    shared.rebuild()


def audited(system: System, names: Sequence[str] = (), *, fast: bool = False, **options: Any) -> AuditReport:
    progress: list[tuple[int, int]] = []
    auditor = Auditor(system.builder(), names or NAMES, **options)
    report = auditor.audit(lambda *so_far: progress.append(so_far), fast=fast)
    assert progress == sorted(progress)
    return report


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("names", [(), ("metrics",), ("messages", "billing")], ids=["all", "one", "two"])
def test_what_is_right_is_equal(shared: System, names: tuple[str, ...], fast: bool) -> None:
    before, checkpoints = shared.contents(), shared.checkpoints()
    report = audited(shared, names, fast=fast)
    assert report.equal
    assert report.position == shared.head
    assert report.parked == 0
    assert {table: len(before[table]) for table in report.rows} == report.rows
    assert names or report.rows.keys() == before.keys()
    assert shared.contents() == before
    assert shared.checkpoints() == checkpoints
    assert shared.builds() == []
    assert shared.build_schemas() == set()


def test_an_empty_log(system: System) -> None:
    report = audited(system)
    assert report.equal
    assert report.position == 0
    assert not any(report.rows.values())


def test_a_changed_cell_a_missing_row_and_an_extra_one_are_told(spoilt: System) -> None:
    admin = spoilt.admin
    two = "SELECT DISTINCT message_id FROM evosense.messages_embedding ORDER BY 1 LIMIT 2"
    message, gone = [found for (found,) in admin.execute(two)]
    tenant = spoilt.world.tenants[1]
    change = "UPDATE evosense.messages_message SET text = 'segredo', sentiment = 0.123 WHERE id = %s"
    admin.execute(change, (message,))
    admin.execute("UPDATE evosense.authn_user SET last_login = now() WHERE tenant_id = %s", (tenant,))
    users = [
        str(found) for (found,) in admin.execute("SELECT id FROM evosense.authn_user WHERE tenant_id = %s", (tenant,))
    ]
    admin.execute("DELETE FROM evosense.messages_embedding WHERE message_id = %s", (gone,))
    latency = "DELETE FROM evosense.metrics_latency WHERE tenant_id = %s"
    admin.execute(latency, (tenant,))
    admin.execute("INSERT INTO evosense.metrics_emotion VALUES (%s, 'customer', 'inventada', 3)", (tenant,))
    report = audited(spoilt)
    assert not report.equal
    found = {(one.table, one.key, one.kind): one.columns for one in report.differences}
    assert set(found[("messages_message", str(message), "differs")]) == {"sentiment", "text"}
    for user in users:
        assert found[("authn_user", user, "differs")] == ("last_login",)
    assert found[("metrics_latency", str(tenant), "missing")] == ()
    assert found[("metrics_emotion", f"{tenant}, customer, inventada", "extra")] == ()
    assert {table for table, *_ in found} == {
        *("messages_message", "authn_user", "metrics_latency", "metrics_emotion", "messages_embedding")
    }
    # The same tables and tenants are found by their digests.
    digests = audited(spoilt, fast=True).digests
    assert {one.table for one in digests} == {one.table for one in report.differences}
    by_table = {one.table: one for one in digests if one.tenant_id == tenant}
    assert (by_table["metrics_latency"].live_rows, by_table["metrics_latency"].log_rows) == (0, 1)
    assert by_table["metrics_emotion"].live_rows == by_table["metrics_emotion"].log_rows + 1
    assert by_table["authn_user"].live_rows == by_table["authn_user"].log_rows == 2
    # A report names rows by their ids: no value is in it.
    assert "segredo" not in repr(report)
    assert "0.123" not in repr(report)


def test_every_table_is_looked_at(spoilt: System) -> None:
    """Each with rows loses one; each difference is found, by rows and by digests."""
    emptied = set()
    for table, rows in spoilt.contents().items():
        if rows:
            emptied.add(table)
            with spoilt.admin.transaction():
                spoilt.admin.execute("SET LOCAL session_replication_role = replica")
                delete = f"DELETE FROM evosense.{table} WHERE ctid = (SELECT ctid FROM evosense.{table} LIMIT 1)"  # noqa: S608
                delete = delete if table != "messages_embedding" else "DELETE FROM evosense.messages_embedding"
                spoilt.admin.execute(delete.encode())
    assert len(emptied) > 8
    assert {one.table for one in audited(spoilt).differences} == emptied
    assert {one.kind for one in audited(spoilt).differences} == {"missing"}
    assert {one.table for one in audited(spoilt, fast=True).digests} == emptied


def test_only_so_many_differences_of_a_table_are_told(spoilt: System) -> None:
    spoilt.admin.execute("UPDATE evosense.messages_message SET text = 'x'")
    spoilt.admin.execute("UPDATE evosense.tenancy_tenant SET name = 'x'")
    report = audited(spoilt, most=2)
    assert [one.table for one in report.differences] == ["tenancy_tenant"] * 2 + ["messages_message"] * 2
    ids = [int(one.key) for one in report.differences[2:]]
    assert ids == sorted(ids), "the first ones by their ids"


@pytest.mark.parametrize("fast", [False, True])
def test_of_one_tenant_alone(spoilt: System, fast: bool) -> None:
    ours, other = spoilt.world.tenants[:2]
    spoilt.admin.execute("UPDATE evosense.messages_message SET text = 'x' WHERE tenant_id = %s", (other,))
    spoilt.admin.execute("UPDATE evosense.tenancy_tenant SET name = 'x' WHERE id = %s", (other,))
    report = audited(spoilt, tenant_id=ours, fast=fast)
    assert report.equal
    count = "SELECT count(*) FROM evosense.messages_message WHERE tenant_id = %s"
    assert report.rows["messages_message"] == spoilt.one(count, ours)
    assert report.rows["tenancy_tenant"] == 1
    assert not audited(spoilt, tenant_id=other, fast=fast).equal
    found = audited(spoilt, tenant_id=other)
    assert {one.table for one in found.differences} == {"messages_message", "tenancy_tenant"}


def test_an_unknown_context(shared: System) -> None:
    with pytest.raises(BuildError, match="there is no projection tables: there are tenancy"):
        audited(shared, ["tables"])


# ------------------------------------------------------------------------------------------------ set aside


def poisoned(system: System) -> int:
    """A history with a parked event in it; its position."""
    system.grow(200, project=False)
    topic = "SELECT notification_id FROM evosense_log.stored_events WHERE topic LIKE 'messages.MessageR%' ORDER BY 1"
    position: int = system.one(f"{topic} OFFSET 30 LIMIT 1")
    tampered(system.admin, position)
    drain(system.read.engine)
    assert position in parked(system.admin)
    return position


def test_what_is_parked_is_in_neither(system: System) -> None:
    position = poisoned(system)
    report = audited(system)
    assert report.equal, report.differences
    assert report.parked == len(parked(system.admin))
    assert audited(system, fast=True).equal
    # The event can be opened again and is still parked: in neither all the same.
    tampered(system.admin, position)
    assert audited(system).equal


def test_what_is_parked_for_some_projections_is_left_out_of_those(system: System) -> None:
    """After a rebuild of some contexts an event is parked for the others alone."""
    position = poisoned(system)
    tampered(system.admin, position)
    system.rebuild(["messages"])
    [(projections,)] = system.admin.execute(
        "SELECT projections FROM evosense_ops.parked_events WHERE position = %s", (position,)
    ).fetchall()
    assert "messages" not in projections
    report = audited(system)
    assert report.equal, report.differences
    assert report.parked
    assert audited(system, ["messages"]).parked == 0
    assert audited(system, ["messages"]).equal


def test_what_was_skipped_is_in_neither(system: System) -> None:
    position = poisoned(system)
    with system.read.connect() as conn:
        assert system.read.parked.skip(conn, position, "a test")
        for behind in sorted(parked(system.admin)):
            system.read.parked.retry(conn, behind)
    assert parked(system.admin) == {}
    report = audited(system)
    assert report.equal, report.differences


def test_poison_that_is_not_parked_is_named(system: System) -> None:
    system.grow(100)
    last = system.one("SELECT max(id) FROM evosense.messages_message")
    before = system.contents()
    tampered(system.admin, last)
    with pytest.raises(PoisonEvent, match=f"position {last} "):
        audited(system)
    assert system.contents() == before
    assert system.builds() == []


# ------------------------------------------------------------------------------------------------ beside the living


def test_beside_projectors_and_new_events_it_is_equal_every_time(system: System) -> None:
    """Both are seen at one moment: with less than that, an audit would meet rows of events it had not folded."""
    system.grow(300)
    lay_out(system.builder(), 3)
    reached = []
    with projecting_meanwhile(system):
        with appending_meanwhile(system):
            for number in range(6):
                report = audited(system, fast=bool(number % 2))
                assert report.equal, (report.differences, report.digests)
                reached.append(report.position)
        wait_for(lambda: positions(system.admin) == {system.head}, "the engine comes to the head")
    assert reached == sorted(set(reached)), "each at a later position"
    rows = system.contents()
    assert audited(system).equal
    assert rows == system.contents() == system.projected_afresh()


def test_shards_that_stand_apart(system: System) -> None:
    system.grow(0)
    lay_out(system.builder(), 4)
    system.grow(200, project=False)
    wait_for(lambda: system.read.engine.run_once() > 0, "the engine has the leases")
    system.read.engine.close()
    stands = positions(system.admin)
    report = audited(system)
    assert report.equal, report.differences
    assert report.position == max(stands)
    drain(system.read.engine)
    assert audited(system).equal


def test_what_it_sees_is_one_moment(system: System) -> None:
    """What happens to the tables while it compares them is not in it."""
    system.grow(100)
    tables: list[str] = []

    def harm(table: str) -> None:
        if not tables:
            system.admin.execute("DELETE FROM evosense.metrics_latency")
            system.grow(50)
        tables.append(table)

    report = Auditor(system.builder(), NAMES).audit(lambda *_: None, on_table=harm)
    assert tables[-1].startswith("metrics_")
    assert report.equal
    assert report.position < system.head
    assert [one.table for one in audited(system).differences][:1] == ["metrics_latency"]


def test_a_killed_audit_is_cleaned_up_by_the_next(system: System) -> None:
    system.grow(400)
    process = run(system, "audit")
    killed(process, lambda: any(build.purpose == "audit" for build in system.builds()), "the audit has begun")
    wait_for(session_gone(system), "the server knows of the end")
    [left] = system.builds()
    assert system.build_schemas() == {left.schema_name}
    assert audited(system).equal
    assert system.builds() == []
    assert system.build_schemas() == set()


def test_an_audit_leaves_alone_one_that_runs_beside_it(system: System) -> None:
    system.grow(200)
    second: list[AuditReport] = []

    def meanwhile(_: int, __: int) -> None:
        if not second:
            second.append(audited(system))

    first = Auditor(system.builder(), NAMES).audit(meanwhile)
    assert first.equal
    assert second[0].equal


def test_stopped_it_leaves_nothing_behind(system: System) -> None:
    system.grow(50)

    def stop(*_: int) -> None:
        raise StoppedHereError

    with pytest.raises(StoppedHereError):
        Auditor(system.builder(), NAMES).audit(stop)
    assert system.builds() == []
    assert system.build_schemas() == set()


def test_the_tables_of_an_audit_can_t_be_read_by_the_application(system: System) -> None:
    system.grow(50)
    seen: list[str] = []

    def look(*_: int) -> None:
        [build] = system.builds()
        with psycopg.connect(system.settings.runtime_dsn, autocommit=True) as conn:
            conn.execute("SET ROLE evosense_app")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(SQL("SELECT * FROM {}").format(Identifier(build.schema_name, "messages_message")))
        seen.append(build.schema_name)

    Auditor(system.builder(), NAMES).audit(look)
    assert seen
