"""The migration runner on a real PostgreSQL: once, twice, at once, changed, newer, and without a transaction."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from adapters.migration_files import SQL_DIRECTORY, ManifestError, load_manifest, split_statements
from adapters.migrations import (
    MigrationError,
    MigrationReport,
    SchemaTooNew,
    SchemaTooOld,
    check_vector_version,
    migrate,
    require_current_schema,
    schema_state,
)

LATEST = load_manifest().latest
REPEATABLE = tuple(f.path for f in load_manifest().repeatable)


@contextmanager
def fresh_database(admin: str) -> Iterator[str]:
    """A further empty database on the same server."""
    name = sql.Identifier(f"test_{uuid4().hex[:12]}")
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(name))
    try:
        yield make_conninfo(admin, dbname=name.as_string().strip('"'))
    finally:
        with psycopg.connect(admin, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def empty(database: str) -> Iterator[str]:
    with fresh_database(database) as dsn:
        yield dsn


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the SQL tree that a test may change."""
    return Path(shutil.copytree(SQL_DIRECTORY, tmp_path / "sql"))


@pytest.fixture
def login(database: str) -> Iterator[str]:
    """The name of a role that does not exist yet; dropped afterwards."""
    name = f"evosense_login_{uuid4().hex[:8]}"
    yield name
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def one(dsn: str, query: str, *parameters: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None


def add_migration(tree: Path, version: int, name: str, text: str) -> None:
    (tree / "tables" / f"{name}.sql").write_text(text, "utf-8")
    with (tree / "migrations.toml").open("a", encoding="utf-8") as manifest:
        manifest.write(f'\n[[migration]]\nversion = {version}\nname = "{name}"\nfiles = ["tables/{name}.sql"]\n')


def test_an_empty_database_gets_everything_and_a_second_run_nothing(empty: str) -> None:
    assert schema_state(empty) == (0, LATEST)
    steps: list[str] = []
    first = migrate(empty, on_step=steps.append)
    assert first == MigrationReport(tuple(range(1, LATEST + 1)), REPEATABLE, (), LATEST)
    assert len(steps) == LATEST + 1
    assert schema_state(empty) == (LATEST, LATEST)
    require_current_schema(empty)
    objects = "SELECT string_agg(xmin::text, ',' ORDER BY oid) FROM pg_class"
    before = one(empty, objects)
    assert migrate(empty) == MigrationReport((), (), (), LATEST)
    assert one(empty, objects) == before


def test_four_at_once_apply_everything_once(empty: str) -> None:
    reports: list[MigrationReport] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            reports.append(migrate(empty))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    assert sorted(len(r.applied) for r in reports) == [0, 0, 0, LATEST]
    assert sorted(len(r.repeated) for r in reports) == [0, 0, 0, len(REPEATABLE)]


def test_a_changed_file_of_an_applied_migration_is_refused_by_name(empty: str, tree: Path) -> None:
    migrate(empty, directory=tree)
    changed = tree / "tables" / "tenancy_tenant.sql"
    changed.write_text(changed.read_text("utf-8") + "-- one more line\n", "utf-8")
    with pytest.raises(MigrationError, match=r"migration 1 .* tables/tenancy_tenant\.sql was changed since") as refusal:
        migrate(empty, directory=tree)
    assert "authn_user" not in str(refusal.value)


def test_a_file_taken_out_of_an_applied_migration_is_refused_by_name(empty: str, tree: Path) -> None:
    migrate(empty, directory=tree)
    manifest = tree / "migrations.toml"
    manifest.write_text(manifest.read_text("utf-8").replace('    "indexes/authn_user.sql",\n', ""), "utf-8")
    with pytest.raises(MigrationError, match=r"indexes/authn_user\.sql was removed since"):
        migrate(empty, directory=tree)


def test_line_endings_are_no_change(empty: str, tree: Path) -> None:
    migrate(empty)
    for path in tree.rglob("*.sql"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(empty, directory=tree) == MigrationReport((), (), (), LATEST)


def test_a_newer_database_is_refused_and_left_alone(empty: str, tree: Path) -> None:
    add_migration(tree, LATEST + 1, "later", "CREATE TABLE evosense.later (id bigint);")
    assert migrate(empty, directory=tree).applied == tuple(range(1, LATEST + 2))
    with pytest.raises(SchemaTooNew, match=f"schema version {LATEST + 1} and this program knows {LATEST}"):
        migrate(empty)
    with pytest.raises(SchemaTooNew):
        require_current_schema(empty)


def test_an_older_database_tells_the_running_roles_what_to_do(empty: str) -> None:
    with pytest.raises(SchemaTooOld, match="run `evosense migrate`"):
        require_current_schema(empty)


def test_a_migration_that_fails_leaves_nothing_and_says_where(empty: str, tree: Path) -> None:
    migrate(empty)
    add_migration(tree, LATEST + 1, "broken", "CREATE TABLE evosense.half (id bigint);\nSELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"tables/broken\.sql: division by zero"):
        migrate(empty, directory=tree)
    assert one(empty, "SELECT to_regclass('evosense.half')") is None
    assert schema_state(empty) == (LATEST, LATEST)
    # The lock was given back: the corrected migration goes through.
    (tree / "tables" / "broken.sql").write_text("CREATE TABLE evosense.whole (id bigint);", "utf-8")
    assert migrate(empty, directory=tree).applied == (LATEST + 1,)


def test_a_changed_repeatable_file_is_applied_again_with_those_after_it(empty: str, tree: Path) -> None:
    migrate(empty)
    view = tree / "views" / "tenant_metrics.sql"
    view.write_text(view.read_text("utf-8") + "COMMENT ON VIEW evosense.tenant_metrics IS 'changed';\n", "utf-8")
    report = migrate(empty, directory=tree)
    assert report.applied == ()
    assert report.repeated == REPEATABLE[REPEATABLE.index("views/tenant_metrics.sql") :]
    assert one(empty, "SELECT obj_description('evosense.tenant_metrics'::regclass)") == "changed"
    assert migrate(empty, directory=tree).repeated == ()


def test_a_file_without_a_transaction_runs_statement_by_statement(empty: str, tree: Path) -> None:
    migrate(empty)
    add_migration(
        tree,
        LATEST + 1,
        "concurrent",
        "-- evosense: no-transaction\n"
        "DROP INDEX CONCURRENTLY IF EXISTS evosense.idx_tenant_name; -- what a failed run left\n"
        "CREATE INDEX CONCURRENTLY idx_tenant_name ON evosense.tenancy_tenant (name);\n"
        "DO $$ BEGIN PERFORM 1; PERFORM 2; END $$;\n",
    )
    # Two at once: the one that waits must not hold up the other's concurrent index.
    second = threading.Thread(target=migrate, args=(empty,), kwargs={"directory": tree})
    second.start()
    migrate(empty, directory=tree)
    second.join(timeout=60)
    assert not second.is_alive()
    assert schema_state(empty, directory=tree) == (LATEST + 1, LATEST + 1)
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('evosense.idx_tenant_name')"
    assert one(empty, query) is True
    owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'evosense.idx_tenant_name'::regclass"
    assert one(empty, owner) == "evosense_owner"


def test_the_login_role_has_nothing_but_what_it_takes_on(empty: str, login: str) -> None:
    runtime = make_conninfo(empty, user=login, password="with ' quote and ü")
    migrate(empty, runtime_dsn=runtime)
    assert schema_state(runtime) == (LATEST, LATEST)
    with psycopg.connect(runtime, autocommit=True) as conn:
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM evosense.messages_message")
        for role, table in (
            ("evosense_app", "evosense.messages_message"),
            ("evosense_projector", "evosense_ops.projection_checkpoints"),
            ("evosense_writer", "evosense_log.stored_events"),
        ):
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            conn.execute(f"SELECT * FROM {table}".encode())  # noqa: S608 - own names
            conn.execute("RESET ROLE")
        for role in ("evosense_owner", str(conninfo_to_dict(empty)["user"])):
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    attributes = (
        "SELECT rolsuper OR rolinherit OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls "
        "FROM pg_roles WHERE rolname = %s"
    )
    assert one(empty, attributes, login) is False
    owned = "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = to_regrole(%s)"
    assert one(empty, owned, login) == 0


def test_a_password_that_changed_is_set_and_one_that_works_is_left_alone(empty: str, login: str) -> None:
    def verifier() -> Any:
        return one(empty, "SELECT rolpassword FROM pg_authid WHERE rolname = %s", login)

    migrate(empty, runtime_dsn=make_conninfo(empty, user=login, password="first"))
    stored = verifier()
    assert stored.startswith("SCRAM-SHA-256$")
    migrate(empty, runtime_dsn=make_conninfo(empty, user=login, password="first"))
    assert verifier() == stored
    migrate(empty, runtime_dsn=make_conninfo(empty, user=login, password="second"))
    psycopg.connect(make_conninfo(empty, user=login, password="second")).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(make_conninfo(empty, user=login, password="first"))


def test_a_login_role_that_could_do_more_is_refused(empty: str, login: str) -> None:
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN BYPASSRLS").format(sql.Identifier(login)))
    with pytest.raises(MigrationError, match="bypasses row-level security"):
        migrate(empty, runtime_dsn=make_conninfo(empty, user=login, password="x"))
    with pytest.raises(MigrationError, match="the administrator"):
        migrate(empty, runtime_dsn=empty)


def test_an_existing_login_role_loses_its_inheritance(empty: str, login: str) -> None:
    migrate(empty)
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} INHERIT").format(sql.Identifier(login)))
        conn.execute(sql.SQL("GRANT evosense_projector TO {}").format(sql.Identifier(login)))
    runtime = make_conninfo(empty, user=login, password="x")
    migrate(empty, runtime_dsn=runtime)
    with psycopg.connect(runtime) as conn, pytest.raises(errors.InsufficientPrivilege):
        conn.execute("SELECT * FROM evosense.messages_message")


def test_a_runtime_dsn_of_another_database_is_noticed(empty: str, login: str) -> None:
    runtime = make_conninfo(empty, user=login, password="x", dbname="elsewhere")
    (warning,) = migrate(empty, runtime_dsn=runtime).warnings
    assert "elsewhere" in warning


def test_an_administrator_without_superuser_can_migrate(empty: str, login: str) -> None:
    """A managed cloud's administrator: CREATEROLE, owner of the database, pgvector already there."""
    with psycopg.connect(empty, autocommit=True) as conn:
        name, database = sql.Identifier(login), sql.Identifier(conn.info.dbname)
        conn.execute("CREATE EXTENSION vector")
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'x'").format(name))
        conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, name))
        # Roles belong to the cluster: where another test made them, its administrator hands them over.
        for role in ("evosense_owner", "evosense_app", "evosense_projector", "evosense_writer"):
            exists = conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            if exists is not None:
                conn.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(role), name))
    try:
        report = migrate(make_conninfo(empty, user=login, password="x"))
        assert report.applied == tuple(range(1, LATEST + 1))
    finally:
        with psycopg.connect(empty, autocommit=True) as conn:
            conn.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(login)))
            conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(login)))


def test_a_table_that_is_held_is_named_and_nothing_is_kept(empty: str, tree: Path) -> None:
    migrate(empty)
    text = "SET LOCAL lock_timeout = '100ms';\nALTER TABLE evosense.tenancy_tenant ADD COLUMN note text;"
    add_migration(tree, LATEST + 1, "wider", text)
    with psycopg.connect(empty) as holder:
        holder.execute("SELECT * FROM evosense.tenancy_tenant")
        with pytest.raises(MigrationError, match=r"tables/wider\.sql: something has held a table"):
            migrate(empty, directory=tree)
    assert migrate(empty, directory=tree).applied == (LATEST + 1,)


def test_an_unreachable_server_is_an_error_without_the_password(empty: str) -> None:
    dsn = make_conninfo(empty, dbname="nowhere", password="hidden-from-view")
    for ask in (migrate, schema_state):
        with pytest.raises(MigrationError) as refusal:
            ask(dsn)
        assert "hidden-from-view" not in str(refusal.value)


def test_versions_of_pgvector() -> None:
    assert check_vector_version("0.8.4", installed=True) == []
    assert check_vector_version("0.8.10", installed=True) == []
    assert check_vector_version("1.0.0", installed=False) == []
    (warning,) = check_vector_version("0.8.3", installed=True)
    assert "ALTER EXTENSION vector UPDATE" in warning
    with pytest.raises(MigrationError, match=r"pgvector 0\.7\.4 is too old"):
        check_vector_version("0.7.4", installed=False)


def test_statements_are_split_where_they_end() -> None:
    text = """-- evosense: no-transaction; not here
    SELECT ';' AS "a;b"; /* nor; here */ DO $x$ BEGIN PERFORM ';'; END $x$;
    -- only a comment;
    SELECT 2"""
    statements = list(split_statements(text))
    assert [s.splitlines()[-1].strip() for s in statements] == [
        """SELECT ';' AS "a;b\"""",
        "/* nor; here */ DO $x$ BEGIN PERFORM ';'; END $x$",
        "SELECT 2",
    ]


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("[[migration]]\nversion = 2\nname = 'x'\nfiles = []", "versions are [2]"),
        ("[[migration]]\nversion = 1\nfiles = []", "lacks 'name'"),
        ("[[migration]]\nversion = 1\nname = 'x'\nfiles = ['no.sql']", "names no.sql, which can't be read"),
        ("[[migration]]\nversion = 1\nname = 'x'\nfiles = ['a.sql', 'b.sql']", "mixes files"),
        ("[repeatable]\nfiles = ['b.sql']", "b.sql: only a [[migration]] can"),
        ("[[", "can't be read"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path: Path, manifest: str, complaint: str) -> None:
    (tmp_path / "a.sql").write_text("SELECT 1")
    (tmp_path / "b.sql").write_text("-- evosense: no-transaction\nSELECT 1")
    (tmp_path / "migrations.toml").write_text(manifest)
    with pytest.raises(ManifestError) as refusal:
        load_manifest(tmp_path)
    assert complaint in str(refusal.value)


def test_vectors_of_before_two_models_stay_and_are_found(empty: str, tree: Path) -> None:
    manifest = (tree / "migrations.toml").read_text("utf-8")
    before = manifest[: manifest.index("[[migration]]\nversion = 6")]
    (tree / "migrations.toml").write_text(f"{before}\n[repeatable]\nfiles = []\n", "utf-8")
    migrate(empty, directory=tree)
    with psycopg.connect(empty) as conn:
        conn.execute(
            "INSERT INTO evosense.tenancy_tenant (id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'x')"
        )
        for number, model in enumerate(("a", "b", "b"), start=1):
            conn.execute(
                "INSERT INTO evosense.messages_message (id, tenant_id, chat_id, sender, text, created_at, embedding) "
                "VALUES (%(n)s, '00000000-0000-4000-8000-000000000001', 'c', 's', 'x', now(), "
                "array_fill(0.1, ARRAY[768])::vector)",
                {"n": number},
            )
            conn.execute(
                "INSERT INTO evosense.messages_embedding (message_id, tenant_id, model, embedding) VALUES "
                "(%s, '00000000-0000-4000-8000-000000000001', %s, array_fill(0.1, ARRAY[768])::halfvec)",
                (number, model),
            )
    migrate(empty)
    assert (
        one(empty, "SELECT string_agg(model || position, ' ' ORDER BY message_id) FROM messages_embedding")
        == "a0 b0 b0"
    )
    found = (
        "SELECT string_agg(message_id::text, ' ') FROM semantic_search('00000000-0000-4000-8000-000000000001', "
        "array_fill(0.1, ARRAY[768])::vector)"
    )
    assert one(empty, found) == "2 3"


def test_hours_of_the_metrics_go_into_spans(empty: str, tree: Path) -> None:
    """Row for row and to the digit, though row-level security is forced on who moves them."""
    tenants = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
    cells = [
        (tenant, f"2026-10-0{day} {hour}:00+00", connection, author, emotion, tone, number, sentiment, satisfaction, 1)
        for number, (tenant, day, hour, connection, author, (emotion, tone), (sentiment, satisfaction)) in enumerate(
            product(
                tenants,
                (1, 2),
                ("00", "05", "06", "23"),
                (9, 10),
                ("company", "customer"),
                (("", ""), ("alegria", "irônico"), ("alegria", "cordial"), ("outra", "Été")),
                ((Decimal("-0.500001"), 30),),
            ),
            start=1,
        )
    ]
    latencies = [
        (tenant, f"2026-10-01 {hour}:00+00", model, shadow, bucket, 2, 70)
        for tenant, hour, model, shadow, bucket in product(tenants, (1, 7), ("a", "b"), (True, False), (5, 40))
    ]
    manifest = (tree / "migrations.toml").read_text("utf-8")
    before = manifest[: manifest.index("[[migration]]\nversion = 9")]
    (tree / "migrations.toml").write_text(f"{before}\n[repeatable]\nfiles = []\n", "utf-8")
    migrate(empty, directory=tree)
    with psycopg.connect(empty) as conn, conn.cursor() as cursor:
        for table, some in (("metrics_hour", cells), ("metrics_latency_hour", latencies)):
            name = sql.Identifier("evosense", table)
            holes = sql.SQL(", ").join([sql.Placeholder()] * len(some[0]))
            cursor.executemany(sql.SQL("INSERT INTO {} VALUES ({})").format(name, holes), some)
            cursor.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name))
            cursor.execute(sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name))
            cursor.execute(sql.SQL("CREATE POLICY owner_cleanup ON {} TO evosense_owner USING (true)").format(name))
    shown = _hours(empty)
    assert [len(some) for some in shown] == [len(cells), len(latencies)]
    migrate(empty)
    # The views have one column more.
    assert [[row[:-1] for row in some] for some in _hours(empty)] == shown
    with psycopg.connect(empty) as conn:
        found = conn.execute(
            "SELECT hours, connection_ids, authors, emotions, tones FROM evosense.metrics_span"
        ).fetchall()
    assert len(found) == len(tenants) * 2 * 3
    for columns in found:
        # In the order of their bytes, as the projector would have put them.
        elements = list(zip(*columns, strict=True))
        assert elements == sorted(elements)


def _hours(dsn: str) -> list[list[tuple[Any, ...]]]:
    with psycopg.connect(dsn) as conn:
        return [
            sorted(conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("evosense", name))).fetchall())
            for name in ("metrics_hour", "metrics_latency_hour")
        ]
