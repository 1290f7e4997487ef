"""The migrated schema against the documented one, catalogue against catalogue, and who owns what."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from adapters.migrations import migrate

HERE = Path(__file__).parent
SQL = HERE.parent.parent / "sql"

#: Tables of schema evosense that the document does not have (docs/schema.md).
SIDE_TABLES = {
    "connections_companysender",
    "connections_state",
    "messages_embedding",
    "messages_embeddingmodel",
    "messages_person",
    "messages_messagekey",
    "metrics_emotion",
    "metrics_latency",
    "metrics_latency_span",
    "metrics_message",
    "metrics_rollup",
    "metrics_span",
}

COLUMNS = """
    SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           replace(pg_get_expr(d.adbin, d.adrelid), %(schema)s || '.', '')
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r' ORDER BY 1, 2"""
CONSTRAINTS = """
    SELECT t.relname, k.conname, k.contype, replace(pg_get_constraintdef(k.oid), %(schema)s || '.', '')
    FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid
    WHERE k.connamespace = %(schema)s::regnamespace AND k.contype IN ('p', 'u', 'c', 'f') ORDER BY 1, 2"""
INDEXES = """
    SELECT tablename, indexname, replace(indexdef, %(schema)s || '.', '')
    FROM pg_indexes WHERE schemaname = %(schema)s ORDER BY 1, 2"""
SEQUENCES = """
    SELECT t.relname, s.relname, q.seqtypid::regtype::text, q.seqincrement
    FROM pg_class s
    JOIN pg_sequence q ON q.seqrelid = s.oid
    JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'a'
    JOIN pg_class t ON t.oid = d.refobjid
    WHERE s.relnamespace = %(schema)s::regnamespace ORDER BY 1, 2"""
FUNCTION = """
    SELECT pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
    FROM pg_proc p WHERE p.pronamespace = %(schema)s::regnamespace AND p.proname = %(name)s"""
VIEW = """
    SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
    WHERE a.attrelid = (%(schema)s || '.tenant_metrics')::regclass AND a.attnum > 0 ORDER BY 1"""


@pytest.fixture(scope="module")
def admin(database: str) -> Iterator[psycopg.Connection]:
    migrate(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA documented")
        conn.execute("SET search_path = documented, public")
        conn.execute((HERE / "documented_schema.sql").read_text("utf-8").encode())
        conn.execute("RESET search_path")
        yield conn


def rows(conn: psycopg.Connection, query: str, schema: str) -> list[tuple[object, ...]]:
    return conn.execute(query.encode(), {"schema": schema}).fetchall()


def ours(conn: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    return [
        r
        for r in rows(conn, query, "evosense")
        if r[0] not in SIDE_TABLES and not str(r[0]).startswith("messages_embedding_p")
    ]


@pytest.mark.parametrize("query", [COLUMNS, CONSTRAINTS, SEQUENCES], ids=["columns", "constraints", "sequences"])
def test_documented_tables_to_the_letter(admin: psycopg.Connection, query: str) -> None:
    documented = rows(admin, query, "documented")
    assert len({r[0] for r in documented}) >= 8  # tenancy_tenant has no sequence
    assert ours(admin, query) == documented


def test_documented_indexes_but_for_the_vector_index(admin: psycopg.Connection) -> None:
    documented = rows(admin, INDEXES, "documented")
    moved = [r for r in documented if r[1] == "idx_message_embedding"]
    assert len(moved) == 1
    assert "ivfflat" in str(moved[0][2])
    found = ours(admin, INDEXES)
    added = [r for r in found if r[1] == "idx_message_words"]
    assert len(added) == 1
    assert "USING gin (search_words(text))" in str(added[0][2])
    assert [r for r in found if r not in added] == [r for r in documented if r not in moved]


def test_the_vector_index_has_its_documented_name_on_the_side_table(admin: psycopg.Connection) -> None:
    found = admin.execute(
        "SELECT t.oid::regclass::text, am.amname, o.opcname, x.indisvalid, "
        "(SELECT count(*) FROM pg_partition_tree(x.indexrelid) p WHERE p.isleaf) "
        "FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid "
        "JOIN pg_am am ON am.oid = i.relam JOIN pg_opclass o ON o.oid = x.indclass[0] "
        "WHERE i.oid = to_regclass('idx_message_embedding')"
    ).fetchall()
    # By which every search reaches a tenant's vectors; the HNSW indexes come with the tenants (docs/adr/0030).
    assert found == [("messages_embedding", "btree", "uuid_ops", True, 16)]
    admin.execute("REINDEX INDEX idx_message_embedding")  # documented maintenance, as it is written


def test_view_has_the_documented_columns_in_order_and_type(admin: psycopg.Connection) -> None:
    documented = rows(admin, VIEW, "documented")
    assert len(documented) == 10
    assert rows(admin, VIEW, "evosense") == documented


def test_function_signatures_are_the_documented_ones(admin: psycopg.Connection) -> None:
    def signature(schema: str, name: str) -> list[tuple[object, ...]]:
        return admin.execute(FUNCTION.encode(), {"schema": schema, "name": name}).fetchall()

    documented = signature("documented", "semantic_search")
    assert len(documented) == 1
    assert signature("evosense", "semantic_search") == documented
    # As documented it does not compile, so there is nothing to compare it with but the text.
    assert signature("evosense", "cleanup_old_messages") == [("", "integer")]


def test_documented_sql_runs_without_naming_a_schema(database: str, admin: psycopg.Connection) -> None:
    assert admin is not None
    with psycopg.connect(database) as fresh:
        assert fresh.execute("SHOW search_path").fetchone() == ("evosense, public",)
        fresh.execute("SELECT * FROM tenant_metrics").fetchall()
        query = "SELECT * FROM semantic_search(gen_random_uuid(), array_fill(0.1, ARRAY[768])::vector)"
        assert fresh.execute(query).fetchall() == []
        fresh.execute("ANALYZE messages_message")


@pytest.mark.parametrize("file", sorted(p.name for p in (SQL / "monitoring").glob("*.sql")))
def test_monitoring_queries_run(admin: psycopg.Connection, file: str) -> None:
    cursor = admin.execute((SQL / "monitoring" / file).read_bytes())
    assert cursor.description is not None
    cursor.fetchall()
    if file == "vector_index_usage.sql":
        assert cursor.rowcount == 16


def test_every_object_belongs_to_the_owner_role(admin: psycopg.Connection) -> None:
    owners = admin.execute(
        "SELECT DISTINCT pg_get_userbyid(owner) FROM ("
        "  SELECT relowner AS owner, relnamespace AS space FROM pg_class"
        "  UNION ALL SELECT proowner, pronamespace FROM pg_proc"
        "  UNION ALL SELECT nspowner, oid FROM pg_namespace"
        ") o WHERE space IN ('evosense'::regnamespace, 'evosense_log'::regnamespace, 'evosense_ops'::regnamespace)"
    ).fetchall()
    assert owners == [("evosense_owner",)]


def test_row_level_security_is_on_and_forced_on_every_table(admin: psycopg.Connection) -> None:
    tables = admin.execute(
        "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class "
        "WHERE relnamespace = 'evosense'::regnamespace AND relkind IN ('r', 'p')"
    ).fetchall()
    assert len(tables) == 9 + len(SIDE_TABLES) + 16
    assert [name for name, walled in tables if not walled] == []


def test_every_table_with_a_tenant_has_the_policy_of_its_tenant(admin: psycopg.Connection) -> None:
    policies: dict[str, str] = dict(
        admin.execute(
            "SELECT tablename, qual FROM pg_policies WHERE schemaname = 'evosense' AND policyname = 'app_tenant'"
        ).fetchall()
    )
    tables = admin.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'evosense'::regnamespace "
        "AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    ).fetchall()
    assert {t for (t,) in tables} - set(policies) == {"experiments_prompttemplate"}
    # A sub-select around the setting costs the vector search its index (DESIGN section 6).
    assert all("SELECT" not in qual for qual in policies.values())


def test_every_file_under_sql_is_applied_or_accounted_for() -> None:
    manifest = (SQL / "migrations.toml").read_text("utf-8")
    elsewhere = {"monitoring", "queries"}  # run by people, and by the program
    forgotten = [
        path.relative_to(SQL).as_posix()
        for path in SQL.rglob("*.sql")
        if path.relative_to(SQL).parts[0] not in elsewhere
        and f'"{path.relative_to(SQL).as_posix()}"' not in manifest
        and path.name != "migration_runner.sql"
    ]
    assert forgotten == []
