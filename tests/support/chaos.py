"""Things that go wrong, on purpose, and what the tables should say nevertheless."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import psycopg

from domain.event import Event
from projections.builds import Build, Missing
from projections.engine import Engine
from tests.support.model import Counts


class Interrupted(Exception):
    """The operator pressed Ctrl-C."""


class Interrupting:
    """A `projections.rebuild.Watcher` that interrupts after so many steps; never where it is None."""

    def __init__(self, after: int | None) -> None:
        self._left = after
        self.resumed = False

    def began(self, build: Build, resumed: bool) -> None:
        self.resumed = resumed
        self._step()

    def loaded(self, events: int, position: int, head: int) -> None:
        self._step()

    def making(self, one: Missing, number: int, of: int) -> None:
        self._step()

    def waiting(self, what: str) -> None:
        pass

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Interrupted


@contextmanager
def severed(engine: Engine, admin: psycopg.Connection[Any]) -> Iterator[list[int]]:
    """The engine's connection is ended when it has written a batch's rows and not yet moved the checkpoint, once."""
    move = Engine._move
    cuts: list[int] = []

    def cut(self: Engine, conn: Any, *args: Any) -> None:
        if self is engine and not cuts:
            cuts.append(conn.info.backend_pid)
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
        move(self, conn, *args)

    with patch.object(Engine, "_move", cut):
        yield cuts


def standing(admin: psycopg.Connection[Any]) -> Counts:
    """What is projected at this moment: up to the checkpoints, without what is parked or skipped."""
    reached = {
        (projection, shard): (position, shards)
        for projection, shard, shards, position in admin.execute(
            "SELECT projection, shard, shards, position FROM evosense_ops.projection_checkpoints"
        )
    }
    layouts = {shards for _, shards in reached.values()}
    assert len(layouts) <= 1
    shards = layouts.pop() if layouts else 1
    there = not_aside(admin)

    def counts(projection: str, position: int, event: Event) -> bool:
        shard = int.from_bytes(event.tenant_id.bytes[-2:]) % shards
        up_to, _ = reached.get((projection, shard), (0, 0))
        return position <= up_to and there(projection, position, event)

    return counts


def not_aside(admin: psycopg.Connection[Any], *, until: int | None = None) -> Counts:
    """What is neither parked nor skipped at this moment, up to a position."""
    parked: dict[int, list[str]] = dict(
        admin.execute(
            "SELECT position, projections FROM evosense_ops.parked_events WHERE subscriber = 'projector'"
        ).fetchall()
    )
    skipped = {position for (position,) in admin.execute("SELECT position FROM evosense_ops.skipped_events")}

    def counts(projection: str, position: int, event: Event) -> bool:
        if until is not None and position > until:
            return False
        return position not in skipped and projection not in parked.get(position, ())

    return counts
