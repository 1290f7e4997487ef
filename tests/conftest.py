"""Real servers for the tests: one PostgreSQL and one NATS a run, a fresh migrated database for each module."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from adapters.embedded import NatsServer, PostgresServer, start_nats, start_postgres
from adapters.migrations import migrate
from adapters.settings import Settings
from adapters.vault import MasterKey
from api.wiring import ReadSide, WriteSide, read_side, write_side

#: The login of the running system in every test database.
RUNTIME = ("evosense_test", "evosense-test")


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """A directory that the servers' unprivileged user can reach; pytest's own are closed to others."""
    home = Path(tempfile.mkdtemp(prefix="evosense-tests-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(servers_home: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL with pgvector."""
    with start_postgres(servers_home) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(servers_home: Path) -> Iterator[NatsServer]:
    """A NATS server with JetStream."""
    with start_nats(servers_home) as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> Iterator[str]:
    """The administrator's DSN of a fresh, empty database."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    yield postgres.dsn_for(name)
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        conn.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture(scope="module")
def settings(database: str, postgres: PostgresServer) -> Settings:
    """Settings over a fresh database that is migrated, with a master key of its own."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    runtime = postgres.dsn_for(str(name), *RUNTIME)
    migrate(database, runtime_dsn=runtime)
    environment = {key: value for key, value in os.environ.items() if key.startswith("EVOSENSE_")}
    assert not environment, f"unset {', '.join(environment)} before the tests"
    return Settings(
        database_url=SecretStr(runtime),
        admin_database_url=SecretStr(database),
        master_key=SecretStr(MasterKey.generate_text()),
    )


@pytest.fixture(scope="module")
def write(settings: Settings) -> Iterator[WriteSide]:
    """The write side over that database."""
    side = write_side(settings)
    yield side
    side.close()


@pytest.fixture(scope="module")
def read(settings: Settings) -> Iterator[ReadSide]:
    """The projection engine over that database; the test runs it."""
    side = read_side(settings)
    yield side
    side.close()
