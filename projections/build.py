"""Building read models to the side: fresh tables in a schema of their own, loaded from the log, then indexed.

A build is a row of `evosense_ops.builds` and a schema. Its position moves in the transactions that write its rows, so
that a build that was killed goes on where it was. The tables are loaded with nothing but their keys; everything else
that the live tables have is made afterwards, piece by piece.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from eventsourcing.persistence import Mapper
from psycopg import Connection

from projections.batch import Projection
from projections.catalog import all_projections
from projections.faults import PoisonEvent, ProjectionConflict
from projections.fingerprint import fingerprint
from projections.folding import Folder, Opened, without
from projections.parking import skipped_between
from projections.reading import EVERYTHING, LogReader, Page, Part, read
from sql import queries

#: Events at once while loading. Big batches write most messages once: with their analysis, which follows soon.
BATCH: Final = 10_000
#: Bytes of sealed events at once; two batches are in memory, one being read ahead.
BYTES: Final = 24 * 1024 * 1024
#: Memory for building one index; a vector index that does not fit takes many times as long.
INDEX_MEMORY: Final = "256MB"
#: The number of the guard that lets one rebuild, rollback or new layout of shards run at a time.
REBUILD_GUARD: Final = 1
#: Guards of audits and replays: this number and the build's.
_OWN_GUARD: Final = 1000

#: Positions that are to be left out, each with the names of the projections that leave it out.
LeaveOut = Mapping[int, Collection[str]]
Purpose = Literal["rebuild", "audit", "replay", "kept"]
OnProgress = Callable[[int, int], None]

_BUILDS: Final = queries("builds")


class BuildError(Exception):
    """A build can't be begun or go on; the message says why and what to do."""


class Lacking(msgspec.Struct):
    """An event that was parked for some projections when their tables were set aside: they are without it."""

    position: int
    projections: list[str]


class Build(msgspec.Struct):
    """A build as it is recorded."""

    id: int
    schema_name: str
    purpose: Purpose
    projections: list[str]
    tables: list[str]
    state: Literal["loading", "finishing", "ready"]
    position: int
    until: int | None
    positions: list[int] | None
    parked: list[Lacking]
    fingerprint: str
    schema_version: int


class Missing(NamedTuple):
    """Something that the live tables have and the build's not yet."""

    kind: str
    table_name: str
    name: str


class Builder:
    """Builds read models to the side. `connect` gives connections as the projector's role."""

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

    # ------------------------------------------------------------------------------------------------ the record

    def builds(self, conn: Connection[Any]) -> list[Build]:
        """All builds, in the order in which they were begun."""
        return [_build(row) for row in _BUILDS.builds(conn)]

    def begin(
        self,
        conn: Connection[Any],
        purpose: Purpose,
        names: Sequence[str],
        *,
        schema: str | None = None,
        until: int | None = None,
        unlogged: bool = False,
    ) -> Build:
        """Record a build and make its empty tables. `schema`: its name, where it is not to be made up.

        Raises `BuildError` where a schema of that name exists, or where it is not a name.
        """
        tables = [table for projection in chosen(names) for table in projection.tables]
        if schema is not None and _BUILDS.build_of_schema(conn, schema=schema) is not None:
            raise BuildError(f"schema {schema} is a build already: drop it first, or take another name")
        try:
            with conn.transaction():
                row = _BUILDS.add_build(
                    conn,
                    schema=schema,
                    purpose=purpose,
                    projections=list(names),
                    tables=tables,
                    until=until,
                    fingerprint=fingerprint(),
                    schema_version=_BUILDS.schema_version(conn),
                )
                build = _build(row)
                # Before anybody can see it.
                self.hold(conn, build)
                _BUILDS.build_begin(conn, schema=build.schema_name, unlogged=unlogged)
        except psycopg.errors.CheckViolation:
            raise BuildError(
                f"{schema!r} is not a name that a build may have: small letters, digits and _, at most 63 of them, "
                "and none of evosense, public, pg_…"
            ) from None
        except psycopg.errors.DuplicateSchema as error:
            raise BuildError(str(error.diag.message_primary)) from None
        return build

    def fits(self, conn: Connection[Any], build: Build) -> bool:
        """Whether this program can go on with it: the same projectors over the same schema."""
        return build.fingerprint == fingerprint() and build.schema_version == _BUILDS.schema_version(conn)

    def drop(self, conn: Connection[Any], build: Build) -> None:
        """Drop its schema and its record. Raises `BuildError` where something else depends on its tables."""
        try:
            with conn.transaction():
                _BUILDS.build_drop(conn, schema=build.schema_name)
        except psycopg.errors.DependentObjectsStillExist as error:
            raise BuildError(str(error.diag.message_primary)) from None

    def drop_orphans(self, conn: Connection[Any], purpose: Purpose) -> None:
        """Drop builds of that purpose whose process is gone."""
        for build in self.builds(conn):
            if build.purpose == purpose and build.state != "ready" and self._holds(conn, build):
                self.drop(conn, build)

    def hold(self, conn: Connection[Any], build: Build) -> None:
        """Make a build this session's own, for as long as that lasts; one that was just begun is.

        Raises `BuildError` where another process is working on it.
        """
        if not self._holds(conn, build):
            raise BuildError(f"another process is working on schema {build.schema_name}")

    @staticmethod
    def _holds(conn: Connection[Any], build: Build) -> bool:
        return bool(_BUILDS.try_guard(conn, number=_OWN_GUARD + build.id))

    @contextmanager
    def guard(self, number: int) -> Iterator[Connection[Any] | None]:
        """Hold a guard for as long as the block lasts; None where another process holds it.

        It lives in a session of its own, and so ends with the process, however that ends.
        """
        conn = self.connect()
        try:
            yield conn if _BUILDS.try_guard(conn, number=number) else None
        finally:
            conn.close()

    # ------------------------------------------------------------------------------------------------ rows

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
        projections = chosen(build.projections, build.schema_name, bare=bare)
        folder = Folder(self._mapper, projections)
        part = Part(tenant_id=tenant_id, topics=_topics(projections))
        events = 0
        with ThreadPoolExecutor(1, "read ahead") as ahead:
            coming = ahead.submit(self._read, folder, build.position, target, part, self._batch)
            while True:
                page, opened = coming.result()
                if page.reached <= build.position:
                    break
                limit = _limit(self._batch, page)
                coming = ahead.submit(self._read, folder, page.reached, target, part, limit)
                with conn.transaction():
                    _BUILDS.load_settings(conn)
                    self._apply(conn, folder, page, opened, build.position, leave_out)
                    self._move(conn, build, page.reached)
                build.position = page.reached
                events += len(page.notifications)
                on_progress(events, build.position)
        if build.position < target:
            with conn.transaction():
                self._move(conn, build, target)
            build.position = target
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
                at = page.reached if page.notifications else end

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

    # ------------------------------------------------------------------------------------------------ structure

    def finish(
        self,
        conn: Connection[Any],
        build: Build,
        on_step: Callable[[Missing, int, int], None],
        *,
        kinds: Collection[str] = (),
    ) -> None:
        """Make what the live tables have and the build's lack, one piece a transaction.

        `kinds`: only these; all where empty. `on_step` is called before each piece with how many are done and how many
        there are in all.
        """
        _BUILDS.set_build_state(conn, id=build.id, state="finishing")
        missing = [Missing(**row) for row in _BUILDS.build_missing(conn, schema=build.schema_name)]
        steps = [one for one in missing if not kinds or one.kind in kinds]
        for number, one in enumerate(steps):
            on_step(one, number, len(steps))
            try:
                with conn.transaction():
                    # A crash may cost the last few pieces, too: they are missing then, and are made again.
                    _BUILDS.load_settings(conn)
                    _BUILDS.index_settings(conn, memory=INDEX_MEMORY)
                    _BUILDS.build_make(conn, schema=build.schema_name, **one._asdict())
            except psycopg.errors.ForeignKeyViolation:
                raise self._orphaned(conn, build, one) from None
        _BUILDS.set_build_state(conn, id=build.id, state="ready")
        build.state = "ready"

    def _orphaned(self, conn: Connection[Any], build: Build, key: Missing) -> BuildError:
        """Rows that point at nothing came in, since loading looks at no foreign keys; the build is dropped."""
        table, name = key.table_name, key.name
        rows = _BUILDS.build_orphans(conn, schema=build.schema_name, table_name=table, name=name, most=5)
        found = ", ".join(row["key"] for row in rows)
        self.drop(conn, build)
        return BuildError(
            f"events were projected into rows of {table} that point at rows which are not there (foreign key {name}), "
            f"the first at position {found}: what they point at was skipped or is parked. Skip them as well"
        )


def chosen(names: Iterable[str], schema: str = "evosense", *, bare: bool = False) -> list[Projection]:
    """The projections of these names, in the order in which their tables depend on one another.

    Raises `BuildError` for a name that is none.
    """
    wanted = set(names)
    found = [p for p in all_projections(schema, bare=bare) if p.name in wanted]
    if unknown := wanted - {p.name for p in found}:
        known = ", ".join(p.name for p in all_projections())
        raise BuildError(f"there is no projection {', '.join(sorted(unknown))}: there are {known}")
    return found


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


def _build(row: dict[str, Any]) -> Build:
    return msgspec.convert(row, Build)
