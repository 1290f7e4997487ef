"""Loading: the log folded into the tables of a build, in big batches, with the next one read ahead."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.persistence import Mapper
from psycopg import Connection

from projections.batch import Projection, Settling
from projections.builds import Build, LeaveOut, OnProgress, chosen
from projections.catalog import all_projections
from projections.faults import PoisonEvent, ProjectionConflict
from projections.folding import Folder, Opened, without
from projections.parking import skipped_between
from projections.reading import EVERYTHING, LogReader, Page, Part, read
from sql import queries

#: Events at once while loading. Big batches write most messages once: with their analysis, which follows soon.
BATCH: Final = 10_000
#: Bytes of sealed events at once; two batches are in memory, one being read ahead.
BYTES: Final = 24 * 1024 * 1024

_BUILDS: Final = queries("builds")


class Loader:
    """Folds the log into the tables of a build. `connect` gives connections as the projector's role."""

    def __init__(
        self,
        reader: LogReader,
        mapper: Mapper[UUID],
        connect: Callable[[], Connection[Any]],
        *,
        batch: int = BATCH,
    ) -> None:
        self.reader = reader
        self._mapper = mapper
        self.connect = connect
        self._batch = batch

    def head(self) -> int:
        """The last position of the log; 0 while it is empty."""
        return self.reader.max_notification_id() or 0

    def load(
        self,
        conn: Connection[Any],
        build: Build,
        target: int,
        on_progress: OnProgress,
        *,
        leave_out: LeaveOut = MappingProxyType({}),
        tenant_id: UUID | None = None,
        bare: bool = True,
    ) -> int:
        """Fold the log up to `target` into the build's tables; returns the number of events.

        `on_progress` is called with the events so far and the position. `bare`: the tables have nothing but their keys
        yet. Raises `PoisonEvent` at the first event that can't be projected; what came before it stays.
        """
        folder = Folder(self._mapper, chosen(build.projections, build.schema_name, bare=bare))
        part = Part(tenant_id=tenant_id, topics=_topics(folder.projections))

        def move(position: int) -> None:
            self._move(conn, build, position)

        def moved(events: int, position: int) -> None:
            build.position = position
            on_progress(events, position)

        return self._stream(conn, folder, part, build.position, target, move, moved, leave_out)

    def load_shard(self, conn: Connection[Any], build: Build, shard: int, target: int, on_progress: OnProgress) -> int:
        """Fold one tenant shard of a build that is loaded in shards up to `target`; returns the number of events.

        Several processes may do so at once, each with another shard: no two write the same rows. Raises as `load` does.
        """
        if build.positions is None:
            raise ValueError("the build is not loaded in shards")
        folder = Folder(self._mapper, chosen(build.projections, build.schema_name, bare=True))
        part = Part(shard, len(build.positions), topics=_topics(folder.projections))
        at = build.positions[shard]

        def move(position: int) -> None:
            nonlocal at
            if (
                _BUILDS.move_build_shard(conn, id=build.id, shard=shard + 1, from_position=at, to_position=position)
                != 1
            ):
                raise ProjectionConflict(f"another process is working on build {build.schema_name}")
            at = position

        return self._stream(conn, folder, part, at, target, move, on_progress)

    def divide(self, conn: Connection[Any], build: Build, shards: int) -> None:
        """From here on the build is loaded in so many tenant shards."""
        positions = [build.position] * shards
        _BUILDS.divide_build(conn, id=build.id, positions=positions)
        build.positions = positions

    def unite(self, conn: Connection[Any], build: Build, position: int) -> None:
        """All shards of the build have come to one position: it goes on as one."""
        _BUILDS.level_build(conn, id=build.id, position=position)
        build.position, build.positions = position, None

    def _stream(
        self,
        conn: Connection[Any],
        folder: Folder,
        part: Part,
        start: int,
        target: int,
        move: Callable[[int], None],
        on_progress: OnProgress,
        leave_out: LeaveOut = MappingProxyType({}),
    ) -> int:
        """Fold a part of the log from `start` to `target`, a page a transaction, of which `move` is the last step."""
        events, at = 0, start
        with ThreadPoolExecutor(1, "read ahead") as ahead:
            coming = ahead.submit(self._read, folder, at, target, part, self._batch)
            while at < target:
                page, opened = coming.result()
                # Where the log ends before the target, nothing lies between.
                reached = page.reached if page.reached > at else target
                if reached < target:
                    coming = ahead.submit(self._read, folder, reached, target, part, _limit(self._batch, page))
                with conn.transaction():
                    _BUILDS.load_settings(conn)
                    self._apply(conn, folder, page, opened, at, leave_out)
                    move(reached)
                at = reached
                events += len(page.notifications)
                on_progress(events, at)
        return events

    def fold_within(self, conn: Connection[Any], build: Build, target: int) -> int:
        """Fold the rest of the log up to `target` into tables that are complete, within the caller's transaction.

        The build's own record of its position is moved, too. Returns where it then stands; `build` itself is unchanged,
        since the transaction may fail. Raises as `load` does.
        """
        folder = Folder(self._mapper, chosen(build.projections, build.schema_name))
        part = Part(topics=_topics(folder.projections))
        there = msgspec.structs.replace(build)
        while there.position < target:
            page, opened = self._read(folder, there.position, target, part, self._batch)
            if page.reached <= there.position:
                self._move(conn, there, target)
                break
            self._apply(conn, folder, page, opened, there.position)
            self._move(conn, there, page.reached)
            there.position = page.reached
        return target

    def complete(self, conn: Connection[Any], build: Build) -> None:
        """Fold in what was parked when the tables were set aside. Raises `PoisonEvent` where that can't be done."""
        with conn.transaction():
            for lacking in build.parked:
                after, at = lacking.position - 1, lacking.position
                folder = Folder(self._mapper, chosen(lacking.projections, build.schema_name))
                page, opened = self._read(folder, after, at, limit=1)
                self._apply(conn, folder, page, opened, after)
            _BUILDS.unpark_build(conn, id=build.id)
        build.parked = []

    def level(self, conn: Connection[Any], build: Build) -> None:
        """Bring the shards of tables that were set aside at different positions to one."""
        if build.positions is None:
            return
        target = max(build.positions)
        with conn.transaction():
            self.advance(conn, build, build.positions, [target] * len(build.positions))
            _BUILDS.level_build(conn, id=build.id, position=target)
        build.position, build.positions = target, None

    def advance(
        self,
        conn: Connection[Any],
        build: Build,
        starts: Sequence[int],
        ends: Sequence[int],
        *,
        leave_out: LeaveOut = MappingProxyType({}),
        tenant_id: UUID | None = None,
        bare: bool = False,
    ) -> None:
        """Fold each shard from its start to its end, within the caller's transaction and without moving the record."""
        folder = Folder(self._mapper, chosen(build.projections, build.schema_name, bare=bare))
        for shard, (start, end) in enumerate(zip(starts, ends, strict=True)):
            part = Part(shard, len(starts), tenant_id, _topics(folder.projections))
            at = start
            while at < end:
                page, opened = self._read(folder, at, end, part, self._batch)
                self._apply(conn, folder, page, opened, at, leave_out)
                at = page.reached if page.reached > at else end

    @staticmethod
    def settle(conn: Connection[Any], build: Build) -> None:
        """Do what the projections left over while the tables were bare, within the caller's transaction."""
        for projection in chosen(build.projections, build.schema_name, bare=True):
            if isinstance(projection, Settling):
                projection.settle(conn)

    def _read(
        self, folder: Folder, after: int, target: int, part: Part = EVERYTHING, limit: int = BATCH
    ) -> tuple[Page, list[Opened]]:
        page = read(self.reader, after, limit, target, part)
        return page, folder.open(page.notifications)

    def _apply(
        self,
        conn: Connection[Any],
        folder: Folder,
        page: Page,
        opened: Sequence[Opened],
        after: int,
        leave_out: LeaveOut = MappingProxyType({}),
    ) -> None:
        rest = without(opened, skipped_between(conn, after, page.reached))
        for projections, events in _divided(folder.projections, rest, leave_out):
            try:
                with conn.transaction():
                    folder.apply(conn, events, projections)
            except PoisonEvent:
                folder.apply_singly(conn, events, projections)

    @staticmethod
    def _move(conn: Connection[Any], build: Build, position: int) -> None:
        if _BUILDS.move_build(conn, id=build.id, from_position=build.position, to_position=position) != 1:
            raise ProjectionConflict(f"another process is working on build {build.schema_name}")


def _topics(projections: Sequence[Projection]) -> tuple[str, ...]:
    """What a part of the projections reads; nothing, which is everything, where all of them are there.

    Then an event of a type that this program does not know is met, and not passed over.
    """
    if len(projections) == len(all_projections()):
        return ()
    return tuple(
        f"{event.type_name}:{version}"
        for event in {event for projection in projections for event in projection.events}
        for version in range(1, event.type_version + 1)
    ) or ("nothing",)


def _divided(
    projections: Sequence[Projection], opened: Sequence[Opened], leave_out: LeaveOut
) -> Iterator[tuple[list[Projection], list[Opened]]]:
    """The projections in their order, those together that leave out the same events, with what is left for them."""
    here = {one.notification.id for one in opened} & leave_out.keys()
    for left_out, group in groupby(projections, lambda p: {at for at in here if p.name in leave_out[at]}):
        yield list(group), without(opened, left_out)


def _limit(batch: int, page: Page) -> int:
    """How many events the next page may have, given how big those of the last one were."""
    if not page.notifications:
        return batch
    average = sum(len(one.state) for one in page.notifications) // len(page.notifications)
    return max(1, min(batch, BYTES // max(1, average)))
