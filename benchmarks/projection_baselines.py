"""What projections are measured against: COPY of the same rows into tables of the same structure, in the same server.

The rows are those that the projections left in the live tables, taken out before the clock starts, in PostgreSQL's
binary form: it reads that faster than text (messages in 0.7 of the time, inferences in 0.6).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from projections.catalog import all_projections

_SQL: Final = Path(__file__).parent / "sql"
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # with no flags, and an extension of no length
_TRAILER: Final = b"\xff\xff"
_CHUNK: Final = 1000
#: What a rebuild sets for its own sessions (`load_settings`, `index_settings` in sql/queries/builds.sql); all else is
#: the server's, parallel index builds too.
_AS_A_REBUILD: Final = {"synchronous_commit": "off", "maintenance_work_mem": "256MB"}
#: What the live projection is compared by, see `copy_into_indexed`.
LIVE_TABLES: Final = ("messages_message", "experiments_inference")

#: The rows of each table, each in the binary form of COPY.
Rows = Mapping[str, Sequence[bytes]]


def tables() -> list[str]:
    """All tables that a rebuild writes."""
    return [table for projection in all_projections() for table in projection.tables]


def exported(dsn: str) -> Rows:
    """All rows of the live tables, in the order of their ids."""
    with psycopg.connect(dsn) as conn:
        return {table: list(_rows(conn, table)) for table in tables()}


def copy_into_bare(dsn: str, rows: Rows) -> dict[str, float]:
    """Seconds of the limit of a rebuild by one connection, piece by piece, with their `sum`.

    `copy`: all rows into bare tables, a transaction a table. `indexes`: primary, unique and foreign
    keys, checks and all documented indexes. `analyze`: statistics. Making the bare tables is not counted.
    """
    schema = "bench_bare"
    streams = {table: list(_stream(some)) for table, some in rows.items() if some}
    with tables_in(dsn, schema) as conn:
        for setting, value in _AS_A_REBUILD.items():
            conn.execute("SELECT set_config(%s, %s, false)", (setting, value))

        def copy_all() -> None:
            for table, stream in streams.items():
                _copy(conn, schema, table, stream)

        took = {"copy": timed(copy_all)}
        took["indexes"] = timed(lambda: give_keys_and_indexes(conn, schema))
        took["analyze"] = timed(lambda: conn.execute(_analyze(schema)))
        _check(conn, schema, rows)
    return {**took, "sum": sum(took.values())}


def copy_into_indexed(dsn: str, rows: Rows, messages: int) -> float:
    """Seconds of COPY of the same messages and inferences into tables with all keys and documented indexes.

    `messages` of them and as many inferences are one transaction. They come in their final state: the live projection
    inserts a message and changes its row when the analysis comes. COPY is spared that, and our roll-ups (`metrics_*`),
    and the reading, opening and decoding of events. It commits synchronously, as the live projection does.
    """
    schema = "bench_indexed"
    others = {table: some for table, some in rows.items() if some and table not in LIVE_TABLES}
    streams = {table: [list(_stream(some)) for some in _batches(rows[table], messages)] for table in LIVE_TABLES}
    with tables_in(dsn, schema) as conn:
        # Keys and indexes first. Tenants and connections are there, and so is everything else that is not compared.
        give_keys_and_indexes(conn, schema)
        for table, some in others.items():
            _copy(conn, schema, table, _stream(some))

        def copy_batches() -> None:
            for turn in range(max(map(len, streams.values()))):
                with conn.transaction():
                    for table in LIVE_TABLES:
                        if turn < len(streams[table]):
                            _copy(conn, schema, table, streams[table][turn])

        took = timed(copy_batches)
        _check(conn, schema, rows)
    return took


def check_same(rows: Rows, others: Rows) -> None:
    """Raises `RuntimeError` where two sets of rows are not the very same: what is compared would not be comparable."""
    for table in rows:
        if sorted(rows[table]) != sorted(others[table]):
            raise RuntimeError(f"the rows of {table} are not the ones that they were: a bug, not a matter of speed")


@contextmanager
def tables_in(dsn: str, schema: str) -> Iterator[Connection[Any]]:
    """Bare tables like the live ones in a schema of its own, which is gone afterwards; the connection is autocommit."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        # Definitions in the catalogs then name every schema.
        conn.execute("SELECT set_config('search_path', '', false)")
        _drop(conn, schema)
        conn.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        _carry_out(conn, "bare_tables.sql", schema)
        try:
            yield conn
        finally:
            _drop(conn, schema)


def give_keys_and_indexes(conn: Connection[Any], schema: str) -> None:
    """Give the tables of a schema all that the live ones have: keys, checks, indexes."""
    _carry_out(conn, "keys_and_indexes.sql", schema)


def fill(conn: Connection[Any], schema: str, rows: Rows, *names: str) -> None:
    """Put the rows of these tables into the tables of that name."""
    for table in names:
        _copy(conn, schema, table, _stream(rows[table]))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _carry_out(conn: Connection[Any], file: str, schema: str) -> None:
    for (statement,) in conn.execute((_SQL / file).read_bytes(), {"schema": schema}).fetchall():
        conn.execute(SQL(cast(LiteralString, statement)))


def _rows(conn: Connection[Any], table: str) -> Iterator[bytes]:
    """Each row by itself, without the stream's beginning and end, in the order of the first column, mostly the id."""
    whole = SQL("COPY (SELECT * FROM evosense.{} ORDER BY 1) TO STDOUT (FORMAT binary)").format(Identifier(table))
    with conn.cursor().copy(whole) as copy:
        for data in copy:
            row = bytes(data).removeprefix(_SIGNATURE)
            if row and row != _TRAILER:
                yield row


def _stream(rows: Sequence[bytes]) -> Iterator[bytes]:
    pieces = (b"".join(some) for some in _batches(rows, _CHUNK))
    return chain((_SIGNATURE,), pieces, (_TRAILER,))


def _batches(rows: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _copy(conn: Connection[Any], schema: str, table: str, stream: Iterator[bytes] | list[bytes]) -> None:
    statement = SQL("COPY {} FROM STDIN (FORMAT binary)").format(Identifier(schema, table))
    with conn.cursor().copy(statement) as copy:
        for piece in stream:
            copy.write(piece)


def _analyze(schema: str) -> Composed:
    return SQL("ANALYZE {}").format(SQL(", ").join(Identifier(schema, table) for table in tables()))


def _check(conn: Connection[Any], schema: str, rows: Rows) -> None:
    for table, some in rows.items():
        found = conn.execute(SQL("SELECT count(*) FROM {}").format(Identifier(schema, table))).fetchone()
        if found != (len(some),):
            raise RuntimeError(f"{table} has {found} rows in {schema}, not {len(some)}")


def _drop(conn: Connection[Any], schema: str) -> None:
    conn.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
