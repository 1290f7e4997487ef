"""Brings a database to this program's schema (`evosense migrate`), and says how far it is.

One administrator's connection does it all: roles and the extension as that administrator, everything else as
`evosense_owner`. A migration and its record commit together. See docs/schema.md and docs/adr/0015.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiosql
import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from adapters.login_role import LoginRoleError, ensure_login_role
from adapters.migration_files import (
    SQL_DIRECTORY,
    Manifest,
    ManifestError,
    Migration,
    SqlFile,
    load_manifest,
    split_statements,
)

#: One migration at a time in a database; the number has no meaning.
_LOCK_KEY: Final = 0x45564F53454E5345
_LOCK_WAIT_S: Final = 600.0
_LOCK_POLL_S: Final = 0.2
#: A migration that waits longer for a table would hold up everybody queueing behind it.
_LOCK_TIMEOUT: Final = "10s"

_MIN_SERVER: Final = 150000
_MIN_VECTOR: Final = (0, 8, 0)
#: Below it, HNSW indexes can be damaged by VACUUM (DESIGN section 6).
_GOOD_VECTOR: Final = (0, 8, 4)

_queries: Final[Any] = aiosql.from_path(SQL_DIRECTORY / "ops" / "migration_runner.sql", "psycopg")


class MigrationError(Exception):
    """The database could not be brought to this program's schema; the message says why and what would help."""


class SchemaTooNew(MigrationError):
    """The database was migrated by a newer program."""


class SchemaTooOld(MigrationError):
    """The database has not been migrated to this program's schema."""


@dataclass(frozen=True)
class MigrationReport:
    """What `migrate` did: versions applied, files applied again, warnings for the operator, and the version reached."""

    applied: tuple[int, ...]
    repeated: tuple[str, ...]
    warnings: tuple[str, ...]
    version: int


def migrate(
    admin_dsn: str,
    *,
    runtime_dsn: str | None = None,
    on_step: Callable[[str], None] | None = None,
    directory: Path = SQL_DIRECTORY,
) -> MigrationReport:
    """Apply what is missing, and make the login role of `runtime_dsn` where it is given.

    Safe to run twice, and twice at once: the second waits for the first. `admin_dsn` is a superuser's, or that of a
    managed cloud's administrator (docs/schema.md); it must reach PostgreSQL directly, not through a pooler in
    transaction mode. `on_step` hears of each step before it is taken. Raises `MigrationError`, of which `SchemaTooNew`
    is one.
    """
    try:
        manifest = load_manifest(directory)
        with psycopg.connect(admin_dsn, autocommit=True, row_factory=dict_row) as conn:
            return _Migrator(conn, manifest, on_step or (lambda _: None)).run(runtime_dsn)
    except (ManifestError, LoginRoleError) as error:
        raise MigrationError(str(error)) from error
    except psycopg.Error as error:
        raise MigrationError(f"the database refused: {_reason(error)}") from error


def schema_state(dsn: str, *, directory: Path = SQL_DIRECTORY) -> tuple[int, int]:
    """Return (the version that the database has, the version that this program knows). Any role may ask.

    Raises `MigrationError` where the database can't be asked.
    """
    try:
        latest = load_manifest(directory).latest
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
            return _current_version(conn), latest
    except ManifestError as error:
        raise MigrationError(str(error)) from error
    except psycopg.Error as error:
        raise MigrationError(f"the database can't be asked for its schema version: {_reason(error)}") from error


def require_current_schema(dsn: str) -> None:
    """Return where the database has this program's schema. Raises `SchemaTooOld`, `SchemaTooNew`, `MigrationError`."""
    current, latest = schema_state(dsn)
    if current > latest:
        raise _too_new(current, latest)
    if current < latest:
        raise SchemaTooOld(
            f"the database has schema version {current} and this program needs {latest}: run `evosense migrate`"
        )


class _Migrator:
    def __init__(self, conn: psycopg.Connection[DictRow], manifest: Manifest, on_step: Callable[[str], None]) -> None:
        self._conn = conn
        self._manifest = manifest
        self._on_step = on_step

    def run(self, runtime_dsn: str | None) -> MigrationReport:
        warnings = _check_server(self._conn)
        self._conn.execute("SET client_min_messages = warning")
        with self._only_one():
            current = _current_version(self._conn)
            if current > self._manifest.latest:
                raise _too_new(current, self._manifest.latest)
            self._bootstrap()
            pending = self._pending()
            for migration in pending:
                self._on_step(f"migration {migration.version}: {migration.name}")
                self._apply(migration)
            repeated = self._repeat(everything=bool(pending))
            if runtime_dsn:
                self._on_step("login role of the running system")
                warnings += ensure_login_role(self._conn, _queries, runtime_dsn)
        return MigrationReport(
            tuple(m.version for m in pending), tuple(repeated), tuple(warnings), self._manifest.latest
        )

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        deadline = time.monotonic() + _LOCK_WAIT_S
        told = False
        while not _queries.try_lock(self._conn, key=_LOCK_KEY):
            if not told:
                self._on_step("waiting for another migration of this database")
                told = True
            if time.monotonic() > deadline:
                raise MigrationError(f"another migration of this database has been running for {_LOCK_WAIT_S:.0f} s")
            time.sleep(_LOCK_POLL_S)
        try:
            yield
        finally:
            # Where the connection broke, the lock went with it.
            if not self._conn.closed:
                _queries.unlock(self._conn, key=_LOCK_KEY)

    def _bootstrap(self) -> None:
        with self._conn.transaction():
            for file in self._manifest.bootstrap:
                self._execute(file)
        search_path = _queries.take_search_path(self._conn)
        # Loads the extension's library: without it only a superuser may write hnsw.* into a function's settings.
        self._conn.execute("SELECT '[1]'::vector")
        if not _queries.database_has_search_path(self._conn, search_path=search_path):
            database = sql.Identifier(self._conn.info.dbname)
            self._conn.execute(sql.SQL("ALTER DATABASE {} SET search_path FROM CURRENT").format(database))
        with self._as_owner():
            for file in self._manifest.bookkeeping:
                self._execute(file)

    def _pending(self) -> list[Migration]:
        """The migrations to apply. Raises `MigrationError` where an applied one was changed since."""
        applied = {row["version"]: row for row in _queries.applied_migrations(self._conn)}
        for migration in self._manifest.migrations:
            record = applied.get(migration.version)
            if record and record["checksum"] != migration.checksum:
                raise MigrationError(
                    f"migration {migration.version} was applied to this database, but {_changes(migration, record)} "
                    "since: put it back as it was, and make the change in a migration of its own"
                )
        return [m for m in self._manifest.migrations if m.version not in applied]

    def _apply(self, migration: Migration) -> None:
        if migration.in_transaction:
            with self._as_owner():
                for file in migration.files:
                    self._execute(file)
                self._record(migration)
            return
        with self._session_as_owner():
            for file in migration.files:
                for statement in split_statements(file.text):
                    self._execute(file, statement)
        with self._as_owner():
            self._record(migration)

    def _record(self, migration: Migration) -> None:
        _queries.record_migration(
            self._conn,
            version=migration.version,
            name=migration.name,
            checksum=migration.checksum,
            files=json.dumps({f.path: f.checksum for f in migration.files}),
            program=_program_version(),
        )

    def _repeat(self, *, everything: bool) -> list[str]:
        """Apply the repeatable files from the first changed one on: later ones may depend on it."""
        known = {row["file"]: row["checksum"] for row in _queries.repeatable_checksums(self._conn)}
        files = self._manifest.repeatable
        changed = [i for i, f in enumerate(files) if everything or known.get(f.path) != f.checksum]
        if not changed:
            return []
        due = files[changed[0] :]
        self._on_step(f"functions, views, policies and grants ({len(due)} files)")
        with self._as_owner():
            for file in due:
                self._execute(file)
                _queries.record_repeatable(self._conn, file=file.path, checksum=file.checksum)
        return [f.path for f in due]

    def _execute(self, file: SqlFile, statement: str | None = None) -> None:
        try:
            # Bytes, because the text is a file's and not a literal; without parameters, so that it may hold several
            # statements.
            self._conn.execute((statement or file.text).encode(), prepare=False)
        except psycopg.errors.LockNotAvailable as error:
            raise MigrationError(
                f"{file.path}: something has held a table for more than {_LOCK_TIMEOUT}; nothing of this step was "
                "kept, run `evosense migrate` again when that has ended"
            ) from error
        except psycopg.Error as error:
            raise MigrationError(f"{file.path}: {_reason(error)}") from error

    @contextmanager
    def _as_owner(self) -> Iterator[None]:
        with self._conn.transaction():
            self._conn.execute("SET LOCAL ROLE evosense_owner")
            self._conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(_LOCK_TIMEOUT))
            yield

    @contextmanager
    def _session_as_owner(self) -> Iterator[None]:
        self._conn.execute("SET ROLE evosense_owner")
        self._conn.execute(sql.SQL("SET lock_timeout = {}").format(_LOCK_TIMEOUT))
        try:
            yield
        finally:
            self._conn.execute("RESET ROLE")
            self._conn.execute("RESET lock_timeout")


def _current_version(conn: psycopg.Connection[DictRow]) -> int:
    return int(_queries.current_version(conn)) if _queries.is_bootstrapped(conn) else 0


def _check_server(conn: psycopg.Connection[DictRow]) -> list[str]:
    """Refuse servers that can't hold the schema; return warnings about those that hold it badly."""
    if conn.info.server_version < _MIN_SERVER:
        raise MigrationError(f"PostgreSQL {conn.info.server_version // 10000} is too old: 15 or newer is needed")
    offered = _queries.vector_version(conn)
    if offered is None:
        raise MigrationError("the server has no pgvector: install pgvector 0.8.4 or newer for its PostgreSQL version")
    return check_vector_version(offered["version"], installed=offered["installed"])


def check_vector_version(version: str, *, installed: bool) -> list[str]:
    """Return warnings about this pgvector version. Raises `MigrationError` where it is too old to work with."""
    number = tuple(int(part) for part in version.split(".") if part.isdigit())
    remedy = "install a newer one" + (" and run ALTER EXTENSION vector UPDATE" if installed else "")
    if number < _MIN_VECTOR:
        raise MigrationError(f"pgvector {version} is too old: 0.8.0 is needed and 0.8.4 recommended; {remedy}")
    if number < _GOOD_VECTOR:
        return [f"pgvector {version}: before 0.8.4, VACUUM can damage HNSW indexes; {remedy}"]
    return []


def _too_new(current: int, latest: int) -> SchemaTooNew:
    return SchemaTooNew(
        f"the database has schema version {current} and this program knows {latest}: it was migrated by a newer "
        "program; use that one (a schema is never taken back)"
    )


def _changes(migration: Migration, record: dict[str, Any]) -> str:
    then: dict[str, str] = record["files"]
    now = {f.path: f.checksum for f in migration.files}
    found = (
        *_said("was changed", (path for path in now if path in then and then[path] != now[path])),
        *_said("was removed", (path for path in then if path not in now)),
        *_said("was added", (path for path in now if path not in then)),
    )
    return " and ".join(found) or "the order of its files was changed"


def _said(what: str, paths: Iterable[str]) -> Iterator[str]:
    return (f"{path} {what}" for path in paths)


def _reason(error: psycopg.Error) -> str:
    # The primary message alone: details quote rows, and rows hold personal data.
    return error.diag.message_primary or str(error).strip().splitlines()[0]


def _program_version() -> str:
    try:
        return importlib.metadata.version("evosense")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
