"""What the owner's functions for builds refuse: others' objects in the way, other schemas and roles, strange names."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from adapters.event_store import Role
from adapters.settings import Settings
from projections.metrics import MetricsProjection
from tests.support.builds import Builds, ready, session

METRICS = MetricsProjection.tables
#: Every function that takes the name of a build, with the arguments after it.
ON_A_BUILD: dict[str, tuple[object, ...]] = {
    "build_begin": (False,),
    "build_missing": (),
    "build_make": ("index", "messages_message", "idx_message_tenant"),
    "build_swap": ("kept",),
    "build_drop": (),
    "build_publish": (),
}
STRANGE = ("evosense", "public", "pg_catalog", 'x"; DROP SCHEMA evosense CASCADE; --', "X", "", "a" * 64)

IN_THE_WAY = {
    "view report.v": "CREATE VIEW report.v AS SELECT tenant_id FROM evosense.metrics_rollup",
    "view evosense.theirs": "CREATE VIEW evosense.theirs AS SELECT tenant_id FROM evosense.metrics_rollup",
    "materialized view report.m": "CREATE MATERIALIZED VIEW report.m AS SELECT tenant_id FROM evosense.metrics_rollup",
    "function report.f()": "CREATE FUNCTION report.f() RETURNS bigint LANGUAGE sql "
    "BEGIN ATOMIC SELECT count(*) FROM evosense.metrics_rollup; END",
    "function report.g(evosense.metrics_rollup)": "CREATE FUNCTION report.g(evosense.metrics_rollup) RETURNS int "
    "LANGUAGE sql RETURN 1",
    "table report.c": "CREATE TABLE report.c () INHERITS (evosense.metrics_rollup)",
    "foreign key report.k.k_author_fkey": "CREATE TABLE report.k (tenant_id uuid, author varchar(8), "
    "CONSTRAINT k_author_fkey FOREIGN KEY (tenant_id, author) REFERENCES evosense.metrics_rollup)",
    "rule nothing on evosense.metrics_rollup": "CREATE RULE nothing AS ON DELETE TO evosense.metrics_rollup "
    "WHERE OLD.messages < 0 DO INSTEAD NOTHING",
    "policy p on evosense.experiments_prompttemplate": "CREATE POLICY p ON evosense.experiments_prompttemplate "
    "USING (EXISTS (SELECT FROM evosense.metrics_rollup))",
    "publication relation evosense.metrics_rollup in publication out": "CREATE PUBLICATION out "
    "FOR TABLE evosense.metrics_rollup",
    "statistics object evosense.s": "CREATE STATISTICS evosense.s ON messages, analysed FROM evosense.metrics_rollup",
}


@contextmanager
def made(builds: Builds, statement: str) -> Iterator[None]:
    """Something of the administrator's, as long as the block lasts."""
    builds.admin.execute("CREATE SCHEMA report")
    try:
        builds.admin.execute(statement.encode())
        yield
    finally:
        builds.admin.execute("DROP SCHEMA report CASCADE")
        builds.admin.execute("DROP VIEW IF EXISTS evosense.theirs")
        builds.admin.execute("DROP RULE IF EXISTS nothing ON evosense.metrics_rollup")
        builds.admin.execute("DROP POLICY IF EXISTS p ON evosense.experiments_prompttemplate")
        builds.admin.execute("DROP PUBLICATION IF EXISTS out")
        builds.admin.execute("DROP STATISTICS IF EXISTS evosense.s")


def test_nothing_stands_in_the_way_of_a_normal_installation(builds: Builds) -> None:
    assert builds.call("build_obstacles", builds.all) == []
    for name in builds.all:
        # The later migration's policy on billing events reads the templates.
        expected = [("policy", "billing_billingevent")] if name == "experiments_prompttemplate" else []
        found = builds.call("build_obstacles", [name])
        assert [(kind, text.rpartition(".")[2]) for kind, text, *_ in found] == expected, name


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_hangs_on_the_live_tables_is_named_and_stops_the_swap(builds: Builds, name: str) -> None:
    schema = ready(builds, METRICS)
    with made(builds, IN_THE_WAY[name]):
        (found,) = builds.call("build_obstacles", list(METRICS))
        assert f"{found[0]} {found[1]}" == name
        assert found[3] == "metrics_rollup"
        with pytest.raises(errors.DependentObjectsStillExist) as refusal:
            builds.swap(schema)
        assert name in str(refusal.value)
    builds.swap(schema)
    builds.validate(METRICS)


def test_what_reads_through_our_views_is_not_in_the_way(builds: Builds) -> None:
    statement = "CREATE MATERIALIZED VIEW report.m AS SELECT sum(total_messages) FROM evosense.tenant_metrics_by_author"
    with made(builds, statement):
        assert builds.call("build_obstacles", list(METRICS)) == []
        schema = builds.begin(METRICS)
        builds.make(schema)
        builds.swap(schema)
        builds.validate(METRICS)
        assert builds.admin.execute("TABLE report.m").fetchone() == (2,)
        builds.admin.execute("REFRESH MATERIALIZED VIEW report.m")
        assert builds.admin.execute("TABLE report.m").fetchone() == (None,)


def test_a_build_that_is_not_like_the_live_tables_is_not_swapped_in(builds: Builds) -> None:
    schema = builds.begin(METRICS)
    with pytest.raises(errors.DependentObjectsStillExist, match=r"lacks .*security metrics_rollup of metrics_rollup"):
        builds.swap(schema)
    builds.make(schema)
    builds.admin.execute("ALTER TABLE evosense.metrics_rollup ADD COLUMN more integer")
    try:
        with pytest.raises(errors.DependentObjectsStillExist, match="otherwise than they are live: metrics_rollup"):
            builds.swap(schema)
    finally:
        builds.admin.execute("ALTER TABLE evosense.metrics_rollup DROP COLUMN more")
    other = builds.record("kept", METRICS[:2])
    with pytest.raises(errors.InvalidParameterValue, match="of the same tables"):
        builds.call("build_swap", schema, other)
    unlogged = builds.begin(METRICS, unlogged=True)
    builds.make(unlogged)
    with pytest.raises(errors.DependentObjectsStillExist, match="otherwise than they are live"):
        builds.swap(unlogged)


@pytest.mark.parametrize("function", ON_A_BUILD)
def test_a_schema_that_is_no_build_is_refused(builds: Builds, function: str) -> None:
    for name in ("nowhere", "evosense", 'x"; DROP SCHEMA evosense CASCADE; --', None):
        with pytest.raises(errors.InvalidParameterValue, match=r"is no build: it has no row"):
            builds.call(function, name, *ON_A_BUILD[function])


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_refused_for_a_build(builds: Builds, name: str) -> None:
    with pytest.raises(errors.CheckViolation):
        builds.record("rebuild", METRICS, name)


@pytest.mark.parametrize("table", ["nowhere", "tenant_metrics", "messages_embedding_p00", 'x" (y int); --', None])
def test_only_tables_of_the_live_schema_are_built(builds: Builds, table: str | None) -> None:
    schema = builds.record("rebuild", [*METRICS, table or "x"])
    if table is None:
        builds.conn.execute("UPDATE evosense_ops.builds SET tables = tables || NULL::text")
    with pytest.raises(errors.UndefinedTable, match="no tables of schema evosense that can be built"):
        builds.call("build_begin", schema, False)
    with pytest.raises(errors.UndefinedTable):
        builds.call("build_obstacles", [table])


@pytest.mark.parametrize("kind", ["index", "foreign key", "security", "no such kind", "x'; DROP SCHEMA evosense; --"])
def test_only_what_is_missing_is_made(builds: Builds, kind: str) -> None:
    schema = builds.begin(METRICS)
    with pytest.raises(errors.InvalidParameterValue, match="is not missing"):
        builds.call("build_make", schema, kind, "metrics_rollup", 'x"; DROP TABLE evosense.messages_message; --')


def test_a_schema_with_something_in_it_is_not_built_in(builds: Builds) -> None:
    schema = builds.record("rebuild", METRICS, "report")
    with made(builds, "CREATE TABLE report.t (id int)"):
        with pytest.raises(errors.DuplicateSchema, match="not an empty one of ours"):
            builds.call("build_begin", schema, False)
        # Nor is it dropped: it is the administrator's.
        with pytest.raises(errors.InsufficientPrivilege):
            builds.call("build_drop", schema)
        assert builds.admin.execute("SELECT to_regclass('report.t') IS NOT NULL").fetchone() == (True,)


def test_nothing_of_others_is_dropped_with_a_build(builds: Builds) -> None:
    schema = ready(builds, builds.all)
    builds.call("build_publish", schema)
    for on in ("metrics_rollup", "tenant_metrics"):
        statement = SQL("CREATE VIEW report.v AS SELECT tenant_id FROM {}").format(Identifier(schema, on))
        with made(builds, statement.as_string(builds.admin)):
            with pytest.raises(errors.DependentObjectsStillExist, match=f"view report.v depends on .* {schema}.{on}"):
                builds.call("build_drop", schema)
            assert len(builds.missing(schema)) == 0
    builds.call("build_drop", schema)
    assert builds.admin.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,)
    gone = builds.record("rebuild", METRICS)
    builds.call("build_drop", gone)
    assert builds.conn.execute("SELECT FROM evosense_ops.builds").fetchall() == []


@pytest.mark.parametrize("role", ["evosense_app", "evosense_writer"])
def test_other_roles_build_nothing(builds: Builds, settings: Settings, role: Role) -> None:
    schema = builds.begin(METRICS)
    with session(settings, role) as conn:
        other = Builds(conn, builds.admin)
        for function, more in ON_A_BUILD.items():
            with pytest.raises(errors.InsufficientPrivilege):
                other.call(function, schema, *more)
        for function, values in {"build_obstacles": (builds.all,), "build_validate": ("x", "y")}.items():
            with pytest.raises(errors.InsufficientPrivilege):
                other.call(function, *values)
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute("DELETE FROM evosense_ops.builds")


def test_the_projector_calls_what_it_was_given_and_no_step_of_it(builds: Builds) -> None:
    callable_by_it = builds.admin.execute(
        "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'evosense_ops'::regnamespace "
        "AND has_function_privilege('evosense_projector', p.oid, 'EXECUTE') AND p.prosecdef ORDER BY 1"
    ).fetchall()
    assert {name for (name,) in callable_by_it} == {
        *ON_A_BUILD,
        "build_obstacles",
        "build_unvalidated",
        "build_validate",
    }
    for step in (
        "build_create_schema(text)",
        "build_table(oid, text, boolean)",
        "build_copy_grants(regclass, regclass)",
    ):
        row = builds.admin.execute(
            "SELECT has_function_privilege('evosense_projector', %s, 'EXECUTE')", (f"evosense_ops.{step}",)
        ).fetchone()
        assert row == (False,)
    unsafe = builds.admin.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'evosense_ops'::regnamespace AND prosecdef "
        "AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
    ).fetchall()
    assert unsafe == []
    with pytest.raises(errors.InsufficientPrivilege):
        builds.conn.execute("CREATE SCHEMA mine")
