"""Messages that wait for a model behind a server: a table with leases, beside the stream (docs/adr/0040).

A row is put where the stream brought the message, and goes when the answer is in the log. Who takes rows in hand has
them for a lease, which it renews while a model is asked; a process that dies leaves them to the next one. Rows say what
was asked for, and never that it is owed: that is decided on the message as the log has it.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from adapters.event_store.datastore import RoleDatastore, once_more
from api.parking import park
from sql import queries

Wants = Literal["analysis", "vectors"]
Order = Literal["oldest", "newest"]

#: Seconds for which rows are taken in hand. Far from the shortest pause of a process that lives; renewed at a third.
LEASE_S: Final = 30.0

_BACKLOG: Final = queries("backlog")


class Owed(msgspec.Struct, frozen=True):
    """What an event of a message asks for. `event_type`: with its version, as in the log."""

    message_id: UUID
    wants: Wants
    tenant_id: UUID
    position: int
    event_type: str


class Claim(Owed, frozen=True):
    """A row in this process's hand. `attempts` failed before; as many times as `unavailable` there was no model."""

    attempts: int
    unavailable: int


class Waiting(msgspec.Struct, frozen=True):
    """How much of a tenant waits, since when (`seconds` ago), and why it was put off last, where it was."""

    tenant_id: UUID
    wants: Wants
    messages: int
    since: datetime
    seconds: float
    in_hand: int
    reason: str | None


class Earlier(msgspec.Struct, frozen=True):
    """A message to find earlier texts for: the position of its first event, its chat and when it was sent."""

    position: int
    chat_id: str
    sent_at: datetime


class Backlog:
    """The table. Calls block on the database, but for `add`; they raise what the event store raises."""

    def __init__(self, datastore: RoleDatastore, *, lease: float = LEASE_S) -> None:
        self._datastore = datastore
        self.lease = lease
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        #: Set when this process has put something. For one event loop.
        self.grown = asyncio.Event()

    async def add(self, rows: Sequence[Owed]) -> None:
        """Put, and wake up who drains in this process."""
        await asyncio.to_thread(self.put, rows)
        self.grown.set()

    @once_more
    def put(self, rows: Sequence[Owed]) -> None:
        """Have these asked for; of a message, a later event takes the place of an earlier one, and is due at once.

        All is committed when it returns. At most one row for a message and what it wants.
        """
        with self._datastore.get_connection() as conn:
            _BACKLOG.put(
                conn,
                **_keys(rows),
                tenant_ids=[row.tenant_id for row in rows],
                positions=[row.position for row in rows],
                event_types=[row.event_type for row in rows],
            )

    @once_more
    def tenants(self, wants: Wants) -> list[UUID]:
        """Those that have something that is due and in nobody's hand, in the order of their ids."""
        with self._datastore.get_connection() as conn:
            return sorted(row["tenant_id"] for row in _BACKLOG.tenants(conn, wants=wants))

    def claim(self, tenant_id: UUID, wants: Wants, most: int, order: Order) -> list[Claim]:
        """Take so many rows at most in hand; in the order in which they are to be asked about."""
        question = _BACKLOG.claim_oldest if order == "oldest" else _BACKLOG.claim_newest
        with self._datastore.get_connection() as conn:
            rows = question(
                conn, tenant_id=tenant_id, wants=wants, most=most, holder=self.holder, lease=float(self.lease)
            )
            claims = [msgspec.convert(row, Claim) for row in rows]
        return sorted(claims, key=lambda claim: claim.position, reverse=order == "newest")

    @once_more
    def renew(self, claims: Sequence[Claim]) -> None:
        """Keep them for another lease. One that another process has by now stays there."""
        with self._datastore.get_connection() as conn:
            _BACKLOG.renew(conn, **_keys(claims), holder=self.holder, lease=float(self.lease))

    @once_more
    def done(self, claims: Sequence[Claim]) -> None:
        """Nothing is owed any more: the rows go, but for those that a later event has asked for since."""
        with self._datastore.get_connection() as conn, conn.transaction():
            _BACKLOG.done(conn, **_keys(claims), positions=[claim.position for claim in claims])
            _BACKLOG.release(conn, **_keys(claims), holder=self.holder)

    @once_more
    def release(self, claims: Sequence[Claim]) -> None:
        """Let others have them."""
        with self._datastore.get_connection() as conn:
            _BACKLOG.release(conn, **_keys(claims), holder=self.holder)

    @once_more
    def postpone(self, pauses: Mapping[Claim, float], reason: str, *, failed: bool) -> None:
        """Have them asked about again after so many seconds each; `failed`: and count it as an attempt."""
        claims = list(pauses)
        with self._datastore.get_connection() as conn:
            _BACKLOG.postpone(
                conn,
                **_keys(claims),
                positions=[claim.position for claim in claims],
                pauses=[float(pauses[claim]) for claim in claims],
                failed=failed,
                reason=reason,
                holder=self.holder,
            )

    @once_more
    def park(self, claim: Claim, reason: str, attempts: int) -> None:
        """Set the event aside as the worker does, and ask no more: both or nothing. Not where a later one has asked."""
        with self._datastore.get_connection() as conn, conn.transaction():
            if _BACKLOG.done(conn, **_keys([claim]), positions=[claim.position]):
                park(conn, claim.position, claim.tenant_id, claim.message_id, claim.event_type, reason, attempts)
            _BACKLOG.release(conn, **_keys([claim]), holder=self.holder)

    @once_more
    def waiting(self) -> list[Waiting]:
        """What waits, by tenant; the one that has waited longest first."""
        with self._datastore.get_connection() as conn:
            return waiting(conn)

    @once_more
    def earlier(self, tenant_id: UUID, asked: Sequence[Earlier], most: int) -> dict[int, tuple[str, ...]]:
        """The texts before each of these messages, by its position, oldest first: those that are projected, masked."""
        found: dict[int, list[str]] = {one.position: [] for one in asked}
        with self._datastore.get_connection() as conn:
            for row in _BACKLOG.earlier(
                conn,
                tenant_id=tenant_id,
                messages=[one.position for one in asked],
                chats=[one.chat_id for one in asked],
                sent=[one.sent_at for one in asked],
                most=most,
            ):
                found[row["message_id"]].append(row["text"])
        return {position: tuple(reversed(texts)) for position, texts in found.items()}


def waiting(conn: Any) -> list[Waiting]:
    """See `Backlog.waiting`, over a writer's connection."""
    return [msgspec.convert(row, Waiting) for row in _BACKLOG.waiting(conn)]


def _keys(rows: Sequence[Owed]) -> dict[str, Any]:
    return {"message_ids": [row.message_id for row in rows], "wants": [row.wants for row in rows]}
