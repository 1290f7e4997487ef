"""Building read models to the side: fresh tables in a schema of their own, loaded from the log, then indexed.

A build is a row of `evosense_ops.builds` and a schema. Its position moves in the transactions that write its rows, so
that a build that was killed goes on where it was. The tables are loaded with nothing but their keys; everything else
that the live tables have is made afterwards, piece by piece.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import Connection

from projections.builds import Build, BuildError, Missing, Purpose, build_of, chosen
from projections.fingerprint import fingerprint
from projections.loading import Loader
from sql import queries

#: Memory for building one index; a vector index that does not fit takes many times as long.
INDEX_MEMORY: Final = "256MB"
#: The number of the guard that lets one rebuild, rollback or new layout of shards run at a time.
REBUILD_GUARD: Final = 1
#: Guards of audits and replays: this number and the build's.
_OWN_GUARD: Final = 1000

#: How long the server may take to notice that a process is gone, and how often that is looked for, in seconds.
_GONE_S: Final = 2.0
_PAUSE_S: Final = 0.1

_BUILDS: Final = queries("builds")


class Builder(Loader):
    """Builds read models to the side: records, makes and drops them, beside what `Loader` does with their rows."""

    # ------------------------------------------------------------------------------------------------ the record

    def builds(self, conn: Connection[Any]) -> list[Build]:
        """All builds, in the order in which they were begun."""
        return [build_of(row) for row in _BUILDS.builds(conn)]

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
                build = build_of(row)
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
            yield conn if self._guarded(conn, number) else None
        finally:
            conn.close()

    @staticmethod
    def _guarded(conn: Connection[Any], number: int) -> bool:
        # The session of a process that was killed goes on for a moment, until the server has noticed.
        deadline = time.monotonic() + _GONE_S
        while not (ours := bool(_BUILDS.try_guard(conn, number=number))) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        return ours

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
        if build.state == "loading":
            with conn.transaction():
                _BUILDS.load_settings(conn)
                self.settle(conn, build)
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
