"""Builds: tables made after the live ones in a schema of their own, swapped in, brought back, published and dropped.

All of it as the projector's role, which owns nothing, through the owner's functions.
"""

import re
from typing import LiteralString
from uuid import UUID

import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from adapters.settings import Settings
from projections.metrics import MetricsProjection
from tests.support.builds import A, B, Builds, ready, session, structure

METRICS = MetricsProjection.tables
VECTOR = "[" + ",".join(["1"] * 768) + "]"
SEARCH = "SELECT text FROM {}.semantic_search(%s, %s::vector)"


def test_a_build_of_all_tables_has_the_structure_of_the_live_ones(builds: Builds) -> None:
    schema = builds.begin(builds.all)
    assert {kind for kind, *_ in builds.missing(schema)} == {
        "index", "foreign key", "trigger", "security", "grants", "autovacuum", "comment", "statistics",
    }  # fmt: skip
    builds.make(schema)
    live, built = structure(builds.admin, "evosense"), structure(builds.admin, schema)
    for what in set(live) - {"views"}:
        assert built[what] == live[what]
        assert len(live[what]) > 1


def test_a_build_of_some_tables_has_all_but_the_keys_to_others(builds: Builds) -> None:
    schema = builds.begin(["messages_message", "experiments_inference"])
    builds.make(schema)
    live, built = structure(builds.admin, "evosense"), structure(builds.admin, schema)
    for what in set(live) - {"views"}:
        others = [one for one in live[what] if "messages_messagekey" not in one]
        mine = [one for one in others if "('messages_message" in one or "('experiments_inference" in one]
        outward = [one for one in mine if "REFERENCES tenancy_" in one or "REFERENCES connections_" in one]
        assert built[what] == [one for one in mine if one not in outward]
        assert len(outward) == (3 if what == "constraints" else 0)


def test_nothing_of_a_build_refers_to_the_live_tables(builds: Builds) -> None:
    schema = ready(builds, builds.all)
    dependent = builds.admin.execute(
        "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend d "
        "JOIN pg_class live ON live.oid = d.refobjid AND live.relnamespace = 'evosense'::regnamespace "
        "WHERE d.refclassid = 'pg_class'::regclass "
        "AND pg_describe_object(classid, objid, objsubid) LIKE %s",
        (f"%{schema}.%",),
    ).fetchall()
    assert dependent == []


def test_a_build_that_was_killed_goes_on_where_it_was(builds: Builds) -> None:
    schema = builds.begin(builds.all)
    missing = builds.missing(schema)
    for number in (0, len(missing) // 2, len(missing) - 1):
        builds.call("build_make", schema, *missing[number])
    rest = [one for at, one in enumerate(missing) if at not in (0, len(missing) // 2, len(missing) - 1)]
    assert builds.missing(schema) == rest
    with pytest.raises(errors.InvalidParameterValue, match="is not missing"):
        builds.call("build_make", schema, *missing[0])


def test_a_swap_shows_the_new_rows_to_each_tenant_its_own(builds: Builds, settings: Settings) -> None:
    before = structure(builds.admin, "evosense")
    kept = builds.swap(schema := ready(builds, builds.all))
    assert structure(builds.admin, "evosense") == before
    assert builds.call("build_unvalidated", builds.all) == []
    assert builds.admin.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,)
    assert builds.texts() == {"new"}
    assert builds.texts(kept) == {"old"}
    with session(settings, "evosense_app", A) as app:
        assert app.execute("SELECT id, text FROM messages_message").fetchall() == [{"id": 1, "text": "new"}]
        assert app.execute("SELECT tenant_id, tenant_name FROM tenant_metrics").fetchall() == [
            {"tenant_id": A, "tenant_name": "new"}
        ]
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute(SQL("SELECT * FROM {}").format(Identifier(kept, "messages_message")))


@pytest.mark.parametrize(
    ("names", "keys"),
    [(METRICS, 3), (("messages_message",), 3), (("tenancy_tenant",), 10), (("messages_embedding",), 0)],
    ids=["metrics", "messages", "tenants", "partitions"],
)
def test_a_swap_of_some_tables_leaves_the_others_alone(builds: Builds, names: tuple[str, ...], keys: int) -> None:
    def oids() -> dict[str, int]:
        return dict(
            builds.admin.execute(
                "SELECT relname, oid::bigint FROM pg_class WHERE relnamespace = 'evosense'::regnamespace "
                "AND relkind IN ('r', 'p', 'v')"
            ).fetchall()
        )

    before = oids()
    kept = builds.swap(ready(builds, names))
    changed = {name for name, oid in oids().items() if before[name] != oid}
    assert {re.sub(r"_p\d\d$", "", name) for name in changed} == set(names)
    assert len(builds.validate(names)) == keys  # the rest of the structure is compared by the fixture
    # Nothing between the kept tables and live ones: deleting a tenant reaches the new rows and not the old.
    cross = (
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace IN (%s::regnamespace, "
        "'evosense'::regnamespace) AND (SELECT relnamespace FROM pg_class WHERE oid = conrelid) "
        "<> (SELECT relnamespace FROM pg_class WHERE oid = confrelid)"
    )
    assert builds.admin.execute(cross, (kept,)).fetchone() == (0,)
    builds.conn.execute("DELETE FROM evosense.tenancy_tenant WHERE id = %s", (A,))
    for name in names:
        query = SQL("SELECT (SELECT count(*) FROM {}) AS new, (SELECT count(*) FROM {}) AS old")
        row = builds.conn.execute(query.format(Identifier("evosense", name), Identifier(kept, name))).fetchone()
        # There was no inference to take its latency along.
        assert row == {"new": 2 if name == "metrics_latency_span" else 1, "old": 2}, name


def test_keys_are_validated_though_row_level_security_is_forced_on_the_owner(builds: Builds) -> None:
    """VALIDATE read as the owner, saw no rows, and called keys valid that were broken."""
    schema = builds.begin(["authn_user"])
    builds.conn.execute(
        SQL("INSERT INTO {} (id, password, username, tenant_id) VALUES (1, 'x', 'x', %s)").format(
            Identifier(schema, "authn_user")
        ),
        (UUID(int=0xDEAD),),
    )
    builds.make(schema)
    builds.swap(schema)
    with pytest.raises(errors.ForeignKeyViolation):
        builds.validate(["authn_user"])
    builds.conn.execute("DELETE FROM evosense.authn_user")
    assert len(builds.validate(["authn_user"])) == 1
    builds.swap(ready(builds, ["authn_user"]))
    builds.admin.execute("DROP POLICY owner_checks ON evosense.tenancy_tenant")
    builds.admin.execute("DROP POLICY owner_cleanup ON evosense.tenancy_tenant")
    try:
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match=r"hides rows of evosense\.tenancy_tenant"):
            builds.validate(["authn_user"])
    finally:
        for name, command in (("owner_cleanup", "ALL"), ("owner_checks", "SELECT")):
            query = SQL("CREATE POLICY {} ON evosense.tenancy_tenant FOR {} TO evosense_owner USING (true)")
            builds.admin.execute(query.format(Identifier(name), SQL(command)))
    builds.validate(["authn_user"])


@pytest.mark.parametrize("names", [None, ("messages_message", "messages_embedding")], ids=["all", "some"])
def test_two_swaps_and_the_way_back(builds: Builds, names: tuple[str, ...] | None) -> None:
    chosen = list(names or builds.all)
    first = builds.swap(ready(builds, chosen, "second"))
    builds.validate(chosen)
    second = builds.swap(ready(builds, chosen, "third"))
    builds.validate(chosen)
    assert [builds.texts(first), builds.texts(second), builds.texts()] == [{"old"}, {"second"}, {"third"}]
    third = builds.swap(first)
    builds.validate(chosen)
    assert [builds.texts(third), builds.texts(second), builds.texts()] == [{"third"}, {"second"}, {"old"}]


def test_open_connections_find_the_new_tables(builds: Builds, settings: Settings) -> None:
    """Prepared statements, a PL/pgSQL function and a view, each planned for good before the swap."""
    questions: dict[LiteralString, tuple[object, ...]] = {
        "SELECT text FROM evosense.messages_message WHERE id = %s": (1,),
        "SELECT text FROM messages_message WHERE tenant_id = %s": (A,),
        "SELECT tenant_name AS text FROM tenant_metrics WHERE tenant_id = %s": (A,),
        "SELECT text FROM semantic_search(%s, %s::vector)": (A, VECTOR),
    }
    with session(settings, "evosense_app", A) as app, session(settings, "evosense_projector") as writer:
        app.prepare_threshold = writer.prepare_threshold = 0

        def answers() -> set[str]:
            rows = [app.execute(query, values).fetchone() for query, values in questions.items()]
            writer.execute("UPDATE evosense.messages_message SET tone = %s WHERE id = %s", (tone, 1))
            return {row["text"] if row else "nothing" for row in rows}

        tone = "before"
        for _ in range(10):
            assert answers() == {"old"}
        kept = builds.swap(ready(builds, builds.all))
        tone = "after"
        assert answers() == {"new"}
        tones = SQL("SELECT (SELECT tone FROM evosense.messages_message WHERE id = 1) AS new, tone AS old FROM {}")
        row = builds.conn.execute(tones.format(Identifier(kept, "messages_message")) + SQL(" WHERE id = 1")).fetchone()
        assert row == {"new": "after", "old": "before"}
        builds.call("build_drop", kept)
        assert answers() == {"new"}


def test_a_swap_that_has_to_wait_too_long_changes_nothing(builds: Builds, settings: Settings) -> None:
    schema = ready(builds, builds.all)
    before = structure(builds.admin, "evosense")
    with session(settings, "evosense_app", A) as app:
        builds.conn.execute("SET lock_timeout = '40ms'")
        for question in ("SELECT FROM messages_message", "SELECT FROM tenant_metrics"):
            with app.transaction():
                app.execute(question)
                with pytest.raises(errors.LockNotAvailable):
                    builds.swap(schema)
            assert structure(builds.admin, "evosense") == before
        builds.conn.execute("RESET lock_timeout")
    assert builds.texts() == {"old"}
    builds.swap(schema)
    assert builds.texts() == {"new"}


def test_the_vector_indexes_are_there_and_used_after_a_swap(builds: Builds) -> None:
    """The one that leads to a tenant's vectors, and those that were made for a big tenant alone."""
    row = builds.admin.execute(
        "SELECT evosense_ops.vector_segment_definition('idx_message_embedding_s9', %s, 'm', 0, 9000)", (A,)
    ).fetchone()
    assert row is not None
    builds.admin.execute(row[0].replace("CONCURRENTLY", "").encode())
    builds.swap(ready(builds, ["messages_embedding"]))
    builds.admin.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = (
        "EXPLAIN SELECT message_id FROM evosense.messages_embedding WHERE tenant_id = %s AND model = 'm' "
        "AND message_id > 0 AND message_id <= 9000 ORDER BY embedding <=> %s"
    )
    plan = "\n".join(line for (line,) in builds.admin.execute(query, (A, VECTOR)).fetchall())
    by_order = "EXPLAIN SELECT message_id FROM evosense.messages_embedding WHERE tenant_id = %s"
    ordered = "\n".join(line for (line,) in builds.admin.execute(by_order, (A,)).fetchall())
    builds.admin.execute("RESET enable_seqscan; RESET enable_sort; DROP INDEX evosense.idx_message_embedding_s9")
    assert "Index Scan using idx_message_embedding_s9 on messages_embedding_p" in plan, plan
    assert "_tenant_id_model_message_id_idx on" in ordered, ordered


def test_a_published_build_shows_the_application_the_past_of_its_tenant(builds: Builds, settings: Settings) -> None:
    schema = builds.begin(builds.all, purpose="replay", unlogged=True)
    builds.fill(schema, "past")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="no row-level security yet"):
        builds.call("build_publish", schema)
    builds.make(schema)
    for _ in range(2):
        builds.call("build_publish", schema)
    views = structure(builds.admin, "evosense")["views"]
    assert [one.rsplit("\"", 1)[0] for one in structure(builds.admin, schema)["views"]] == [
        one.rsplit("\"", 1)[0] for one in views
    ]  # fmt: skip
    with session(settings, "evosense_app", B) as app:
        search = SQL(SEARCH).format(Identifier(schema))
        assert app.execute(search, (B, VECTOR)).fetchall() == [{"text": "past"}]
        assert app.execute(search, (A, VECTOR)).fetchall() == []
        words = SQL("SELECT text FROM {}.text_search(%s)").format(Identifier(schema))
        assert app.execute(words, ("past",)).fetchall() == [{"text": "past"}]
        assert app.execute(words, ("old",)).fetchall() == []
        filtered = SQL("SELECT text FROM {}.nearest_messages(%s, %s::vector, 'm', 20, -1, p_author => 'customer')")
        assert app.execute(filtered.format(Identifier(schema)), (B, VECTOR)).fetchall() == [{"text": "past"}]
        metrics = SQL("SELECT tenant_name, total_messages FROM {}").format(Identifier(schema, "tenant_metrics"))
        assert app.execute(metrics).fetchall() == [{"tenant_name": "past", "total_messages": 1}]
        assert app.execute("SELECT tenant_name FROM tenant_metrics").fetchall() == [{"tenant_name": "old"}]
        with pytest.raises(errors.InsufficientPrivilege):
            app.execute(SQL("DELETE FROM {}").format(Identifier(schema, "messages_message")))
    kept = builds.record("kept", builds.all)
    with pytest.raises(errors.DependentObjectsStillExist, match="otherwise than they are live"):
        builds.call("build_swap", schema, kept)


def test_a_build_of_some_tables_publishes_what_it_can(builds: Builds) -> None:
    schema = ready(builds, METRICS)
    builds.call("build_publish", schema)
    views = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'v' ORDER BY 1"
    assert builds.admin.execute(views, (schema,)).fetchall() == [
        ("metrics_hour",),
        ("metrics_latency_hour",),
        ("tenant_metrics_by_author",),
        ("tenant_metrics_by_day",),
    ]
    functions = "SELECT count(*) FROM pg_proc WHERE pronamespace = %s::regnamespace"
    assert builds.admin.execute(functions, (schema,)).fetchone() == (0,)


@pytest.mark.parametrize("names", [None, ("messages_message",)], ids=["all", "without the totals"])
def test_what_is_deleted_in_a_build_is_taken_from_its_own_totals(builds: Builds, names: tuple[str, ...] | None) -> None:
    def totals(schema: str) -> tuple[object, ...]:
        query = SQL("SELECT (SELECT sum(messages) FROM {}), (SELECT count(*) FROM {})")
        tables = [Identifier(schema, name) for name in ("metrics_rollup", "messages_embedding")]
        return tuple(builds.admin.execute(query.format(*tables)).fetchone() or ())

    schema = ready(builds, list(names or builds.all))
    assert totals("evosense") == (2, 2)
    builds.conn.execute(SQL("DELETE FROM {} WHERE id = 1").format(Identifier(schema, "messages_message")))
    assert totals("evosense") == (2, 2)
    if not names:
        assert totals(schema) == (1, 1)
        builds.conn.execute("DELETE FROM evosense.messages_message WHERE id = 1")
        assert totals("evosense") == (1, 1)


def test_the_shard_of_a_tenant_never_changes(builds: Builds) -> None:
    known = UUID("6f1d7a52-3c0e-4b7d-9f68-0d2b9c41e7a5")
    found = [builds.call("shard_of", known, shards)[0][0] for shards in (1, 2, 7, 16, 256)]
    assert found == [0xE7A5 % shards for shards in (1, 2, 7, 16, 256)]
    spread = builds.admin.execute(
        "SELECT shard, count(*) FROM (SELECT evosense_ops.shard_of(gen_random_uuid(), 4) AS shard "
        "FROM generate_series(1, 4000)) s GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [shard for shard, _ in spread] == [0, 1, 2, 3]
    assert min(count for _, count in spread) > 800
