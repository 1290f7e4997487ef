"""Two tenants, four roles, and attempts to climb over the walls between them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors, sql

from adapters.migrations import migrate

A, B = uuid.UUID(int=0xA), uuid.UUID(int=0xB)

VIEWS = ("tenant_metrics_by_author", "tenant_metrics_by_day", "metrics_hour", "metrics_latency_hour")
#: Tables that hold a row of each tenant in these tests: all but the one without a tenant.
WALLED = (
    "tenancy_tenant",
    "authn_user",
    "connections_evolutionconnection",
    "connections_companysender",
    "connections_state",
    "messages_message",
    "messages_embedding",
    "messages_embeddingmodel",
    "messages_person",
    "messages_messagekey",
    "experiments_inference",
    "experiments_experimentrun",
    "billing_paymentaccount",
    "billing_billingevent",
    "metrics_message",
    "metrics_rollup",
    "metrics_emotion",
    "metrics_latency",
    "metrics_span",
    "metrics_latency_span",
    *VIEWS,
)

ROWS = """
INSERT INTO tenancy_tenant (id, name) VALUES ('{t}', 'tenant {n}');
INSERT INTO authn_user (id, password, username, tenant_id) VALUES ({n}, 'x', 'user{n}', '{t}');
INSERT INTO connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token)
    VALUES ({n}, '{t}', 'loja', 'wss://example', 'sealed');
INSERT INTO connections_companysender VALUES ({n}, '{t}', 'hash');
INSERT INTO connections_state VALUES ({n}, '{t}', 'open', 200, now());
INSERT INTO messages_message (id, tenant_id, connection_id, chat_id, sender, text, created_at, embedding)
    VALUES ({n}, '{t}', {n}, 'chat', 'hash', 'olá', now(), array_fill(0.1, ARRAY[768])::vector);
INSERT INTO messages_embedding VALUES ({n}, '{t}', 'm', array_fill(0.1, ARRAY[768])::halfvec);
INSERT INTO messages_embeddingmodel VALUES ('{t}', {n}, 'm', true, now());
INSERT INTO messages_person VALUES ('{t}', 'lid', {n}, 'hash');
INSERT INTO messages_messagekey VALUES ({n}, '{t}', gen_random_uuid());
INSERT INTO experiments_inference (id, tenant_id, message_id, model_name, prompt_version, template_hash, latency_ms,
    sentiment, emotion, satisfaction, run_id) VALUES ({n}, '{t}', {n}, 'm', 'p', 'h', 10, 0.5, 'alegria', 80, 'r');
INSERT INTO experiments_experimentrun (id, tenant_id, run_id, name, prompt_version, start_date)
    VALUES ({n}, '{t}', 'run{n}', 'r', 'p', now());
INSERT INTO billing_paymentaccount (id, tenant_id, stripe_customer_id) VALUES ({n}, '{t}', 'cus_{n}');
INSERT INTO billing_billingevent (id, tenant_id, event_type, stripe_event_id, data)
    VALUES ({n}, '{t}', 'invoice.paid', 'evt_{n}', '{{}}');
INSERT INTO metrics_message VALUES ({n}, '{t}', 'customer', 0.5, 80, 'alegria');
INSERT INTO metrics_rollup VALUES ('{t}', 'customer', 1, 1, 0.5, 80, 1);
INSERT INTO metrics_emotion VALUES ('{t}', 'customer', 'alegria', 1);
INSERT INTO metrics_latency VALUES ('{t}', 1, 10);
INSERT INTO metrics_span VALUES ('{t}', date_bin('6 hours', now(), 'epoch'), '{{0}}', '{{{n}}}', '{{customer}}',
    '{{alegria}}', '{{cordial}}', '{{1}}', '{{500000}}', '{{80}}', '{{1}}');
INSERT INTO metrics_latency_span
    VALUES ('{t}', date_bin('6 hours', now(), 'epoch'), 'm', false, '{{0}}', '{{10}}', '{{1}}', '{{10}}');
"""


@pytest.fixture(scope="module")
def dsn(database: str) -> str:
    migrate(database)
    with psycopg.connect(database) as conn:
        conn.execute("SET ROLE evosense_projector")
        for n, tenant in enumerate((A, B), start=1):
            conn.execute(ROWS.format(t=tenant, n=n).encode())
        conn.execute("INSERT INTO experiments_prompttemplate (id, version, body) VALUES (9, 'v1', 'corpo')")
    return database


@contextmanager
def role(dsn: str, name: str, **settings: object) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        for key, value in settings.items():
            conn.execute("SELECT set_config(%s, %s, false)", (f"evosense.{key}", str(value)))
        yield conn


def count(conn: psycopg.Connection, table: str, where: str = "true") -> int:
    row = conn.execute(f"SELECT count(*) FROM {table} WHERE {where}".encode()).fetchone()  # noqa: S608 - own names
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("table", WALLED)
def test_a_tenant_sees_its_own_rows_and_no_others(dsn: str, table: str) -> None:
    column = "id" if table == "tenancy_tenant" else "tenant_id"
    with role(dsn, "evosense_projector") as conn:
        if table not in VIEWS:
            assert count(conn, table) == 2  # there is something to hide
    with role(dsn, "evosense_app", tenant_id=A) as conn:
        assert count(conn, table) == 1
        assert count(conn, table, f"{column} = '{B}'") == 0
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(B),))
        assert count(conn, table, f"{column} = '{B}'") == 1


@pytest.mark.parametrize("table", WALLED)
def test_without_a_tenant_nothing_is_seen(dsn: str, table: str) -> None:
    with role(dsn, "evosense_app") as conn:
        assert count(conn, table) == 0
    with role(dsn, "evosense_app", tenant_id="") as conn:
        assert count(conn, table) == 0
    with role(dsn, "evosense_app") as conn:
        # What a pooled connection is left with after SET LOCAL: an empty string, not the absence of the setting.
        with conn.transaction():
            conn.execute("SELECT set_config('evosense.tenant_id', %s, true)", (str(A),))
            assert count(conn, table) == 1
        assert conn.execute("SELECT current_setting('evosense.tenant_id', true)").fetchone() == ("",)
        assert count(conn, table) == 0


def test_all_tenants_opens_the_list_of_tenants_alone(dsn: str) -> None:
    with role(dsn, "evosense_app", all_tenants="on") as conn:
        assert count(conn, "tenancy_tenant") == 2
        assert {t: count(conn, t) for t in WALLED[1:]} == dict.fromkeys(WALLED[1:], 0)
        assert count(conn, "tenant_metrics") == 0  # no row of zeros for figures that can't be seen
    with role(dsn, "evosense_app", all_tenants="on", tenant_id=A) as conn:
        assert conn.execute("SELECT tenant_id, total_messages FROM tenant_metrics").fetchall() == [(A, 1)]
    with role(dsn, "evosense_app", all_tenants="off") as conn:
        assert count(conn, "tenancy_tenant") == 0


def test_prompt_templates_are_global(dsn: str) -> None:
    with role(dsn, "evosense_app") as conn:
        assert count(conn, "experiments_prompttemplate") == 1


@pytest.mark.parametrize("partition", range(16))
def test_partitions_cannot_be_read_past_their_parent(dsn: str, partition: int) -> None:
    for name in ("evosense_app", "evosense_projector"):
        with role(dsn, name, tenant_id=A) as conn, pytest.raises(errors.InsufficientPrivilege):
            count(conn, f"messages_embedding_p{partition:02d}")


@pytest.mark.parametrize("table", [t for t in WALLED if t not in VIEWS])
def test_the_application_writes_nothing(dsn: str, table: str) -> None:
    with role(dsn, "evosense_app", tenant_id=A) as conn:
        for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table} CASCADE"):  # noqa: S608
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM evosense_log.stored_events",
        "SELECT * FROM evosense_log.tenant_keys",
        "SELECT * FROM evosense_ops.parked_events",
        "SELECT * FROM evosense_ops.listeners",
        "SELECT holder FROM evosense_ops.connection_links",
        "UPDATE evosense_ops.connection_links SET state = 'linked'",
        "SELECT * FROM evosense_ops.model_backlog",
        "SELECT cleanup_old_messages()",
        "SELECT evosense_log.lock_for_append()",
        "ALTER TABLE messages_message DISABLE ROW LEVEL SECURITY",
        "DROP POLICY app_tenant ON messages_message",
        "CREATE TABLE evosense.mine (id int)",
        "SET row_security = off; SELECT * FROM messages_message",
    ],
)
def test_the_application_cannot_reach_further(dsn: str, statement: str) -> None:
    with role(dsn, "evosense_app", tenant_id=A) as conn, pytest.raises(errors.InsufficientPrivilege):
        conn.execute(statement.encode())


def test_a_leaking_predicate_is_not_shown_other_tenants(dsn: str) -> None:
    """A function in WHERE runs after the policy, so that it can't tell about the rows of others."""
    with role(dsn, "evosense_app", tenant_id=A) as conn:
        conn.execute(
            "CREATE FUNCTION pg_temp.heard(uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS "
            "$$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$"
        )
        heard: list[str] = []
        conn.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
        conn.execute("SELECT * FROM messages_message WHERE pg_temp.heard(tenant_id)").fetchall()
        assert heard == [str(A)]


def test_the_writer_appends_and_cannot_change_or_delete(dsn: str) -> None:
    with role(dsn, "evosense_writer") as conn:
        event = (uuid.uuid4(), 1, "T", b"sealed", A)
        row = conn.execute(
            "INSERT INTO evosense_log.stored_events (originator_id, originator_version, topic, state, tenant_id) "
            "VALUES (%s, %s, %s, %s, %s) RETURNING notification_id, recorded_at IS NOT NULL",
            event,
        ).fetchone()
        assert row is not None
        assert row[0] > 0
        assert row[1] is True
        conn.execute("INSERT INTO evosense_log.tenant_keys VALUES (%s, %s, 'k1')", (A, b"wrapped"))
        conn.execute("UPDATE evosense_log.tenant_keys SET wrapped_key = %s, master_key_id = 'k2'", (b"again",))
        conn.execute("INSERT INTO evosense_ops.relay_checkpoints VALUES ('nats', 1)")
        conn.execute("SELECT * FROM evosense_ops.projection_checkpoints")
        for statement in (
            "UPDATE evosense_log.stored_events SET state = ''",
            "DELETE FROM evosense_log.stored_events",
            "TRUNCATE evosense_log.stored_events",
            "UPDATE evosense_log.tenant_keys SET tenant_id = gen_random_uuid()",
            "DELETE FROM evosense_log.tenant_keys",
            "UPDATE evosense_ops.projection_checkpoints SET position = 0",
            "SELECT * FROM evosense.messages_message",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(statement)


def test_the_projector_reads_the_log_and_cannot_write_it(dsn: str) -> None:
    with role(dsn, "evosense_projector") as conn:
        conn.execute("SELECT * FROM evosense_log.stored_events, evosense_log.tenant_keys")
        conn.execute("INSERT INTO evosense_ops.projection_checkpoints VALUES ('p', 1)")
        with pytest.raises(errors.CheckViolation):
            conn.execute("UPDATE evosense_ops.projection_checkpoints SET position = -1")
        for table in ("stored_events", "tenant_keys"):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(f"DELETE FROM evosense_log.{table}".encode())  # noqa: S608 - own names
        with conn.transaction(force_rollback=True):
            conn.execute("TRUNCATE tenancy_tenant, messages_embedding, metrics_message CASCADE")
            assert count(conn, "messages_message") == count(conn, "messages_embedding") == 0


def test_the_projector_cannot_forget_an_id(dsn: str) -> None:
    """Ids are log positions: a number from the sequence would change on a rebuild."""
    with role(dsn, "evosense_projector") as conn, pytest.raises(errors.InsufficientPrivilege, match="sequence"):
        conn.execute("INSERT INTO experiments_prompttemplate (version, body) VALUES ('v2', 'corpo')")


def test_appends_of_two_writers_do_not_overlap(dsn: str) -> None:
    """The second append waits for the first one's end, though neither asked for a lock: positions are commit order."""
    insert = (
        "INSERT INTO evosense_log.stored_events (originator_id, originator_version, topic, state, tenant_id) "
        "VALUES (gen_random_uuid(), 1, 'T', '', gen_random_uuid()) RETURNING notification_id"
    )
    with role(dsn, "evosense_writer") as first, role(dsn, "evosense_writer") as second:
        second.execute("SET lock_timeout = '200ms'")
        with first.transaction():
            one = first.execute(insert).fetchone()
            with pytest.raises(errors.LockNotAvailable):
                second.execute(insert)
        two = second.execute(insert).fetchone()
        assert one is not None
        assert two is not None
        assert two[0] == one[0] + 1  # the one that waited in vain had not drawn a position
