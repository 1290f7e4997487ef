"""Rebuild and roll back: read models made afresh beside the live ones, and swapped in while readers go on."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from projections.build import REBUILD_GUARD, Builder
from projections.builds import Build, BuildError, Missing, OnProgress, chosen
from projections.swap import PATIENCE_S, swap
from sql import queries

_BUILDS: Final = queries("builds")


class Watcher(Protocol):
    """Who is told how a rebuild goes on."""

    def began(self, build: Build, resumed: bool) -> None:
        """It begins, or goes on where it was."""

    def loaded(self, events: int, position: int, head: int) -> None:
        """So many events were folded in this run; the build stands at a position, the log at another."""

    def making(self, one: Missing, number: int, of: int) -> None:
        """An index or another piece is being made."""

    def waiting(self, what: str) -> None:
        """Something is waited for, or has to be done first."""


class Crew(Protocol):
    """Processes that load a build together, each one tenant shard after the other."""

    @property
    def shards(self) -> int:
        """Into how many shards a build is to be divided for them."""

    @property
    def worth_from(self) -> int:
        """From how many positions on it is worth their while."""

    def load(self, build: Build, target: int, on_progress: OnProgress) -> int:
        """Load every shard of a divided build up to `target`; returns the number of events.

        Raises `BuildError` where one of them can't go on, with its reason; what was loaded stays.
        """


class Unwatched:
    """Nobody is told: for programs that need no bar."""

    def began(self, build: Build, resumed: bool) -> None:
        """See `Watcher`."""

    def loaded(self, events: int, position: int, head: int) -> None:
        """See `Watcher`."""

    def making(self, one: Missing, number: int, of: int) -> None:
        """See `Watcher`."""

    def waiting(self, what: str) -> None:
        """See `Watcher`."""


class RebuildReport(msgspec.Struct, frozen=True):
    """What a rebuild did: events folded, rows in each table afterwards, the position, and what was kept.

    `kept`: the schema that holds the tables that were live before, or None. `invalid`: foreign keys to tables that were
    not rebuilt and whose rows do not fit them, as `table.name`.
    """

    events: int
    rows: dict[str, int]
    position: int
    kept: str | None = None
    invalid: tuple[str, ...] = ()


class AlreadyRunning(BuildError):
    """Another process is rebuilding."""


def rebuild(
    builder: Builder,
    names: Sequence[str],
    watcher: Watcher,
    *,
    keep: bool = False,
    patience: float = PATIENCE_S,
    crew: Crew | None = None,
    before_swap: Callable[[], None] = lambda: None,
) -> RebuildReport:
    """Make the read models of these projections again from the log, and swap them in; same rows, ids included.

    Goes on with a build of the same projections that was interrupted, if it is of the same program. `keep`: the old
    tables stay, for `rollback`. `crew`: processes that share the loading. `before_swap` is called when all is ready.
    Raises `AlreadyRunning`; `PoisonEvent` at the first event that can't be projected, and `BuildError` where something
    stands in the way: nothing that is live has changed then.
    """
    wanted = [projection.name for projection in chosen(names)]
    with builder.guard(REBUILD_GUARD) as guard, builder.connect() as conn:
        if guard is None:
            raise AlreadyRunning("a rebuild, a rollback or a new layout of shards is running already")
        _refuse_obstacles(conn, [table for projection in chosen(wanted) for table in projection.tables])
        build, resumed = _begun(builder, conn, wanted, watcher)
        watcher.began(build, resumed)
        events = _fill(builder, conn, build, watcher, crew)
        before_swap()
        _BUILDS.is_alive(guard)  # raises where the guard's session was lost: somebody else may be at it
        kept = swap(builder, conn, build, watcher.waiting, patience=patience)
        return _settle(builder, conn, kept, events, keep=keep)


def rollback(builder: Builder, watcher: Watcher, *, keep: bool = False, patience: float = PATIENCE_S) -> RebuildReport:
    """Bring the tables that were kept last up to date with the log, and swap them in again.

    Raises `BuildError` where none were kept, or where the schema was migrated since; otherwise as `rebuild`.
    """
    with builder.guard(REBUILD_GUARD) as guard, builder.connect() as conn:
        if guard is None:
            raise AlreadyRunning("a rebuild, a rollback or a new layout of shards is running already")
        kept = [build for build in builder.builds(conn) if build.purpose == "kept"]
        if not kept:
            raise BuildError("nothing was kept: a rebuild keeps the old tables with --keep")
        build = kept[-1]
        if build.schema_version != _BUILDS.schema_version(conn):
            raise BuildError(
                f"the tables in {build.schema_name} are of schema version {build.schema_version}, and the database was "
                "migrated since: they can't be brought back; rebuild instead"
            )
        _refuse_obstacles(conn, build.tables)
        watcher.began(build, True)
        builder.complete(conn, build)
        builder.level(conn, build)
        head = builder.head()
        events = builder.load(
            conn, build, head, lambda events, position: watcher.loaded(events, position, head), bare=False
        )
        replaced = swap(builder, conn, build, watcher.waiting, patience=patience)
        return _settle(builder, conn, replaced, events, keep=keep)


def forget_kept(builder: Builder, conn: Connection[Any]) -> list[str]:
    """Drop all kept tables; returns their schemas."""
    kept = [build for build in builder.builds(conn) if build.purpose == "kept"]
    for build in kept:
        builder.drop(conn, build)
    return [build.schema_name for build in kept]


def interrupted(builder: Builder, conn: Connection[Any]) -> list[Build]:
    """Rebuilds that were begun and not finished; there is no process at them while the guard is free."""
    return [build for build in builder.builds(conn) if build.purpose == "rebuild"]


def _begun(builder: Builder, conn: Connection[Any], names: list[str], watcher: Watcher) -> tuple[Build, bool]:
    """The build to go on with and whether it was begun before. Others that were left behind are dropped."""
    found: Build | None = None
    for build in interrupted(builder, conn):
        if found is None and build.projections == names and builder.fits(conn, build):
            found = build
        else:
            watcher.waiting(f"dropping the interrupted rebuild in schema {build.schema_name}, which is of no use here")
            builder.drop(conn, build)
    if found is not None:
        return found, True
    return builder.begin(conn, "rebuild", names), False


def _refuse_obstacles(conn: Connection[Any], tables: list[str]) -> None:
    found = list(_BUILDS.build_obstacles(conn, tables=tables))
    if found:
        listed = "; ".join(f"{row['kind']} {row['name']} of {row['owner']} (on {row['on_table']})" for row in found)
        raise BuildError(
            f"these depend on the live tables and would go on reading the old ones: {listed}. "
            "Drop them, and make them again after the rebuild"
        )


def _fill(builder: Builder, conn: Connection[Any], build: Build, watcher: Watcher, crew: Crew | None) -> int:
    events = 0
    if build.state == "loading":
        # Until the log has nothing left but what was appended during the last round.
        while (head := builder.head()) > build.position or build.positions is not None:

            def loaded(so_far: int, position: int, head: int = head, before: int = events) -> None:
                watcher.loaded(before + so_far, position, head)

            if build.positions is None and crew is not None and head - build.position >= crew.worth_from:
                builder.divide(conn, build, crew.shards)
            if build.positions is None:
                events += builder.load(conn, build, head, loaded)
            else:
                events += _load_shards(builder, conn, build, head, crew, loaded)
    builder.finish(conn, build, watcher.making)
    return events


def _load_shards(
    builder: Builder, conn: Connection[Any], build: Build, target: int, crew: Crew | None, on_progress: OnProgress
) -> int:
    """Load a build that was divided, with a crew or, where it is gone on with alone, shard by shard."""
    if crew is not None:
        events = crew.load(build, target, on_progress)
    else:
        events = 0
        for shard in range(len(build.positions or ())):

            def loaded(so_far: int, position: int, before: int = events) -> None:
                on_progress(before + so_far, position)

            events += builder.load_shard(conn, build, shard, target, loaded)
    builder.unite(conn, build, target)
    return events


def _settle(builder: Builder, conn: Connection[Any], old: Build, events: int, *, keep: bool) -> RebuildReport:
    """After the swap: validate what was left for later, and drop what is no longer wanted."""
    invalid = tuple(_validate(conn, old.tables))
    for build in builder.builds(conn):
        superseded = build.purpose == "kept" and set(build.projections) & set(old.projections)
        if superseded and (build.id != old.id or not keep):
            builder.drop(conn, build)
    rows = {table: _count(conn, table) for table in old.tables}
    return RebuildReport(events, rows, builder.head(), old.schema_name if keep else None, invalid)


def _validate(conn: Connection[Any], tables: list[str]) -> list[str]:
    failed = []
    for row in list(_BUILDS.build_unvalidated(conn, tables=tables)):
        try:
            _BUILDS.build_validate(conn, table_name=row["table_name"], name=row["name"])
        except psycopg.errors.ForeignKeyViolation:
            failed.append(f"{row['table_name']}.{row['name']}")
    return failed


def _count(conn: Connection[Any], table: str) -> int:
    row = conn.execute(SQL("SELECT count(*) AS n FROM {}").format(Identifier("evosense", table))).fetchone()
    return int(row["n"]) if row else 0
