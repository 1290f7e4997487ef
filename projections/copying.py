"""Inserting many new rows: from arrays into live tables, by binary COPY into bare ones.

COPY is three to four times as fast, but PostgreSQL refuses it on tables with row-level security. psycopg's own
`write_row` with declared types was measured against hand-packed streams and is twice as fast as those: its encoders
are compiled.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from psycopg import Connection


class Inserts:
    """One table's rows that are new for certain."""

    def __init__(self, put: Any, load: Any, types: Sequence[str], *, bare: bool) -> None:
        """Both are named queries: `put` takes the columns as arrays; `load` is a COPY of columns of these `types`."""
        self._put = put
        self._load: str = load.sql
        self._types = types
        self._bare = bare

    def insert(self, conn: Connection[Any], columns: Mapping[str, Iterable[Any]]) -> None:
        """Insert rows given as columns: named as `put` has its parameters, in the order of `load`'s columns."""
        if not self._bare:
            self._put(conn, **columns)
            return
        copy_rows(conn, self._load, self._types, columns.values())


def copy_rows(
    conn: Connection[Any],
    statement: str,
    types: Sequence[str],
    columns: Iterable[Iterable[Any]],
    *,
    most: int | None = None,
) -> None:
    """Load rows given as columns of these `types` by a binary COPY into a bare table; `most`: no more than so many."""
    with conn.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(types)
        for row in islice(zip(*columns, strict=True), most):
            copy.write_row(row)
