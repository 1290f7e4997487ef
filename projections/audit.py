"""The audit: what the live tables say is what the log says, shown by making them again to the side and comparing.

Both are compared in one snapshot, at one position. What is parked at that moment is in neither; what an operator has
skipped is in neither. Whatever else differs is a difference.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import Connection, Rollback

from projections.build import Builder
from projections.builds import Build, LeaveOut, OnProgress, chosen
from projections.parking import SUBSCRIBER
from sql import queries

_BUILDS: Final = queries("builds")
_ENGINE: Final = queries("engine")
#: So many rounds are tried to find a moment at which nothing was parked or released since the side was loaded.
_ROUNDS: Final = 5
_PAUSE_S: Final = 0.05


class Difference(msgspec.Struct, frozen=True):
    """One row that differs: `kind` is missing (only the log has it), extra (only the table has it) or differs."""

    table: str
    key: str
    kind: str
    columns: tuple[str, ...] = ()


class DigestDifference(msgspec.Struct, frozen=True):
    """The rows of a tenant in a table differ: how many there are, and how many there should be."""

    table: str
    tenant_id: UUID | None
    live_rows: int
    log_rows: int


class AuditReport(msgspec.Struct, frozen=True):
    """What was compared: at which position, how many rows in each table, what was parked, and what differs."""

    position: int
    rows: dict[str, int]
    parked: int
    differences: tuple[Difference, ...] = ()
    digests: tuple[DigestDifference, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether the tables say what the log says."""
        return not self.differences and not self.digests


class AuditDisturbed(Exception):
    """No moment was found at which the tables could be compared."""


class Auditor:
    """Compares the live tables of some projections with what the log says.

    `most`: how many differences of one table are told. `tenant_id`: only that tenant's rows are compared.
    """

    def __init__(
        self, builder: Builder, names: Sequence[str], *, tenant_id: UUID | None = None, most: int = 20
    ) -> None:
        self._builder = builder
        self._names = [projection.name for projection in chosen(names)]
        self._tenant_id = tenant_id
        self._most = most

    def audit(
        self, on_progress: OnProgress, *, fast: bool = False, on_table: Callable[[str], None] = lambda _: None
    ) -> AuditReport:
        """Make the read models again to the side, and compare; nothing that is live is changed or kept waiting.

        `fast`: by a digest of each table and tenant, not row by row. `on_progress` is called with events so far and the
        position, `on_table` with each table that is compared. Raises `PoisonEvent` where an event that is not parked
        can't be projected, `AuditDisturbed` where events are parked or released all the time.
        """
        look = self._digests if fast else self._rows
        with self._builder.connect() as conn:
            self._builder.drop_orphans(conn, "audit")
            for _ in range(_ROUNDS):
                parked = left_behind(conn, self._names)
                build = self._builder.begin(conn, "audit", self._names, unlogged=True)
                try:
                    with self._side_by_side(conn, build, parked, on_progress) as moment:
                        if moment is not None:
                            seeing, position = moment
                            return look(seeing, build, AuditReport(position, {}, len(parked)), on_table)
                finally:
                    self._builder.drop(conn, build)
        raise AuditDisturbed("events were parked or released during every round of the audit: run it again")

    @contextmanager
    def _side_by_side(
        self, conn: Connection[Any], build: Build, parked: LeaveOut, on_progress: OnProgress
    ) -> Iterator[tuple[Connection[Any], int] | None]:
        """A transaction that sees both at one position; None where something was parked or released meanwhile."""
        target = min(_positions(conn, build))
        self._builder.load(conn, build, target, on_progress, leave_out=parked, tenant_id=self._tenant_id)
        with self._builder.connect() as seeing, seeing.transaction(force_rollback=True):
            with self._builder.connect() as holding, holding.transaction():
                # Projectors wait from here on: only what they have done meanwhile is left.
                ends = self._standing(holding, build)
                starts = [build.position] * len(ends)
                with conn.transaction():
                    self._builder.advance(
                        conn, build, starts, ends, leave_out=parked, tenant_id=self._tenant_id, bare=True
                    )
                    self._builder.settle(conn, build)
                disturbed = left_behind(holding, self._names) != parked
                _BUILDS.snapshot(seeing)
                _BUILDS.is_alive(seeing)  # the first look takes the snapshot, while they still wait
            yield None if disturbed else (seeing, max(ends))

    def _standing(self, holding: Connection[Any], build: Build) -> list[int]:
        """The position of each shard, all of whose projections stand at it, locked for the transaction."""
        for _ in range(_ROUNDS * 20):
            with holding.transaction() as attempt:
                rows = list(_ENGINE.lock_checkpoints(holding, projections=build.projections))
                shards: dict[int, list[int]] = {}
                for row in rows:
                    shards.setdefault(row["shard"], []).append(row["position"])
                for found in shards.values():
                    # A projection that has never run stands at the log's beginning.
                    found.extend([0] * (len(build.projections) - len(found)))
                if all(len(set(found)) == 1 for found in shards.values()):
                    return [found[0] for _, found in sorted(shards.items())] or [0]
                raise Rollback(attempt)
            time.sleep(_PAUSE_S)
        raise AuditDisturbed(
            "the projections stand at different positions: is a projector running? Let them draw level"
        )

    # ------------------------------------------------------------------------------------------------ two looks

    def _rows(
        self, conn: Connection[Any], build: Build, report: AuditReport, on_table: Callable[[str], None]
    ) -> AuditReport:
        differences: list[Difference] = []
        rows: dict[str, int] = {}
        for table in build.tables:
            on_table(table)
            found = _BUILDS.audit_differences(
                conn, schema=build.schema_name, table_name=table, tenant_id=self._tenant_id, most=self._most
            )
            differences.extend(Difference(table, r["key"], r["difference"], tuple(r["columns"])) for r in found)
            digests = _digests(conn, "evosense", table, self._tenant_id)
            rows[table] = sum(number for number, _ in digests.values())
        return msgspec.structs.replace(report, rows=rows, differences=tuple(differences))

    def _digests(
        self, conn: Connection[Any], build: Build, report: AuditReport, on_table: Callable[[str], None]
    ) -> AuditReport:
        found: list[DigestDifference] = []
        rows: dict[str, int] = {}
        for table in build.tables:
            on_table(table)
            live = _digests(conn, "evosense", table, self._tenant_id)
            said = _digests(conn, build.schema_name, table, self._tenant_id)
            rows[table] = sum(number for number, _ in live.values())
            for tenant_id in sorted(live.keys() | said.keys(), key=str):
                if live.get(tenant_id) != said.get(tenant_id):
                    numbers = [side.get(tenant_id, (0, 0))[0] for side in (live, said)]
                    found.append(DigestDifference(table, tenant_id, *numbers))
        return msgspec.structs.replace(report, rows=rows, digests=tuple(found))


def _digests(
    conn: Connection[Any], schema: str, table: str, tenant_id: UUID | None
) -> dict[UUID | None, tuple[int, Any]]:
    rows = _BUILDS.audit_digests(conn, schema=schema, table_name=table, tenant_id=tenant_id)
    return {row["tenant_id"]: (row["rows"], row["digest"]) for row in rows}


def left_behind(conn: Connection[Any], names: Collection[str]) -> dict[int, frozenset[str]]:
    """What is parked for these projections: positions, each with the projections that are without it."""
    found = {
        row["position"]: frozenset(names).intersection(row["projections"] or names)
        for row in _ENGINE.parked(conn)
        if row["subscriber"] == SUBSCRIBER
    }
    return {position: without for position, without in found.items() if without}


def _positions(conn: Connection[Any], build: Build) -> list[int]:
    rows = [row["position"] for row in _ENGINE.checkpoints(conn) if row["projection"] in build.projections]
    return rows or [0]
