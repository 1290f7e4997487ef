"""What the vector search costs those that write: live vectors, later updates of the message row, retention."""

import time
import uuid
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from projections.vector_index import VectorIndex

_CHUNK = 500


class Removal(NamedTuple):
    """How many vectors were removed, how long that and the vacuum took in seconds, and which messages are left."""

    rows: int
    delete_s: float
    space_s: float
    left: frozenset[int]


def live_inserts(conn: Connection[Any], tenant: uuid.UUID, vectors: NDArray[np.float32]) -> float:
    """Vectors a second into the side table, in transactions of 500, each with fsync: the median of five stretches."""
    first = conn.execute("SELECT max(message_id) + 1 AS id FROM evosense.messages_embedding").fetchone()["id"]
    rates = []
    stretch = len(vectors) // 5
    for start in range(0, stretch * 5, stretch):
        began = time.perf_counter()
        for chunk in range(start, start + stretch, _CHUNK):
            rows = vectors[chunk : min(chunk + _CHUNK, start + stretch)]
            with conn.transaction(), conn.cursor().copy(
                "COPY evosense.messages_embedding (message_id, tenant_id, model, embedding) FROM STDIN (FORMAT binary)"
            ) as copy:  # fmt: skip
                copy.set_types(("int8", "uuid", "varchar", "halfvec"))
                for place, vector in enumerate(rows, start=chunk):
                    copy.write_row((first + place, tenant, "model-a", vector.tobytes()))
        rates.append(stretch / (time.perf_counter() - began))
    conn.execute("DELETE FROM evosense.messages_embedding WHERE message_id >= %s", (first,))
    return median(rates)


def updates(conn: Connection[Any], rows: int = 4_000) -> float:
    """Rate of updates of message rows, as an analysis makes them, by that of a copy of the table.

    The copy has the same columns and rows and no vector index or table of vectors beside it. Medians of five rounds in
    turns.
    """
    conn.execute("CREATE TABLE unindexed (LIKE evosense.messages_message INCLUDING ALL)")
    conn.execute("INSERT INTO unindexed SELECT * FROM evosense.messages_message")
    conn.execute("VACUUM (FULL, ANALYZE) evosense.messages_message, unindexed")
    conn.execute("CHECKPOINT")
    rates: dict[str, list[float]] = {"evosense.messages_message": [], "unindexed": []}
    for number in range(5):
        for table, found in rates.items():
            began = time.perf_counter()
            conn.execute(
                f"UPDATE {table} SET sentiment = 0.1, emotion = 'alegria', satisfaction = 80 "  # noqa: S608
                "WHERE id > %s AND id <= %s",
                (number * rows, (number + 1) * rows),
            )
            found.append(rows / (time.perf_counter() - began))
    conn.execute("DROP TABLE unindexed")
    return median(rates["evosense.messages_message"]) / median(rates["unindexed"])


def removal(conn: Connection[Any], index: VectorIndex, tenant: uuid.UUID, most: int = 50_000) -> Removal:
    """Delete the oldest vectors of all tenants, at most a quarter; give their space back. `left`: of this tenant."""
    row = conn.execute(
        "SELECT least(%s, count(*) / 4) + min(message_id) AS id FROM evosense.messages_embedding", (most,)
    ).fetchone()
    conn.execute("CHECKPOINT")
    began = time.perf_counter()
    gone = conn.execute("DELETE FROM evosense.messages_embedding WHERE message_id < %s", (row["id"],)).rowcount
    deleted = time.perf_counter()
    index.relieve()
    conn.execute("VACUUM evosense.messages_embedding")
    space = time.perf_counter() - deleted
    left = conn.execute("SELECT message_id AS id FROM evosense.messages_embedding WHERE tenant_id = %s", (tenant,))
    return Removal(gone, deleted - began, space, frozenset(one["id"] for one in left))
