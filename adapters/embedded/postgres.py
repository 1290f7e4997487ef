"""The embedded PostgreSQL 18 with pgvector: one cluster below the home, on loopback, with a password."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from typing import ClassVar, Literal
from urllib.parse import quote

import psycopg

from adapters.embedded import process
from adapters.embedded.binaries import POSTGRES_MAJOR, postgres_binaries
from adapters.embedded.errors import EmbeddedError
from adapters.embedded.home import (
    Account,
    explained,
    give_tree,
    make_directory,
    prepare_home,
    read_text,
    sync_directory,
    write_private,
)
from adapters.embedded.process import LOOPBACK, FileLock
from adapters.embedded.program import Instance, Program
from adapters.embedded.supervisor import Held, Server, obtain

ADMIN = "evosense_admin"
DATABASE = "evosense"

_SETTINGS = {
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_connections": "100",
    # Not `minimal`: a base backup and point-in-time recovery stay possible.
    "wal_level": "replica",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    # A statement, a parameter, a DETAIL and even an ERROR's own text can quote personal data (DESIGN rule 6).
    # The client gets them; the log keeps what the server says about itself (LOG, FATAL, PANIC).
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "none",
}
# What keeps the server private and in its place.
_FIXED = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "logging_collector": "off"}
_RESERVED = {*_FIXED, "port", "data_directory", "hba_file", "ident_file", "config_file", "external_pid_file"}
# Parallel index builds put all of maintenance_work_mem there, and a container has 64 MB by default.
_SHM_NEEDED = 512 * 1024 * 1024


class PostgresServer(Server):
    """The running cluster. `dsn` contains the superuser's password: never log it."""

    def __init__(self, program: PostgresProgram, held: Held) -> None:
        super().__init__(program, held.instance, held.lock, held.child)
        self._password = program.password()

    @property
    def dsn(self) -> str:
        """URI of the database `evosense` as the superuser."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """URI of a database; as the superuser unless another user is named."""
        if user is None:
            user, password = ADMIN, self._password
        return _dsn(self.port, database, user, password)


def start_postgres(home: Path, *, settings: Mapping[str, str] | None = None, timeout: float = 60) -> PostgresServer:
    """Start the cluster below `home` (made on the first start), or attach to it, or adopt it.

    `settings` are PostgreSQL parameters over our own; a server that runs already keeps those it has. `timeout` is in
    seconds; a server that recovers after a crash may take ten times as long.

    Call it in the main thread: only there can SIGTERM and SIGHUP be made to stop the server on the way out.

    Raises EmbeddedError.
    """
    for name in settings or {}:
        if name.lower() in _RESERVED or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            raise EmbeddedError(f"The PostgreSQL setting {name!r} cannot be set here: the supervisor decides it.")
    home, account = prepare_home(home)
    program = PostgresProgram(home, account, settings or {})
    return PostgresServer(program, obtain(program, timeout))


class PostgresProgram(Program):
    """How PostgreSQL is initialised, started, recognised and asked."""

    title = "PostgreSQL"
    executables = ("postgres", "initdb")
    # Fast, immediate, and at last what a kernel does. SIGTERM would wait until every client has gone.
    stop_signals: ClassVar = ((SIGINT, 20.0), (SIGQUIT, 10.0), (SIGKILL, 5.0))

    def __init__(self, home: Path, account: Account | None, settings: Mapping[str, str]) -> None:
        super().__init__(home / "postgres", account)
        self.home = home
        self.data = self.directory / "data"
        self.password_file = self.directory / "password"
        self.settings = settings

    def find(self) -> Instance | None:
        """Read postmaster.pid, and believe it only if that process is a postmaster on this data directory."""
        lines = (read_text(self.data / "postmaster.pid") or "").splitlines()
        try:
            pid, port = int(lines[0]), int(lines[3])
        except (IndexError, ValueError):
            return None  # not written yet, or not to be trusted
        if not process.runs(pid, "postgres", "-D", str(self.data)):
            return None
        status = lines[7].strip() if len(lines) > 7 else "starting"
        states: dict[str, Literal["starting", "ready", "stopping"]] = {"ready": "ready", "stopping": "stopping"}
        return Instance(pid, port, states.get(status, "starting"))

    def answers(self, port: int) -> bool:
        """Whether the superuser can log in."""
        try:
            with psycopg.connect(_dsn(port, "postgres", ADMIN, self.password()), connect_timeout=5):
                return True
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedError(
                    f"PostgreSQL in {self.data} does not accept the password in {self.password_file}: put the file "
                    "that belongs to this data directory back."
                ) from None
            return False

    def password(self) -> str:
        """The superuser's password. Raises EmbeddedError when the file is gone or not ours to read."""
        with explained(self.password_file):
            text = read_text(self.password_file)
        if not text:
            raise EmbeddedError(f"{self.password_file} is missing; without it nobody gets into {self.data}.")
        return text

    def launch(self, liveness: FileLock, port: int | None) -> subprocess.Popen[bytes]:
        """Initialise the cluster when there is none, and start the postmaster."""
        binaries = postgres_binaries(self.home, self.account)
        if self.data.exists():
            self._check_version()
            self.password()
        else:
            self._initialise(binaries.initdb, liveness)
        give_tree(self.data, self.account)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        options = {**_SETTINGS, **self.settings, **_FIXED}
        options.setdefault("dynamic_shared_memory_type", _shared_memory())
        argv = [str(binaries.postgres), "-D", str(self.data), "-p", str(port or process.free_port())]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        return process.spawn(argv, account=self.account, log=self.log, inherit=liveness.descriptor)

    def finish(self, port: int) -> None:
        """Create the database `evosense` when it is missing."""
        with psycopg.connect(_dsn(port, "postgres", ADMIN, self.password()), autocommit=True) as connection:
            present = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if present is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _initialise(self, initdb: Path, liveness: FileLock) -> None:
        if not read_text(self.password_file):
            write_private(self.password_file, secrets.token_hex(24))
        partial = self.directory / "data.partial"  # what a killed initdb left is no cluster
        shutil.rmtree(partial, ignore_errors=True)
        make_directory(partial, account=self.account)
        # initdb runs as the server's user, who cannot read the password file, and may open no pipe of ours.
        secret = self.directory / "initdb-password"
        write_private(secret, self.password(), account=self.account)
        since = process.log_size(self.log)
        argv = [str(initdb), "-D", str(partial), "-U", ADMIN, f"--pwfile={secret}", "--auth=scram-sha-256"]
        argv += ["--encoding=UTF8", "--locale=C", "--data-checksums"]
        child = process.spawn(argv, account=self.account, log=self.log, inherit=liveness.descriptor)
        try:
            code = child.wait()
        finally:
            with suppress(ProcessLookupError):
                child.kill()
            child.wait()
            secret.unlink(missing_ok=True)
        if code != 0:
            tail = process.log_tail(self.log, since)
            raise EmbeddedError(f"initdb could not make a cluster in {self.directory}:\n{tail}")
        partial.replace(self.data)
        sync_directory(self.directory)

    def _check_version(self) -> None:
        version = (read_text(self.data / "PG_VERSION") or "none").strip()
        if version != str(POSTGRES_MAJOR):
            raise EmbeddedError(
                f"{self.data} is not a data directory of PostgreSQL {POSTGRES_MAJOR} (version found: {version}). "
                "Move it away, or set EVOSENSE_HOME to another directory."
            )


def _dsn(port: int, database: str, user: str, password: str | None) -> str:
    secret = f":{quote(password, safe='')}" if password is not None else ""
    return f"postgresql://{quote(user, safe='')}{secret}@{LOOPBACK}:{port}/{quote(database, safe='')}"


def _shared_memory() -> str:
    if not sys.platform.startswith("linux"):
        return "posix"
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 -- asked for its size, nothing is put there
        writable = Path("/dev/shm").stat().st_mode & 0o002  # noqa: S108
    except OSError:
        return "mmap"
    return "posix" if writable and shm.f_bavail * shm.f_frsize >= _SHM_NEEDED else "mmap"
