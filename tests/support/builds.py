"""The owner's functions for builds, called as the projector; and the structure of a schema as the catalogue has it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from adapters.event_store import Role
from adapters.postgres import connect
from adapters.settings import Settings
from tests.support.systems import tables

A, B = UUID(int=0xA), UUID(int=0xB)

#: What a later migration might add: a build has to find it without being told.
LATER = """
ALTER TABLE evosense.billing_billingevent SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE evosense.billing_billingevent SET (toast.autovacuum_enabled = off);
COMMENT ON TABLE evosense.billing_billingevent IS 'the bank''s';
COMMENT ON COLUMN evosense.billing_billingevent.data IS 'as it came';
GRANT SELECT (event_type), UPDATE (processed) ON evosense.billing_billingevent TO evosense_writer;
GRANT USAGE ON SEQUENCE evosense.billing_billingevent_id_seq TO evosense_writer WITH GRANT OPTION;
REVOKE INSERT ON evosense.billing_billingevent FROM evosense_projector;
CREATE UNIQUE INDEX once_active ON evosense.billing_paymentaccount (lower(status), id) WHERE id > 0;
CREATE INDEX by_plan ON evosense.tenancy_tenant (plan) INCLUDE (name) WITH (fillfactor = 60);
ALTER TABLE evosense.experiments_prompttemplate
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY (START 7),
    ADD COLUMN size integer GENERATED ALWAYS AS (length(body)) STORED,
    ADD CONSTRAINT size_check CHECK (size < 1000000),
    ALTER COLUMN body SET STATISTICS 500;
ALTER TABLE evosense.messages_embedding_p03 SET (fillfactor = 80);
CREATE INDEX of_one_partition ON evosense.messages_embedding_p03 (model);
CREATE POLICY writers ON evosense.billing_billingevent AS RESTRICTIVE FOR UPDATE TO evosense_writer
    USING (NOT processed) WITH CHECK (EXISTS (SELECT FROM evosense.experiments_prompttemplate t WHERE t.is_active));
"""

_STRUCTURE = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relrowsecurity,
            c.relforcerowsecurity, t.reloptions, obj_description(c.oid, 'pg_class'),
            (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) o),
            pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), (
                SELECT array_agg(a::text ORDER BY a::text)
                FROM unnest(coalesce(
                    c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)
                )) a
            )
        FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p', 'S') ORDER BY 1""",
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, c.oid),
            a.attidentity, a.attgenerated, a.attstorage, a.attcompression, a.attstattarget, a.attacl::text,
            col_description(c.oid, a.attnum), pg_get_serial_sequence(c.oid::regclass::text, a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1, a.attnum""",
    "sequences": """
        SELECT c.relname, q.seqtypid::regtype, q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle
        FROM pg_class c JOIN pg_sequence q ON q.seqrelid = c.oid
        WHERE c.relnamespace = %(schema)s::regnamespace ORDER BY 1""",
    "constraints": """
        SELECT c.relname, k.conname, k.contype, pg_get_constraintdef(k.oid), k.convalidated
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND k.contype <> 't' ORDER BY 1, 2""",
    "indexes": """
        SELECT c.relname, i.relname, pg_get_indexdef(i.oid), x.indisvalid, x.indisprimary, i.relispartition
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1, 2""",
    "triggers": """
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND NOT t.tgisinternal ORDER BY 1, 2""",
    "policies": """
        SELECT tablename, policyname, permissive, roles::text[], cmd, qual, with_check
        FROM pg_policies WHERE schemaname = %(schema)s ORDER BY 1, 2""",
    "views": """
        SELECT c.relname, pg_get_viewdef(c.oid), c.reloptions, c.relacl::text, obj_description(c.oid, 'pg_class')
        FROM pg_class c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'v' ORDER BY 1""",
}

#: One row of each tenant in every table that the views and the search read.
_ROWS = """
INSERT INTO {s}.tenancy_tenant (id, name) VALUES ('{t}', '{text}');
INSERT INTO {s}.connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token)
    VALUES ({n}, '{t}', 'loja', 'wss://example', 'sealed');
INSERT INTO {s}.messages_message (id, tenant_id, connection_id, chat_id, sender, text, created_at, embedding)
    VALUES ({n}, '{t}', {n}, 'chat', 'hash', '{text}', now(), array_fill(1, ARRAY[768])::vector);
INSERT INTO {s}.messages_embedding VALUES ({n}, '{t}', 'm', array_fill(1, ARRAY[768])::halfvec);
INSERT INTO {s}.messages_embeddingmodel VALUES ('{t}', {n}, 'm', true, now());
INSERT INTO {s}.messages_person VALUES ('{t}', 'lid', {n}, 'hash');
INSERT INTO {s}.messages_messagekey VALUES ({n}, '{t}', gen_random_uuid());
INSERT INTO {s}.metrics_message VALUES
    ({n}, '{t}', 'customer', 0.5, 80, 'alegria', floor(extract(epoch FROM now()) / 3600), {n}, 'cordial');
INSERT INTO {s}.metrics_rollup VALUES ('{t}', 'customer', 1, 1, 0.5, 80, 1);
INSERT INTO {s}.metrics_emotion VALUES ('{t}', 'customer', 'alegria', 1);
INSERT INTO {s}.metrics_latency VALUES ('{t}', 1, 10);
INSERT INTO {s}.metrics_span VALUES
    ('{t}', date_bin('6 hours', now(), 'epoch'), ARRAY[mod(floor(extract(epoch FROM now()) / 3600), 6)], '{{{n}}}',
    '{{customer}}', '{{alegria}}', '{{cordial}}', '{{1}}', '{{500000}}', '{{80}}', '{{1}}');
INSERT INTO {s}.metrics_latency_span VALUES
    ('{t}', date_bin('6 hours', now(), 'epoch'), 'm', false, '{{0}}', '{{10}}', '{{1}}', '{{10}}');
"""


def structure(conn: psycopg.Connection, schema: str) -> dict[str, list[str]]:
    """Everything about the tables and views of a schema but their rows, with its name taken out."""
    conn.execute("SET search_path = pg_catalog")
    found = {
        what: [
            # The functions stay where they are, so theirs goes as well.
            str(row).replace(f"{schema}.", "").replace("evosense.", "")
            for row in conn.execute(query.encode(), {"schema": schema})
        ]
        for what, query in _STRUCTURE.items()
    }
    conn.execute("RESET search_path")
    return found


class Builds:
    """What a rebuild does, step by step. `conn` is the projector's, in autocommit; `admin` a superuser's."""

    def __init__(self, conn: Connection[Any], admin: psycopg.Connection) -> None:
        self.conn = conn
        self.admin = admin
        self.all = tables(admin)
        self._number = 0

    def call(self, function: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a function of evosense_ops."""
        places = SQL(", ").join(SQL("%s") for _ in values)
        query = SQL("SELECT * FROM {}({})").format(Identifier("evosense_ops", function), places)
        return [tuple(row.values()) for row in self.conn.execute(query, values).fetchall()]

    def record(self, purpose: str, names: Sequence[str], schema: str | None = None) -> str:
        """Enter a build; returns its schema."""
        self._number += 1
        schema = f"side_{self._number}" if schema is None else schema
        self.conn.execute(
            "INSERT INTO evosense_ops.builds (schema_name, purpose, projections, tables, fingerprint, schema_version) "
            "VALUES (%s, %s, '{}', %s, 'f', 3)",
            (schema, purpose, list(names)),
        )
        return schema

    def begin(self, names: Sequence[str], *, purpose: str = "rebuild", unlogged: bool = False) -> str:
        """Make empty tables."""
        schema = self.record(purpose, names)
        self.call("build_begin", schema, unlogged)
        return schema

    def missing(self, schema: str) -> list[tuple[Any, ...]]:
        """What is yet to be made."""
        return self.call("build_missing", schema)

    def make(self, schema: str) -> None:
        """Make all that is missing."""
        for one in self.missing(schema):
            self.call("build_make", schema, *one)
        assert self.missing(schema) == []

    def swap(self, schema: str) -> str:
        """Swap it in; returns the schema of the old tables."""
        names = self.conn.execute("SELECT tables FROM evosense_ops.builds WHERE schema_name = %s", (schema,)).fetchone()
        assert names is not None
        with self.conn.transaction():
            kept = self.record("kept", names["tables"])
            self.call("build_swap", schema, kept)
            self.conn.execute("DELETE FROM evosense_ops.builds WHERE schema_name = %s", (schema,))
        return kept

    def validate(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Check the keys that a swap has left; returns them."""
        found = self.call("build_unvalidated", list(names))
        for one in found:
            self.call("build_validate", *one)
        assert self.call("build_unvalidated", list(names)) == []
        return found

    def fill(self, schema: str, text: str, *, only: str = "") -> None:
        """One row of each tenant in the tables of a schema, or in those alone whose names begin so."""
        for n, tenant in enumerate((A, B), start=1):
            for statement in _ROWS.format(s=schema, t=tenant, n=n, text=text).split(";")[:-1]:
                if f"INTO {schema}.{only}" in statement:
                    self.conn.execute(statement.encode())

    def texts(self, schema: str = "evosense") -> set[str]:
        """What the messages of a schema say."""
        query = SQL("SELECT text FROM {}").format(Identifier(schema, "messages_message"))
        return {row["text"] for row in self.conn.execute(query).fetchall()}

    def clear(self) -> None:
        """Drop all builds, and all live rows."""
        for row in self.conn.execute("SELECT schema_name FROM evosense_ops.builds").fetchall():
            self.call("build_drop", row["schema_name"])
        names = SQL(", ").join(Identifier("evosense", table) for table in self.all)
        self.conn.execute(SQL("TRUNCATE {}").format(names))


def ready(builds: Builds, names: Sequence[str], text: str = "new") -> str:
    """A finished build whose rows say `text`."""
    schema = builds.begin(names)
    for name in names:
        builds.fill(schema, text, only=f"{name} ")
    builds.make(schema)
    return schema


@contextmanager
def session(settings: Settings, role: Role, tenant: UUID | None = None) -> Iterator[Connection[Any]]:
    """A connection in a role that sees a tenant's rows."""
    with connect(settings.runtime_dsn, role) as conn:
        if tenant:
            conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant),))
        yield conn
