"""Links with Evolution: which process of the listener holds which connection, and how each link stands.

A lease is a row of `evosense_ops.connection_links` with a holder, a time until which it is good, and an epoch that
grows with every new holder (docs/adr/0024 and 0035). It is taken and renewed in short statements, by the server's
clock.
"""

import os
import secrets
import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from adapters.event_store.datastore import once_more
from api.wiring import WriteSide
from sql import queries

#: For how long a lease is good, in seconds. With the time between two beats, and a second for connecting, a dead holder
#: is followed within 10 s.
LEASE_S: Final = 6.0
#: How often leases are renewed and free ones looked for, in seconds.
BEAT_S: Final = 1.5

State = Literal["connecting", "linked", "waiting"]
#: Why a link is not there, or gives nothing. Words of ours alone: what a server says can hold anything.
Fault = Literal[
    "unreachable",  # nobody answers at that address
    "refused",  # Evolution does not accept the connection's token
    "not socket.io",  # something answers there, and it is not Evolution's socket.io
    "invalid namespace",  # the instance has sent nothing since Evolution started, or its websocket is off
    "dropped",  # the link was there, and was lost
    "foreign apikey",  # events carry another token than the connection has
    "no apikey",  # events carry no token: Evolution keeps it back
    "bad token",  # the connection's token can't be opened
    "bad address",  # the connection's address can't be used
]
TRANSPORT: Final = "socket.io"

_LINKS: Final = queries("links")
_LINKS_ASYNC: Final = queries("links", "apsycopg")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a link stands. `since`: since when it is linked, or is not; `attempts` in vain since it was last there;
    `last_event_at`: when the last event that is recorded arrived."""

    state: State
    since: datetime
    attempts: int
    error: Fault | None
    last_event_at: datetime | None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How a link stands, for those who look at it. `unattended`: no process of the listener holds it."""

    connection_id: UUID
    transport: str
    state: Literal["connecting", "linked", "waiting", "unattended"]
    since: datetime
    heartbeat_at: datetime | None
    attempts: int
    error: Fault | None
    last_event_at: datetime | None


async def link_of(conn: AsyncConnection[Any], connection_id: UUID) -> Link | None:
    """How the link of a connection (its stream's id) stands; None where there never was one.

    For a connection in the role `evosense_app` within a tenant's transaction: it sees that tenant's links alone.
    """
    row = await _LINKS_ASYNC.link(conn, connection_id=connection_id)
    if row is None:
        return None
    state = row["state"] if row.pop("held") else "unattended"
    return msgspec.convert({**row, "state": state}, Link)


class Taken(msgspec.Struct, frozen=True):
    """A lease that was got: its epoch, and when the last event came that anybody recorded of this connection."""

    connection_id: UUID
    epoch: int
    last_event_at: datetime | None


class Beat(msgspec.Struct, frozen=True):
    """What a beat changed: leases that are another's by now, new ones, and those to give back (still held)."""

    lost: list[UUID]
    taken: list[Taken]
    surplus: list[UUID]


class Links:
    """The leases of one process. Every method blocks on the database and raises what it raises; not thread-safe."""

    def __init__(self, write: WriteSide, *, lease: float = LEASE_S) -> None:
        self._write = write
        self._lease = lease
        #: Unique in the world and readable for an operator: machine, process, and a bit of chance.
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        #: Epochs of what is held, as far as is known: whether it still is shows with the next beat.
        self.held: dict[UUID, int] = {}

    @once_more
    def seen(self, nats: str, nats_error: str | None, counted: Mapping[str, int]) -> None:
        """Say that this process lives; how it stands with Evolution's NATS, and what it has counted."""
        told = msgspec.json.encode(counted).decode()
        with self._write.datastore.get_connection() as conn:
            _LINKS.seen_listener(conn, holder=self.holder, nats=nats, nats_error=nats_error, counted=told)
            _LINKS.forget_listeners(conn, lease=self._lease)

    def beat(self, wanted: Mapping[UUID, UUID], reports: Mapping[UUID, Report]) -> Beat:
        """Renew what is held with how it stands, and take what is wanted, free and this process's due.

        `wanted`: the tenants by connection; `reports`: one for each connection held. Due is an even share among the
        living processes: rounded up, or down while one of them has less.
        """
        with self._write.datastore.get_connection() as conn:
            ids, tenants = list(wanted), list(wanted.values())
            if wanted:
                _LINKS.ensure_links(conn, ids=ids, tenants=tenants, transport=TRANSPORT)
            rows = _LINKS.renew_links(conn, reports=self._told(reports), holder=self.holder, lease=self._lease)
            ours = {row["connection_id"] for row in rows}
            lost = [one for one in self.held if one not in ours]
            for one in lost:
                del self.held[one]
            due = self._due(conn, len(wanted))
            kept = [one for one in self.held if one in wanted]
            taken = []
            if len(kept) < due:
                free = [one for one in ids if one not in self.held]
                rows = _LINKS.take_links(conn, ids=free, holder=self.holder, lease=self._lease, most=due - len(kept))
                taken = [msgspec.convert(row, Taken) for row in rows]
            self.held.update({one.connection_id: one.epoch for one in taken})
            return Beat(lost, taken, kept[due:])

    def release(self, reports: Mapping[UUID, Report]) -> None:
        """Give these back, whose links have ended, so that others need not wait."""
        with self._write.datastore.get_connection() as conn:
            _LINKS.release_links(conn, reports=self._told(reports), holder=self.holder)
        for one in reports:
            self.held.pop(one, None)

    def gone(self) -> None:
        """This process does no more."""
        with self._write.datastore.get_connection() as conn:
            _LINKS.gone_listener(conn, holder=self.holder)

    def _due(self, conn: Any, wanted: int) -> int:
        living = {row["holder"]: row["links"] for row in _LINKS.living_listeners(conn, lease=self._lease)}
        living[self.holder] = len(self.held)
        least, rest = divmod(wanted, len(living))
        return least + bool(rest and min(living.values()) >= least)

    def _told(self, reports: Mapping[UUID, Report]) -> str:
        rows = [
            {"connection_id": one, "epoch": self.held[one], **msgspec.structs.asdict(report)}
            for one, report in reports.items()
            if one in self.held
        ]
        return msgspec.json.encode(rows).decode()


def all_links(conn: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for an operator: the links of all tenants, those in trouble first, and the listener's living processes."""
    return list(_LINKS.links(conn)), list(_LINKS.listeners(conn, lease=LEASE_S))
