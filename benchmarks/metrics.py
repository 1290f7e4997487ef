"""The metrics: `tenant_metrics` at two sizes and beside the documented view; wrong figures; what keeping them costs.

    python -m benchmarks.metrics [--messages 1000000] [--join 4000] [--projected 20000] [--batch 5000] [--quick]

Rows for reading are put there by SQL, without the indexes that the views do not use, and their totals are counted at
once; rows for the cost are projected from a log, with all indexes. The last line is JSON.
"""

import argparse
import json
import time
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier
from rich.table import Table

from adapters.settings import Settings
from benchmarks.common import console, installation, machine
from benchmarks.metrics_cost import BATCH, SPREADS, Cost, rollup_cost

TENANTS: Final = 200
FEW: Final = 10_000
_SQL: Final = Path(__file__).parent / "sql"
_OURS: Final = "SELECT * FROM evosense.tenant_metrics"
_DOCUMENTED: Final = "SELECT * FROM documented.tenant_metrics"
_COUNTED: Final = "SELECT * FROM documented.tenant_metrics_counted"
Conn = psycopg.Connection[Any]


def prepare(conn: Conn, tenants: int) -> None:
    """Tenants with a connection each, the documented view, and no indexes that only loading would notice."""
    conn.execute((_SQL / "documented_metrics.sql").read_bytes())
    for rank in range(1, tenants + 1):
        tenant = UUID(int=rank)
        conn.execute("INSERT INTO evosense.tenancy_tenant (id, name) VALUES (%s, 'Loja')", (tenant,))
        conn.execute(
            "INSERT INTO evosense.connections_evolutionconnection (id, tenant_id, name, evo_ws_url, evo_token) "
            "VALUES (%s, %s, 'loja', 'wss://example', 'x')",
            (rank, tenant),
        )
    unused = conn.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'evosense' "
        "AND tablename IN ('messages_message', 'experiments_inference') "
        "AND indexname NOT IN ('idx_message_tenant_created', 'idx_message_tenant', 'idx_inference_tenant') "
        "AND indexname NOT LIKE '%pkey'"
    )
    for (name,) in unused.fetchall():
        conn.execute(SQL("DROP INDEX {}").format(Identifier("evosense", name)))


def load(conn: Conn, first: int, last: int, *, tenants: int) -> None:
    """Messages and inferences of these ids, with right totals."""
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")  # no look at foreign keys
        conn.execute((_SQL / "metrics_rows.sql").read_bytes(), {"first": first, "last": last, "tenants": tenants})
        conn.execute((_SQL / "metrics_totals.sql").read_bytes())
    for table in ("messages_message", "experiments_inference", "metrics_rollup", "metrics_latency"):
        conn.execute(SQL("VACUUM ANALYZE {}").format(Identifier("evosense", table)))


def milliseconds(conn: Conn, statement: LiteralString, runs: int) -> float:
    """Median of so many runs; the first, which reads what is cold, does not count where there are several."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        conn.execute(statement).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    return median(times[1:] or times)


def differences(conn: Conn) -> int:
    """How many figures of `tenant_metrics` are not those of a full count."""
    ours = conn.execute("SELECT * FROM evosense.tenant_metrics ORDER BY tenant_id").fetchall()
    counted = conn.execute("SELECT * FROM documented.tenant_metrics_counted ORDER BY tenant_id").fetchall()
    if len(ours) != len(counted):
        return max(len(ours), len(counted))
    pairs = (pair for one, other in zip(ours, counted, strict=True) for pair in zip(one, other, strict=True))
    return sum(_rounded(one) != _rounded(other) for one, other in pairs)


def _rounded(value: Any) -> Any:
    return round(float(value), 9) if isinstance(value, Decimal | float) else value


def growth(settings: Settings, many: int) -> tuple[dict[int, float], int]:
    """Milliseconds of `tenant_metrics` for all tenants, by number of messages, and wrong figures at the greater one."""
    found: dict[int, float] = {}
    with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
        prepare(conn, TENANTS)
        reached = 0
        for messages in (FEW, many):
            load(conn, reached + 1, messages, tenants=TENANTS)
            reached = messages
            found[messages] = milliseconds(conn, _OURS, 31)
        return found, differences(conn)


def beside_documented(settings: Settings, number: int) -> dict[str, float]:
    """Milliseconds of three views over one tenant with so many messages and as many inferences."""
    with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
        prepare(conn, 1)
        load(conn, 1, number, tenants=1)
        return {
            "ours": milliseconds(conn, _OURS, 31),
            "sub-queries": milliseconds(conn, _COUNTED, 11),
            "documented": milliseconds(conn, _DOCUMENTED, 1),
        }


def projected_differences(settings: Settings) -> int:
    """Wrong figures in what the projector has kept: of `tenant_metrics`, and of the hours."""
    with psycopg.connect(settings.admin_dsn, autocommit=True) as conn:
        conn.execute((_SQL / "documented_metrics.sql").read_bytes())
        row = conn.execute((_SQL / "metrics_hour_differences.sql").read_bytes()).fetchone()
        return differences(conn) + (row[0] if row else 0)


def show(sizes: dict[int, float], views: dict[str, float], costs: dict[str, Cost]) -> None:
    """Tables for people."""
    table = Table("", "ms", title="tenant_metrics")
    for messages, ms in sizes.items():
        table.add_row(f"all {TENANTS} tenants, {messages:,} messages", f"{ms:.2f}")
    for name, ms in views.items():
        table.add_row(f"one tenant, messages and inferences alike: {name}", f"{ms:,.2f}")
    console.print(table)
    table = Table("history", "with roll-ups, s", "without, s", "cost", title="keeping the roll-ups")
    for spread, cost in costs.items():
        rounds = [" ".join(f"{one:.2f}" for one in some) for some in (cost.with_rollups, cost.without)]
        table.add_row(spread, *rounds, f"{100 * cost.share:.1f} %")
    console.print(table)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Metrics beside the documented view.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="the greater number of messages")
    parser.add_argument("--join", type=int, default=4000, help="messages and inferences for the documented view")
    parser.add_argument("--projected", type=int, default=20_000, help="messages in the logs that are projected")
    parser.add_argument("--batch", type=int, default=BATCH, help="most events that the projector takes at once")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a smoke run of half a minute")
    given = parser.parse_args()
    if given.quick:
        given.messages, given.join, given.projected, given.rounds = 50_000, 500, 2_000, 2
    with installation() as settings:
        sizes, wrong = growth(settings, given.messages)
    with installation() as settings:
        views = beside_documented(settings, given.join)
    costs = {}
    for spread in SPREADS:
        with installation() as settings:
            costs[spread] = rollup_cost(
                settings, given.projected, spread=spread, rounds=given.rounds, batch=given.batch
            )
            wrong += projected_differences(settings)
    show(sizes, views, costs)
    line = {
        "metrics_all_tenants_ms": round(sizes[given.messages], 2),
        "metrics_growth_10k_to_1m": round(sizes[given.messages] / sizes[FEW], 2),
        "metrics_vs_documented": round(views["documented"] / views["ours"]),
        "subqueries_vs_documented": round(views["documented"] / views["sub-queries"]),
        "metrics_differences": wrong,
        "rollup_cost": round(costs["dense"].share, 3),
        "rollup_cost_thin": round(costs["thin"].share, 3),
    }
    sizes_of = {"messages": given.messages, "join": given.join, "projected": given.projected, "batch": given.batch}
    print(json.dumps({"benchmark": "metrics", **line, **sizes_of, "machine": machine()}))


if __name__ == "__main__":
    main()
