"""Leases: each tenant shard of the projections is held by one process at a time.

A lease is a few columns of the shard's checkpoints: who holds it, until when, and an epoch that grows with every new
holder. It is taken and renewed in short transactions, so nothing of it lives in a database session. A dead holder is
followed once its time is over, a frozen one that wakes up is refused: its epoch is of the past. Living processes share
the shards evenly.
"""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from projections.reading import Part
from sql import queries

#: For how long a lease is good, in seconds. With the time between two looks of the others (`BEAT_S`) and the time after
#: which the server ends the transaction of a frozen process (`FROZEN_S`), a dead holder is followed within 10 s.
LEASE_S: Final = 5.0
#: How often leases are renewed and free ones looked for, in seconds.
BEAT_S: Final = 1.0
#: How long a transaction may stand idle between two statements before the server ends it and its locks, in seconds.
FROZEN_S: Final = 4.0

_ENGINE: Final = queries("engine")


class Held(msgspec.Struct):
    """A shard that this process holds: its epoch, and where each projection stands in it."""

    shard: int
    shards: int
    epoch: int
    positions: dict[str, int]

    @property
    def part(self) -> Part:
        """The part of the log that belongs to the shard."""
        return Part(self.shard, self.shards)


class Leases:
    """The shards that one process holds."""

    def __init__(self, names: Sequence[str], *, lease: float = LEASE_S) -> None:
        self._names = list(names)
        self._lease = lease
        #: Unique in the world and readable for an operator: machine, process, and a bit of chance.
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.held: dict[int, Held] = {}

    @property
    def lease(self) -> float:
        """For how long a lease is good, in seconds."""
        return self._lease

    def beat(self, conn: Connection[Any]) -> None:
        """Say that this process lives, renew what it holds, take what is free and its due, and give back what is more.

        Due is an even share of all shards among the living processes: rounded up, or down while one of them has less.
        """
        _ENGINE.seen_projector(conn, holder=self.holder)
        _ENGINE.forget_projectors(conn, lease=self._lease)
        shards = self._shards(conn)
        for lost in self.held.keys() - {row["shard"] for row in shards if row["ours"]}:
            del self.held[lost]
        due = self._due(conn, len(shards))
        self._give_back(conn, list(self.held)[due:])
        _ENGINE.renew_shards(
            conn, projections=self._names, shards=list(self.held), holder=self.holder, lease=self._lease
        )
        for row in shards:
            if len(self.held) >= due:
                break
            if row["free"] and row["shard"] not in self.held:
                self._take(conn, row["shard"])

    def forget(self, shard: int) -> None:
        """It turned out to be somebody else's."""
        self.held.pop(shard, None)

    def release(self, conn: Connection[Any]) -> None:
        """Give everything back, so that others need not wait."""
        self._give_back(conn, list(self.held))
        _ENGINE.gone_projector(conn, holder=self.holder)

    def _due(self, conn: Connection[Any], shards: int) -> int:
        living = {
            row["holder"]: row["shards"]
            for row in _ENGINE.living_projectors(conn, projections=self._names, lease=self._lease)
        }
        living[self.holder] = len(self.held)
        least, rest = divmod(shards, len(living))
        # What is left over goes to whoever comes first, once nobody has too little: of four shards and three processes
        # two and two would leave the third with none.
        return least + bool(rest and min(living.values()) >= least)

    def _shards(self, conn: Connection[Any]) -> list[dict[str, Any]]:
        rows = list(_ENGINE.shards(conn, projections=self._names, holder=self.holder))
        if not rows or not all(row["complete"] for row in rows):
            _ENGINE.ensure_checkpoints(conn, projections=self._names)
            rows = list(_ENGINE.shards(conn, projections=self._names, holder=self.holder))
        return rows

    def _take(self, conn: Connection[Any], shard: int) -> None:
        rows = list(
            _ENGINE.take_shard(conn, projections=self._names, shard=shard, holder=self.holder, lease=self._lease)
        )
        if rows:
            positions = {row["projection"]: row["position"] for row in rows}
            # A projection that is new has a younger epoch than the others of its shard: they are made equal.
            epoch = max(row["epoch"] for row in rows)
            _ENGINE.set_epoch(conn, projections=self._names, shard=shard, epoch=epoch, holder=self.holder)
            self.held[shard] = Held(shard, rows[0]["shards"], epoch, positions)

    def _give_back(self, conn: Connection[Any], shards: list[int]) -> None:
        if shards:
            _ENGINE.release_shards(conn, projections=self._names, shards=shards, holder=self.holder)
            for shard in shards:
                del self.held[shard]
