"""How the sweep of connections stands: its rows, and for whoever shows it: the command line, the API, Prometheus."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import MapperDeserialisationError
from prometheus_client import Gauge
from psycopg import AsyncConnection

from adapters.event_store.datastore import once_more
from adapters.telemetry import REGISTRY
from adapters.vault import VaultError
from api.silence import ADVICE
from api.wiring import WriteSide
from domain.connections import Connection
from sql import queries

_SWEEPING: Final = queries("sweeping")
_SWEEPING_ASYNC: Final = queries("sweeping", "apsycopg")

# Read from the database when they are asked for, so that they are the installation's and not one process's.
_FOUND: Final = Gauge(
    "evosense_sweep_found_only", "Messages that nothing but the sweep brought, since ever", registry=REGISTRY
)
_CAUGHT_UP: Final = Gauge(
    "evosense_sweep_caught_up", "Messages that catching up after a gap brought, since ever", registry=REGISTRY
)
_FAILING: Final = Gauge("evosense_sweep_failing", "Connections whose last sweep failed", registry=REGISTRY)
_SILENT: Final = Gauge(
    "evosense_connection_silent", "1 for a connection that is silent for longer than its habit", ["connection"],
    registry=REGISTRY,
)  # fmt: skip


class ConnectionSweep(msgspec.Struct, frozen=True):
    """How the sweep of a connection stands. `connection_id` is the stream's, as in the webhook's address.

    `found_only_by_sweep` counts messages that neither the webhook nor another transport had brought a minute after they
    were sent; `found_catching_up` those that came while nobody listened. `silent_since` is its last message's time.
    """

    connection_id: UUID
    tenant_id: UUID
    name: str
    swept_until: datetime | None
    last_started_at: datetime | None
    last_ended_at: datetime | None
    next_due_at: datetime
    rows_seen: int
    found_only_by_sweep: int
    found_catching_up: int
    failures: int
    last_error: str | None
    left_out_from: datetime | None
    left_out_until: datetime | None
    last_message_at: datetime | None
    expected_gap_seconds: int | None
    silent_since: datetime | None
    warned_at: datetime | None

    def troubles(self) -> list[str]:
        """What an operator should know, each a sentence; nothing where all is well."""
        found = []
        if self.silent_since is not None:
            found.append(f"silent since {_utc(self.silent_since)}, longer than its habit: {ADVICE}")
        if self.last_error is not None:
            found.append(f"can't be swept: {self.last_error}")
        if self.left_out_from is not None and self.left_out_until is not None:
            since, until = _utc(self.left_out_from), _utc(self.left_out_until)
            found.append(
                f"not fetched: {since} to {until}; "
                f"`evosense backfill --connection {self.connection_id} --since {since}` does it"
            )
        return found


class Claim(msgspec.Struct, frozen=True):
    """A connection in a process's hand, as it stood when it was taken."""

    not_before: datetime
    swept_until: datetime | None
    deep_at: datetime | None
    catch_up: bool
    failures: int
    last_error: str | None


@once_more
def enrol(write: WriteSide, found: Sequence[Connection]) -> None:
    """Give the connections that are new their row, from their registration on; blocks on the database."""
    with write.datastore.get_connection() as conn:
        known = {row["connection_id"] for row in _SWEEPING.known_sweeps(conn)}
    for one in found:
        if one.id in known:
            continue
        try:
            registered = write.log.history(one.id)[0].event.at
        except (MapperDeserialisationError, VaultError):
            continue  # its tenant was erased just now
        with write.datastore.get_connection() as conn:
            # Who is inactive is looked at again, and moved on, before it is swept.
            _SWEEPING.put_sweep(
                conn, connection_id=one.id, tenant_id=one.tenant_id, name=one.name, not_before=registered
            )


@once_more
def forget_erased(write: WriteSide) -> None:
    """Leave nothing operational of tenants whose key is gone; blocks on the database.

    A connection's name may be a number, and its trouble is nobody's any more.
    """
    with write.datastore.get_connection() as conn:
        erased = [row["tenant_id"] for row in _SWEEPING.erased_tenants(conn)]
        for tenant_id in erased:
            _SWEEPING.forget_sweeps(conn, tenant_id=tenant_id)
            _SWEEPING.forget_links(conn, tenant_id=tenant_id)
            _SWEEPING.forget_backlog(conn, tenant_id=tenant_id)
    for tenant_id in erased:
        write.activity.forget(tenant_id)
        write.usage.forget(tenant_id)


@once_more
def sweeps(write: WriteSide, tenant_id: UUID | None = None) -> list[ConnectionSweep]:
    """Those of a tenant's connections, or of all; by name; blocks on the database."""
    with write.datastore.get_connection() as conn:
        return [msgspec.convert(row, ConnectionSweep) for row in _SWEEPING.standings(conn, tenant_id=tenant_id)]


async def sweeps_of(conn: AsyncConnection[Any], tenant_id: UUID | None = None) -> list[ConnectionSweep]:
    """The same over a writer's connection."""
    return [msgspec.convert(row, ConnectionSweep) async for row in _SWEEPING_ASYNC.standings(conn, tenant_id=tenant_id)]


def show(standings: list[ConnectionSweep]) -> None:
    """Set the gauges."""
    _FOUND.set(sum(one.found_only_by_sweep for one in standings))
    _CAUGHT_UP.set(sum(one.found_catching_up for one in standings))
    _FAILING.set(sum(one.last_error is not None for one in standings))
    _SILENT.clear()
    for one in standings:
        if one.silent_since is not None:
            _SILENT.labels(str(one.connection_id)).set(1)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
