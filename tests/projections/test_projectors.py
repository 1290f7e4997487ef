"""The projectors by themselves: the same rows from batches of any size, in any schema, by COPY or not; written once.

Nothing of the engine takes part.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
import psycopg
import pytest
from msgspec.structs import replace
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from adapters.event_store import Appended
from adapters.settings import Settings
from api.wiring import ReadSide, WriteSide
from domain import amendments, authn, connections, embedding_models, messages, model_choices, tenancy
from domain.event import Event, event_types
from domain.experiments import InferenceRecorded
from domain.message_keys import message_key_id
from domain.people import LidLinked
from domain.ports import DIMENSIONS
from domain.receipts import CommandCarriedOut
from projections.batch import Batch, Recorded, RowIds, Settling
from projections.catalog import all_projections
from projections.copying import Inserts
from projections.vectors import Vectors
from sql import LIVE, queries
from tests.support.spec import NOW
from tests.support.systems import administrator, forget_read_models
from tests.support.world import World, repeatable, vector

#: A schema with bare tables.
LOADING = "evosense_loading"
TABLES = sorted(table for projection in all_projections() for table in projection.tables)
#: What a batch may take at most: one statement for the rows of a table that are born in it, one for the others.
MOST = {"tenancy": 2, "authn": 2, "connections": 3, "messages": 10, "experiments": 3, "billing": 0, "metrics": 4}

Rows = dict[str, list[str]]


class Noting(psycopg.Cursor[DictRow]):
    """Notes the statements that it is given."""

    statements: ClassVar[list[str]] = []

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self.statements.append(query)
        return super().execute(query, *args, **kwargs)

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        self.statements.append(statement)
        return super().copy(statement, *args, **kwargs)


def appended(write: WriteSide, units: Sequence[Sequence[Event]]) -> list[Recorded]:
    """Append units; returns their events with the positions that the log gave them."""
    units = [unit for unit in units if unit]
    for tenant_id in {event.tenant_id for unit in units for event in unit}:
        write.vault.create(tenant_id)
    recorded: list[Recorded] = []
    for unit, outcome in zip(units, write.log.append(units), strict=True):
        assert isinstance(outcome, Appended), outcome
        recorded += [Recorded(*pair) for pair in zip(outcome.positions, unit, strict=True)]
    return recorded


@pytest.fixture(scope="module")
def history(write: WriteSide) -> list[Recorded]:
    """Everything that can happen, in the log."""
    world = World(11)
    world.rewrites = world.prompts = True
    ana, rui = (authn.user(authn.user_id(f"{name}.11.0")) for name in ("ana", "rui"))
    shop = tenancy.tenant(world.tenants[1])
    change, at = tenancy.ChangeSubscription, NOW
    receipt = CommandCarriedOut(
        originator_id=UUID(int=7), originator_version=1, tenant_id=shop.id, at=at, fingerprint="f", events=0, reached=1
    )
    line = connections.connection(connections.connection_id(shop.id, "balcão"))
    key = amendments.message_key(message_key_id(line.id, "3EB0A1"))
    hints: dict[str, Any] = {
        "tenant_id": shop.id,
        "connection_id": line.id,
        "chat_id": "",
        "from_me": None,
        "external_id": "3EB0A1",
    }
    units = [
        *world.births(),
        *world.happen(200),
        world.carry_out(line, connections.DeactivateConnection(at=at), connections.ActivateConnection(at=at)),
        world.carry_out(
            key,
            amendments.AnnounceEdit(at=at, edited_at=None, text="Chegou!", **hints),
            amendments.AnnounceDeletion(at=at, deleted_at=at, **hints),
        ),
        world.carry_out(
            model_choices.model_choice(shop.id),
            model_choices.ChooseModels(at=at, tenant_id=shop.id, analysers=("main", "offline")),
            model_choices.ClearChoice(at=at),
        ),
        world.carry_out(ana, authn.ChangeRole(at=at, role="admin")),
        world.carry_out(shop, tenancy.ReactivateTenant(at=at)),
        world.carry_out(shop, change(at=at, plan="scale", status="trial", next_billing_date=at.date())),
        *world.happen(150),
        world.carry_out(ana, authn.ChangePassword(at=at, password_hash="another")),
        world.carry_out(shop, tenancy.ReactivateTenant(at=at)),
        world.carry_out(shop, change(at=at, plan="pro", status="active", next_billing_date=None)),
        *world.happen(150),
        world.carry_out(rui, authn.DeactivateUser(at=at)),
        world.carry_out(
            tenancy.tenant(world.tenants[2]),
            tenancy.SuspendTenant(at=at, reason="teste"),
            tenancy.ReactivateTenant(at=at),
            tenancy.SuspendTenant(at=at, reason="teste"),
        ),
        [receipt],
    ]
    return appended(write, units)


@pytest.fixture(scope="module")
def admin(settings: Settings) -> Iterator[psycopg.Connection]:
    """A superuser's connection, in a database with a schema of bare tables."""
    with administrator(settings) as conn:
        conn.execute(SQL("CREATE SCHEMA {}").format(Identifier(LOADING)))
        for table in TABLES:
            _create_bare(conn, table)
        for statement in (
            "GRANT USAGE ON SCHEMA {} TO evosense_projector",
            "GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}",
        ):
            conn.execute(SQL(statement).format(Identifier(LOADING), Identifier("evosense_projector")))
        yield conn


def _create_bare(conn: psycopg.Connection, table: str) -> None:
    """The table with its checks, defaults and keys, and nothing else of it; partitions, too, where the live one has."""
    live, bare = Identifier(LIVE, table), Identifier(LOADING, table)
    partitioned = table == "messages_embedding"
    conn.execute(
        SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) {}").format(
            bare, live, SQL("PARTITION BY HASH (tenant_id)" if partitioned else "")
        )
    )
    for remainder in range(2 if partitioned else 0):
        values = SQL("FOR VALUES WITH (MODULUS 2, REMAINDER {})").format(remainder)
        part = Identifier(LOADING, f"{table}_{remainder}")
        conn.execute(SQL("CREATE TABLE {} PARTITION OF {} {}").format(part, bare, values))
    keys = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'u')"
    for (key,) in conn.execute(keys, (f"{LIVE}.{table}",)).fetchall():
        conn.execute(SQL("ALTER TABLE {} ADD {}").format(bare, SQL(key)))


@pytest.fixture
def projector(admin: psycopg.Connection, read: ReadSide) -> Iterator[psycopg.Connection[DictRow]]:
    """The projector's connection; all tables are empty, live ones and bare ones."""
    forget_read_models(admin)
    names = SQL(", ").join(Identifier(LOADING, table) for table in TABLES)
    admin.execute(SQL("TRUNCATE {}").format(names))
    with read.connect() as conn:
        conn.cursor_factory = Noting
        yield conn


def fold(
    conn: psycopg.Connection[DictRow],
    recorded: Sequence[Recorded],
    size: int,
    schema: str = LIVE,
    *,
    bare: bool = False,
) -> None:
    """Project the events in batches of that size, with a memory so short that the log is asked for births."""
    row_ids, projections = RowIds(remember=50), all_projections(schema, bare=bare)
    for start in range(0, len(recorded), size):
        part = recorded[start : start + size]
        row_ids.learn(part)
        batch = Batch(part, row_ids)
        with conn.transaction():
            for projection in projections:
                projection.project(conn, batch)
    for projection in projections:
        if bare and isinstance(projection, Settling):
            with conn.transaction():
                projection.settle(conn)


def contents(conn: psycopg.Connection, schema: str = LIVE) -> Rows:
    """Every row of every table as text."""
    found: Rows = {}
    for table in TABLES:
        rows = conn.execute(SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(Identifier(schema, table)))
        found[table] = [row for (row,) in rows]
    return found


@pytest.fixture(scope="module")
def one_by_one(admin: psycopg.Connection, read: ReadSide, history: list[Recorded]) -> Rows:
    """What the tables hold after the history was projected event by event."""
    forget_read_models(admin)
    with read.connect() as conn:
        fold(conn, history, 1)
    return contents(admin)


@pytest.mark.parametrize(
    ("schema", "bare", "size"),
    [
        (LIVE, False, 7),
        (LIVE, False, 500),
        (LIVE, False, 5000),
        (LOADING, False, 100),
        (LOADING, True, 1),
        (LOADING, True, 7),
        (LOADING, True, 20_000),
    ],
)
def test_the_same_rows_come_of_batches_of_any_size_in_any_schema(
    admin: psycopg.Connection,
    projector: psycopg.Connection[DictRow],
    history: list[Recorded],
    one_by_one: Rows,
    schema: str,
    bare: bool,
    size: int,
) -> None:
    fold(projector, history, size, schema, bare=bare)
    found = contents(admin, schema)
    for table in TABLES:
        assert found[table] == one_by_one[table], f"{table} depends on how it was filled"
    other = LOADING if schema == LIVE else LIVE
    assert not any(contents(admin, other).values())


def test_the_history_has_everything(history: list[Recorded], one_by_one: Rows) -> None:
    """Or the comparisons above say little."""
    assert {type(event) for _, event in history} == set(event_types().values())
    empty = {table for table, rows in one_by_one.items() if not rows}
    assert all(table.startswith(("billing_", "experiments_experimentrun")) for table in empty)
    assert len(one_by_one["messages_embedding"]) > 20
    links = {(e.tenant_id, e.alias): at for at, e in reversed(history) if isinstance(e, LidLinked)}
    named = [(at, e) for at, e in history if isinstance(e, messages.MessageReceived)]
    behind = [at > links[e.tenant_id, e.sender] for at, e in named if (e.tenant_id, e.sender) in links]
    assert behind.count(False) > 3, "messages that a link puts under another name"
    assert behind.count(True) > 3, "messages that come under a LID behind its link"


def test_tenants_users_and_connections_are_as_their_aggregates_see_them(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], history: list[Recorded]
) -> None:
    fold(projector, history, 60)
    streams: defaultdict[UUID, list[Event]] = defaultdict(list)
    for _, event in history:
        streams[event.originator_id].append(event)
    expected: dict[str, set[tuple[Any, ...]]] = {
        "tenants": set(),
        "users": set(),
        "connections": set(),
        "states": set(),
    }
    for stream, events in streams.items():
        last = events[-1].at
        match events[0]:
            case tenancy.TenantRegistered():
                shop = tenancy.tenant(stream).replay(events)
                expected["tenants"].add((shop.name, shop.plan, shop.status, shop.next_billing_date, last))
            case authn.UserRegistered():
                user = authn.user(stream).replay(events)
                login = max((event.at for event in events if isinstance(event, authn.UserLoggedIn)), default=None)
                expected["users"].add((user.username, user.role, user.password_hash, user.is_active, login))
            case connections.ConnectionRegistered():
                line = connections.connection(stream).replay(events)
                # A state is no change of the documented row.
                last = [event.at for event in events if not isinstance(event, connections.ConnectionStateChanged)][-1]
                expected["connections"].add((line.tenant_id, line.name, line.sealed_token, line.is_active, last))
                if line.instance is not None:
                    told = line.instance
                    expected["states"].add((line.tenant_id, line.name, told.state, told.reason, told.at))
    found = {
        "tenants": "SELECT name, plan, status, next_billing_date, updated_at FROM evosense.tenancy_tenant",
        "users": "SELECT username, role, password, is_active, last_login FROM evosense.authn_user",
        "connections": "SELECT tenant_id, name, evo_token, is_active, updated_at "
        "FROM evosense.connections_evolutionconnection",
        "states": "SELECT tenant_id, name, state, reason, changed_at FROM evosense.connections_state "
        "JOIN evosense.connections_evolutionconnection USING (tenant_id) WHERE id = connection_id",
    }
    for what, statement in found.items():
        assert expected[what], what
        assert set(admin.execute(statement).fetchall()) == expected[what], what


def test_a_projection_reads_exactly_the_events_that_it_names(
    projector: psycopg.Connection[DictRow], history: list[Recorded]
) -> None:
    first = {type(one.event): one for one in reversed(history)}
    for projection in all_projections(LOADING):
        for event_class, one in first.items():
            Noting.statements.clear()
            with projector.transaction(force_rollback=True):
                projection.project(projector, Batch([one], RowIds()))
            said = bool(Noting.statements)
            assert said == (event_class in projection.events), f"{projection.name} and {event_class.__name__}"


@pytest.mark.parametrize(("schema", "bare"), [(LIVE, False), (LOADING, True)])
def test_no_row_is_written_twice_and_no_statement_is_one_too_many(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], history: list[Recorded], schema: str, bare: bool
) -> None:
    """Once for a batch in which everything is born, once for a batch that also changes what was there.

    A link is the exception: what it puts under another name may be analysed in the same batch.
    """
    history = [one for one in history if not isinstance(one.event, LidLinked)]
    half = len(history) // 2
    row_ids = RowIds()
    row_ids.learn(history)
    for part in (history[:half], history[half:]):
        with projector.transaction():
            # Or the counters of this transaction go on from those of the last one, for up to a second.
            projector.execute("SELECT pg_stat_force_next_flush()")
            for projection in all_projections(schema, bare=bare):
                Noting.statements.clear()
                projection.project(projector, Batch(part, row_ids))
                assert len(Noting.statements) <= MOST[projection.name], projection.name
                for table in projection.tables:
                    inserts, updates, rows = _writes(projector, schema, table)
                    assert inserts + updates == rows, f"{table} has {rows} rows of {inserts} inserts, {updates} updates"
                    assert not (part[0] is history[0] and updates), f"{table} was updated where all was new"


def _writes(conn: psycopg.Connection[DictRow], schema: str, table: str) -> tuple[int, int, int]:
    """Inserts and updates of the running transaction, and how many rows are of its making."""
    counted = conn.execute(
        "SELECT sum(n_tup_ins)::int AS inserts, sum(n_tup_upd)::int AS updates FROM pg_stat_xact_user_tables "
        "WHERE schemaname = %s AND relname ~ %s",
        (schema, f"^{table}(_[a-z]*[0-9]+)?$"),
    ).fetchone()
    mine = SQL("SELECT count(*) AS n FROM {} WHERE xmin = pg_current_xact_id()::xid").format(Identifier(schema, table))
    rows = conn.execute(mine).fetchone()
    assert counted
    assert rows
    return counted["inserts"], counted["updates"], rows["n"]


def test_a_message_that_is_gone_learns_nothing_and_leaves_no_vector(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], write: WriteSide
) -> None:
    """Retention deletes messages; an operator may skip one. What comes later of them must not reach the search."""
    world = World(12, tenants=1)
    born = [one for one in appended(write, [*world.births(), *world.happen(40)]) if one.event.originator_version == 1]
    received = [one for one in born if isinstance(one.event, messages.MessageReceived)]
    skipped, deleted, kept, *_ = received
    # Inferences of a message that is gone are another matter: their foreign key parks them.
    seen = [one for one in born if one is not skipped and not isinstance(one.event, InferenceRecorded)]
    fold(projector, seen, 500)
    admin.execute("DELETE FROM evosense.messages_message WHERE id = %s", (deleted.position,))
    source = repeatable(12)
    later = [
        world.carry_out(
            messages.message(one.event.originator_id),
            messages.AnalyzeMessage(at=NOW, model_name="m-1", prompt_version="p-1", analysis=world.analysis()),
            messages.EmbedMessage(at=NOW, model_name="e-9", vector=vector(source)),
        )
        for one in (skipped, deleted, kept)
    ]
    fold(projector, appended(write, later), 500)
    others = {one.position for one in received} - {skipped.position, deleted.position}
    remaining = {"messages_message": others, "metrics_message": others, "messages_embedding": {kept.position}}
    for table, found in remaining.items():
        column = Identifier("id" if table == "messages_message" else "message_id")
        ids = admin.execute(SQL("SELECT {} FROM {}").format(column, Identifier(LIVE, table))).fetchall()
        assert {row_id for (row_id,) in ids} == found, table
    totals = admin.execute("SELECT sum(messages), sum(analysed) FROM evosense.metrics_rollup").fetchone()
    assert totals == (len(others), 1)


@pytest.mark.parametrize("late", ["both", "old", "new", "none"])
@pytest.mark.parametrize("size", [1, 500])
def test_an_adoption_takes_the_vectors_of_before_it_whenever_they_come(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], write: WriteSide, late: str, size: int
) -> None:
    """Those that were parked, or held back, come after it."""
    world = World(13 + size + sum(map(ord, late)), tenants=1)
    (tenant_id,) = world.tenants
    born = appended(write, [*world.births(), *[world._receive() for _ in range(3)]])
    models = embedding_models.embedding_models(tenant_id)
    source = repeatable(13)

    def embed(model: str) -> list[Recorded]:
        streams = [one.event.originator_id for one in born if isinstance(one.event, messages.MessageReceived)]
        command = messages.EmbedMessage(at=NOW, model_name=model, vector=vector(source))
        return appended(write, [world.carry_out(messages.message(stream), command) for stream in streams])

    begin = embedding_models.BeginMove(at=NOW, tenant_id=tenant_id, model_name="e-2", from_model="e-1")
    adopt = embedding_models.AdoptModel(at=NOW, model_name="e-2")
    old, begun, new = embed("e-1"), appended(write, [world.carry_out(models, begin)]), embed("e-2")
    adopted = appended(write, [world.carry_out(models, adopt)])
    after = embed("e-3")
    held = [*(old if late in ("both", "old") else []), *(new if late in ("both", "new") else [])]
    everything = [*born, *old, *begun, *new, *adopted, *after]
    fold(projector, [one for one in everything if one not in held], size)
    # What is retried comes one by one.
    fold(projector, held, 1)
    found = admin.execute("SELECT model, position FROM evosense.messages_embedding ORDER BY position").fetchall()
    expected = [("e-2", one.position) for one in new] + [("e-3", one.position) for one in after]
    assert found == expected
    answering = admin.execute("SELECT evosense.embedding_model(%s)", (tenant_id,)).fetchone()
    assert answering == ("e-2",)


def test_an_analysis_does_not_store_the_message_s_vector_anew(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], history: list[Recorded]
) -> None:
    """It did while the statement left the vector's length open: the database then unpacked and stored it again."""
    fold(projector, history, 5000, LOADING, bare=True)
    before = _bytes_of_vectors(admin)
    assert before > 20 * DIMENSIONS * 4
    rewritten = {e.originator_id for _, e in history if isinstance(e, messages.MessageEdited | messages.MessageDeleted)}
    embedded = {event.originator_id for _, event in history if isinstance(event, messages.MessageEmbedded)} - rewritten
    said = {event.originator_id: event for _, event in history if isinstance(event, messages.MessageAnalyzed)}
    again = [
        Recorded(10**6 + n, replace(said[stream], emotion="nunca vista"))
        for n, stream in enumerate(embedded & said.keys())
    ]
    assert len(again) > 10
    fold(projector, again, 5000, LOADING, bare=True)
    angry = SQL("SELECT count(*) FROM {} WHERE emotion = 'nunca vista' AND embedding IS NOT NULL")
    assert admin.execute(angry.format(Identifier(LOADING, "messages_message"))).fetchone() == (len(again),)
    assert _bytes_of_vectors(admin) == before


def _bytes_of_vectors(conn: psycopg.Connection) -> int:
    """The size of what is kept outside of the messages' rows."""
    size = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = %s::regclass"
    row = conn.execute(size, (f"{LOADING}.messages_message",)).fetchone()
    assert row
    return int(row[0])


def test_an_emotion_that_no_message_has_any_more_leaves_no_row(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow], write: WriteSide
) -> None:
    world = World(13, tenants=1)
    units = world.births()
    while not isinstance(units[-1][0], messages.MessageReceived):
        units += world.happen(1)
    fold(projector, appended(write, units), 500)
    message = messages.message(units[-1][0].originator_id)
    for number, emotion in enumerate(("alegria", "raiva", "alegria")):
        analysis = replace(world.analysis(), emotion=emotion)
        command = messages.AnalyzeMessage(at=NOW, model_name=f"m-{number}", prompt_version="p-1", analysis=analysis)
        fold(projector, appended(write, [world.carry_out(message, command)]), 500)
        found = admin.execute("SELECT emotion, messages FROM evosense.metrics_emotion").fetchall()
        assert found == [(emotion, 1)]


def test_copied_vectors_are_rounded_as_the_database_rounds_them(
    admin: psycopg.Connection, projector: psycopg.Connection[DictRow]
) -> None:
    """Every number of 16 bits, the middles between them and the numbers right beside these, of either sign."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    edges = [np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))]
    numbers = np.concatenate([halves, middles, *edges]).astype("<f4")
    numbers = np.concatenate([numbers, -numbers])
    numbers.resize(-(-len(numbers) // DIMENSIONS) * DIMENSIONS)
    items = [row.tobytes() for row in numbers.reshape(-1, DIMENSIONS)]
    context, types = queries("messages", schema=LOADING), ("int8", "uuid", "varchar", "int8", "halfvec")
    for first, bare in ((0, False), (10_000, True)):
        Inserts(context.put_search_vectors, context.load_search_vectors, types, bare=bare).insert(
            projector,
            {
                "message_ids": list(range(first, first + len(items))),
                "tenant_ids": [UUID(int=1)] * len(items),
                "models": ["m"] * len(items),
                "positions": [0] * len(items),
                "embeddings": Vectors(items),
            },
        )
    differing = (
        "SELECT count(*) FILTER (WHERE a.embedding::text = b.embedding::text), count(*) "
        "FROM {table} AS a JOIN {table} AS b ON b.message_id = a.message_id + 10000"
    )
    table = Identifier(LOADING, "messages_embedding")
    assert admin.execute(SQL(differing).format(table=table)).fetchone() == (len(items), len(items))


@pytest.mark.parametrize("context", [name for name, most in MOST.items() if most])
def test_queries_in_another_schema_leave_the_live_one_alone(context: str) -> None:
    live, moved = queries(context), queries(context, schema="evosense_v7")
    assert moved.available_queries == live.available_queries
    for name in live.available_queries:
        before = getattr(live, name).sql
        after = getattr(moved, name).sql
        assert not re.search(r"(?<!')\bevosense\.", after)
        assert after.replace("evosense_v7.", "evosense.") == before
        # The settings that say who asks are the same whatever the schema.
        assert before.count("'evosense.tenant_id'") == after.count("'evosense.tenant_id'")


def test_the_schemas_of_the_log_and_of_operations_stay_where_they_are() -> None:
    for context in ("log", "engine"):
        live, moved = queries(context), queries(context, schema="evosense_v7")
        assert [getattr(moved, name).sql for name in live.available_queries] == [
            getattr(live, name).sql for name in live.available_queries
        ]


@pytest.mark.parametrize(
    "schema", ["", "Evosense", "a-b", 'x"; DROP SCHEMA evosense; --', "7up", "a.b", "x" * 64, "a\n"]
)
def test_a_schema_name_that_would_need_quotes_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="can't be a schema of read models"):
        all_projections(schema)
