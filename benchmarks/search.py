"""Search by meaning beside the documented function and one plain HNSW index, and by words beside no row-level security.

    python -m benchmarks.search [--vectors 200000] [--skew 1.0] [--queries 50]

Clustered random vectors of 768 dimensions, 200 tenants of Zipf sizes, seeds fixed. Ours is asked as the application's
role, under row-level security; the others as a superuser, without. Recall is of the 20 nearest by exact comparison, in
Python. The last line is JSON.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier
from rich.table import Table

from adapters.settings import Settings
from benchmarks.common import console, installation, machine
from benchmarks.search_writes import live_inserts, removal, updates
from projections.vector_index import VectorIndex
from projections.vectors import register

Floats = NDArray[np.float32]

DIMENSIONS: Final = 768
TENANTS: Final = 200
LIMIT: Final = 20
MODEL: Final = "model-a"
#: Ranks among the tenants.
SIZES: Final = {"large": 1, "medium": 8, "small": 80}
_SQL: Final = Path(__file__).parent / "sql"
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: A word that one message in so many has.
RARE: Final = 500

OURS: Final = "SELECT message_id FROM evosense.semantic_search(%s, %s::vector, 20, -1)"
DOCUMENTED: Final = "SELECT message_id FROM documented.semantic_search(%s, %s::vector, 20, -1)"
PLAIN: Final = "SELECT id FROM documented.plain WHERE tenant_id = %s ORDER BY embedding <=> %s::vector LIMIT 20"


class Corpus:
    """Vectors, the tenants they are of, and texts. Rows have the ids 1, 2, 3 …"""

    def __init__(self, number: int, skew: float) -> None:
        self._rng = np.random.default_rng(11)
        self._centres = self._rng.normal(size=(max(50, number // 250), DIMENSIONS)).astype(np.float32)
        weights = 1 / np.arange(1, TENANTS + 1) ** skew
        self.owners = self._rng.choice(TENANTS, size=number, p=weights / weights.sum())
        self.vectors = self.draw(number)
        self.tenants = [uuid.UUID(int=rank + 1) for rank in range(TENANTS)]
        words = np.array([f"palavra{chr(97 + n % 26)}{n}" for n in range(5000)])
        frequency = 1 / np.arange(1, 5001)
        chosen = self._rng.choice(5000, size=(number, 10), p=frequency / frequency.sum())
        self.texts = [" ".join(words[row]) + (" jabuticaba" if n % RARE == 0 else "") for n, row in enumerate(chosen)]

    def draw(self, number: int) -> Floats:
        """Vectors of length 1, each near one of the centres."""
        vectors = self._centres[self._rng.integers(0, len(self._centres), number)]
        vectors = vectors + 0.8 * self._rng.normal(size=vectors.shape).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def best(self, rank: int, query: Floats, known: Collection[int] | None = None) -> set[int]:
        """The ids of the 20 nearest of a tenant, of those that are known (all)."""
        mine = np.flatnonzero(self.owners == rank - 1)
        if known is not None:
            mine = mine[np.isin(mine + 1, list(known))]
        order = np.argsort(-(self.vectors[mine] @ query))[:LIMIT]
        return {int(mine[place]) + 1 for place in order}


def load(settings: Settings, corpus: Corpus) -> None:
    """Fill the three designs. The documented index is there from the start, as documented; the others come after."""
    with psycopg.connect(settings.admin_dsn, autocommit=True, row_factory=dict_row) as conn:
        register(conn)
        conn.execute((_SQL / "documented_search.sql").read_bytes())
        for tenant in corpus.tenants:
            conn.execute("INSERT INTO evosense.tenancy_tenant (id, name) VALUES (%s, 'x')", (tenant,))
        rows = [
            (n + 1, corpus.tenants[owner], corpus.texts[n], _START + timedelta(seconds=n), corpus.vectors[n].tobytes())
            for n, owner in enumerate(corpus.owners)
        ]
        long = ("int8", "uuid", "text", "timestamptz", "vector")
        columns = "id, tenant_id, text, created_at, embedding"
        _copy(conn, "documented.messages_message", columns, long, rows)
        _copy(conn, "documented.plain", "id, tenant_id, embedding", ("int8", "uuid", "vector"),
              [(row[0], row[1], row[4]) for row in rows])  # fmt: skip
        _copy(conn, "evosense.messages_message", f"{columns}, chat_id, sender", (*long, "varchar", "varchar"),
              [(*row, "c", "s") for row in rows])  # fmt: skip
        _copy(conn, "evosense.messages_embedding", "message_id, tenant_id, model, embedding",
              ("int8", "uuid", "varchar", "halfvec"), [(row[0], row[1], MODEL, row[4]) for row in rows])  # fmt: skip
        conn.execute("SET maintenance_work_mem = '512MB'")
        conn.execute("CREATE INDEX ON documented.plain USING hnsw (embedding vector_cosine_ops)")
        for table in (
            "documented.messages_message",
            "documented.plain",
            "evosense.messages_message",
            "evosense.messages_embedding",
        ):
            conn.execute(SQL("VACUUM ANALYZE {}").format(Identifier(*table.split("."))))
    began = time.perf_counter()
    made = VectorIndex(lambda: owner(settings)).maintain()
    console.print(f"{made} vector indexes made in {time.perf_counter() - began:.0f} s")


def owner(settings: Settings) -> psycopg.Connection[Any]:
    """The owner of the schema, who keeps the vector index."""
    conn = psycopg.connect(settings.admin_dsn, autocommit=True)
    conn.execute("SET ROLE evosense_owner")
    return conn


def _copy(conn: Any, table: str, columns: str, types: tuple[str, ...], rows: list[Any]) -> None:
    statement = SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        Identifier(*table.split(".")), SQL(", ").join(map(Identifier, columns.split(", ")))
    )
    with conn.cursor().copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


@contextmanager
def application(settings: Settings, tenant: uuid.UUID) -> Iterator[psycopg.Connection[Any]]:
    """The role of the API, as one tenant."""
    with psycopg.connect(settings.runtime_dsn, autocommit=True) as conn:
        conn.execute("SET ROLE evosense_app")
        conn.execute("SELECT set_config('evosense.tenant_id', %s, false)", (str(tenant),))
        yield conn


def asked(conn: psycopg.Connection[Any], statement: str, values: tuple[object, ...]) -> tuple[list[Any], float]:
    """First column of the rows, and the time in ms."""
    began = time.perf_counter()
    rows = conn.execute(statement.encode(), values).fetchall()
    return [row[0] for row in rows], (time.perf_counter() - began) * 1000


def as_text(vector: Floats) -> str:
    """As pgvector reads it."""
    return f"[{','.join(map(repr, vector.tolist()))}]"


class Measured:
    """Recall and times of one design for one tenant."""

    def __init__(self) -> None:
        self.recall: list[float] = []
        self.times: list[float] = []

    def p95(self) -> float:
        """In ms."""
        return float(np.percentile(self.times, 95))


def by_meaning(
    settings: Settings,
    corpus: Corpus,
    queries: Floats,
    sizes: Mapping[str, int] = MappingProxyType(SIZES),
    known: Collection[int] | None = None,
) -> dict[str, dict[str, Measured]]:
    """Each design asked the same questions, by size of tenant. The first five of a session don't count.

    `known`: the messages that are there, where some were deleted; ours alone is asked then.
    """
    found: dict[str, dict[str, Measured]] = {}
    for size, rank in sizes.items():
        tenant = corpus.tenants[rank - 1]
        with application(settings, tenant) as app, psycopg.connect(settings.admin_dsn, autocommit=True) as admin:
            admin.execute("SET hnsw.ef_search = 100; SET hnsw.iterative_scan = relaxed_order")
            designs = {"ours": (app, OURS)}
            if known is None:
                designs |= {"documented": (admin, DOCUMENTED), "plain HNSW": (admin, PLAIN)}
            measured = found[size] = {name: Measured() for name in designs}
            # One design after another: in turns, each would find the server's memory full of what the others read.
            for name, (conn, statement) in designs.items():
                for place, query in enumerate(queries):
                    best = corpus.best(rank, query, known)
                    ids, ms = asked(conn, statement, (tenant, as_text(query)))
                    if place >= 5:
                        measured[name].recall.append(len(best & set(ids)) / len(best))
                        measured[name].times.append(ms)
    return found


def fiftieth_beside_third(settings: Settings, corpus: Corpus, query: Floats) -> float:
    """Time of the fiftieth call of a prepared statement in a session, by that of the third: medians of 15 sessions."""
    third, fiftieth = [], []
    tenant = corpus.tenants[0]
    for _ in range(15):
        with application(settings, tenant) as conn:
            conn.prepare_threshold = 0
            times = [asked(conn, OURS, (tenant, as_text(query)))[1] for _ in range(50)]
        third.append(times[2])
        fiftieth.append(times[49])
    return median(fiftieth) / median(third)


def high_threshold_beside_low(settings: Settings, corpus: Corpus, queries: Floats) -> float:
    """Time with a threshold of 0.9 by that with one of 0.7, for the largest tenant: medians, each first as often."""
    tenant = corpus.tenants[0]
    statement = "SELECT message_id FROM evosense.semantic_search(%s, %s::vector, 20, %s)"
    times: dict[float, list[float]] = {0.9: [], 0.7: []}
    with application(settings, tenant) as conn:
        for place, query in enumerate(queries):
            # The second of a pair finds in memory what the first has read.
            for threshold in (0.9, 0.7) if place % 2 else (0.7, 0.9):
                times[threshold].append(asked(conn, statement, (tenant, as_text(query), threshold))[1])
    return median(times[0.9][5:]) / median(times[0.7][5:])


def by_words(settings: Settings, corpus: Corpus) -> tuple[float, float]:
    """Median ms of a rare word for the largest tenant: text_search() as the application; its query without walls."""
    tenant = corpus.tenants[0]
    plain = (_SQL / "text_search_without_walls.sql").read_text("utf-8")
    ours, bare = [], []
    with application(settings, tenant) as app, psycopg.connect(settings.admin_dsn, autocommit=True) as admin:
        for _ in range(60):
            found, ms = asked(app, "SELECT message_id FROM evosense.text_search(%s, 20)", ("jabuticaba",))
            same, bare_ms = asked(admin, plain, ("jabuticaba", tenant))
            assert found == same != []
            ours.append(ms)
            bare.append(bare_ms)
    return median(ours[10:]), median(bare[10:])


def show(results: dict[str, dict[str, Measured]], ratio: Callable[[str], float]) -> None:
    """A table for people."""
    table = Table("tenant", "design", "recall@20", "least", "p50 ms", "p95 ms", title="search by meaning")
    for size, designs in results.items():
        for name, one in designs.items():
            cells = (
                f"{mean(one.recall):.3f}",
                f"{min(one.recall):.2f}",
                f"{median(one.times):.1f}",
                f"{one.p95():.1f}",
            )
            table.add_row(size, name, *cells)
    console.print(table)
    for size in results:
        console.print(f"p95 {size}, ours / documented: [bold]{ratio(size):.3f}[/]")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Search beside the documented design.")
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--skew", type=float, default=1.0, help="exponent of the tenants' Zipf distribution")
    parser.add_argument("--queries", type=int, default=50)
    given = parser.parse_args()
    corpus = Corpus(given.vectors, given.skew)
    queries = corpus.draw(given.queries)
    with installation() as settings:
        load(settings, corpus)
        results = by_meaning(settings, corpus, queries)
        later = fiftieth_beside_third(settings, corpus, queries[0])
        high = high_threshold_beside_low(settings, corpus, queries)
        ours, bare = by_words(settings, corpus)
        with psycopg.connect(settings.admin_dsn, autocommit=True, row_factory=dict_row) as conn:
            register(conn)
            updated = updates(conn)
            live = live_inserts(conn, corpus.tenants[0], corpus.draw(10_000))
            index = VectorIndex(lambda: owner(settings))
            gone = removal(conn, index, corpus.tenants[0])
        index.maintain()
        after = by_meaning(settings, corpus, queries[:25], sizes={"large": 1}, known=gone.left)["large"]["ours"]

    def ratio(size: str) -> float:
        return results[size]["ours"].p95() / results[size]["documented"].p95()

    show(results, ratio)
    console.print(f"live inserts: {live:,.0f} rows/s; row updates beside a table without vectors: {updated:.2f}")
    console.print(
        f"{gone.rows:,} expired vectors removed in {gone.delete_s:.2f} s, their space in {gone.space_s:.2f} s; "
        f"recall afterwards {mean(after.recall):.3f}"
    )
    console.print(f"a threshold of 0.9 beside one of 0.7: {high:.2f}")
    console.print(f"a rare word: {ours:.2f} ms, without row-level security {bare:.2f} ms")
    line = {
        **{f"recall_{size}": round(mean(results[size]["ours"].recall), 4) for size in SIZES},
        "recall_large_min": min(results["large"]["ours"].recall),
        **{f"p95_{size}_vs_documented": round(ratio(size), 4) for size in SIZES},
        "call_50_vs_3": round(later, 3),
        "threshold_09_vs_07": round(high, 3),
        "update_vs_unindexed": round(updated, 3),
        "live_rows_per_second": round(live),
        "fulltext_rls_vs_plain": round(ours / bare, 3),
        "removed": gone.rows,
        "removal_s": round(gone.delete_s + gone.space_s, 2),
        "recall_after_removal": round(mean(after.recall), 4),
    }
    sizes = {size: int((corpus.owners == rank - 1).sum()) for size, rank in SIZES.items()}
    print(json.dumps({"benchmark": "search", **line, "vectors": given.vectors, "tenants": sizes, "machine": machine()}))


if __name__ == "__main__":
    main()
